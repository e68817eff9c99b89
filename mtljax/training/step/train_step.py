"""The train step: a method, an optimizer and a route as one jitted program."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtljax import _labels, _params, _tree
from mtljax._types import Aggregator, Weighting
from mtljax.aggregators import _aggregate, get_stats
from mtljax.aggregators._reading import find_weights
from mtljax.gradients import _pullback
from mtljax.gradients._passes import Mode, make_passes
from mtljax.gradients._pullback import LossFn
from mtljax.training.step import (
  _absent,
  _at_features,
  _begin,
  _directions,
  _lookahead,
  _microbatch,
  _optimizer,
  _routes,
  _sample_tasks,
)
from mtljax.training.step._absent import PRESENT
from mtljax.training.step._plan import Plan, as_aggregator
from mtljax.training.step._routes import ROUTES as ROUTES
from mtljax.training.step._routes import Route
from mtljax.training.step.sharding import Layout
from mtljax.training.step.state import TrainState


class TrainStep(NamedTuple):
  """What `make_train_step` returns.

  Attributes:
    init: ``init(params, *, key, model_state=None) -> TrainState``.
    step: ``step(state, batch, val_batch=None) -> (state, metrics)``, jitted;
      donates the state. Of a `mtljax.MaskedBatch`, on the tasks that it marks.
      ``val_batch`` is for the methods that read the hypergradient, and only
      for them.
    route: the route taken.
  """

  init: Callable[..., TrainState]
  step: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
  route: str


def make_train_step(
  method: Aggregator | Weighting,
  optimizer: optax.GradientTransformation,
  loss_fn: LossFn | None = None,
  *,
  labels: _labels.Labels | None = None,
  num_tasks: int | None = None,
  tasks: _sample_tasks.Tasks = 'losses',
  route: Route = 'auto',
  every: int = 1,
  mode: Mode = 'auto',
  batch_size: int | None = None,
  chunk_size: int | None = None,
  microbatch_size: int | None = None,
  accumulate: _microbatch.Accumulate = 'gradients',
  has_state: bool = False,
  layout: Layout | None = None,
) -> TrainStep:
  r"""Builds one pure, jitted training step.

  ================ =========================================================
  route            what it does
  ================ =========================================================
  ``'losses'``     weights from the losses, one weighted backward pass; or, of a
                   method that reads one task's gradient a step, that one
  ``'jacobian'``   T backward passes, gradients kept, then combined
  ``'gramian'``    T backward passes for the Gramian only, then a weighted one
  ``'layerwise'``  T passes of signals for the Gramian, without the gradients of
                   the weights where that is less work; then a weighted pass
  ``'features'``   Gramian of the gradients at the shared features (MGDA-UB),
                   then one backward pass of the trunk: an approximation
  ``'auto'``       ``'losses'`` where the method reads no gradients or one,
                   ``'gramian'`` where it reads those of other batches,
                   ``'layerwise'`` where it reads their Gramian alone and all
                   tasks share a forward pass, else ``'jacobian'``: the
                   cheapest exact one in time; with a ``layout``, what travels
                   between devices counts too, parameter by parameter
  ================ =========================================================

  The exact routes give the same update up to rounding. The optimizer gets the
  direction in which the losses rise, the conjugate of `jax.grad`'s gradient at
  a complex parameter. ``loss_fn`` has one of
  the three forms of `mtljax.value_and_task_grads`, called with ``(params,
  batch)``; with ``has_state``, with ``(params, batch, model_state, key)``,
  and it then returns ``(losses, (model_state, metrics))``; staged: the trunk
  ``(features, model_state)`` and each head ``(loss, metrics)``; metrics are a
  dictionary. Those that all heads (or losses of a sequence) return in one shape
  are stacked to ``(T, ...)``, any other is named after its task, as
  ``'auc/1'``. Dropout and the like use ``key``, the state's key folded with the
  step.

  The model's state keeps its structure, shapes and dtypes. Where several passes
  each return one, of a sequence of losses or of parts of the batch, the mean of
  its floating leaves is kept, and of the others (counters, keys) that of the
  first pass: make them such that all passes agree. Numbers among the metrics of
  parts are averaged, whole ones too.

  A method that compares two batches (`mtljax.modo`, `mtljax.sdmgrad`) gets
  three out of each: every array of the batch is cut in three along axis 0, as
  `jax.numpy.array_split` does, for a sequence of losses every task's own. The
  first two parts decide the weights and the update is that of the third, and so
  are model state and metrics. That is the work of the other methods; for parts
  of full size make the batch three times larger. The keys of the parts differ.

  A method that reads gradients at the features (`mtljax.ntkmtl_sr`,
  `mtljax.cons_mtl`) takes the staged form of the losses alone.

  A method that learns its weights on validation data (`mtljax.auto_lambda`,
  `mtljax.moml`) gets a batch of it at every step, ``step(state, batch,
  val_batch=val_batch)``, which may be a `mtljax.MaskedBatch` and of another
  size. Its losses are taken as in training, with a key of their own; the
  model's state that they return is dropped.

  `mtljax.every_k` and `mtljax.freeze_after` around the whole method, or inside
  `mtljax.sam`, count the state's steps here, and the gradients that only the
  weights need are not computed at the steps between. (Where more than weights
  is needed, as with ``nonfinite='drop_task'``, only the solve is saved.)

  The step returns the metrics of the state before the update: ``losses`` and
  ``weights`` ``(T,)``, ``cosines`` ``(T, T)`` where the method reads the
  Gramian, and those that the loss returned.

  Of a `mtljax.MaskedBatch` the update is that of the method with ``task_mask``:
  the answer of the smaller problem. An absent task's own parameters, and what
  the optimizer keeps of them (momentum, second moments), stay as they are,
  weight decay included, and go on from there when it is back; the optimizer's
  counters are those of all parameters and go on. Metrics have ``present``
  ``(T,)`` too, and ``losses`` are NaN for absent tasks. A state that a trunk
  returns is kept whoever is present, those of heads and of a sequence's losses
  only of tasks that are. See ``docs/two_sources.md``.

  Args:
    method: a weighting, or an aggregator (which also carries conventions and
      labels), the sharpness-aware ones included.
    optimizer: plain optax; it gets one update in the parameters' shapes, and
      ``value``, the sum of the losses, if it takes that.
    loss_fn: the task losses.
    labels: for a weighting, see `mtljax.label_params`; an aggregator has its
      own.
    num_tasks: for a weighting with a plain ``loss_fn``; else known.
    tasks: what the method weighs. ``'losses'``: the T losses. ``'samples'``:
      each sample of the batch, by its loss on a batch of one, the sum of its T
      losses, which may be a scalar here; the method is then built for the
      batch's size. ``'layerwise'`` takes `mtljax.value_and_sample_gramian`, and
      ``chunk_size`` counts samples. All parameters are shared;
      ``gramian_labels`` of the method narrow the Gramian. Not with
      ``has_state``, ``layout``, ``microbatch_size``.
    route: see above.
    every: the weights are computed anew at every so many steps and held in
      between, when the gradients they need are not computed at all.
    mode: how T backward passes run, see `mtljax.value_and_task_grads`.
    batch_size: how many of them go together, see there.
    chunk_size: the Gramian is taken in blocks of so many tasks by so many, of
      which two are held at a time, see `mtljax.value_and_gramian`; for the
      routes ``'gramian'`` and ``'layerwise'``.
    microbatch_size: the batch is worked off in parts of so many examples, which
      must divide axis 0 of its arrays; None: at once.
    accumulate: what is averaged over these parts. ``'gradients'``: the tasks'
      gradients, of which the method then sees the mean, as if there were no
      parts (route ``'jacobian'`` only); ``'updates'``: the updates that the
      method makes of each part, another method, of which every route holds no
      more than a part.
    has_state: whether ``loss_fn`` takes and returns the model's state.
    layout: how state, batch and per-task gradients are spread over devices;
      None leaves that to the compiler.

  Returns:
    A `TrainStep` of ``init``, ``step`` and ``route``.

  Raises:
    TypeError: ``method`` is neither a weighting nor an aggregator; or, from
      ``init``, the parameters are a whole ``nnx.Module``, or wider than
      jax keeps them, or the key is none.
    ValueError: the method cannot take the route, or an argument is not valid;
      or, when traced, as `mtljax.value_and_task_grads`, or the model's state
      changes its form.

  Examples:
    >>> import jax, jax.numpy as jnp, mtljax as mtl, optax
    >>> from mtljax.training import make_train_step
    >>> def task_losses(params, batch):
    ...   return jnp.stack([(params - batch) ** 2, (params + 1.0) ** 2])
    >>> init, step, route = make_train_step(
    ...   mtl.weightings.mgda(), optax.sgd(0.1), task_losses, num_tasks=2)
    >>> state = init(jnp.array(3.0), key=jax.random.key(0))
    >>> state, metrics = step(state, 1.0)
    >>> print(route, metrics['losses'], metrics['weights'])
    layerwise [ 4. 16.] [1. 0.]
  """
  if loss_fn is None:
    raise TypeError(_optimizer.missing(optimizer))
  loss_fn, sample_fn = _sample_tasks.split(loss_fn, tasks)
  method = as_aggregator(method, loss_fn, labels, num_tasks)
  if sample_fn is not None:
    _sample_tasks.check(
      method,
      route,
      has_state=has_state,
      layout=layout,
      microbatch_size=microbatch_size,
    )
  passes = make_passes(mode, batch_size)
  if microbatch_size is not None and accumulate == 'gradients':
    route = 'jacobian' if route == 'auto' else route
  cheapest = route == 'auto' and chunk_size is None
  route = _routes.choose_route(method, route, loss_fn, layout is not None)
  _routes.check_memory(route, passes, chunk_size, loss_fn)
  base = _routes.base_of(method)
  microbatch_size = _microbatch.check(microbatch_size, accumulate, route, base)
  base, due = _routes.amortised(base, every)
  _lookahead.check(base, layout)
  _at_features.check(base, layout)
  optimizer = _optimizer.checked(optimizer)
  if layout is not None:
    layout.check_tasks(method.num_tasks, passes.mode, loss_fn)
  plan = Plan(
    loss_fn=loss_fn,
    method=method,
    base=base,
    optimizer=optimizer,
    route=route,
    passes=passes,
    due=due,
    observer=_routes.observer(base),
    cheapest=cheapest,
    chunk_size=chunk_size,
    microbatch_size=microbatch_size,
    accumulate=accumulate,
    has_state=has_state,
    layout=layout,
    sample_fn=sample_fn,
  )

  def init(params, *, key, model_state=None):
    return _init(plan, params, model_state, key)

  def step(state, batch, val_batch=None):
    _begin.check_state(state)
    return _step(plan, state, batch, val_batch)

  return TrainStep(init, jax.jit(step, donate_argnums=0), route)


def _init(plan: Plan, params: Any, model_state: Any, key: Any) -> TrainState:
  _params.check_no_module(params)
  _params.check_no_module(model_state, 'model_state')
  _params.check_width(params)
  _begin.check_key(key)
  key, method_key = jax.random.split(key)
  # The step donates the state; what the caller passed in stays theirs.
  params, model_state = jax.tree.map(
    lambda x: jnp.array(x, copy=True),
    (params, {} if model_state is None else model_state),
  )
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    model_state=model_state,
    opt_state=_optimizer.init(plan.optimizer, params),
    method_state=_rekey(_init_method(plan, params), method_key),
    key=key,
  )


def _init_method(plan: Plan, params: Any) -> Any:
  """The method's state, of the base that the step runs in its place."""
  base_state = plan.base.init(params)
  if plan.method.perturb is None:
    return base_state
  return plan.with_base_state(plan.method.init(params), base_state)


def _step(
  plan: Plan, state: TrainState, batch: Any, val_batch: Any
) -> tuple[TrainState, dict[str, jax.Array]]:
  part = _directions.split(plan, state, batch, val_batch)
  base_state, direction, losses, aux = _directions.of_part(plan, state, part)
  params, opt_state = _descend(plan, state, direction, losses, part.mask)
  base_state = _observe(plan, state, part, params, base_state)
  model_state, metrics = aux if plan.has_state else (state.model_state, {})
  new = dataclasses.replace(
    state,
    step=state.step + 1,
    params=params,
    model_state=model_state,
    opt_state=opt_state,
    method_state=plan.with_base_state(state.method_state, base_state),
  )
  metrics = _metrics(losses, new.method_state, metrics, part.mask)
  if plan.layout is not None:
    new = plan.layout.keep(new, plan.layout.state(new))
    metrics = plan.layout.keep(metrics, plan.layout.whole)
  return new, metrics


def _descend(
  plan: Plan,
  state: TrainState,
  direction: Any,
  losses: jax.Array,
  mask: jax.Array | None,
) -> tuple[Any, Any]:
  """The parameters and the optimizer's state after its step."""
  if plan.layout is not None:
    direction = plan.layout.update(direction, state.params, plan.route)
  updates, opt_state = _optimizer.update(
    plan.optimizer,
    _tree.conjugate(direction),
    state.opt_state,
    state.params,
    value=jnp.sum(_tree.present(mask, losses)),
  )
  params = optax.apply_updates(state.params, updates)
  if mask is None:
    return params, opt_state
  return _absent.stand_still(
    plan.optimizer,
    plan.method.labels,
    mask,
    (params, opt_state),
    (state.params, state.opt_state),
  )


def _observe(
  plan: Plan,
  state: TrainState,
  part: _directions.Part,
  params: Any,
  base_state: Any,
) -> Any:
  """The base's state, once it has seen the losses after the step."""
  if plan.observer is None:
    return base_state
  losses = _pullback.task_losses(
    plan.loss_fn,
    params if plan.layout is None else plan.layout.gather(params),
    plan.loss_arguments(part.batch, state.model_state, part.key),
    has_aux=plan.has_state,
  )
  losses = _absent.without(part.mask, losses)
  return _aggregate.observe_inside(plan.observer, losses, base_state)


def _metrics(
  losses: jax.Array,
  method_state: Any,
  aux: dict[str, jax.Array],
  mask: jax.Array | None,
) -> dict[str, jax.Array]:
  metrics = {'losses': _absent.without(mask, losses)}
  if mask is not None:
    metrics[PRESENT] = mask.astype(losses.dtype)
  weights = find_weights(method_state)
  if weights is not None:
    metrics['weights'] = _tree.present(mask, weights)
  gramian = get_stats(method_state).get('gramian')
  if gramian is not None:
    metrics['cosines'] = _tree.cosines(gramian)
  if both := sorted((metrics.keys() | {PRESENT}) & aux.keys()):
    raise ValueError(
      f'metrics: the loss returned {both[0]!r}, which is what the step calls '
      'its own; give it another name.'
    )
  return aux | metrics


def _rekey(state: Any, key: jax.Array) -> Any:
  """Folds the run's key into every key that a method's state holds.

  Numbers that `mtljax.inject_hyperparams` keeps are not counted: the draws are
  those of the method with constants.
  """
  places, beside = itertools.count(), itertools.count(2**30)

  def fold(tree, places):
    def one(x):
      if _is_injected(x):
        fields = x._asdict().items()
        return x._replace(
          **{
            name: fold(value, places if name == 'inner_state' else beside)
            for name, value in fields
          }
        )
      i = next(places)
      is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
      return jax.random.fold_in(key, i) if is_key else x

    return jax.tree.map(one, tree, is_leaf=_is_injected)

  return fold(state, places)


def _is_injected(state: Any) -> bool:
  """Whether it is a state of `optax.inject_hyperparams`."""
  return hasattr(state, 'hyperparams') and hasattr(state, 'inner_state')

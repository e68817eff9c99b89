"""The train step: a method, an optimizer and a route as one jitted program."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtljax import _labels, _params, _tree
from mtljax._jaxprs import canonical_convolutions
from mtljax._types import Aggregator, Weighting
from mtljax.aggregators import _aggregate, get_stats
from mtljax.aggregators._reading import find_weights
from mtljax.gradients import _pullback, _task_grads
from mtljax.gradients._passes import Mode, make_passes
from mtljax.gradients._pullback import LossFn, Pullback
from mtljax.training import (
  _directions,
  _microbatch,
  _model_state,
  _optimizer,
  _parts,
  _routes,
)
from mtljax.training._routes import ROUTES as ROUTES
from mtljax.training._routes import Route
from mtljax.training.sharding import Layout
from mtljax.training.state import TrainState


class TrainStep(NamedTuple):
  """What `make_train_step` returns.

  Attributes:
    init: ``init(params, *, key, model_state=None) -> TrainState``.
    step: ``step(state, batch) -> (state, metrics)``, jitted; donates the state.
    route: the route taken.
  """

  init: Callable[..., TrainState]
  step: Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]
  route: str


def _as_aggregator(
  method: Aggregator | Weighting,
  fun: LossFn,
  labels: Any,
  num_tasks: int | None,
) -> Aggregator:
  if isinstance(method, Aggregator):
    if labels is not None and labels != method.labels:
      raise ValueError(
        'labels differ from those the aggregator was built with; give them '
        'once, to the aggregator.'
      )
    if num_tasks not in (None, method.num_tasks):
      raise ValueError(
        f'num_tasks={num_tasks}: the method was built for {method.num_tasks} '
        'tasks; leave num_tasks to it.'
      )
    return method
  if isinstance(method, Weighting):
    num_tasks = num_tasks or _pullback.loss_num_tasks(fun)
    if num_tasks is None:
      raise ValueError(
        'num_tasks=None: a plain loss function does not tell how many tasks '
        'there are; pass num_tasks.'
      )
    return _aggregate.aggregate(method, num_tasks, labels=labels)
  if isinstance(method, optax.GradientTransformation):
    raise TypeError(
      'method is an optax chain, which hides whether it wants per-task '
      'gradients; pass the aggregator (such as mtl.cagrad(num_tasks=2)) as '
      'method= and what follows it as optimizer=.'
    )
  raise TypeError(
    f'method={method!r} must be an aggregator such as mtl.cagrad(num_tasks=2) '
    'or a weighting such as mtl.weightings.cagrad().'
  )


def _check_num_tasks(method: Aggregator, pullback: Pullback) -> None:
  found = pullback.losses.shape[0]
  if found != method.num_tasks:
    raise ValueError(
      f'num_tasks={method.num_tasks}: the method was built for '
      f'{method.num_tasks} tasks and the loss has {found}.'
    )


def make_train_step(
  method: Aggregator | Weighting,
  optimizer: optax.GradientTransformation,
  loss_fn: LossFn,
  *,
  labels: _labels.Labels | None = None,
  num_tasks: int | None = None,
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
  ``'losses'``     weights from the losses, one weighted backward pass
  ``'jacobian'``   T backward passes, gradients kept, then combined
  ``'gramian'``    T backward passes for the Gramian only, then a weighted one
  ``'layerwise'``  T passes of signals for the Gramian, without the gradients of
                   the weights where that is less work; then a weighted pass
  ``'features'``   Gramian of the gradients at the shared features (MGDA-UB),
                   then one backward pass of the trunk: an approximation
  ``'auto'``       ``'losses'`` where the method reads no gradients,
                   ``'gramian'`` where it reads those of other batches,
                   ``'layerwise'`` where it reads their Gramian alone and all
                   tasks share a forward pass on one device, else
                   ``'jacobian'``: the cheapest exact one in time
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

  `mtljax.every_k` and `mtljax.freeze_after` around the whole method, or inside
  `mtljax.sam`, count the state's steps here, and the gradients that only the
  weights need are not computed at the steps between. (Where more than weights
  is needed, as with ``nonfinite='drop_task'``, only the solve is saved.)

  The step returns the metrics of the state before the update: ``losses`` and
  ``weights`` ``(T,)``, ``cosines`` ``(T, T)`` where the method reads the
  Gramian, and those that the loss returned.

  Args:
    method: a weighting, or an aggregator (which also carries conventions and
      labels), the sharpness-aware ones included.
    optimizer: plain optax; it gets one update in the parameters' shapes, and
      ``value``, the sum of the losses, if it takes that.
    loss_fn: the task losses.
    labels: for a weighting, see `mtljax.label_params`; an aggregator has its
      own.
    num_tasks: for a weighting with a plain ``loss_fn``; else known.
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
      ``init``, the parameters are a whole ``nnx.Module``.
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
  method = _as_aggregator(method, loss_fn, labels, num_tasks)
  passes = make_passes(mode, batch_size)
  if microbatch_size is not None and accumulate == 'gradients':
    route = 'jacobian' if route == 'auto' else route
  cheapest = route == 'auto' and chunk_size is None
  route = _routes.choose_route(method, route, loss_fn, layout is not None)
  _routes.check_memory(route, passes, chunk_size, loss_fn)
  _microbatch.check(microbatch_size, accumulate, route, _routes.base_of(method))
  base, due = _routes.amortised(_routes.base_of(method), every)
  reads_cross = 'cross_gramian' in base.needs
  optimizer = _optimizer.checked(optimizer)
  labels = method.labels
  if layout is not None:
    layout.check_tasks(method.num_tasks, passes.mode, loss_fn)

  def init_method(params):
    state = base.init(params)
    if method.perturb is None:
      return state
    return method.init(params)._replace(inner_state=state)

  def init(params, *, key, model_state=None):
    _params.check_no_module(params)
    _params.check_no_module(model_state, 'model_state')
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
      opt_state=_optimizer.init(optimizer, params),
      method_state=_rekey(init_method(params), method_key),
      key=key,
    )

  def step(state, batch):
    key = jax.random.fold_in(state.key, state.step)
    if layout is not None:
      batch = layout.keep(batch, layout.batch(batch))

    def arguments(part, key):
      return (part, state.model_state, key) if has_state else (part,)

    def pull(params, args):
      make = functools.partial(
        _pullback.make_pullback,
        loss_fn,
        labels=labels,
        has_aux=has_state,
        watch=route == 'layerwise',
        cheapest=cheapest,
      )
      if has_state:
        make = _model_state.of_pullback(make, loss_fn, state.model_state)
      if layout is None:
        return make(params, args)
      place = layout.place(params, labels)
      pullback = make(layout.gather(params), args, place=place)
      return layout.split_rows(pullback, params)

    cross = None
    if reads_cross:
      one, two, batch = _parts.split_batch(batch, loss_fn, 3)
      key_one, key_two, key = jax.random.split(key, 3)

      def cross():
        return _directions.cross_gramian(
          base,
          pull(state.params, arguments(one, key_one)),
          pull(state.params, arguments(two, key_two)),
          passes=passes,
        )

    def make_direction(held, method_state, batch, key):
      args = arguments(batch, key)
      pullback = pull(state.params, args)
      _check_num_tasks(method, pullback)
      first = pullback  # model state and metrics are those of the clean pass
      extra = {}
      if 'task_grads' in method.needs and method.perturb is None:
        extra['task_grad_fn'] = _task_grads.task_grad_fn(
          loss_fn, *args, has_aux=has_state
        )
      params = state.params
      if method.perturb is not None:
        params = method.perturb(params, pullback.summed())
        pullback = pull(params, args)
      direction, method_state = _directions.direction(
        base,
        pullback,
        method_state,
        params=state.params,
        route=route,
        passes=passes,
        chunk_size=chunk_size,
        held=held,
        holds=due is not None,
        cross=cross,
        extra=extra,
      )
      return method_state, direction, first.losses, first.aux

    def direct(method_state, batch, key):
      """The update that the method makes of a batch."""
      if due is None:
        return make_direction(False, method_state, batch, key)
      # Whole, forward pass and all: of one that they shared, every step would
      # keep what only those that are due need.
      fresh, held = (
        canonical_convolutions(functools.partial(make_direction, held))
        for held in (False, True)
      )
      return jax.lax.cond(
        due(state.step), fresh, held, method_state, batch, key
      )

    accumulated = direct
    if microbatch_size is not None and accumulate == 'updates':
      accumulated = _microbatch.mean_update(direct, microbatch_size)
    elif microbatch_size is not None:
      pull = _microbatch.averaged(
        pull, loss_fn, labels, microbatch_size, passes
      )

    method_state = state.method_state
    if method.perturb is not None:
      method_state = method_state.inner_state
    method_state, direction, losses, aux = accumulated(method_state, batch, key)
    if layout is not None:
      direction = layout.update(direction, state.params, route)
    updates, opt_state = _optimizer.update(
      optimizer,
      _tree.conjugate(direction),
      state.opt_state,
      state.params,
      value=jnp.sum(losses),
    )
    params = optax.apply_updates(state.params, updates)
    if base.weighting is not None and base.weighting.observe is not None:
      whole = params if layout is None else layout.gather(params)
      after = _pullback.task_losses(
        loss_fn, whole, arguments(batch, key), has_aux=has_state
      )
      method_state = _aggregate.observe(base.weighting, after, method_state)
    if method.perturb is not None:
      method_state = state.method_state._replace(inner_state=method_state)
    model_state, metrics = state.model_state, {}
    if has_state:
      model_state, metrics = aux
    new = dataclasses.replace(
      state,
      step=state.step + 1,
      params=params,
      model_state=model_state,
      opt_state=opt_state,
      method_state=method_state,
    )
    metrics = _metrics(losses, method_state, metrics)
    if layout is not None:
      new = layout.keep(new, layout.state(new))
      metrics = layout.keep(metrics, layout.whole)
    return new, metrics

  return TrainStep(init, jax.jit(step, donate_argnums=0), route)


def _metrics(
  losses: jax.Array, method_state: Any, aux: dict[str, jax.Array]
) -> dict[str, jax.Array]:
  metrics = {'losses': losses}
  weights = find_weights(method_state)
  if weights is not None:
    metrics['weights'] = weights
  gramian = get_stats(method_state).get('gramian')
  if gramian is not None:
    metrics['cosines'] = _tree.cosines(gramian)
  if both := sorted(metrics.keys() & aux.keys()):
    raise ValueError(
      f'metrics: the loss returned {both[0]!r}, which is what the step calls '
      'its own; give it another name.'
    )
  return aux | metrics


def _rekey(state: Any, key: jax.Array) -> Any:
  """Folds the run's key into every key that a method's state holds."""
  leaves, treedef = jax.tree.flatten(state)
  leaves = [
    jax.random.fold_in(key, i)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    else leaf
    for i, leaf in enumerate(leaves)
  ]
  return jax.tree.unflatten(treedef, leaves)

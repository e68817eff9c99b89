"""What a step costs by every route, from shapes, before anything compiles."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import optax
from jax.interpreters import partial_eval

from mtljax import _labels
from mtljax._types import Aggregator, Weighting
from mtljax.gradients import _gramian, _layerwise, _pullback, _samples, _work
from mtljax.gradients._passes import Mode, make_passes
from mtljax.gradients._pullback import LossFn
from mtljax.training.step import (
  _liveness,
  _routes,
  _sample_tasks,
  train_step,
)
from mtljax.training.step._plan import as_aggregator
from mtljax.training.step._sample_tasks import Tasks

# Routes, and the modes of their backward passes; None: as asked for.
_ROWS: tuple[tuple[Any, Mode | None], ...] = (
  ('auto', None),
  ('losses', None),
  ('jacobian', 'unroll'),
  ('jacobian', 'vmap'),
  ('jacobian', 'map'),
  ('gramian', None),
  ('layerwise', None),
  ('features', None),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RouteEstimate:
  """A row of an `Estimate`.

  Attributes:
    route: its name.
    mode: how the backward passes run, ``'unroll'``, ``'vmap'`` or ``'map'``;
      by ``mode='auto'`` on CPU ``'unroll'`` may have some together, or a loop.
    refused: why the method or the loss cannot take it; empty if they can. All
      below are then None.
    passes: backward passes of the trunk over the batch.
    flops: of a step's products and convolutions, two for a multiplication;
      None where sizes are unknown.
    bytes: what a step holds at most, beside its state and batch.
  """

  route: str
  mode: str
  refused: str = ''
  passes: int | None = None
  flops: int | None = None
  bytes: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeafEstimate:
  """How the layer-wise route takes a shared parameter.

  Attributes:
    name: its path.
    form: ``'signals'``: no task's gradient is formed; ``'slices'``: in a loop,
      for a slice at a time; ``'rows'``: for all tasks.
    why: the operation that keeps it from signals; empty if none does.
  """

  name: str
  form: str
  why: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
  """What `estimate` returns; ``str()`` of it is a table.

  Attributes:
    method: its name.
    num_tasks: T.
    route: the one that ``route='auto'`` takes.
    why: the reason.
    bound: whether the method can take no other exact one.
    argument_bytes: of state and batch.
    rows: the routes, ``'auto'`` first.
    leaves: the shared parameters by the layer-wise route; empty where it is
      refused.
  """

  method: str
  num_tasks: int
  route: str
  why: str
  bound: bool
  argument_bytes: int
  rows: tuple[RouteEstimate, ...]
  leaves: tuple[LeafEstimate, ...]

  def row(self, route: str, mode: str | None = None) -> RouteEstimate:
    """The row of a route, the first of its modes by default."""
    for row in self.rows:
      if row.route == route and mode in (None, row.mode):
        return row
    raise ValueError(
      f'route={route!r}, mode={mode!r}: there is no such row; rows are '
      f'{[(row.route, row.mode) for row in self.rows]}.'
    )

  def __str__(self) -> str:
    bound = ', to which it is bound' if self.bound else ''
    lines = [
      f'{self.method}, T = {self.num_tasks}: auto takes {self.route}{bound}, '
      f'as {self.why}',
      f'state and batch: {self.argument_bytes / 1e6:.2f} MB',
      f'{"route":<18}{"passes":>8}{"GFLOP":>10}{"MB":>10}',
    ]
    for row in self.rows:
      name = f'{row.route} {row.mode}'
      if row.refused:
        lines.append(f'{name:<18}  {row.refused}')
        continue
      flops = '' if row.flops is None else f'{row.flops / 1e9:.3g}'
      lines.append(
        f'{name:<18}{row.passes:>8}{flops:>10}{row.bytes / 1e6:>10.3g}'
      )
    for leaf in self.leaves:
      if leaf.why:
        lines.append(f'layerwise {leaf.form}: {leaf.name} {leaf.why}')
    return '\n'.join(lines)


def estimate(
  method: Aggregator | Weighting,
  loss_fn: LossFn,
  params: Any,
  batch: Any,
  *,
  labels: _labels.Labels | None = None,
  num_tasks: int | None = None,
  optimizer: optax.GradientTransformation | None = None,
  mode: Mode = 'auto',
  has_state: bool = False,
  model_state: Any = None,
  tasks: Tasks = 'losses',
) -> Estimate:
  """Forecasts work and memory of a training step by every route.

  The steps are traced, as `mtljax.training.make_train_step` builds them, and
  not compiled: multiplications are counted, loop bodies as often as they run,
  and live arrays are followed through the program, entry-wise operations being
  taken as fused into what reads them. How close the memory comes to what the
  compiled program asks for is in ``docs/routes.md``.

  Args:
    method: as for `mtljax.training.make_train_step`.
    loss_fn: as there.
    params: arrays, or their shapes (`jax.ShapeDtypeStruct`).
    batch: the same.
    labels: as there.
    num_tasks: as there.
    optimizer: as there; None: gradient descent without a state.
    mode: as there, for the rows that are not listed by mode.
    has_state: as there.
    model_state: the model's state or its shapes, with ``has_state``.
    tasks: as there. With ``'samples'`` the gradients of all samples are made
      by one pass over the batch, whatever the mode, and a parameter's form is
      what the layer-wise route makes of it for a batch of so many.

  Returns:
    An `Estimate`. A route that the method or the loss cannot take has a row
    that says why.

  Raises:
    TypeError: as there.
    ValueError: as there, where no route is possible.

  Examples:
    >>> import jax, jax.numpy as jnp, mtljax as mtl
    >>> from mtljax.training import estimate
    >>> loss = mtl.Staged(
    ...   lambda w, x: jnp.tanh(x @ w['kernel'] + w['bias'][None]),
    ...   [lambda w, z, x: jnp.mean(z), lambda w, z, x: jnp.mean(z**2)])
    >>> array = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    >>> params = {'kernel': array(512, 512), 'bias': array(512)}
    >>> found = estimate(mtl.mgda(2), loss, params, array(8, 512))
    >>> found.route, found.bound
    ('layerwise', False)
    >>> [(leaf.name, leaf.form, leaf.why) for leaf in found.leaves]
    [('bias', 'rows', 'enters add'), ('kernel', 'signals', '')]
  """
  of_losses = loss_fn
  loss_fn, sample_fn = _sample_tasks.split(loss_fn, tasks)
  method = as_aggregator(method, loss_fn, labels, num_tasks)
  if sample_fn is not None:
    _sample_tasks.check(method, 'auto', has_state=has_state)
  optimizer = optax.sgd(1e-3) if optimizer is None else optimizer
  model_state = {} if model_state is None else model_state
  params, batch, model_state = jax.tree.map(
    _shape_of, (params, batch, model_state)
  )
  base = _routes.base_of(method)
  route = _routes.choose_route(method, 'auto', loss_fn)
  looked = None
  if route == 'layerwise' or _can(method, 'layerwise', loss_fn):
    looked = (
      _look(loss_fn, method, (params, batch, model_state), has_state, mode)
      if sample_fn is None
      else _look_at_samples(sample_fn, method, params, batch)
    )
  rows, argument_bytes = [], 0
  for name, of_row in _ROWS:
    if sample_fn is not None and of_row not in (None, 'vmap'):
      continue
    way = 'vmap' if sample_fn is not None else make_passes(of_row or mode).mode
    try:
      train = train_step.make_train_step(
        method,
        optimizer,
        of_losses,
        route=name,
        mode=of_row or mode,
        has_state=has_state,
        tasks=tasks,
      )
    except ValueError as error:
      if name == 'auto':
        raise
      rows.append(RouteEstimate(route=name, mode=way, refused=str(error)))
      continue
    init = lambda p, s, train=train: train.init(
      p, key=jax.random.key(0), model_state=s
    )
    state = jax.eval_shape(init, params, model_state)
    jaxpr = train.step.trace(state, batch).jaxpr.jaxpr
    jaxpr = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0]
    work = _work.of_equations(jaxpr.eqns)
    argument_bytes = sum(_liveness.num_bytes(x.aval) for x in jaxpr.invars)
    rows.append(
      RouteEstimate(
        route=name,
        mode=way,
        passes=(
          _num_passes(name, train.route, method, looked)
          if sample_fn is None
          else _num_passes_of_samples(train.route, method)
        ),
        flops=None if work is None else 2 * work.forward,
        bytes=_liveness.peak_bytes(jaxpr),
      )
    )
  return Estimate(
    method=method.info.name,
    num_tasks=method.num_tasks,
    route=route,
    why=_reason(base, route),
    bound=_routes.only_jacobian(base) and route == 'jacobian',
    argument_bytes=argument_bytes,
    rows=tuple(rows),
    leaves=() if looked is None else looked.leaves,
  )


def _shape_of(x: Any) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(jax.numpy.shape(x), jax.numpy.result_type(x))


def _can(method: Aggregator, route: Any, loss_fn: LossFn) -> bool:
  """Whether the method reads the Gramian and may take it by the route."""
  try:
    _routes.choose_route(method, route, loss_fn)
  except ValueError:
    return False
  return 'gramian' in _routes.base_of(method).needs


class _Looked(NamedTuple):
  """The layer-wise pass: its leaves, and its passes by name and by auto."""

  leaves: tuple[LeafEstimate, ...]
  passes: int
  passes_of_auto: int


def _num_passes(
  name: str, route: str, method: Aggregator, looked: _Looked | None
) -> int:
  ascent = method.perturb is not None
  if route == 'layerwise' and looked is not None:
    found = looked.passes_of_auto if name == 'auto' else looked.passes
    return found + ascent
  averages = _routes.num_averages(_routes.base_of(method))
  if route == 'gramian' and averages is not None:
    return averages + ascent
  of_tasks = {'losses': 0, 'features': 0, 'jacobian': method.num_tasks - 1}
  return of_tasks.get(route, method.num_tasks) + 1 + ascent


def _num_passes_of_samples(route: str, method: Aggregator) -> int:
  once = route in ('losses', 'jacobian')
  return (1 if once else 2) + (method.perturb is not None)


def _reason(base: Aggregator, route: str) -> str:
  if base.one_task is not None and route == 'losses':
    return 'it reads the gradient of one task a step'
  if _routes.only_jacobian(base):
    return "it needs the tasks' gradients themselves"
  if route == 'gramian' and _routes.num_averages(base) is not None:
    return 'it sees some tasks only in averages, each of one pass'
  if 'feature_norms' in base.needs:
    return 'it reads gradients at the features, which the heads give anyway'
  return {
    'losses': 'it reads no gradients',
    'layerwise': 'it reads the Gramian alone and all tasks share a pass',
    'jacobian': 'it reads the Gramian and each task has a pass of its own',
    'gramian': 'it reads the gradients of other batches',
  }[route]


def _look(loss_fn, method, given, has_state, mode) -> _Looked:
  """Traces the layer-wise pass."""
  found: list[Any] = []

  def look(cheapest, params, batch, model_state):
    args = (batch, model_state, jax.random.key(0)) if has_state else (batch,)
    pullback = _pullback.make_pullback(
      loss_fn,
      params,
      args,
      labels=method.labels,
      has_aux=has_state,
      watch=True,
      cheapest=cheapest,
    )
    names, _ = pullback.split.split(_labels.path_names(params))
    assert pullback.layers is not None
    layers = pullback.layers(make_passes(mode), loops=True)
    base = _routes.base_of(method)
    marked = _gramian.marked_leaves(pullback, base.gramian_labels)
    gramian, combine = _layerwise.gramian_and_combine(layers, marked)
    forms = [(name, *layers.form(i)) for i, name in enumerate(names)]
    found.append((forms, len(gramian) + (combine is None)))
    return gramian

  for cheapest in (False, True):
    jax.eval_shape(functools.partial(look, cheapest), *given)
  (forms, passes), (_, of_auto) = found
  leaves = [LeafEstimate(name=n, form=form, why=why) for n, form, why in forms]
  return _Looked(tuple(leaves), passes, of_auto)


def _look_at_samples(sample_fn, method, params, batch) -> _Looked:
  """Traces a sample's layer-wise pass."""
  found: list[LeafEstimate] = []
  base = _routes.base_of(method)

  def look(params, batch):
    def one(sample):
      pullback = _samples.pass_of_one(sample_fn, params, watch=True)(sample)
      passes = make_passes('auto')
      layers = _samples.layers_of(pullback, passes, method.num_tasks)
      names, _ = pullback.split.split(_labels.path_names(params))
      marked = _gramian.marked_leaves(pullback, base.gramian_labels)
      found[:] = [
        LeafEstimate(name=name, form=form, why=why)
        for i, name in enumerate(names)
        for form, why in [layers.form(i)]
        if marked[i]
      ]
      return pullback.losses

    return jax.vmap(one)(batch)

  jax.eval_shape(look, params, batch)
  return _Looked(tuple(found), 2, 2)

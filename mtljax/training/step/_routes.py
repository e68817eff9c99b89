"""Which route a method takes, and at which steps its weights are due."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax

from mtljax import _validate
from mtljax._types import AT_FEATURES, Aggregator, Weighting
from mtljax.aggregators import _aggregate
from mtljax.gradients import _pullback
from mtljax.gradients._passes import Passes
from mtljax.gradients._pullback import LossFn

Route = Literal[
  'auto', 'losses', 'jacobian', 'gramian', 'layerwise', 'features'
]
ROUTES = ('auto', 'losses', 'jacobian', 'gramian', 'layerwise', 'features')


def base_of(method: Aggregator) -> Aggregator:
  """The method whose statistics are taken: inside a wrapper that perturbs."""
  return method if method.perturb is None else method.inner


def observer(method: Aggregator) -> Weighting | None:
  """The rule that sees the losses after a step, inside any wrapper, or None.

  Raises:
    TypeError: its numbers are in a wrapper's state.
  """
  while method.weighting is None and method.inner is not None:
    inner = method.inner
    rule = inner.weighting
    if rule and rule.observe and 'task_grads' not in method.needs:
      raise TypeError(
        f'{method.info.name} under mtl.inject_hyperparams sees the losses '
        'after a step at the next call, on its batch; the train step shows it '
        'those of the same batch, which is another method: give it numbers, or '
        'use it in optax.chain.'
      )
    method = inner
  rule = method.weighting
  return rule if rule and rule.observe else None


def only_jacobian(method: Aggregator) -> bool:
  """Whether the method is more than weights on losses' gradients."""
  if method.weighting is None:
    return True
  return method.conventions.nonfinite == 'drop_task'


def num_averages(method: Aggregator) -> int | None:
  """Of how many a rule sees each task in one; None: it sees the tasks."""
  rule = method.weighting
  if rule is not None and rule.reuse is not None:
    rule = rule.reuse.weighting
  if rule is None or rule.mixtures is None:
    return None
  state = jax.eval_shape(lambda: rule.init(method.num_tasks))
  mask = jax.ShapeDtypeStruct((method.num_tasks,), bool)
  return jax.eval_shape(rule.mixtures, state, mask).shape[0]


def choose_route(
  method: Aggregator, route: Route, fun: LossFn, spread: bool = False
) -> str:
  """The cheapest exact route, or the one asked for if the method allows it.

  ``spread``: over devices, where tasks in one average are not taken as one.
  """
  if route == 'measure':
    raise ValueError(
      "route='measure': a step is built before there is a batch to time it on; "
      'call mtljax.training.measure(method, optimizer, loss, params, batch, '
      'key=...), and pass its fastest.options.'
    )
  _validate.one_of('route', route, ROUTES)
  base = base_of(method)
  name = method.info.name
  if AT_FEATURES & base.needs:
    _pullback.check_staged(fun, f'{name} reads gradients at the features')
  needs_rows = only_jacobian(base)
  if base.one_task is not None and route in ('auto', 'losses'):
    return 'losses'
  if route == 'auto':
    one_pass = _pullback.has_one_pass(fun)
    mixes = num_averages(base) is not None
    if mixes and not (needs_rows or spread):
      return 'gramian'
    if 'gramian' in base.needs and one_pass and not needs_rows:
      return 'layerwise'
    if needs_rows or 'gramian' in base.needs:
      return 'jacobian'
    # Of the third batch only the weighted sum of the gradients is needed.
    return 'gramian' if 'cross_gramian' in base.needs else 'losses'
  if route != 'jacobian' and needs_rows:
    raise ValueError(
      f'route={route!r}: {name} as built here needs the per-task gradients '
      "themselves; use route='jacobian' or 'auto'."
    )
  if route in ('losses', 'features') and 'cross_gramian' in base.needs:
    raise ValueError(
      f'route={route!r}: {name} compares the gradients of two batches, which '
      'the losses do not tell, nor do features, being those of other examples; '
      "use 'gramian', 'jacobian' or 'auto'."
    )
  if route == 'losses' and 'gramian' in base.needs:
    raise ValueError(
      f"route='losses': {name} reads the Gramian of the gradients; use "
      "'jacobian', 'gramian', 'features' or 'auto'."
    )
  if route == 'layerwise':
    _pullback.check_one_pass(fun, 'the layer-wise Gramian')
  if route == 'features' and base.gramian_labels is not None:
    raise ValueError(
      "route='features' takes the Gramian over the features, not over "
      'parameters; build the method without gramian_labels.'
    )
  if route == 'features':
    _pullback.check_staged(
      fun, "route='features' takes gradients at the shared features"
    )
  return route


def amortised(
  method: Aggregator, every: int
) -> tuple[Aggregator, Callable[[jax.Array], jax.Array] | None]:
  """The method whose weights are held, and at which steps they are due.

  The step's own counter takes the place of that of a wrapper, so that the
  gradients of the other steps are skipped too.
  """
  every = _validate.integer('every', every, 1)
  reuse = None if method.weighting is None else method.weighting.reuse
  needs_rows = only_jacobian(method)
  if every > 1 and needs_rows:
    raise ValueError(
      f'every={every}: {method.info.name} as built here is more than weights, '
      'which is all that can be held between steps; use every=1.'
    )
  if every > 1 and reuse is not None:
    raise ValueError(
      f'every={every}: {method.info.name} says itself when its weights are '
      'computed; use every=1.'
    )
  if every > 1:
    return method, lambda step: step % every == 0
  if reuse is None or needs_rows:
    return method, None
  return _aggregate.rebuild(method, reuse.weighting), reuse.due


def check_memory(
  route: str, passes: Passes, chunk_size: int | None, fun: LossFn
) -> None:
  """Raises ValueError where the modes do not go with the route."""
  if route == 'gramian' and passes.mode == 'map':
    raise ValueError(
      "mode='map' stacks the gradients of all tasks, which route='gramian' is "
      "there to avoid; use mode='unroll' or 'vmap', and chunk_size for less "
      'memory.'
    )
  if chunk_size is None:
    return
  chunk_size = _validate.integer('chunk_size', chunk_size, 1)
  _pullback.check_one_pass(fun, f'chunk_size={chunk_size}')
  if route not in ('gramian', 'layerwise'):
    raise ValueError(
      f'chunk_size={chunk_size}: route={route!r} does not take the Gramian in '
      "blocks; use route='gramian' or 'layerwise'."
    )

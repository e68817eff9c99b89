"""From a batch to the update that a method makes of it, by each route."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtljax import _labels, _tree
from mtljax._jaxprs import canonical_convolutions
from mtljax._types import Aggregator, TaskStats
from mtljax.aggregators import _aggregate
from mtljax.gradients import _gramian, _pullback, _samples, _task_grads
from mtljax.gradients._pullback import Pullback
from mtljax.training.step import (
  _absent,
  _at_features,
  _lookahead,
  _microbatch,
  _model_state,
  _parts,
  sharding,
)
from mtljax.training.step._plan import Plan
from mtljax.training.step.state import TrainState

Cross = Callable[[], jax.Array]
Ahead = Callable[[Any], jax.Array]


class Part(NamedTuple):
  """What a step works on.

  Attributes:
    batch: the examples that it steps on.
    key: what their loss may draw from.
    cross: gives the cross-Gramian of the examples before them; None where the
      method does not read it.
    mask: the tasks present, ``(T,)``; None: all are.
    ahead: gives the hypergradient, of the rule's state; None where the method
      does not read it.
  """

  batch: Any
  key: jax.Array
  cross: Cross | None
  mask: jax.Array | None
  ahead: Ahead | None = None


def split(
  plan: Plan, state: TrainState, batch: Any, val_batch: Any = None
) -> Part:
  """The batch, without the parts that only the weights are taken of."""
  _lookahead.check_batch(plan, val_batch)
  key = jax.random.fold_in(state.key, state.step)
  batch, mask = _absent.split_mask(plan, batch)
  if plan.layout is not None:
    batch = plan.layout.keep(batch, plan.layout.batch(batch))
  if 'hypergradient' in plan.base.needs:
    pull = functools.partial(_pull_at_once, plan, state)
    ahead = _lookahead.of_step(plan, state, pull, batch, val_batch, key, mask)
    return Part(batch, key, None, mask, ahead)
  if 'cross_gramian' not in plan.base.needs:
    return Part(batch, key, None, mask)
  parts = _parts.split_batch(batch, plan.loss_fn, 3)
  if plan.layout is not None:
    parts = [plan.layout.spread(part) for part in parts]
  *pair, batch = parts
  *keys, key = jax.random.split(key, 3)
  cross = functools.partial(_cross_gramian, plan, state, mask, pair, keys)
  return Part(batch, key, cross, mask)


def of_part(
  plan: Plan, state: TrainState, part: Part
) -> tuple[Any, Any, jax.Array, Any]:
  """The base's next state, its update, the losses and their auxiliary output.

  The losses and what comes with them are those before any perturbation.
  """
  make = functools.partial(_when_due, plan, state, part)
  if plan.averages('updates'):
    make = _microbatch.mean_update(make, plan.microbatch_size)
  return make(plan.base_state(state.method_state), part.batch, part.key)


def _when_due(plan, state, part, base_state, batch, key):
  """The update, its weights computed anew at the steps that ask for it."""
  if plan.due is None:
    return _of_batch(plan, state, part, False, base_state, batch, key)
  # Whole, forward pass and all: of one that they shared, every step would keep
  # what only those that are due need.
  fresh, held = (
    canonical_convolutions(
      functools.partial(_of_batch, plan, state, part, held)
    )
    for held in (False, True)
  )
  return jax.lax.cond(plan.due(state.step), fresh, held, base_state, batch, key)


def _of_batch(plan, state, part, held, base_state, batch, key):
  """The update, of weights computed anew or held."""
  args = plan.loss_arguments(batch, state.model_state, key)
  mask = part.mask
  clean = pullback = _pull(plan, state, state.params, args, mask)
  _check_num_tasks(plan, clean)
  extra: dict[str, Any] = {}
  if plan.observer is not None:
    extra['losses_after_follow'] = True
  if plan.method.perturb is not None:
    params = plan.method.perturb(state.params, clean.summed(mask))
    pullback = _pull(plan, state, params, args, mask)
  elif 'task_grads' in plan.method.needs:
    extra['task_grad_fn'] = _task_grads.task_grad_fn(
      plan.loss_fn, *args, has_aux=plan.has_state
    )
  pulls = _at_features.pulls(plan, state.params, args)
  if pulls is not None and plan.base.weighting is None:
    extra['alignment_fn'] = pulls
  update, base_state = _of_pass(
    plan,
    pullback,
    base_state,
    pulls=pulls,
    params=state.params,
    held=held,
    cross=part.cross,
    ahead=part.ahead,
    mask=mask,
    extra=extra,
  )
  return base_state, update, clean.losses, clean.aux


def _pull(
  plan: Plan,
  state: TrainState,
  params: Any,
  args: Any,
  mask: jax.Array | None,
) -> Pullback:
  """The losses at ``params``, and the way back from them."""
  if plan.sample_fn is not None:
    layerwise = plan.route == 'layerwise'
    return _samples.of_samples(
      plan.sample_fn, params, args[0], layerwise, plan.passes
    )
  pull = functools.partial(_pull_at_once, plan, state, mask)
  if plan.averages('gradients'):
    pull = _microbatch.averaged(
      pull,
      plan.loss_fn,
      plan.method.labels,
      plan.microbatch_size,
      plan.passes,
    )
  return pull(params, args)


def _pull_at_once(plan, state, mask, params, args):
  """The same by one forward pass."""
  make = functools.partial(
    _pullback.make_pullback,
    plan.loss_fn,
    labels=plan.method.labels,
    has_aux=plan.has_state,
    watch=plan.route == 'layerwise',
    cheapest=plan.cheapest,
    mask=mask,
  )
  if plan.has_state:
    make = _model_state.of_pullback(make, plan.loss_fn, state.model_state, mask)
  layout = plan.layout
  if layout is None:
    return make(params, args)
  place = layout.place(params, plan.method.labels)
  pullback = make(layout.gather(params), args, place=place)
  return sharding.split_rows(pullback, place)


def _check_num_tasks(plan: Plan, pullback: Pullback) -> None:
  method, found = plan.method, pullback.losses.shape[0]
  if found == method.num_tasks:
    return
  if plan.sample_fn is not None:
    raise ValueError(
      f"num_tasks={method.num_tasks}: with tasks='samples' every sample is a "
      f'task, and the batch has {found}; build the method for {found} tasks, '
      f'or give batches of {method.num_tasks}.'
    )
  raise ValueError(
    f'num_tasks={method.num_tasks}: the method was built for '
    f'{method.num_tasks} tasks and the loss has {found}.'
  )


def _cross_gramian(plan, state, mask, batches, keys):
  """Inner products between the gradients of two batches, shape ``(T, T)``."""
  first, second = (
    _pull(
      plan,
      state,
      state.params,
      plan.loss_arguments(batch, state.model_state, key),
      mask,
    )
    for batch, key in zip(batches, keys, strict=True)
  )
  marked = _gramian.marked_leaves(first, plan.base.gramian_labels)
  return _gramian.products(first, second, plan.passes, marked)


def _weighted_update(
  method: Aggregator,
  pullback: Pullback,
  combined: Callable[[jax.Array], list[jax.Array]],
  weights: jax.Array,
  mask: jax.Array | None,
) -> Any:
  """The update by weighted backward passes, with no Jacobian kept."""
  conventions = method.conventions
  shared = combined(weights * conventions.scale)
  own = pullback.own(_aggregate.head_weights(conventions, weights, mask))
  return pullback.split.merge(_aggregate.clip(conventions, shared), own)


def _gramian_and_combine(plan, pullback, state, mask):
  """The Gramian, if the method reads it, and how to weigh the shared leaves."""
  if 'gramian' not in plan.base.needs:
    return None, pullback.combined
  if plan.route == 'features':
    return _tree.gramian_of(pullback.features()), pullback.combined
  if pullback.gramian is not None:
    found = pullback.gramian(plan.base.gramian_labels, plan.chunk_size)
    return found, pullback.combined
  marked = _gramian.marked_leaves(pullback, plan.base.gramian_labels)
  mixtures = plan.mixtures
  if mixtures is not None:
    present = jnp.ones(pullback.losses.shape, bool) if mask is None else mask
    return _gramian.of_mixtures(
      pullback,
      plan.passes,
      marked,
      mixtures(state.weighting_state, present),
    )
  return _gramian.gramian_and_combine(
    pullback, plan.passes, marked, plan.chunk_size
  )


def _of_pass(
  plan: Plan,
  pullback: Pullback,
  state: Any,
  *,
  pulls: Callable[..., Any] | None,
  params: Any,
  held: bool,
  cross: Cross | None,
  ahead: Ahead | None,
  mask: jax.Array | None,
  extra: dict[str, Any],
) -> tuple[Any, Any]:
  """The update that the base makes of this pass, and its next state.

  Args:
    plan: of the step.
    pullback: the pass to step on.
    state: the base's state.
    pulls: what the heads' gradients get beside their own is made of; None if
      the method does not read it.
    params: the parameters.
    held: whether the weights are those of the step before.
    cross: gives the cross-Gramian, called only where the weights are computed;
      None if the method does not read it.
    ahead: gives the hypergradient, likewise.
    mask: the tasks present, None: all.
    extra: further arguments of the base's ``update``.
  """
  method = plan.base
  if mask is not None:
    extra = {**extra, 'task_mask': mask}
  if method.update_from_sum is not None:
    return method.update_from_sum(
      pullback.summed(mask), state, params, losses=pullback.losses, **extra
    )
  if method.one_task is not None and plan.route == 'losses':
    due, update = method.one_task
    alone = jax.nn.one_hot(
      due(state), method.num_tasks, dtype=pullback.losses.dtype
    )
    grads = pullback.split.merge(pullback.combined(alone), pullback.own())
    return update(grads, state, params, losses=pullback.losses, **extra)
  aligned = _at_features.aligned(plan, pullback, pulls)
  if held:
    weights = _tree.present(mask, state.weights)
    update = _weighted_update(
      method, pullback, pullback.combined, weights, mask
    )
    return aligned(update, weights), state
  if method.weighting is None:
    if cross is not None:
      extra = {**extra, 'cross_gramian': cross()}
    norms = _at_features.feature_norms(plan, pullback)
    if norms is not None:
      extra = {**extra, 'feature_norms': norms}
    return method.update(
      pullback.task_grads(plan.passes),
      state,
      params,
      losses=pullback.losses,
      **extra,
    )
  by_route = _by_rows if plan.route == 'jacobian' else _by_weights
  hypergradient = None if ahead is None else ahead(state.weighting_state)
  update, new = by_route(plan, pullback, state, cross, hypergradient, mask)
  if plan.due is not None:
    new = _aggregate.hold(new, state, mask)
  return aligned(update, new.weights), new


def _by_rows(plan, pullback, state, cross, hypergradient, mask):
  """The update from the tasks' gradients."""
  # Not `update`: its `observe` waits for the next call, the step's does not.
  method = plan.base
  labels, tree = list(pullback.split.labels), pullback.task_grads(plan.passes)
  leaves, new = _aggregate.apply(
    method.weighting,
    method.conventions,
    labels,
    _labels.flatten_gramian_labels(method.gramian_labels, labels, tree),
    jax.tree.leaves(tree),
    pullback.losses,
    None if cross is None else cross(),
    mask,
    state,
    hypergradient,
    _at_features.feature_norms(plan, pullback),
  )
  return jax.tree.unflatten(pullback.split.treedef, leaves), new


def _by_weights(plan, pullback, state, cross, hypergradient, mask):
  """The update by weights and weighted passes; no task's gradient is kept."""
  gramian, combined = _gramian_and_combine(plan, pullback, state, mask)
  stats = TaskStats(
    losses=pullback.losses,
    gramian=gramian,
    cross_gramian=None if cross is None else cross(),
    hypergradient=hypergradient,
    feature_norms=_at_features.feature_norms(plan, pullback),
    mask=mask,
  )
  new = _aggregate.decide(plan.base.weighting, stats, state)
  update = _weighted_update(plan.base, pullback, combined, new.weights, mask)
  return update, new

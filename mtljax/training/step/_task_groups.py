"""A step of selective task group updates, and the groups it forms."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from mtljax import _tree
from mtljax._jaxprs import canonical_convolutions
from mtljax.gradients import _pullback
from mtljax.gradients._pullback import LossFn
from mtljax.training.step import _absent, _optimizer
from mtljax.training.step.state import TrainState

Order = Literal['random', 'index']
ORDERS = ('random', 'index')
# By how much of the range of similarities preferences differ, to break ties.
_TIE = 1e-4


class GroupState(NamedTuple):
  """What `make_group_step` keeps besides the optimizer's state."""

  affinity: jax.Array  # (T, T), the averages B
  groups: jax.Array  # (T, T) bools, a row marks the members of a group


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """The checked choices of a step, see `make_group_step`."""

  loss_fn: LossFn
  optimizer: optax.GradientTransformationExtraArgs
  labels: Any
  first: np.ndarray
  is_fixed: bool
  order: Order
  decay: ArrayLike
  preference: float | None
  damping: ArrayLike
  num_iterations: int
  warmup_steps: int
  every: int


@functools.partial(jax.jit, static_argnames='num_iterations')
def groups_of(
  similarity: jax.Array,
  preference: ArrayLike | None,
  damping: ArrayLike,
  num_iterations: int,
) -> jax.Array:
  """See `affinity_propagation`."""
  similarity = similarity.astype(_tree.accumulator(similarity.dtype))
  size, dtype = similarity.shape[0], similarity.dtype
  finite = jnp.all(jnp.isfinite(similarity))
  s = jnp.where(finite, similarity, 0)
  own = jnp.median(s) if preference is None else preference
  places = jnp.arange(size, dtype=dtype) / size
  spread = jnp.max(s) - jnp.min(s)
  own = jnp.asarray(own, dtype) - _TIE * spread * places
  eye = jnp.eye(size, dtype=bool)
  s = jnp.where(eye, own[:, None], s)
  delta = jnp.asarray(damping, dtype)

  def others_max(x):
    """The largest of a row without the entry itself; of one, -inf."""
    top = jnp.max(x, axis=1, keepdims=True)
    first = jnp.argmax(x, axis=1)[:, None] == jnp.arange(size)[None]
    second = jnp.max(jnp.where(first, -jnp.inf, x), axis=1, keepdims=True)
    return jnp.where(first, second, top)

  def exchange(_, messages):
    r, a = messages
    best = others_max(a + s)
    new = s - jnp.where(jnp.isfinite(best), best, 0)
    r = delta * r + (1 - delta) * new
    support = jnp.where(eye, r, jnp.maximum(r, 0))
    total = jnp.sum(support, axis=0, keepdims=True) - support
    new = jnp.where(eye, total, jnp.minimum(total, 0))
    return r, delta * a + (1 - delta) * new

  zeros = jnp.zeros((size, size), dtype)
  r, a = jax.lax.fori_loop(0, num_iterations, exchange, (zeros, zeros))
  exemplars = (jnp.diagonal(r + a) > 0) & finite
  if size == 1:  # nothing is compared with it
    exemplars = finite[None]
  nearest = jnp.argmax(jnp.where(exemplars[None], s, -jnp.inf), axis=1)
  nearest = jnp.where(exemplars, jnp.arange(size), nearest)
  members = nearest[None] == jnp.arange(size)[:, None]
  return members & exemplars[:, None]


def similarity_of(affinity: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The symmetric similarity, and whether every task has an own affinity."""
  own = jnp.diagonal(affinity)
  known = jnp.all(own > 0)
  scaled = affinity / jnp.where(own > 0, own, 1)[None]
  return (scaled + scaled.T) / 2, known


def noted(
  affinity: jax.Array,
  members: jax.Array,
  before: jax.Array,
  after: jax.Array,
  decay: ArrayLike,
) -> jax.Array:
  """The affinities after a step on a group.

  Args:
    affinity: B, shape ``(T, T)``.
    members: of the group, ``(T,)``; if none, B stays.
    before: the losses before its step, ``(T,)``.
    after: those after it.
    decay: of the average.
  """
  known = (before > 0) & jnp.isfinite(before) & jnp.isfinite(after)
  change = jnp.where(known, 1 - after / jnp.where(known, before, 1), 0)
  of, to = change[:, None], change[None, :]
  both = members[:, None] & members[None, :]
  agree = ~both | (of * to >= 0)
  value = jnp.where(agree, to, -jnp.maximum(of, to))
  value = value / jnp.maximum(jnp.sum(members), 1).astype(value.dtype)
  eye = jnp.eye(len(members), dtype=bool)
  # Within a group both have to be known.
  counts = members[:, None] & known[None, :] & (~both | known[:, None])
  counts = counts & ~(eye & (to < 0))
  rate = jnp.asarray(decay, affinity.dtype)
  moved = (1 - rate) * affinity + rate * value.astype(affinity.dtype)
  return jnp.where(counts, moved, affinity)


def _groups(plan: Plan, state: TrainState) -> jax.Array:
  """The groups of this step."""
  method = state.method_state
  if plan.is_fixed:
    return method.groups
  due = state.step >= plan.warmup_steps
  due = due & ((state.step - plan.warmup_steps) % plan.every == 0)

  def anew(affinity, groups):
    similarity, known = similarity_of(affinity)
    found = groups_of(
      similarity, plan.preference, plan.damping, plan.num_iterations
    )
    return jnp.where(known & jnp.any(found), found, groups)

  keep = lambda affinity, groups: groups
  return jax.lax.cond(due, anew, keep, method.affinity, method.groups)


class _Turn(NamedTuple):
  """What the groups hand on to each other."""

  params: Any
  opt_state: Any
  affinity: jax.Array
  members: jax.Array  # of the group before, whose step is not yet noted
  losses: jax.Array  # before its step
  first: jax.Array  # the losses before all steps


def run_step(
  plan: Plan, state: TrainState, batch: Any
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One step, see `make_group_step`."""
  method = state.method_state
  groups = _groups(plan, state)
  num_tasks = groups.shape[0]
  order = jnp.arange(num_tasks)
  if plan.order == 'random':
    key = jax.random.fold_in(state.key, state.step)
    order = jax.random.permutation(key, num_tasks)

  def note(turn, losses):
    return noted(turn.affinity, turn.members, turn.losses, losses, plan.decay)

  def losses_at(params):
    found = _pullback.task_losses(plan.loss_fn, params, (batch,), has_aux=False)
    return found.astype(method.affinity.dtype)

  @canonical_convolutions
  def take(turn, members):
    pull = _pullback.make_pullback(
      plan.loss_fn, turn.params, (batch,), labels=plan.labels, has_aux=False
    )
    losses = pull.losses.astype(method.affinity.dtype)
    updates, opt_state = _optimizer.update(
      plan.optimizer,
      _tree.conjugate(pull.summed(members)),
      turn.opt_state,
      turn.params,
      value=jnp.sum(_tree.present(members, losses)),
    )
    old = turn.params, turn.opt_state
    new = optax.apply_updates(turn.params, updates), opt_state
    if plan.labels is not None:
      new = _absent.stand_still(plan.optimizer, plan.labels, members, new, old)
    return _Turn(
      *new,
      affinity=note(turn, losses),
      members=members,
      losses=losses,
      first=jnp.where(jnp.any(turn.members), turn.first, losses),
    )

  def place(turn, members):
    nothing = lambda turn, members: turn
    return jax.lax.cond(jnp.any(members), take, nothing, turn, members), None

  zeros = jnp.zeros((num_tasks,), method.affinity.dtype)
  start = _Turn(
    state.params,
    state.opt_state,
    method.affinity,
    jnp.zeros((num_tasks,), bool),
    zeros,
    zeros,
  )
  turn, _ = jax.lax.scan(place, start, groups[order])
  affinity = note(turn, losses_at(turn.params))
  metrics = {
    'losses': turn.first,
    'group': jnp.argmax(groups, axis=0),
    'num_groups': jnp.sum(jnp.any(groups, axis=1)),
  }
  return dataclasses.replace(
    state,
    step=state.step + 1,
    params=turn.params,
    opt_state=turn.opt_state,
    method_state=GroupState(affinity, groups),
  ), metrics

"""A step of FORUM: the direction, its multipliers, and what is learned."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mtljax import _tree
from mtljax._jaxprs import canonical_convolutions
from mtljax.gradients import _pullback
from mtljax.gradients._passes import Passes
from mtljax.gradients._pullback import LossFn, Pullback
from mtljax.solvers import nonneg_qp, row_normalize
from mtljax.training.step import _optimizer
from mtljax.training.step.state import TrainState
from mtljax.weightings import _learned, _loss_common

# Of the augmented Lagrangian: with unit rows, every round divides what the
# weights lack to 1 by at least this number plus 1.
_PENALTY = 8.0
_ROUNDS = 50


class ForumState(NamedTuple):
  """What `make_forum_step` keeps besides the optimizer's state."""

  learned: jax.Array  # (T,), what the softmax is taken of
  optimizer_state: Any
  shares: jax.Array  # (T,), the averaged multipliers of validation losses
  residual: jax.Array  # of the last solve, float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """The checked choices of a step, see `make_forum_step`."""

  loss_fn: LossFn
  optimizer: optax.GradientTransformationExtraArgs
  passes: Passes
  num_tasks: int
  primary: tuple[int, ...] | None
  learning_rate: ArrayLike
  inner_learning_rate: ArrayLike
  inner_steps: int
  strictness: ArrayLike
  window: int

  def pull(self, params: Any, batch: Any) -> Pullback:
    """The pass of a batch, from which all parameters are shared."""
    return _pullback.make_pullback(
      self.loss_fn, params, (batch,), labels=None, has_aux=False
    )

  def counted(self) -> jax.Array:
    """Which tasks are primary, ``(T,)``."""
    every = jnp.zeros((self.num_tasks,), bool)
    return every.at[jnp.asarray(self.primary or range(self.num_tasks))].set(
      True
    )


class Multipliers(NamedTuple):
  """The solution of `multipliers`."""

  shares: jax.Array
  residual: jax.Array


@jax.jit
def multipliers(
  unit: jax.Array, used: jax.Array, alignment: jax.Array, demand: jax.Array
) -> Multipliers:
  r"""The shares of unit rows in the least step that meets a demand.

  .. math:: \min_{\lambda \in \Delta,\, v \ge 0} \;
     \tfrac12 \left\| \sum_i \lambda_i u_i + v \hat q \right\|^2 - a v

  the dual of :math:`\min_d \max_i u_i^\top d + \tfrac12 \|d\|^2` under
  :math:`\hat q^\top d \le -a`. The simplex is met by an augmented Lagrangian,
  every round of which is a quadratic program over non-negative variables.

  Args:
    unit: :math:`u_i^\top u_j`, shape ``(T, T)``.
    used: the rows that take part, shape ``(T,)``.
    alignment: :math:`u_i^\top \hat q`, shape ``(T,)``; zeros where there is no
      constraint.
    demand: a, at least 0.

  Returns:
    :math:`\lambda`, zeros if no row takes part, and the largest violation of
    the optimality conditions over :math:`1 + a`.
  """
  size = unit.shape[0]
  dtype = unit.dtype
  ones = jnp.append(used.astype(dtype), 0)
  wanted = jnp.zeros((size + 1,), dtype).at[size].set(demand)
  matrix = jnp.eye(size + 1, dtype=dtype).at[:size, :size].set(unit)
  alignment = jnp.where(used, alignment, 0)
  matrix = matrix.at[size, :size].set(alignment)
  matrix = matrix.at[:size, size].set(alignment)
  penalized = matrix + _PENALTY * ones[:, None] * ones[None, :]
  takes_part = jnp.append(used, True)

  def solve(carry):
    level, _, _, rounds = carry
    linear = -(_PENALTY + level) * ones - wanted
    x, _ = nonneg_qp(penalized, linear, takes_part)
    lack = 1 - jnp.sum(ones * x)
    return level + _PENALTY * lack, x, lack, rounds + 1

  def go_on(carry):
    level, _, lack, rounds = carry
    enough = 4 * jnp.finfo(dtype).eps * (1 + jnp.abs(level))
    return (jnp.abs(lack) > enough) & (rounds < _ROUNDS) & jnp.any(used)

  start = (
    jnp.zeros((), dtype),
    jnp.zeros((size + 1,), dtype),
    jnp.ones_like(demand),
  )
  _, x, _, _ = jax.lax.while_loop(go_on, solve, (*start, jnp.array(0)))
  total = jnp.sum(ones * x)
  x = jnp.where(total > 0, x / jnp.where(total > 0, total, 1), x)
  shares = x[:size]
  # The multiplier of the constraint for these very shares.
  x = x.at[size].set(jnp.maximum(demand - jnp.sum(alignment * shares), 0))
  slack = jnp.matmul(matrix, x, precision='highest') - wanted
  level = jnp.sum(ones * x * slack)
  off = jnp.where(takes_part, jnp.minimum(x, slack - level * ones), 0)
  residual = jnp.where(jnp.any(used), jnp.max(jnp.abs(off)) / (1 + demand), 0)
  poisoned = ~(jnp.all(jnp.isfinite(matrix)) & jnp.isfinite(demand))
  poison = jnp.where(poisoned, jnp.nan, 0).astype(dtype)
  return Multipliers(shares + poison, residual + poison)


def _descended(
  plan: Plan, params: Any, batch: Any, weights: jax.Array, pull: Pullback, first
) -> Any:
  """The parameters after the inner steps on the weighted training losses.

  The first is along ``first``, the gradient from ``pull``, the pass at them.
  """
  rate = jnp.asarray(plan.inner_learning_rate, weights.dtype)

  def move(params, pull, gradient):
    return jax.tree.map(
      lambda p, g: p - _tree.scale_leaf(rate, g).astype(p.dtype),
      params,
      _tree.conjugate(pull.split.merge(gradient, [])),
    )

  @canonical_convolutions
  def descend(params):
    pull = plan.pull(params, batch)
    return move(params, pull, pull.combined(weights))

  return jax.lax.fori_loop(
    1,
    plan.inner_steps,
    lambda _, params: descend(params),
    move(params, pull, first),
  )


def run_step(
  plan: Plan, state: TrainState, batch: Any, val_batch: Any
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One step, see `make_forum_step`."""
  method = state.method_state
  everyone = jnp.ones((plan.num_tasks,), bool)
  weights = _loss_common.softmax(method.learned, everyone)
  pull = plan.pull(state.params, batch)
  losses = pull.losses.astype(weights.dtype)
  lower = pull.combined(weights)
  inner = _descended(plan, state.params, batch, weights, pull, lower)
  after = _pullback.task_losses(plan.loss_fn, inner, (batch,), has_aux=False)
  gains = losses - after.astype(weights.dtype)
  by_learned = _learned.through_softmax(gains, weights)

  val_pull = plan.pull(state.params, val_batch)
  rows = val_pull.rows(plan.passes)
  unit, norms = row_normalize(_tree.gramian_of(rows), plan.counted())
  used = ~(norms <= 0)
  inverse = jnp.where(used, 1 / jnp.where(used, norms, 1), 0)
  products = _tree.products_of(rows, [x[None] for x in lower])[:, 0]
  length = jnp.sqrt(
    jnp.square(_tree.norm(lower)) + jnp.sum(jnp.square(by_learned))
  )
  constrained = length > 0
  over = 1 / jnp.where(constrained, length, 1)
  alignment = jnp.where(constrained, products * inverse * over, 0)
  demand = jnp.asarray(plan.strictness, length.dtype) * length
  found = multipliers(unit, used, alignment, demand)

  decay = (1 + state.step // plan.window).astype(weights.dtype) ** -0.75
  shares = method.shares + decay * (found.shares - method.shares)
  multiplier = over * jnp.maximum(demand - jnp.sum(shares * alignment), 0)
  multiplier = jnp.where(constrained, multiplier, 0)

  direction = [
    _tree.combine_leaf(shares * inverse, row)
    + _tree.scale_leaf(multiplier, leaf)
    for row, leaf in zip(rows, lower, strict=True)
  ]
  updates, opt_state = _optimizer.update(
    plan.optimizer,
    _tree.conjugate(pull.split.merge(direction, [])),
    state.opt_state,
    state.params,
    value=jnp.sum(losses),
  )
  step, optimizer_state = _loss_common.adam_step(
    multiplier * by_learned, method.optimizer_state, everyone
  )
  rate = jnp.asarray(plan.learning_rate, weights.dtype)
  new = ForumState(
    method.learned - rate * step,
    optimizer_state,
    shares,
    found.residual.astype(jnp.float32),
  )
  fine = _tree.stays_finite(new, method)
  kept = jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, method)
  metrics = {
    'losses': losses,
    'val_losses': val_pull.losses.astype(weights.dtype),
    'weights': weights,
    'shares': shares,
    'multiplier': multiplier,
    'constraint': jnp.sum(weights * gains),
  }
  return dataclasses.replace(
    state,
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    opt_state=opt_state,
    method_state=kept,
  ), metrics

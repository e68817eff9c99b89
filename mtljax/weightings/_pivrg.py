"""PIVRG: FairGrad that favours the tasks furthest behind their baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.solvers import fair_newton
from mtljax.weightings import _common, _loss_common


class PIVRGState(NamedTuple):
  """State of `pivrg`; the first three are a task's own, shape ``(T,)``."""

  mean: jax.Array  # of the losses in the window that is open
  seen: jax.Array  # steps in that window, int32
  behind: jax.Array  # per cent above the score, in the last full window
  residual: jax.Array  # of the last solve, float32


@jax.jit
def _shares(
  behind: jax.Array,
  bound: jax.Array,
  min_temperature: jax.Array,
  mask: jax.Array,
) -> jax.Array:
  """The factors of the tasks present; they sum to their number."""
  high = jnp.max(jnp.where(mask, behind, -jnp.inf))
  low = jnp.min(jnp.where(mask, behind, jnp.inf))
  spread = jnp.where(jnp.any(mask), high - low, 0)
  temperature = jnp.maximum(spread / jnp.log(bound), min_temperature)
  count = _loss_common.count(mask)
  return count * _loss_common.softmax(behind / temperature, mask)


@jax.jit
def _watch(
  losses: jax.Array,
  mask: jax.Array,
  scores: jax.Array,
  window: jax.Array,
  state: PIVRGState,
) -> PIVRGState:
  """The state after one more step's losses."""
  seen = jnp.where(mask, state.seen + 1, state.seen)
  part = (losses - state.mean) / jnp.maximum(seen, 1).astype(losses.dtype)
  mean = jnp.where(mask, state.mean + part, state.mean)
  full = seen >= window
  behind = 100 * (mean / scores - 1)
  return state._replace(
    mean=jnp.where(full, 0, mean),
    seen=jnp.where(full, 0, seen),
    behind=jnp.where(full, behind, state.behind),
  )


def pivrg(
  *,
  scores: Sequence[float] | jax.Array,
  window: int = 25,
  bound: ArrayLike = 2.0,
  min_temperature: ArrayLike = 10.0,
) -> Weighting:
  r"""Performance-informed variance reduction (PIVRG).

  `fairgrad` with :math:`\alpha = 2` in which a task counts by how far it is
  behind its single-task score :math:`b_t`:

  .. math:: (G w)_t = \sqrt{\omega_t / w_t}, \qquad
     \omega = T\, \mathrm{softmax}(\Delta / \tau), \quad
     \Delta_t = 100\, (\bar L_t / b_t - 1)

  with :math:`\bar L_t` the mean training loss over the last window and
  :math:`\tau` the larger of :math:`(\max \Delta - \min \Delta) / \log 2` and
  10, so that no factor is more than twice another. The weights are positive
  and have no fixed sum. Until the first window is full all :math:`\omega_t`
  are 1, which is `fairgrad`. Heads are not weighted. Scaling a task's loss
  changes the update (invariance ``'none'``). (The official code takes
  :math:`\Delta_t` from the training metrics of the last epoch, multiplies the
  update by T and clips its norm.) Costs the Gramian (T backward passes) and 5
  to 15 Newton steps of O(T^3).

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  ||g||^(-4/3)
  zero rows                 0 for them; they count among the factors, so the
                            rest has the smaller problem's direction
  equal rows                as unlike as the factors
  0 in the hull             Pareto stationary, as of antiparallel rows: there is
                            no solution; finite weights whose combination is
                            bounded, with a residual of order 1
  absent tasks              0, the smaller problem's answer for the rest; a
                            window counts the steps a task is present
  NaN or infinity           NaN; in a loss, until its window is replaced; in
                            an aggregator only in that step
  ========================  ==================================================

  Args:
    scores: :math:`b`, the training loss that each task reaches when it is
      trained alone, shape ``(T,)``, above 0.
    window: steps that are averaged, at least 1; the paper's is an epoch.
    bound: the largest ratio of two factors, above 1.
    min_temperature: the least :math:`\tau`, in per cent, above 0.

  Returns:
    The `mtljax.Weighting`. Reads the losses and the Gramian. Its state has the
    residual of the last solve, :math:`\max_t |\sqrt{w_t / \omega_t} (G w)_t -
    1|`.

  Raises:
    ValueError: an argument is out of its range, or there are not T scores.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.pivrg(scores=[0.5, 0.5], window=1)
    >>> stats = mtl.TaskStats(gramian=jnp.eye(2), losses=jnp.array([0.5, 5.0]))
    >>> _, state = weighting.update(stats, weighting.init(2))
    >>> weights, _ = weighting.update(stats, state)
    >>> [round(float(w), 4) for w in weights]
    [0.8736, 1.1006]

  References:
    Qin et al., `Revisiting Fairness in Multitask Learning: A
    Performance-Driven Approach for Variance Reduction
    <https://github.com/jianke0604/MTLlib>`_, 2025
  """
  if scores is None:
    raise TypeError(
      'scores=None must be a vector, one single-task score a task.'
    )
  _loss_common.check_vector('scores', scores, math.ulp(0.0))
  window = _validate.integer('window', window, 1)
  _validate.in_range('bound', bound, 1, open_low=True)
  _validate.in_range('min_temperature', min_temperature, 0, open_low=True)

  def init_fn(num_tasks, key=None):
    del key
    _loss_common.check_length('scores', scores, num_tasks)
    return PIVRGState(
      mean=jnp.zeros((num_tasks,), float),
      seen=jnp.zeros((num_tasks,), jnp.int32),
      behind=jnp.zeros((num_tasks,), float),
      residual=_common.zero_residual(),
    )

  def update_fn(stats, state):
    gramian, mask = _common.gramian_and_mask(stats, 'pivrg')
    losses, _ = _loss_common.losses_and_mask(stats, 'pivrg')
    dtype = state.behind.dtype
    shares = _shares(
      state.behind,
      jnp.asarray(bound, dtype),
      jnp.asarray(min_temperature, dtype),
      mask,
    ).astype(gramian.dtype)
    # In w_t times its factor it is FairGrad.
    inverse = 1 / jnp.where(mask, shares, 1)
    scaled = gramian * inverse[:, None] * inverse[None, :]
    weights, residual = fair_newton(scaled, 2.0, mask)
    state = _watch(
      losses, mask, jnp.asarray(scores, losses.dtype), window, state
    )
    return weights * inverse, state._replace(
      residual=residual.astype(jnp.float32)
    )

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'losses', 'gramian'}),
    info=MethodInfo(
      name='pivrg',
      paper='Qin et al., 2025, https://github.com/jianke0604/MTLlib',
    ),
  )

"""DB-MTL: log losses, and tracked gradients of one length."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _tree, _validate
from mtljax._types import MethodInfo
from mtljax.aggregators import _gradient_based as _base


class DBMTLState(NamedTuple):
  """State of `db_mtl`."""

  count: jax.Array  # () int32
  tracked: Any  # (T, ...) a leaf: the averaged gradients of the log losses


def db_mtl(
  *, decay: ArrayLike = 0.9, decay_power: ArrayLike = 0.0, eps: float = 1e-8
) -> _base.GradientRule:
  r"""Dual-balancing: both the losses' and the gradients' scales (DB-MTL).

  The losses are balanced by a logarithm, the gradients by giving their moving
  averages the length of the longest:

  .. math::
     \hat g_t \leftarrow \beta_k \hat g_t
     + (1 - \beta_k) \nabla \log(L_t + \epsilon), \qquad
     d = \max_s \|\hat g_s\| \sum_t \frac{\hat g_t}{\|\hat g_t\|}

  from :math:`\hat g = 0`, with :math:`\beta_k = \beta / k^\sigma`. The weights
  are :math:`\max_s \|\hat g_s\| / \|\hat g_t\|`, of the tracked gradients of
  the log losses: at least 1, with no fixed sum. Heads take the gradient of
  their log loss, as in the authors' code; ``weight_heads=False`` gives them
  that of the loss. A constant factor on a loss changes nothing as long as the
  loss is far above :math:`\epsilon` (invariance ``'full'``). The state holds a
  number for each task and shared parameter: T times their memory. Costs the T
  gradients and O(T) a coordinate.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  zero rows                 0 while their average is zero: it has no direction
  equal, antiparallel rows  nothing special; two antiparallel ones cancel
  a loss of 0               bounded by :math:`\epsilon`
  a loss below 0            NaN for all: it has no logarithm
  absent tasks              0, the smaller problem's answer for the rest; their
                            averages stand still
  NaN or infinity           NaN; the state stands still
  ========================  ==================================================

  Args:
    decay: :math:`\beta`, at least 0 and below 1; 0 does not average.
    decay_power: :math:`\sigma`, at least 0.
    eps: :math:`\epsilon`, in units of a loss.

  Returns:
    The `mtljax.Aggregator`. Reads the gradients and the losses.

  Raises:
    ValueError: an argument is out of its range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.db_mtl(num_tasks=2, decay=0.0)
    >>> params = {'w': jnp.zeros(2)}
    >>> grads = {'w': jnp.array([[1.0, 0.0], [0.0, 200.0]])}
    >>> update, state = tx.update(
    ...   grads, tx.init(params), params, losses=jnp.array([0.5, 50.0]))
    >>> print(mtl.get_weights(state), update['w'])
    [2. 1.] [4. 4.]

  References:
    Lin et al., `Dual-Balancing for Multi-Task Learning
    <https://arxiv.org/abs/2308.12029>`_, 2023
  """
  _validate.in_range('decay', decay, 0, 1)
  if isinstance(decay, (int, float)) and decay == 1:
    raise ValueError(
      f'decay={decay!r} must be below 1, or the average stays 0.'
    )
  _validate.in_range('decay_power', decay_power, 0)
  _validate.in_range('eps', eps, 0)

  def init_fn(num_tasks, shared, key):
    del key
    return DBMTLState(
      count=jnp.zeros((), jnp.int32),
      tracked=_base.zero_rows(shared, num_tasks),
    )

  def update_fn(rows, state):
    mask = rows.present
    losses = rows.losses.astype(_tree.accumulator(rows.losses.dtype))
    slope = jnp.where(mask, 1 / jnp.where(mask, losses + eps, 1), 0)
    count = (state.count + 1).astype(losses.dtype)
    kept = jnp.where(mask, decay / count**decay_power, 1)
    tracked = [
      _tree.scale_leaf(kept, y)
      + _tree.scale_leaf((1 - kept) * slope, g.astype(y.dtype))
      for y, g in zip(state.tracked, rows.leaves, strict=True)
    ]
    present = [_tree.present(rows.mask, y) for y in tracked]
    norms = jnp.sqrt(jnp.diagonal(_tree.gramian_of(present)))
    ok = jnp.all(jnp.isfinite(norms)) & jnp.all(losses >= 0)
    has = norms > 0
    weights = jnp.where(has, jnp.max(norms) / jnp.where(has, norms, 1), 0)
    weights = jnp.where(mask, jnp.where(ok, weights, jnp.nan), 0)

    state = DBMTLState(
      count=state.count + 1,
      tracked=_base.keep_unless(ok, tracked, state.tracked),
    )
    return _base.Outcome(
      _base.weighted_sum(weights, present, rows.leaves),
      state,
      weights,
      own=slope,
    )

  return _base.GradientRule(
    init_fn,
    update_fn,
    MethodInfo(
      name='db_mtl',
      paper='Lin et al., 2023, https://arxiv.org/abs/2308.12029',
      invariance='full',
      weight_heads=True,
    ),
    keeps_rows=True,
    reads_losses=True,
  )

"""ConFIG: the direction with equal cosines to all gradients."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtljax._types import MethodInfo, Weighting
from mtljax.solvers import row_normalize
from mtljax.weightings import _common, _preference


class ConflictFreeState(NamedTuple):
  """State of `conflict_free`."""

  residual: jax.Array  # of the last solve, float32


@jax.jit
def _weights(
  gramian: jax.Array, preference: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
  unit, norms = row_normalize(gramian, mask)
  used = ~(norms <= 0)
  both = used[:, None] & used[None, :]
  wanted = jnp.where(used, preference, 0)
  size = jnp.max(wanted)
  wanted = wanted / jnp.where(size == 0, 1, size)
  count = jnp.maximum(jnp.sum(used), 1).astype(unit.dtype)
  eps = jnp.finfo(unit.dtype).eps

  matrix = jnp.where(both, unit, 0)
  values, vectors = jnp.linalg.eigh(matrix)
  kept = values > count * eps * jnp.max(jnp.abs(values))

  def on_vectors(x):
    x = jnp.matmul(vectors.T, x, precision='highest')
    return jnp.where(kept, x, 0)

  def pinv(inner):
    inner = inner / jnp.where(kept, values, 1)
    return jnp.matmul(vectors, inner, precision='highest')

  inner = on_vectors(wanted)
  # What the rows can do of the preference; all rounding if they are opposed.
  reach = jnp.sqrt(jnp.sum(inner**2))
  stuck = reach <= 32 * eps * count**1.5
  y = pinv(inner)
  # Once more for what the decomposition's rounding has left over.
  left = wanted - jnp.matmul(matrix, y, precision='highest')
  y = y + pinv(on_vectors(left))
  y = jnp.where(used & ~stuck, y, 0)

  cosines = jnp.matmul(unit, y, precision='highest')
  residual = jnp.max(jnp.where(used, jnp.abs(cosines - wanted), 0))
  squared = jnp.sum(y * cosines)
  squared = jnp.where(squared <= 0, 1, squared)
  # Twice divided by the length: the direction, then what is projected on it.
  largest = jnp.max(jnp.where(used, norms, 0))
  largest = jnp.where(largest == 0, 1, largest)
  total = jnp.sum(norms / largest * cosines) / squared
  return total * y * jnp.where(used, largest / jnp.where(used, norms, 1), 0), (
    residual
  )


def conflict_free(*, preference: _preference.Preference = None) -> Weighting:
  r"""Conflict-free inverse gradients (ConFIG).

  The update's direction :math:`b` has the same positive cosine with every
  gradient, and its length is the sum of the gradients' projections on it. With
  :math:`u_t = g_t / \|g_t\|` and :math:`U = [u_1 \ldots u_T]^\top`,

  .. math:: d = \Big(\sum_t g_t^\top b\Big) b, \qquad
     b = \frac{U^+ p}{\|U^+ p\|}, \quad p = 1

  Written with the unit Gramian, :math:`U^+ = U^\top (U U^\top)^+`, it takes a
  T by T pseudo-inverse in place of one of the gradients. The weights have no
  fixed sum; they may be negative, so heads are never weighted. Scaling a
  task's loss changes the length of the update only (invariance
  ``'direction'``). For two tasks :math:`b` halves the angle between them.
  Costs the Gramian (T backward passes) and one pseudo-inverse, O(T^3).

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  a zero row                0 for it, the smaller problem's answer for the rest
  all rows zero             zeros
  equal rows                they share their weight equally in ``u``
  antiparallel rows         zeros: no direction agrees with both
  dependent rows            least squares: equal cosines where they exist, else
                            as equal as can be, and some may be negative; the
                            residual tells
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    preference: :math:`p`, the cosines' ratios, shape ``(T,)``, not negative;
      None: ones.

  Returns:
    The `mtljax.Weighting`. Reads the Gramian. Its state has the residual of
    the last step: the largest :math:`|u_t^\top U^+ p - p_t|`, relative to the
    largest :math:`p_t`.

  Raises:
    ValueError: the preference is negative, not finite, 0, or not of length T.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.conflict_free()
    >>> stats = mtl.TaskStats(gramian=jnp.diag(jnp.array([1.0, 9.0])))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 4) for w in weights]
    [2.0, 0.6667]

  References:
    Liu et al., `ConFIG: Towards Conflict-free Training of Physics Informed
    Neural Networks <https://arxiv.org/abs/2408.11104>`_, 2024
  """
  _preference.check(preference)

  def init_fn(num_tasks, key=None):
    del key
    _preference.check_length(preference, num_tasks)
    return ConflictFreeState(residual=_common.zero_residual())

  def update_fn(stats, state):
    gramian, mask = _common.gramian_and_mask(stats, 'conflict_free')
    wanted = _preference.as_array(preference, mask, gramian.dtype)
    weights, residual = _weights(gramian, wanted, mask)
    weights = _common.nan_unless_finite(weights, gramian, mask)
    return weights, state._replace(residual=residual.astype(jnp.float32))

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'gramian'}),
    info=MethodInfo(
      name='conflict_free',
      paper='Liu et al., 2024, https://arxiv.org/abs/2408.11104',
      invariance='direction',
      signed=True,
    ),
  )

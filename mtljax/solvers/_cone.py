"""ConicGrad's problem: the best worst-case direction near the mean's."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtljax.solvers._normalize import row_normalize
from mtljax.solvers._qp import dot, pivoted_qp, ridge
from mtljax.solvers._simplex import inverse_norms, min_norm_point


class _Search(NamedTuple):
  low: jax.Array  # a level with a point of the ball above it
  high: jax.Array  # at or above the largest such level
  level: jax.Array  # the next to try, then that of x
  x: jax.Array
  done: jax.Array
  steps: jax.Array


def _largest_level(matrix, a, c, used, low, high, skip, max_steps=100):
  """The largest level with a point of the unit ball above it.

  The distance from 0 to the polyhedron ``u_i . d >= level a_i``, with ``c`` in
  place of the level for the last row, grows convexly with the level, so
  Newton's method for ``distance = 1`` descends from an upper bound. Above some
  level there may be no such point: from there on the bracket is halved.
  """
  eps = jnp.finfo(matrix.dtype).eps
  added = ridge(matrix, used)
  size = jnp.sum(used).astype(a.dtype)

  def step(carry):
    level = carry.level
    asked = (level * a).at[-1].set(c)
    x, scale, _, _ = pivoted_qp(matrix, -asked, used, None, added)
    x = scale * x
    force = dot(matrix, x)
    distance = jnp.sqrt(jnp.maximum(dot(x, force), 0))
    short = jnp.max(jnp.where(used, asked - force, 0))
    # Where there is none, x is as large as the ridge lets it be.
    spent = size * eps * dot(x, x)
    exists = (short <= jnp.sqrt(eps)) & (
      spent <= 20 * jnp.sqrt(eps) * jnp.maximum(jnp.square(distance), 1)
    )
    far = ~exists | (distance > 1)
    low = jnp.where(far, carry.low, level)
    high = jnp.where(far, level, carry.high)
    pull = dot(a, x)
    newton = level + (1 - distance) * distance / jnp.where(pull > 0, pull, 1)
    good = exists & (distance > 1) & (newton > low) & (newton < high)
    # Below the level sought, where the distance is flat, it is halved too.
    new = jnp.where(good, newton, low + (high - low) / 2)
    reached = exists & (jnp.abs(distance - 1) <= 4 * eps)
    stuck = (new <= low) | (new >= high)
    done = reached | (exists & stuck) | ((level >= high) & exists & ~far)
    return _Search(
      low, high, jnp.where(done, level, new), x, done, carry.steps + 1
    )

  carry = _Search(low, high, high, jnp.zeros_like(a), skip, jnp.array(0))
  return jax.lax.while_loop(
    lambda s: ~s.done & (s.steps < max_steps), step, carry
  )


@jax.jit
def cone_max_min(
  gramian: jax.Array, c: jax.Array | float, mask: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  r"""Finds the best worst-case direction at an angle to the mean.

  With :math:`g_0` the mean of the rows and :math:`\hat g_0` its direction, it
  solves

  .. math:: \max_d \min_i g_i^\top d \quad\text{s.t.}\quad
     \|d\| \le 1, \; \hat g_0^\top d \ge c

  and returns :math:`v \ge 0` with
  :math:`\sum_i v_i g_i = \|g_0\| d / \|d\|`. The set is the hull of the unit
  vectors with a cosine of at least c, so the dual is to minimise, over the
  simplex, with :math:`q = w^\top G w` and
  :math:`p = w^\top G u / \|g_0\|`, where u is uniform,

  .. math:: h(w) = \sqrt q \text{ if } p \ge c \sqrt q, \text{ else }
     c p + \sqrt{(1 - c^2) (q - p^2)}

  Args:
    gramian: shape ``(T, T)``.
    c: the least cosine, from 0 to 1; may be traced.
    mask: true for the rows to use, shape ``(T,)``; None means all.

  Returns:
    ``v``, shape ``(T,)``, and the residual: the largest violation of the
    conditions of optimality, in terms of unit rows.

  Edge cases:

    ============================  ===========================================
    input                         answer
    ============================  ===========================================
    zero rows                     they count in :math:`g_0` and place no
                                  demand on ``d``
    ``c = 1``                     :math:`d = \hat g_0`
    :math:`g_0 = 0`               zeros
    0 in the hull, ``c > 0``      the direction that is least bad for the
                                  worst row; ``c = 0``: 0
    no row                        zeros
    NaN or infinity in a row      NaN
    ============================  ===========================================

  Examples:
    >>> v, residual = cone_max_min(jnp.diag(jnp.array([1.0, 4.0])), 0.9)
    >>> [round(float(x), 4) for x in v], bool(residual < 1e-5)
    ([0.8859, 0.341], True)
  """
  unit, norms = row_normalize(gramian, mask)
  active = jnp.ones(norms.shape, bool) if mask is None else mask
  used = active & ~(norms <= 0)
  dtype = norms.dtype
  a = inverse_norms(norms, used)
  largest = jnp.max(jnp.where(used, norms, 0))
  largest = jnp.where(largest == 0, 1, largest)
  count = jnp.maximum(jnp.sum(active), 1).astype(dtype)
  share = jnp.where(used, norms / largest, 0) / count
  cosine = jnp.where(used, dot(unit, share), 0)
  mean_norm = jnp.sqrt(jnp.maximum(dot(share, cosine), 0))
  nothing = ~(mean_norm > 8 * jnp.finfo(dtype).eps * jnp.max(share))
  safe = jnp.where(nothing, 1, mean_norm)
  cosine = jnp.where(nothing, 0, jnp.clip(cosine / safe, -1, 1))

  # The mean's direction is one more unit row.
  c = jnp.asarray(c, dtype)
  one = jnp.ones((1,), dtype)
  matrix = jnp.block([[unit, cosine[:, None]], [cosine[None], one[None]]])
  every = jnp.append(used, True)
  y, force, _ = min_norm_point(unit, a, used)
  length = jnp.sqrt(jnp.maximum(dot(y, force), 0))
  along = dot(cosine, y)
  off = jnp.sqrt(jnp.maximum((length - along) * (length + along), 0))
  sine = jnp.sqrt((1 - c) * (1 + c))
  # The shortest vector of the hull, if it is inside, and not rounding.
  eps = jnp.finfo(dtype).eps
  short = jnp.square(length) <= 64 * eps
  inside = (along >= c * length) & ~short
  bound = jnp.where(along >= c * length, length, c * along + sine * off)
  bound = bound + jnp.where(short & (c > 0), 8 * jnp.sqrt(eps), 0)
  # No row gains more than its length.
  start = jnp.minimum(jnp.where(jnp.any(used), bound / dot(a, y), 1), 1)
  start = jnp.where(jnp.isfinite(start), start, 1)
  # What the mean's direction itself gives every row.
  low = jnp.min(jnp.where(used, c * cosine / jnp.where(used, a, 1), jnp.inf))
  low = jnp.minimum(jnp.where(jnp.isfinite(low), low, 0), start)
  a = jnp.append(a, 0)
  skip = inside | nothing | (c >= 1) | ~jnp.isfinite(c)
  skip = skip | ~jnp.all(jnp.isfinite(matrix))
  found = _largest_level(matrix, a, c, every, low, start, skip)
  free = jnp.append(y / jnp.where(length > 0, length, 1), 0)
  x = jnp.where(inside, free, found.x)
  x = jnp.where(c < 1, x, jnp.zeros_like(a).at[-1].set(1))

  force = dot(matrix, x)
  length = jnp.sqrt(jnp.maximum(dot(x, force), 0))
  slack = force - (found.level * a).at[-1].set(c)
  miss = jnp.where(every, jnp.abs(jnp.minimum(x, slack)), 0)
  residual = jnp.maximum(jnp.max(miss), length - 1)
  residual = jnp.where(nothing | (c >= 1), 0, residual)

  # It is at least c long, and shorter than 1 only where rows combine to 0.
  some = length > jnp.sqrt(eps)
  x = jnp.where(some, x / jnp.where(some, length, 1), 0)
  scale = jnp.where(used, largest / jnp.where(used, norms, 1), 0)
  v = mean_norm * x[:-1] * scale + jnp.where(active, x[-1] / count, 0)
  v = jnp.where(nothing, 0, v)
  bad = jnp.any(jnp.where(used, ~jnp.isfinite(norms), False))
  bad = bad | ~jnp.isfinite(c) | jnp.any(jnp.isnan(cosine))
  poison = jnp.where(bad, jnp.nan, 0).astype(dtype)
  return jnp.where(active, v + poison, 0), residual + poison

"""Problems over the simplex of task weights: MGDA's and CAGrad's."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtljax.solvers._normalize import row_normalize
from mtljax.solvers._pair import pair_in_ball
from mtljax.solvers._qp import dot, pivoted_qp, ridged


def inverse_norms(norms: jax.Array, used: jax.Array) -> jax.Array:
  """``min(norms) / norms`` where used, else 0."""
  smallest = jnp.min(jnp.where(used, norms, jnp.inf))
  return jnp.where(used, smallest / jnp.where(used, norms, 1), 0)


def min_norm_point(unit, a, used):
  """The minimiser ``y`` of ``y'Uy``, ``y >= 0``, ``a'y = 1``, to any scale.

  The nearest point of the cone of ``(rows, a)`` to ``(0, 1)`` has the same
  direction, and stays bounded at Pareto stationary points.

  Returns:
    ``y``, ``Uy``, and how many systems were solved.
  """
  matrix = unit + a[:, None] * a[None, :]
  y, _, _, iterations = pivoted_qp(matrix, -a, used)
  y = y / jnp.sum(y)
  # Of this matrix, so that no other is held during the solve.
  return y, dot(matrix, y) - dot(a, y) * a, iterations


@jax.jit
def min_norm_unit(
  unit: jax.Array, norms: jax.Array, mask: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  """`min_norm_simplex` for rows given by `row_normalize`, or rescaled ones."""
  active = jnp.ones(norms.shape, bool) if mask is None else mask
  used = active & ~(norms <= 0)
  zero = active & ~used
  a = inverse_norms(norms, used)
  y, force, _ = min_norm_point(unit, a, used)
  weights = y * a / jnp.sum(y * a)
  level = dot(y, force) / dot(a, y)
  off = jnp.where(used, jnp.abs(jnp.minimum(y, force - level * a)), 0)
  # A zero row is the point of least norm.
  count = jnp.sum(zero)
  some = count > 0
  shared = zero.astype(norms.dtype) / jnp.maximum(count, 1).astype(norms.dtype)
  weights = jnp.where(some, shared, weights)
  poisoned = jnp.any(jnp.where(active, jnp.isnan(norms), False))
  poison = jnp.where(poisoned, jnp.nan, 0).astype(norms.dtype)
  residual = jnp.where(some | ~jnp.any(active), 0, jnp.max(off))
  return jnp.where(active, weights + poison, 0), residual + poison


@jax.jit
def min_norm_simplex(
  gramian: jax.Array, mask: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  r"""Minimises :math:`w^\top G w` over the simplex: MGDA's problem.

  Solved in :math:`y_i = w_i \|g_i\|`, where the simplex becomes
  :math:`\sum_i y_i / \|g_i\| = 1`, so rows of very different length keep their
  part. The answer is exact for a Gramian that differs by rounding in each
  entry, relative to the lengths of the two rows.

  Args:
    gramian: shape ``(T, T)``.
    mask: true for the rows to use, shape ``(T,)``; None means all.

  Returns:
    The weights, shape ``(T,)``, and the residual: with :math:`y` scaled to
    sum to 1, the largest violation of
    :math:`\min(y_i, u_i^\top d - \|d\|^2 / \|g_i\|) = 0`, where
    :math:`u_i = g_i / \|g_i\|` and :math:`d = \sum_i y_i u_i`.

  Edge cases:

    ============================  ===========================================
    input                         answer
    ============================  ===========================================
    zero rows                     they share the weight equally: the least
                                  norm is 0
    equal rows                    they share their weight equally
    0 in the hull                 weights whose combination is 0 up to
                                  rounding
    no row                        zeros
    NaN or infinity in a row      NaN
    ============================  ===========================================

  Examples:
    >>> w, residual = min_norm_simplex(jnp.array([[1.0, 0.0], [0.0, 4.0]]))
    >>> [round(float(x), 4) for x in w], bool(residual < 1e-6)
    ([0.8, 0.2], True)
  """
  unit, norms = row_normalize(gramian, mask)
  norms = jnp.where(jnp.isinf(norms), jnp.nan, norms)
  return min_norm_unit(unit, norms, mask)


class _Search(NamedTuple):
  level: jax.Array
  x: jax.Array
  free: jax.Array
  done: jax.Array
  newton: jax.Array
  inner: jax.Array


def _largest_level(unit, a, slope, radius, used, max_iters=40):
  """The largest level ``t`` with a point of the ball above it, see below.

  The distance from ``g0`` to the polyhedron ``u_i . d >= t a_i`` grows
  convexly with ``t``, so Newton's method for ``distance = radius`` descends
  monotonically from an upper bound.
  """
  eps = jnp.finfo(unit.dtype).eps
  matrix = ridged(unit, used)
  outer = a[:, None] * a[None, :]
  single = (slope + radius) / jnp.where(used, a, 1)
  # In terms of the shortest row; the others' bounds may overflow.
  single = jnp.min(jnp.where(used, single, jnp.inf))

  def step(carry):
    # The first point is that of `min_norm_point`, up to its scale: any bounds
    # the level. In the same loop, so that the solver is compiled once.
    first = carry.newton == 0
    asked = matrix + jnp.where(first, outer, 0)
    linear = jnp.where(first, -a, slope - carry.level * a)
    x, scale, free, inner = pivoted_qp(asked, linear, used, carry.free, 0.0)
    x = scale * x
    distance = jnp.sqrt(jnp.maximum(dot(x, dot(matrix, x)), 0))
    pull = dot(a, x)
    bound = (dot(slope, x) + radius * distance) / pull
    level = carry.level + (radius - distance) * distance / pull
    done = ~first & (
      (jnp.abs(distance - radius) <= 4 * eps * radius)
      | ~(level < carry.level)
      | (distance < radius)
    )
    level = jnp.where(first, jnp.minimum(bound, single), level)
    level = jnp.where(done, carry.level, level)
    # From one level to the next few rows change sides.
    free = jnp.where(first, slope < level * a, free)
    return _Search(level, x, free, done, carry.newton + 1, carry.inner + inner)

  zero, false, none = jnp.zeros_like(slope), jnp.array(False), jnp.array(0)
  carry = _Search(single, zero, a > 0, false, none, none)
  return jax.lax.while_loop(
    lambda c: ~c.done & (c.newton <= max_iters), step, carry
  )


@jax.jit
def ball_max_min(
  gramian: jax.Array, radius: jax.Array | float, mask: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  r"""Finds the best worst-case direction near the mean: CAGrad's problem.

  With :math:`g_0` the mean of the rows, it solves

  .. math:: \max_d \min_i g_i^\top d
     \quad\text{s.t.}\quad \|d - g_0\| \le c \|g_0\|,

  and returns :math:`v \ge 0` with :math:`d = g_0 + \sum_i v_i g_i`. Its dual is
  the problem in the paper,
  :math:`\min_{w \in \Delta} g_w^\top g_0 + c \|g_0\| \|g_w\|`, with
  :math:`v = c \|g_0\| w / \|g_w\|`; ``v`` stays defined where
  :math:`g_w = 0`. For two rows it has a closed form.

  Args:
    gramian: shape ``(T, T)``.
    radius: :math:`c \ge 0`; may be traced.
    mask: true for the rows to use, shape ``(T,)``; None means all.

  Returns:
    ``v``, shape ``(T,)``, and the residual: by how much, relative to
    :math:`(1 + c) \|g_0\|`, a row of unit length falls short of the dual's
    value, or ``d`` leaves the ball.

  Edge cases:

    ============================  ===========================================
    input                         answer
    ============================  ===========================================
    zero rows                     0 for them. They count in :math:`g_0` but
                                  place no demand on ``d``; this is one of the
                                  optima of the full problem
    ``c = 0`` or :math:`g_0 = 0`  zeros
    0 in the hull, ``c < 1``      unique, nothing special
    0 in the hull, ``c >= 1``     ``d`` harms no row and is as close to
                                  :math:`g_0` as the ridge lets it be
    no row                        zeros
    NaN or infinity in a row      NaN
    ============================  ===========================================

  Examples:
    >>> v, residual = ball_max_min(jnp.diag(jnp.array([1.0, 4.0])), 0.4)
    >>> [round(float(x), 4) for x in v], bool(residual < 1e-6)
    ([0.4472, 0.0], True)
  """
  unit, norms = row_normalize(gramian, mask)
  active = jnp.ones(norms.shape, bool) if mask is None else mask
  used = active & ~(norms <= 0)
  a = inverse_norms(norms, used)
  largest = jnp.max(jnp.where(used, norms, 0))
  largest = jnp.where(largest == 0, 1, largest)
  count = jnp.maximum(jnp.sum(active), 1).astype(norms.dtype)
  share = jnp.where(used, norms / largest, 0) / count
  cosine = jnp.where(used, dot(unit, share), 0)
  mean_norm = jnp.sqrt(jnp.maximum(dot(share, cosine), 0))
  cosine = cosine / jnp.where(mean_norm == 0, 1, mean_norm)
  radius = jnp.asarray(radius, norms.dtype)
  total = 1 + radius
  slope, ball = cosine / total, radius / total
  nothing = (mean_norm == 0) | (radius == 0) | ~jnp.any(used)

  if len(norms) == 2:
    x = pair_in_ball(unit, norms, used, mean_norm, radius)
  else:
    # A harmless problem in place of one whose answer is zeros.
    harmless = jnp.where(nothing, 0.5, ball)
    x = _largest_level(unit, a, slope, harmless, used).x
  x = jnp.where(nothing, 0, x)
  force = dot(unit, x)
  length = jnp.sqrt(jnp.maximum(dot(x, force), 0))
  pull = dot(a, x)
  level = (dot(slope, x) + ball * length) / jnp.where(pull == 0, 1, pull)
  short = jnp.where(used, level * a - slope - force, 0)
  residual = jnp.maximum(jnp.max(short), length - ball)
  residual = jnp.where(nothing, 0, jnp.maximum(residual, 0))
  scale = jnp.where(used, largest / jnp.where(used, norms, 1), 0)
  v = total * mean_norm * x * scale
  bad = jnp.any(jnp.where(used, ~jnp.isfinite(norms), False))
  bad = bad | ~jnp.isfinite(radius) | jnp.any(jnp.isnan(cosine))
  poison = jnp.where(bad, jnp.nan, 0).astype(norms.dtype)
  return jnp.where(active, v + poison, 0), residual + poison

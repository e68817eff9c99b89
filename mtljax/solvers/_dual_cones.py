"""The projections of many rows on one dual cone, all at once."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtljax.solvers._normalize import row_normalize
from mtljax.solvers._qp import dot, measured_qp

#: The columns are solved in so many parts, so that only the matrix is whole.
_PARTS = 4


class _Iterate(NamedTuple):
  x: jax.Array
  slope: jax.Array  # of the objective, unless it is to be renewed
  way: jax.Array  # the next direction, uphill
  renew: jax.Array
  off: jax.Array  # the violation of the conditions of optimality
  done: jax.Array
  steps: jax.Array


def _descend(
  matrix: jax.Array,
  linear: jax.Array,
  enough: float,
  skip: jax.Array,
  max_steps: int = 160,
) -> _Iterate:
  """Projected conjugate gradients on every column's problem.

  A step of a column is one of conjugate gradients among what is not 0, and cut
  off where it leaves the bounds. Then, and where the conditions of optimality
  seem to hold, the slope is computed anew, which takes the column's next step.
  What is 0 is let go where it is worth more than what is not.
  """

  def total(x):
    return jnp.sum(x, 0, keepdims=True)

  def largest(x):
    return jnp.max(x, 0, keepdims=True)

  def step(c):
    image = dot(matrix, jnp.where(c.renew, c.x, c.way))
    curvature = total(c.way * image)
    goes = ~c.renew & (curvature > 0)
    curvature = jnp.where(goes, curvature, 1)
    length = jnp.where(goes, total(c.way * c.slope) / curvature, 0)
    moved = c.x - length * c.way
    x = jnp.maximum(moved, 0)
    slope = jnp.where(c.renew, image + linear, c.slope - length * image)
    off = largest(jnp.abs(jnp.minimum(x, slope))) / (1 + largest(x))
    met = off <= enough
    done = c.done | (c.renew & met)
    inner = jnp.where(x > 0, slope, 0)
    outer = jnp.where(x > 0, 0, jnp.minimum(slope, 0))
    again = c.renew | (largest(jnp.abs(inner)) <= largest(-outer))
    share = jnp.where(goes, total(inner * image) / curvature, 0)
    way = inner + jnp.where(again, outer, -share * c.way)
    return _Iterate(
      x=x,
      slope=slope,
      way=jnp.where(done, 0, way),
      renew=~c.renew & ~done & (met | (largest(-moved) > 0)),
      off=off,
      done=done,
      steps=c.steps + 1,
    )

  columns = linear[:1]
  start = _Iterate(
    x=jnp.zeros_like(linear),
    slope=linear,
    way=jnp.minimum(linear, 0),
    renew=jnp.zeros(columns.shape, bool),
    off=jnp.full_like(columns, jnp.inf),
    done=jnp.broadcast_to(skip, columns.shape),
    steps=jnp.array(0),
  )
  return jax.lax.while_loop(
    lambda c: ~jnp.all(c.done) & (c.steps < max_steps), step, start
  )


@jax.jit
def dual_cones(
  gramian: jax.Array, lower: jax.Array, mask: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  r"""The sum of `dual_cone`'s answers for ``lower[t] * e_t``, over all t.

  That is T problems with one matrix, so that a step for many of them is one
  product of matrices: projected conjugate gradients until the conditions of
  optimality hold to rounding, and where they do not within 160 steps, of an
  ill-conditioned Gramian, `dual_cone` one after the other, begun from what is
  free by then. A quarter of the problems at a time, so that 4 T x T matrices
  are held, where T problems side by side hold as many each.

  Args:
    gramian: shape ``(T, T)``.
    lower: shape ``(T,)``, not negative.
    mask: true for the rows to use, shape ``(T,)``; None means all.

  Returns:
    The sum, shape ``(T,)``, and the largest residual, as of `dual_cone`.

  Examples:
    >>> gramian = jnp.array([[1.0, -0.5], [-0.5, 1.0]])
    >>> v, residual = dual_cones(gramian, jnp.array([0.5, 0.5]))
    >>> [round(float(x), 4) for x in v], bool(residual < 1e-5)
    ([0.75, 0.75], True)

  References:
    Dostál and Schöberl, *Minimizing quadratic functions subject to bound
    constraints with the rate of convergence and finite termination*, 2005,
    https://doi.org/10.1023/B:COAP.0000049888.80264.25.
  """
  unit, norms = row_normalize(gramian, mask)
  active = jnp.ones(norms.shape, bool) if mask is None else mask
  used = active & ~(norms <= 0)
  lower = jnp.where(active, lower, 0).astype(norms.dtype)
  size = len(norms)
  finite = jnp.all(jnp.isfinite(unit))
  enough = 4 * jnp.finfo(norms.dtype).eps
  wanted = used & (lower > 0)
  share = jnp.where(wanted, lower * norms, 0)
  part = -(-size // _PARTS)

  def solve(carry, first):
    total, worst = carry
    index = jnp.minimum(first + jnp.arange(part), size - 1)
    asked = (first + jnp.arange(part) < size) & wanted[index]
    weight = jnp.where(asked, share[index], 0)
    linear = jnp.where(asked[None], unit[:, index], 0)
    found = _descend(unit, linear, enough, ~finite)
    free, left = found.x > 0, ~found.done[0]
    total += dot(found.x, jnp.where(left, 0, weight))
    worst = jnp.maximum(worst, jnp.max(jnp.where(left, 0, found.off[0])))

    def exactly(c):
      total, worst, left = c
      one = jnp.argmax(left)
      column = unit[:, index[one]]
      x, off = measured_qp(unit, column, used, free[:, one])
      total += weight[one] * x
      return total, jnp.maximum(worst, off), left.at[one].set(False)

    # A loop, that `vmap` ends where no lane needs it.
    total, worst, _ = jax.lax.while_loop(
      lambda c: jnp.any(c[2]), exactly, (total, worst, left)
    )
    return (total, worst), None

  zero = jnp.zeros((), norms.dtype)
  (total, residual), _ = jax.lax.scan(
    solve, (jnp.zeros_like(norms), zero), part * jnp.arange(_PARTS)
  )
  extra = jnp.where(used, total / jnp.where(used, norms, 1), 0)
  poison = jnp.where(finite, 0, jnp.nan).astype(norms.dtype)
  return lower + extra + jnp.where(active, poison, 0), residual + poison

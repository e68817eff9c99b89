"""The projections of many rows on one dual cone, all at once."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtljax.solvers._normalize import row_normalize
from mtljax.solvers._qp import dot, pivoted_qp

_CHECK_EVERY = 8


class _Iterate(NamedTuple):
  x: jax.Array
  ahead: jax.Array
  momentum: jax.Array
  off: jax.Array
  steps: jax.Array


def _largest_eigenvalue(matrix: jax.Array) -> jax.Array:
  """An upper bound, too large by ``T ** (1 / 32)`` at most.

  The Frobenius norm of the 16th power, to the power of 1/16.
  """
  log = jnp.zeros((), matrix.dtype)
  for _ in range(4):
    norm = jnp.linalg.norm(matrix)
    log = 2 * (log + jnp.log(norm))
    unit = matrix / norm
    matrix = dot(unit, unit)
  return jnp.exp((log + jnp.log(jnp.linalg.norm(matrix))) / 16)


def _violation(matrix: jax.Array, linear: jax.Array, x: jax.Array) -> jax.Array:
  """Of the conditions of optimality, of every column, relative to its size."""
  off = jnp.abs(jnp.minimum(x, dot(matrix, x) + linear))
  return jnp.max(off, 0) / (1 + jnp.max(x, 0))


def _descend(matrix: jax.Array, enough: float, max_steps: int) -> _Iterate:
  """Accelerated projected gradient descent on every column's problem.

  The momentum of a column is dropped where it points uphill.
  """
  rate = 1 / _largest_eigenvalue(matrix)

  def step(_, c):
    x = jnp.maximum(c.ahead - rate * (dot(matrix, c.ahead) + matrix), 0)
    uphill = jnp.sum((c.ahead - x) * (x - c.x), 0) > 0
    grown = (1 + jnp.sqrt(1 + 4 * jnp.square(c.momentum))) / 2
    share = jnp.where(uphill, 0, (c.momentum - 1) / grown)
    return c._replace(
      x=x,
      ahead=x + share[None] * (x - c.x),
      momentum=jnp.where(uphill, 1, grown),
    )

  def steps(c):
    c = jax.lax.fori_loop(0, _CHECK_EVERY, step, c)
    return c._replace(
      off=_violation(matrix, matrix, c.x), steps=c.steps + _CHECK_EVERY
    )

  none = jnp.zeros_like(matrix)
  ones = jnp.ones_like(matrix[0])
  start = _Iterate(none, none, ones, jnp.inf * ones, jnp.array(0))
  return jax.lax.while_loop(
    lambda c: jnp.any(c.off > enough) & (c.steps < max_steps), steps, start
  )


@jax.jit
def dual_cones(
  gramian: jax.Array, lower: jax.Array, mask: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  r"""The sum of `dual_cone`'s answers for ``lower[t] * e_t``, over all t.

  That is T problems with one matrix, so that a step for all of them is one
  product of matrices: accelerated projected gradient descent until the
  conditions of optimality hold to rounding, and where they do not within 160
  steps, of an ill-conditioned Gramian, `dual_cone` one after the other, begun
  from what is free by then. A dozen matrices are held, where T problems side by
  side hold a dozen each.

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
    Beck and Teboulle, *A fast iterative shrinkage-thresholding algorithm for
    linear inverse problems*, 2009, https://doi.org/10.1137/080716542;
    O'Donoghue and Candès, *Adaptive restart for accelerated gradient schemes*,
    2015, https://arxiv.org/abs/1204.3982.
  """
  unit, norms = row_normalize(gramian, mask)
  active = jnp.ones(norms.shape, bool) if mask is None else mask
  used = active & ~(norms <= 0)
  lower = jnp.where(active, lower, 0).astype(norms.dtype)
  finite = jnp.all(jnp.isfinite(unit))
  # A row that is not used is one of an identity, and no other meets it.
  matrix = jnp.where(finite, unit, jnp.eye(len(norms), dtype=norms.dtype))
  enough = 4 * jnp.finfo(matrix.dtype).eps

  found = _descend(matrix, enough, 160)
  wanted = used & (lower > 0)

  def exactly(x, column):
    solved, scale, _, _ = pivoted_qp(matrix, column, used, x > 0)
    solved = scale * solved
    return solved, _violation(matrix, column, solved)

  def finish(total, task):
    x, column, share, off, open_ = task
    x, off = jax.lax.cond(open_, exactly, lambda x, _: (x, off), x, column)
    return total + share * x, off

  share = jnp.where(wanted, lower * norms, 0)
  left = wanted & (found.off > enough) & finite
  total, off = jax.lax.scan(
    finish,
    jnp.zeros_like(norms),
    (found.x.T, matrix, share, found.off, left),
  )
  extra = jnp.where(used, total / jnp.where(used, norms, 1), 0)
  poison = jnp.where(finite, 0, jnp.nan).astype(norms.dtype)
  residual = jnp.max(jnp.where(wanted, off, 0))
  return lower + extra + jnp.where(active, poison, 0), residual + poison

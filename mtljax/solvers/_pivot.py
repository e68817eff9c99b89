"""Block principal pivoting: the active set of a non-negative QP, exactly."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve


class _Pivot(NamedTuple):
  free: jax.Array
  x: jax.Array
  fewest: jax.Array
  chances: jax.Array
  solved: jax.Array
  failed: jax.Array
  iterations: jax.Array


def factorise(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Cholesky's factor of a symmetric matrix, and its smallest pivot.

  Both are NaN where it is not definite.
  """
  # The transpose is the same, in LAPACK's order of the numbers: no copy.
  factor = jax.lax.linalg.cholesky(matrix.T, symmetrize_input=False)
  # Sums: the least of NaN and infinity may be infinity.
  diagonal = jnp.sum(
    jnp.where(jnp.eye(matrix.shape[0], dtype=bool), factor.T, 0), axis=0
  )
  return factor, jnp.square(jnp.min(diagonal))


def block_pivoting(
  matrix: jax.Array,
  linear: jax.Array,
  used: jax.Array,
  free: jax.Array | None = None,
  max_iters: int = 20,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Solves ``min 1/2 x'Px + q'x``, ``x >= 0`` by guessing what is not 0.

  Each iteration solves for the variables that are free and swaps all those
  that break their condition at once: 2 to 5 iterations are usual, of one
  Cholesky factorisation each. Once that stops helping, one at a time, which
  cannot cycle.

  Args:
    matrix: ``P``, positive definite, diagonal of order one, shape ``(T, T)``;
      finite in the rows that are not used.
    linear: ``q``, shape ``(T,)``; the least entry is about -1.
    used: true for the variables that take part, shape ``(T,)``.
    free: the first guess; None: where the slope is down.
    max_iters: the cap on the iterations.

  Returns:
    ``x``, what was free, whether the conditions hold, and the iterations. It
    gives up, rather than divide by rounding, where the free variables' matrix
    is nearly singular.

  References:
    Kim and Park, *Fast nonnegative matrix factorization: an active-set-like
    method and comparisons*, 2011, https://doi.org/10.1137/110821172.
  """
  size = linear.shape[0]
  eps = jnp.finfo(linear.dtype).eps
  linear = jnp.where(used, linear, 0)
  index = jnp.arange(size)

  def step(c):
    both = c.free[:, None] & c.free[None, :]
    # An identity in the other rows.
    factor, pivot = factorise(
      jnp.where(both, matrix, 0) + jnp.diag(1 - c.free.astype(matrix.dtype))
    )
    x = cho_solve((factor, True), jnp.where(c.free, -linear, 0))
    slack = jnp.matmul(matrix, x, precision='highest') + linear
    rounding = 10 * eps * (1 + jnp.max(jnp.abs(x)))
    wrong = used & (jnp.where(c.free, x, slack) < -rounding)
    count = jnp.sum(wrong)
    better = count < c.fewest
    chances = jnp.where(better, 3, c.chances - 1)
    last = jnp.max(jnp.where(wrong, index, -1))
    swapped = wrong & ((chances >= 0) | (index == last))
    # Written so that a NaN fails.
    failed = ~(pivot > jnp.sqrt(eps)) | ~jnp.all(jnp.isfinite(x))
    solved = ~failed & (count == 0)
    return _Pivot(
      free=jnp.where(solved, c.free, c.free ^ swapped),
      x=jnp.where(c.free, jnp.maximum(x, 0), 0),
      fewest=jnp.minimum(count, c.fewest),
      chances=chances,
      solved=solved,
      failed=failed,
      iterations=c.iterations + 1,
    )

  carry = _Pivot(
    free=used & (linear < 0) if free is None else used & free,
    x=jnp.zeros_like(linear),
    fewest=jnp.array(size + 1),
    chances=jnp.array(3),
    solved=jnp.array(False),
    failed=jnp.array(False),
    iterations=jnp.array(0),
  )
  out = jax.lax.while_loop(
    lambda c: ~c.solved & ~c.failed & (c.iterations < max_iters), step, carry
  )
  return out.x, out.free, out.solved, out.iterations

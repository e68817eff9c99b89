"""Strictly convex quadratic programs over non-negative variables."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve

from mtljax.solvers._pivot import block_pivoting, factorise


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
  """Matrix product in the full precision of its operands."""
  return jnp.matmul(a, b, precision='highest')


def ridge(matrix: jax.Array, used: jax.Array) -> jax.Array:
  """What to add to the diagonal: ``T eps`` if nearly singular, else 0.

  That is the rounding of a unit Gramian. It makes a singular one definite, and
  picks the solution of least norm among many. A matrix whose pivots are above
  ``sqrt(eps)`` needs none, and would pay for it with an error of ``T eps``
  times its condition number. The rows that are not used are an identity's.
  """
  eps = jnp.finfo(matrix.dtype).eps
  _, pivot = factorise(matrix)
  # Written so that a NaN, of an indefinite matrix, counts as singular.
  definite = pivot > jnp.sqrt(eps)
  return jnp.where(definite, 0, jnp.sum(used) * eps).astype(matrix.dtype)


def ridged(matrix: jax.Array, used: jax.Array) -> jax.Array:
  """The matrix with its `ridge`."""
  eye = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
  return matrix + ridge(matrix, used) * eye


class InteriorPoint(NamedTuple):
  """The last iterate of `interior_point`."""

  x: jax.Array
  slack: jax.Array
  iterations: jax.Array


def _longest(x: jax.Array, step: jax.Array, used: jax.Array) -> jax.Array:
  """The step length at which the first variable reaches 0."""
  shrinking = used & (step < 0)
  ratio = jnp.where(shrinking, -x / jnp.where(shrinking, step, -1), jnp.inf)
  return jnp.min(ratio)


def interior_point(
  matrix: jax.Array,
  linear: jax.Array,
  used: jax.Array,
  skip: jax.Array | bool = False,
  added: jax.Array | float = 0.0,
  max_iters: int = 40,
) -> InteriorPoint:
  """Mehrotra's predictor-corrector for ``min 1/2 x'Px + q'x``, ``x >= 0``.

  An iteration factorises ``P + diag(slack / x)`` once by Cholesky, which does
  not mind the spread of the diagonal. 6 to 12 iterations are usual.

  Args:
    matrix: ``P``, positive semidefinite, diagonal of order one, an identity's
      in the rows that are not used, shape ``(T, T)``.
    linear: ``q``, shape ``(T,)``; the least entry is about -1, the others may
      be much larger.
    used: true for the variables that take part, shape ``(T,)``.
    skip: true to do no iterations.
    added: to the diagonal; the sum is positive definite.
    max_iters: the cap on the iterations.

  Returns:
    The last iterate, without a promise: the caller measures it.

  References:
    Mehrotra, *On the implementation of a primal-dual interior point method*,
    1992, https://doi.org/10.1137/0802028.
  """
  eps = jnp.finfo(linear.dtype).eps
  count = jnp.maximum(jnp.sum(used), 1).astype(linear.dtype)

  def mean_product(x, s):
    return dot(x, s) / count

  def defect(x, s):
    return jnp.where(used, dot(matrix, x) + added * x + linear - s, 0)

  def step(carry):
    x, s, _, it = carry
    ratio = jnp.where(used, s / jnp.where(used, x, 1), 0)
    factor = (factorise(matrix + jnp.diag(ratio + added))[0], True)
    dual = s + defect(x, s)
    mu = mean_product(x, s)
    dx = cho_solve(factor, -dual)
    ds = jnp.where(used, -s - ratio * dx, 0)
    length = jnp.minimum(_longest(x, dx, used), _longest(s, ds, used))
    length = jnp.minimum(1, length)
    centring = (mean_product(x + length * dx, s + length * ds) / mu) ** 3
    complement = jnp.where(
      used, (centring * mu - dx * ds) / jnp.where(used, x, 1), 0
    )
    dx = cho_solve(factor, complement - dual)
    ds = jnp.where(used, complement - s - ratio * dx, 0)
    length = jnp.minimum(_longest(x, dx, used), _longest(s, ds, used))
    # The closer to the end, the closer to the boundary.
    length = jnp.minimum(1, (1 - jnp.minimum(0.1, jnp.sqrt(mu))) * length)
    new_x, new_s = x + length * dx, s + length * ds
    fine = jnp.all(jnp.isfinite(new_x) & jnp.isfinite(new_s))
    x, s = jnp.where(fine, new_x, x), jnp.where(fine, new_s, s)
    return x, s, ~fine, it + 1

  def go_on(carry):
    x, s, stop, it = carry
    off = jnp.max(jnp.abs(defect(x, s)) / (1 + s))
    off = off / (1 + jnp.max(x))
    # Where x and s both go to 0 their product has to go further.
    gap = jnp.maximum(jnp.max(jnp.minimum(x, s)), mean_product(x, s))
    optimal = (gap <= 0.1 * eps) & (off <= 10 * eps)
    done = optimal | (mean_product(x, s) <= (0.01 * eps) ** 2)
    return ~stop & ~done & (it < max_iters)

  slack = jnp.where(used, jnp.maximum(1, linear), 0)
  start = jnp.where(used, 1 / jnp.maximum(1, linear), 0)
  x, s, _, it = jax.lax.while_loop(
    go_on, step, (start, slack, jnp.asarray(skip), jnp.array(0))
  )
  # What is left of a variable at its bound.
  at_zero = (x <= s) & (x <= eps * jnp.max(x))
  return InteriorPoint(jnp.where(at_zero, 0, x), s, it)


def _scaled(matrix, linear, used):
  """``q`` in units of its steepest slope down; the unit; whether finite."""
  linear = jnp.where(used, linear, 0)
  # Entries above 0 only hold a variable at its bound, however large they are.
  scale = jnp.max(-linear)
  scale = jnp.where(scale <= 0, 1, scale)
  finite = jnp.all(jnp.isfinite(matrix)) & jnp.all(jnp.isfinite(linear))
  # The ridge bounds x, so 1e12 is as good as infinity, and does not overflow.
  return jnp.minimum(linear / scale, 1e12), scale, finite


def pivoted_qp(matrix, linear, used, free=None, added=None):
  """`block_pivoting` for any scale of ``q``, `interior_point` where it fails.

  Only the second needs a ridge, so well conditioned problems pay nothing for
  it.

  Args:
    matrix: ``P``, without a ridge, an identity's in the rows that are not used,
      shape ``(T, T)``.
    linear: ``q``, of any scale, shape ``(T,)``.
    used: true for the variables that take part, shape ``(T,)``.
    free: a guess at what is not 0, shape ``(T,)``, or None.
    added: ``ridge(matrix, used)`` if it is known, or None.

  Returns:
    ``x`` in units of the scale, the scale, what is not 0, and how many systems
    were solved. NaN if the input is not finite.
  """
  linear, scale, finite = _scaled(matrix, linear, used)
  x, free, solved, first = block_pivoting(matrix, linear, used, free)
  skip = solved | ~finite
  if added is None:
    # A loop of one step, that `vmap` does not take where no lane needs it.
    added, _ = jax.lax.while_loop(
      lambda c: c[1],
      lambda c: (ridge(matrix, used), jnp.array(False)),
      (jnp.zeros((), matrix.dtype), ~skip),
    )
  out = interior_point(matrix, linear, used, skip, added)
  x = jnp.where(solved, x, out.x)
  x = jnp.where(jnp.all(linear >= 0), 0, x)
  free = jnp.where(solved, free, x > out.slack)
  return jnp.where(finite, x, jnp.nan), scale, free, first + out.iterations


def measured_qp(matrix, linear, used, free=None):
  """`pivoted_qp`'s solution to scale, and its residual, see `nonneg_qp`."""
  x, scale, _, _ = pivoted_qp(matrix, linear, used, free)
  slack = dot(matrix, x) + jnp.where(used, linear, 0) / scale
  off = jnp.where(used, jnp.abs(jnp.minimum(x, slack)), 0)
  return scale * x, jnp.max(off) / (1 + jnp.max(jnp.abs(x)))


@jax.jit
def nonneg_qp(
  matrix: jax.Array, linear: jax.Array, mask: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  r"""Minimises :math:`\tfrac12 x^\top P x + q^\top x` over :math:`x \ge 0`.

  Args:
    matrix: :math:`P`, positive semidefinite with a diagonal of order one (a
      unit Gramian, see `row_normalize`), shape ``(T, T)``. Where it is nearly
      singular ``T eps`` is added to its diagonal.
    linear: :math:`q`, of any scale, shape ``(T,)``.
    mask: true for the variables to use, shape ``(T,)``; None means all. The
      others are 0 and the rest is the answer of the smaller problem.

  Returns:
    The solution, shape ``(T,)``, and the residual: the largest violation of
    :math:`\min(x, Px + q) = 0`, relative to
    :math:`\max_i(-q_i) + \max_i x_i`. NaN if the input is not finite.

  Examples:
    >>> x, residual = nonneg_qp(jnp.eye(2), jnp.array([-1.0, 2.0]))
    >>> [round(float(v), 4) for v in x], bool(residual < 1e-6)
    ([1.0, 0.0], True)
  """
  used = jnp.ones(linear.shape, bool) if mask is None else mask
  both = used[:, None] & used[None, :]
  matrix = jnp.where(both, matrix, jnp.eye(len(linear), dtype=matrix.dtype))
  return measured_qp(matrix, linear, used)

"""Linear programs over the simplex, by the simplex method inside jit."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtljax.solvers._qp import dot


class _Tableau(NamedTuple):
  rows: jax.Array  # (1 + R + 1, N + R + 1): the sum, the rows, the objective
  basis: jax.Array  # (1 + R,), the variable of each row
  infeasible: jax.Array
  done: jax.Array
  iterations: jax.Array


def _pivot(rows: jax.Array, r: jax.Array, c: jax.Array) -> jax.Array:
  """Makes column c that of row r."""
  row = rows[r] / rows[r, c]
  rows = rows - rows[:, c, None] * row[None, :]
  return rows.at[r].set(row)


def _first(index: jax.Array, allowed: jax.Array) -> jax.Array:
  """Where the least index is, of those allowed."""
  return jnp.argmin(jnp.where(allowed, index, jnp.iinfo(index.dtype).max))


def _step(c: _Tableau, tolerance: float, max_iters: int) -> _Tableau:
  body, right = c.rows[:-1, :-1], c.rows[:-1, -1]
  slopes = c.rows[-1, :-1]
  bland = c.iterations > max_iters // 2  # it cannot cycle
  index = jnp.arange(slopes.shape[0])

  # A bound is broken: out it goes, for what has the largest pivot.
  broken = right < -tolerance
  out = jnp.where(bland, _first(c.basis, broken), jnp.argmin(right))
  entries = body[out]
  may_enter = entries < -tolerance
  into = jnp.where(bland, _first(index, may_enter), jnp.argmin(entries))
  infeasible = jnp.any(broken) & ~jnp.any(may_enter)

  # None is: the steepest goes in, for what reaches its bound first.
  steep = slopes < -tolerance
  enters = jnp.where(bland, _first(index, steep), jnp.argmin(slopes))
  column = body[:, enters]
  blocks = column > tolerance
  ratio = jnp.where(blocks, jnp.maximum(right, 0), jnp.inf)
  ratio = ratio / jnp.where(blocks, column, 1)
  tied = blocks & (ratio <= jnp.min(ratio) + tolerance)
  largest = jnp.argmax(jnp.where(tied, column, -jnp.inf))
  leaves = jnp.where(bland, _first(c.basis, tied), largest)

  repair = jnp.any(broken)
  r, col = jnp.where(repair, out, leaves), jnp.where(repair, into, enters)
  stop = infeasible | ~repair & (~jnp.any(steep) | ~jnp.any(blocks))
  rows = jnp.where(stop, c.rows, _pivot(c.rows, r, col))
  basis = jnp.where(stop, c.basis, c.basis.at[r].set(col))
  return _Tableau(rows, basis, infeasible, stop, c.iterations + 1)


@jax.jit
def linear_program(
  objective: jax.Array,
  matrix: jax.Array,
  bounds: jax.Array,
  mask: jax.Array | None = None,
  free: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  r"""Maximises :math:`c^\top x` over the simplex, subject to :math:`Ax \ge b`.

  .. math:: \max_x c^\top x \quad\text{s.t.}\quad A x \ge b, \quad x \ge 0,
     \quad \sum_{i \in S} x_i = 1

  By the simplex method: first bounds that are broken are repaired, then the
  objective is climbed; half way to its cap it turns to Bland's rule, which
  cannot cycle. Where several solutions are best, it returns a vertex.

  Rows are scaled to a largest entry of 1, and what is below 32 roundings is 0.

  Args:
    objective: :math:`c`, shape ``(N,)``.
    matrix: :math:`A`, shape ``(R, N)``.
    bounds: :math:`b`, shape ``(R,)``; minus infinity for a row that is not
      there.
    mask: true for the variables to use, shape ``(N,)``; None: all. The others
      are 0.
    free: true for the variables outside of the sum, shape ``(N,)``; None: none.
      They are at least 0 too, and the rows have to bound them.

  Returns:
    The solution, shape ``(N,)``, and the residual: by how much a row is broken
    or the objective could still rise, in units of their largest entries;
    infinite if nothing satisfies all the rows.

  Edge cases:

    ============================  ===========================================
    input                         answer
    ============================  ===========================================
    all zeros                     everything on one variable
    no variable                   zeros
    no solution                   residual infinity, and some point
    NaN or infinity               NaN
    ============================  ===========================================

  Examples:
    >>> x, residual = linear_program(
    ...   jnp.array([1.0, 3.0]), jnp.array([[1.0, -1.0]]), jnp.array([0.5]))
    >>> [round(float(v), 4) for v in x], bool(residual < 1e-6)
    ([0.75, 0.25], True)

  References:
    Dantzig, *Linear Programming and Extensions*, 1963; Bland, `New Finite
    Pivoting Rules for the Simplex Method
    <https://doi.org/10.1287/moor.2.2.103>`_, 1977
  """
  dtype = jnp.promote_types(matrix.dtype, jnp.float32)
  matrix, objective = matrix.astype(dtype), objective.astype(dtype)
  bounds = bounds.astype(dtype)
  count, size = matrix.shape
  used = jnp.ones(size, bool) if mask is None else mask
  summed = used if free is None else used & ~free
  there = ~jnp.isneginf(bounds)
  matrix = jnp.where(there[:, None] & used[None, :], matrix, 0)
  objective = jnp.where(used, objective, 0)
  bounds = jnp.where(there, bounds, -1)
  finite = jnp.all(jnp.isfinite(matrix)) & jnp.all(jnp.isfinite(objective))
  finite = finite & jnp.all(jnp.isfinite(bounds))

  largest = jnp.max(jnp.abs(matrix), axis=1)
  largest = jnp.where(largest > 0, largest, 1)
  matrix, bounds = matrix / largest[:, None], bounds / largest
  steepest = jnp.max(jnp.abs(objective))
  objective = objective / jnp.where(steepest > 0, steepest, 1)

  tolerance = 32 * float(jnp.finfo(dtype).eps)
  max_iters = 20 * (size + count + 1)
  slack = jnp.eye(count, dtype=dtype)
  sums = jnp.concatenate([summed, jnp.zeros(count, bool), jnp.ones(1, bool)])
  rows = jnp.concatenate(
    [
      sums.astype(dtype)[None],
      jnp.concatenate([-matrix, slack, -bounds[:, None]], axis=1),
      jnp.concatenate([-objective, jnp.zeros(count + 1, dtype)])[None],
    ]
  )
  start = jnp.argmax(summed)
  none = ~jnp.any(summed)
  rows = jnp.where(none | ~finite, 0, _pivot(rows, jnp.array(0), start))
  basis = jnp.concatenate([start[None], size + jnp.arange(count)])
  false = jnp.array(False)
  end = jax.lax.while_loop(
    lambda c: ~c.done & (c.iterations < max_iters),
    lambda c: _step(c, tolerance, max_iters),
    _Tableau(rows, basis, false, false, jnp.array(0)),
  )
  all_x = jnp.zeros(size + count, dtype).at[end.basis].set(end.rows[:-1, -1])
  x = jnp.where(used, jnp.maximum(all_x[:size], 0), 0)
  total = jnp.sum(jnp.where(summed, x, 0))
  x = x / jnp.where(total > 0, total, 1)
  short = jnp.max(bounds - dot(matrix, x), initial=0)
  short = jnp.maximum(short, -jnp.min(end.rows[-1, :-1], initial=0))
  residual = jnp.where(none, 0, jnp.where(end.infeasible, jnp.inf, short))
  poison = jnp.where(finite, 0, jnp.nan).astype(dtype)
  return jnp.where(used, x + poison, 0), residual + poison

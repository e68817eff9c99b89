"""Small dense problems in the task weights, solved inside jit.

All of them are pure, batch under `jax.vmap`, work in float32 and float64, and
are conditioned by the row-normalised Gramian, so the lengths of the rows may
differ by 1e20. Each returns ``(solution, residual)``; the residual says how
well the optimality conditions hold, so that nothing fails silently. A ``mask``
leaves rows out: the answer is that of the smaller problem, with 0 in their
place.
"""

from mtljax.solvers._cone import cone_max_min
from mtljax.solvers._dual_cone import dual_cone
from mtljax.solvers._dual_cones import dual_cones
from mtljax.solvers._linear_program import linear_program
from mtljax.solvers._newton import fair_newton
from mtljax.solvers._normalize import row_normalize
from mtljax.solvers._qp import nonneg_qp
from mtljax.solvers._simplex import (
  ball_max_min,
  min_norm_simplex,
  min_norm_unit,
)

__all__ = [
  'ball_max_min',
  'cone_max_min',
  'dual_cone',
  'dual_cones',
  'fair_newton',
  'linear_program',
  'min_norm_simplex',
  'min_norm_unit',
  'nonneg_qp',
  'row_normalize',
]

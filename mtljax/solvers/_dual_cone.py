"""Projection on the directions that harm no task."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mtljax.solvers._normalize import row_normalize
from mtljax.solvers._qp import dot, measured_qp


@jax.jit
def dual_cone(
  gramian: jax.Array, lower: jax.Array, mask: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  r"""Minimises :math:`v^\top G v` over :math:`v \ge u`.

  :math:`J^\top v` is the projection of :math:`J^\top u` on the dual cone
  :math:`\{d : J d \ge 0\}`. Solved in :math:`x_i = (v_i - u_i) \|g_i\| \ge 0`,
  so a row keeps its constraint however short it is.

  Args:
    gramian: shape ``(T, T)``.
    lower: :math:`u`, shape ``(T,)``.
    mask: true for the rows to use, shape ``(T,)``; None means all.

  Returns:
    ``v``, shape ``(T,)``, and the residual of `nonneg_qp`. Masked rows have 0
    in place of ``u``; zero rows keep ``u``.

  Examples:
    >>> gramian = jnp.array([[1.0, -0.5], [-0.5, 1.0]])
    >>> v, residual = dual_cone(gramian, jnp.array([1.0, 0.0]))
    >>> [round(float(x), 4) for x in v], bool(residual < 1e-6)
    ([1.0, 0.5], True)
  """
  unit, norms = row_normalize(gramian, mask)
  active = jnp.ones(norms.shape, bool) if mask is None else mask
  used = active & ~(norms <= 0)
  lower = jnp.where(active, lower, 0).astype(norms.dtype)
  x, residual = measured_qp(unit, dot(unit, lower * norms), used)
  return lower + jnp.where(used, x / jnp.where(used, norms, 1), 0), residual

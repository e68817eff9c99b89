"""The row-normalised Gramian, on which every solver here is conditioned."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def row_normalize(
  gramian: jax.Array, mask: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  r"""Splits a Gramian into row norms and cosines.

  With :math:`n_i = \sqrt{G_{ii}}` and :math:`U_{ij} = G_{ij} / (n_i n_j)`,
  a problem in the weights :math:`w` becomes a well-scaled one in
  :math:`y_i = w_i n_i`, because :math:`w^\top G w = y^\top U y`. It is a change
  of variables: constraints and linear terms have to be transformed as well.

  Args:
    gramian: inner products of the rows, shape ``(T, T)``. Anything narrower
      than float32 is widened to it.
    mask: true for the rows to use, shape ``(T,)``; None means all. The other
      rows are never read, so they may hold NaN.

  Returns:
    The unit Gramian, shape ``(T, T)``, and the norms, shape ``(T,)``. Rows that
    are masked, or whose squared norm is below the smallest normal number, have
    norm 0 and the row of an identity matrix. A NaN in a row that is used stays.

  Examples:
    >>> unit, norms = row_normalize(jnp.array([[4.0, 3.0], [3.0, 9.0]]))
    >>> unit
    Array([[1. , 0.5],
           [0.5, 1. ]], dtype=float32)
    >>> norms
    Array([2., 3.], dtype=float32)
  """
  gramian = jnp.asarray(gramian)
  gramian = gramian.astype(jnp.promote_types(gramian.dtype, jnp.float32))
  squared = jnp.diagonal(gramian)
  # Written so that a NaN counts as a row that is used.
  used = ~(squared < jnp.finfo(gramian.dtype).tiny)
  if mask is not None:
    used = used & mask
  norms = jnp.where(used, jnp.sqrt(jnp.where(used, squared, 1)), 0)
  inverse = 1 / jnp.where(used, norms, 1)
  both = used[:, None] & used[None, :]
  # One factor at a time: the product of two norms may overflow. The larger
  # first, so that it is as symmetric as the Gramian.
  one, other = inverse[:, None], inverse[None, :]
  unit = jnp.where(both, gramian, 0) * jnp.maximum(one, other)
  unit = unit * jnp.minimum(one, other)
  eye = jnp.eye(gramian.shape[0], dtype=bool)
  unit = jnp.where(eye, jnp.where(jnp.isnan(norms), jnp.nan, 1)[:, None], unit)
  return unit, norms

"""Bilinear resizing as two small products, by both rules for the corners."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def resize_bilinear(
  x: jax.Array, height: int, width: int, *, align_corners: bool = False
) -> jax.Array:
  """Resizes images, linear between the pixels next to each new one.

  Without averaging where images shrink. The weights are constants of the shapes
  alone, one matrix a direction.

  Args:
    x: shape ``(B, H, W, C)``.
    height: of the result.
    width: of the result.
    align_corners: whether the middles of the corner pixels stay where they are,
      instead of the corners of the image.

  Returns:
    Shape ``(B, height, width, C)``, of the dtype of ``x``.

  Example:
    >>> x = jnp.array([0.0, 1.0]).reshape(1, 1, 2, 1)
    >>> resize_bilinear(x, 1, 4)[0, 0, :, 0].tolist()
    [0.0, 0.25, 0.75, 1.0]
    >>> resize_bilinear(x, 1, 3, align_corners=True)[0, 0, :, 0].tolist()
    [0.0, 0.5, 1.0]
  """
  if (height, width) == x.shape[1:3]:
    return x
  down = jnp.asarray(_weights(x.shape[1], height, align_corners), x.dtype)
  across = jnp.asarray(_weights(x.shape[2], width, align_corners), x.dtype)
  x = jnp.einsum('ij,bjwc->biwc', down, x)
  return jnp.einsum('ij,bhjc->bhic', across, x)


def _weights(size: int, new: int, align_corners: bool) -> np.ndarray:
  """``(new, size)``: what each new pixel takes of each old one."""
  if align_corners:
    at = np.arange(new) * ((size - 1) / max(new - 1, 1))
  else:
    at = np.clip((np.arange(new) + 0.5) * size / new - 0.5, 0, size - 1)
  return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(size)))

"""Max-pooling by slices, with and without the places, and back."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def keep(x: jax.Array) -> jax.Array:
  """Makes XLA compute x once, where it would recompute it in every slice.

  XLA's CPU fusion copies a cheap producer (a pooling, a ReLU) into each of its
  readers, and leaves alone one that ends in a division. The one is hidden, or
  the division would be simplified away. Exact, also backwards.
  """
  return x / jax.lax.optimization_barrier(jnp.ones((), x.dtype))


def max_pool_2x2(x: jax.Array) -> jax.Array:
  """Takes the maximum over disjoint 2 x 2 windows.

  Two rounds of slices and `jnp.maximum`, rows first: backwards several times
  faster on CPU than `flax.linen.max_pool`, whose window gradient is a scatter.

  =====================  =====================================================
  case                   result
  =====================  =====================================================
  odd height or width    the last row or column is dropped, as with ``'VALID'``
  equal entries          the gradient is split in halves in each round (so 1/4
                         each if all four are equal); `flax.linen.max_pool`
                         gives it all to the first
  NaN in a window        NaN
  =====================  =====================================================

  Args:
    x: shape ``(..., H, W, C)``.

  Returns:
    Shape ``(..., H // 2, W // 2, C)``.

  Example:
    >>> import jax.numpy as jnp
    >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    >>> max_pool_2x2(x)[0, :, :, 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]
  """
  *batch, h, w, c = x.shape
  h, w = h // 2, w // 2
  x = x[..., : 2 * h, : 2 * w, :].reshape(*batch, h, 2, w, 2 * c)
  x = jnp.maximum(x[..., 0, :, :], x[..., 1, :, :])
  return jnp.maximum(x[..., :c], x[..., c:])


def max_pool_2x2_with_indices(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Takes the maximum over disjoint 2 x 2 windows, and says where it was.

  Args:
    x: shape ``(..., H, W, C)``.

  Returns:
    What `max_pool_2x2` returns, and the places as int8 of the same shape: 0 is
    the upper left of the window, 1 the upper right, 2 the lower left, 3 the
    lower right; of equal entries the first. Where the maximum is NaN the place
    is any of them.

  Example:
    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, 4.0], [2.0, 3.0]]).reshape(2, 2, 1)
    >>> pooled, indices = max_pool_2x2_with_indices(x)
    >>> pooled.item(), indices.item()
    (4.0, 1)
  """
  *batch, h, w, c = x.shape
  h, w = h // 2, w // 2
  x = keep(x)
  pooled = max_pool_2x2(x)
  x = x[..., : 2 * h, : 2 * w, :].reshape(*batch, h, 2, w, 2 * c)
  left, right = x[..., :c], x[..., c:]
  # Entries with each other: XLA may compute x anew for `pooled`, with another
  # rounding, and then no entry is equal to it.
  column = jnp.where(right > left, jnp.int8(1), jnp.int8(0))
  most = jnp.maximum(left, right)
  lower = most[..., 1, :, :] > most[..., 0, :, :]
  index = jnp.where(
    lower, column[..., 1, :, :] + jnp.int8(2), column[..., 0, :, :]
  )
  return pooled, index


def max_unpool_2x2(x: jax.Array, indices: jax.Array) -> jax.Array:
  """Puts each entry at its place in a 2 x 2 window of zeros.

  Args:
    x: shape ``(..., H, W, C)``.
    indices: places from 0 to 3, as `max_pool_2x2_with_indices` returns them.

  Returns:
    Shape ``(..., 2 H, 2 W, C)``.

  Example:
    >>> import jax.numpy as jnp
    >>> x = jnp.array([7.0]).reshape(1, 1, 1)
    >>> max_unpool_2x2(x, jnp.int8(2).reshape(1, 1, 1))[..., 0].tolist()
    [[0.0, 0.0], [7.0, 0.0]]
  """
  *batch, h, w, c = x.shape
  zero = jnp.zeros((), x.dtype)
  parts = [jnp.where(indices == place, x, zero) for place in range(4)]
  rows = [jnp.concatenate(parts[i : i + 2], axis=-1) for i in (0, 2)]
  return jnp.stack(rows, axis=-3).reshape(*batch, 2 * h, 2 * w, c)


def max_pool_3x3(x: jax.Array) -> jax.Array:
  """Takes the maximum over 3 x 3 windows at stride 2, padded by one.

  The pooling after the first convolution of a ResNet. Slices and
  `jnp.maximum`, as in `max_pool_2x2`: equal entries share the gradient.

  Args:
    x: shape ``(..., H, W, C)``.

  Returns:
    Shape ``(..., ceil(H / 2), ceil(W / 2), C)``.

  Example:
    >>> import jax.numpy as jnp
    >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    >>> max_pool_3x3(x)[0, :, :, 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]
  """
  lowest = jnp.array(-jnp.inf, x.dtype)
  for axis in (-3, -2):
    axis += x.ndim
    size = (x.shape[axis] + 1) // 2
    widths = [(0, 0, 0)] * x.ndim
    widths[axis] = (1, 1, 0)
    padded = jax.lax.pad(x, lowest, widths)
    parts = [
      jax.lax.slice_in_dim(padded, i, i + 2 * size - 1, 2, axis)
      for i in range(3)
    ]
    x = jnp.maximum(jnp.maximum(parts[0], parts[1]), parts[2])
  return x

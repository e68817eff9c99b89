"""Digital: contrast, colours, grids, compression, elastic moves."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.data.corruptions import _resample


def contrast(image: jax.Array, key: jax.Array, factor: float) -> jax.Array:
  """Pulls each channel towards its mean."""
  del key
  means = image.mean((0, 1), keepdims=True)
  return (image - means) * factor + means


def brightness(image: jax.Array, key: jax.Array, amount: float) -> jax.Array:
  """Adds to the value of HSV, hue and saturation kept."""
  del key
  value = image.max(-1, keepdims=True)
  brighter = jnp.clip(value + amount, 0, 1)
  black = value == 0
  return jnp.where(
    black, brighter, image * brighter / jnp.where(black, 1, value)
  )


def saturate(
  image: jax.Array, key: jax.Array, values: tuple[float, float]
) -> jax.Array:
  """Changes the saturation of HSV, hue and value kept.

  A grey pixel has hue 0: where the saturation goes up by an offset it turns
  red. An image of one channel has no saturation and stays as it is.
  """
  del key
  if image.shape[-1] == 1:
    return image
  value = image.max(-1, keepdims=True)
  spread = value - image.min(-1, keepdims=True)
  is_grey = spread == 0
  saturation = spread / jnp.where(value == 0, 1, value)
  changed = jnp.clip(saturation * values[0] + values[1], 0, 1)
  # 0 where a channel is the value, 1 where it is the least of the three.
  below = (value - image) / jnp.where(is_grey, 1, spread)
  red = np.array([[[0, 1, 1]]], np.float32)
  return value * (1 - changed * jnp.where(is_grey, red, below))


def pixelate(image: jax.Array, key: jax.Array, factor: float) -> jax.Array:
  """Shrinks by a box filter and enlarges to blocks."""
  del key
  rows, columns = (_blocks(n, factor) for n in image.shape[:2])
  return _resample.separable(image, rows, columns)


def _blocks(size: int, factor: float) -> np.ndarray:
  small = max(int(size * factor), 1)
  ratio = size / small
  centers = (np.arange(small) + 0.5)[:, None] * ratio
  place = (np.arange(size) - centers + 0.5) * (1 / ratio)
  shrink = ((place > -0.5) & (place <= 0.5)).astype(float)
  # Pillow's window, which decides where a pixel lies on the rim.
  for k, center in enumerate(centers[:, 0]):
    shrink[k, : int(center - ratio / 2 + 0.5)] = 0
    shrink[k, int(center + ratio / 2 + 0.5) :] = 0
  shrink /= shrink.sum(1, keepdims=True)
  nearest = ((np.arange(size) + 0.5) * small / size).astype(int)
  return shrink[nearest]


def elastic_transform(
  image: jax.Array, key: jax.Array, values: tuple[float, float, float]
) -> jax.Array:
  """A random affine map, then a smooth random field of displacements."""
  height, width = image.shape[:2]
  side = min(height, width)
  strength, blur, move = (side * x for x in values)
  affine_key, rows_key, columns_key = jax.random.split(key, 3)
  rows, columns = jnp.meshgrid(
    jnp.arange(height, dtype=image.dtype),
    jnp.arange(width, dtype=image.dtype),
    indexing='ij',
  )
  third = side // 3
  offsets = np.array([[third, third], [-third, third], [-third, -third]])
  corners = np.array([height // 2, width // 2]) + offsets
  moved = corners + jax.random.uniform(
    affine_key, (3, 2), minval=-move, maxval=move
  )
  ones = jnp.ones((3, 1))
  inverse = jnp.linalg.solve(
    jnp.concatenate([moved, ones], 1), corners.astype(np.float32)
  )
  image = _resample.sample(
    image,
    inverse[0, 0] * rows + inverse[1, 0] * columns + inverse[2, 0],
    inverse[0, 1] * rows + inverse[1, 1] * columns + inverse[2, 1],
    'mirror',
  )
  down, right = (
    strength
    * _resample.gaussian(
      jax.random.uniform(k, (height, width, 1), minval=-1, maxval=1),
      blur,
      'symmetric',
      truncate=3,
    )[..., 0]
    for k in (rows_key, columns_key)
  )
  return _resample.sample(image, rows + down, columns + right, 'reflect')

"""Weather: something random lies over the image."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.data.corruptions import _resample

_GREY = np.array([0.299, 0.587, 0.114], np.float32)
_ICE = np.array([0.85, 0.95, 1.0], np.float32)
_WATER = np.array([175, 238, 238], np.float32) / 255
_MUD = np.array([63, 42, 20], np.float32) / 255
_FAR = 20  # pixels after which the distance to an edge no longer grows


def grey(image: jax.Array) -> jax.Array:
  """The luminance, shape (H, W, 1)."""
  return image if image.shape[-1] == 1 else (image @ _GREY)[..., None]


def _tint(color: np.ndarray, channels: int) -> np.ndarray:
  tint = color if channels == 3 else np.sum(color * _GREY, keepdims=True)
  return tint[None, None]


def plasma(key: jax.Array, shape: tuple[int, int], decay: float) -> jax.Array:
  """A random height map in [0, 1] by the diamond-square rule on a torus.

  A grid of one point is refined until it covers the image. A new point is the
  mean of its four neighbours plus uniform noise, whose size goes down by
  ``decay`` with each refinement: the larger, the smoother the map.
  """
  rounds = math.ceil(math.log2(max(shape)))
  # One draw for all rounds: a random generator a round is slow to compile.
  draws = jax.random.uniform(key, (4**rounds,), minval=-1, maxval=1)
  heights, noise = jnp.zeros((1, 1)), 100.0
  for level in range(rounds):
    n = 2**level
    fresh = draws[n * n : 4 * n * n].reshape(3, n, n)
    # The reference multiplies by the size of the noise twice; so does this.
    middle, across, down = noise**2 * fresh
    right, below = jnp.roll(heights, -1, 1), jnp.roll(heights, -1, 0)
    middle += (heights + right + below + jnp.roll(right, -1, 0)) / 4
    across += (heights + right + middle + jnp.roll(middle, 1, 0)) / 4
    down += (heights + below + middle + jnp.roll(middle, 1, 1)) / 4
    upper = jnp.stack([heights, across], 2).reshape(n, 2 * n)
    lower = jnp.stack([down, middle], 2).reshape(n, 2 * n)
    heights = jnp.stack([upper, lower], 1).reshape(2 * n, 2 * n)
    noise /= decay
  heights -= heights.min()
  heights /= jnp.maximum(heights.max(), jnp.finfo(heights.dtype).tiny)
  return heights[: shape[0], : shape[1]]


def fog(
  image: jax.Array, key: jax.Array, values: tuple[float, float]
) -> jax.Array:
  """Adds a plasma, and scales back to the largest value of the image."""
  amount, decay = values
  largest = image.max()
  haze = amount * plasma(key, image.shape[:2], decay)[..., None]
  return (image + haze) * largest / (largest + amount)


def frost(
  image: jax.Array, key: jax.Array, values: tuple[float, float]
) -> jax.Array:
  """Mixes the image with ice.

  The reference crops photographs of frozen panes, which are not shipped here:
  the ice is a procedural stand-in, the ridges of two plasmas.
  """
  keys = jax.random.split(key)
  ridges = [
    1 - jnp.abs(2 * plasma(k, image.shape[:2], decay) - 1)
    for k, decay in zip(keys, (1.7, 1.3), strict=True)
  ]
  ice = (0.65 * ridges[0] + 0.35 * ridges[1])[..., None]
  return values[0] * image + values[1] * ice * _tint(_ICE, image.shape[-1])


def snow(
  image: jax.Array, key: jax.Array, values: tuple[Any, ...]
) -> jax.Array:
  """Whitens the image and adds flakes that fall both ways."""
  mean, sigma, factor, threshold, radius, spread, weight = values
  flake_key, angle_key = jax.random.split(key)
  flakes = mean + sigma * jax.random.normal(flake_key, (*image.shape[:2], 1))
  flakes = _resample.zoom(flakes, factor)
  flakes = jnp.clip(jnp.where(flakes < threshold, 0, flakes), 0, 1)
  angle = jax.random.uniform(
    angle_key, (), minval=-3 * np.pi / 4, maxval=-np.pi / 4
  )
  flakes = _resample.motion(flakes, radius, spread, angle)
  flakes = jnp.round(flakes * 255) / 255
  white = jnp.maximum(image, 1.5 * grey(image) + 0.5)
  image = weight * image + (1 - weight) * white
  return image + flakes + flakes[::-1, ::-1]


def spatter(
  image: jax.Array, key: jax.Array, values: tuple[Any, ...]
) -> jax.Array:
  """Puts drops of water or mud on the lens."""
  mean, sigma, blur, threshold, amount, is_mud = values
  liquid = mean + sigma * jax.random.normal(key, (*image.shape[:2], 1))
  liquid = _resample.gaussian(liquid, blur)
  wet = liquid >= threshold
  if is_mud:
    mask = _resample.gaussian(wet.astype(image.dtype), amount)
    mask = jnp.where(mask < 0.8, 0, mask)
    return image * (1 - mask) + mask * _tint(_MUD, image.shape[-1])
  liquid = jnp.floor(jnp.where(wet, liquid, 0) * 255)
  light = liquid * _relief(wet)
  light = amount * light / jnp.maximum(light.max(), 1)
  return image + light * _tint(_WATER, image.shape[-1])


def _relief(wet: jax.Array) -> jax.Array:
  """Drops lit from one side, by the distance from their rims.

  The reference finds rims by Canny's detector; here they are the wet pixels
  beside a dry one. The distance is Euclidean and exact.
  """
  mask = wet[..., 0]
  around = jnp.pad(mask, 1, mode='edge')
  dry = ~(around[:-2, 1:-1] & around[2:, 1:-1])
  dry |= ~(around[1:-1, :-2] & around[1:-1, 2:])
  squares = jnp.where(mask & dry, 0.0, _FAR**2)
  for axis in (0, 1):
    squares = _nearest(squares, axis)
  distance = jnp.sqrt(squares)[..., None]
  distance = jnp.floor(_resample.mean_3x3(distance)).astype(jnp.int32)
  shares = jnp.cumsum(jnp.bincount(distance.ravel(), length=_FAR + 1))
  least = shares[distance.min()]
  shares = (shares - least) / jnp.maximum(shares[-1] - least, 1)
  level = jnp.round(jnp.clip(shares[distance] * 255, 0, 255))
  level = jnp.pad(level[..., 0], 1, mode='reflect')
  emboss = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))
  height, width = mask.shape
  lit = sum(
    weight * level[i : i + height, j : j + width]
    for i, row in enumerate(emboss)
    for j, weight in enumerate(row)
  )
  lit = jnp.clip(lit, 0, 255)
  return jnp.round(_resample.mean_3x3(lit[..., None]))


def _nearest(squares: jax.Array, axis: int) -> jax.Array:
  """The least of a squared distance plus that along one axis."""
  length = squares.shape[axis]
  pad = [(0, 0), (0, 0)]
  pad[axis] = (_FAR, _FAR)
  padded = jnp.pad(squares, pad, constant_values=_FAR**2)

  def closer(k, least):
    moved = jax.lax.dynamic_slice_in_dim(padded, k, length, axis)
    return jnp.minimum(least, moved + (k - _FAR) ** 2)

  return jax.lax.fori_loop(0, 2 * _FAR + 1, closer, squares)

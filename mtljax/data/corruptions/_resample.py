"""Blurs, zooms and moves of an image as matrices and gathers.

A separable filter of an axis is a matrix of that axis, made on the host from
static sizes: two matrix products apply it, at any size and border rule.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np


def separable(image: jax.Array, rows: np.ndarray, columns: np.ndarray):
  """Applies a matrix to the rows and one to the columns of (H, W, C)."""
  precision = jax.lax.Precision.HIGHEST
  rows, columns = rows.astype(np.float32), columns.astype(np.float32)
  image = jnp.einsum('ih,hwc->iwc', rows, image, precision=precision)
  return jnp.einsum('jw,iwc->ijc', columns, image, precision=precision)


def filter_matrix(size: int, taps: np.ndarray, border: str) -> np.ndarray:
  """The matrix of a filter with an odd number of taps.

  Args:
    size: length of the axis.
    taps: weights, the middle one at the pixel itself.
    border: how the axis goes on, as in `numpy.pad`.

  Returns:
    Shape ``(size, size)``.
  """
  radius = len(taps) // 2
  source = np.pad(np.arange(size), radius, mode=border)  # pyrefly: ignore
  matrix = np.zeros((size, size))
  for k, weight in enumerate(taps):
    np.add.at(matrix, (np.arange(size), source[k : k + size]), weight)
  return matrix


def gaussian_taps(sigma: float, radius: int) -> np.ndarray:
  """Weights of a Gaussian, which sum to one."""
  if sigma <= 0:
    return np.ones(1)
  taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
  return taps / taps.sum()


def gaussian(
  image: jax.Array, sigma: float, border: str = 'edge', truncate: float = 4.0
) -> jax.Array:
  """Gaussian blur of (H, W, C), cut off after ``truncate`` deviations."""
  taps = gaussian_taps(sigma, int(truncate * sigma + 0.5))
  rows, columns = (filter_matrix(n, taps, border) for n in image.shape[:2])
  return separable(image, rows, columns)


def mean_3x3(image: jax.Array) -> jax.Array:
  """The mean of each pixel and its eight neighbours."""
  taps = np.full(3, 1 / 3)
  rows, columns = (filter_matrix(n, taps, 'reflect') for n in image.shape[:2])
  return separable(image, rows, columns)


def zoom_matrix(size: int, factor: float) -> np.ndarray:
  """Enlarges the middle of an axis to its whole length, linearly."""
  kept = math.ceil(size / factor)
  first = (size - kept) // 2
  enlarged = round(kept * factor)
  trim = (enlarged - size) // 2
  place = (trim + np.arange(size)) * (kept - 1) / max(enlarged - 1, 1)
  low = np.minimum(place.astype(int), kept - 1)
  high = np.minimum(low + 1, kept - 1)
  matrix = np.zeros((size, size))
  np.add.at(matrix, (np.arange(size), first + low), 1 - (place - low))
  np.add.at(matrix, (np.arange(size), first + high), place - low)
  return matrix


def zoom(image: jax.Array, factor: float) -> jax.Array:
  """Enlarges the middle of (H, W, C) to the whole image."""
  rows, columns = (zoom_matrix(n, factor) for n in image.shape[:2])
  return separable(image, rows, columns)


def motion(
  image: jax.Array, radius: int, sigma: float, angle: jax.Array
) -> jax.Array:
  """Blurs (H, W, C) along a line of one direction.

  The weights are those of half a Gaussian: the image trails to one side. A
  move by more than the image adds nothing, which darkens small images.

  Args:
    image: shape ``(H, W, C)``.
    radius: half the length of the trail.
    sigma: standard deviation of the weights.
    angle: direction in radians.

  Returns:
    The blurred image.
  """
  height, width = image.shape[:2]
  steps = np.arange(2 * radius + 1)
  taps = np.exp(-0.5 * (steps / sigma) ** 2)
  weights = jnp.asarray(taps / taps.sum(), image.dtype)
  down = -jnp.ceil(steps * jnp.sin(angle) - 0.5).astype(jnp.int32)
  right = -jnp.ceil(steps * jnp.cos(angle) - 0.5).astype(jnp.int32)
  inside = (jnp.abs(down) < height) & (jnp.abs(right) < width)
  weights = jnp.where(inside, weights, 0)

  def add(k, blurred):
    rows = jnp.clip(jnp.arange(height) - down[k], 0, height - 1)
    columns = jnp.clip(jnp.arange(width) - right[k], 0, width - 1)
    return blurred + weights[k] * image[rows][:, columns]

  return jax.lax.fori_loop(0, len(steps), add, jnp.zeros_like(image))


def sample(
  image: jax.Array, rows: jax.Array, columns: jax.Array, border: str
) -> jax.Array:
  """Values of (H, W, C) at real coordinates, bilinearly.

  Args:
    image: shape ``(H, W, C)``.
    rows: row coordinates, shape ``(H, W)``.
    columns: column coordinates, shape ``(H, W)``.
    border: as in `jax.scipy.ndimage.map_coordinates`.

  Returns:
    Shape ``(H, W, C)``.
  """

  def channel(x):
    return jax.scipy.ndimage.map_coordinates(
      x, [rows, columns], order=1, mode=border
    )

  return jax.vmap(channel, in_axes=-1, out_axes=-1)(image)

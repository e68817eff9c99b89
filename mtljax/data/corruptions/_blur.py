"""Blurs: a value becomes a mean of values around it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.data.corruptions import _resample


def gaussian_blur(image: jax.Array, key: jax.Array, sigma: float) -> jax.Array:
  """The mean with Gaussian weights."""
  del key
  return _resample.gaussian(image, sigma)


def defocus_blur(
  image: jax.Array, key: jax.Array, values: tuple[float, float]
) -> jax.Array:
  """The mean over a disk, as a lens out of focus gives it."""
  del key
  kernel = disk(*values)
  radius = len(kernel) // 2
  padded = jnp.pad(
    image, ((radius, radius), (radius, radius), (0, 0)), 'reflect'
  )
  size = padded.shape[:2]
  # A disk is not separable, and XLA's wide convolutions are slow on CPU.
  spectrum = jnp.fft.rfft2(padded, axes=(0, 1))
  weights = np.fft.rfft2(kernel, size).astype(np.complex64)[..., None]
  blurred = jnp.fft.irfft2(spectrum * weights, size, axes=(0, 1))
  first = 2 * radius
  return blurred[first : first + image.shape[0], first : first + image.shape[1]]


def disk(radius: float, alias: float) -> np.ndarray:
  """A disk of equal weights, its rim smoothed by a small Gaussian."""
  reach = 8 if radius <= 8 else int(radius)
  axis = np.arange(-reach, reach + 1)
  kernel = (axis[:, None] ** 2 + axis**2 <= radius**2).astype(float)
  taps = _resample.gaussian_taps(alias, 1 if radius <= 8 else 2)
  smooth = _resample.filter_matrix(len(axis), taps, 'reflect')
  return smooth @ (kernel / kernel.sum()) @ smooth.T


def glass_blur(
  image: jax.Array, key: jax.Array, values: tuple[float, int, int]
) -> jax.Array:
  """Exchanges pixels with near ones, between two small Gaussian blurs.

  The exchanges go from the last pixel to the first, one after another, so a
  pixel can travel far. Each move is -d to d - 1 rows and columns.
  """
  sigma, reach, rounds = values
  height, width = image.shape[:2]
  image = jnp.floor(_resample.gaussian(image, sigma) * 255) / 255
  rows = np.arange(height - reach, reach, -1)
  columns = np.arange(width - reach, reach, -1)
  count = rounds * len(rows) * len(columns)
  if count:
    moves = jax.random.randint(key, (count, 2), -reach, reach)
    here = (rows[:, None] * width + columns).reshape(-1)
    here = jnp.asarray(np.tile(here, rounds), jnp.int32)
    there = here + moves[:, 0] * width + moves[:, 1]

    def exchange(order, pair):
      a, b = pair
      return order.at[a].set(order[b]).at[b].set(order[a]), None

    order = jnp.arange(height * width)
    order, _ = jax.lax.scan(exchange, order, (here, there))
    image = image.reshape(height * width, -1)[order].reshape(image.shape)
  return _resample.gaussian(image, sigma)


def motion_blur(
  image: jax.Array, key: jax.Array, values: tuple[int, float]
) -> jax.Array:
  """The mean along a line, in a direction of -45 to 45 degrees."""
  angle = jax.random.uniform(key, (), minval=-np.pi / 4, maxval=np.pi / 4)
  return _resample.motion(image, *values, angle)


def zoom_blur(
  image: jax.Array, key: jax.Array, values: tuple[float, float]
) -> jax.Array:
  """The mean of the image and its enlargements."""
  del key
  factors = np.arange(1, *values)
  total = sum((_resample.zoom(image, z) for z in factors), image)
  return total / (len(factors) + 1)

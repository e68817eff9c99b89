"""Baseline JPEG, there and back: what is lost, without the bytes.

Entropy coding loses nothing and is left out. References: ITU-T T.81 (the
example tables of Annex K), JFIF 1.02 (colours), and the scaling of the tables
by a quality of 1 to 100 of the Independent JPEG Group.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.data.corruptions import _resample

_LUMINANCE = np.array(
  [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
  ]
)
_CHROMINANCE = np.full((8, 8), 99)
_CHROMINANCE[:4, :4] = [
  [17, 18, 24, 47],
  [18, 21, 26, 66],
  [24, 26, 56, 99],
  [47, 66, 99, 99],
]
_TO_YCC = np.array(
  [
    [0.299, 0.587, 0.114],
    [-0.168735892, -0.331264108, 0.5],
    [0.5, -0.418687589, -0.081312411],
  ],
  np.float32,
)
_FROM_YCC = np.array(
  [[1, 0, 1.402], [1, -0.344136286, -0.714136286], [1, 1.772, 0]], np.float32
)
_frequency, _place = np.mgrid[:8, :8]
_DCT = 0.5 * np.cos((2 * _place + 1) * _frequency * np.pi / 16)
_DCT[0] /= np.sqrt(2)
_DCT = _DCT.astype(np.float32)


def jpeg_compression(
  image: jax.Array, key: jax.Array, quality: int
) -> jax.Array:
  """Rounds the cosine coefficients of blocks; colours at half resolution."""
  del key
  height, width, channels = image.shape
  levels = jnp.round(image * 255)
  if channels == 1:
    levels = _plane(levels[..., 0] - 128, _LUMINANCE, quality)[..., None]
    return (levels + 128) / 255
  pad = ((0, height % 2), (0, width % 2), (0, 0))
  levels = jnp.pad(levels, pad, mode='edge')
  ycc = jnp.round(levels @ _TO_YCC.T)  # the colours are around 0 already
  half = (levels.shape[0] // 2, 2, levels.shape[1] // 2, 2)
  rows, columns = (_double(n // 2) for n in levels.shape[:2])
  bias = 1 + np.arange(half[2], dtype=np.float32)[None] % 2
  planes = [_plane(ycc[..., 0] - 128, _LUMINANCE, quality) + 128]
  for i in (1, 2):
    small = ycc[..., i].reshape(half).sum((1, 3))
    small = jnp.floor((small + bias) / 4)
    small = _plane(small, _CHROMINANCE, quality)
    large = _resample.separable(small[..., None], rows, columns)[..., 0]
    planes.append(jnp.round(large))
  rgb = jnp.round(jnp.stack(planes, -1) @ _FROM_YCC.T)
  return jnp.clip(rgb[:height, :width], 0, 255) / 255


def _plane(plane: jax.Array, table: np.ndarray, quality: int) -> jax.Array:
  """What decoding gives of one plane of levels around 0."""
  percent = 5000 // quality if quality < 50 else 200 - 2 * quality
  steps = np.clip((table * percent + 50) // 100, 1, 255).astype(np.float32)
  height, width = plane.shape
  plane = jnp.pad(plane, ((0, -height % 8), (0, -width % 8)), mode='edge')
  blocks = plane.reshape(plane.shape[0] // 8, 8, plane.shape[1] // 8, 8)
  blocks = jnp.einsum('ui,aibj,vj->aubv', _DCT, blocks, _DCT)
  steps = steps[None, :, None, :]
  blocks = jnp.round(blocks / steps) * steps
  blocks = jnp.einsum('ui,aubv,vj->aibj', _DCT, blocks, _DCT)
  blocks = jnp.clip(jnp.round(blocks), -128, 127)
  return blocks.reshape(plane.shape)[:height, :width]


def _double(size: int) -> np.ndarray:
  """Doubles an axis: three parts of the near value, one of the next."""
  matrix = np.zeros((2 * size, size))
  near = np.arange(size)
  for first, other in ((0, near - 1), (1, near + 1)):
    rows = 2 * near + first
    np.add.at(matrix, (rows, near), 0.75)
    np.add.at(matrix, (rows, np.clip(other, 0, size - 1)), 0.25)
  return matrix

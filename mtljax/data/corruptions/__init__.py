"""The common corruptions of Hendrycks and Dietterich, in JAX.

Fifteen corruptions and four held out, of five severities each, for grey and
colour images of any size: batched, jittable, and reproducible by key.
``import mtljax.data`` needs the extra ``data``, though nothing here does.
"""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mtljax import _validate
from mtljax.data.corruptions import (
  _blur,
  _digital,
  _jpeg,
  _noise,
  _severities,
  _weather,
)

__all__ = ['CORRUPTIONS', 'HELD_OUT', 'SEVERITIES', 'corrupt']

_COMMON: dict[str, Callable[..., jax.Array]] = {
  'gaussian_noise': _noise.gaussian_noise,
  'shot_noise': _noise.shot_noise,
  'impulse_noise': _noise.impulse_noise,
  'defocus_blur': _blur.defocus_blur,
  'glass_blur': _blur.glass_blur,
  'motion_blur': _blur.motion_blur,
  'zoom_blur': _blur.zoom_blur,
  'snow': _weather.snow,
  'frost': _weather.frost,
  'fog': _weather.fog,
  'brightness': _digital.brightness,
  'contrast': _digital.contrast,
  'elastic_transform': _digital.elastic_transform,
  'pixelate': _digital.pixelate,
  'jpeg_compression': _jpeg.jpeg_compression,
}
_EXTRA: dict[str, Callable[..., jax.Array]] = {
  'speckle_noise': _noise.speckle_noise,
  'gaussian_blur': _blur.gaussian_blur,
  'spatter': _weather.spatter,
  'saturate': _digital.saturate,
}

#: The fifteen common corruptions.
CORRUPTIONS: tuple[str, ...] = tuple(_COMMON)
#: Four more, which the authors keep for validation.
HELD_OUT: tuple[str, ...] = tuple(_EXTRA)
#: The severities.
SEVERITIES: tuple[int, ...] = (1, 2, 3, 4, 5)

_ALL = _COMMON | _EXTRA


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _corrupt(
  images: jax.Array, key: jax.Array, name: str, severity: int, scale: str
) -> jax.Array:
  values: Any = _severities.SCALES[scale][name][severity - 1]
  keys = jax.random.split(key, len(images))

  def one(image, image_key):
    return _ALL[name](image.astype(jnp.float32), image_key, values)

  return jnp.clip(jax.vmap(one)(images, keys), 0, 1).astype(images.dtype)


def corrupt(
  images: jax.Array,
  key: jax.Array,
  name: str,
  severity: int,
  *,
  scale: str = 'imagenet',
) -> jax.Array:
  """Corrupts a batch of images, each by a key of its own.

  The definitions are those of ImageNet-C and CIFAR-10-C. Lengths, such as the
  radius of a blur, are in pixels: take the ``scale`` that was made for images
  of about your size, or severities mean something else. What differs:

  ====================== ====================================================
  corruption             difference from the reference
  ====================== ====================================================
  all                    results are not rounded to 8 bits
  glass_blur             pixels are exchanged; the reference's assignment
                         through a view copies one over the other
  motion_blur, snow      a trail of whole-pixel moves; the reference's is
                         ImageMagick's
  frost                  ice is procedural, not cropped from photographs
  spatter, severity 1-3  rims of drops are wet pixels beside dry ones, not
                         Canny's edges
  elastic_transform      lengths go with the shorter side
  jpeg_compression       4:2:0 in floating point: a few levels off libjpeg
  pixelate               enlarged by a box filter, as by the authors; ports
                         that take the nearest pixel differ at ties
  saturate               an image of one channel is returned as it is
  ====================== ====================================================

  ============================= =============================================
  input                         result
  ============================= =============================================
  no image                      no image
  a constant image              stays constant under blurs and pixelate; but
                                defocus_blur of radius 8 or 10 brightens by 1 %,
                                as the reference's kernels do
  values outside [0, 1]         not checked; the result is clipped to [0, 1]
  NaN                           NaN spreads within its image only
  ============================= =============================================

  Args:
    images: floating point in [0, 1], shape ``(B, H, W, C)`` with 1 or 3
      channels and at least 2 x 2 pixels. The arithmetic is float32.
    key: a typed key. Deterministic corruptions (defocus, zoom and Gaussian
      blur, brightness, contrast, pixelate, jpeg_compression, saturate) ignore
      it; shot_noise needs a threefry key.
    name: one of `CORRUPTIONS` or `HELD_OUT`. Static.
    severity: 1 to 5, a Python int. Static: sizes of filters depend on it, so
      each severity is compiled by itself.
    scale: ``'imagenet'`` (made for 224 pixels) or ``'cifar'`` (for 32). Static.

  Returns:
    The corrupted images in [0, 1], with the shape and dtype of ``images``.

  Raises:
    ValueError: unknown ``name`` or ``scale``, severity out of range, or
      another shape.
    TypeError: the images are not floating point, or severity is no int.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from mtljax.data import corruptions
    >>> images = jnp.full((2, 8, 8, 1), 0.5)
    >>> noisy = corruptions.corrupt(
    ...   images, jax.random.key(0), 'gaussian_noise', 3, scale='cifar'
    ... )
    >>> noisy.shape, bool(jnp.all(noisy[0] == noisy[1]))
    ((2, 8, 8, 1), False)
    >>> len(corruptions.CORRUPTIONS), corruptions.HELD_OUT
    (15, ('speckle_noise', 'gaussian_blur', 'spatter', 'saturate'))

  References:
    Hendrycks and Dietterich, `Benchmarking Neural Network Robustness to Common
    Corruptions and Perturbations <https://arxiv.org/abs/1903.12261>`_, 2019.
  """
  _validate.one_of('name', name, _ALL)
  _validate.one_of('scale', scale, _severities.SCALES)
  if isinstance(severity, bool) or not isinstance(severity, numbers.Integral):
    raise TypeError(
      f'severity={severity!r} must be a Python int from 1 to 5: it is static.'
    )
  _validate.in_range('severity', severity, 1, 5)
  if images.ndim != 4 or images.shape[-1] not in (1, 3):
    raise ValueError(
      f'images of shape {images.shape} must be (B, H, W, C) with 1 or 3 '
      'channels.'
    )
  if min(images.shape[1:3]) < 2:
    raise ValueError(
      f'images of shape {images.shape} must have at least 2 x 2 pixels.'
    )
  if not jnp.issubdtype(images.dtype, jnp.floating):
    raise TypeError(
      f'images of dtype {images.dtype} must be floating point in [0, 1]: '
      'divide 8-bit images by 255.'
    )
  if not len(images):
    return images
  return _corrupt(images, key, name, int(severity), scale)

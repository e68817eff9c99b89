"""Augmentation of images with a label a pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mtljax import _validate

LABELS = ('image', 'segmentation', 'depth', 'normals')


def scale_crop_flip(
  key: jax.Array,
  example: Mapping[str, jax.Array],
  *,
  scales: Sequence[float] = (1.0, 1.2, 1.5),
  flip: bool = True,
) -> dict[str, jax.Array]:
  """Enlarges a random part of an example to its size, mirrored half the time.

  The augmentation of NYUv2 and Cityscapes in the codes of CAGrad, Nash-MTL and
  FAMO: with a scale s from ``scales``, a part of ``int(H / s)`` by
  ``int(W / s)`` pixels is taken at a random place.

  ================ ========================================================
  entry            what becomes of it
  ================ ========================================================
  ``image``        bilinear, the corners' middles kept; bytes stay bytes
  ``segmentation`` the nearest pixel's
  ``depth``        the nearest pixel's, divided by s: the camera is nearer
  ``normals``      bilinear as the image, not scaled to length 1 again; x is
                   negated where the image is mirrored
  ================ ========================================================

  Args:
    key: a random key.
    example: ``image`` ``(H, W, C)`` and any of ``segmentation`` ``(H, W)``,
      ``depth`` ``(H, W)`` and ``normals`` ``(H, W, 3)``.
    scales: each as likely as the others, at least 1.
    flip: whether to mirror left and right.

  Returns:
    The same entries, of the same shapes and dtypes.

  Raises:
    ValueError: an entry has another name, or a scale is less than 1.

  Example:
    >>> example = {'image': jnp.arange(6.0).reshape(2, 3, 1)}
    >>> made = scale_crop_flip(jax.random.key(1), example, scales=(1.0,))
    >>> made['image'][..., 0].tolist()  # mirrored
    [[2.0, 1.0, 0.0], [5.0, 4.0, 3.0]]

  References:
    https://github.com/lorenmt/mtan/issues/34
  """
  for name in example:
    _validate.one_of('entry of example', name, LABELS)
  if not scales:
    raise ValueError('scales=() must have at least one number.')
  for scale in scales:
    _validate.in_range('scales', scale, 1)
  height, width = example['image'].shape[:2]
  sizes = np.array([(int(height / s), int(width / s)) for s in scales])
  scale_key, row_key, column_key, flip_key = jax.random.split(key, 4)
  chosen = jax.random.randint(scale_key, (), 0, len(scales))
  h, w = jnp.asarray(sizes)[chosen]
  top = jax.random.randint(row_key, (), 0, height - h + 1)
  left = jax.random.randint(column_key, (), 0, width - w + 1)
  mirrored = jax.random.bernoulli(flip_key) & flip
  rows, columns = jnp.arange(height), jnp.arange(width)
  columns = jnp.where(mirrored, width - 1 - columns, columns)

  def nearest(x):
    return x[top + rows * h // height][:, left + columns * w // width]

  def bilinear(x):
    found = x.astype(jnp.float32)
    for axis, (start, place, new, old) in enumerate(
      ((top, rows, h, height), (left, columns, w, width))
    ):
      at = place * ((new - 1) / max(old - 1, 1))
      low = jnp.floor(at).astype(jnp.int32)
      share = jnp.expand_dims(at - low, (1, 2) if axis == 0 else (0, 2))
      high = jnp.minimum(low + 1, new - 1)
      a, b = (jnp.take(found, start + i, axis=axis) for i in (low, high))
      found = a + share * (b - a)
    if jnp.issubdtype(x.dtype, jnp.integer):
      found = jnp.rint(found)
    return found.astype(x.dtype)

  made = {}
  for name, x in example.items():
    resample = bilinear if name in ('image', 'normals') else nearest
    made[name] = resample(jnp.asarray(x))
  if 'depth' in made:
    made['depth'] = made['depth'] / jnp.asarray(scales, jnp.float32)[chosen]
  if 'normals' in made:
    x = made['normals']
    made['normals'] = x.at[..., 0].multiply(jnp.where(mirrored, -1, 1))
  return made

"""CelebA: photographs of faces, and forty attributes that are there or not.

The tfds data set ``celeb_a`` has 162,770 photographs to train, 19,867 to
validate and 19,962 to test, the split of its authors. The multi-task protocol
shrinks each to 64 x 64 pixels, whatever its sides, by averaging as Pillow and
torchvision do (``BILINEAR``), and keeps values as they are.

References:
  Liu, Luo, Wang and Tang, Deep Learning Face Attributes in the Wild, 2015,
  https://arxiv.org/abs/1411.7766
"""

from __future__ import annotations

import concurrent.futures
import io
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from mtljax import _validate
from mtljax.data import _photographs, _sources

_CHUNK = 1000
_AGAIN = (
  'prepare the data set again, tfds build celeb_a --file_format=array_record.'
)


def load_celeba(
  *,
  split: str,
  size: int = 64,
  num_examples: int | None = None,
  data_dir: str | os.PathLike[str] | None = None,
  progress: Callable[[str], object] | None = None,
) -> dict[str, np.ndarray]:
  """Reads one split of CelebA into memory, from the tfds data set ``celeb_a``.

  It has to be prepared as array_record; reading it needs no TensorFlow. All of
  the train split takes 2 GB at 64 x 64.

  Args:
    split: ``'train'``, ``'validation'`` or ``'test'``.
    size: pixels of a side that photographs are shrunk to.
    num_examples: how many are read, the first ones; None reads all.
    data_dir: the tfds directory; None is that of tfds
      (``$TFDS_DATA_DIR``, else ``~/tensorflow_datasets``).
    progress: called with a line of text before anything slow is done.

  Returns:
    ``image``, uint8, shape ``(N, size, size, 3)``, and each attribute by its
    name (``mtljax.models.CELEBA_ATTRIBUTES``), uint8, shape ``(N,)``, 1 where
    it is there.

  Raises:
    ValueError: an argument is out of range, or a file of the data set is
      damaged.
    FileNotFoundError: the data set is not prepared; the message says how.

  Example:
    >>> load_celeba(split='valid')
    Traceback (most recent call last):
    ValueError: split='valid' is not one of ... Did you mean 'validation'?
  """
  _validate.one_of('split', split, _sources.SPLITS)
  _validate.integer('size', size, 1)
  source = _sources.open_tfds('celeb_a', split, data_dir, undecoded=['image'])
  count = len(source)
  if num_examples is not None:
    count = min(count, _validate.integer('num_examples', num_examples, 1))
  if progress is not None and count > 10 * _CHUNK:
    progress(f'Reading {count:,} photographs of celeb_a ({split}).')
  images = np.empty((count, size, size, 3), np.uint8)
  attributes: dict[str, np.ndarray] = {}

  def put(place: int, content: bytes) -> None:
    name = f'celeb_a: photograph {place} of {split}'
    images[place] = _photographs.shrunk(io.BytesIO(content), size, name, _AGAIN)

  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for start in range(0, count, _CHUNK):
      places = range(start, min(start + _CHUNK, count))
      examples: list[Any] = [source[i] for i in places]
      list(pool.map(put, places, [x['image'] for x in examples]))
      for name in sorted(examples[0]['attributes']):
        if not start:
          attributes[name] = np.empty(count, np.uint8)
        attributes[name][places.start : places.stop] = [
          x['attributes'][name] for x in examples
        ]
  return {'image': images, **attributes}

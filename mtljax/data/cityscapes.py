"""Cityscapes at 128 x 256 pixels: seven classes and inverse depth.

References:
  Cordts et al., The Cityscapes Dataset for Semantic Urban Scene Understanding,
  2016, https://arxiv.org/abs/1604.01685

  Liu, Johns and Davison, End-to-End Multi-Task Learning with Attention, 2019,
  https://arxiv.org/abs/1803.10704
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from mtljax import _validate
from mtljax.data import _npy_folders, _sources

#: Of the files; training images and test images are 2,975 and 500.
SIZE = (128, 256)
#: Of the labels 0 to 33 of the data set the category, less one: -1 is void.
CATEGORIES = np.repeat(
  np.arange(-1, 7, dtype=np.int32), (7, 4, 6, 4, 2, 1, 2, 8)
)
CLASSES = 7
#: The folder of each split, and its name in tfds; of the test images of the
#: authors there are no labels.
FOLDERS = {'train': 'train', 'test': 'val'}
TFDS_SPLITS = {'train': 'train', 'test': 'validation'}
FORMS = ('npy', 'tfds')
_WIDTH = 2048


def load_cityscapes(
  *,
  split: str,
  form: str = 'npy',
  data_dir: str | os.PathLike[str] | None = None,
  progress: Callable[[str], object] | None = None,
) -> dict[str, np.ndarray]:
  """Reads a user's Cityscapes, in the form of MTAN's authors or of tfds.

  ``'npy'`` are the files at the link "CityScapes" of
  https://github.com/lorenmt/mtan; they belong in
  ``downloads/manual/cityscapes`` of the tfds directory, so that there are
  ``cityscapes/train/image/0.npy``, and likewise ``label_7`` and ``depth``, and
  ``cityscapes/val`` with the same three.

  =========== =============== ============================================
  folder      shape of a file values
  =========== =============== ============================================
  ``image``   (128, 256, 3)   floats from 0 to 1
  ``label_7`` (128, 256)      whole numbers from 0 to 6; -1 is ignored
  ``depth``   (128, 256, 1)   inverse depth, in no known unit; 0 is ignored
  =========== =============== ============================================

  ``'tfds'`` are the data sets ``cityscapes/semantic_segmentation`` and
  ``cityscapes/stereo_disparity``, prepared as array_record. An image is the
  mean over squares of eight pixels, a label that of the pixel in the middle;
  the class is the category of the label, and inverse depth is the disparity as
  a share of the image's width, 0 where it is not known. So it is on another
  scale than MTAN's, which is not documented.

  Args:
    split: ``'train'`` (2,975 images) or ``'test'`` (500: those that the authors
      call val, as theirs of the test have no labels).
    form: ``'npy'`` or ``'tfds'``.
    data_dir: the tfds directory; None is that of tfds.
    progress: called with a line of text before anything slow is done.

  Returns:
    ``image`` (uint8, ``(N, 128, 256, 3)``), ``segmentation`` (int32, ``(N, 128,
    256)``) and ``depth`` (float32, ``(N, 128, 256)``).

  Raises:
    FileNotFoundError: a file or data set is missing; the message says where to
      get it and where to put it.
    ValueError: split or form are unknown, a file holds something else, or the
      two data sets of tfds are not of the same images.

  Example:
    >>> load_cityscapes(split='val')
    Traceback (most recent call last):
    ValueError: split='val' is not one of 'train', 'test'.
  """
  _validate.one_of('split', split, FOLDERS)
  _validate.one_of('form', form, FORMS)
  if form == 'tfds':
    return _read_tfds(
      TFDS_SPLITS[split], data_dir, progress or (lambda _: None)
    )
  root = _npy_folders.manual_folder('cityscapes', data_dir)
  fields = {
    'image': _npy_folders.Field('image', (*SIZE, 3), image=True),
    'segmentation': _npy_folders.Field('label_7', SIZE, classes=CLASSES),
    'depth': _npy_folders.Field('depth', (*SIZE, 1)),
  }
  advice = (
    'get the preprocessed CityScapes from the link of '
    'https://github.com/lorenmt/mtan and unpack it so that '
    f'{root / "train" / "image" / "0.npy"} is there.'
  )
  return _npy_folders.read_folder(root / FOLDERS[split], fields, advice)


def _read_tfds(
  split: str,
  data_dir: str | os.PathLike[str] | None,
  say: Callable[[str], object],
) -> dict[str, np.ndarray]:
  """The two configurations of the builder, joined by ``image_id``."""
  labelled, stereo = (
    _sources.find_tfds(
      f'cityscapes/{config}',
      split,
      data_dir,
      undecoded=names,
      preparing=(
        'Preparing it takes the original files from downloads/manual, where '
        'you put them after registering at https://www.cityscapes-dataset.com,'
      ),
    )
    for config, names in (
      ('semantic_segmentation', ('image_left', 'segmentation_label')),
      ('stereo_disparity', ('image_left', 'image_right', 'disparity_map')),
    )
  )
  count = len(labelled)
  if len(stereo) != count:
    raise ValueError(
      f'the split {split} of cityscapes/semantic_segmentation has {count} '
      f'images and that of cityscapes/stereo_disparity {len(stereo)}: prepare '
      'both again.'
    )
  say(f'Decoding {count} images of Cityscapes ({split}).')
  found = {
    'image': np.empty((count, *SIZE, 3), np.uint8),
    'segmentation': np.empty((count, *SIZE), np.int32),
    'depth': np.empty((count, *SIZE), np.float32),
  }
  rows: dict[Any, int] = {}
  for i in range(count):
    example = labelled[i]
    rows[_id(example)] = i
    found['image'][i] = shrink_image(_decode(example['image_left']))
    found['segmentation'][i] = category(_decode(example['segmentation_label']))
  for i in range(count):
    example = stereo[i]
    if _id(example) not in rows:
      raise ValueError(
        f'cityscapes/stereo_disparity has the image {_id(example)}, which is '
        'not in cityscapes/semantic_segmentation: prepare both again.'
      )
    # 16 bits: tfds would decode them to 8.
    disparity = inverse_depth(_decode(example['disparity_map']))
    found['depth'][rows[_id(example)]] = disparity
  return found


def _id(example: Mapping[str, Any]) -> str:
  found = example['image_id']
  return found.decode() if isinstance(found, bytes) else str(found)


def _decode(image: Any) -> np.ndarray:
  """``(H, W)`` or ``(H, W, C)``, in as many bits as the file has."""
  if not isinstance(image, bytes):
    return np.squeeze(np.asarray(image))
  with Image.open(io.BytesIO(image)) as png:
    return np.asarray(png)


def _middle(image: np.ndarray) -> np.ndarray:
  step = image.shape[0] // SIZE[0]
  return image[step // 2 :: step, step // 2 :: step]


def shrink_image(image: np.ndarray) -> np.ndarray:
  """Means over squares, ``(128, 256, 3)``, uint8."""
  step = image.shape[0] // SIZE[0]
  squares = image.reshape(SIZE[0], step, SIZE[1], step, 3)
  return np.rint(squares.mean((1, 3))).astype(np.uint8)


def category(labels: np.ndarray) -> np.ndarray:
  """The seven categories of labels of the data set; void is -1."""
  labels = _middle(labels)
  known = labels < len(CATEGORIES)  # a licence plate is -1, or 255
  return np.where(known, CATEGORIES[np.where(known, labels, 0)], -1)


def inverse_depth(disparity: np.ndarray) -> np.ndarray:
  """Disparity as a share of the width, from 16 bits; 0 where not known."""
  values = _middle(disparity).astype(np.float32)
  return np.where(values > 0, (values - 1) / 256, 0) / np.float32(_WIDTH)

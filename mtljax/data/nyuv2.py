"""NYUv2 as MTAN prepared it: segmentation, depth and surface normals.

References:
  Silberman et al., Indoor Segmentation and Support Inference from RGBD Images,
  2012, https://cs.nyu.edu/~fergus/datasets/indoor_seg_support.pdf

  Liu, Johns and Davison, End-to-End Multi-Task Learning with Attention, 2019,
  https://arxiv.org/abs/1803.10704
"""

from __future__ import annotations

import os

import numpy as np

from mtljax import _validate
from mtljax.data import _npy_folders

#: Of the files; training images and test images are 795 and 654.
SIZE = (288, 384)
CLASSES = 13
#: The folder of each split; there is no validation split.
FOLDERS = {'train': 'train', 'test': 'val'}


def load_nyuv2(
  *, split: str, data_dir: str | os.PathLike[str] | None = None
) -> dict[str, np.ndarray]:
  """Reads the files that MTAN's authors prepared, which a user has to bring.

  They are at the link "NYUv2" of https://github.com/lorenmt/mtan, and belong in
  ``downloads/manual/nyuv2`` of the tfds directory, so that there are
  ``nyuv2/train/image/0.npy``, and likewise ``label``, ``depth`` and ``normal``,
  and ``nyuv2/val`` with the same four.

  ============ =============== ============================================
  folder       shape of a file values
  ============ =============== ============================================
  ``image``    (288, 384, 3)   floats from 0 to 1
  ``label``    (288, 384)      whole numbers from 0 to 12; -1 is ignored
  ``depth``    (288, 384, 1)   metres; 0 is ignored
  ``normal``   (288, 384, 3)   length 1; (0, 0, 0) is ignored
  ============ =============== ============================================

  Args:
    split: ``'train'`` (795 images) or ``'test'`` (654, in the folder ``val``).
    data_dir: the tfds directory; None is that of tfds.

  Returns:
    ``image`` (uint8, ``(N, 288, 384, 3)``: rounded to bytes), ``segmentation``
    (int32, ``(N, 288, 384)``), ``depth`` (float32, ``(N, 288, 384)``) and
    ``normals`` (float32, ``(N, 288, 384, 3)``).

  Raises:
    FileNotFoundError: a file is missing; the message says where to get it and
      where to put it.
    ValueError: the split is unknown, or a file holds something else; it is
      named, with what it has and what is expected.

  Example:
    >>> load_nyuv2(split='val')
    Traceback (most recent call last):
    ValueError: split='val' is not one of 'train', 'test'.
  """
  _validate.one_of('split', split, FOLDERS)
  root = _npy_folders.manual_folder('nyuv2', data_dir)
  fields = {
    'image': _npy_folders.Field('image', (*SIZE, 3), image=True),
    'segmentation': _npy_folders.Field('label', SIZE, classes=CLASSES),
    'depth': _npy_folders.Field('depth', (*SIZE, 1)),
    'normals': _npy_folders.Field('normal', (*SIZE, 3)),
  }
  advice = (
    'get the preprocessed NYUv2 from the link of '
    'https://github.com/lorenmt/mtan and unpack it so that '
    f'{root / "train" / "image" / "0.npy"} is there.'
  )
  return _npy_folders.read_folder(root / FOLDERS[split], fields, advice)

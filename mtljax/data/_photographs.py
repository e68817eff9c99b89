"""Photographs of any size as small squares of one size."""

from __future__ import annotations

import os
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError


def shrunk(
  file: str | os.PathLike[str] | IO[bytes], size: int, name: str, advice: str
) -> np.ndarray:
  """The pixels of a photograph, uint8 ``(size, size, 3)``.

  Pillow's ``BILINEAR``, which torchvision's ``Resize`` is as well: an average
  over the pixels that a smaller one covers. Sides may change their ratio.

  Args:
    file: a path, or an open file, of any format that Pillow reads.
    size: pixels of a side.
    name: what an error calls it.
    advice: what to do then.

  Raises:
    ValueError: it is no image that can be read.
  """
  try:
    with Image.open(file) as photograph:
      small = photograph.convert('RGB').resize(
        (size, size), Image.Resampling.BILINEAR
      )
  except (UnidentifiedImageError, OSError) as error:
    raise ValueError(
      f'{name} is no image that can be read ({error}): {advice}'
    ) from error
  return np.asarray(small)

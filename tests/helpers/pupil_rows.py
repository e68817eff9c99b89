"""Made-up rows in the raw format of Star, the pupils by school."""

import gzip
import pathlib

import numpy as np

from mtljax.data import star


def make_rows(counts, seed=0):
  """Pupils of so many schools; schools differ in what small classes do."""
  rng = np.random.default_rng(seed)
  rows = []
  for school, count in enumerate(counts, 1):
    for _ in range(count):
      kind = rng.choice(['regular', 'small.class', 'regular.with.aide'])
      gain = 10 * school if kind == 'small.class' else 0
      rows.append(
        [
          f'"{len(rows) + 1}"',
          str(int(rng.normal(480, 40)) + gain),
          str(int(rng.normal(430, 30))),
          f'"{kind}"',
          str(rng.integers(0, 25)),
          str(rng.choice(['"boy"', '"girl"'])),
          str(rng.choice(['"yes"', '"no"'])),
          str(rng.choice(['"white"', '"black"', '"other"'])),
          str(school),
        ]
      )
  return rows


def write(data_dir, rows):
  """The raw file in the manual directory of a tfds directory."""
  folder = pathlib.Path(data_dir) / 'downloads' / 'manual'
  folder.mkdir(parents=True, exist_ok=True)
  lines = [','.join(f'"{x}"' for x in star.COLUMNS), *map(','.join, rows)]
  path = folder / f'{star.FILE}.gz'
  with gzip.open(path, 'wt') as file:
    file.write('\n'.join(lines) + '\n')
  return path

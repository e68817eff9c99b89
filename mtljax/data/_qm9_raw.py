"""The raw files of QM9 as the package qm9pack holds them, and their units."""

from __future__ import annotations

import csv
import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from mtljax.data import _raw

#: The files, and of each the molecules and the SHA-256.
FILES = ('qm9_part1.csv', 'qm9_part2.csv', 'qm9_part3.csv')
MOLECULES = {
  'qm9_part1.csv': 43_610,
  'qm9_part2.csv': 43_611,
  'qm9_part3.csv': 43_610,
}
SHA256 = {
  'qm9_part1.csv': (
    '19f0a5d595462d52cd82eef3370f3e9eb55a1f52cb14985657200349568deff3'
  ),
  'qm9_part2.csv': (
    '2bca113fdc0b28a13563c80ed9b240e934f3da6c64c64fe74ddb4f0f36036e61'
  ),
  'qm9_part3.csv': (
    '9c5efb5733d2af149db8d95d36ff198b4ffed12d9f7b344220a1e5877d5c6a43'
  ),
}
#: Molecules of all files: QM9 without the 3,054 that failed its own check.
NUM_MOLECULES = 130_831
#: Atoms of a molecule, at most.
MAX_ATOMS = 29
#: Atomic numbers, in the order of the columns of `counts`.
ELEMENTS = {'H': 1, 'C': 6, 'N': 7, 'O': 8, 'F': 9}
#: The eleven targets in the order of the papers, and their columns.
COLUMNS = {
  'mu': 'Dipole_debye',
  'alpha': 'Polarizability_bohr3',
  'homo': 'HOMO_au',
  'lumo': 'LUMO_au',
  'r2': 'R2_bohr2',
  'zpve': 'ZPVE_au',
  'u0': 'InternalEnergy_0K_au',
  'u': 'InternalEnergy_298K_au',
  'h': 'Enthalphy_298K_au',  # sic
  'g': 'GibbsFreeEnergy_298K_au',
  'cv': 'Heatcapacity_Cv_cal_mol_K',
}
#: The targets' names in tfds's own builder, which has energies in Hartree.
TFDS = {name: name for name in COLUMNS} | {
  'u0': 'U0_atomization',
  'u': 'U_atomization',
  'h': 'H_atomization',
  'g': 'G_atomization',
  'cv': 'Cv',
}
#: Electronvolts in a Hartree.
HARTREE = 27.211386246
#: Targets that are energies; the raw files have them in Hartree.
ENERGIES = ('homo', 'lumo', 'zpve', 'u0', 'u', 'h', 'g')
#: Energies of single atoms H, C, N, O, F in eV, as QM9 gives them.
ATOMS = {
  'u0': (
    -13.61312172,
    -1029.86312267,
    -1485.30251237,
    -2042.61123593,
    -2713.48485589,
  ),
  'u': (
    -13.5745904,
    -1029.82456413,
    -1485.26398105,
    -2042.5727046,
    -2713.44632457,
  ),
  'h': (
    -13.54887564,
    -1029.79887659,
    -1485.2382935,
    -2042.54701705,
    -2713.42063702,
  ),
  'g': (
    -13.90303183,
    -1030.25891228,
    -1485.71166277,
    -2043.01812778,
    -2713.88796536,
  ),
}


def find(folder: str | os.PathLike[str]) -> list[pathlib.Path]:
  """The raw files that a folder has, gzipped or not, in order."""
  paths = [_raw.find(folder, name) for name in FILES]
  return [path for path in paths if path is not None]


def read(
  path: str | os.PathLike[str], block: int
) -> Iterator[dict[str, np.ndarray]]:
  """The molecules of a raw file, so many at a time.

  Args:
    path: of the file, gzipped or not.
    block: molecules of what is yielded, R; the last may have fewer.

  Yields:
    ``index`` (R,), the number of the molecule in QM9, int32; ``numbers``
    (R, 29), atomic numbers, uint8, 0 where there is no atom; ``positions``
    (R, 29, 3), in Angstrom, float32; ``properties`` (R, 11), the columns of
    `COLUMNS` as the file has them, float64.

  Raises:
    ValueError: the file is damaged, lacks a column, or a row does not make
      sense.
  """
  rows = csv.reader(_raw.lines(path, 'qm9'))
  header = next(rows, [])
  wanted = ('Index', 'N_atoms', 'Elements', 'XYZ_Ang', *COLUMNS.values())
  for name in wanted:
    if name not in header:
      raise ValueError(
        f'{path} has no column {name}, so it is no {FILES[0]} of qm9pack. '
        'Fetch it again: python -m mtljax.data.fetch qm9 --force'
      )
  places = [header.index(name) for name in wanted]
  start = 1
  while chosen := list(itertools.islice(rows, block)):
    try:
      yield _parse(chosen, len(header), places)
    except ValueError as error:
      raise ValueError(
        f'{path}, molecules {start} to {start + len(chosen) - 1}: {error}. '
        'Fetch it again: python -m mtljax.data.fetch qm9 --force'
      ) from error
    start += len(chosen)


def _parse(
  rows: Sequence[Sequence[str]], width: int, places: Sequence[int]
) -> dict[str, np.ndarray]:
  for row in rows:
    if len(row) != width:
      raise ValueError(f'a row has {len(row)} columns, not {width}')
  columns = [[row[i] for row in rows] for i in places]
  index, counts = (np.array(column, np.int32) for column in columns[:2])
  if counts.min() < 1 or counts.max() > MAX_ATOMS:
    wrong = counts[(counts < 1) | (counts > MAX_ATOMS)][0]
    raise ValueError(f'a molecule has {wrong} atoms, not 1 to {MAX_ATOMS}')
  inside = np.arange(MAX_ATOMS) < counts[:, None]
  symbols = _items(columns[2])
  # Numbers such as `0.` are none to a parser of JSON.
  coordinates = np.array([float(x) for x in _items(columns[3])])
  if not len(symbols) == len(coordinates) / 3 == counts.sum():
    raise ValueError(
      f'{len(symbols)} elements and {len(coordinates)} coordinates for '
      f'{counts.sum()} atoms'
    )
  for symbol in set(symbols) - ELEMENTS.keys():
    raise ValueError(f'{symbol!r} is no element of QM9')
  numbers = np.zeros(inside.shape, np.uint8)
  numbers[inside] = [ELEMENTS[symbol] for symbol in symbols]
  positions = np.zeros((*inside.shape, 3), np.float32)
  positions[inside] = coordinates.reshape(-1, 3)
  return {
    'index': index,
    'numbers': numbers,
    'positions': positions,
    'properties': np.array(columns[4:], np.float64).T,
  }


_DROPPED = str.maketrans('', '', "[]' ")


def _items(lists: Iterable[str]) -> list[str]:
  """The items of lists that are written out, one list after another."""
  return ','.join(lists).translate(_DROPPED).split(',')


def counts(numbers: np.ndarray) -> np.ndarray:
  """How many atoms of H, C, N, O and F each molecule has, (N, 5)."""
  return np.stack([(numbers == z).sum(1) for z in ELEMENTS.values()], 1)


def convert(properties: np.ndarray, numbers: np.ndarray) -> np.ndarray:
  """Raw properties in the units of the papers.

  Args:
    properties: as in the raw files, (N, 11), float64.
    numbers: atomic numbers, (N, A).

  Returns:
    The same in Debye, bohr^3, eV, bohr^2 and cal/(mol K), (N, 11), float64;
    the energies u0, u, h and g are those of atomization, negative: less those
    of the molecule's atoms.
  """
  found = np.array(properties, np.float64)
  atoms = counts(numbers).astype(np.float64)
  for place, name in enumerate(COLUMNS):
    if name in ENERGIES:
      found[:, place] *= HARTREE
    if name in ATOMS:
      found[:, place] -= atoms @ np.array(ATOMS[name])
  return found

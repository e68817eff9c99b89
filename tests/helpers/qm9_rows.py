"""Molecules in the raw format of qm9pack.

The first three are those of QM9 itself, with the columns that are read; others
are made up: atoms at random places, and properties that hang on how many there
are.
"""

import csv
import gzip
import pathlib

import numpy as np

HEADER = (
  'XYZ_file',
  'Index',
  'SMILES',
  'N_atoms',
  'Elements',
  'XYZ_Ang',
  'RotA_GHz',
  'Dipole_debye',
  'Polarizability_bohr3',
  'HOMO_au',
  'LUMO_au',
  'R2_bohr2',
  'ZPVE_au',
  'InternalEnergy_0K_au',
  'InternalEnergy_298K_au',
  'Enthalphy_298K_au',
  'GibbsFreeEnergy_298K_au',
  'Heatcapacity_Cv_cal_mol_K',
)
METHANE = (
  'dsgdb9nsd_000001.xyz',
  '1',
  'C',
  '5',
  "['C','H','H','H','H']",
  '[[-0.0126981359,1.0858041578,0.0080009958],[0.002150416,-0.0060313176,'
  '0.0019761204],[1.0117308433,1.4637511618,0.0002765748],[-0.540815069,'
  '1.4475266138,-0.8766437152],[-0.5238136345,1.4379326443,0.9063972942]]',
  '157.7118',
  *'0. 13.21 -0.3877 0.1171 35.3641 0.044749'.split(),
  *'-40.47893 -40.476062 -40.475117 -40.498597 6.469'.split(),
)
AMMONIA = (
  'dsgdb9nsd_000002.xyz',
  '2',
  'N',
  '4',
  "['N','H','H','H']",
  '[[-0.0404260543,1.0241077531,0.0625637998],[0.0172574639,0.0125452063,'
  '-0.0273771593],[0.9157893661,1.3587451948,-0.0287577581],[-0.5202777357,'
  '1.3435321258,-0.7755426124]]',
  '293.60975',
  *'1.6256 9.46 -0.257 0.0829 26.1563 0.034358'.split(),
  *'-56.525887 -56.523026 -56.522082 -56.544961 6.316'.split(),
)
#: Of methane, in the units and the order of the papers.
METHANE_TARGETS = (
  *(0, 13.21, -10.549854, 3.186453, 35.3641, 1.217682),
  *(-17.17219, -17.286831, -17.389663, -16.151926, 6.469),
)


def make_row(rng, index):
  """One molecule, as the texts of the columns."""
  symbols = list('CC') + rng.choice(list('HCNO'), rng.integers(1, 8)).tolist()
  places = rng.uniform(-2, 2, (len(symbols), 3)).round(3)
  heavy = sum(symbol != 'H' for symbol in symbols)
  values = heavy * rng.uniform(0.9, 1.1, 11)
  return (
    f'dsgdb9nsd_{index:06d}.xyz',
    str(index),
    'C',
    str(len(symbols)),
    str(symbols).replace(' ', ''),
    str(places.tolist()).replace(' ', ''),
    '1.',
    *(f'{value:.6f}' for value in values),
  )


def write_rows(path, rows, header=HEADER):
  """A raw file, gzipped."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with gzip.open(path, 'wt', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(header)
    writer.writerows(rows)


def write_raw(data_dir, files, count=300):
  """The raw files in the manual directory of a tfds directory."""
  rng = np.random.default_rng(0)
  rows = [METHANE, AMMONIA]
  rows += [make_row(rng, index) for index in range(4, count + 2)]
  folder = pathlib.Path(data_dir) / 'downloads' / 'manual'
  shares = np.array_split(np.arange(count), len(files))
  for name, share in zip(files, shares, strict=True):
    write_rows(folder / f'{name}.gz', [rows[i] for i in share])
  return rows

"""QM9: molecules of up to 29 atoms with eleven properties, as a tfds builder.

130,831 small organic molecules of H, C, N, O and F: QM9 without the 3,054 that
failed its own consistency check. The tasks, in the order of the papers:

====== ============================================ ========== ===============
task   property                                     unit       reported in
====== ============================================ ========== ===============
mu     dipole moment                                Debye      the same
alpha  isotropic polarizability                     bohr^3     the same
homo   energy of the highest occupied orbital       eV         meV
lumo   energy of the lowest unoccupied orbital      eV         meV
r2     electronic spatial extent                    bohr^2     the same
zpve   zero point vibrational energy                eV         meV
u0     atomization energy at 0 K                    eV         meV
u      atomization energy at 298.15 K               eV         meV
h      atomization enthalpy at 298.15 K             eV         meV
g      atomization free energy at 298.15 K          eV         meV
cv     heat capacity at 298.15 K                    cal/mol K  the same
====== ============================================ ========== ===============

The raw files have energies of molecules in Hartree; those of atomization are
less the energies of the single atoms. u0, u, h and g are one property four
times (their correlations are 1.000).

An example of the tfds data set is a *block* of up to 1,000 molecules, as in
`Census`, with the properties in these units: tfds keeps float32 at most, which
is too little for total energies. `load_qm9` puts the blocks together and
splits.

References:
  Ramakrishnan et al., "Quantum chemistry structures and properties of 134 kilo
  molecules", 2014. https://doi.org/10.1038/sdata.2014.22
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mtljax import _validate
from mtljax.data import _cache, _prepare, _sources
from mtljax.data import _qm9_raw as raw
from mtljax.data._sources import SPLITS

#: Molecules of an example of the tfds data set, at most.
BLOCK = 1_000
#: The tasks, and the unit of each as `load_qm9` gives it.
QM9_TASKS = {
  name: 'eV' if name in raw.ENERGIES else unit
  for name, unit in {
    **dict.fromkeys(raw.COLUMNS, ''),
    'mu': 'D',
    'alpha': 'bohr³',
    'r2': 'bohr²',
    'cv': 'cal/(mol K)',
  }.items()
}

_HELD_OUT = 10_000  # of all molecules, for validation and for test
_FETCH = 'python -m mtljax.data.fetch qm9'
_MANUAL = f'Put {", ".join(raw.FILES)} there, as they are or gzipped (.gz): '
_CITATION = """
@article{ramakrishnan2014quantum,
  title={Quantum chemistry structures and properties of 134 kilo molecules},
  author={Ramakrishnan, Raghunathan and Dral, Pavlo O and Rupp, Matthias and
    von Lilienfeld, O Anatole},
  journal={Scientific Data},
  volume={1},
  year={2014}
}
"""


class Qm9Molecules(_prepare.ArrayRecordBuilder):
  """QM9 as the package qm9pack has it; one split, ``molecules``.

  Features of a block of R molecules: ``index`` (R,), the number in QM9;
  ``numbers`` (R, 29) uint8, atomic numbers, 0 where there is no atom;
  ``positions`` (R, 29, 3) float32, in Angstrom; ``targets`` (R, 11) float32, in
  the order and the units of `QM9_TASKS`.

  The raw files are taken from ``manual_dir`` (``downloads/manual`` in the tfds
  directory) if they are there, else the molecules from tfds's own ``qm9``
  (``original``), where that is prepared as array_record.
  """

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First release.'}
  MANUAL_DOWNLOAD_INSTRUCTIONS = _MANUAL + _FETCH

  def _info(self) -> tfds.core.DatasetInfo:
    tensor = tfds.features.Tensor
    atoms = (None, raw.MAX_ATOMS)
    return tfds.core.DatasetInfo(
      builder=self,
      description='QM9: geometries and properties of small molecules.',
      features=tfds.features.FeaturesDict(
        {
          'index': tensor(shape=(None,), dtype=np.int32),
          'numbers': tensor(shape=atoms, dtype=np.uint8),
          'positions': tensor(shape=(*atoms, 3), dtype=np.float32),
          'targets': tensor(shape=(None, len(raw.COLUMNS)), dtype=np.float32),
        }
      ),
      homepage='https://doi.org/10.6084/m9.figshare.c.978904',
      citation=_CITATION,
      disable_shuffling=True,  # training draws its own order
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
    del dl_manager
    return {'molecules': self._generate_examples()}

  def _generate_examples(self) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    folder = self.data_dir_root / 'downloads' / 'manual'
    paths = raw.find(folder)
    if len(paths) < len(raw.FILES):
      yield from _of_tfds(folder, self.data_dir_root)
      return
    last = 0
    for path in paths:
      for block in raw.read(path, BLOCK):
        steps = np.diff(block['index'], prepend=last)
        if steps.min() < 1:
          raise ValueError(
            f'{path} is not where it belongs: molecule '
            f'{block["index"][steps.argmin()]} comes after '
            f'{block["index"][steps.argmin()] - steps.min()}. Fetch all three '
            f'again: {_FETCH} --force'
          )
        last = int(block['index'][-1])
        properties = block.pop('properties')
        targets = raw.convert(properties, block['numbers'])
        yield last, block | {'targets': targets.astype(np.float32)}

  def compare(self) -> None:
    """Raises a DamagedError unless what is there is what would be built."""
    blocks = self.as_data_source(split='molecules')
    place = -1
    for place, (_, example) in enumerate(self._generate_examples()):
      found = blocks[place] if place < len(blocks) else {}
      if not all(np.array_equal(found.get(k), example[k]) for k in example):
        raise _cache.DamagedError(
          f'{self.data_path} is of other molecules than its raw files: block '
          f'{place} differs'
        )
    if place + 1 != len(blocks):
      raise _cache.DamagedError(
        f'{self.data_path} has {len(blocks)} blocks, not {place + 1}'
      )


def _of_tfds(
  folder: pathlib.Path, root: os.PathLike[str]
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
  """Blocks of the molecules of tfds's own builder."""
  try:
    source = _sources.find_tfds('qm9/original', 'train', root)
  except FileNotFoundError as error:
    raise FileNotFoundError(
      f'{folder} does not have the raw files of QM9, and {error} Or: '
      f'{_MANUAL}{_FETCH} --data-dir {root}'
    ) from error
  for start in range(0, len(source), BLOCK):
    rows = [source[i] for i in range(start, min(start + BLOCK, len(source)))]
    targets = np.array(
      [[row[name] for name in raw.TFDS.values()] for row in rows], np.float64
    )
    energies = [name in raw.ENERGIES for name in raw.TFDS]
    targets[:, energies] *= raw.HARTREE
    index = np.array([row['index'] for row in rows], np.int32)
    yield (
      int(index[-1]),
      {
        'index': index,
        'numbers': np.array([row['charges'] for row in rows], np.uint8),
        'positions': np.array([row['positions'] for row in rows], np.float32),
        'targets': targets.astype(np.float32),
      },
    )


def prepare_qm9(
  *,
  data_dir: str | os.PathLike[str] | None = None,
  progress: Callable[[str], object] | None = None,
) -> Qm9Molecules:
  """Builds the data set unless it is there already.

  Args:
    data_dir: the tfds directory; None is that of tfds
      (``$TFDS_DATA_DIR``, else ``~/tensorflow_datasets``).
    progress: called with a line of text before anything slow is done.

  Returns:
    The builder; ``builder.as_data_source(split='molecules')`` reads.

  Raises:
    FileNotFoundError: if the raw files are not in ``manual_dir``, nor is tfds's
      own ``qm9`` prepared.
    ValueError: if a raw file is not in the raw format.
  """
  return _prepare.prepare(
    lambda root: Qm9Molecules(data_dir=root),
    data_dir,
    ('molecules',),
    progress,
    compare=Qm9Molecules.compare,
  )


def load_qm9(
  *,
  splits: Sequence[str] = SPLITS,
  seed: int = 0,
  data_dir: str | os.PathLike[str] | None = None,
  progress: Callable[[str], object] | None = None,
) -> dict[str, dict[str, np.ndarray]]:
  """Reads `Qm9Molecules` into memory, building it if need be, and splits it.

  The order is ``numpy.random.RandomState(seed).permutation``: its first 10,000
  molecules are the test split, the next 10,000 validation, the other 110,831
  train. (Of a data set of another size, the same shares.) The papers draw
  another split for every seed.

  Args:
    splits: those that are wanted.
    seed: of the order.
    data_dir: the tfds directory; None is that of tfds.
    progress: called with a line of text before anything slow is done.

  Returns:
    By split: ``index`` (N,) int32; ``numbers`` (N, 29) uint8, 0 where there is
    no atom; ``positions`` (N, 29, 3) float32, in Angstrom; and each task of
    `QM9_TASKS`, (N,) float32, in its unit.

  Raises:
    ValueError: if a split is unknown, the seed is none, or a raw file is not in
      the raw format.
    FileNotFoundError: if the raw files are not in ``manual_dir``, nor is tfds's
      own ``qm9`` prepared.
  """
  for split in splits:
    _validate.one_of('splits', split, SPLITS)
  _validate.integer('seed', seed, 0)
  builder = prepare_qm9(data_dir=data_dir, progress=progress)
  source = builder.as_data_source(split='molecules')
  blocks = [source[i] for i in range(len(source))]
  rows = {
    name: np.concatenate([block[name] for block in blocks])
    for name in ('index', 'numbers', 'positions', 'targets')
  }
  size = len(rows['index'])
  if progress and size != raw.NUM_MOLECULES:
    progress(f'This QM9 has {size} molecules, not {raw.NUM_MOLECULES}.')
  targets = rows.pop('targets')
  rows |= {name: targets[:, k] for k, name in enumerate(raw.COLUMNS)}
  order = np.random.RandomState(seed).permutation(size)
  out = round(size * _HELD_OUT / raw.NUM_MOLECULES)
  parts = {
    'test': order[:out],
    'validation': order[out : 2 * out],
    'train': order[2 * out :],
  }
  return {
    split: {name: x[parts[split]] for name, x in rows.items()}
    for split in splits
  }


def qm9_atom_counts(numbers: np.ndarray) -> np.ndarray:
  """How many atoms of H, C, N, O and F molecules have.

  Args:
    numbers: atomic numbers, shape ``(N, A)``, 0 where there is no atom.

  Returns:
    The counts, shape ``(N, 5)``.

  Example:
    >>> qm9_atom_counts(np.array([[6, 1, 1, 1, 1], [8, 1, 1, 0, 0]]))
    array([[4, 1, 0, 0, 0],
           [2, 0, 0, 1, 0]])
  """
  return raw.counts(numbers)

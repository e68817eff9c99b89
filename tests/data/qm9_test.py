"""QM9 from a handful of molecules in its raw format, and from the real one."""

import pathlib

import numpy as np
import pytest
import qm9_rows
import tensorflow_datasets as tfds

from mtljax import data
from mtljax.data import _cache
from mtljax.data import _qm9_raw as raw

COUNT = 300
PREPARED = pathlib.Path(tfds.core.constants.DATA_DIR, 'qm9_molecules')

# Of all 130,831 molecules, in the units and the order of the papers.
MEANS = (
  *(2.67295, 75.28119, -6.53645, 0.32204, 1189.41064, 4.05694),
  *(-76.11609, -76.58057, -77.01834, -70.83674, 31.62036),
)
DEVIATIONS = (
  *(1.50348, 8.17383, 0.59774, 1.27486, 280.47816, 0.90172),
  *(10.32375, 10.41517, 10.48927, 9.49834, 4.06758),
)


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  """A tfds directory with a small data set, and the rows it was made of."""
  folder = tmp_path_factory.mktemp('qm9')
  rows = qm9_rows.write_raw(folder, raw.FILES, COUNT)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(data.qm9, 'BLOCK', 70)
    data.prepare_qm9(data_dir=folder)
  return folder, rows


def whole(splits):
  """All splits as one, in the order of the numbers in QM9."""
  joined = {
    name: np.concatenate([arrays[name] for arrays in splits.values()])
    for name in splits['train']
  }
  order = np.argsort(joined['index'])
  return {name: x[order] for name, x in joined.items()}


def test_the_pinned_numbers_are_those_of_the_papers():
  assert sum(raw.MOLECULES.values()) == raw.NUM_MOLECULES == 133_885 - 3_054
  assert tuple(data.QM9_TASKS) == (
    *('mu', 'alpha', 'homo', 'lumo', 'r2', 'zpve'),
    *('u0', 'u', 'h', 'g', 'cv'),
  )
  in_ev = [name for name, unit in data.QM9_TASKS.items() if unit == 'eV']
  assert in_ev == list(raw.ENERGIES)


def test_methane_in_the_units_of_the_papers(built):
  found = whole(data.load_qm9(data_dir=built[0]))
  targets = [found[name][0] for name in data.QM9_TASKS]
  np.testing.assert_allclose(targets, qm9_rows.METHANE_TARGETS, atol=1e-5)
  np.testing.assert_array_equal(found['numbers'][0, :6], [6, 1, 1, 1, 1, 0])
  expected = [-0.5238136345, 1.4379326443, 0.9063972942]
  np.testing.assert_allclose(found['positions'][0, 4], expected, rtol=1e-6)
  assert not found['positions'][0, 5:].any()


def test_atomization_leaves_the_bonds_in_float64():
  """By hand: ammonia is one nitrogen and three hydrogens."""
  row = dict(zip(qm9_rows.HEADER, qm9_rows.AMMONIA, strict=True))
  values = np.array([[float(row[c]) for c in raw.COLUMNS.values()]])
  numbers = np.array([[7, 1, 1, 1, 0]])
  found = raw.convert(values, numbers)[0]
  place = list(raw.COLUMNS).index('g')
  expected = -56.544961 * 27.211386246 + 1485.71166277 + 3 * 13.90303183
  assert found[place] == pytest.approx(expected, abs=1e-9)
  assert found[0] == 1.6256 and found[-1] == 6.316
  assert found[3] == pytest.approx(0.0829 * 27.211386246, abs=1e-12)


def test_molecules_are_those_of_the_files(built):
  folder, rows = built
  found = whole(data.load_qm9(data_dir=folder))
  assert [str(i) for i in found['index']] == [row[1] for row in rows]
  assert [str(n) for n in (found['numbers'] > 0).sum(1)] == [r[3] for r in rows]
  np.testing.assert_allclose(found['cv'], [float(r[-1]) for r in rows])
  assert found['positions'].dtype == found['cv'].dtype == np.float32
  assert found['numbers'].shape == (COUNT, 29)


def test_splits_are_the_shares_of_a_permutation(built):
  splits = data.load_qm9(data_dir=built[0])
  order = np.random.RandomState(0).permutation(COUNT)
  out = round(COUNT * 10_000 / 130_831)
  index = whole(splits)['index']
  np.testing.assert_array_equal(splits['test']['index'], index[order[:out]])
  np.testing.assert_array_equal(
    splits['validation']['index'], index[order[out : 2 * out]]
  )
  np.testing.assert_array_equal(
    splits['train']['index'], index[order[2 * out :]]
  )
  other = data.load_qm9(data_dir=built[0], seed=1)
  assert (other['test']['index'] != splits['test']['index']).any()


def test_bad_arguments_are_named(built):
  with pytest.raises(ValueError, match="splits='tset'"):
    data.load_qm9(splits=('tset',), data_dir=built[0])
  with pytest.raises(ValueError, match='seed=-1'):
    data.load_qm9(seed=-1, data_dir=built[0])


def test_missing_files_say_what_to_do(tmp_path):
  command = f'mtljax.data.fetch qm9 --data-dir {tmp_path}'
  with pytest.raises(FileNotFoundError, match=command):
    data.prepare_qm9(data_dir=tmp_path)
  qm9_rows.write_raw(tmp_path, raw.FILES[:2], 10)
  with pytest.raises(FileNotFoundError, match=command):
    data.prepare_qm9(data_dir=tmp_path)


def changed(place, text):
  row = list(qm9_rows.METHANE)
  row[qm9_rows.HEADER.index(place)] = text
  return row


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    (changed('N_atoms', '30'), 'has 30 atoms, not 1 to 29'),
    (changed('N_atoms', '4'), '9 elements and 27 coordinates for 8 atoms'),
    (
      changed('XYZ_Ang', '[[0.,0.,0.]]'),
      '9 elements and 15 coordinates for 9 atoms',
    ),
    (changed('Elements', "['C','H','H','H','P']"), "'P' is no element"),
    (changed('HOMO_au', 'low'), "'low'"),
    (list(qm9_rows.METHANE)[:-1], 'a row has 17 columns, not 18'),
  ],
)
def test_a_wrong_row_is_named(tmp_path, row, message):
  path = tmp_path / 'qm9_part1.csv.gz'
  qm9_rows.write_rows(path, [qm9_rows.AMMONIA, row])
  with pytest.raises(ValueError, match=f'(?s)molecules 1 to 2: .*{message}'):
    list(raw.read(path, 10))


def test_another_file_in_the_place_is_named(tmp_path):
  path = tmp_path / 'qm9_part1.csv.gz'
  qm9_rows.write_rows(path, [], header=qm9_rows.HEADER[:5])
  with pytest.raises(ValueError, match='no column XYZ_Ang'):
    list(raw.read(path, 10))
  qm9_rows.write_rows(path, [qm9_rows.METHANE])
  path.write_bytes(path.read_bytes()[:-9])
  with pytest.raises(ValueError, match='is damaged'):
    list(raw.read(path, 10))


def test_files_in_each_others_place_are_named(tmp_path):
  qm9_rows.write_raw(tmp_path, raw.FILES, 30)
  folder = tmp_path / 'downloads' / 'manual'
  one, two = (folder / f'{name}.gz' for name in raw.FILES[:2])
  one.rename(folder / 'x')
  two.rename(one)
  (folder / 'x').rename(two)
  with pytest.raises(ValueError, match='is not where it belongs: molecule 1 '):
    data.prepare_qm9(data_dir=tmp_path)


def test_a_folder_of_other_molecules_is_built_again(tmp_path):
  qm9_rows.write_raw(tmp_path, raw.FILES, 30)
  builder = data.prepare_qm9(data_dir=tmp_path)
  (builder.data_path / _cache.MANIFEST).unlink()
  rows = qm9_rows.write_raw(tmp_path, raw.FILES, 20)
  said = []
  found = data.load_qm9(data_dir=tmp_path, progress=said.append)
  assert len(whole(found)['index']) == len(rows) == 20
  assert any('is of other molecules than its raw files' in x for x in said)
  assert said[-1] == 'This QM9 has 20 molecules, not 130831.'


def test_molecules_of_the_builder_of_tfds(tmp_path, monkeypatch):
  """By its own features, files and names, on two molecules."""
  builder = tfds.builder(
    'qm9/original', data_dir=tmp_path, file_format='array_record'
  )
  empty = {
    name: np.zeros(feature.shape, feature.np_dtype)
    for name, feature in builder.info.features.items()
    if feature.np_dtype in (np.int64, np.float32) and None not in feature.shape
  }
  texts = dict.fromkeys(
    ('tag', 'SMILES', 'SMILES_relaxed', 'InChI', 'InChI_relaxed'), 'x'
  )
  rows = []
  for k in (1, 2):
    rows.append(
      empty
      | texts
      | {
        'frequencies': np.ones(3, np.float32),
        'index': k,
        'num_atoms': 2,
        'charges': np.array([8, 1] + [0] * 27),
        'positions': np.full((29, 3), k, np.float32),
        'homo': -0.5 * k,
        'U0': -100.0,
        'U0_atomization': -0.25 * k,
        'H_atomization': -0.125,
        'Cv': 6.0 + k,
        'mu': 1.5,
      }
    )
  monkeypatch.setattr(
    type(builder),
    '_split_generators',
    lambda self, manager: {'train': iter(enumerate(rows))},
  )
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(
      compute_stats=tfds.download.ComputeStatsMode.SKIP
    )
  )
  found = whole(data.load_qm9(data_dir=tmp_path))
  np.testing.assert_array_equal(found['index'], [1, 2])
  np.testing.assert_allclose(found['u0'], [-0.25 * 27.211386, -0.5 * 27.211386])
  np.testing.assert_allclose(found['homo'], [-13.605693, -27.211386], rtol=1e-6)
  np.testing.assert_allclose(found['h'], -0.125 * 27.211386, rtol=1e-6)
  np.testing.assert_allclose(found['cv'], [7.0, 8.0])
  np.testing.assert_allclose(found['mu'], 1.5)
  np.testing.assert_array_equal(found['numbers'][:, :3], [[8, 1, 0]] * 2)
  assert (found['positions'][1] == 2).all()


def test_tfds_knows_the_builder(built):
  source = tfds.data_source(
    'qm9_molecules', split='molecules', data_dir=built[0]
  )
  assert len(source) == 6  # two blocks a file
  assert source[0]['targets'].shape == (70, 11)


@pytest.mark.skipif(
  not PREPARED.is_dir(), reason='QM9 is not prepared on this machine'
)
def test_moments_of_the_real_molecules():
  found = whole(data.load_qm9())
  targets = np.stack([found[name] for name in data.QM9_TASKS], 1)
  targets = targets.astype(np.float64)
  assert targets.shape == (raw.NUM_MOLECULES, 11)
  np.testing.assert_allclose(targets.mean(0), MEANS, atol=1e-5)
  np.testing.assert_allclose(targets.std(0, ddof=1), DEVIATIONS, atol=1e-5)
  np.testing.assert_allclose(targets[0], qm9_rows.METHANE_TARGETS, atol=1e-5)

"""Census-Income (KDD) from synthetic rows in its raw format."""

import types

import census_rows
import numpy as np
import pytest
import tensorflow_datasets as tfds

from mtljax import data
from mtljax.data import _census_columns as raw

TASKS = tuple(data.CENSUS_TASKS)


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  """A tfds directory with the data set, and the rows that it was made of."""
  folder = tmp_path_factory.mktemp('census')
  rows = census_rows.write_raw(folder, raw.COLUMNS)
  # A value that training has not.
  rows[1][0]['race'] = 'Amer Indian Aleut or Eskimo'
  census_rows.write_rows(
    folder / 'downloads' / 'manual' / 'census-income.test.gz', rows[1]
  )
  data.prepare_census(data_dir=folder)
  return folder, rows


def test_the_columns_are_those_of_the_papers():
  assert len(raw.COLUMNS) == 42 == len(set(raw.COLUMNS))
  assert len(raw.NUMERIC) + len(raw.CATEGORICAL) == 40
  assert raw.COLUMNS[24] == 'instance_weight'
  assert raw.COLUMNS[-1] == 'income'
  assert sum(raw.ROWS.values()) == 299_285


def test_splits_are_the_rows_of_the_files(built):
  folder, (train, test) = built
  found = {
    split: data.load_census(split=split, tasks=TASKS, data_dir=folder)
    for split in ('train', 'validation', 'test')
  }
  assert [len(x['income']) for x in found.values()] == [200, 50, 51]
  education = [row['education'] in raw.COLLEGE for row in train]
  np.testing.assert_array_equal(found['train']['education'], education)
  never = [row['marital_stat'] == 'Never married' for row in train]
  np.testing.assert_array_equal(found['train']['never_married'], never)
  rich = [row['income'] == '50000+.' for row in train]
  np.testing.assert_array_equal(found['train']['income'], rich)
  # Validation and test are the test file, each row once.
  ages = np.sort([float(row['age']) for row in test])
  of_train = np.array([float(row['age']) for row in train])
  both = np.concatenate(
    [found[split]['numeric'][:, 0] for split in ('validation', 'test')]
  )
  again = np.sort(both) * of_train.std() + of_train.mean()
  np.testing.assert_allclose(again, ages, atol=1e-4)


def test_numbers_are_standardised_by_train(built):
  numeric = data.load_census(split='train', data_dir=built[0])['numeric']
  varies = [name != 'capital_losses' for name in raw.NUMERIC]
  np.testing.assert_allclose(numeric.mean(0), 0, atol=1e-6)
  np.testing.assert_allclose(numeric.std(0), varies, atol=1e-6)
  assert numeric.dtype == np.float32


def test_categories_are_places_in_the_vocabulary_of_train(built):
  folder, (train, test) = built
  builder = data.prepare_census(data_dir=folder)
  vocabularies = builder.info.metadata['vocabularies']
  columns = data.census_columns(('income',))
  codes = data.load_census(split='train', tasks=('income',), data_dir=folder)
  for k, name in enumerate(columns):
    values = np.array(vocabularies[name])
    assert list(values) == sorted({row[name] for row in train})
    decoded = values[codes['categorical'][:, k]]
    np.testing.assert_array_equal(decoded, [row[name] for row in train])
  unseen = [
    data.load_census(split=split, data_dir=folder)['categorical'].min()
    for split in ('train', 'validation', 'test')
  ]
  assert test[0]['race'] not in vocabularies['race']
  assert sorted(unseen) == [-1, 0, 0]


def test_columns_of_the_tasks_are_no_inputs(built):
  assert len(data.census_columns(('income',))) == 33
  assert 'marital_stat' not in data.census_columns(('never_married',))
  found = data.load_census(split='test', tasks=TASKS, data_dir=built[0])
  assert found['categorical'].shape == (51, 31)
  two = data.load_census(split='test', data_dir=built[0])
  assert set(two) == {'numeric', 'categorical', 'income', 'never_married'}
  assert two['categorical'].shape == (51, 32)


def test_bad_arguments_are_named(built):
  with pytest.raises(ValueError, match="tasks='incme' .*mean 'income'"):
    data.census_columns(('incme',))
  with pytest.raises(ValueError, match=r'tasks=\(\) is empty'):
    data.census_columns(())
  with pytest.raises(ValueError, match="split='tset'"):
    data.load_census(split='tset', data_dir=built[0])


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    ('1, 2, 3\n', 'line 1: 3 columns'),
    (', '.join(['0'] * 42) + '\n', "the last '0'"),
  ],
)
def test_another_format_is_refused(tmp_path, line, message):
  path = tmp_path / 'census-income.data'
  path.write_text(line)
  with pytest.raises(ValueError, match=message):
    list(raw.read(path))


class Manager(types.SimpleNamespace):
  """A download manager without a manual directory."""

  @property
  def manual_dir(self):
    raise AssertionError('Manual directory does not exist or is empty.')


def test_without_files_uci_is_asked(tmp_path, monkeypatch):
  builder = data.Census(data_dir=tmp_path / 'tfds')
  rows = census_rows.write_raw(tmp_path, raw.COLUMNS, train=5, test=4)
  folder = tmp_path / 'downloads' / 'manual'
  asked = {}

  def download(urls):
    asked.update(urls)
    return {split: raw.find(folder, split) for split in urls}

  monkeypatch.setattr(data.census, '_reach_host', lambda: None)
  with pytest.raises(ValueError, match='has 5 rows, not 199523'):
    builder._split_generators(Manager(download=download))
  assert all(
    url.startswith('https://archive.ics.uci.edu') for url in asked.values()
  )
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(raw, 'ROWS', {'train': 5, 'test': 4})
    splits = builder._split_generators(Manager(download=download))
  sizes = {s: len(next(found)[1]['income']) for s, found in splits.items()}
  assert sizes == {'train': 5, 'validation': 2, 'test': 2}
  assert len(rows[0]) == 5


@pytest.mark.parametrize('where', ['connect', 'download'])
def test_no_network_says_what_to_do(tmp_path, monkeypatch, where):
  builder = data.Census(data_dir=tmp_path)
  asked = []

  def unreachable(*args, **kwargs):
    del args, kwargs
    asked.append(where)
    raise OSError('unreachable')

  def download(urls):
    if where == 'download':
      unreachable()
    asked.append(urls)

  monkeypatch.setattr(data.census.urllib.request, 'getproxies', dict)
  if where == 'connect':
    monkeypatch.setattr(data.census.socket, 'create_connection', unreachable)
  else:
    monkeypatch.setattr(data.census, '_reach_host', lambda: None)
  command = f'mtljax.data.fetch census --data-dir {tmp_path}$'
  with pytest.raises(FileNotFoundError, match=command):
    builder._split_generators(Manager(download=download))
  assert asked == [where]


def test_tfds_knows_the_builder(built):
  source = tfds.data_source('census', split='train', data_dir=built[0])
  assert len(source) == 1  # one block
  assert source[0]['categorical'].shape == (200, 33)


def test_blocks_are_put_together_in_order(tmp_path, monkeypatch):
  monkeypatch.setattr(data.census, 'BLOCK', 7)
  train, _ = census_rows.write_raw(tmp_path, raw.COLUMNS, train=30, test=4)
  found = data.load_census(split='train', data_dir=tmp_path)
  never = [row['marital_stat'] == 'Never married' for row in train]
  np.testing.assert_array_equal(found['never_married'], never)

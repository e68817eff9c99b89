"""Flights from made-up rows in the raw format."""

import datetime as dt
import shutil

import flight_rows
import numpy as np
import pytest

from mtljax import data
from mtljax.data import _flights_columns as raw

SPLITS = ('train', 'validation', 'test')
COUNT = 400


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  folder = tmp_path_factory.mktemp('flights')
  rows = flight_rows.make_rows(COUNT)
  flight_rows.write(folder, rows)
  data.prepare_flights(data_dir=folder)
  return folder, rows


def load(folder, **kwargs):
  return {
    split: data.load_flights(split=split, data_dir=folder, **kwargs)
    for split in SPLITS
  }


def labels_of(rows, name='dep_delay'):
  return [float(row[name].replace('NA', 'nan')) for row in rows]


def test_rows_with_all_labels_are_in_the_order_of_the_docstring(built):
  folder, rows = built
  complete = [row for row in rows if 'NA' not in row.values()]
  assert len(complete) == COUNT - COUNT // 10 - 1
  order = np.random.RandomState(0).permutation(len(complete))
  splits = load(folder)
  sizes = [len(splits[split]['air_time']) for split in SPLITS[::-1]]
  assert sizes[:2] == [len(complete) // 4, len(complete) // 8]
  for name in raw.MINUTES:
    found = np.concatenate([splits[split][name] for split in SPLITS[::-1]])
    wanted = np.array(labels_of(complete, name))[order]
    np.testing.assert_array_equal(found, wanted)


def test_with_cancelled_every_row_is_there_once(built):
  folder, rows = built
  splits = load(folder, tasks=data.FLIGHTS_TASKS)
  whole = {
    name: np.concatenate([x[name] for x in splits.values()])
    for name in data.FLIGHTS_TASKS
  }
  for name in raw.MINUTES:
    np.testing.assert_array_equal(
      np.sort(whole[name]), np.sort(np.float32(labels_of(rows, name)))
    )
  none = np.isnan(whole['dep_delay'])
  np.testing.assert_array_equal(whole['cancelled'], none)
  # One has left and has not arrived as planned.
  assert np.isnan(whole['air_time']).sum() == none.sum() + 1
  assert all(np.isnan(x['air_time']).any() for x in splits.values())
  alone = load(folder)
  for split, arrays in splits.items():
    kept = ~np.isnan(arrays['air_time'])
    for name in ('numeric', 'categorical', 'air_time'):
      np.testing.assert_array_equal(arrays[name][kept], alone[split][name])


def test_inputs_are_those_known_before(built):
  folder, rows = built
  builder = data.prepare_flights(data_dir=folder)
  words = builder.info.metadata['vocabularies']
  assert list(words) == list(raw.CATEGORICAL)
  train = load(folder, tasks=('dep_delay', 'cancelled'))['train']
  assert set(train) == {'numeric', 'categorical', 'dep_delay', 'cancelled'}
  np.testing.assert_allclose(train['numeric'].mean(0), 0, atol=1e-5)
  np.testing.assert_allclose(train['numeric'].std(0), 1, atol=1e-5)
  mean, std = (builder.info.metadata[x]['distance'] for x in ('mean', 'std'))
  miles = np.rint(train['numeric'][:, 0] * std + mean).astype(int)
  for i in range(0, len(miles), 7):
    (row,) = [
      r
      for r in rows
      if int(r['distance']) == miles[i]
      and r['carrier'] == words['carrier'][train['categorical'][i, 0]]
      and r['origin'] == words['origin'][train['categorical'][i, 1]]
      and r['dest'] == words['dest'][train['categorical'][i, 2]]
    ]
    date = dt.date(2013, int(row['month']), int(row['day']))
    found = [
      words[name][code]
      for name, code in zip(
        raw.CATEGORICAL, train['categorical'][i], strict=True
      )
    ]
    assert found[3:] == [
      f'{date.month:02}',
      f'{date.weekday():02}',
      f'{int(row["hour"]):02}',
    ]


def test_a_value_not_trained_on(tmp_path):
  rows = flight_rows.make_rows(COUNT)
  order = np.random.RandomState(0).permutation(359)
  complete = [row for row in rows if 'NA' not in row.values()]
  complete[order[0]]['dest'] = 'ZZZ'  # the first row of test
  flight_rows.write(tmp_path, rows)
  test = data.load_flights(split='test', data_dir=tmp_path)
  assert test['categorical'][0, 2] == -1
  assert (test['categorical'] < 0).sum() == 1


def test_bad_arguments_are_named(built):
  with pytest.raises(ValueError, match="tasks='cancelld' .*mean 'cancelled'"):
    data.load_flights(split='test', tasks=('cancelld',), data_dir=built[0])
  with pytest.raises(ValueError, match=r'tasks=\(\) is empty'):
    data.load_flights(split='test', tasks=(), data_dir=built[0])
  with pytest.raises(ValueError, match="split='tset'"):
    data.load_flights(split='tset', data_dir=built[0])


def test_no_file_says_what_to_do(tmp_path):
  command = f'mtljax.data.fetch flights --data-dir {tmp_path}$'
  with pytest.raises(FileNotFoundError, match=command):
    data.prepare_flights(data_dir=tmp_path)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('a,b\n1,2\n', 'line 1: not the 19 columns'),
    ('', 'line 1: not the 19 columns'),
    (','.join(raw.COLUMNS) + '\n1,2\n', 'line 2: not the 19 columns'),
    (','.join(raw.COLUMNS) + '\n', 'line 1: not the 19 columns'),
    (','.join(raw.COLUMNS) + '\n' + ','.join('x' * 19) + '\n', 'is none'),
  ],
)
def test_another_format_is_refused(tmp_path, text, message):
  path = tmp_path / raw.FILE
  path.write_text(text)
  with pytest.raises(ValueError, match=message):
    raw.read(path)


def test_a_cut_file_is_named(tmp_path):
  path = flight_rows.write(tmp_path, flight_rows.make_rows(30))
  path.write_bytes(path.read_bytes()[:-20])
  with pytest.raises(ValueError, match='is damaged.*--force'):
    raw.read(path)


def test_rows_of_another_file_are_built_again(built, tmp_path):
  """Where the folder says nothing of how it was made."""
  folder = tmp_path / 'copy'
  shutil.copytree(built[0], folder)
  for path in folder.glob('flights/*/*manifest*'):
    path.unlink()
  said = []
  data.prepare_flights(data_dir=folder, progress=said.append)
  assert not said
  rows = flight_rows.make_rows(COUNT)
  rows[0]['air_time'] = '99'
  flight_rows.write(folder, rows)
  for path in folder.glob('flights/*/*manifest*'):
    path.unlink()
  data.prepare_flights(data_dir=folder, progress=said.append)
  assert any('built again' in line for line in said)

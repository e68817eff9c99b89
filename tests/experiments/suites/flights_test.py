"""The suite of flights: its rows, losses, networks and floors."""

import pathlib
import sys

import flight_rows
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds

import mtljax as mtl
from experiments import floors
from experiments.lab.problem import make_problem
from experiments.suites import DataOptions, Widths
from experiments.suites.flights import MINUTES, SUITE, by_carrier
from mtljax import data
from mtljax.data import _flights_columns as raw

SMALL = Widths(hidden_sizes=(3,), head_sizes=(2,), expert_sizes=(3,))
KEY = jax.random.key(0)


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('flights')
  flight_rows.write(folder, flight_rows.make_rows(400))
  data.prepare_flights(data_dir=folder)
  return folder


def test_missing_labels_count_for_nothing(data_dir):
  """Loss and gradient are those of the rows that have the label."""
  found = SUITE.read(DataOptions(dir=data_dir), 16, print)
  problem = make_problem(SUITE, found, SUITE.networks['multi_mlp'], SMALL)
  params, state = problem.init(KEY)
  params = jax.tree.map(lambda p: p + 0.1, params)
  rows = {k: x[:90] for k, x in found.splits['train'].items()}
  missing = np.isnan(rows['dep_delay'])
  assert 0 < missing.sum() < 30
  known = {k: x[~missing] for k, x in rows.items()}
  fun = jax.jit(
    mtl.value_and_task_grads(problem.loss, labels=problem.labels, has_aux=True)
  )
  (losses, _), grads = fun(params, rows, state, None)
  (some, _), wanted = fun(params, known, state, None)
  assert np.isfinite(losses).all()
  np.testing.assert_allclose(losses[0], some[0], rtol=1e-4)
  assert losses[3] != some[3]
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a[0], b[0], rtol=1e-3, atol=0.1),
    grads['trunk'],
    wanted['trunk'],
  )
  none = {**rows, 'dep_delay': np.full(90, np.nan, np.float32)}
  (losses, _), grads = fun(params, none, state, None)
  assert losses[0] == 0
  assert all(not g[0].any() for g in jax.tree.leaves(grads['trunk']))


def test_errors_are_over_the_known(data_dir):
  found = SUITE.read(DataOptions(dir=data_dir), 16, print)
  task = SUITE.tasks[0]
  labels = jnp.asarray(found.splits['test']['dep_delay'])
  assert jnp.isnan(labels).any()
  batch = {'dep_delay': labels, 'mask': jnp.ones(len(labels), bool)}
  known = np.asarray(labels)[~np.isnan(labels)]
  made = task.measure(jnp.full((len(labels), 1), 10.0), batch)
  wanted = np.abs(known - 10).mean()
  np.testing.assert_allclose(made['mae/dep_delay'].compute(), wanted, rtol=1e-5)
  np.testing.assert_allclose(
    made['loss/dep_delay'].compute(), ((known - 10) ** 2).mean(), rtol=1e-5
  )
  r2 = 1 - ((known - 10) ** 2).mean() / known.var()
  np.testing.assert_allclose(made['r2/dep_delay'].compute(), r2, atol=1e-4)


def test_minutes_are_as_they_are_unless_asked(data_dir):
  suite = SUITE.with_tasks(MINUTES)
  plain = suite.read(DataOptions(dir=data_dir), 16, print).splits
  scaled = suite.read(
    DataOptions(dir=data_dir, source='standardised'), 16, print
  ).splits
  assert not np.isnan(plain['train']['air_time']).any()
  for name in MINUTES:
    train = plain['train'][name]
    for split in plain:
      wanted = (plain[split][name] - train.mean()) / train.std()
      np.testing.assert_allclose(scaled[split][name], wanted, atol=1e-4)


@pytest.mark.parametrize('name', SUITE.networks)
def test_networks_read_the_embedded_columns(data_dir, name):
  found = SUITE.read(DataOptions(dir=data_dir), 16, print)
  problem = make_problem(SUITE, found, SUITE.networks[name], SMALL)
  params, state = jax.eval_shape(problem.init, KEY)
  assert params['trunk']['encoder']['table'].shape == (163, 8)
  if name != 'multi_mlp':
    experts = [
      x.shape[-1]
      for path, x in jax.tree_util.tree_leaves_with_path(params['trunk'])
      if path[-1].key == 'kernel' and x.ndim == 3
    ]
    assert set(experts) == {3}
  batch = {k: jnp.asarray(x[:4]) for k, x in found.splits['test'].items()}
  outputs = jax.eval_shape(
    problem.model.apply, params, state, found.inputs(batch)
  )
  assert [y.shape for y in outputs] == [(4, 1)] * 4


def test_floors_from_the_command_line(data_dir, monkeypatch, capsys):
  """Made-up air times follow from the distance alone."""
  command = ['floors', '--data.dir', str(data_dir), '--suite']
  monkeypatch.setattr(sys, 'argv', [*command, 'flights'])
  floors.main()
  lines = capsys.readouterr().out.splitlines()
  (line,) = [x for x in lines if 'mae air_time' in x]
  mean, least = (float(x) for x in line.split()[-2:])
  assert least < 0.5 < 50 < mean
  monkeypatch.setattr(sys, 'argv', [*command, 'census'])
  with pytest.raises(SystemExit, match="--suite='census' has no floors"):
    floors.main()


def real_data():
  """The tfds directory of this machine, if the raw flights are there."""
  folder = pathlib.Path(tfds.core.constants.DATA_DIR).expanduser()
  return folder if raw.find(folder / 'downloads' / 'manual') else None


@pytest.mark.slow
@pytest.mark.skipif(
  real_data() is None, reason='python -m mtljax.data.fetch flights'
)
def test_floors_of_the_real_rows():
  suite = SUITE.with_tasks(MINUTES)
  found = suite.floors(suite.read(DataOptions(dir=real_data()), 1, print))
  digits = {'mae': 3, 'r2': 4}
  wanted = {
    'mean': {'mae': (23.443, 28.185, 72.784), 'r2': (0, 0, 0)},
    'least squares': {
      'mae': (21.824, 27.067, 7.753),
      'r2': (0.0619, 0.0655, 0.9875),
    },
  }
  for predictor, metrics in wanted.items():
    for metric, values in metrics.items():
      for name, value in zip(MINUTES, values, strict=True):
        got = found[predictor][f'{metric}/{name}']
        assert round(got, digits[metric]) == value, (predictor, metric, name)


def test_the_default_tasks_are_the_three_in_minutes():
  assert SUITE.default_tasks == MINUTES
  assert SUITE.task_names == data.FLIGHTS_TASKS


def test_flights_by_carrier(data_dir):
  found = by_carrier(DataOptions(dir=data_dir), print)
  table = raw.read(raw.find(data_dir / 'downloads' / 'manual'))
  kept = ~np.isnan(table['arr_delay'])
  assert found.names == ('AA', 'B6', 'UA') and len(found.owner) == kept.sum()
  late = np.minimum(table['arr_delay'][kept], 120)
  for task, name in enumerate(found.names):
    own = found.labels[found.owner == task]
    expected = late[table['carrier'][kept] == name]
    np.testing.assert_array_equal(np.sort(own), np.sort(expected))
    np.testing.assert_allclose(found.deviation[task], expected.std(), rtol=1e-5)
  # Ones for three origins, twelve months and seven weekdays.
  assert found.features.shape == (kept.sum(), 24)
  ones = np.split(found.features[:, 2:], [3, 15], 1)
  assert all((x.sum(1) == 1).all() for x in ones)
  months = np.bincount(table['month'][kept].astype(int), minlength=13)[1:]
  np.testing.assert_array_equal(ones[1].sum(0), months)

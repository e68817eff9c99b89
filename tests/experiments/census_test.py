"""The study of Census-Income from the command line, on synthetic rows."""

import csv
import dataclasses
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys

import census_rows
import here
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import census
from experiments.lab import comparison
from experiments.lab.problem import make_problem
from experiments.suites import DataOptions, Widths
from experiments.suites.census import SUITE
from mtljax import data
from mtljax.data import _census_columns as raw

SMALL = (
  '--batch-size 16 --epochs 2 --hidden-sizes 8 --head-sizes 4 --seeds 2 '
  '--log-every 4 --no-progress --no-tensorboard'
).split()


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('census')
  census_rows.write_raw(folder, raw.COLUMNS)
  data.prepare_census(data_dir=folder)
  return folder


def options(out, data_dir, *args):
  return '--out', out, '--data.dir', data_dir, *SMALL, *args


def call(*args):
  command = [sys.executable, '-m', 'experiments.census', *options(*args)]
  return subprocess.run(
    [str(part) for part in command],
    capture_output=True,
    text=True,
    cwd=pathlib.Path(__file__).parents[2],
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    timeout=300,
    check=False,
  )


def rows_of(out):
  with (out / 'results.csv').open() as file:
    return list(csv.DictReader(file))


@pytest.fixture(scope='module')
def finished(tmp_path_factory, data_dir):
  out = tmp_path_factory.mktemp('census-run') / 'out'
  found = call(out, data_dir, '--methods', 'cagrad')
  assert found.returncode == 0, found.stderr[-2000:]
  return out, found.stdout


def test_everything_is_written(finished):
  out, text = finished
  assert [(r['method'], r['seed'], r['status']) for r in rows_of(out)] == [
    (method, seed, 'ok')
    for method in ('single_income', 'single_never_married', 'cagrad')
    for seed in ('0', '1')
  ]
  summary = json.loads((out / 'summary.json').read_text())
  chosen = [m['name'] for m in summary['metrics'] if m['in_delta_m']]
  assert chosen == ['auc/income', 'auc/never_married']
  assert 'accuracy/income' in summary['methods']['cagrad']['metrics']
  assert summary['methods']['cagrad']['delta_m_tasks'] is not None
  assert '<svg' in (out / 'report.html').read_text()
  for word in ('cagrad', 'single_income', 'auc'):
    assert word in text


def test_published_rows_stand_beside_ours(finished):
  summary = json.loads((finished[0] / 'summary.json').read_text())
  rows = {(r['kind'], r['name']): r for r in summary['beside']['rows']}
  assert ('method', 'cagrad') in rows
  found = rows['published', 'MMoE, PaddleRec']
  assert found['metrics'] == {
    'auc/income': 0.94465,
    'auc/never_married': 0.99324,
  }
  # Against the shared bottom: (0.01345 / 0.9312 + 0.00068 / 0.99256) / 2.
  assert found['delta_m'] == pytest.approx(-0.75645, abs=1e-4)
  page = (finished[0] / 'report.html').read_text()
  assert 'PLE, IJANMC (published)' in page


def test_finished_runs_are_not_run_again(finished, data_dir, tmp_path, capsys):
  out = tmp_path / 'copy'
  shutil.copytree(finished[0], out)
  before = {p: p.stat().st_mtime_ns for p in out.glob('runs/**/metrics.jsonl')}
  args = options(out, data_dir, '--methods', 'cagrad')
  found = here.call(capsys, census.main, *args)
  assert found.returncode == 0, found.stderr[-2000:]
  assert ', seed' not in found.stdout
  assert before == {p: p.stat().st_mtime_ns for p in before}
  assert rows_of(out) == rows_of(finished[0])


def test_a_bad_option_gets_one_sentence(data_dir, tmp_path, capsys):
  args = ('--tasks', 'incme', 'education')
  args = options(tmp_path / 'out', data_dir, *args)
  found = here.call(capsys, census.main, *args)
  assert found.returncode == 1
  assert "Did you mean 'income'?" in found.stderr
  assert 'Traceback' not in found.stderr
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'tasks': ('income', 'income')}, 'must be different tasks'),
    ({'weights': (1.0,)}, 'must be 2 numbers, one a task'),
    ({'weights': (math.nan, 1.0)}, '--weights=nan'),
    ({'weights': (1.0, -1.0)}, '--weights=-1.0'),
    ({'scores': (0.0, 1.0)}, '--scores=0.0'),
    ({'hidden_sizes': ()}, '--hidden-sizes is empty'),
    ({'hidden_sizes': (0,)}, '--hidden-sizes=0'),
    ({'head_sizes': (-1,)}, '--head-sizes=-1'),
    ({'expert_sizes': (0,)}, '--expert-sizes=0'),
    ({'methods': ('cagrd',)}, "Did you mean 'cagrad'?"),
    ({'data': DataOptions(num_train=0)}, '--data.num-train=0'),
  ],
)
def test_options_are_checked(changes, message):
  with pytest.raises(ValueError, match=message.replace('?', r'\?')):
    config = comparison.complete(comparison.configs(SUITE)['quick'], SUITE)
    comparison.check(dataclasses.replace(config, **changes), SUITE)


def test_inputs_are_numbers_then_categories_one_hot(data_dir):
  suite = SUITE.with_tasks(('income', 'education'))
  rows = suite.read(DataOptions(dir=data_dir), 16, print)
  train = rows.splits['train']
  inputs = rows.inputs({name: jnp.asarray(x[:9]) for name, x in train.items()})
  places = [
    (column, value)
    for column, values in enumerate(train['categorical'].T)
    for value in np.unique(values)
  ]
  column, value = np.array(places).T
  assert inputs.shape == (9, 7 + len(places))
  np.testing.assert_array_equal(inputs[:, :7], train['numeric'][:9])
  one_hot = np.asarray(inputs[:, 7:])
  # 33 columns without that of education, each one value a row.
  np.testing.assert_array_equal(one_hot.sum(1), np.full(9, 32))
  for i in range(9):
    on = np.flatnonzero(one_hot[i])
    np.testing.assert_array_equal(column[on], np.arange(32))
    np.testing.assert_array_equal(value[on], train['categorical'][i])
  unseen = {'numeric': jnp.zeros((1, 7)), 'categorical': jnp.full((1, 32), -1)}
  assert not rows.inputs(unseen).any()


@pytest.mark.parametrize('name', ['mmoe', 'cgc', 'ple', 'dselect_k'])
def test_networks_of_experts(data_dir, name):
  """Four units an expert and eight a tower, unless an option says otherwise."""
  suite = SUITE.with_tasks(('income', 'never_married'))
  found = suite.read(DataOptions(dir=data_dir), 16, print)
  for widths, units in (
    (Widths(), (4, 8)),
    (Widths(expert_sizes=(3,), head_sizes=(5,)), (3, 5)),
  ):
    problem = make_problem(suite, found, suite.networks[name], widths)
    params, _ = jax.eval_shape(problem.init, jax.random.key(0))
    shapes = {
      jax.tree_util.keystr(path, simple=True, separator='/'): x.shape
      for path, x in jax.tree_util.tree_leaves_with_path(params)
    }
    experts = [x[-1] for x in shapes.values() if len(x) == 3]
    towers = [
      x for path, x in shapes.items() if path.endswith('tower/fc1/bias')
    ]
    assert set(experts) == {units[0]}
    assert towers == [(units[1],)] * 2


def test_more_rows_a_step_than_there_are(data_dir):
  config = DataOptions(dir=data_dir, num_train=20)
  with pytest.raises(ValueError, match='--batch-size=32 is more than the 20'):
    SUITE.with_tasks(('income',)).read(config, 32, print)

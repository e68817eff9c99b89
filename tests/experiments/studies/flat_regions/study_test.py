"""The study from the command line: whole, interrupted, and misused."""

import csv
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import census_rows
import here
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console

from experiments.lab import presets
from experiments.lab import study as lab_study
from experiments.studies.flat_regions import config as configs
from experiments.studies.flat_regions import data
from experiments.studies.flat_regions import grid as grids
from experiments.studies.flat_regions import study as program
from experiments.studies.flat_regions.config import (
  FlatRegionsConfig,
  presets_of,
)
from experiments.suites import Data, DataOptions, find
from mtljax.data import _census_columns

SMALL = (
  '--methods cagrad --forms plain flat --no-single-task --low-resource 0.5 '
  '--noisy --sweep-methods --seeds 2 --epochs 2 --hidden-sizes 16 '
  '--data.num-train 128 --data.num-validation 64 --data.num-test 64 '
  '--batch-size 32 --probe-batches 2 --cost-rounds 2 --no-progress'
).split()
CELLS = ['cagrad', 'flat_cagrad']
PRESETS = presets_of('digits')
DIGITS = find('digits')
RIGHT = DIGITS.tasks[1]
CELLS += [f'low_resource_0.5.{name}' for name in CELLS]


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('data')


def options(out, data_dir, *args):
  return '--out', out, '--data.dir', data_dir, *SMALL, *args


def start(*args):
  command = [sys.executable, '-m', 'experiments.flat_regions', *options(*args)]
  return subprocess.Popen(
    [str(part) for part in command],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=pathlib.Path(__file__).parents[4],
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )


def call(*args):
  process = start(*args)
  out, err = process.communicate(timeout=300)
  return process.returncode, out, err


def results(folder):
  with (folder / 'results.csv').open() as file:
    rows = list(csv.DictReader(file))
  for row in rows:
    for name in ('wall_time', 'steps_per_second', 'resumed_from'):
      row.pop(name, None)
  return rows


@pytest.fixture(scope='module')
def killed(tmp_path_factory, data_dir):
  """A study that was killed and then went on, and what it printed."""
  out = tmp_path_factory.mktemp('study') / 'out'
  process = start(out, data_dir)
  sign = out / 'runs' / 'flat_cagrad' / 'seed_0' / 'checkpoints'
  deadline = time.time() + 200
  while not list(sign.glob('*.json')) and time.time() < deadline:
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  first = out / 'runs' / 'cagrad' / 'seed_0'
  before = (first / 'result.json').read_bytes()
  assert not (out / 'report.html').exists()
  code, text, err = call(out, data_dir)
  assert code == 0, err[-2000:]
  assert (first / 'result.json').read_bytes() == before
  assert '] cagrad, seed 0' not in text
  assert '] cagrad, seed 1' not in text
  assert '] flat_cagrad, seed 1' in text
  return out, text


def test_everything_is_written(killed):
  out, text = killed
  rows = results(out)
  assert [(r['method'], r['seed']) for r in rows] == [
    (cell, seed) for cell in CELLS for seed in ('0', '1')
  ]
  assert {r['status'] for r in rows} == {'ok'}
  assert [r['form'] for r in rows] == ['plain', 'plain', 'flat', 'flat'] * 2
  assert {r['rho'] for r in rows if r['form'] == 'flat'} == {'0.05'}
  for name in (
    'test/ece/left',
    'train/sharpness_0.05/right',
    'test/brier/left',
  ):
    assert all(float(r[name]) > 0 for r in rows)
  assert all(0 <= float(r['train/conflict/left,right']) <= 1 for r in rows)
  assert 'claims' in text
  assert 'flat_cagrad' in text


def test_the_page_has_verdicts_tables_and_pictures(killed):
  out, _ = killed
  page = (out / 'report.html').read_text()
  for i in range(1, 11):
    assert re.search(f'<h3>F{i}: (holds|does not hold|undecided)', page)
  assert not re.search(r'https?:|@import|<script ', page)
  for title in (
    'Conflict rate',
    'Loss surfaces',
    'Calibration',
    'Predictive entropy',
    'low-resource, 0.5',
    'quick preset',
  ):
    assert title in page
  ids = re.findall(r'\bid="([^"]*)"', page)
  assert len(ids) == len(set(ids))


def test_two_seeds_decide_nothing_about_accuracy(killed):
  summary = json.loads((killed[0] / 'summary.json').read_text())
  outcomes = {v['claim']: v['outcome'] for v in summary['verdicts']}
  assert outcomes['F1'] == 'undecided at this size'
  lines = {line['cell']: line for line in summary['variants']['main']}
  found = lines['flat_cagrad']['differences']['plain']
  rows = {(r['method'], r['seed']): r for r in results(killed[0])}

  def accuracy(cell, seed):
    return 50 * sum(
      float(rows[cell, seed][f'test/accuracy/{task}'])
      for task in ('left', 'right')
    )

  wanted = [accuracy('flat_cagrad', s) - accuracy('cagrad', s) for s in '01']
  assert found['mean'] == pytest.approx(np.mean(wanted))
  assert found['n'] == 2


def test_bad_option_on_the_command_line(data_dir, tmp_path, capsys):
  args = options(tmp_path / 'out', data_dir, '--rho', '-1')
  code, _, err = here.call(capsys, program.main, *args)
  assert code == 1
  assert '--rho=-1' in err
  assert 'Traceback' not in err
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  'options, message',
  [
    ({'rho': -0.1}, '--rho=-0.1 must be at least 0'),
    ({'sweep_rho': (0.1, -2.0)}, '--sweep-rho=-2.0'),
    ({'methods': ('cagrd',)}, "Did you mean 'cagrad'?"),
    ({'methods': ()}, '--methods is empty'),
    ({'methods': ('modo',)}, "--methods='modo' is not one of"),
    ({'methods': ('famo',)}, 'reads the losses after the update'),
    ({'ablation_methods': ('gramian',)}, "--ablation-methods='gramian'"),
    ({'forms': ('flat',)}, '--forms lacks plain'),
    ({'forms': ('plain', 'flt')}, "Did you mean 'flat'?"),
    ({'ascent': 'adaptve'}, "Did you mean 'adaptive'?"),
    ({'norms': 'one'}, "--norms='one'"),
    ({'corrupted_task': 'middle'}, "--corrupted-task='middle'"),
    ({'low_resource': (0.0,)}, '--low-resource=0.0'),
    ({'noisy': (1.5,)}, '--noisy=1.5'),
    ({'seeds': 0}, '--seeds=0'),
    ({'data': DataOptions(pool=0)}, '--data.pool=0'),
    ({'hidden_sizes': (0,)}, '--hidden-sizes=0'),
    ({'hidden_sizes': ()}, '--hidden-sizes is empty'),
    ({'out_of_data': 'mnits'}, '--out-of-data'),
    ({'suite': 'cenus'}, "Did you mean 'census'?"),
    ({'suite': 'census', 'model': 'resnet'}, "--model='resnet'"),
    ({'suite': 'census', 'out_of_data': 'rotated'}, '--out-of-data'),
    ({'suite': 'census', 'corrupted_task': 'right'}, '--corrupted-task'),
    ({'suite': 'census', 'data': DataOptions(pool=2)}, '--data.pool=2'),
    ({'data': DataOptions(num_train=0)}, '--data.num-train=0'),
  ],
)
def test_bad_options_are_named(options, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    configs.check(dataclasses.replace(FlatRegionsConfig(), **options))


def test_presets_can_be_overridden():
  def parse(*argv):
    return presets.parse(FlatRegionsConfig, PRESETS, prog='x', argv=argv)

  assert parse() == PRESETS['quick']
  found = parse('--preset', 'paper', '--rho', '1.5')
  assert found == dataclasses.replace(PRESETS['paper'], rho=1.5)
  assert (found.model, found.epochs) == ('resnet18', 200)
  with pytest.raises(ValueError, match="--preset='papr'"):
    parse('--preset', 'papr')


@pytest.mark.parametrize('name', PRESETS)
def test_presets_are_valid_and_name_cells_once(name):
  configs.check(PRESETS[name])
  grid = grids.entries(PRESETS[name])
  names = [entry.name for entry in grid]
  assert len(set(names)) == len(names)
  forms = {(e.base, e.form) for e in grid}
  if name == 'adaptive':
    assert forms == {('cagrad', x) for x in ('plain', '2x', 'flat')}
    return
  assert ('mgda', 'direct_matched') in forms
  assert ('mean', 'direct') not in forms  # the same as flat
  assert ('cagrad', 'each') in forms


def digits(labels):
  splits = {
    split: {
      'image': np.zeros((len(labels), 4, 4, 1), np.uint8),
      'left': np.zeros(len(labels), np.int32),
      'right': np.array(labels, np.int32),
    }
    for split in ('train', 'validation', 'test')
  }
  return Data(splits, lambda batch: batch['image'])


def test_few_labels_and_wrong_labels():
  clean = digits(np.arange(1000) % 10)
  few = data.corrupt(clean, 'low_resource_0.1', RIGHT, 0)
  kept = few.splits['train']['right'] != data.MISSING
  assert kept.sum() == 100
  wrong = data.corrupt(clean, 'noisy_0.4', RIGHT, 0)
  before = clean.splits
  assert (
    wrong.splits['train']['right'] != before['train']['right']
  ).sum() == 400
  for changed in (few, wrong):
    found = changed.splits
    assert found['test'] is before['test']
    assert found['train']['left'] is before['train']['left']
    data.check_labels(DIGITS, changed)
  again = data.corrupt(clean, 'noisy_0.4', RIGHT, 0)
  np.testing.assert_array_equal(
    again.splits['train']['right'], wrong.splits['train']['right']
  )


def test_the_study_on_census(tmp_path):
  census_rows.write_raw(tmp_path, _census_columns.COLUMNS)
  config = configs.complete(
    FlatRegionsConfig(
      suite='census',
      data=DataOptions(dir=tmp_path),
      methods=('cagrad',),
      forms=('plain', 'flat'),
      low_resource=(),
      noisy=(0.5,),
      sweep_methods=(),
      seeds=1,
      batch_size=50,
      hidden_sizes=(4,),
    )
  )
  configs.check(config)
  study = program.prepare(config, rich.console.Console(quiet=True))
  assert [cell.method for cell in study.runs] == [
    'single_income',
    'sam_single_income',
    'single_never_married',
    'sam_single_never_married',
    'cagrad',
    'flat_cagrad',
    'noisy_0.5.cagrad',
    'noisy_0.5.flat_cagrad',
  ]
  clean, noisy = study.runs[4], study.runs[6]
  assert clean.tasks == ('income', 'never_married')
  assert clean.num_steps == config.epochs * (200 // 50)
  rows, other_rows = (next(cell.batches_fn()) for cell in (clean, noisy))
  np.testing.assert_array_equal(rows['income'], other_rows['income'])
  assert (rows['never_married'] != other_rows['never_married']).any()
  suite = configs.suite_of(config)
  loss_fn = jax.jit(data.labelled_loss(suite.tasks[0]))
  loss, _ = loss_fn(jnp.array([[1.0], [9.0]]), {'income': jnp.array([0, -1])})
  np.testing.assert_allclose(loss, np.log1p(np.exp(1.0)), rtol=1e-6)
  clean = suite.read(config.data, 50, print)
  test = clean.splits['test']
  shuffled = suite.others['shuffled'](clean, config.data, print)
  assert set(shuffled) == {'numeric', 'categorical'}
  for name, x in shuffled.items():
    np.testing.assert_array_equal(np.sort(x, 0), np.sort(test[name], 0))
    assert (x != test[name]).any()
  probabilities = jax.nn.softmax(
    suite.tasks[0].class_logits(jnp.array([[0.3]]))
  )
  np.testing.assert_allclose(
    probabilities[0, 1], 1 / (1 + np.exp(-0.3)), rtol=1e-6
  )


def test_missing_labels_are_named():
  with pytest.raises(ValueError, match='task right has no labels in the split'):
    data.check_labels(DIGITS, digits([-1, -1]))
  with pytest.raises(ValueError, match='has the label 11 in the split'):
    data.check_labels(DIGITS, digits([1, 11]))


def test_loss_is_over_the_labels_there_are():
  loss_fn = jax.jit(data.labelled_loss(RIGHT))
  logits = jnp.array([[2.0, 0.0], [0.0, 1.0], [5.0, -5.0]])
  found, _ = loss_fn(logits, {'right': jnp.array([0, 1, -1])})
  wanted = jnp.mean(jnp.log1p(jnp.exp(jnp.array([-2.0, -1.0]))))
  np.testing.assert_allclose(found, wanted, rtol=1e-6)
  none, _ = loss_fn(logits, {'right': jnp.array([-1, -1, -1])})
  assert none == 0


def test_learning_rates_are_chosen_for_each_cell(tmp_path, data_dir):
  found = presets.parse(
    FlatRegionsConfig,
    PRESETS,
    argv=[
      str(x)
      for x in options(
        tmp_path,
        data_dir,
        '--low-resource',
        '--learning-rates',
        '1e-8',
        '3e-3',
      )
    ],
    prog='flat',
  )
  found = configs.complete(found)
  quiet = rich.console.Console(quiet=True)
  assert lab_study.run(found, program.prepare(found, quiet), quiet) == 0
  said = json.loads((tmp_path / 'tuning' / 'chosen.json').read_text())
  assert {name: x['rate'] for name, x in said['methods'].items()} == {
    'cagrad': pytest.approx(3.0),
    'flat_cagrad': pytest.approx(3.0),
  }
  spread = {
    row['method']: float(row['validation/score']) for row in results(tmp_path)
  }
  trials = {
    row['method']: float(row['validation/score'])
    for row in results(tmp_path / 'tuning')
  }
  for name, score in spread.items():
    assert trials[f'{name}.trial_0'] < score
  assert 'Learning rates' in (tmp_path / 'report.html').read_text()


def test_learning_rates_that_are_none_are_refused():
  for rates in ((0.0,), (1e-3, 1e-3)):
    config = dataclasses.replace(PRESETS['quick'], learning_rates=rates)
    with pytest.raises(ValueError, match='--learning-rates'):
      configs.check(config)

"""The suite of QM9: labels, units, floors, and a comparison end to end."""

import json
import pathlib

import here
import jax.numpy as jnp
import numpy as np
import pytest
import qm9_rows
import tensorflow_datasets as tfds

from experiments import compare
from experiments.lab import comparison
from experiments.suites import DataOptions, qm9
from experiments.suites.qm9 import SUITE, TASKS
from mtljax import data
from mtljax.data import _qm9_raw as raw

PREPARED = pathlib.Path(tfds.core.constants.DATA_DIR, 'qm9_molecules')
SIZES = {'num_train': 100, 'num_validation': 20, 'num_test': 20}


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('qm9')
  qm9_rows.write_raw(folder, raw.FILES, 300)
  data.prepare_qm9(data_dir=folder)
  return folder


def load(data_dir, **options):
  options = DataOptions(dir=data_dir, **{**SIZES, **options})
  return SUITE.read(options, 8, lambda _: None)


def test_labels_are_scores_by_the_molecules_trained_on(data_dir):
  found = load(data_dir)
  raws = data.load_qm9(data_dir=data_dir)
  assert found.num_examples('train') == 100
  for task in TASKS:
    scores, unit = found.splits['train'][task].T
    assert abs(scores.mean()) < 1e-5
    assert scores.std(ddof=1) == pytest.approx(1, abs=1e-5)
    factor = 1000 if data.QM9_TASKS[task] == 'eV' else 1
    # The label and its unit give back the molecules' differences.
    values = raws['test'][task][:20].astype(np.float64) * factor
    scores, unit = found.splits['test'][task].T
    np.testing.assert_allclose(
      np.diff(scores * unit), np.diff(values), atol=2e-4 * unit[0]
    )


def test_all_batches_have_one_form(data_dir):
  """So a step, or an evaluation, is one program."""
  found = load(data_dir)
  batches = found.batches(16, seed=0)
  train = [next(batches) for _ in range(9)]
  test = data.eval_batches(found.splits['test'], 16)
  shapes = lambda batch: {
    k: (x.shape, x.dtype) for k, x in batch.items() if k != 'mask'
  }
  assert all(shapes(x) == shapes(train[0]) for x in [*train, *test])
  assert shapes(train[0])['numbers'] == ((16, 29), np.uint8)


def test_moments_of_all_molecules_have_a_name(data_dir):
  whole = data.load_qm9(data_dir=data_dir)
  cv = np.concatenate([arrays['cv'] for arrays in whole.values()])
  found = load(data_dir, source='all_moments').splits['test']['cv']
  expected = (whole['test']['cv'][:20] - cv.mean()) / cv.std(ddof=1)
  np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4, atol=1e-5)
  assert found[0, 1] == pytest.approx(cv.std(ddof=1), rel=1e-5)
  with pytest.raises(ValueError, match="mean 'all_moments'"):
    load(data_dir, source='all_moment')


def test_errors_are_in_the_reported_unit():
  labels = jnp.array([[0.5, 200.0], [1.0, 200.0], [9.0, 0.0]])
  outputs = jnp.array([[0.0], [2.0], [0.0]])
  found = qm9.metrics(outputs, labels, jnp.array([True, True, False]))
  assert float(found['mae'].compute()) == pytest.approx(150.0)
  assert float(found['z_mae'].compute()) == pytest.approx(0.75)
  np.testing.assert_allclose(
    qm9.example_losses(outputs, labels), [0.25, 1.0, 81.0]
  )


def test_floors_by_another_way(data_dir):
  """From raw values: normal equations in the unit of the property."""
  found = qm9.floors(load(data_dir))
  whole = data.load_qm9(data_dir=data_dir)
  train = {k: v[:100] for k, v in whole['train'].items()}
  test = {k: v[:20] for k, v in whole['test'].items()}
  kinds = [1, 6, 7, 8, 9]
  design = lambda x: np.array(
    [[*((row == z).sum() for z in kinds), 1.0] for row in x['numbers']]
  )
  a = design(train)
  for task, factor in (('mu', 1), ('u0', 1000)):
    y, target = (x[task].astype(np.float64) for x in (train, test))
    fit = np.linalg.pinv(a.T @ a) @ a.T @ y
    error = np.abs(design(test) @ fit - target).mean()
    row = found['least squares']
    assert row[f'mae/{task}'] == pytest.approx(error * factor, rel=1e-4)
    z = error / y.std(ddof=1)
    assert row[f'z_mae/{task}'] == pytest.approx(z, rel=1e-4)
    error = np.abs(y.mean() - target).mean() * factor
    assert found['mean'][f'mae/{task}'] == pytest.approx(error, rel=1e-4)


def test_published_rows_have_their_published_delta_m():
  rows = qm9.PUBLISHED.rows
  assert list(rows['STL']) == [f'mae/{task}' for task in TASKS]
  printed = {'STL': 0, 'LS': 177.6, 'MGDA': 120.5, 'Nash-MTL': 62.0}
  for method, value in printed.items():
    # The table's rows are rounded.
    assert SUITE.select is not None
    assert -SUITE.select(rows[method]) == pytest.approx(value, abs=0.5)


def test_presets_are_options_of_a_comparison():
  found = comparison.configs(SUITE)
  for config in found.values():
    comparison.check(comparison.complete(config, SUITE), SUITE)
  once = found['one_energy'].tasks
  assert set(TASKS) - set(once) == {'u', 'h', 'g'}
  assert found['paper'].epochs == 300 and found['paper'].batch_size == 120


def test_facts_are_of_the_tasks_at_hand(data_dir):
  suite = SUITE.with_tasks(('mu', 'u0'))
  found = load(data_dir)
  facts = suite.facts(found)
  assert facts['units'] == {
    'mae/mu': 'D',
    'z_mae/mu': 'σ',
    'mae/u0': 'meV',
    'z_mae/u0': 'σ',
  }
  assert set(facts['published']['rows']['LS']) == {'mae/mu', 'mae/u0'}
  assert set(facts['floors']['mean']) == set(facts['units'])
  assert 'floors' not in suite.facts()


def test_a_comparison_end_to_end(data_dir, tmp_path, capsys):
  out = tmp_path / 'out'
  args = ['--suite', 'qm9', '--data.dir', data_dir, '--out', out]
  args += '--tasks mu u0 --methods sum_losses --epochs 2'.split()
  args += '--batch-size 16 --log-every 2 --no-progress --no-tensorboard'.split()
  args += '--data.num-train 64 --data.num-test 20'.split()
  found = here.call(capsys, compare.main, *args)
  assert found.returncode == 0, found.stderr[-2000:]
  summary = json.loads((out / 'summary.json').read_text())
  rows = {(r['kind'], r['name']): r for r in summary['beside']['rows']}
  own = rows['method', 'sum_losses']
  assert own['metrics']['mae/u0'] > 0 and own['delta_m'] > 0
  assert rows['floor', 'least squares']['metrics']['z_mae/mu'] > 0
  page = (out / 'report.html').read_text()
  for text in ('Nash-MTL (published)', 'least squares (floor)', 'mae u0 meV'):
    assert text in page
  assert 'Predicted over true values' in page and 'mu, z-score' in page
  assert 'least squares (floor)' in found.stdout


@pytest.mark.skipif(
  not PREPARED.is_dir(), reason='QM9 is not prepared on this machine'
)
def test_floors_of_the_real_molecules():
  quick = comparison.configs(SUITE)['quick'].data
  found = qm9.floors(SUITE.read(quick, 60, lambda _: None))
  mean_of = lambda row, kind: np.mean([row[f'{kind}/{t}'] for t in TASKS])
  assert mean_of(found['mean'], 'z_mae') == pytest.approx(0.7945, abs=1e-4)
  ols = found['least squares']
  assert mean_of(ols, 'z_mae') == pytest.approx(0.3261, abs=1e-4)
  printed = [1.031, 2.081, 406.03, 761.08, 162.88, 37.201]
  printed += [893.30, 891.71, 891.71, 898.03, 1.693]
  for task, value in zip(TASKS, printed, strict=True):
    assert ols[f'mae/{task}'] == pytest.approx(value, rel=5e-4)
  assert -qm9.select(ols) == pytest.approx(4081.1, abs=0.5)

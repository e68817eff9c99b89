"""The suite of CelebA: tasks, networks, published rows, a comparison."""

import json
import sys

import celeba_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import f1_score

from experiments import compare
from experiments.lab import comparison
from experiments.lab.problem import make_problem
from experiments.suites import DataOptions
from experiments.suites.celeba import PUBLISHED, SUITE, TASKS
from mtljax import metrics


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tfds')
  celeba_files.write(folder, (48, 16, 20))
  return folder


def test_published_delta_m_follows_from_the_rows():
  """FairGrad's 0.37, most of which three rare attributes make."""
  rows = {name: list(row.values()) for name, row in PUBLISHED.rows.items()}
  higher = [True] * 40
  found = metrics.delta_m(rows['FairGrad'], rows['STL'], higher)
  assert float(found) == pytest.approx(0.370, abs=5e-4)
  drops = {
    place: float(
      metrics.delta_m([rows['FairGrad'][place]], [rows['STL'][place]], [True])
    )
    for place in (6, 25, 37)
  }
  wanted = {6: -38.6, 25: 36.5, 37: -19.7}
  assert drops == {k: pytest.approx(x, abs=0.05) for k, x in wanted.items()}
  assert TASKS[6] == 'Big_Lips' and TASKS[37] == 'Wearing_Necklace'
  assert PUBLISHED.means['LS'] == {'delta_m': 4.15}


def test_photographs_enter_as_they_are(data_dir):
  found = SUITE.read(DataOptions(dir=data_dir, num_train=9), 4, print)
  assert [found.num_examples(x) for x in found.splits] == [9, 16, 20]
  images = found.splits['train']['image']
  assert images.shape == (9, 64, 64, 3)
  inputs = found.inputs({'image': images})
  np.testing.assert_allclose(inputs, images / np.float32(255), rtol=1e-6)
  pooled = SUITE.read(DataOptions(dir=data_dir, pool=4), 4, print)
  assert pooled.splits['test']['image'].shape == (20, 16, 16, 3)


def test_the_network_is_the_one_of_the_paper(data_dir):
  found = SUITE.read(DataOptions(dir=data_dir, num_train=4), 4, print)
  problem = make_problem(SUITE, found, SUITE.network('celeba_cnn'))
  assert problem.tasks == TASKS
  assert problem.sharings.num_params == 5_197_160
  assert problem.sharings.num_shared == 5_176_640


def test_scores_are_f1_and_a_state_is_chosen_by_their_mean():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(30, 1)).astype(np.float32)
  labels = rng.integers(0, 2, 30).astype(np.uint8)
  task = SUITE.tasks[0]
  batch = {task.name: jnp.asarray(labels), 'mask': jnp.arange(30) < 25}
  made = task.measure(jnp.asarray(logits), batch)
  guessed = logits[:25, 0] > 0
  wanted = f1_score(labels[:25], guessed)
  np.testing.assert_allclose(made[f'f1/{task.name}'].compute(), wanted, 1e-6)
  np.testing.assert_allclose(
    made[f'accuracy/{task.name}'].compute(), (guessed == labels[:25]).mean()
  )
  rows = PUBLISHED.rows['STL']
  assert SUITE.score_of(rows) == pytest.approx(np.mean(list(rows.values())))
  assert SUITE.facts()['delta_m_metrics'] == [f'f1/{task}' for task in TASKS]


@pytest.mark.parametrize('name', SUITE.networks)
def test_networks_give_a_logit_a_task(data_dir, name):
  found = SUITE.read(DataOptions(dir=data_dir, num_train=4), 4, print)
  problem = make_problem(SUITE, found, SUITE.network(name))
  params, state = jax.eval_shape(problem.init, jax.random.key(0))
  images = jax.ShapeDtypeStruct((4, 64, 64, 3), jnp.float32)
  outputs = jax.eval_shape(problem.model.apply, params, state, images)
  assert [y.shape for y in outputs] == [(4, 1)] * 40


def test_presets_are_options_of_a_comparison():
  found = comparison.configs(SUITE)
  for config in found.values():
    comparison.check(comparison.complete(config, SUITE), SUITE)
  paper = comparison.complete(found['paper'], SUITE)
  assert (paper.model, paper.optimizer) == ('celeba_cnn', 'adam')
  assert (paper.epochs, paper.batch_size) == (15, 256)
  assert (paper.learning_rate, paper.schedule) == (3e-4, 'constant')
  assert paper.data == DataOptions()


def compared(monkeypatch, data_dir, out, options):
  command = ['compare', '--suite', 'celeba', '--data.dir', data_dir]
  command += ['--out', out, '--no-progress', '--no-tensorboard']
  command += options.split()
  monkeypatch.setattr(sys, 'argv', [str(part) for part in command])
  compare.main()
  return json.loads((out / 'summary.json').read_text())


def test_a_comparison_end_to_end(data_dir, tmp_path, monkeypatch):
  """The second attribute is the brightness of green, and is learnt."""
  summary = compared(
    monkeypatch,
    data_dir,
    tmp_path,
    '--tasks 5_o_Clock_Shadow Arched_Eyebrows --methods cagrad '
    '--data.pool 8 --epochs 12 --batch-size 16 --learning-rate 1e-2',
  )
  assert not summary['failures']
  rows = {(r['kind'], r['name']): r for r in summary['beside']['rows']}
  own = rows['method', 'cagrad']['metrics']
  assert own['f1/Arched_Eyebrows'] > 0.7
  assert own['f1/Arched_Eyebrows'] != own['accuracy/Arched_Eyebrows']
  assert rows['published', 'STL']['delta_m'] == 0
  assert ('published', 'LS') not in rows
  assert 'FairGrad (published)' in (tmp_path / 'report.html').read_text()


@pytest.mark.slow
def test_all_forty_beside_what_is_published(data_dir, tmp_path, monkeypatch):
  summary = compared(
    monkeypatch,
    data_dir,
    tmp_path,
    '--methods sum_losses --data.pool 8 --epochs 1 --batch-size 16',
  )
  rows = {(r['kind'], r['name']): r for r in summary['beside']['rows']}
  assert rows['method', 'sum_losses']['delta_m'] is not None
  assert rows['published', 'LS']['delta_m'] == 4.15
  assert rows['published', 'FairGrad']['delta_m'] == pytest.approx(0.37, 1e-3)
  page = (tmp_path / 'report.html').read_text()
  assert 'MGDA (published)' in page and 'f1, mean' in page

"""Office-31 and Office-Home: a task a domain, from folders of small images."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import office_files
import pytest

from experiments import compare
from experiments.lab import comparison
from experiments.lab.problem import make_problem
from experiments.suites import DataOptions, find

QUIET = lambda _: None
COUNTS = {'amazon': 10, 'dslr': 5, 'webcam': 5}


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tfds')
  office_files.write(folder, 'office31', COUNTS)
  office_files.write(folder, 'office_home', 5)
  return folder


@pytest.fixture(scope='module')
def found(data_dir):
  options = DataOptions(dir=data_dir, source='64', pool=4)
  return find('office31').read(options, 12, QUIET)


def test_an_image_has_the_label_of_its_domain_alone(found):
  for split, size in (('train', 372), ('validation', 124), ('test', 124)):
    arrays = found.splits[split]
    labels = np.stack([arrays[task] for task in COUNTS])
    assert labels.shape == (3, size)
    assert (np.sum(labels >= 0, 0) == 1).all()
    red, _, blue = arrays['image'][:, 0, 0].astype(int).T
    np.testing.assert_array_equal(red, 255 * labels.max(0) // 30)
    np.testing.assert_array_equal(blue, 20 + 100 * labels.argmax(0))


def test_every_step_has_as_many_images_of_every_domain(found):
  batches = found.batches(12, seed=0)
  for _ in range(40):
    batch = next(batches)
    assert batch['image'].shape == (12, 16, 16, 3)
    assert [int((batch[task] >= 0).sum()) for task in COUNTS] == [4, 4, 4]
  # 6 of 10 images of 31 classes, 4 a step.
  assert found.steps_per_epoch(12) == 46


def test_a_task_alone_sees_its_own_images_only(found):
  """Batch norm too would see those of the others."""
  batch = next(found.batches(12, seed=0, tasks=('dslr',)))
  assert batch['image'].shape[0] == found.counted(12, ('dslr',)) == 4
  assert (batch['dslr'] >= 0).all()
  assert found.steps_per_epoch(12, ('dslr',)) == 46


def test_a_share_of_every_domain_is_held_out(found):
  kept, apart = found.split_train(0.25, 0)
  for task, count in zip(COUNTS, (186, 93, 93), strict=True):
    sizes = [(x.splits['train'][task] >= 0).sum() for x in (kept, apart)]
    assert sizes == [count - round(count / 4), round(count / 4)]
    assert (next(apart.batches(12, 0))[task] >= 0).sum() == 4


def test_gradients_of_a_task_are_of_its_own_rows(found):
  """Without batch norm the others of a step do not count."""
  suite = find('office31')
  logits = jax.random.normal(jax.random.key(1), (12, 31))
  batch = {k: jnp.asarray(x) for k, x in next(found.batches(12, 0)).items()}
  for place, task in enumerate(suite.tasks):
    own = slice(4 * place, 4 * place + 4)
    loss = lambda x, task=task: task.loss(x, batch)[0]
    value, grad = jax.value_and_grad(loss)(logits)
    chosen = jax.nn.log_softmax(logits[own])[
      jnp.arange(4), batch[task.name][own]
    ]
    np.testing.assert_allclose(value, -chosen.mean(), rtol=1e-5)
    assert (grad[own] != 0).any()
    assert not grad.at[own].set(0).any()
    metrics = task.measure(logits, batch | {'mask': jnp.ones(12, bool)})
    right = logits[own].argmax(-1) == batch[task.name][own]
    np.testing.assert_allclose(
      metrics[f'accuracy/{task.name}'].compute(), right.mean()
    )


def test_images_enter_with_the_moments_of_imagenet(found):
  white = np.full((1, 2, 2, 3), 255, np.uint8)
  wanted = (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
  np.testing.assert_allclose(
    found.inputs({'image': white})[0, 0, 0], wanted, rtol=1e-5
  )


def test_some_of_the_domains(data_dir):
  suite = find('office31').with_tasks(('webcam', 'dslr'))
  options = DataOptions(dir=data_dir, source='64', pool=8)
  some = suite.read(options, 8, QUIET)
  assert set(some.splits['train']) == {'image', 'webcam', 'dslr'}
  assert some.num_examples('train') == 2 * 3 * 31
  batch = next(some.batches(8, seed=0))
  np.testing.assert_array_equal(batch['webcam'] >= 0, [True] * 4 + [False] * 4)
  assert suite.facts()['published']['means'] == {}


@pytest.mark.parametrize('name', ['office31', 'office_home'])
def test_presets_are_options_of_a_comparison(name):
  suite = find(name)
  found = comparison.configs(suite)
  for config in found.values():
    comparison.check(comparison.complete(config, suite), suite)
  paper = comparison.complete(found['paper'], suite)
  assert paper.model == 'office_resnet18'
  assert paper.batch_size == 64 * len(suite.tasks)
  assert (paper.epochs, paper.learning_rate) == (100, 1e-4)
  assert (paper.weight_decay, paper.data) == (1e-5, DataOptions())


def run(monkeypatch, data_dir, out, name, *options):
  command = ['compare', '--suite', name, '--data.dir', data_dir, '--out', out]
  command += ['--no-progress', '--no-tensorboard', '--data.source', '64']
  command += ['--data.pool', '4', '--seeds', '1', '--epochs', '1', *options]
  monkeypatch.setattr(sys, 'argv', [str(part) for part in command])
  compare.main()
  return json.loads((out / 'summary.json').read_text())


def test_a_comparison_end_to_end(data_dir, tmp_path, monkeypatch):
  summary = run(
    monkeypatch,
    data_dir,
    tmp_path,
    'office31',
    *'--methods sum_losses --no-baselines --batch-size 93'.split(),
  )
  assert not summary['failures']
  rows = {(r['kind'], r['name']): r for r in summary['beside']['rows']}
  own = rows['method', 'sum_losses']['metrics']
  assert all(0 <= own[f'accuracy/{task}'] <= 1 for task in COUNTS)
  assert rows['published', 'DB-MTL']['delta_m'] == -1.05
  page = (tmp_path / 'report.html').read_text()
  assert 'DB-MTL (published)' in page and 'accuracy, mean' in page


@pytest.mark.slow
def test_office_home_end_to_end(data_dir, tmp_path, monkeypatch):
  summary = run(
    monkeypatch,
    data_dir,
    tmp_path,
    'office_home',
    *'--methods sum_losses --no-baselines --batch-size 260'.split(),
  )
  rows = {(r['kind'], r['name']): r for r in summary['beside']['rows']}
  assert set(rows['method', 'sum_losses']['metrics']) >= {
    'accuracy/Art',
    'accuracy/Real_World',
  }
  assert rows['published', 'STL']['means'] == {'accuracy': 0.7891}


@pytest.mark.parametrize('name', find('office31').networks)
def test_networks_give_the_classes_of_each_domain(found, name):
  suite = find('office31')
  problem = make_problem(suite, found, suite.network(name))
  params, state = jax.eval_shape(problem.init, jax.random.key(0))
  images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
  outputs = jax.eval_shape(problem.model.apply, params, state, images)
  assert [y.shape for y in outputs] == [(2, 31)] * 3


@pytest.mark.parametrize(
  ('options', 'said'),
  [
    ('--batch-size 10', '--batch-size=10 must be a multiple of the 3 tasks'),
    ('--batch-size 12 --layout data', '--layout data: the tasks of the suite'),
  ],
)
def test_what_cannot_be_run_is_refused(
  data_dir, tmp_path, monkeypatch, options, said
):
  with pytest.raises(SystemExit, match=said):
    run(monkeypatch, data_dir, tmp_path / 'out', 'office31', *options.split())
  assert not (tmp_path / 'out').exists()

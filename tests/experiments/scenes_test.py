"""The suite of rendered scenes: its losses, data and a run from end to end."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import suites
from experiments.lab import comparison, dense, study
from experiments.lab.options import override
from experiments.lab.problem import make_problem, over_batches
from experiments.report.console import make_console
from experiments.suites import scenes

MEASURES = {
  'miou/segmentation': True,
  'pixel_accuracy/segmentation': True,
  'abs_err/depth': False,
  'rel_err/depth': False,
  'angle_mean/normals': False,
  'angle_median/normals': False,
  'within_11.25/normals': True,
  'within_22.5/normals': True,
  'within_30/normals': True,
}


@pytest.fixture(scope='module')
def options(tmp_path_factory):
  return suites.DataOptions(
    dir=tmp_path_factory.mktemp('tfds'),
    num_train=6,
    num_validation=3,
    num_test=3,
  )


@pytest.fixture(scope='module')
def found(options):
  return scenes.SUITE.read(options, 2, lambda _: None)


def test_splits_are_of_different_scenes_and_the_same_again(found, options):
  for split, count in (('train', 6), ('validation', 3), ('test', 3)):
    assert found.num_examples(split) == count
  images = {split: x['image'] for split, x in found.splits.items()}
  assert (images['train'][:3] != images['test']).any()
  assert (images['validation'] != images['test']).any()
  again = scenes.SUITE.load(options, (), lambda _: None)
  np.testing.assert_array_equal(again.splits['test']['image'], images['test'])


def test_measures_are_the_nine_of_nyuv2():
  facts = scenes.SUITE.facts()
  assert facts['higher_is_better'] == MEASURES
  assert facts['delta_m_metrics'] == list(MEASURES)


def test_losses_are_means_over_the_valid_pixels_of_each_image():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(2, 4, 4, 13)).astype(np.float32)
  labels = rng.integers(-1, 13, (2, 4, 4))
  labels[1] = -1  # an image of nothing
  exact = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  rows, columns = np.nonzero(labels[0] >= 0)
  expected = -np.log(exact[0, rows, columns, labels[0, rows, columns]]).mean()
  losses = dense.cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
  np.testing.assert_allclose(losses, [expected, 0], rtol=1e-5)

  depth = rng.uniform(1, 9, (2, 4, 4)).astype(np.float32)
  depth[0, :2] = 0
  outputs = rng.uniform(1, 9, (2, 4, 4, 1)).astype(np.float32)
  errors = np.abs(outputs[..., 0] - depth)
  np.testing.assert_allclose(
    dense.depth_error(jnp.asarray(outputs), jnp.asarray(depth)),
    [errors[0, 2:].mean(), errors[1].mean()],
    rtol=1e-5,
  )

  normals = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
  normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
  normals[1, 2:] = 0
  losses = dense.cosine_distance(7 * jnp.asarray(normals), normals)
  np.testing.assert_allclose(losses, [0, 0], atol=1e-5)
  losses = dense.cosine_distance(-jnp.asarray(normals), normals)
  np.testing.assert_allclose(losses, [2, 2], atol=1e-5)
  grads = jax.grad(lambda x: dense.cosine_distance(x, normals).sum())(
    jnp.zeros((2, 4, 4, 3))
  )
  assert np.isfinite(grads).all()


def test_the_truth_scores_best_and_padding_does_not_count(found):
  """Three images in batches of two: a row of zeros is added."""
  labels = found.splits['test']
  truth = {
    'segmentation': 9.0 * jax.nn.one_hot(labels['segmentation'], 13),
    'depth': labels['depth'][..., None],
    'normals': labels['normals'],
  }

  def measure(batch):
    together = {}
    for task in scenes.SUITE.tasks:
      together |= task.measure(batch[f'{task.name}_outputs'], batch)
    return together

  arrays = {
    **{k: x for k, x in labels.items() if k != 'image'},
    **{f'{k}_outputs': np.asarray(x) for k, x in truth.items()},
  }
  scores = over_batches(jax.jit(measure), arrays, 2)
  for name, higher in MEASURES.items():
    assert float(scores[name]) == pytest.approx(float(higher), abs=0.02), name


def test_the_state_is_selected_by_shares_of_the_tasks_at_hand():
  found = {
    'miou/segmentation': 0.4,
    'rel_err/depth': 0.1,
    'within_30/normals': 0.6,
  }
  assert dense.select(found) == pytest.approx(0.3)
  assert dense.select({'rel_err/depth': 0.1}) == pytest.approx(-0.1)


@pytest.mark.parametrize('name', sorted(scenes.SUITE.networks))
def test_network_gives_an_output_a_pixel(found, name):
  problem = make_problem(scenes.SUITE, found, scenes.SUITE.network(name))

  def apply(key):
    variables = problem.init(key)
    return problem.model.apply(*variables, jnp.zeros((2, 64, 64, 3)))

  key = jax.random.key(0)
  shapes = jax.eval_shape(apply, key)
  assert [x.shape[-1] for x in shapes] == [13, 1, 3]
  assert all(x.shape[:-1] == (2, 64, 64) for x in shapes)


@pytest.mark.parametrize('name', ['mtan', 'cross_stitch', 'ltb'])
def test_networks_made_for_several_tasks_train_on_one(found, name):
  network = scenes.SUITE.network(name)
  problem = make_problem(scenes.SUITE, found, network, tasks=('depth',))
  batch = {k: x[:2] for k, x in found.splits['train'].items()}

  def loss(key):
    params, state = problem.init(key)
    features, changed = problem.model.apply_trunk(
      params, state, found.inputs(batch), train=True, key=key
    )
    return problem.model.apply_head_with_state(
      0, params, state, features, train=True, key=key
    )[0], changed

  outputs, _ = jax.eval_shape(loss, jax.random.key(0))
  assert outputs.shape == (2, 64, 64, 1)


@pytest.mark.slow
def test_a_comparison_ends_in_a_report_with_delta_m(tmp_path, options):
  config = comparison.complete(
    comparison.configs(
      scenes.SUITE,
      out=tmp_path,
      methods=('sum_losses',),
      seeds=1,
      progress=False,
      tensorboard=False,
    )['quick'],
    scenes.SUITE,
  )
  config = override(
    config,
    {
      'methods': ('sum_losses',),
      'seeds': 1,
      'epochs': 1,
      'batch_size': 2,
      'data': options,
    },
  )
  console = make_console()
  study.run(
    config,
    comparison.prepare(config, scenes.SUITE, 'compare_scenes', console),
    console,
  )
  summary = json.loads((tmp_path / 'summary.json').read_text())
  assert not summary['failures']
  entry = summary['methods']['sum_losses']
  assert set(MEASURES) <= set(entry['metrics'])
  assert entry['delta_m_metrics'] is not None
  assert entry['delta_m_tasks'] is not None

"""The study of robustness on a few synthetic images."""

import csv
import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console

from experiments.lab import dense
from experiments.lab import problem as problems
from experiments.lab import study as studies
from experiments.report import __main__ as report_command
from experiments.report import files as run_files
from experiments.report.verdicts import UNDECIDED
from experiments.studies.robustness import corrupted as corrupted_
from experiments.studies.robustness import study as program
from experiments.studies.robustness.corrupted import Pair
from experiments.suites import Data, Network, digits, scenes
from mtljax import data, models
from mtljax.data import corruptions
from mtljax.training import Checkpointer

QUIET = rich.console.Console(quiet=True, width=124)
TASKS = digits.TASKS


def images(seed, count):
  """Two bars, whose rows are the labels, on a canvas of 12 pixels."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(10, size=(2, count))
  canvas = rng.integers(60, size=(count, 12, 12, 1), dtype=np.uint8)
  for rows, columns in zip(labels, (slice(6), slice(6, 12)), strict=True):
    canvas[np.arange(count), rows + 1, columns] += 180
  return {'image': canvas, 'left': labels[0], 'right': labels[1]}


DIGITS = Data(
  {'train': images(0, 160), 'validation': images(1, 40), 'test': images(2, 60)},
  lambda batch: data.normalize_images(batch['image'], mean=0.2, std=0.3),
)


@pytest.fixture(scope='module')
def small(tmp_path_factory):
  """A small study, and its configuration."""
  config = program.RobustnessConfig(
    out=tmp_path_factory.mktemp('study') / 'out',
    models=('multi_mlp',),
    methods=('sum_losses',),
    corruptions=('contrast', 'speckle_noise'),
    severities=(5, 1),
    seeds=2,
    epochs=3,
    learning_rate=5e-3,
    batch_size=20,
    refit_epochs=4,
    progress=False,
  )
  with pytest.MonkeyPatch.context() as patch:
    suite = dataclasses.replace(digits.SUITE, load=lambda *_: DIGITS)
    patch.setattr(digits, 'SUITE', suite)
    study = program.prepare(config, QUIET)
  assert studies.run(config, study, QUIET) == 0
  return config, study


def corrupted_of(config):
  """The corrupted images of the study, from its folder."""
  return corrupted_.make_corrupted(
    config.out / 'corrupted',
    DIGITS.splits,
    corrupted_.make_pairs(config.corruptions, config.severities),
    draws=config.draws,
    seed=config.data.seed,
    scale=config.scale,
  )


def rows_of(config):
  with (config.out / 'results.csv').open() as file:
    return list(csv.DictReader(file))


def artifacts(config, method, seed):
  path = config.out / 'runs' / method / f'seed_{seed}' / 'artifacts.npz'
  return run_files.read_arrays(path, name=f'{method}/{seed}')


def test_rows_and_arrays(small):
  config, _ = small
  rows = rows_of(config)
  assert [(row['method'], row['seed']) for row in rows] == [
    (f'multi_mlp.{method}', seed)
    for method in ('single_left', 'single_right', 'sum_losses')
    for seed in '01'
  ]
  for row in rows:
    arrays = artifacts(config, row['method'], row['seed'])
    assert {x.shape for x in arrays.values()} == {(4,)}
    for name, values in arrays.items():
      assert float(row[name]) == pytest.approx(values.mean(), rel=1e-5)
  assert rows[0]['refit/accuracy/left']
  assert not rows[0]['refit/accuracy/right']


def test_zero_shot_is_the_trained_network_on_the_corrupted_images(small):
  """By another path: the model applied whole, state from the checkpoint."""
  config, study = small
  cell = next(
    c for c in study.runs if (c.method, c.seed) == ('multi_mlp.sum_losses', 1)
  )
  result = json.loads((cell.folder(config.out) / 'result.json').read_text())
  with Checkpointer(cell.folder(config.out) / 'checkpoints') as saved:
    state = saved.restore(cell.init_fn(), step=result['best_step'])[0]
  model = models.multi_mlp(TASKS, num_classes=10)
  corrupted = corrupted_of(config)
  found = artifacts(config, cell.method, 1)
  for i, pair in enumerate(corrupted.pairs):
    test = corrupted.test(pair)
    outputs = model.apply(state.params, state.model_state, DIGITS.inputs(test))
    for task, logits in zip(TASKS, outputs, strict=True):
      right = np.asarray(logits.argmax(-1)) == test[task]
      assert found[f'zero_shot/accuracy/{task}'][i] == pytest.approx(
        right.mean(), abs=1e-6
      )


def test_mixed_images_are_those_of_their_pair(small):
  config, _ = small
  corrupted = corrupted_of(config)
  train = DIGITS.splits['train']
  assert corrupted.pairs == (
    Pair('contrast', 5),
    Pair('contrast', 1),
    Pair('speckle_noise', 5),
    Pair('speckle_noise', 1),
  )
  assert len(corrupted.train['image']) == config.draws * 160
  np.testing.assert_array_equal(
    corrupted.train['left'], np.tile(train['left'], 2)
  )
  # What contrast makes of every image is known without a key.
  exact = {
    pair: corrupted_.corrupt_images(train['image'], pair, seed=0, scale='cifar')
    for pair in corrupted.pairs[:2]
  }
  rows = np.tile(np.arange(160), config.draws)
  hits = [
    np.sum((corrupted.train['image'] == x[rows]).all((1, 2, 3)))
    for x in exact.values()
  ]
  assert all(40 < hit < 120 for hit in hits)  # of 320, a quarter each


def test_a_second_start_does_nothing_again(small):
  config, study = small
  files = [
    *config.out.glob('corrupted/*.npz'),
    *config.out.glob('runs/*/*/result.json'),
  ]
  assert len(files) == 4 + 6
  before = {path: path.stat().st_mtime_ns for path in files}
  page = (config.out / 'report.html').read_bytes()
  assert studies.run(config, study, QUIET) == 0
  assert before == {path: path.stat().st_mtime_ns for path in files}
  assert (config.out / 'report.html').read_bytes() == page


def test_report_again(small, capsys):
  config, _ = small
  page = (config.out / 'report.html').read_bytes()
  report_command.main(config.out)
  assert (config.out / 'report.html').read_bytes() == page
  assert 'E10' in capsys.readouterr().out
  # A map each for both tasks, fitted again and zero-shot.
  assert page.decode().count('role="img"') == 4
  summary = json.loads((config.out / 'summary.json').read_text())
  assert len(summary['deltas']) == len(summary['zero_shot_deltas']) == 2
  assert summary['verdicts'][0]['outcome'] == UNDECIDED  # two seeds
  own = [artifacts(config, 'multi_mlp.sum_losses', s) for s in range(2)]
  alone = [artifacts(config, 'multi_mlp.single_left', s) for s in range(2)]
  rows = {(r['method'], int(r['seed'])): r for r in rows_of(config)}
  expected = np.mean(
    [
      alone[s]['refit/accuracy/left'].mean()
      / float(rows['multi_mlp.single_left', s]['test/accuracy/left'])
      - own[s]['refit/accuracy/left'].mean()
      / float(rows['multi_mlp.sum_losses', s]['test/accuracy/left'])
      for s in range(2)
    ]
  )
  assert summary['deltas'][0]['mean'] == pytest.approx(expected, abs=1e-6)


def test_corrupted_in_chunks(monkeypatch):
  monkeypatch.setattr(corrupted_, 'EVAL_BATCH', 4)
  clean = DIGITS.splits['test']['image'][:10]
  pair = Pair('contrast', 3)
  made = corrupted_.corrupt_images(clean, pair, seed=0, scale='cifar')
  whole = corruptions.corrupt(
    clean.astype(np.float32) / 255,
    jax.random.key(0),
    *pair,
    scale='cifar',
  )
  assert made.dtype == np.uint8
  np.testing.assert_allclose(made, np.asarray(whole) * 255, atol=0.51)
  # Noise differs from image to image, also across chunks, and by the seed.
  same = np.repeat(clean[:1], 10, 0)
  pair = Pair('gaussian_noise', 5)
  noisy = corrupted_.corrupt_images(same, pair, seed=0, scale='cifar')
  assert len(np.unique(noisy, axis=0)) == 10
  other = corrupted_.corrupt_images(same, pair, seed=1, scale='cifar')
  assert (noisy != other).any()


def test_refit_moves_heads_only_each_as_if_alone():
  features = jax.random.normal(jax.random.key(0), (64, 5))
  labels = {
    'left': jnp.argmax(features, 1),
    'right': jnp.argmin(features, 1),
  }

  def make(tasks):
    model = models.multi_mlp(tasks, num_classes=5, hidden_sizes=(5,))
    network = Network(make=lambda *_: model)
    problem = problems.make_problem(digits.SUITE, DIGITS, network, tasks=tasks)
    refit = corrupted_.make_refit(
      problem, epochs=30, batch_size=16, learning_rate=0.05
    )
    return model, problem.init(jax.random.key(1))[0], refit

  key = jax.random.key(2)
  model, params, refit = make(TASKS)
  fitted, _ = refit(params, {}, features, labels, key)
  same = jax.tree.map(np.array_equal, params['trunk'], fitted['trunk'])
  assert all(jax.tree.leaves(same))
  for t, task in enumerate(TASKS):
    right = model.apply_head(t, fitted, features).argmax(-1) == labels[task]
    assert right.mean() > 0.8

  _, alone, refit = make(('right',))
  alone |= {'heads_0': params['heads_1']}
  found = refit(alone, {}, features, labels, key)[0]['heads_0']
  for x, y in zip(
    jax.tree.leaves(found), jax.tree.leaves(fitted['heads_1']), strict=True
  ):
    np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


class StatefulHead(nn.Module):
  """A dense layer after batch statistics."""

  @nn.compact
  def __call__(self, x, *, train=False):
    x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)
    return nn.Dense(5)(x)


def test_what_heads_keep_goes_on_with_them():
  """Far features: with statistics of 0 and 1 the heads would be wrong."""
  key = jax.random.key(0)
  features = 100 + 9 * jax.random.normal(key, (64, 5))
  labels = {task: jnp.argmax(features, 1) for task in TASKS}
  model = models.MultiTaskModel(
    models.MLPTrunk((5,)), (StatefulHead(),) * 2, TASKS
  )
  network = Network(make=lambda *_: model)
  problem = problems.make_problem(digits.SUITE, DIGITS, network)
  params, state = problem.init(key)
  refit = corrupted_.make_refit(
    problem, epochs=30, batch_size=16, learning_rate=0.05
  )
  fitted, new = refit(params, state, features, labels, key)
  trained = corrupted_.Trained(problem, digits.SUITE.tasks, DIGITS)
  batch = {**labels, 'mask': jnp.ones(64, bool)}
  scores = {
    name: {task: float(found[f'accuracy/{task}'].compute()) for task in TASKS}
    for name, found in {
      'after': trained.scores(fitted, new, features, batch),
      'before': trained.scores(fitted, state, features, batch),
    }.items()
  }
  for task in TASKS:
    assert scores['after'][task] > 0.8 > scores['before'][task]
  for t in range(2):
    kept = new[f'heads_{t}']['batch_stats']['BatchNorm_0']
    np.testing.assert_allclose(kept['mean'], features.mean(0), atol=5)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'seeds': 0}, '--seeds'),
    ({'draws': 0}, '--draws'),
    ({'refit_epochs': 0}, '--refit-epochs'),
    ({'refit_learning_rate': 0.0}, '--refit-learning-rate'),
    ({'scale': 'mnist'}, '--scale'),
    ({'models': ()}, '--models'),
    ({'models': ('multi_mlp', 'multi_mlp')}, '--models'),
    ({'corruptions': ('fogg',)}, "Did you mean 'fog'"),
    ({'severities': (0,)}, '--severities=0'),
    ({'methods': ('pcgrat',)}, 'pcgrad'),
    ({'methods': ()}, '--methods is empty'),
  ],
)
def test_wrong_options_are_named(options, message):
  config = dataclasses.replace(program.RobustnessConfig(), **options)
  with pytest.raises(ValueError, match=message):
    program.prepare(config, QUIET)


def rooms(seed, count):
  """Images of 16 pixels whose brightness is all that there is to be known."""
  rng = np.random.default_rng(seed)
  image = rng.integers(30, 226, (count, 16, 16, 3), np.uint8)
  up = np.zeros((count, 16, 16, 3), np.float32)
  up[..., 1] = 1
  return {
    'image': image,
    'segmentation': (image[..., 0] > 128).astype(np.int32),
    'depth': image.mean(-1, dtype=np.float32) / 64,
    'normals': up,
  }


def test_a_dense_task_is_scored_by_its_own_measure(tmp_path, monkeypatch):
  found = Data(
    {'train': rooms(0, 8), 'validation': rooms(1, 2), 'test': rooms(2, 3)},
    lambda batch: data.normalize_images(batch['image']),
    eval_batch=2,
  )
  network = dense.network(models.segnet, widths=(4,), num_convs=(1,))
  suite = dataclasses.replace(
    scenes.SUITE, load=lambda *_: found, networks={'segnet': network}
  ).with_tasks(('depth',))
  monkeypatch.setattr(scenes, 'SUITE', suite)
  config = dataclasses.replace(
    program.configs('scenes')['quick'],
    out=tmp_path / 'out',
    methods=('sum_losses',),
    corruptions=('contrast',),
    severities=(1, 5),
    seeds=1,
    epochs=1,
    batch_size=4,
    refit_epochs=1,
    progress=False,
  )
  assert (config.models, config.data.num_train) == (('segnet',), 256)
  study = program.prepare(config, QUIET)
  assert studies.run(config, study, QUIET) == 0
  rows = {row['method']: row for row in rows_of(config)}
  own = artifacts(config, 'segnet.sum_losses', 0)['refit/abs_err/depth']
  alone = artifacts(config, 'segnet.single_depth', 0)['refit/abs_err/depth']
  clean = lambda method: float(rows[method]['test/abs_err/depth'])
  expected = own / clean('segnet.sum_losses') - alone / clean(
    'segnet.single_depth'
  )
  summary = json.loads((config.out / 'summary.json').read_text())
  deltas = {x['task']: x['mean'] for x in summary['deltas']}
  assert deltas.keys() == {'depth'}
  assert deltas['depth'] == pytest.approx(expected.mean(), abs=1e-5)
  page = (config.out / 'report.html').read_text()
  assert 'Heads fitted again: abs_err m' in page
  # The depth's error is no share.
  score = next(x for x in summary['scores'] if x['task'] == 'depth')
  assert f'{score["clean"]["mean"]:.4g}' in page


class Inner(nn.Module):
  """What heads have in common, with statistics of its own."""

  @nn.compact
  def __call__(self, x, train):
    x = nn.Dense(6)(x)
    return nn.relu(nn.BatchNorm(use_running_average=not train)(x))


class TyingHead(nn.Module):
  """A dense layer of its own after what heads have in common."""

  @nn.compact
  def __call__(self, x, *, train=False):
    x = Inner(name='inner')(x, train)
    x = nn.BatchNorm(use_running_average=not train, name='own_norm')(x)
    return nn.Dense(10, name='own')(x)


def test_heads_that_keep_statistics_are_studied_too(tmp_path, monkeypatch):
  """Their own part goes on, of what they have in common the statistics do."""
  network = Network(
    make=lambda tasks, widths: models.MultiTaskModel(
      models.MLPTrunk((8,)),
      (TyingHead(),) * len(tasks),
      tuple(task.name for task in tasks),
      tied=('inner',),
    ),
    batch_statistics=True,
  )
  suite = dataclasses.replace(
    digits.SUITE, load=lambda *_: DIGITS, networks={'tying': network}
  )
  monkeypatch.setattr(digits, 'SUITE', suite)
  fits = []
  make_refit = corrupted_.make_refit

  def recording(*args, **options):
    refit = make_refit(*args, **options)

    def call(params, model_state, *more):
      fits.append((params, model_state, *refit(params, model_state, *more)))
      return fits[-1][2:]

    return call

  monkeypatch.setattr(corrupted_, 'make_refit', recording)
  config = program.RobustnessConfig(
    out=tmp_path / 'out',
    models=('tying',),
    methods=('sum_losses',),
    corruptions=('contrast',),
    severities=(5,),
    seeds=1,
    epochs=1,
    batch_size=20,
    refit_epochs=2,
    progress=False,
  )
  assert studies.run(config, program.prepare(config, QUIET), QUIET) == 0
  assert [row['status'] for row in rows_of(config)] == ['ok'] * 3
  kept = artifacts(config, 'tying.sum_losses', 0)
  assert np.isfinite(kept['refit/accuracy/left']).all()

  params, state, fitted, new = fits[-1]
  changed = lambda a, b: {
    name: not all(
      jax.tree.leaves(jax.tree.map(np.array_equal, a[name], b[name]))
    )
    for name in a
  }
  assert changed(params, fitted) == {
    'trunk': False,
    'tied': False,
    'heads_0': True,
    'heads_1': True,
  }
  assert changed(state, new) == {'tied': True, 'heads_0': True, 'heads_1': True}

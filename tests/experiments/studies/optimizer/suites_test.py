"""The optimizer study on suites of other networks, measures and inputs."""

import csv
import dataclasses
import json
import re

import flight_rows
import numpy as np
import pytest
import qm9_rows
import rich.console

from experiments import suites
from experiments.report.results import ReportError
from experiments.studies.optimizer import grid as grids
from experiments.studies.optimizer import runs as study_runs
from experiments.studies.optimizer import study
from experiments.studies.optimizer.grid import Group, Part
from experiments.suites import (
  Data,
  DataOptions,
  Measure,
  SourcePart,
  digits,
  mix,
  mlp,
  qm9,
  scenes,
)
from mtljax import data, metrics, models
from mtljax.data import _qm9_raw as qm9_raw

QUIET = rich.console.Console(quiet=True, width=124)
ERRORS = ('mae/size', 'rmse/size')
MEASURES = ('accuracy/sign', *ERRORS)


def squared(outputs, labels):
  return (outputs[:, 0] - labels) ** 2


def errors(outputs, labels, mask):
  """Two measures of which less is better."""
  error = abs(outputs[:, 0] - labels)
  return {
    'mae': metrics.Mean.from_values(error, mask=mask),
    'rmse': metrics.Mean.from_values(error**1.5, mask=mask),
  }


@pytest.fixture(scope='module')
def source():
  """A sign and a number of a thousand times its loss, by a network of a name
  of its own."""
  rng = np.random.default_rng(0)
  splits = {}
  for name, size in (('train', 32), ('validation', 24), ('test', 24)):
    inputs = rng.normal(size=(size, 6)).astype(np.float32)
    splits[name] = {
      'inputs': inputs,
      'sign': (inputs[:, 0] > 0).astype(np.int32),
      'size': 30 * inputs[:, 1],
    }
  sign = dataclasses.replace(
    digits.SUITE.tasks[0], name='sign', num_outputs=2, num_classes=2
  )
  size = dataclasses.replace(
    qm9.SUITE.tasks[0],
    name='size',
    example_losses=squared,
    metrics=errors,
    measures=(
      Measure(name='mae', higher_is_better=False),
      Measure(name='rmse', higher_is_better=False),
    ),
  )
  suite = dataclasses.replace(
    digits.SUITE,
    name='unlike',
    tasks=(sign, size),
    networks={'dense': mlp(), 'multi_mlp': mlp()},
  )
  return suite, Data(splits, lambda batch: batch['inputs'], eval_batch=10)


@pytest.fixture(scope='module')
def config(source, tmp_path_factory):
  """Of a study that has been run."""
  found = study.OptimizerConfig(
    out=tmp_path_factory.mktemp('o') / 'out',
    model='dense',
    optimizers=('adam', 'momentum'),
    methods=('sum_losses',),
    ratios=(1.0,),
    learning_rates=(0.01, 0.03),
    sgd_rates=(1e-4, 1e-5, 1e-6),
    baseline_rates=(0.01, 1.0),
    seeds=2,
    epochs=3,
    hidden_sizes=(4,),
    batch_size=16,
    sweep='loop',
  )
  study.run(found, source, QUIET)
  return found


def part(optimizer, seed=0, method='sum_losses'):
  return Part(Group(optimizer, method), 1.0, seed)


def test_delta_m_is_over_all_measures_with_their_directions(config):
  """From the files, by loops."""
  alone = {}
  for task, first, sign in (('sign', 0, 1), ('size', 0, -1)):
    by_rate = {0: [], 1: []}
    for seed in range(2):
      found = part('adam', seed, f'single_{task}').read(config.out)
      for i in by_rate:
        epoch = np.argmax(sign * found['validation/score'][i, :, first])
        by_rate[i].append(
          [found[f'{s}/score'][i, epoch] for s in ('validation', 'test')]
        )
    means = {i: np.mean(x, 0) for i, x in by_rate.items()}
    alone[task] = means[max(means, key=lambda i: sign * means[i][0, 0])]
  base = np.concatenate([alone['sign'], alone['size']], axis=1)
  summary = json.loads((config.out / 'summary.json').read_text())
  assert [x['measure'] for x in summary['baselines']] == list(MEASURES)
  for i, own in enumerate(summary['baselines']):
    assert own['validation'] == pytest.approx(base[0, i], rel=1e-6)
    assert own['test'] == pytest.approx(base[1, i], rel=1e-6)

  with (config.out / 'results.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 2 * (2 + 3)  # seeds, and learning rates of each
  for row in rows:
    rates = {'adam': config.learning_rates, 'momentum': config.sgd_rates}
    own = part(row['optimizer'], int(row['seed'])).read(config.out)
    i = rates[row['optimizer']].index(float(row['learning_rate']))
    score, e = own['test/score'][i], int(row['best_epoch']) - 1
    drops = [
      sign * (score[e, j] - base[1, j]) / base[1, j]
      for j, sign in enumerate((-1, 1, 1))
    ]
    assert float(row['test/delta_m']) == pytest.approx(
      100 * np.mean(drops), rel=1e-5
    )
    for j, name in enumerate(MEASURES):
      assert float(row[f'test/{name}']) == pytest.approx(score[e, j])


def test_how_far_the_losses_are_apart_is_measured_and_decides_e3(config):
  found = part('adam').read(config.out)['start/loss'][0]
  other = part('momentum').read(config.out)['start/loss'][0]
  np.testing.assert_allclose(found, other, rtol=1e-6)  # the same start
  summary = json.loads((config.out / 'summary.json').read_text())
  (scales,) = summary['loss_scales']
  starts = [
    x.max() / x.min()
    for x in (
      part('adam', s).read(config.out)['start/loss'][0] for s in range(2)
    )
  ]
  assert scales['start'] == pytest.approx(np.sqrt(starts[0] * starts[1]))
  assert scales['start'] > 100
  assert scales['end'] > 1
  page = (config.out / 'report.html').read_text()
  assert 'How far the losses are apart' in page
  assert f'{scales["start"]:.3g}' in page
  assert 'the network is dense' in page


def test_the_folder_says_what_its_numbers_hang_on(config):
  stored = json.loads((config.out / 'config.json').read_text())
  assert stored['model'] == 'dense'
  assert stored['sgd_rates'] == list(config.sgd_rates)
  assert stored['delta_m_metrics'] == list(MEASURES)
  assert [stored['higher_is_better'][x] for x in MEASURES] == [1, 0, 0]


def test_another_network_is_another_study(config, source):
  with pytest.raises(ValueError, match='model'):
    study.run(dataclasses.replace(config, model='multi_mlp'), source, QUIET)


def test_a_task_alone_that_reaches_nothing_is_named():
  arrays = {
    'rates': np.array([0.1]),
    'validation/score': np.ones((1, 2, 2)),
    'test/score': np.array([[[0.5, 0.0], [0.5, 0.0]]]),
    'finite': np.ones((1, 2), bool),
  }
  measures = {'miou/a': True, 'within_11.25/a': True}
  with pytest.raises(ReportError, match='within_11.25/a on validation'):
    study_runs._baselines('a', measures, {part('adam'): arrays})


def test_members_called_one_by_one_end_as_batched_ones(source):
  found = {}
  for mode in ('loop', 'vmap'):
    training = grids.Training(*source, (4,), (), 2, 16, mode)
    (found[mode],) = grids.train(training, [part('adam')], (0.01, 0.1))
  assert found['loop'].keys() == found['vmap'].keys()
  assert found['loop']['validation/score'].shape == (2, 2, 3)
  assert found['loop']['validation/loss'].shape == (2, 2, 2)
  for name, values in found['loop'].items():
    np.testing.assert_allclose(
      values, found['vmap'][name], rtol=2e-3, err_msg=name
    )


def trained(suite, found, network, optimizer, method, rate):
  """Arrays of one run of two epochs."""
  training = grids.Training(suite, found, (4,), (), 2, 4, 'loop', network)
  (arrays,) = grids.train(training, [part(optimizer, 0, method)], (rate,))
  assert arrays['finite'].all()
  assert np.isfinite(arrays['test/score']).all()
  return arrays


def test_scenes_train_with_batch_statistics(tmp_path):
  options = DataOptions(
    dir=tmp_path, num_train=8, num_validation=3, num_test=3, pool=8
  )
  found = scenes.SUITE.read(options, 4, lambda _: None)
  network = scenes.dense.network(models.segnet, widths=(4,), num_convs=(1,))
  suite = dataclasses.replace(scenes.SUITE, networks={'segnet': network})
  kept = grids.with_inputs(suite, found, 'segnet')
  assert kept is found
  arrays = trained(suite, kept, 'segnet', 'mtl_io', '', 1e-3)
  assert arrays['test/score'].shape == (1, 2, 9)
  assert arrays['start/loss'].shape == (1, 3)
  assert np.any(arrays['test/loss'][0, 1] != arrays['test/loss'][0, 0])


def test_molecules_train_under_a_method(tmp_path):
  qm9_rows.write_raw(tmp_path, qm9_raw.FILES, 60)
  data.prepare_qm9(data_dir=tmp_path)
  suite = qm9.SUITE.with_tasks(('mu', 'u0'))
  options = DataOptions(dir=tmp_path, num_train=8)
  found = suite.read(options, 4, lambda _: None)
  network = qm9.of_molecules(
    models.schnet,
    width=4,
    num_filters=4,
    num_interactions=1,
    num_gaussians=4,
  )
  suite = dataclasses.replace(suite, networks={'schnet': network})
  kept = grids.with_inputs(suite, found, 'schnet')
  arrays = trained(suite, kept, 'schnet', 'adam', 'cagrad', 1e-3)
  assert arrays['test/score'].shape == (1, 2, 2)  # mae of both, not z_mae


def test_labels_that_are_missing_and_inputs_of_several_arrays(tmp_path):
  flight_rows.write(tmp_path, flight_rows.make_rows(200))
  data.prepare_flights(data_dir=tmp_path)
  suite = suites.find('flights')
  suite = suite.with_tasks(suite.default_tasks)
  found = suite.read(DataOptions(dir=tmp_path, num_train=8), 4, lambda _: None)
  kept = grids.with_inputs(suite, found)
  assert kept is found
  arrays = trained(suite, kept, 'multi_mlp', 'adatask', '', 1e-3)
  assert arrays['test/score'].shape == (1, 2, 3)


def test_batches_made_in_a_way_of_their_own_are_refused(source, monkeypatch):
  suite, found = source
  parts = {
    task: SourcePart(
      splits={
        split: {f'inputs_{task}': x['inputs'], task: x[task]}
        for split, x in found.splits.items()
      },
      tasks=(task,),
    )
    for task in suite.task_names
  }
  mixed = mix(parts, lambda batch: batch['inputs_sign'])
  suite = dataclasses.replace(suite, load=lambda *_: mixed)
  monkeypatch.setattr(suites, 'find', lambda name: suite)
  config = dataclasses.replace(study.OptimizerConfig(), batch_size=16)
  with pytest.raises(ValueError, match='batches in a way of its own'):
    study.prepare(config, QUIET)


@pytest.mark.parametrize(
  'options, message',
  [
    ({'tasks': ('left',)}, "--tasks=('left',)"),
    ({'tasks': ('left', 'middle')}, "--tasks='middle'"),
    ({'model': 'multi_mpl'}, "Did you mean 'multi_mlp'?"),
    ({'suite': 'scenes'}, "--model='multi_mlp'"),
    ({'sgd_rates': (0.1, 0.1)}, '--sgd-rates names 0.1 twice'),
    ({'sgd_rates': (0.0,)}, '--sgd-rates=0'),
    ({'min_rates': 0}, '--min-rates=0'),
  ],
)
def test_wrong_options_are_named(options, message):
  config = dataclasses.replace(study.OptimizerConfig(), **options)
  with pytest.raises(ValueError, match=re.escape(message)):
    study.check(config)


def test_a_task_without_a_measure_of_delta_m_is_named(source, monkeypatch):
  suite, _ = source
  sign, size = suite.tasks
  hidden = tuple(
    dataclasses.replace(x, in_delta_m=False) for x in size.measures
  )
  size = dataclasses.replace(size, measures=hidden)
  suite = dataclasses.replace(suite, tasks=(sign, size))
  monkeypatch.setattr(suites, 'find', lambda name: suite)
  with pytest.raises(ValueError, match='no measure of the task size'):
    study.check(study.OptimizerConfig())


@pytest.mark.parametrize('suite', suites.available())
@pytest.mark.parametrize('preset', ['quick', 'paper'])
def test_every_suite_has_presets_that_can_be_run(suite, preset):
  found = study.presets_of(suite)[preset]
  assert (found.suite, found.preset) == (suite, preset)
  study.check(found)


def test_the_presets_of_the_digits_are_the_defaults():
  found = study.presets_of('digits')['quick']
  wanted = study.OptimizerConfig(
    data=DataOptions(num_train=4000, num_validation=1000, num_test=2000, pool=2)
  )
  assert found == wanted
  assert len(found.learning_rates) == 10
  assert study.presets_of('census')['quick'] == dataclasses.replace(
    wanted, suite='census', data=dataclasses.replace(wanted.data, pool=1)
  )


@pytest.mark.parametrize('suite', sorted(study.QUICK))
def test_quick_presets_try_as_many_rates_of_each_optimizer(suite):
  found = study.presets_of(suite)['quick']
  assert len(found.sgd_rates) == len(found.learning_rates) == found.min_rates
  assert found.ratios == (1.0,)
  assert 'momentum' in found.optimizers and 'adam' in found.optimizers
  assert found.seeds == 3


def test_a_suite_that_there_is_not_is_named_later():
  found = study.presets_of('faces')['quick']
  with pytest.raises(ValueError, match="--suite='faces'"):
    study.check(found)

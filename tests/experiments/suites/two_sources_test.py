"""The suite of digits and flights: its batches, network and a comparison."""

import csv
import json

import flight_rows
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from experiments.lab import comparison
from experiments.lab.mixed import SourcePart, mix
from experiments.lab.problem import make_problem
from experiments.suites import DataOptions, Widths
from experiments.suites.two_sources import SUITE, TASKS
from mtljax import data
from mtljax.training import make_train_step

SMALL = Widths(hidden_sizes=(6, 5), head_sizes=(4,))
SIZES = {'num_train': 100, 'num_validation': 20, 'num_test': 100}


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('two_sources')
  flight_rows.write(folder, flight_rows.make_rows(300))
  data.prepare_flights(data_dir=folder)
  return folder


@pytest.fixture(scope='module')
def found(data_dir):
  return SUITE.read(DataOptions(dir=data_dir, **SIZES), 8, lambda _: None)


@pytest.fixture(scope='module')
def problem(found):
  return make_problem(SUITE, found, SUITE.networks['joint'], SMALL)


def test_sources_have_sizes_and_steps_of_their_own(found):
  batches = found.batches(8, seed=0, tasks=SUITE.task_names)
  steps = [next(batches) for _ in range(6)]
  for i, step in enumerate(steps):
    assert len(step.batch['image']) == len(step.batch['left']) == 8
    assert len(step.batch['numeric']) == len(step.batch['air_time']) == 16
    expected = [
      name in TASKS['digits'] or i % 2 == 0 for name in SUITE.task_names
    ]
    np.testing.assert_array_equal(step.task_mask, expected)
  assert found.steps_per_epoch(8) == 100 // 8
  # As many batches alone as among others.
  assert found.steps_per_epoch(8, ('air_time',)) == 6
  (alone,) = [next(found.batches(8, seed=0, tasks=('air_time',)))]
  assert 'image' not in alone.batch and alone.task_mask.tolist() == [True]
  np.testing.assert_array_equal(
    alone.batch['air_time'], steps[0].batch['air_time']
  )


def test_rows_side_by_side_count_once(found, problem):
  """Measured over the padded rows, each source has its own examples alone."""
  params, state = problem.init(jax.random.key(0))
  measured = problem.evaluate(
    type('State', (), {'params': params, 'model_state': state}), 'test'
  )
  for name, part in found.parts.items():
    rows = part.splits['test']
    batch = {**{k: v[:1] for k, v in found.splits['test'].items()}, **rows}
    inputs = found.inputs(batch)
    outputs = jax.jit(problem.model.apply)(params, state, inputs)
    for task, output in zip(SUITE.tasks, outputs, strict=True):
      if task.name not in part.tasks:
        continue
      mask = jnp.ones(len(rows[task.name]), bool)
      alone = task.measure(output, {**rows, 'mask': mask})
      for key, metric in alone.items():
        np.testing.assert_allclose(
          measured[key],
          metric.compute(),
          rtol=1e-4,
          atol=1e-6,
          err_msg=f'{name} {key}',
        )
  counts = {
    x: len(p.splits['test'][p.tasks[0]]) for x, p in found.parts.items()
  }
  assert len(set(counts.values())) == 2
  assert found.num_examples('test') == max(counts.values())


def test_the_gramian_of_sources_is_over_what_both_pass_through(found, problem):
  """Their own trunks add nothing to products between tasks of two sources."""
  batch = next(found.batches(8, seed=0, tasks=SUITE.task_names)).batch
  params, state = problem.init(jax.random.key(0))
  key = jax.random.key(1)
  found_by = {}
  for name in ('trunk', 'joint'):
    sharings = problem.model.sharings(params, name)
    gramian = jax.jit(
      mtl.value_and_gramian(
        problem.loss,
        labels=sharings.labels,
        gramian_labels=sharings.gramian_labels,
        has_aux=True,
      )
    )
    found_by[name] = sharings, gramian(params, batch, state, key)[1]
  (trunk, whole), (joint, part) = found_by['trunk'], found_by['joint']
  np.testing.assert_allclose(whole[:2, 2:], part[:2, 2:], rtol=1e-4, atol=1e-6)
  assert np.any(np.abs(part[:2, 2:]) > 1e-6)
  assert np.all(np.diag(whole) > 1.01 * np.diag(part))
  assert joint.num_gramian < joint.num_shared == trunk.num_gramian


def test_an_absent_source_leaves_its_heads_alone(found, problem):
  train = make_train_step(
    mtl.sum_losses(5, labels=problem.labels),
    optax.adam(1e-2),
    problem.loss,
    has_state=True,
  )
  state = problem.start(train, jax.random.key(0))
  batches = found.batches(8, seed=0, tasks=SUITE.task_names)
  state, _ = train.step(state, next(batches))
  before = jax.device_get(state.params)
  state, metrics = train.step(state, next(batches))
  assert np.isnan(metrics['losses'][2:]).all()
  for t in range(5):
    same = jax.tree.map(
      np.array_equal, before[f'heads_{t}'], state.params[f'heads_{t}']
    )
    assert set(jax.tree.leaves(same)) == {t >= 2}
  assert train.step._cache_size() == 1


def test_parts_that_do_not_fit_are_refused():
  rows = {
    split: {'x': np.zeros(3), 'a': np.zeros(3)}
    for split in ('train', 'validation', 'test')
  }
  part = SourcePart(splits=rows, tasks=('a',))
  with pytest.raises(ValueError, match="'x' is an array of another part"):
    mix({'one': part, 'two': part}, lambda batch: batch)
  rare = SourcePart(splits=rows, tasks=('a',), rate=0.5)
  with pytest.raises(ValueError, match='give rate=1 to one part'):
    mix({'one': rare}, lambda batch: batch)


def options(data_dir, out, *more):
  return [
    *('--methods', 'cagrad', '--seeds', '1', '--no-progress'),
    *('--data.dir', str(data_dir), '--out', str(out), '--epochs', '2'),
    *('--data.num-train', '100', '--data.num-validation', '20'),
    *('--data.num-test', '40', '--batch-size', '16', '--log-every', '1'),
    *('--hidden-sizes', '6', '5', '--shared', 'joint', '--no-tensorboard'),
    *more,
  ]


@pytest.mark.parametrize(
  'baselines', [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_a_comparison_from_data_to_report(data_dir, tmp_path, baselines):
  more = [] if baselines else ['--no-baselines']
  argv = options(data_dir, tmp_path, '--tasks', 'left', 'dep_delay', *more)
  comparison.main(SUITE, 'two_sources', argv=argv)
  with (tmp_path / 'results.csv').open() as file:
    rows = {row['method']: row for row in csv.DictReader(file)}
  alone = ['single_left', 'single_dep_delay'] if baselines else []
  assert list(rows) == [*alone, 'cagrad']
  assert all(row['status'] == 'ok' for row in rows.values())
  assert float(rows['cagrad']['test/mae/dep_delay']) > 0
  if baselines:
    assert rows['single_left']['test/mae/dep_delay'] == ''
  assert (tmp_path / 'report.html').exists()
  path = tmp_path / 'runs' / 'cagrad' / 'seed_0' / 'metrics.jsonl'
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  lines = [line for line in lines if line['kind'] == 'train']
  shares = [line['present/dep_delay'] for line in lines]
  assert shares == [1, 0] * (len(lines) // 2) and len(lines) == 12
  assert [int('loss/dep_delay' in line) for line in lines] == shares


@pytest.mark.parametrize(
  ('more', 'message'),
  [
    (('--layout', 'data'), '--layout data'),
    (('--diagnose', 'conflict'), '--diagnose'),
  ],
)
def test_what_needs_one_batch_is_refused(data_dir, tmp_path, more, message):
  with pytest.raises(SystemExit, match=message):
    comparison.main(
      SUITE, 'two_sources', argv=options(data_dir, tmp_path, *more)
    )


def test_other_studies_are_told_so(found):
  with pytest.raises(ValueError, match='only comparisons'):
    found.batches(8, seed=0)


def test_a_share_of_every_source_is_held_out(found):
  first, second = found.split_train(0.25, 0)
  for name, part in found.parts.items():
    whole = part.splits['train']
    kept, apart = (x.parts[name].splits['train'] for x in (first, second))
    count = len(whole[part.tasks[0]])
    for key, x in whole.items():
      assert len(apart[key]) == round(count / 4)
      both = np.concatenate([kept[key], apart[key]])
      flat = lambda x: np.sort(x.reshape(len(x), -1), axis=0)
      np.testing.assert_array_equal(flat(both), flat(x))
  assert first.num_examples('train') == 75
  # Labels that a shorter source has no more of are missing here too.
  assert (first.splits['train']['left'] >= 0).sum() == 75
  assert first.splits['test'].keys() == found.splits['test'].keys()


def test_weights_are_learned_on_batches_with_some_of_the_tasks(
  data_dir, tmp_path
):
  argv = options(data_dir, tmp_path, '--tasks', 'left', 'dep_delay')
  argv[1] = 'auto_lambda'
  argv += ['--no-baselines', '--batch-size', '8', '--val-share', '0.3']
  comparison.main(SUITE, 'two_sources', argv=argv)
  with (tmp_path / 'results.csv').open() as file:
    (row,) = csv.DictReader(file)
  assert row['status'] == 'ok'
  assert row['val_examples'] == '30'

"""Methods that learn on validation batches, beside those that do not."""

import csv
import dataclasses
import itertools
import json
import pathlib

import numpy as np
import pytest
import rich.console

from experiments.lab import comparison, runs, val_batches
from experiments.lab.settings import complete, configs
from experiments.lab.suite import Data
from experiments.suites import find

CENSUS = find('census')
TASKS = ('income', 'married')


@dataclasses.dataclass(frozen=True)
class OwnData(Data):
  """Batches of a way of its own, which does not say how to split it."""

  def batches(self, *args, **kwargs):
    return super().batches(*args, **kwargs)


def suite(kind=Data):
  """Rows with a number each, whose second column tells the labels."""

  def load(options, tasks, say):
    del say
    rng = np.random.default_rng(options.seed)

    def rows(first):
      x = rng.normal(size=(60, 4)).astype(np.float32)
      labels = {t: (x[:, 1] > 0).astype(np.int32) for t in tasks}
      return {'x': x, 'number': np.arange(first, first + 60), **labels}

    splits = ('train', 'validation', 'test')
    return kind(
      {name: rows(100 * i) for i, name in enumerate(splits)},
      lambda batch: batch['x'],
    )

  tasks = tuple(
    dataclasses.replace(CENSUS.tasks[0], name=name) for name in TASKS
  )
  return dataclasses.replace(
    CENSUS, tasks=tasks, load=load, floors=None, published=None
  )


SMALL = {
  'model': 'multi_mlp',
  'hidden_sizes': (4,),
  'batch_size': 10,
  'val_share': 0.25,
  'epochs': 2,
  'seeds': 2,
  'baselines': False,
  'tensorboard': False,
  'progress': False,
  'log_every': 2,
}


def prepare(out=pathlib.Path('nowhere'), kind=Data, **options):
  made = suite(kind)
  config = configs(made, out=out)['quick']
  config = dataclasses.replace(config, tasks=TASKS, **SMALL | options)
  return comparison.prepare(
    complete(config, made), made, 'own', rich.console.Console(quiet=True)
  )


def main(out, *more):
  argv = ['--seeds', '2', '--no-progress', '--out', str(out), '--no-baselines']
  argv += ['--no-tensorboard', '--epochs', '2', '--model', 'multi_mlp']
  argv += ['--batch-size', '10', '--hidden-sizes', '4', '--val-share', '0.25']
  argv += ['--tasks', *TASKS, '--log-every', '2', *more]
  comparison.main(suite(), 'own', argv=argv)


def rows_of(out):
  with (out / 'results.csv').open() as file:
    return {
      (row['method'], row['seed']): {
        name: value
        for name, value in row.items()
        if name not in ('wall_time', 'steps_per_second', 'resumed_from')
      }
      for row in csv.DictReader(file)
    }


def lines_of(folder):
  """What was logged, without what no two runs share."""
  lines = (folder / 'metrics.jsonl').read_text().splitlines()
  records = [json.loads(line) for line in lines]
  for record in records:
    record.pop('examples_per_second', None)
  return records


@pytest.fixture(scope='module')
def compared(tmp_path_factory):
  """Two methods that learn on validation batches, and one that does not."""
  out = tmp_path_factory.mktemp('compared') / 'out'
  main(out, '--methods', 'auto_lambda', 'moml', 'mgda')
  return out


def test_they_are_compared_and_the_report_says_what_they_lost(compared):
  rows = rows_of(compared)
  assert [row['status'] for row in rows.values()] == ['ok'] * 6
  for (method, _), row in rows.items():
    assert row['val_examples'] == ('' if method == 'mgda' else '15')
    assert 0 < float(row['test/auc/income']) <= 1
  page = (compared / 'report.html').read_text()
  assert 'Not trained on all training data: auto_lambda, moml.' in page
  assert 'batches of 15 training examples' in page
  folder = compared / 'runs' / 'auto_lambda' / 'seed_0'
  weights = [
    line['weight/income']
    for line in lines_of(folder)
    if 'weight/income' in line
  ]
  assert len(weights) == 6  # 2 epochs of 60 // 10 steps, a line every 2
  assert len(set(weights)) == 6  # they learn


def test_the_others_have_the_numbers_that_they_have_alone(compared, tmp_path):
  out = tmp_path / 'out'
  main(out, '--methods', 'mgda')
  for seed in ('0', '1'):
    alone, beside = rows_of(out)['mgda', seed], rows_of(compared)['mgda', seed]
    assert beside.pop('val_examples') == ''
    assert alone == beside
    folders = [x / 'runs' / 'mgda' / f'seed_{seed}' for x in (out, compared)]
    assert lines_of(folders[0]) == lines_of(folders[1])
  assert 'Not trained on all' not in (out / 'report.html').read_text()


def test_held_out_examples_are_never_trained_on():
  learner, other = (
    prepare(methods=(name,)).runs for name in ('auto_lambda', 'mgda')
  )
  trained, learned = {}, {}
  for run in learner:
    # Four passes over the larger part.
    steps = list(itertools.islice(run.batches_fn(), 4 * 45 // 10))
    trained[run.seed] = np.array([x.batch['number'] for x in steps])
    learned[run.seed] = np.array([x.val_batch['number'] for x in steps])
  assert trained[0].shape == learned[0].shape == (18, 10)
  for seed in (0, 1):
    assert not np.intersect1d(trained[seed], learned[seed]).size
    both = np.union1d(trained[seed], learned[seed])
    np.testing.assert_array_equal(both, np.arange(60))  # the training split
    assert len(np.unique(learned[seed])) == 15
  # All seeds hold the same out, in orders of their own.
  np.testing.assert_array_equal(np.unique(learned[0]), np.unique(learned[1]))
  assert not np.array_equal(learned[0], learned[1])
  every = list(itertools.islice(other[0].batches_fn(), 6))
  assert len(np.unique([x['number'] for x in every])) == 60


@pytest.mark.parametrize('kill_at', [2, 8])
def test_a_killed_run_goes_on_in_the_same_bits(compared, tmp_path, kill_at):
  whole = compared / 'runs' / 'auto_lambda' / 'seed_1'

  def kill(step):
    if step == kill_at:
      raise ZeroDivisionError

  options = {'inside': {}}
  found = prepare(tmp_path, methods=('auto_lambda',))
  with pytest.raises(ZeroDivisionError):
    runs.run_spec(tmp_path, found.runs[1], callback=kill, **found.options)
  found = prepare(tmp_path, methods=('auto_lambda',))
  row = runs.run_spec(tmp_path, found.runs[1], **found.options, **options)
  assert row['resumed_from'] == (6 if kill_at == 8 else None)
  assert lines_of(found.runs[1].folder(tmp_path)) == lines_of(whole)
  expected = rows_of(compared)['auto_lambda', '1']
  assert f'{row["test/auc/income"]}' == expected['test/auc/income']


def test_a_batch_goes_on_at_its_place_in_both_parts():
  (run,) = prepare(methods=('moml',), seeds=1).runs
  first = run.batches_fn()
  for _ in range(7):
    next(first)
  state = json.loads(json.dumps(first.get_state()))
  second = run.batches_fn()
  second.set_state(state)
  for _ in range(5):
    for a, b in zip(next(first), next(second), strict=True):
      np.testing.assert_array_equal(a['number'], b['number'])
  with pytest.raises(ValueError, match=r"saved state is of \['position'\]"):
    second.set_state({'position': 3})


def test_seeds_in_one_program(compared, tmp_path):
  main(tmp_path, '--methods', 'auto_lambda', '--sweep', 'vmap')
  for key, row in rows_of(tmp_path).items():
    expected = rows_of(compared)[key]
    assert row['val_examples'] == expected['val_examples']
    score, alone = (float(x['test/auc/income']) for x in (row, expected))
    assert score == pytest.approx(alone, abs=1e-3)


def test_what_it_will_take_is_said(tmp_path, capsys):
  out = tmp_path / 'out'
  main(out, '--methods', 'auto_lambda', '--dry-run')
  (line,) = [
    x
    for x in capsys.readouterr().out.splitlines()
    if x.strip().startswith('auto_lambda ')
  ]
  assert line.split()[1:4] == ['2', '0', '12']
  assert not out.exists()


def test_it_is_tuned_and_its_conflict_measured(tmp_path):
  main(
    *(tmp_path, '--methods', 'moml', '--seeds', '1', '--tune', '2'),
    *('--diagnose', 'conflict', '--diagnose-samples', '2'),
  )
  (row,) = rows_of(tmp_path).values()
  assert row['status'] == 'ok'
  chosen = json.loads((tmp_path / 'tuning' / 'chosen.json').read_text())
  assert chosen['methods']['moml']['failed'] == 0
  assert (tmp_path / 'runs' / 'moml' / 'seed_0' / 'probe.jsonl').is_file()


def test_a_task_alone_loses_nothing():
  config = {'methods': ('auto_lambda',), 'baselines': True, 'seeds': 1}
  single, *_, method = prepare(**config).runs
  assert single.method == 'single_income'
  assert set(next(single.batches_fn())) == {'x', 'number', *TASKS}
  assert isinstance(next(method.batches_fn()), val_batches.TwoBatches)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'val_share': 0.0}, r'--val-share=0\.0'),
    ({'val_share': 1.0}, r'--val-share=1\.0'),
    (
      {'val_share': 0.1},
      r'--val-share=0\.1 holds too few out of the 60 .*--batch-size=10',
    ),
    ({'val_share': 0.9}, r'--val-share=0\.9 leaves too few of the 60'),
    ({'layout': 'data'}, '--methods auto_lambda and --layout data'),
    ({'kind': OwnData}, 'OwnData makes its own batches.*split_train'),
  ],
)
def test_what_cannot_be_held_out_is_refused(options, message):
  with pytest.raises(ValueError, match=message):
    prepare(**{'methods': ('mgda', 'auto_lambda'), **options})


def test_methods_that_need_none_do_not_care():
  prepare(methods=('mgda',), kind=OwnData, val_share=0.01)

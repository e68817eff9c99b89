"""As many trials for all, chosen on validation, resumed, said in the report."""

import csv
import dataclasses
import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lab import comparison, methods, runs, spaces, tuning
from experiments.lab.suite import Data
from experiments.report import tuning as shown
from experiments.suites import find

CENSUS = find('census')
TASKS = ('income', 'married')
#: It has a number to tune, and is quick to compile.
METHOD = 'uw_so'


def suite():
  """A few rows, whose second column tells the labels."""

  def load(options, tasks, say):
    del say
    rng = np.random.default_rng(options.seed)

    def rows(n):
      x = rng.normal(size=(n, 4)).astype(np.float32)
      return {'x': x, **{t: (x[:, 1] > 0).astype(np.int32) for t in tasks}}

    splits = {x: rows(60) for x in ('train', 'validation', 'test')}
    return Data(splits, lambda batch: batch['x'])

  tasks = tuple(
    dataclasses.replace(CENSUS.tasks[0], name=name) for name in TASKS
  )
  return dataclasses.replace(
    CENSUS, tasks=tasks, load=load, floors=None, published=None
  )


def run(out, *more):
  argv = ['--methods', METHOD, '--seeds', '2', '--no-progress', '--out']
  argv += [str(out), '--no-baselines', '--no-tensorboard', '--epochs', '2']
  argv += ['--model', 'multi_mlp', '--batch-size', '20', '--tasks', *TASKS]
  argv += ['--hidden-sizes', '4', *more]
  comparison.main(suite(), 'tuned', argv=argv)


def rows_of(path):
  with path.open() as file:
    return list(csv.DictReader(file))


@pytest.mark.parametrize(
  'name', methods.plain_names() + methods.learner_names()
)
def test_what_is_drawn_builds_every_method(name):
  for trial in spaces.draw_trials(name, 3, 4):
    options = dict(trial.options)
    weights = options.pop('weights', ())
    method = methods.make_method(
      name, 3, None, rho=0.1, weights=weights, options=options
    )
    method.init({'w': jnp.zeros(2)})


def test_all_names_of_spaces_are_methods():
  assert spaces.SPACES.keys() <= set(methods.method_names())


def test_trials_are_the_same_each_time_and_share_their_rates():
  first = spaces.draw_trials('cagrad', 2, 9)
  assert first == spaces.draw_trials('cagrad', 2, 9)
  assert first[:4] == spaces.draw_trials('cagrad', 2, 4)
  assert first[0] == spaces.DEFAULTS
  others = spaces.draw_trials('single_income', 1, 9)
  assert [x.rate for x in first] == [x.rate for x in others]
  assert len({x.rate for x in first}) == 9
  assert len({x.options['c'] for x in first[1:]}) == 8
  assert all(not x.options for x in others)


def test_wrapped_methods_draw_their_own_and_a_radius():
  for trial in spaces.draw_trials('flat_fixed', 3, 5)[1:]:
    assert 0.005 <= trial.options['rho'] <= 0.5
    assert sum(trial.options['weights']) == pytest.approx(3, rel=0.02)


def test_the_best_on_validation_is_run(tmp_path):
  run(tmp_path, '--tune', '3')
  trials = rows_of(tmp_path / 'tuning' / 'results.csv')
  assert [x['method'] for x in trials] == [
    f'{METHOD}.trial_{k}' for k in range(3)
  ]
  assert not any(name.startswith('test/') for name in trials[0])
  scores = [float(x['validation/score']) for x in trials]
  said = json.loads((tmp_path / 'tuning' / 'chosen.json').read_text())
  found = said['methods'][METHOD]
  assert found['chosen'] == int(np.argmax(scores))
  assert found['score'] == max(scores)
  assert found['default_score'] == scores[0]
  drawn = spaces.draw_trials(METHOD, 2, 3)[found['chosen']]
  for row in rows_of(tmp_path / 'results.csv'):
    assert float(row['learning_rate']) == pytest.approx(1e-3 * drawn.rate)
  page = (tmp_path / 'report.html').read_text()
  assert 'had 3 trials' in page
  assert 'What was tuned' in page

  before = {
    path: path.stat().st_mtime_ns
    for path in (tmp_path / 'tuning').rglob('result.json')
  }
  assert len(before) == 3
  run(tmp_path, '--tune', '3', '--seeds', '3')
  assert len(rows_of(tmp_path / 'results.csv')) == 3
  assert all(path.stat().st_mtime_ns == x for path, x in before.items())
  with pytest.raises(SystemExit, match='tune'):
    run(tmp_path, '--tune', '4', '--seeds', '4')


def test_chosen_numbers_reach_the_method(tmp_path, monkeypatch):
  seen = []
  make = methods.make_method

  def spy(name, *args, **kwargs):
    seen.append((kwargs['options'], kwargs['learning_rate'](0)))
    return make(name, *args, **kwargs)

  best = spaces.Trial(0.5, {'temperature': 0.25})
  monkeypatch.setattr(tuning, '_score', lambda rows: -rows[0]['learning_rate'])
  monkeypatch.setattr(
    spaces, 'draw_trials', lambda *args: [spaces.DEFAULTS, best]
  )
  monkeypatch.setattr(methods, 'make_method', spy)
  run(tmp_path, '--tune', '2')
  options, rate = seen[-1]
  assert options == {'temperature': 0.25}
  assert float(rate) == pytest.approx(5e-4)


def test_a_trial_that_is_not_finite_is_never_chosen(tmp_path, monkeypatch):
  wild = spaces.Trial(1e38)
  monkeypatch.setattr(
    spaces, 'draw_trials', lambda *args: [wild, spaces.DEFAULTS, wild]
  )
  run(tmp_path, '--tune', '3', '--optimizer', 'sgd')
  said = json.loads((tmp_path / 'tuning' / 'chosen.json').read_text())
  found = said['methods'][METHOD]
  assert found['chosen'] == 1
  assert found['failed'] == 2
  assert found['default_score'] is None


def test_trials_that_differ_in_numbers_share_a_program(tmp_path, monkeypatch):
  sizes = []
  together = runs.run_specs

  def spy(out, specs, **options):
    sizes.append([x.method for x in specs])
    return together(out, specs, **options)

  monkeypatch.setattr(runs, 'run_specs', spy)
  more = ('--methods', 'fixed', 'pcgrad', '--tune', '4', '--seeds', '1')
  run(tmp_path / 'together', *more)
  drawn = spaces.draw_trials('pcgrad', 2, 4)
  words = [x.options.get('reduction') for x in drawn]
  assert words == [None, 'sum', 'mean', 'mean']
  assert sizes == [
    [f'fixed.trial_{k}' for k in range(1, 4)],
    ['pcgrad.trial_2', 'pcgrad.trial_3'],
  ]
  monkeypatch.setattr(
    tuning, '_programs', lambda found, trials: list(found.values())
  )
  run(tmp_path / 'apart', *more)
  scores = [
    [float(x['validation/score']) for x in rows_of(out / 'tuning/results.csv')]
    for out in (tmp_path / 'together', tmp_path / 'apart')
  ]
  np.testing.assert_allclose(*scores, atol=0.02)


HALVING = ('--tune', '5', '--tune-by', 'halving', '--epochs', '4')
HALVING += ('--seeds', '1')


def test_rungs_halve_trials_and_double_epochs():
  assert tuning.make_rungs('random', 8, 4) == ((8, 1.0),)
  assert tuning.make_rungs('random', 0, 4) == ((0, 1.0),)
  rungs = tuning.make_rungs('halving', 5, 4)
  assert rungs == ((5, 0.25), (3, 0.5), (2, 1.0))
  assert tuning.in_runs(rungs) == 5 / 4 + 3 / 4 + 2 / 2
  assert tuning.make_rungs('halving', 8, 2) == ((8, 0.5), (4, 1.0))


def test_the_mean_over_seeds_is_what_counts(tmp_path, monkeypatch):
  asked = []
  make = spaces.Trial.numbers

  def spy(trial, rate):
    asked.append(trial.rate)
    return make(trial, rate)

  trials = [spaces.Trial(1.0), spaces.Trial(2.0), spaces.Trial(3.0)]
  # The second is best with its first seed, and the third on the whole.
  scores = {(0, 0): 0.5, (0, 1): 0.5, (1, 0): 0.9, (1, 1): 0.1}
  scores |= {(2, 0): 0.6, (2, 1): 0.6}

  def rows(folder, runs_):
    return [
      {
        'method': run.method,
        'seed': run.seed,
        'validation/score': scores[int(run.method[-1]), run.seed - tuning.SEED],
      }
      for run in runs_
    ]

  monkeypatch.setattr(spaces, 'draw_trials', lambda *args: trials)
  monkeypatch.setattr(spaces.Trial, 'numbers', spy)
  monkeypatch.setattr(tuning, '_rows', rows)
  run(tmp_path, '--tune', '3', '--tune-seeds', '2', '--seeds', '1')
  said = json.loads((tmp_path / 'tuning' / 'chosen.json').read_text())
  assert said['seeds'] == 2
  assert said['methods'][METHOD]['chosen'] == 2
  assert asked[-1] == 3.0
  folders = sorted((tmp_path / 'tuning' / 'runs').glob('*/seed_*'))
  assert [x.name for x in folders] == ['seed_1000', 'seed_1001'] * 3
  assert '2 each' in (tmp_path / 'report.html').read_text()


@pytest.fixture(scope='module')
def halved(tmp_path_factory):
  """A comparison of one method that was tuned by halving."""
  out = tmp_path_factory.mktemp('halved') / 'out'
  run(out, *HALVING)
  return out


def test_the_better_half_goes_on(halved, tmp_path, monkeypatch):
  rows = rows_of(halved / 'tuning' / 'results.csv')
  trained = [int(x['trained']) for x in rows]
  assert sorted(trained) == [3, 3, 6, 12, 12]
  kept = json.loads((halved / 'tuning' / 'rungs.json').read_text())
  for rung, steps in zip(kept[METHOD][:2], (3, 6), strict=True):
    stays = {k: x for k, x in rung.items() if trained[int(k)] > steps}
    assert min(stays.values()) >= max(
      x for k, x in rung.items() if k not in stays
    )
  said = json.loads((halved / 'tuning' / 'chosen.json').read_text())
  assert said['methods'][METHOD]['steps'] == sum(trained)
  assert 'the best of them went on' in (halved / 'report.html').read_text()

  together, calls = runs.run_grid, []

  def stop(*args, **options):
    calls.append(args)
    if len(calls) == 2:
      raise KeyboardInterrupt
    return together(*args, **options)

  monkeypatch.setattr(runs, 'run_grid', stop)
  with pytest.raises((KeyboardInterrupt, SystemExit)):
    run(tmp_path / 'parts', *HALVING)
  run(tmp_path / 'parts', *HALVING)
  again = rows_of(tmp_path / 'parts' / 'tuning' / 'results.csv')
  same = ('method', 'trained', 'validation/score', 'best_step', 'resumed_from')
  assert [[x[k] for k in same] for x in again] == [
    [x[k] for k in same] for x in rows
  ]


def test_a_method_that_comes_later_has_rungs_of_its_own(halved, tmp_path):
  out = tmp_path / 'out'
  shutil.copytree(halved, out)
  kept = out / 'tuning' / 'rungs.json'
  first = json.loads(kept.read_text())
  before = {
    path: path.stat().st_mtime_ns
    for path in (out / 'tuning').rglob('result.json')
  }
  run(out, *HALVING, '--methods', METHOD, 'dwa')
  found = json.loads(kept.read_text())
  assert found[METHOD] == first[METHOD]
  assert [len(x) for x in found['dwa']] == [5, 3, 2]
  assert all(path.stat().st_mtime_ns == x for path, x in before.items())


def test_what_cannot_be_tuned_is_refused(tmp_path):
  for more in (
    ('--tune', '-1'),
    ('--tune', '2', '--last-epochs', '1'),
    ('--tune', '2', '--tune-by', 'halving', '--epochs', '1'),
    ('--tune', '1', '--tune-by', 'halving'),
    ('--tune', '2', '--tune-seeds', '0'),
  ):
    with pytest.raises(SystemExit, match='--tune'):
      run(tmp_path / 'x', *more)
  assert not (tmp_path / 'x').exists()
  config = comparison.complete(
    comparison.ComparisonConfig(tune=2, distributed=True), CENSUS
  )
  with pytest.raises(ValueError, match='--tune 2 and --distributed'):
    comparison.check(config, CENSUS)


def test_the_page_says_where_nothing_was_tuned(tmp_path):
  assert 'Nothing was tuned' in shown.in_words({}, None)
  assert 'not ended' in shown.in_words({'tune': 2}, None)
  notes = []
  assert shown.read(tmp_path, notes) is None
  assert not notes
  (tmp_path / 'tuning').mkdir()
  (tmp_path / 'tuning' / 'chosen.json').write_text('{')
  assert shown.read(tmp_path, notes) is None
  assert 'cannot be read' in notes[0]

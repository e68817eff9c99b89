"""The optimizer study: its runs, selection, verdicts and what is refused."""

import csv
import dataclasses
import json
import math
import re

import numpy as np
import pytest
import rich.console

from experiments.report import __main__ as report_command
from experiments.report.results import ReportError
from experiments.report.verdicts import FAILS, HOLDS, UNDECIDED
from experiments.studies.optimizer import claims, study
from experiments.studies.optimizer import grid as grids
from experiments.studies.optimizer import runs as study_runs
from experiments.studies.optimizer.claims import Grid
from experiments.studies.optimizer.grid import Group, Part
from experiments.studies.optimizer.runs import Baseline, GridRun, Selected
from experiments.suites import Data, DataOptions, digits, mlp

QUIET = rich.console.Console(quiet=True, width=124)
TASKS = ('left', 'right')
RATES = (0.1, 1e30)
SMALL = study.OptimizerConfig(
  optimizers=('momentum', 'mtl_io'),
  methods=('sum_losses',),
  ratios=(1.0, 100.0),
  learning_rates=RATES,
  baseline_rates=(0.01,),
  seeds=1,
  epochs=2,
  hidden_sizes=(4,),
  batch_size=16,
)


@pytest.fixture(scope='module')
def source():
  """Labels that a network can read off six numbers."""
  rng = np.random.default_rng(0)
  splits = {}
  for name, size in (('train', 32), ('validation', 24), ('test', 24)):
    inputs = rng.normal(size=(size, 6)).astype(np.float32)
    labels = {
      t: (inputs[:, i] > 0).astype(np.int32) for i, t in enumerate(TASKS)
    }
    splits[name] = {'inputs': inputs, **labels}
  task = digits.SUITE.tasks[0]
  suite = dataclasses.replace(
    digits.SUITE,
    name='planted',
    tasks=tuple(
      dataclasses.replace(task, name=name, num_outputs=2, num_classes=2)
      for name in TASKS
    ),
    networks={'multi_mlp': mlp()},
  )
  return suite, Data(splits, lambda batch: batch['inputs'])


@pytest.fixture(scope='module')
def small(source, tmp_path_factory):
  """A study that has been run."""
  config = dataclasses.replace(SMALL, out=tmp_path_factory.mktemp('o') / 'out')
  study.run(config, source, QUIET)
  return config


def part(optimizer, ratio=1.0, method='sum_losses'):
  return Part(Group(optimizer, method), ratio, 0)


def test_every_run_has_a_row_and_some_diverge(small):
  with (small.out / 'results.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 2 * 2 * 2  # optimizers, ratios, learning rates
  by_rate = {
    rate: [r for r in rows if float(r['learning_rate']) == rate]
    for rate in RATES
  }
  assert {r['status'] for r in by_rate[0.1]} == {'ok'}
  assert {r['status'] for r in by_rate[1e30]} == {'diverged in epoch 1'}
  assert {r['test/delta_m'] for r in by_rate[1e30]} == {'nan'}
  assert all(r['selected'] == str(r in by_rate[0.1]) for r in rows)
  summary = json.loads((small.out / 'summary.json').read_text())
  assert summary['failures'] == []
  assert sum(x['diverged'] for x in summary['diverged']) == 4


def test_a_diverged_run_and_the_others_ratios_do_not_touch_a_run(small, source):
  training = grids.Training(*source, (4,), (), 2, 16, 'map')
  alone = grids.train(training, [part('momentum', 100.0)], (0.1,))[0]
  found = part('momentum', 100.0).read(small.out)
  for name, values in alone.items():
    np.testing.assert_allclose(found[name][:1], values, rtol=1e-4, err_msg=name)
  other = part('momentum').read(small.out)
  assert np.any(other['test/loss'][0] != found['test/loss'][0])


def test_mtl_io_is_momentum_on_the_sum(small):
  """A linear optimizer on each gradient is that on their sum."""
  one, other = part('momentum', 100.0), part('mtl_io', 100.0, '')
  np.testing.assert_allclose(
    one.read(small.out)['test/loss'][0],
    other.read(small.out)['test/loss'][0],
    rtol=1e-4,
  )


def test_page_and_summary_are_made_again_to_the_byte(small):
  page = (small.out / 'report.html').read_bytes()
  summary = (small.out / 'summary.json').read_bytes()
  report_command.main(small.out)
  assert (small.out / 'report.html').read_bytes() == page
  assert (small.out / 'summary.json').read_bytes() == summary
  assert not re.search(r'https?:|@import|<script ', page.decode())
  assert page.count(b'role="img"') == 2 + 2  # learning rates, fronts


def test_only_what_is_missing_is_trained(small, source, monkeypatch):
  trained = []

  def train(training, parts, rates, callback):
    trained.extend(parts)
    return real(training, parts, rates, callback)

  real = grids.train
  monkeypatch.setattr(grids, 'train', train)
  study.run(small, source, QUIET)
  assert trained == []
  before = part('momentum', 100.0).read(small.out)
  path = part('momentum', 100.0).path(small.out)
  path.write_bytes(path.read_bytes()[:100])
  study.run(small, source, QUIET)
  assert trained == [part('momentum', 100.0)]
  after = part('momentum', 100.0).read(small.out)
  np.testing.assert_allclose(after['test/loss'], before['test/loss'], rtol=1e-4)
  with pytest.raises(ValueError, match='epochs'):
    changed = dataclasses.replace(small, epochs=3)
    study.run(changed, source, QUIET)


def test_a_study_without_baselines_has_no_report(tmp_path):
  config = dataclasses.asdict(SMALL) | {'tasks': list(TASKS)}
  (tmp_path / 'config.json').write_text(json.dumps(config, default=str))
  with pytest.raises(ReportError, match='no finished single-task runs'):
    study_runs.read_runs(tmp_path)


def test_inputs_are_made_once_and_flat(source):
  suite, _ = source
  images = np.arange(2 * 4 * 4, dtype=np.float32).reshape(2, 4, 4, 1)
  whole = {'image': images, 'left': np.zeros(2), 'right': np.ones(2)}
  found = grids.with_inputs(
    suite, Data({'train': whole}, lambda batch: 2 * batch['image'])
  )
  train = found.splits['train']
  np.testing.assert_array_equal(train['inputs'], 2 * images.reshape(2, 16))
  np.testing.assert_array_equal(train['right'], whole['right'])
  assert found.inputs(train) is train['inputs']


def test_epoch_and_rate_are_those_of_the_best_validation():
  baselines = [
    Baseline(task, f'accuracy/{task}', True, 0.1, 0.5, 0.4, 3) for task in TASKS
  ]
  score = np.full((3, 3, 2), 0.25)
  score[0, 1] = 0.5  # as good as alone, in the second epoch
  score[1, 2] = 0.75  # better, but no longer finite
  finite = np.ones((3, 3), bool)
  finite[1, 1:] = False
  finite[2] = False
  arrays = {
    'rates': np.array([0.1, 0.01, 0.001]),
    'validation/score': score,
    'test/score': score * 0.8,
    'validation/loss': np.ones_like(score),
    'finite': finite,
  }
  runs = [
    run
    for seed in range(2)
    for run in study_runs._runs(
      Part(Group('adam', 'mean'), 1.0, seed), arrays, baselines
    )
  ]
  assert [run.epoch for run in runs[:3]] == [2, 1, None]
  assert [run.status for run in runs[:3]] == [
    'ok',
    'diverged in epoch 2',
    'diverged in epoch 1',
  ]
  np.testing.assert_allclose(runs[0].test, 0.0, atol=1e-12)
  np.testing.assert_allclose(runs[1].test, 50.0)
  notes = []
  (found,) = study_runs._select(runs, notes)
  assert (found.rate, found.at_edge, sorted(found.runs)) == (0.1, True, [0, 1])
  # With one seed that never was finite, a learning rate is out.
  lost = [run for run in runs if run.seed or run.rate != 0.1]
  lost.append(runs[2]._replace(rate=0.1))
  (found,) = study_runs._select(lost, notes)
  assert (found.rate, found.at_edge) == (0.01, False)
  assert notes == []
  assert study_runs._select(runs[2::3], notes) == []
  assert 'adam.mean at ratio 1 diverged' in notes[0]


METHODS = ('sum_losses', 'pcgrad', 'cagrad')


def grid(drop, seeds=3, ratios=(1.0, 1000.0), scales=(), higher=()):
  """Selected runs whose delta-m is planted, the same drop in both tasks.

  ``scales`` is how far the losses are apart, ``higher`` the directions.
  """
  signs = np.where(higher or (True, True), 1, -1)
  found = []
  for ratio in ratios:
    cells = [(o, m) for o in ('adam', 'signsgd', 'momentum') for m in METHODS]
    for optimizer, method in [*cells, ('adatask', ''), ('mtl_io', '')]:
      runs = {}
      for seed in range(seeds):
        noise = 0.1 * np.random.default_rng([seed, len(optimizer)]).normal()
        value = float(drop(optimizer, method, ratio) + noise)
        scores = tuple(1 - signs * value / 100)
        runs[seed] = GridRun(
          *(optimizer, method, ratio, seed, 0.1, 1),
          *(value, value, scores, 'ok', *scales),
        )
      found.append(Selected(optimizer, method, ratio, 0.1, False, runs))
  return Grid(found, higher)


def outcomes(planted, num_rates=10, min_seeds=3, **options):
  found = claims.claims(
    planted, num_rates=num_rates, min_seeds=min_seeds, **options
  )
  return {v.claim: v.outcome for v in found}


def as_claimed(optimizer, method, ratio):
  place = {'adam': 0, 'adatask': -2, 'signsgd': 3}.get(optimizer, 6)
  wide = 4 if ratio > 1 else 1
  return place * wide + (METHODS.index(method) if method else 0)


def test_claims_hold_as_planted():
  planted = grid(as_claimed)
  assert outcomes(planted) == {'E2': HOLDS, 'E3': HOLDS, 'E4': HOLDS}
  assert outcomes(planted, num_rates=9)['E2'] == UNDECIDED
  assert outcomes(planted, num_rates=9, min_rates=9)['E2'] == HOLDS
  assert set(outcomes(planted, min_seeds=4).values()) == {UNDECIDED}


@pytest.mark.parametrize(
  'drop, wanted',
  [
    # The other way round.
    (
      lambda *cell: -as_claimed(*cell),
      {'E2': FAILS, 'E3': FAILS, 'E4': FAILS},
    ),
    # The methods differ more than the optimizers do.
    (
      lambda o, m, r: as_claimed(o, m, r) + (60 * METHODS.index(m) if m else 0),
      {'E3': FAILS, 'E4': HOLDS},
    ),
    # The gap is there at every ratio.
    (lambda o, m, _: as_claimed(o, m, 1.0), {'E2': HOLDS, 'E3': UNDECIDED}),
    # AdaTask alone is worse.
    (
      lambda o, m, r: 9 if o == 'adatask' else as_claimed(o, m, r),
      {'E2': HOLDS, 'E3': HOLDS, 'E4': FAILS},
    ),
    # One method is better with SGD.
    (
      lambda o, m, r: (
        as_claimed(o, m, r) - 99 * (o == 'momentum' and m == 'cagrad')
      ),
      {'E2': FAILS},
    ),
  ],
)
def test_claims_fail_as_planted(drop, wanted):
  found = outcomes(grid(drop))
  assert {claim: found[claim] for claim in wanted} == wanted


@pytest.mark.parametrize(
  'scales, wanted',
  [
    ((12.0, 3.0), HOLDS),  # before the first step
    ((3.0, 12.0), HOLDS),  # where Adam on the sum ends
    ((9.0, 9.0), UNDECIDED),
    ((math.nan, 12.0), HOLDS),
    ((), UNDECIDED),  # not known
  ],
)
def test_with_one_ratio_the_scales_at_hand_say_whether_e3_is_judged(
  scales, wanted
):
  large = lambda o, m, r: as_claimed(o, m, 1000.0)
  assert outcomes(grid(large, ratios=(1.0,), scales=scales))['E3'] == wanted
  wide = lambda o, m, r: as_claimed(o, m, r) + 60 * METHODS.index(m or 'pcgrad')
  outcome = outcomes(grid(wide, ratios=(1.0,), scales=scales))['E3']
  assert outcome == (FAILS if wanted == HOLDS else UNDECIDED)
  found = claims.claims(
    grid(large, ratios=(1.0,), scales=scales), num_rates=10, min_seeds=3
  )[1]
  assert 'At the one ratio the largest loss is' in found.sentence


def test_how_far_losses_are_apart_is_a_mean_over_seeds():
  losses = np.array([0.5, 2.0, 0.01])
  assert study_runs._largest_over_smallest(losses, 1.0) == pytest.approx(200)
  assert study_runs._largest_over_smallest(losses, 1000.0) == pytest.approx(20)
  assert math.isnan(
    study_runs._largest_over_smallest(np.array([1.0, 0.0]), 1.0)
  )
  assert math.isnan(
    study_runs._largest_over_smallest(np.array([1.0, np.nan]), 1.0)
  )
  planted = grid(as_claimed, seeds=2, ratios=(1.0,))
  for cell in planted.selected:
    for seed, run in cell.runs.items():
      end = (4.0, 9.0)[seed] if cell.method == 'sum_losses' else 1.0
      cell.runs[seed] = run._replace(start=(2.0, 8.0)[seed], end=end)
  np.testing.assert_allclose(planted.loss_scales(1.0), (4.0, 6.0))


def test_a_run_dominates_by_the_directions_of_the_measures():
  """The same planted drops, as accuracies or as errors."""
  options = {'ratios': (1.0,), 'seeds': 2}
  more = claims.fronts(grid(as_claimed, **options))
  mixed = claims.fronts(grid(as_claimed, **options, higher=(True, False)))
  less = claims.fronts(grid(as_claimed, **options, higher=(False, False)))
  plain = [front._replace(hypervolume=None) for front in more]
  assert plain == mixed == less
  assert outcomes(grid(as_claimed, higher=(False, True)))['E2'] == HOLDS


def test_nothing_measured_is_undecided():
  assert set(outcomes(Grid([])).values()) == {UNDECIDED}
  one = Grid([x for x in grid(as_claimed).selected if x.optimizer == 'adam'])
  assert set(outcomes(one).values()) == {UNDECIDED}


def test_counts_of_the_pareto_set():
  found = claims.fronts(grid(as_claimed, ratios=(1.0,)))
  adam, momentum = found
  assert (adam.runs, momentum.runs) == (4 * 3, 4 * 3)
  assert (adam.optimal, adam.unbeaten) == (1, 12)  # both tasks drop alike
  assert (momentum.optimal, momentum.unbeaten) == (0, 0)
  assert adam.hypervolume > momentum.hypervolume


def test_shares_of_the_variance():
  rng = np.random.default_rng(0)
  method, optimizer = rng.normal(size=3), rng.normal(size=2)
  values = np.tile(method[:, None] + optimizer, (4, 1, 1))
  found = claims.variance_shares(values)
  ratio = optimizer.var() / (optimizer.var() + method.var())
  np.testing.assert_allclose(found['optimizer'], ratio)
  np.testing.assert_allclose(found['method'], 1 - ratio)
  np.testing.assert_allclose(found['both together'], 0, atol=1e-12)
  found = claims.variance_shares(rng.normal(size=(4, 3, 2)))
  np.testing.assert_allclose(sum(found.values()), 1)
  assert min(found.values()) > 0
  found = claims.variance_shares(np.ones((2, 3, 2)))
  assert np.isnan(list(found.values())).all()


@pytest.mark.parametrize(
  'options, message',
  [
    ({'optimizers': ('adm',)}, "Did you mean 'adam'?"),
    ({'optimizers': ()}, '--optimizers is empty'),
    ({'methods': ('cagard',)}, "Did you mean 'cagrad'?"),
    ({'methods': ('adatask',)}, "--methods='adatask'"),
    ({'methods': ()}, '--methods is empty'),
    ({'ratios': (0.0,)}, '--ratios=0'),
    ({'learning_rates': (-1.0,)}, '--learning-rates=-1'),
    ({'baseline_rates': ()}, '--baseline-rates is empty'),
    ({'seeds': 0}, '--seeds=0'),
    ({'data': DataOptions(pool=0)}, '--data.pool=0'),
    ({'suite': 'faces'}, "--suite='faces'"),
    ({'hidden_sizes': (0,)}, '--hidden-sizes=0'),
    ({'learning_rates': (0.1, 0.1)}, '--learning-rates names 0.1 twice'),
    (
      {'suite': 'census', 'data': DataOptions(num_test=-2)},
      '--data.num-test=-2',
    ),
  ],
)
def test_wrong_options_are_named(options, message):
  config = dataclasses.replace(study.OptimizerConfig(), **options)
  with pytest.raises(ValueError, match=re.escape(message)):
    study.check(config)

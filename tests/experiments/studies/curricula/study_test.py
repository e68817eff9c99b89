"""The study end to end, its claims on planted scores, and what is refused."""

import dataclasses
import itertools
import json

import flight_rows
import jax
import numpy as np
import pytest
import rich.console
from written import rows

from experiments.lab import study as lab_study
from experiments.report import __main__ as report_command
from experiments.report import files
from experiments.report.verdicts import FAILS, HOLDS, UNDECIDED
from experiments.studies.curricula import claims, orders
from experiments.studies.curricula import study as program
from experiments.studies.curricula.claims import ARMS, BOTH, RANDOM, REVERSED
from experiments.studies.curricula.problems import (
  REGRESSION,
  carriers,
  planted,
)
from experiments.suites import DataOptions, flights

QUIET = rich.console.Console(quiet=True, width=124)


@pytest.fixture(scope='module')
def small(tmp_path_factory):
  """A few steps of a small network, and their folder."""
  config = program.CurriculaConfig(
    out=tmp_path_factory.mktemp('curricula') / 'out',
    problems=('planted',),
    num_tasks=8,
    hidden_sizes=(4,),
    base_steps=5,
    passes=1,
    batch_size=4,
    seeds=1,
    data=DataOptions(num_train=80, num_test=80),
    progress=False,
  )
  assert lab_study.run(config, program.prepare(config, QUIET), QUIET) == 0
  return config


def test_every_arm_has_a_row(small):
  found = rows(small)
  assert [x['method'] for x in found] == [f'planted.{arm}' for arm in ARMS]
  assert all(x['status'] == 'ok' and x['best_step'] == '' for x in found)
  costs = [float(found[0][x]) for x in ('optimum', 'cost', 'z', 'gap')]
  assert costs[0] <= costs[1] + 1e-6
  assert costs[2] < 0 and -1e-6 < costs[3] < 1


def test_the_page_has_the_accuracies(small):
  report_command.main(small.out)
  summary = json.loads((small.out / 'summary.json').read_text())
  accuracy = {x['arm']: x['score']['mean'] for x in summary['arms']}
  for row in rows(small):
    arm = row['method'].partition('.')[2]
    assert accuracy[arm] == float(row['test/accuracy'])
  gain = {x['arm']: x['gain']['mean'] for x in summary['arms']}
  expected = 100 * (accuracy[BOTH] - accuracy[RANDOM])
  assert gain[BOTH] == pytest.approx(expected)
  assert {x['outcome'] for x in summary['verdicts']} == {UNDECIDED}
  assert 'Accuracy on planted' in (small.out / 'report.html').read_text()


def test_the_study_goes_on_where_it_was(small):
  before = rows(small)
  path = small.out / 'runs/planted.reversed/seed_0' / files.RESULT
  path.unlink()
  lab_study.run(small, program.prepare(small, QUIET), QUIET)
  assert path.exists()
  column = 'test/accuracy'
  assert [x[column] for x in rows(small)] == [x[column] for x in before]


TASKS = planted(8, DataOptions(num_train=160, num_test=160), print)
#: Tasks on a line, and margins that are the number of the row.
BASE = orders.Base(
  {},
  np.stack([np.cos(np.arange(8) / 8), np.sin(np.arange(8) / 8)], 1),
  np.arange(160.0),
)


def schedule(arm):
  return orders.make_schedule(
    TASKS,
    BASE,
    arm,
    jax.random.key(0),
    batch_size=4,
    rounds=1,
    drop=0.2,
  )


def order_of(found):
  return [task for task, _ in itertools.groupby(found.tasks.tolist())]


def test_arms_are_what_they_are_called():
  both, random, reversed_ = map(schedule, (BOTH, RANDOM, REVERSED))
  line = list(range(8))
  assert order_of(both) in (line, line[::-1])
  assert order_of(schedule(claims.ORDER)) == order_of(both)
  assert order_of(random) not in (line, line[::-1])
  assert order_of(schedule(claims.INSTANCES)) == order_of(random)
  assert sorted(order_of(reversed_)) == line
  steps = np.abs(np.diff(order_of(reversed_)))
  assert steps.min() > 1
  # The four of twenty with the least margins are left out.
  first = both.indices[both.tasks == 0].reshape(-1)
  np.testing.assert_array_equal(first, np.arange(19, 3, -1))
  back = reversed_.indices[reversed_.tasks == 0].reshape(-1)
  np.testing.assert_array_equal(back, first[::-1])
  whole = random.indices[random.tasks == 0].reshape(-1)
  assert sorted(whole) == list(range(20)) and list(whole) != sorted(whole)


def test_least_cost_is_that_of_all_orders():
  costs = np.random.default_rng(0).uniform(size=(6, 6))
  found = [
    costs[list(p[:-1]), list(p[1:])].sum()
    for p in itertools.permutations(range(6))
  ]
  np.testing.assert_allclose(orders.least_cost(costs), min(found))


def test_an_annealed_order_beside_random_ones():
  found = orders.compare_orders(BASE, jax.random.key(0))
  # Seven neighbours, an eighth of a radian apart.
  np.testing.assert_allclose(found['cost'], 7 * (1 - np.cos(1 / 8)), rtol=1e-5)
  np.testing.assert_allclose(found['gap'], 0, atol=1e-5)
  assert found['z'] < -2


def test_planted_tasks_are_not_in_order():
  train = TASKS.train
  places = np.stack([train['x'][r, :2].mean(0) for r in TASKS.rows()])
  angles = np.arctan2(places[:, 1], places[:, 0])
  assert not (np.diff(angles) > 0).all()
  np.testing.assert_allclose(np.linalg.norm(places, axis=1), 2, atol=0.8)


def scores(**changes):
  """Accuracies of five seeds on two problems, changed by arm."""
  base = dict.fromkeys(ARMS, 0.8) | changes
  rng = np.random.default_rng(0)
  return {
    problem: {
      arm: {s: base[arm] + 1e-3 * rng.normal() for s in range(5)}
      for arm in ARMS
    }
    for problem in ('a', 'b')
  }


def costs(z, gap):
  rng = np.random.default_rng(1)
  return {
    'a': {
      s: {'z': z + 0.01 * rng.normal(), 'gap': gap + 0.001 * rng.normal()}
      for s in range(5)
    }
  }


def outcomes(found, orders_, min_seeds=3):
  return {x.claim: x.outcome for x in claims.claims(found, orders_, min_seeds)}


def test_claims_on_planted_scores():
  better = {BOTH: 0.85, claims.ORDER: 0.82, claims.INSTANCES: 0.82}
  found = scores(**better, **{REVERSED: 0.7})
  assert outcomes(found, costs(-3, 0.01)) == dict.fromkeys(
    ('DC1', 'DC2', 'DC3'), HOLDS
  )
  assert set(outcomes(found, costs(-3, 0.01), min_seeds=6).values()) == {
    UNDECIDED
  }
  worse = scores(**better | {claims.ORDER: 0.75}, **{REVERSED: 0.9})
  assert outcomes(worse, costs(-1.5, 0.01)) == dict.fromkeys(
    ('DC1', 'DC2', 'DC3'), FAILS
  )
  assert outcomes(found, costs(-3, 0.2))['DC1'] == FAILS
  assert set(outcomes({}, {}).values()) == {UNDECIDED}
  gains = claims.gains(found, BOTH, RANDOM)
  np.testing.assert_allclose(np.mean(list(gains.values())), 5, atol=0.2)


@pytest.fixture(scope='module')
def flights_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('flights')
  flight_rows.write(folder, flight_rows.make_rows(300))
  return folder


def test_carriers_are_tasks(flights_dir):
  options = DataOptions(dir=flights_dir, num_train=150, num_test=60)
  found = carriers(10, options, print)
  assert found.num_tasks == 3
  assert [len(rows) for rows in found.rows()] == [50, 50, 50]
  np.testing.assert_array_equal(np.bincount(found.test['owner']), [20, 20, 20])
  for own in found.rows():
    np.testing.assert_allclose(found.train['label'][own].mean(), 0, atol=1e-4)
    np.testing.assert_allclose(found.train['label'][own].std(), 1, atol=0.3)
  x = found.train['x']
  np.testing.assert_allclose(x.mean(0), 0, atol=1e-4)
  assert set(np.round(x.std(0), 3)) <= {0.0, 1.0}
  # Two thirds of what there is, where more is asked for.
  most = carriers(10, dataclasses.replace(options, num_train=9000), print)
  kept = np.bincount(carriers_of(flights_dir))
  np.testing.assert_array_equal(np.bincount(most.train['owner']), 2 * kept // 3)


def carriers_of(folder):
  return flights.by_carrier(DataOptions(dir=folder), print).owner


def test_difficult_is_what_is_far_off():
  outputs, labels = np.array([0.0, 1.0, 3.0]), np.array([0.5, 1.0, 1.0])
  np.testing.assert_allclose(
    REGRESSION.margins(outputs, labels), [-0.25, 0, -4]
  )
  np.testing.assert_allclose(REGRESSION.scores(outputs, labels), [0.75, 1, -3])
  np.testing.assert_allclose(REGRESSION.losses(outputs, labels), [0.25, 0, 4])


def test_carriers_go_through_the_study(flights_dir, tmp_path):
  config = program.CurriculaConfig(
    out=tmp_path / 'out',
    problems=('carriers',),
    hidden_sizes=(4,),
    base_steps=5,
    passes=1,
    batch_size=4,
    seeds=1,
    data=DataOptions(dir=flights_dir, num_train=60, num_test=60),
    progress=False,
  )
  assert lab_study.run(config, program.prepare(config, QUIET), QUIET) == 0
  report_command.main(config.out)
  summary = json.loads((config.out / 'summary.json').read_text())
  assert summary['score'] == 'explained variance'
  explained = {x['arm']: x['score']['mean'] for x in summary['arms']}
  for row in rows(config):
    arm = row['method'].partition('.')[2]
    assert explained[arm] == float(row['test/explained']) < 1
  labels = [x['label'] for x in summary['verdicts'][1]['measured']]
  assert labels[0] == 'points of explained variance, both less random'
  both = dataclasses.replace(config, problems=('planted', 'carriers'))
  with pytest.raises(ValueError, match='cannot be averaged.*explained'):
    program.prepare(both, QUIET)


@pytest.mark.parametrize(
  ('options', 'match'),
  [
    ({'problems': ('planted', 'planted')}, 'none twice'),
    ({'problems': ('digits',)}, "Did you mean 'digit_pairs'"),
    ({'num_tasks': 13}, '--num-tasks=13 must be at least 8 and at most 12'),
    ({'drop': 1.0}, '--drop=1.0'),
    ({'hidden_sizes': ()}, 'the trunk needs a layer'),
    ({'batch_size': 300, 'problems': ('planted',)}, 'has 200 examples'),
  ],
)
def test_what_cannot_be_run_is_refused(options, match):
  config = dataclasses.replace(program.CurriculaConfig(), **options)
  with pytest.raises(ValueError, match=match):
    program.prepare(config, QUIET)

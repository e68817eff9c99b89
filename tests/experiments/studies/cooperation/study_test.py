"""The study end to end, its claims on planted runs, and what is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import rich.console
from written import rows

from experiments.lab import study as lab_study
from experiments.report import __main__ as report_command
from experiments.report import files
from experiments.report.verdicts import FAILS, HOLDS, UNDECIDED
from experiments.studies.cooperation import arms, claims, problems
from experiments.studies.cooperation import study as program
from experiments.studies.cooperation.claims import (
  ALTERNATING,
  APART,
  JOINT,
  PLAIN,
  Found,
)
from experiments.suites import DataOptions

QUIET = rich.console.Console(quiet=True, width=124)
ARMS = (*PLAIN, 'uniform_0.3', 'uniform_1', 'ascent_0.3', 'ascent_1')


@pytest.fixture(scope='module')
def small(tmp_path_factory):
  """Two passes of small sub-models, and their folder."""
  config = program.CooperationConfig(
    out=tmp_path_factory.mktemp('cooperation') / 'out',
    problems=('one_way',),
    bounds=(0.3, 1.0),
    hidden=4,
    width=2,
    passes=2,
    batch_size=16,
    seeds=1,
    data=DataOptions(num_train=32, num_validation=16, num_test=16),
    progress=False,
  )
  assert lab_study.run(config, program.prepare(config, QUIET), QUIET) == 0
  return config


def test_every_arm_has_a_row(small):
  found = rows(small)
  assert [x['method'] for x in found] == [f'one_way.{arm}' for arm in ARMS]
  for row in found:
    assert row['status'] == 'ok'
    values = Found(*(float(row[x]) for x in Found._fields))
    assert values.accuracy == pytest.approx(float(row['test/accuracy']))
    tasks = [float(row[f'test/accuracy/{t}']) for t in program.TASKS]
    assert values.accuracy == pytest.approx(np.mean(tasks))
    moved = values.params_change, values.features_change
    assert (moved == (0, 0)) == (row['method'] == f'one_way.{APART}')
  assert len({row['loss'] for row in found}) == len(ARMS)


def test_the_page_has_the_numbers(small):
  report_command.main(small.out)
  summary = json.loads((small.out / 'summary.json').read_text())
  found = {x['arm']: x for x in summary['arms']}
  for row in rows(small):
    arm = row['method'].partition('.')[2]
    expected = 100 * float(row['accuracy'])
    assert found[arm]['accuracy']['mean'] == pytest.approx(expected)
    assert found[arm]['loss']['mean'] == pytest.approx(float(row['loss']))
  gain = found[APART]['accuracy']['mean'] - found[JOINT]['accuracy']['mean']
  assert found[APART]['gain']['mean'] == pytest.approx(gain)
  assert [x['outcome'] for x in summary['verdicts']] == [UNDECIDED] * 3
  assert 'Arms on one_way' in (small.out / 'report.html').read_text()


def test_the_study_goes_on_where_it_was(small):
  before = rows(small)
  path = small.out / 'runs/one_way.uniform_1/seed_0' / files.RESULT
  path.unlink()
  lab_study.run(small, program.prepare(small, QUIET), QUIET)
  assert path.exists()
  assert [x['loss'] for x in rows(small)] == [x['loss'] for x in before]


OPTIONS = DataOptions(num_train=400, num_validation=100, num_test=400)


@pytest.mark.parametrize('name', ['one_way', 'both_ways'])
def test_planted_labels_need_what_is_said(name):
  tasks = problems.planted(name, OPTIONS, print)
  test = tasks.splits['test']
  assert [len(np.unique(test[f'y{t}'])) for t in range(2)] == list(
    tasks.classes
  )
  signs = _signs(test)
  # Of which sign of which modality does each label say something alone, or
  # with a sign of the other modality?
  if name == 'one_way':
    np.testing.assert_array_equal(
      test['y0'], 4 * signs[0][0] + 2 * signs[0][1] + signs[0][2]
    )
    np.testing.assert_array_equal(test['y1'] // 2, signs[0][0] ^ signs[1][0])
  else:
    np.testing.assert_array_equal(test['y0'] // 2, signs[0][0] ^ signs[1][1])
    np.testing.assert_array_equal(test['y1'] // 2, signs[1][0] ^ signs[0][1])
  train = problems.planted(name, OPTIONS, print).splits['train']
  signs = _signs(train)
  expected = problems._PLANTED[name][0](*signs)
  for t, classes in enumerate(tasks.classes):
    wrong = np.mean(train[f'y{t}'] != expected[t])
    assert abs(wrong - problems.WRONG * (1 - 1 / classes)) < 0.05


def _signs(arrays):
  rng = np.random.default_rng([OPTIONS.seed, 2])
  directions = [
    np.linalg.qr(rng.normal(size=(problems.SIZE, 3)))[0] for _ in range(2)
  ]
  return [
    (arrays[f'x{t}'] @ directions[t] > 0).T.astype(np.int32) for t in range(2)
  ]


def test_apart_sees_nothing_of_the_other():
  tasks = problems.planted('one_way', OPTIONS, print)
  pair = arms.SubModelPair(tasks, hidden=4, width=2)
  first, other = (pair.init(jax.random.key(i)) for i in range(2))
  arrays = dict(tasks.splits['test'])
  measured = lambda params, apart: pair.measured(params, arrays, apart)[1]
  mixed = first[0], other[1]
  alone = measured(first, 1.0)
  assert alone[0] == measured(mixed, 1.0)[0]
  assert abs(alone[0] - measured(first, 0.0)[0]) > 1e-4
  assert abs(measured(first, 0.0)[0] - measured(mixed, 0.0)[0]) > 1e-4
  features, losses = pair.functions(apart=True)
  found = [features[t](first[t], arrays) for t in range(2)]
  np.testing.assert_allclose(
    [losses[t](first[t], found, arrays) for t in range(2)], alone, rtol=1e-6
  )


def planted_runs(**changes):
  """Runs of five seeds on three problems, changed by arm."""
  rng = np.random.default_rng(0)
  names = (*PLAIN, *(claims.arm_of(s, b) for s in claims.SEARCHES for b in B))
  return {
    problem: {
      arm: {
        seed: Found(
          *np.array(changes.get(arm, (0.8, 0.8, 1.0, 0.2, 0.2)))
          + 1e-3 * rng.normal(size=5)
        )
        for seed in range(5)
      }
      for arm in names
    }
    for problem in ('one_way', 'both_ways', 'halves')
  }


B = (0.1, 1.0, 3.0)
GOOD = (0.85, 0.85, 0.5, 0.1, 0.1)
#: The best on test, which is not the best on validation.
TEMPTING = (0.95, 0.7, 0.5, 0.3, 0.1)


def outcomes(runs, min_seeds=3):
  return {x.claim: x.outcome for x in claims.claims(runs, B, min_seeds)}


def test_claims_on_planted_runs():
  good = {'uniform_1': GOOD, 'ascent_0.1': GOOD}
  found = planted_runs(**good, **{'uniform_0.1': TEMPTING})
  names = ('MC1', 'MC2', 'MC3')
  assert outcomes(found) == dict.fromkeys(names, HOLDS)
  assert outcomes(found, min_seeds=6) == dict.fromkeys(names, UNDECIDED)
  worse = planted_runs(
    **{
      ALTERNATING: (0.79, 0.8, 1.0, 0.1, 0.2),
      'uniform_3': (0.9, 0.9, 1.0, 0.2, 0.2),
    }
  )
  assert outcomes(worse) == dict.fromkeys(names, FAILS)
  assert outcomes({}) == dict.fromkeys(names, UNDECIDED)
  del found['halves']
  assert outcomes(found)['MC1'] == UNDECIDED
  best = claims.chosen(found['one_way'], B)['best uniform']
  assert best == found['one_way']['uniform_1']
  gains = claims.differences(found, ['one_way'], 'uniform_1', JOINT, 'accuracy')
  np.testing.assert_allclose(list(gains.values()), 5, atol=0.6)


@pytest.mark.parametrize(
  ('options', 'match'),
  [
    ({'problems': ('one_way', 'one_way')}, 'none twice'),
    ({'problems': ('halfs',)}, "Did you mean 'halves'"),
    ({'bounds': (0.1,)}, 'at least two numbers'),
    ({'bounds': (0.1, 0.0)}, '--bounds=0.0'),
    ({'warmup': 1.5}, '--warmup=1.5'),
    ({'hidden': 0}, '--hidden=0'),
    ({'batch_size': 3000, 'problems': ('one_way',)}, 'has 2000 examples'),
  ],
)
def test_what_cannot_be_run_is_refused(options, match):
  config = dataclasses.replace(program.CooperationConfig(), **options)
  with pytest.raises(ValueError, match=match):
    program.prepare(config, QUIET)

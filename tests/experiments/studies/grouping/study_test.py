"""The study end to end, its affinities and groupings, and what is refused."""

import dataclasses
import itertools
import json

import flight_rows
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console
from written import rows

from experiments.report import __main__ as report_command
from experiments.report.seeds import path_of
from experiments.report.verdicts import FAILS, HOLDS, UNDECIDED
from experiments.studies.grouping import affinities, claims, groupings
from experiments.studies.grouping import problems as problems_
from experiments.studies.grouping import study as program
from experiments.studies.grouping.report import read_numbers
from experiments.suites import DataOptions
from mtljax import data, diagnostics

QUIET = rich.console.Console(quiet=True, width=124)
GROUPS = 2**6 - 1


@pytest.fixture(scope='module')
def small(tmp_path_factory):
  """A few steps of small networks, their folder, and the parts."""
  config = program.GroupingConfig(
    out=tmp_path_factory.mktemp('grouping') / 'out',
    problems=('planted',),
    steps=3,
    hidden_sizes=(4,),
    batch_size=16,
    probe_every=2,
    seeds=1,
    data=DataOptions(num_train=64, num_validation=32, num_test=32),
    progress=False,
  )
  settings = program.prepare(config, QUIET)
  program.run(config, settings, QUIET)
  return config, settings


def test_every_group_has_a_row_and_the_study_goes_on(small):
  config, settings = small
  found = rows(config)
  assert len(found) == GROUPS and found[0]['group'] == 'a0'
  assert found[-1]['group'] == 'a0+a1+a2+b0+b1+b2'
  pair = next(x for x in found if x['group'] == 'a1+b2')
  assert float(pair['test/b2']) > 0 and pair['test/a0'] == ''
  path_of(config.out, 'planted', 0).unlink()
  program.run(config, settings, QUIET)
  assert rows(config) == found


def test_the_page_has_gains(small):
  config, _ = small
  report_command.main(config.out)
  summary = json.loads((config.out / 'summary.json').read_text())
  by_group = {x['group']: x for x in rows(config)}
  alone, both = (float(by_group[x]['test/b2']) for x in ('b2', 'a1+b2'))
  found = {(x['from'], x['to']): x for x in summary['pairs']['planted']}
  wanted = 100 * (alone - both) / alone  # of an error, less is better
  assert found['a1', 'b2']['gain'] == pytest.approx(wanted, rel=1e-6)
  assert [x['outcome'] for x in summary['verdicts']] == [UNDECIDED] * 4
  assert summary['failures'] == [] and summary['notes'] == []
  assert 'Pairs of planted' in (config.out / 'report.html').read_text()


def test_a_group_leaves_the_heads_of_others(small):
  config, settings = small
  setting = settings['planted']
  params, model_state = setting.problem.init(jax.random.key(1))
  start = jax.tree.map(np.asarray, params)
  keys = jnp.stack([jax.random.key(0)] * GROUPS)
  state = setting.training.init(params, keys=keys, model_state=model_state)
  state, _ = setting.training.step(
    state, next(setting.data.batches(config.batch_size, 0))
  )
  group = groupings.group_of((1, 5))
  new = setting.training.member(state, group - 1).params
  moved = [
    t
    for t in range(6)
    if any(
      np.any(np.asarray(a) != b)
      for a, b in zip(
        jax.tree.leaves(new[f'heads_{t}']),
        jax.tree.leaves(start[f'heads_{t}']),
        strict=True,
      )
    )
  ]
  assert moved == [1, 5]


def quadratic(params, batch):
  """Two tasks on one number, each with one of its own."""
  w = params['w']
  return jnp.stack(
    [
      (w + params['a'] - batch) ** 2 + 1,
      (2 * w + params['b'] + batch) ** 2 + 1,
    ]
  )


def test_affinities_by_their_definitions():
  params = {'w': jnp.array(0.5), 'a': jnp.array(0.2), 'b': jnp.array(-0.1)}
  labels = {'w': 'shared', 'a': 0, 'b': 1}
  rate, batch = 0.05, 0.3
  found = affinities.make_measure(quadratic, labels, rate)(params, batch)
  w, a, b = 0.5, 0.2, -0.1
  first, second = 2 * (w + a - batch), 2 * (2 * w + b + batch)

  def losses(w, a, b):
    return (w + a - batch) ** 2 + 1, (2 * w + b + batch) ** 2 + 1

  before = losses(w, a, b)
  look = 1 - losses(w - rate * first, a, b)[1] / before[1]
  np.testing.assert_allclose(found['lookahead'][0, 1], look, rtol=1e-4)
  b_new = b - rate * second
  own = losses(w - rate * 2 * second, a, b_new)[1]
  pair = losses(w - rate * (first + 2 * second), a, b_new)[1]
  np.testing.assert_allclose(
    found['proximal'][0, 1], (own - pair) / before[1], rtol=1e-4
  )
  np.testing.assert_array_equal(np.diag(found['proximal']), 0)
  # Of two gradients on one number.
  np.testing.assert_allclose(found['cosine'][0, 1], 1, rtol=1e-5)


@pytest.mark.parametrize('most', [1, 2, 3, 4])
def test_all_groupings_are_there_once(most):
  found = groupings.groupings(4, most)
  wanted = {
    frozenset(
      frozenset(t for t in range(4) if place[t] == g)
      for g in range(4)
      if g in place
    )
    for place in itertools.product(range(4), repeat=4)
    if len(set(place)) <= most
  }
  sets = [frozenset(frozenset(groupings.members(g)) for g in x) for x in found]
  assert len(sets) == len(set(sets)) and set(sets) == wanted


def test_gains_and_worths():
  metrics = np.full((7, 3), np.nan)
  inside = groupings.masks(3) > 0
  metrics[inside] = 0.5
  pair = groupings.group_of((0, 2))
  metrics[pair - 1, 0], metrics[pair - 1, 2] = 0.6, 0.4
  gains = groupings.relative_gains(metrics, np.array([True, True, False]))
  np.testing.assert_array_equal(np.isnan(gains), ~inside)
  expected = np.zeros((3, 3))
  expected[2, 0] = expected[0, 2] = 20
  np.testing.assert_allclose(groupings.pair_gains(gains), expected)
  assert groupings.worth(gains, (pair, 2)) == pytest.approx(40 / 3)
  assert groupings.worth(gains, (7,)) == 0
  metrics[0, 0] = 0
  with pytest.raises(ValueError, match='not all positive'):
    groupings.relative_gains(metrics, np.ones(3, bool))


def planted_gains(seed):
  """Four tasks of which 0, 1 and 2, 3 help each other, with noise."""
  rng = np.random.default_rng(seed)
  masks = groupings.masks(4)
  gains = np.full((15, 4), np.nan)
  for i, row in enumerate(masks):
    for t in np.flatnonzero(row):
      friend = row[t ^ 1]
      gains[i, t] = 10 * friend - 2 * (row.sum() - 1 - friend)
      gains[i, t] += 0.1 * rng.normal() * (row.sum() > 1)
  return {'validation': gains, 'test': gains}


def numbers_of(affinity_of):
  gains = {seed: planted_gains(seed) for seed in range(5)}
  affinity = {
    score: {seed: affinity_of(gains[seed]['test'], seed) for seed in gains}
    for score in claims.SCORES
  }
  return read_numbers(gains, affinity, 2)


def test_numbers_on_planted_gains():
  found = numbers_of(lambda gains, seed: groupings.pair_gains(gains))
  assert all(x == 1 for x in found['correlation/lookahead'].values())
  for seed in range(5):
    worth = {k: v[seed] for k, v in found.items() if k.startswith('worth/')}
    assert worth['worth/lookahead'] == worth['worth/best']
    np.testing.assert_allclose(worth['worth/best'], 10, atol=0.3)
    np.testing.assert_allclose(worth['worth/together'], 6, atol=0.3)
    assert worth['worth/random'] < 6
  # Four good pairs are told from eight bad ones: 0.8 by ranks, and noise.
  assert all(0.5 < x <= 1 for x in found['ceiling'].values())


def random_affinity(gains, seed):
  del gains
  return np.random.default_rng(100 + seed).normal(size=(4, 4))


def outcomes(numbers, min_seeds=3):
  return [x.outcome for x in claims.claims(numbers, min_seeds)]


def test_rules_on_planted_numbers():
  known = numbers_of(lambda gains, seed: groupings.pair_gains(gains))
  assert outcomes({'a': known}) == [HOLDS, FAILS, HOLDS, HOLDS]
  assert outcomes({'a': known}, min_seeds=6) == [UNDECIDED] * 4
  against = numbers_of(lambda gains, seed: -groupings.pair_gains(gains))
  assert outcomes({'a': against}) == [FAILS, HOLDS, FAILS, FAILS]
  unknown = numbers_of(random_affinity)
  assert outcomes({'a': unknown})[0] == UNDECIDED
  # Over problems: of half of them known, half turned round, nothing is left.
  assert outcomes({'a': known, 'b': against})[0] != HOLDS
  assert outcomes({}) == [UNDECIDED] * 4
  del known['correlation/cosine']
  assert outcomes({'a': known})[0] == UNDECIDED


def test_planted_tasks_share_features_in_their_group():
  """Least squares on the features of a group fit its tasks and no other."""
  suite, _ = problems_.find('planted')
  found = suite.read(DataOptions(num_test=500), 16, print).splits['test']
  rng = np.random.default_rng([0, 3])
  hidden = rng.normal(size=(2, problems_.NUM_INPUTS, problems_.NUM_FEATURES))
  features = np.tanh(1.5 * found['x'] @ hidden[0] / np.sqrt(20))
  for task in suite.tasks:
    y = found[task.name]
    left = y - features @ np.linalg.lstsq(features, y, rcond=None)[0]
    share = np.mean(left**2) / np.mean(y**2)
    assert (share < 1e-8) == task.name.startswith('a')


def test_attributes_are_of_the_digits(tmp_path):
  suite, _ = problems_.find('digit_attributes')
  options = DataOptions(
    dir=tmp_path, num_train=64, num_validation=16, num_test=16
  )
  found = suite.read(options, 16, print).splits['train']
  for side in ('left', 'right'):
    np.testing.assert_array_equal(found[f'{side}_odd'], found[side] % 2)
    np.testing.assert_array_equal(found[f'{side}_large'], found[side] >= 5)
  assert found['image'].shape[1:] == (9, 9, 1)


@pytest.mark.slow
def test_flights_with_their_source(tmp_path):
  flight_rows.write(tmp_path, flight_rows.make_rows(400))
  data.prepare_flights(data_dir=tmp_path)
  config = program.GroupingConfig(
    out=tmp_path / 'out',
    problems=('flights@standardised',),
    steps=2,
    hidden_sizes=(4,),
    batch_size=16,
    seeds=1,
    data=DataOptions(dir=tmp_path),
    progress=False,
  )
  program.run(config, program.prepare(config, QUIET), QUIET)
  assert len(rows(config)) == 15
  found = diagnostics.best_groups(np.zeros((4, 4)), 2)
  assert sorted(sum(found, [])) == [0, 1, 2, 3]


@pytest.mark.parametrize(
  ('options', 'match'),
  [
    ({'problems': ()}, 'must name at least one'),
    ({'problems': ('planted', 'planted')}, 'none twice'),
    ({'problems': ('plantd',)}, "Did you mean 'planted'"),
    ({'problems': ('digits',)}, 'has 2 tasks'),
    ({'problems': ('flights@hours',)}, "--data.source='hours'"),
    ({'data': DataOptions(source='mnist_5k')}, 'say it behind the suite'),
    ({'groups': 1}, '--groups=1'),
    ({'probe_rate': 0.0}, '--probe-rate=0.0'),
    ({'sweep': 'all'}, "--sweep='all'"),
    ({'hidden_sizes': ()}, '--hidden-sizes is empty'),
  ],
)
def test_what_cannot_be_run_is_refused(options, match):
  config = dataclasses.replace(program.GroupingConfig(), **options)
  with pytest.raises(ValueError, match=match):
    program.check(config)

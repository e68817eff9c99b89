"""The study end to end, its fits, its rules, and what is refused."""

import csv
import dataclasses
import json

import flight_rows
import numpy as np
import pupil_rows
import pytest
import rich.console

from benchmarks import tfcl_ridge
from experiments.lab.owned import TaskRows
from experiments.report import __main__ as report_command
from experiments.report.seeds import path_of
from experiments.report.verdicts import FAILS, HOLDS, UNDECIDED
from experiments.studies.tfcl import claims, fits, problems
from experiments.studies.tfcl import study as program
from mtljax.contrib import tfcl

QUIET = rich.console.Console(quiet=True, width=124)
METHODS = ('alone', 'pooled', 'l21', 'trace', 'tfcl', 'tfcl_extended')


@pytest.fixture(scope='module')
def small(tmp_path_factory):
  """Two seeds of a problem, few strengths, and their folder."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(fits, 'STRENGTHS', 2)
    config = program.TFCLConfig(
      out=tmp_path_factory.mktemp('tfcl') / 'out',
      problems=('groups',),
      strongest=0.3,
      seeds=2,
    )
    program.run(config, program.prepare(config, QUIET), QUIET)
    yield config


def test_every_fit_is_there_and_goes_on(small):
  with (small.out / 'results.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert [(x['method'], x['seed']) for x in rows] == [
    (m, s) for m in METHODS for s in '01'
  ]
  assert {float(x['strength']) for x in rows} <= {0.001, 0.3}
  assert {float(x['ridge']) for x in rows} == {fits.RIDGE}
  path_of(small.out, 'groups', 1).unlink()
  damaged = path_of(small.out, 'groups', 0)
  damaged.write_bytes(damaged.read_bytes()[:100])
  program.run(small, {}, QUIET)
  with (small.out / 'results.csv').open() as file:
    assert list(csv.DictReader(file)) == rows
  report_command.main(small.out)
  summary = json.loads((small.out / 'summary.json').read_text())
  assert summary['notes'] == []
  assert [x['outcome'] for x in summary['verdicts']] == [UNDECIDED] * 2
  expected = 100 * np.mean([float(x['error']) for x in rows[:2]])
  assert summary['errors'][0]['error']['mean'] == pytest.approx(expected)


@pytest.fixture(scope='module')
def losses():
  tasks = problems.draw('groups', 0, 20, 1)
  return tfcl.squared_losses(*tasks.train)


def penalty(name, w):
  if name == 'l21':
    return np.linalg.norm(w, axis=1).sum()
  return np.linalg.svd(w, compute_uv=False).sum()


@pytest.mark.parametrize('name', ['l21', 'trace'])
def test_penalised_fits_are_minima(name, losses):
  strength = 0.2
  found = np.asarray(
    fits.METHODS[name](losses, strength, fits.RIDGE), np.float64
  )
  a, b, _ = (np.asarray(x, np.float64) for x in losses)

  def objective(w):
    smooth = 0.5 * np.einsum('dt,tde,et->', w, a, w) - np.sum(b.T * w)
    ridge = fits.RIDGE / 2 * np.sum(w**2)
    return smooth + ridge + strength * penalty(name, w)

  rng = np.random.default_rng(0)
  best = objective(found)
  for size in (1e-2, 1e-1):
    for _ in range(20):
      assert objective(found + size * rng.normal(size=found.shape)) > best
  assert objective(0.98 * found) > best and objective(1.02 * found) > best
  if name == 'l21':
    strong = fits.METHODS[name](losses, 3.0, fits.RIDGE)
    empty = np.linalg.norm(strong, axis=1) == 0
    assert 0 < empty.sum() < problems.SIZE


def test_the_strength_is_that_of_the_least_validation_loss(losses):
  tasks = problems.draw('groups', 0, 20, 400)
  valid = tfcl.squared_losses(*tasks.validation)
  strengths = fits.strengths(3.0)
  weights, strength, ridge = fits.best_fit(
    'alone', losses, valid, strengths, (0.0, 1.0)
  )
  x, y = tasks.validation

  def error(w):
    return np.mean((np.einsum('tnd,dt->tn', x, np.asarray(w)) - y) ** 2)

  tried = {s: error(fits.METHODS['alone'](losses, s, 0)) for s in strengths}
  assert (strength, ridge) == (min(tried, key=tried.get), 0.0)
  assert error(weights) == pytest.approx(min(tried.values()), rel=1e-5)


def test_the_ridge_is_chosen_with_the_strength(losses):
  tasks = problems.draw('groups', 0, 20, 400)
  valid = tfcl.squared_losses(*tasks.validation)
  found = fits.best_fit('l21', losses, valid, (0.001, 3.0), (1e-2, 0.1, 30.0))
  assert (found.strength, found.ridge) == (0.001, 0.1)
  expected = fits.METHODS['l21'](losses, 0.001, 0.1)
  np.testing.assert_allclose(found.weights, expected, rtol=1e-5, atol=1e-6)


def made_up_flights():
  """Three carriers, of 400, 40 and 4,000 flights."""
  owner = np.repeat([0, 1, 2], [400, 40, 4000]).astype(np.int32)
  rng = np.random.default_rng(0)
  features = rng.normal(3, 2, size=(len(owner), 4)).astype(np.float32)
  delay = 10 * features[:, 0] + 5 * owner + rng.normal(size=len(owner))
  deviation = np.array([delay[owner == t].std() for t in range(3)])
  return TaskRows(('A', 'B', 'C'), owner, features, delay, deviation)


def test_carriers_are_tasks_with_rows_in_proportion():
  found = made_up_flights()
  tasks = problems.divide(found, 0, 50, 30)
  counts = lambda examples: examples[2].sum(1).tolist()
  # Of 150 in all; the smallest has the ten that are the fewest.
  assert counts(tasks.train) == [135, 14, 10]
  assert counts(tasks.validation) == [30, 30, 10]
  assert counts(tasks.test) == [2000, 356, 20]
  x, y, mask = tasks.train
  np.testing.assert_allclose(np.sum(x * mask[..., None], 1), 0, atol=1e-3)
  np.testing.assert_allclose(np.sum(y * mask, 1), 0, atol=1e-3)
  # The largest is most of what the features are standardised over.
  np.testing.assert_allclose(x[0].std(0), 1, atol=0.1)
  truth = np.zeros((4, 3))
  spread = 10 * found.features[:, 0].std()
  truth[0] = spread / found.deviation[[2, 0, 1]]
  left = problems.errors_of(tasks, truth)
  assert left[0] < 0.02 and (left < 0.2).all()
  nothing = problems.errors_of(tasks, np.zeros((4, 3)))
  np.testing.assert_allclose(nothing, 1, atol=0.5)
  np.testing.assert_allclose(nothing[0], 1, atol=0.1)
  other = problems.divide(found, 1, 50, 30)
  assert not np.array_equal(other.train[1], y)


def test_flights_go_through_the_study(tmp_path, monkeypatch):
  monkeypatch.setattr(fits, 'STRENGTHS', 2)
  flight_rows.write(tmp_path, flight_rows.make_rows(300))
  config = program.TFCLConfig(
    out=tmp_path / 'out',
    problems=('carriers',),
    num_train=20,
    num_validation=10,
    ridges=(0.1, 1.0),
    seeds=1,
    data=program.Folder(tmp_path),
  )
  program.run(config, program.prepare(config, QUIET), QUIET)
  summary = json.loads((config.out / 'summary.json').read_text())
  assert [x['claim'] for x in summary['verdicts']] == ['T5', 'T6']
  assert {x['problem'] for x in summary['errors']} == {'carriers'}
  assert len(summary['verdicts'][1]['measured']) == 5
  saved = json.loads((config.out / 'config.json').read_text())
  assert sorted(saved['carriers']) == ['AA', 'B6', 'UA']
  page = (config.out / 'report.html').read_text()
  assert 'Errors by carrier' in page and saved['carriers'][0] in page


def test_pupils_go_through_the_study(tmp_path, monkeypatch):
  monkeypatch.setattr(fits, 'STRENGTHS', 2)
  pupil_rows.write(tmp_path, pupil_rows.make_rows([40, 60, 50]))
  config = program.TFCLConfig(
    out=tmp_path / 'out',
    problems=('schools',),
    num_validation=10,
    seeds=1,
    data=program.Folder(tmp_path),
  )
  rows = program.prepare(config, QUIET)
  found = rows['schools']
  assert found.names == ('1', '2', '3') and found.features.shape == (150, 7)
  for school, labels in ((0, found.labels[:40]), (2, found.labels[100:])):
    np.testing.assert_allclose(found.deviation[school], labels.std(), rtol=1e-6)
    np.testing.assert_array_equal(found.labels[found.owner == school], labels)
  program.run(config, rows, QUIET)
  summary = json.loads((config.out / 'summary.json').read_text())
  assert [x['claim'] for x in summary['verdicts']] == ['T7', 'T8']
  saved = json.loads((config.out / 'config.json').read_text())
  assert saved['schools'] == ['2', '3', '1']


def test_errors_are_shares_of_the_variance():
  tasks = problems.draw('hard', 3, 5, 20_000)
  guess = tasks.weights + 0.3
  x, _ = tasks.validation
  truth = np.einsum('tnd,dt->tn', x, tasks.weights)
  left = np.einsum('tnd,dt->tn', x, guess) - truth
  expected = np.mean(left**2, 1) / np.mean(truth**2, 1)
  found = problems.errors(guess, tasks.weights)
  np.testing.assert_allclose(found, expected, rtol=0.1)


def planted(**scores):
  rng = np.random.default_rng(0)
  noise = 1e-4 * rng.normal(size=(5, 3))
  one = {
    m: {s: np.full(3, scores.get(m, 0.3)) + noise[s] for s in range(5)}
    for m in METHODS
  }
  for place, runs in enumerate(one.values()):
    for seed in runs:
      runs[seed] = runs[seed] + 1e-5 * place * seed
  return {'groups': one, 'hard': one, 'one_group': one}


def outcomes(errors, min_seeds=3):
  return [x.outcome for x in claims.claims(errors, min_seeds)]


def test_rules_on_planted_errors():
  good = planted(tfcl=0.2, tfcl_extended=0.1)
  assert outcomes(good) == [HOLDS, HOLDS]
  assert outcomes(good, min_seeds=6) == [UNDECIDED, UNDECIDED]
  assert outcomes(planted(tfcl=0.2, l21=0.1)) == [FAILS, FAILS]
  assert outcomes({}) == [UNDECIDED, UNDECIDED]


def test_rules_on_errors_of_carriers():
  good = {'carriers': planted(tfcl=0.2, tfcl_extended=0.1)['groups']}
  assert outcomes(good) == [HOLDS, HOLDS]
  bad = {'carriers': planted(tfcl=0.2, trace=0.1)['groups']}
  assert outcomes(bad) == [FAILS, FAILS]
  assert outcomes(planted() | bad)[2:] == [FAILS, FAILS]
  both = good | {'schools': bad['carriers']}
  assert [x.claim for x in claims.claims(both, 3)] == ['T5', 'T6', 'T7', 'T8']
  assert outcomes(both) == [HOLDS, HOLDS, FAILS, FAILS]


def test_the_last_tasks_are_shown_by_themselves():
  one = {
    'tfcl': {s: np.r_[np.zeros(4), np.ones(5)] for s in range(3)},
    'tfcl_extended': {s: np.zeros(9) for s in range(3)},
  }
  t6 = claims.claims({'carriers': one}, 3)[1]
  values = {x.label: x.value.mean for x in t6.measured}
  name = 'points of error, tfcl_extended less tfcl'
  assert values[f'the last 5 tasks of carriers: {name}'] == -100
  assert values[f'carriers: {name}'] == pytest.approx(-500 / 9)


@pytest.mark.parametrize(
  ('options', 'match'),
  [
    ({'problems': ('group',)}, "Did you mean 'groups'"),
    ({'problems': ()}, 'must name at least one'),
    ({'num_train': 0}, '--num-train=0'),
    ({'strongest': 1e-4}, '--strongest=0.0001'),
    ({'ridges': (0.1, 0.1)}, 'none twice'),
    ({'ridges': (-0.1,)}, '--ridges=-0.1'),
  ],
)
def test_what_cannot_be_run_is_refused(options, match):
  config = dataclasses.replace(program.TFCLConfig(), **options)
  with pytest.raises(ValueError, match=match):
    program.prepare(config, QUIET)


def test_flights_that_are_not_there_are_asked_for(tmp_path):
  config = program.TFCLConfig(
    problems=('carriers',), data=program.Folder(tmp_path)
  )
  with pytest.raises(FileNotFoundError, match='fetch flights --data-dir'):
    program.prepare(config, QUIET)


def test_parts_of_a_graph_against_the_planted():
  blocks = tfcl_ridge.BLOCKS.astype(float)
  assert tfcl_ridge.graph_of(blocks) == (3, 1 / 3, 1.0)
  # A feature and a task cut off from the rest.
  dense = np.ones_like(blocks)
  dense[0], dense[:, -1] = 0, 0
  parts, largest, f1 = tfcl_ridge.graph_of(dense)
  kept = 23 * 11
  assert (parts, largest) == (3, 34 / 36)
  assert f1 == pytest.approx(2 * (96 - 4 - 8) / (kept + 96))


def test_known_blocks_are_ridge_regression_on_them(losses):
  found = tfcl_ridge.known_blocks(losses, 0.1)
  assert np.array_equal(found != 0, tfcl_ridge.BLOCKS)
  own = slice(8, 16)  # of the fifth task
  a, b = (np.asarray(x[4], np.float64) for x in losses[:2])
  expected = np.linalg.solve(a[own, own] + 0.1 * np.eye(8), b[own])
  np.testing.assert_allclose(found[own, 4], expected, rtol=1e-4)

"""The study end to end, its fits, its rules, and what is refused."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import rich.console

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
    patch.setattr(fits, 'STRENGTHS', (0.03, 0.3))
    config = program.TFCLConfig(
      out=tmp_path_factory.mktemp('tfcl') / 'out', problems=('groups',), seeds=2
    )
    program.run(config, QUIET)
    yield config


def test_every_fit_is_there_and_goes_on(small):
  with (small.out / 'results.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert [(x['method'], x['seed']) for x in rows] == [
    (m, s) for m in METHODS for s in '01'
  ]
  assert {float(x['strength']) for x in rows} <= {0.03, 0.3}
  path_of(small.out, 'groups', 1).unlink()
  damaged = path_of(small.out, 'groups', 0)
  damaged.write_bytes(damaged.read_bytes()[:100])
  program.run(small, QUIET)
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
  found = np.asarray(fits.METHODS[name](losses, strength), np.float64)
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
    strong = fits.METHODS[name](losses, 3.0)
    empty = np.linalg.norm(strong, axis=1) == 0
    assert 0 < empty.sum() < problems.SIZE


def test_the_strength_is_that_of_the_least_validation_loss(losses):
  tasks = problems.draw('groups', 0, 20, 400)
  valid = tfcl.squared_losses(*tasks.validation)
  weights, strength = fits.best_fit('alone', losses, valid)
  x, y = tasks.validation

  def error(w):
    return np.mean((np.einsum('tnd,dt->tn', x, np.asarray(w)) - y) ** 2)

  tried = {s: error(fits.METHODS['alone'](losses, s)) for s in fits.STRENGTHS}
  assert strength == min(tried, key=tried.get)
  assert error(weights) == pytest.approx(min(tried.values()), rel=1e-5)


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


@pytest.mark.parametrize(
  ('options', 'match'),
  [
    ({'problems': ('group',)}, "Did you mean 'groups'"),
    ({'problems': ()}, 'must name at least one'),
    ({'num_train': 0}, '--num-train=0'),
  ],
)
def test_what_cannot_be_run_is_refused(options, match):
  config = dataclasses.replace(program.TFCLConfig(), **options)
  with pytest.raises(ValueError, match=match):
    program.check(config)

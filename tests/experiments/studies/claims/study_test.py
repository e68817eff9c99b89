"""The study end to end, its rules on planted numbers, and what is refused."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import rich.console
from written import rows

from experiments.lab import study as lab_study
from experiments.report import __main__ as report_command
from experiments.report import files
from experiments.report.statistics import corrected, interval
from experiments.report.verdicts import FAILS, HOLDS, UNDECIDED
from experiments.studies.claims import arms, claims, measures, planted, points
from experiments.studies.claims import study as program
from experiments.studies.claims.measures import ScoredRun
from experiments.suites import DataOptions

QUIET = rich.console.Console(quiet=True, width=124)
DATA = DataOptions(num_train=64, num_validation=32, num_test=32)


@pytest.fixture(scope='module')
def small(tmp_path_factory):
  """A few steps of a small network, and their folder."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(program, 'COUNTS', (2,))
    patch.setattr(points, 'ARMS', {'fair_2': points.ARMS['fair_2']})
    config = program.ClaimsConfig(
      out=tmp_path_factory.mktemp('claims') / 'out',
      problems=('regression@4', 'costs', 'quadratics'),
      arms=('slaw', 'log_rlw'),
      hidden_sizes=(4,),
      steps=6,
      batch_size=16,
      probe_every=2,
      seeds=2,
      log_every=3,
      data=DATA,
      progress=False,
    )
    study = program.prepare(config, QUIET)
  assert lab_study.run(config, study, QUIET) == 0
  return config, study


def test_every_run_is_there_and_ends(small):
  found = rows(small[0])
  names = [x['method'] for x in found]
  assert names[:4] == ['regression@4.slaw'] * 2 + ['regression@4.log_rlw'] * 2
  assert names[-2:] == ['quadratics.fair_2'] * 2
  assert all(x['status'] == 'ok' for x in found)
  costs = {
    x['method']: float(x['operations'])
    for x in found
    if x['method'].startswith('costs')
  }
  # T backward passes are more work than one.
  assert costs['costs.pcgrad_2'] > costs['costs.sum_losses_2']
  assert costs['costs.slaw_2'] < 1.5 * costs['costs.sum_losses_2']


def test_fairgrad_comes_near_a_stationary_point(small):
  for row in rows(small[0])[-2:]:
    assert float(row['test/stationarity']) < 0.01


def test_the_probe_has_the_factors_in_it(small):
  """The losses and norms are of what is trained on; weights of the method."""
  small = small[0]
  folder = small.out / 'runs/regression@4.slaw/seed_0'
  lines = [
    json.loads(x) for x in (folder / 'probe.jsonl').read_text().splitlines()
  ]
  assert [x['step'] for x in lines] == [1, 3, 5]
  assert np.shape(lines[0]['norms']) == (6,)
  logged = json.loads((folder / 'metrics.jsonl').read_text().splitlines()[0])
  # SLAW's weights sum to T.
  np.testing.assert_allclose(np.sum(lines[-1]['weights']), 6, rtol=1e-5)
  assert logged['step'] == 3 and 'weight/y0' in logged
  facts = json.loads((small.out / 'config.json').read_text())['suites']
  factors = facts['regression@4']['factors']
  np.testing.assert_allclose(factors, np.geomspace(1, 4, 6))
  plain = dataclasses.replace(small, problems=('regression',))
  _, _, groups = program.make_groups(plain, 'regression', print)
  spec = groups[0][0]
  first = spec.probe_fn(spec.init_fn(), next(spec.batches_fn()))
  for name in ('losses', 'norms'):
    np.testing.assert_allclose(
      np.array(lines[0][name]) / first[name], factors, rtol=1e-4
    )


def test_the_page_is_made_again_and_the_study_goes_on(small):
  small, study = small
  before = rows(small)
  report_command.main(small.out)
  summary = json.loads((small.out / 'summary.json').read_text())
  assert summary['notes'] == []
  assert [x['arm'] for x in summary['scores']] == ['slaw', 'log_rlw']
  explained = [
    np.mean([float(x[f'test/explained/y{t}']) for t in range(6)])
    for x in before[:2]
  ]
  assert summary['scores'][0]['score']['mean'] == pytest.approx(
    100 * np.mean(explained)
  )
  assert len(summary['verdicts']) == 18
  folder = small.out / 'runs/regression@4.slaw/seed_1'
  (folder / files.RESULT).unlink()
  lab_study.run(small, study, QUIET)
  column = 'test/loss/y3'
  assert [x[column] for x in rows(small)] == [x[column] for x in before]


def test_a_run_whose_measurements_were_changed_is_left_out(small, tmp_path):
  out = tmp_path / 'copy'
  shutil.copytree(small[0].out, out)
  path = out / 'runs/regression@4.slaw/seed_0' / files.PROBE
  path.write_bytes(path.read_bytes() + path.read_bytes())
  report_command.main(out)
  summary = json.loads((out / 'summary.json').read_text())
  assert summary['scores'][0]['score']['n'] == 1
  assert any('seed_0 is left out' in x for x in summary['notes'])


def made_up(score, *, seed, slope=None, train=1.0, spread=1.0):
  """A run of four tasks with scores around one number."""
  rng = np.random.default_rng([seed, 7])
  noise = 0.01 * rng.normal()
  probes = None
  if slope is not None:
    norms = np.exp(rng.normal(size=(30, 4)))
    noise_ = 0.05 * rng.normal(size=norms.shape)
    weights = norms**-slope * np.exp(noise_)
    losses = norms * weights * np.exp(spread * rng.normal(size=norms.shape))
    probes = {'norms': norms, 'weights': weights, 'losses': losses}
  return ScoredRun(
    scores=score + noise + np.zeros(4),
    validation=score + noise,
    train=(train + 0.01 * noise) * np.arange(1.0, 5.0),
    test=(train + spread) * np.arange(1.0, 5.0),
    probes=probes,
  )


def table_of(scores, seeds=5, **more):
  return {
    'regression': {
      arm: {
        seed: made_up(x, seed=seed, **more.get(arm, {}))
        for seed in range(seeds)
      }
      for arm, x in scores.items()
    }
  }


def outcomes(table, points_=None, costs=None, min_seeds=3):
  found = claims.claims(table, points_ or {}, costs or {}, min_seeds)
  return {x.claim: x.outcome for x in found}


BEST = {
  **dict.fromkeys(arms.ARMS, 50.0),
  'slaw': 50.0,
  'uw_o': 60.0,
  'imtl_g': 60.0,
  'log_rlw': 55.0,
  'log_dwa': 55.0,
  'log_mgda': 55.0,
  'log_cagrad_0_5': 55.0,
  'fair_2': 58.0,
  'nash': 57.0,
  'nash_10': 56.0,
  'nash_50': 55.0,
  'nash_features': 40.0,
  'bmtl_1': 55.0,
  'emtl': 52.0,
}


def test_rules_on_planted_scores():
  found = outcomes(table_of(BEST))
  assert {name for name, x in found.items() if x == HOLDS} == {
    'S3',
    'FG3',
    'FG5',
    'N3',
    'N4',
    'N5',
    'C5',
    'B2',
    'EM3',
  }
  worse = BEST | {
    'slaw': 49.0,
    'fair_5': 59.0,
    'log_mgda': 49.0,
    'imtl_g': 49.0,
    'nash_50': 53.0,
    'nash_features': 58.0,
    'cagrad_fast': 49.0,
    'sum_fast': 56.0,
    'emtl': 49.0,
  }
  found = outcomes(table_of(worse))
  for name in ('S3', 'FG3', 'FG5', 'N3', 'N4', 'N5', 'C5', 'B2', 'EM3'):
    assert found[name] == FAILS, name
  few = outcomes(table_of(BEST), min_seeds=6)
  assert set(few.values()) == {UNDECIDED}


def test_a_claim_of_which_a_number_is_missing_does_not_hold():
  table = table_of(BEST)
  for arm, claim in (
    ('log_dwa', 'FG5'),
    ('fair_10', 'FG3'),
    ('dwa', 'S3'),
    ('cagrad_fast', 'C5'),
  ):
    less = {
      problem: {name: x for name, x in runs.items() if name != arm}
      for problem, runs in table.items()
    }
    assert outcomes(table)[claim] == HOLDS
    assert outcomes(less)[claim] == UNDECIDED


@pytest.mark.parametrize('count', [3, 6])
def test_an_arm_with_too_few_tasks_is_left_out(monkeypatch, count):
  made = lambda: planted.regressions(count)
  monkeypatch.setitem(program.PLANTED, 'regression', made)
  config = program.ClaimsConfig(
    arms=('sum', 'cagrad_fast'), seeds=1, batch_size=16, data=DATA
  )
  _, _, groups = program.make_groups(config, 'regression', lambda text: None)
  expected = ['regression.sum', 'regression.cagrad_fast']
  assert [x[0].method for x in groups] == expected[: 1 if count < 4 else 2]


def test_rules_on_weights():
  good = table_of({'slaw': 50.0}, slaw={'slope': 1.0})
  assert outcomes(good)['S1'] == HOLDS
  # In proportion to the square of the norms, then to none.
  assert outcomes(table_of({'slaw': 5.0}, slaw={'slope': 2.0}))['S1'] == FAILS
  lost = table_of({'slaw': 5.0}, slaw={'slope': 0.0})
  assert outcomes(lost)['S1'] == FAILS
  noisy = {'noisy': lost['regression'], 'rare': lost['regression']}
  assert outcomes(noisy)['S4'] == HOLDS
  assert outcomes(noisy | {'rare': good['regression']})['S4'] == FAILS


def test_rules_on_contributions():
  """The variance is that planted, and goes with the gap, or not."""
  spreads = {'sum': 1.0, 'uncertainty': 0.8, 'slaw': 0.6, 'emtl': 0.1}
  more = {k: {'slope': 1.0, 'spread': x} for k, x in spreads.items()}
  table = table_of(dict.fromkeys(spreads, 50.0), **more)
  row = table['regression']['slaw'][0]
  assert measures.spread(row) == pytest.approx(0.36 * 3 / 4, rel=0.3)
  assert outcomes(table)['EM1'] == HOLDS
  for runs in table['regression'].values():
    for seed, run in runs.items():
      gap = 1 / (measures.spread(run) + 1)
      runs[seed] = dataclasses.replace(run, test=run.train * (1 + gap))
  assert outcomes(table)['EM1'] == FAILS


def test_rules_on_losses_and_temperatures():
  lower = {'train': 0.9}
  table = table_of(
    dict.fromkeys(('sum', *arms.RADII, *arms.TEMPERATURES), 50.0),
    cagrad_0_2=lower,
    cagrad_0_5=lower,
  )
  for place, name in enumerate(arms.TEMPERATURES):
    for seed, row in table['regression'][name].items():
      # Colder: the larger losses, of the last tasks, do better.
      change = np.array([1.0, 1.0, -1.0, -1.0]) * place
      table['regression'][name][seed] = dataclasses.replace(
        row, scores=row.scores + change
      )
  assert outcomes(table)['C4'] == HOLDS
  assert outcomes(table)['B1'] == HOLDS
  first, last = (table['regression'][x] for x in ('bmtl_0_1', 'bmtl_50'))
  table['regression'] |= {'bmtl_0_1': last, 'bmtl_50': first}
  assert outcomes(table)['B1'] == FAILS
  # A temperature has no meaning where factors make the losses.
  assert outcomes({'digits@9': table['regression']})['B1'] == UNDECIDED


def test_rules_on_alphas():
  table = table_of(dict.fromkeys(arms.ALPHAS, 50.0))
  for place, name in enumerate(arms.ALPHAS):
    for seed, row in table['regression'][name].items():
      scores = row.scores + np.array([-8.0 + place, 0.0, 0.0, -2.0 * place])
      table['regression'][name][seed] = dataclasses.replace(row, scores=scores)
  assert outcomes(table)['FG1'] == HOLDS
  names = list(arms.ALPHAS)
  swapped = dict(zip(names, reversed(names), strict=True))
  turned = {k: table['regression'][swapped[k]] for k in names}
  assert outcomes({'regression': turned})['FG1'] == FAILS


def test_rules_on_points_and_costs():
  near = {seed: {'stationarity': 1e-4, 'gap': 1e-5} for seed in range(5)}
  far = {seed: {'stationarity': 0.1, 'gap': 0.1} for seed in range(5)}
  found = dict.fromkeys(points.ARMS, near)
  assert outcomes({}, found)['FG4'] == outcomes({}, found)['C3'] == HOLDS
  assert outcomes({}, found | {'fair_5': far})['FG4'] == FAILS
  # MGDA is a control.
  assert outcomes({}, found | {'mgda': far})['C3'] == HOLDS
  costs = {('sum_losses', t): 100.0 for t in claims.COUNTS}
  costs |= {('slaw', t): 101.0 for t in claims.COUNTS}
  costs |= {('pcgrad', t): 100.0 * t for t in claims.COUNTS}
  assert outcomes({}, costs=costs)['S2'] == HOLDS
  assert outcomes({}, costs=costs | {('slaw', 4): 140.0})['S2'] == FAILS


def test_intervals_are_corrected_for_their_number():
  table = table_of({'slaw': 50.0, 'dwa': 49.0, 'uncertainty': 48.0})
  found = {x.claim: x for x in claims.claims(table, {}, {}, 3)}
  value = found['S3'].measured[0].value
  numbers = measures.more(table, 'regression', 'slaw', ('uncertainty',))
  # Two numbers are compared.
  assert value == interval(list(numbers.values()), corrected(2))


def test_noisy_and_rare_labels_are_as_said():
  suite = planted.regressions(noisy=True)
  data = suite.read(DataOptions(), 16, print)
  train, test = data.splits['train'], data.splits['test']
  scale = np.arange(1, 7) / 6
  spread = [train[f'y{t}'].std() for t in range(6)] / scale
  noise = np.linspace(*planted.NOISE, 6)
  np.testing.assert_allclose(spread, np.sqrt(1 + noise**2), rtol=0.05)
  clean = [test[f'y{t}'].std() for t in range(6)] / scale
  np.testing.assert_allclose(clean, 1, rtol=0.1)
  rare = planted.rare().read(DataOptions(), 16, print)
  shares = [rare.splits['train'][f'y{t}'].mean() for t in range(6)]
  np.testing.assert_allclose(shares, np.geomspace(*planted.SHARES, 6), rtol=0.1)


@pytest.mark.parametrize(
  ('options', 'match'),
  [
    ({'problems': ('digits', 'digits')}, 'none twice'),
    ({'problems': ('digit',)}, 'none of regression'),
    ({'problems': ('digits@x',)}, 'after @ stands a number'),
    ({'problems': ('digits@0',)}, 'gap of --problems'),
    ({'problems': ('scenes',)}, 'multi_mlp'),
    ({'arms': ('slaww',)}, "Did you mean 'slaw'"),
    ({'hidden_sizes': ()}, '--hidden-sizes is empty'),
    ({'probe_every': 0}, '--probe-every=0'),
  ],
)
def test_what_cannot_be_run_is_refused(options, match):
  config = dataclasses.replace(program.ClaimsConfig(), **options)
  with pytest.raises(ValueError, match=match):
    program.check(config)

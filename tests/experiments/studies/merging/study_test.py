"""The study end to end, its merges, its rules, and what is refused."""

import dataclasses
import json

import flight_rows
import jax
import numpy as np
import pytest
import rich.console
from written import rows

from experiments.report import __main__ as report_command
from experiments.report.seeds import path_of
from experiments.report.verdicts import FAILS, HOLDS, UNDECIDED
from experiments.studies.merging import claims, merges
from experiments.studies.merging import study as program
from experiments.suites import DataOptions, find
from mtljax import data, merging
from mtljax.metrics import delta_m

QUIET = rich.console.Console(quiet=True, width=124)


@pytest.fixture(scope='module')
def small(tmp_path_factory):
  """A few steps of a small network, its folder, and its parts."""
  folder = tmp_path_factory.mktemp('merging')
  config = program.MergingConfig(
    out=folder / 'out',
    start_steps=2,
    steps=4,
    merge_steps=2,
    hidden_sizes=(4,),
    batch_size=16,
    seeds=1,
    data=DataOptions(
      dir=folder / 'data',
      num_train=64,
      num_validation=32,
      num_test=200,
      pool=6,
    ),
    progress=False,
  )
  setting = program.prepare(config, QUIET)
  program.run(config, setting, QUIET)
  return config, setting


def test_every_arm_has_a_row_and_the_study_goes_on(small):
  config, setting = small
  found = rows(config)
  assert [x['method'] for x in found] == [
    f'{start}.{arm}' for start in claims.STARTS for arm in claims.ARMS
  ]
  by_name = {x['method']: x for x in found}
  column = 'test/accuracy/left'
  assert all(0 <= float(x[column]) <= 1 for x in found)
  # Both starts are others, and training changed what they began at.
  for arm in (claims.START, claims.JOINT):
    a, b = (by_name[f'{start}.{arm}'] for start in claims.STARTS)
    assert a != {**b, 'method': a['method']}
  path = path_of(config.out, 'random', 0)
  path.write_bytes(path.read_bytes()[:200])
  program.run(config, setting, QUIET)
  assert rows(config) == found


def test_the_page_has_delta_m(small):
  config, _ = small
  report_command.main(config.out)
  summary = json.loads((config.out / 'summary.json').read_text())
  by_name = {x['method']: x for x in rows(config)}
  columns = [f'test/accuracy/{t}' for t in ('left', 'right')]
  values = lambda name: [float(by_name[name][x]) for x in columns]
  wanted = delta_m(
    values('pretrained.ties'), values('pretrained.alone'), [True, True]
  )
  found = {(x['start'], x['arm']): x['delta_m'] for x in summary['arms']}
  assert found['pretrained', 'ties']['mean'] == pytest.approx(float(wanted))
  assert found['pretrained', 'alone']['mean'] == 0
  assert [x['outcome'] for x in summary['verdicts']] == [UNDECIDED] * 3
  assert summary['notes'] == []
  (first, _) = summary['chosen']
  assert len(first['coefficients']) == 2 and -1 <= first['cosine'] <= 1
  page = (config.out / 'report.html').read_text()
  assert 'From the pretrained start' in page and 'What merging chose' in page


def test_experts_train_on_their_task_alone(small):
  """The head of the other task stays where it began."""
  config, setting = small
  params, model_state = setting.problem.init(jax.random.key(3))
  keys = jax.random.split(jax.random.key(0), 2)
  start = jax.tree.map(np.asarray, params)
  state = setting.alone.init(params, keys=keys, model_state=model_state)
  batch = next(setting.data.batches(config.batch_size, 0))
  state, _ = setting.alone.step(state, batch)
  for t in range(2):
    new = setting.alone.member(state, t).params
    moved = {
      name: any(
        np.any(np.asarray(a) != b)
        for a, b in zip(
          jax.tree.leaves(new[name]), jax.tree.leaves(start[name]), strict=True
        )
      )
      for name in start
    }
    assert moved == {'trunk': True, f'heads_{t}': True, f'heads_{1 - t}': False}


def test_merges_are_what_they_are_called(small):
  _, setting = small
  base, model_state = setting.problem.init(jax.random.key(0))
  rng = np.random.default_rng(0)
  noisy = lambda: jax.tree.map(
    lambda x: x + rng.normal(size=x.shape).astype(np.float32), base
  )
  models = [noisy(), noisy()]
  merger, labels = setting.merger, setting.problem.labels
  found, chosen = merger.merge(base, models, model_state, 0)
  a, b = (x['trunk']['fc1']['kernel'] for x in models)
  np.testing.assert_allclose(
    found['mean']['trunk']['fc1']['kernel'], (a + b) / 2, rtol=1e-4, atol=1e-5
  )
  for params in found.values():
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
      params['heads_1'],
      models[1]['heads_1'],
    )
  scores = {
    scale: setting.suite.score_of(
      merger.evaluate(
        merging.ties(base, models, density=0.2, scale=scale, labels=labels),
        model_state,
        'validation',
      )
    )
    for scale in merges.SCALES
  }
  assert chosen['ties'] == max(scores, key=scores.get)
  assert chosen['coefficients'].shape == (2,)
  # Two steps of Adam at 1e-3 from 0.3.
  np.testing.assert_allclose(chosen['coefficients'], 0.3, atol=2.1e-3)
  assert np.any(chosen['coefficients'] != np.float32(0.3))


def test_adamerging_reads_no_label(small):
  _, setting = small
  for batch in setting.merger._inputs(0):
    assert sorted(batch) == ['image']
  assert merges.merged_of(setting.suite) == claims.MERGED
  flights = find('flights')
  flights = flights.with_tasks(flights.default_tasks)
  assert merges.merged_of(flights) == ('arithmetic', 'ties')
  assert merges.merged_of(find('census')) == claims.MERGED


@pytest.mark.slow
def test_without_classes_adamerging_is_left_out(tmp_path):
  flight_rows.write(tmp_path, flight_rows.make_rows(400))
  data.prepare_flights(data_dir=tmp_path)
  config = program.MergingConfig(
    out=tmp_path / 'out',
    suite='flights',
    starts=('random',),
    steps=3,
    hidden_sizes=(4,),
    batch_size=16,
    seeds=1,
    data=DataOptions(dir=tmp_path, source='standardised'),
    progress=False,
  )
  program.run(config, program.prepare(config, QUIET), QUIET)
  names = [x['method'].partition('.')[2] for x in rows(config)]
  assert names == [x for x in claims.ARMS if x != claims.ADAMERGING]
  summary = json.loads((config.out / 'summary.json').read_text())
  assert any('AdaMerging is left out' in x for x in summary['notes'])


def planted(**scores):
  """Delta-m of five seeds from both starts, changed by arm."""
  rng = np.random.default_rng(0)
  base = dict.fromkeys(claims.ARMS, 5.0) | {'joint': 0.0} | scores
  return {
    start: {
      arm: {s: x + 0.01 * rng.normal() for s in range(5)}
      for arm, x in base.items()
    }
    for start in claims.STARTS
  }


def outcomes(scores, merged=claims.MERGED, min_seeds=3):
  return [x.outcome for x in claims.claims(scores, merged, min_seeds)]


def test_rules_on_planted_scores():
  good = planted(ties=4.0, adamerging=3.0)
  assert outcomes(good) == [HOLDS, HOLDS, HOLDS]
  assert outcomes(good, min_seeds=6) == [UNDECIDED] * 3
  bad = planted(ties=6.0, adamerging=-1.0, fixed=-2.0)
  assert outcomes(bad) == [FAILS, FAILS, FAILS]
  assert outcomes({}) == [UNDECIDED] * 3


def test_claims_are_judged_at_the_pretrained_start():
  found = planted(ties=4.0, adamerging=3.0)
  found[claims.RANDOM] = planted(ties=9.0, adamerging=-9.0)[claims.RANDOM]
  assert outcomes(found) == [HOLDS, HOLDS, HOLDS]
  del found[claims.PRETRAINED]
  assert outcomes(found) == [UNDECIDED] * 3


def test_merging_is_judged_whole():
  found = planted(ties=4.0)
  for by_arm in found.values():
    del by_arm['adamerging']
  assert outcomes(found) == [UNDECIDED, HOLDS, UNDECIDED]
  assert outcomes(found, ('arithmetic', 'ties'))[0] == HOLDS


@pytest.mark.parametrize(
  ('options', 'match'),
  [
    ({'starts': ()}, 'must name at least one'),
    ({'starts': ('random', 'random')}, 'none twice'),
    ({'starts': ('pretrain',)}, "Did you mean 'pretrained'"),
    ({'sweep': 'all'}, "--sweep='all'"),
    ({'merge_steps': 0}, '--merge-steps=0'),
    ({'learning_rate': 0.0}, '--learning-rate=0.0'),
    ({'suite': 'nowhere'}, "--suite='nowhere'"),
    ({'hidden_sizes': ()}, '--hidden-sizes is empty'),
  ],
)
def test_what_cannot_be_run_is_refused(options, match):
  config = dataclasses.replace(program.MergingConfig(), **options)
  with pytest.raises(ValueError, match=match):
    program.check(config)

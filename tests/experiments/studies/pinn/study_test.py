"""The study end to end, its claims on planted errors, and what is refused."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
import rich.console
from written import rows

from experiments.lab import study as lab_study
from experiments.report import __main__ as report_command
from experiments.report.verdicts import FAILS, HOLDS, UNDECIDED
from experiments.studies.pinn import claims
from experiments.studies.pinn import study as program
from experiments.studies.pinn.points import PointBatches
from experiments.studies.pinn.problems import EQUATIONS

QUIET = rich.console.Console(quiet=True, width=124)


@pytest.fixture(scope='module')
def small(tmp_path_factory):
  """A few steps of a small network, and their folder."""
  config = program.PinnConfig(
    out=tmp_path_factory.mktemp('pinn') / 'out',
    problems=('poisson',),
    methods=('sum_losses', 'weights_10', 'conflict_free', 'm_config'),
    hidden_sizes=(6,),
    steps=4,
    interior_points=12,
    edge_points=8,
    evaluate_every=2,
    log_every=1,
    seeds=2,
    progress=False,
  )
  assert lab_study.run(config, program.prepare(config, QUIET), QUIET) == 0
  return config


def test_every_run_has_a_row_and_a_field(small):
  found = rows(small)
  assert [row['method'] for row in found] == [
    f'poisson.{name}' for name in small.methods for _ in range(2)
  ]
  assert all(row['status'] == 'ok' for row in found)
  assert all(0 < float(row['test/relative_l2']) < 10 for row in found)
  assert len({row['test/relative_l2'] for row in found}) == 8
  kept = np.load(small.out / 'runs/poisson.conflict_free/seed_0/artifacts.npz')
  assert kept['field'].shape == (65, 65, 1)


def test_the_page_shows_errors_fields_and_verdicts(small):
  page = (small.out / 'report.html').read_bytes()
  report_command.main(small.out)
  assert (small.out / 'report.html').read_bytes() == page
  text = page.decode()
  assert not re.search(r'https?:|@import|<script ', text)
  for title in ('truth', 'sum_losses', 'conflict_free: off by'):
    assert f'aria-label="{title}"' in text
  assert 'data:image/png' in text
  summary = json.loads((small.out / 'summary.json').read_text())
  assert [x['method'] for x in summary['errors']] == [
    *small.methods,
    'weights, tuned',
  ]
  errors = {x['method']: x for x in summary['errors']}
  assert errors['sum_losses']['factor'] == 1
  values = [float(row['test/relative_l2']) for row in rows(small)[:2]]
  assert errors['sum_losses']['error']['mean'] == pytest.approx(
    np.sqrt(np.prod(values))
  )
  assert {x['outcome'] for x in summary['verdicts']} == {UNDECIDED}


def test_the_study_goes_on_where_it_was(small):
  before = rows(small)
  path = small.out / 'runs/poisson.conflict_free/seed_1/result.json'
  path.unlink()
  lab_study.run(small, program.prepare(small, QUIET), QUIET)
  again = rows(small)
  assert path.exists()
  error = 'test/relative_l2'
  assert [x[error] for x in again] == [x[error] for x in before]


def test_seeds_in_one_program_are_those_of_the_loop(small, tmp_path):
  config = dataclasses.replace(
    small,
    out=tmp_path / 'out',
    methods=('m_config',),
    sweep='vmap',
  )
  study = program.prepare(config, QUIET)
  assert [len(group) for group in study.groups] == [2]
  assert lab_study.run(config, study, QUIET) == 0
  error = 'test/relative_l2'
  np.testing.assert_allclose(
    [float(row[error]) for row in rows(config)],
    [float(row[error]) for row in rows(small)[6:]],
    rtol=1e-4,
  )


def test_m_config_takes_one_residual_a_step(small):
  """The other tasks' gradients are not in it, so their factors are 0 first."""
  setting = program.make_setting(small, 'poisson')
  (spec,) = program.make_specs(
    dataclasses.replace(small, seeds=1), setting, 'm_config'
  )
  assert spec.step.route == 'losses'
  state, batches = spec.init_fn(), spec.batches_fn()
  start = jax.device_get(state.params)
  state, _ = spec.step.step(state, next(batches))
  # Of one task there is no average yet, so nothing moves.
  assert jax.tree.all(jax.tree.map(np.array_equal, start, state.params))
  state, _ = spec.step.step(state, next(batches))
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), start, state.params)
  assert all(jax.tree.leaves(moved))


def test_an_error_is_that_of_its_field(small):
  setting = program.make_setting(small, 'poisson')
  grid = EQUATIONS['poisson'].grid()
  assert np.shape(setting.truth) == (len(grid), 1)
  state = dataclasses.make_dataclass('State', ['params'])
  # A network of zeros is off by the whole truth.
  zeros = jax.tree.map(np.zeros_like, setting.start(jax.random.key(0)))
  assert setting.errors(state(zeros)) == {'relative_l2': 1.0}


def test_points_are_drawn_anew_and_again():
  equation = EQUATIONS['burgers']
  batches = PointBatches(equation, (5, 4, 4), seed=3)
  first, second = next(batches), next(batches)
  assert [len(x) for x in first] == [5, 4, 4]
  assert (first[0] != second[0]).all()
  other = PointBatches(equation, (5, 4, 4), seed=3)
  other.set_state({'step': 1})
  np.testing.assert_array_equal(next(other)[2], second[2])
  assert other.get_state() == batches.get_state() == {'step': 2}
  assert (next(PointBatches(equation, (5, 4, 4), seed=4))[0] != first[0]).all()


def test_weights_are_those_of_the_name():
  method = program.make_method('weights_10', 3)
  state = method.init({'w': np.zeros(2, np.float32)})
  grads = {'w': np.eye(3, 2, dtype=np.float32)}
  update, _ = method.update(grads, state)
  np.testing.assert_allclose(update['w'], [1, 10])


def planted(better, problems=('burgers', 'kovasznay'), seeds=3):
  """Errors of which ConFIG's is so many times smaller than all others."""
  names = (*claims.PUBLISHED, 'weights_10')
  return {
    problem: {
      claims.OURS: {s: 0.01 * 1.01**s for s in range(seeds)},
      **{
        name: {s: 0.01 * better * 1.02**s for s in range(seeds)}
        for name in names
      },
    }
    for problem in problems
  }


def outcomes(errors):
  return {x.claim: x.outcome for x in claims.claims(errors, 3)}


def test_claims_hold_and_fail_as_planted():
  assert outcomes(planted(2)) == {'P1': HOLDS, 'P2': HOLDS, 'P3': HOLDS}
  assert set(outcomes(planted(0.5)).values()) == {FAILS}
  assert set(outcomes(planted(2, seeds=2)).values()) == {UNDECIDED}
  assert set(outcomes({}).values()) == {UNDECIDED}

  one = planted(2)
  one['burgers']['pcgrad'] = {s: 0.001 for s in range(3)}
  one['kovasznay']['pcgrad'] = {s: 0.001 for s in range(3)}
  assert outcomes(one) == {'P1': FAILS, 'P2': HOLDS, 'P3': HOLDS}
  one = planted(2)
  one['burgers']['sum_losses'] = {s: 0.005 for s in range(3)}
  assert outcomes(one)['P2'] == FAILS
  # The sum is one of the weights that are tuned.
  assert outcomes(one)['P3'] == FAILS
  # Of a part of the runs no verdict is made.
  one = planted(2)
  del one['burgers']['relobralo']
  assert outcomes(one) == {'P1': UNDECIDED, 'P2': HOLDS, 'P3': HOLDS}
  del one['burgers'][claims.OURS]
  assert set(outcomes(one).values()) == {UNDECIDED}


def test_no_seed_chooses_its_own_weight():
  runs = {
    'sum_losses': {0: 1.0, 1: 1.0, 2: 1.0},
    'weights_10': {0: 0.01, 1: 2.0, 2: 2.0},
  }
  # Seed 0 would take 10, the others say 1; they see seed 0 and take 10.
  assert claims.tuned(runs) == {0: 1.0, 1: 2.0, 2: 2.0}
  assert claims.tuned({'sum_losses': {0: 1.0, 1: 1.0}}) == {}
  assert claims.tuned({name: {0: 1.0} for name in runs}) == {}


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'problems': ()}, '--problems is empty'),
    ({'problems': ('heat',)}, "--problems='heat'"),
    ({'problems': ('burgers', 'burgers')}, 'names burgers twice'),
    ({'methods': ('adam',)}, "--methods='adam'"),
    ({'methods': ('adatask',)}, '--methods=adatask'),
    ({'methods': ('modo',)}, '--methods=modo'),
    ({'methods': ('weights_much',)}, "'much' is no number"),
    ({'methods': ('weights_-1',)}, '--methods=weights_-1'),
    ({'network': 'cnn'}, "--network='cnn'"),
    ({'sweep': 'all'}, "--sweep='all'"),
    ({'hidden_sizes': (0,)}, '--hidden-sizes'),
    ({'steps': 0}, '--steps=0'),
    ({'edge_points': 0}, '--edge-points=0'),
    ({'learning_rate': 0.0}, '--learning-rate'),
  ],
)
def test_what_no_study_could_be_made_of_is_refused(changes, words):
  config = dataclasses.replace(program.PinnConfig(), **changes)
  with pytest.raises(ValueError, match=re.escape(words)):
    program.check(config)


def test_presets_are_good():
  for config in program.PRESETS.values():
    program.check(config)
    # Those that every claim needs.
    assert {claims.OURS, *claims.PUBLISHED} < set(config.methods)
    assert any(x.startswith(claims.WEIGHTS) for x in config.methods)

"""The study end to end, its claims on planted curves, and what is refused."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import rich.console
from written import rows

from experiments.lab import study as lab_study
from experiments.report import __main__ as report_command
from experiments.report import files
from experiments.report.verdicts import FAILS, HOLDS, UNDECIDED
from experiments.studies.tradeoffs import claims, curves, figures
from experiments.studies.tradeoffs import study as program
from experiments.suites import DataOptions
from mtljax.diagnostics import hypervolume

QUIET = rich.console.Console(quiet=True, width=124)


@pytest.fixture(scope='module')
def small(tmp_path_factory):
  """A few steps of a small network, and their folder."""
  folder = tmp_path_factory.mktemp('tradeoffs')
  config = program.TradeoffsConfig(
    out=folder / 'out',
    curves=('fixed', 'epo', 'input'),
    parts=2,
    steps=6,
    hidden_sizes=(4,),
    batch_size=16,
    seeds=1,
    data=DataOptions(
      dir=folder / 'data',
      num_train=64,
      num_validation=32,
      num_test=32,
      pool=6,
    ),
    progress=False,
  )
  assert lab_study.run(config, program.prepare(config, QUIET), QUIET) == 0
  return config


def test_curves_have_their_runs_and_steps(small):
  found = {x['method']: x for x in rows(small)}
  assert list(found) == [
    *(f'fixed.{k:02d}' for k in range(3)),
    *(f'epo.{k:02d}' for k in range(3)),
    'input.all',
  ]
  grid = program.grid_of(small, 2)
  assert curves.num_steps('fixed', 6, grid) == 6
  assert curves.num_steps('epo', 6, grid) == 2
  assert curves.num_steps('input', 6, grid) == 18


def test_preferences_make_other_networks_from_one_start(small):
  """Each run alone gives what its place in the sweep gave."""
  found = {x['method']: x for x in rows(small)}
  losses = [float(found[f'fixed.{k:02d}']['test/loss/left']) for k in range(3)]
  assert len(set(losses)) == 3
  path = small.out / 'runs/fixed.02/seed_0'
  (path / files.RESULT).unlink()
  for name in ('checkpoints', 'metrics.jsonl'):
    target = path / name
    if target.is_dir():
      shutil.rmtree(target)
    else:
      target.unlink(missing_ok=True)
  assert lab_study.run(small, program.prepare(small, QUIET), QUIET) == 0
  again = {x['method']: x for x in rows(small)}['fixed.02']
  np.testing.assert_allclose(
    float(again['test/loss/left']), losses[2], rtol=1e-5
  )


def test_the_page_has_the_volumes(small):
  report_command.main(small.out)
  summary = json.loads((small.out / 'summary.json').read_text())
  found = {x['method']: x for x in rows(small)}
  grid = np.array(
    [
      [
        float(found[f'fixed.{k:02d}'][f'test/loss/{t}'])
        for t in summary['tasks']
      ]
      for k in range(3)
    ]
  )
  unit = (grid - grid.min(0)) / np.ptp(grid, axis=0)
  by_name = {x['curve']: x for x in summary['curves']}
  assert list(by_name) == ['fixed', 'epo', 'input']
  assert by_name['fixed']['hypervolume']['mean'] == pytest.approx(
    hypervolume(unit, [1.1, 1.1])
  )
  assert by_name['input']['hypervolume'] is not None
  assert {x['outcome'] for x in summary['verdicts']} == {UNDECIDED}
  page = (small.out / 'report.html').read_text()
  assert 'A run a preference' in page and 'One network' in page


def planted(shift, count=4):
  """Curves of five seeds; those but the grid are shifted."""
  share = np.linspace(0.1, 0.9, 5)
  curve = np.stack([(1 - share) ** 2, share**2], 1) + 0.2
  rng = np.random.default_rng(0)
  found = {}
  for name in claims.CURVES:
    by = 0.0 if name == claims.GRID else shift
    found[name] = {
      seed: curve + by + 0.002 * rng.normal(size=curve.shape)
      for seed in range(count)
    }
  return found, np.stack([1 - share, share], 1)


@pytest.mark.parametrize(
  'shift, outcomes',
  [
    (-0.1, [HOLDS, HOLDS, HOLDS]),
    (0.1, [FAILS, FAILS, HOLDS]),
    (0.005, [FAILS, HOLDS, HOLDS]),
  ],
)
def test_claims_on_planted_curves(shift, outcomes):
  found, rays = planted(shift)
  verdicts = claims.claims(found, rays, 3)
  assert [x.outcome for x in verdicts] == outcomes
  backwards = claims.claims(found, rays[::-1], 3)
  assert backwards[2].outcome == FAILS


def test_three_tasks_are_drawn_in_pairs_and_in_space():
  points = np.random.default_rng(0).uniform(size=(6, 3))
  found = {name: {0: points, 1: points + 0.1} for name in ('fixed', 'input')}
  drawn = figures.sections(found, ('a', 'b', 'c'))
  assert [x.title for x in drawn] == ['A run a preference', 'One network']
  for section in drawn:
    assert len(section.panels) == 4
    assert all('<svg' in panel for panel in section.panels)
    assert f'{section.title}: all' in section.panels[-1]


def test_claims_are_judged_whole():
  found, rays = planted(-0.1)
  del found['epo'], found['input']
  verdicts = claims.claims(found, rays, 3)
  assert {x.outcome for x in verdicts} == {UNDECIDED}
  del found[claims.GRID]
  assert claims.volumes(found) == {}


@pytest.mark.parametrize('name', ['digits', 'census', 'flights', 'scenes'])
def test_every_suite_has_a_preset_that_can_be_run(name):
  for config in program.presets_of(name).values():
    program.check(config)
  assert program.presets_of('scenes')['quick'].model == 'segnet'


@pytest.mark.parametrize('curve', claims.RUNS)
def test_methods_take_traced_preferences(curve):
  grid = program.mtl.pareto.grid(2, 2, inset=0.1)

  def weights(preference):
    method = curves.make_method(curve, preference, grid, None, 10)
    state = method.init(np.zeros(3, np.float32))
    grads = np.array([[1.0, 0.2, 0], [0.1, 1.0, 0]], np.float32)
    update, _ = method.update(grads, state, losses=np.ones(2, np.float32))
    return update

  found = jax.jit(jax.vmap(weights))(grid.astype(np.float32))
  assert np.all(np.isfinite(found))
  assert np.max(np.abs(found[0] - found[2])) > 1e-3


@pytest.mark.parametrize(
  'changes, words',
  [
    ({'curves': ()}, 'must name at least one'),
    ({'curves': ('fixed', 'fixed')}, 'none twice'),
    ({'curves': ('fix',)}, "--curves='fix'.*'fixed'"),
    ({'parts': 1}, '--parts=1'),
    ({'inset': 1.0}, '--inset=1.0'),
    ({'sweep': 'all'}, "--sweep='all'"),
    ({'steps': 0}, '--steps=0'),
    ({'suite': 'nowhere'}, "--suite='nowhere'"),
    ({'model': 'segnet'}, "--model='segnet'"),
    (
      {'suite': 'scenes', 'model': 'segnet'},
      'leave interpolate, low_rank, hypernetwork out',
    ),
    ({'hidden_sizes': ()}, '--hidden-sizes is empty'),
  ],
)
def test_bad_options_are_named(changes, words):
  config = dataclasses.replace(program.TradeoffsConfig(), **changes)
  with pytest.raises(ValueError, match=words):
    program.check(config)

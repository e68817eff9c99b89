"""Every claim from made-up rows: holds, does not hold, undecided."""

import pytest

from experiments.report.verdicts import FAILS, HOLDS, UNDECIDED
from experiments.studies.flat_regions import claims as claims
from experiments.studies.flat_regions.rows import Rows

METHODS = ('mgda', 'cagrad', 'imtl_g', 'mean')
ACCURACY = {
  'plain': 0.90,
  '2x': 0.905,
  'sam': 0.91,
  'direct': 0.91,
  'direct_matched': 0.912,
  'matched': 0.90,
  'second': 0.92,
  'each': 0.92,
  'flat': 0.92,
}
OTHER = {
  'train/conflict/left,right': (0.5, 0.01),
  'train/sharpness_0.05/left': (0.2, 0.1),
  'train/sharpness_0.01/left': (0.02, 0.01),
  'train/grad_norm/left': (1.0, 0.5),
  'train/flat_grad_norm/left': (1.0, 0.5),
  'test/ece/left': (0.1, 0.05),
  'test/brier/left': (0.3, 0.2),
}
FLAT = ('flat', 'direct', 'direct_matched', 'second', 'each')
# Of a seed's luck, what a pair of runs shares and what it does not.
SHARED = (-0.02, 0.0, 0.02)
OWN = (0.0, 0.0002, -0.0002)


def row(variant, base, form, seed, accuracy, rho=0.5, ascent='adaptive'):
  found = {
    'variant': variant,
    'base': base,
    'form': form,
    'ascent': ascent,
    'rho': str(rho),
    'seed': str(seed),
    'status': 'ok',
  }
  luck = SHARED[seed] + (OWN[seed] if form in FLAT else 0)
  tasks = ('left', 'right')
  if base.startswith('single_'):
    tasks = (base.removeprefix('single_'),)
  for task in tasks:
    found[f'test/accuracy/{task}'] = str(accuracy + luck)
  for name, (plain, flat) in OTHER.items():
    found[name] = str((flat if form in FLAT else plain) * (1 + luck))
  return found


def study(change=lambda row: row, seeds=3):
  """The paper's claims come true, but for what is changed."""
  rows = []
  for seed in range(seeds):
    for i, base in enumerate(METHODS):
      for form, accuracy in ACCURACY.items():
        # The methods are further apart in their plain form.
        apart = 0.001 * i * (1 if form in FLAT else 2)
        rows.append(row('main', base, form, seed, accuracy - apart))
      for variant in ('low_resource_0.1', 'noisy_0.4'):
        for form in ('plain', '2x', 'flat'):
          rows.append(row(variant, base, form, seed, ACCURACY[form]))
    for task in ('left', 'right'):
      for form in ('plain', 'sam'):
        rows.append(row('main', f'single_{task}', form, seed, 0.9))
    for ascent in ('plain', 'adaptive'):
      for rho in (0.1, 1.0):
        rows.append(row('sweep', 'cagrad', 'flat', seed, 0.92, rho, ascent))
  # The best of all is F-IMTL-G.
  for found in rows:
    if found['base'] == 'imtl_g' and found['form'] == 'flat':
      for name in ('test/accuracy/left', 'test/accuracy/right'):
        found[name] = str(float(found[name]) + 0.002)
  return [changed for changed in map(change, rows) if changed is not None]


COSTS = {
  'mgda': {'plain': [1.0, 1.0, 1.01], 'flat': [1.8, 1.81, 1.8]},
  'mean': {'plain': [0.5, 0.5, 0.5], 'flat': [1.6, 1.6, 1.6]},
}


def verdict(name, rows, costs=COSTS, **options):
  found = getattr(claims, name.lower())(Rows(rows, costs, **options))
  assert found.claim == name
  return found


def shifted(delta, **where):
  """Moves the accuracy of the rows that fit."""

  def change(found):
    if all(found[key] in values for key, values in where.items()):
      return found | {
        name: str(float(value) + delta)
        for name, value in found.items()
        if name.startswith('test/accuracy')
      }
    return found

  return change


def scaled(factor, prefix, **where):
  def change(found):
    if all(found[key] in values for key, values in where.items()):
      return found | {
        name: str(float(value) * factor)
        for name, value in found.items()
        if name.startswith(prefix)
      }
    return found

  return change


def noisy(found):
  """Each seed says something else about F-A."""
  if found['form'] != 'flat':
    return found
  return shifted((-0.2, 0.1, 0.3)[int(found['seed'])])(found)


@pytest.mark.parametrize('name', [f'F{i}' for i in range(1, 11)])
def test_claims_hold_where_the_rows_say_so(name):
  found = verdict(name, study())
  assert found.outcome == HOLDS, found.measured
  assert found.measured


FALSE = {
  'F1': shifted(-0.1, form=('flat',), base=('cagrad',)),
  'F2': shifted(0.1, form=('direct',), base=('mgda',)),
  'F3': shifted(-0.2, form=('second',)),
  'F4': scaled(30, 'train/conflict', form=('flat',)),
  'F5': scaled(4, 'test/ece', form=('flat',)),
  'F6': shifted(0.1, form=('sam',), base=('mgda',)),
  'F7': shifted(-0.1, form=('flat',), base=('mgda',)),
  'F8': shifted(-0.1, rho=('1.0',), ascent=('plain',)),
  'F9': shifted(0.1, variant=('noisy_0.4',), form=('plain',)),
}


@pytest.mark.parametrize('name', FALSE)
def test_claims_do_not_hold_where_one_comparison_is_against_them(name):
  assert verdict(name, study(FALSE[name])).outcome == FAILS


def test_the_sum_of_steps_decides_f10():
  slow = {'mgda': {'plain': [1.0, 1.0, 1.0], 'flat': [2.5, 2.5, 2.51]}}
  assert verdict('F10', study(), slow).outcome == FAILS
  mixed = {'mgda': {'plain': [1.0, 1.0, 1.0], 'flat': [1.5, 2.0, 2.5]}}
  assert verdict('F10', study(), mixed).outcome == UNDECIDED


def test_the_mean_alone_does_not_decide_f10():
  costs = {'mean': {'plain': [0.5, 0.5, 0.5], 'flat': [1.6, 1.6, 1.6]}}
  found = verdict('F10', study(), costs)
  assert found.outcome == UNDECIDED
  assert 'not there' in found.sentence


@pytest.mark.parametrize('name', ['F1', 'F2', 'F6', 'F9'])
def test_noise_leaves_claims_undecided(name):
  assert verdict(name, study(noisy)).outcome == UNDECIDED


@pytest.mark.parametrize('name', ['F4', 'F5', 'F7', 'F8'])
def test_two_seeds_decide_nothing(name):
  found = verdict(name, study(seeds=2))
  assert found.outcome == UNDECIDED
  assert found.measured


def test_all_claims_are_listed():
  found = [verdict.claim for verdict in claims.verdicts(Rows([]))]
  assert found == [f'F{i}' for i in range(1, 11)]


@pytest.mark.parametrize('name', [f'F{i}' for i in range(1, 11)])
def test_nothing_is_claimed_without_runs(name):
  found = verdict(name, [], {})
  assert found.outcome == UNDECIDED
  assert found.measured == []
  assert 'not there' in found.sentence


def test_failed_runs_do_not_count():
  rows = study(
    lambda r: r | {'status': 'the loss is nan'} if r['seed'] == '2' else r
  )
  assert verdict('F1', rows).outcome == UNDECIDED
  assert all(m.value.n == 2 for m in verdict('F1', rows).measured)


def test_equal_compute_is_part_of_f1():
  rows = study(shifted(0.1, form=('2x',)))
  assert verdict('F1', rows).outcome == FAILS


def test_training_that_has_not_converged_is_said():
  assert 'gains 0.50 points' in verdict('F1', study()).sentence
  rows = study(shifted(-0.005, form=('2x',)))  # as good as A
  assert 'converged' not in verdict('F1', rows).sentence


def test_numbers_are_paired_differences_in_points():
  found = verdict('F1', study())
  number = next(m for m in found.measured if m.label == 'F-mgda - A')
  # 2 points; the seeds' common luck of 2 points is gone, their own is not.
  assert number.value.mean == pytest.approx(2.0)
  assert number.value.error == pytest.approx(0.02 / 3**0.5)

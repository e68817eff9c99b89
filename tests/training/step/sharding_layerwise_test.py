"""The Gramian layer by layer on a mesh: the same numbers, fewer bytes."""

import math
import pathlib

import eight_devices
import pytest


@pytest.fixture(scope='module')
def facts():
  """Of the programs compiled for eight devices; equality is checked there."""
  return eight_devices.facts_of(
    pathlib.Path(__file__).with_name('sharding_layerwise_main.py')
  )


def num_like(collectives, wanted):
  """How many arrays of the shapes are summed, stacked or by themselves."""
  return sum(
    shape[-2:] in wanted and math.prod(shape[:-2])
    for kind, found in collectives
    for shape in found
    if kind == 'all-reduce'
  )


def test_leaves_differ_in_what_pays(facts):
  """By work and by bytes; signals where they are less by both."""
  assert facts['fsdp']['forms'] == {
    'a': [False, False],
    'b': [True, True],
    'c': [True, True],
    'd': [True, False],
    'head': [False, False],
  }


@pytest.mark.parametrize('name', ['fsdp', 'task'])
def test_bytes_saved_are_those_counted(facts, name):
  """Less is received than for rows, by what was counted within a quarter."""
  case = facts[name]
  assert case['auto']['route'] == 'layerwise'
  saved = case['jacobian']['bytes'] - case['auto']['bytes']
  assert saved == pytest.approx(case['rows'] - case['taken'], rel=0.25)
  assert saved > 0


def test_gradients_that_pay_as_signals_are_summed_once(facts):
  for name in ('data', 'fsdp'):
    found = facts[name]['auto']['collectives']
    assert num_like(found, [[256, 256]]) == 1
    assert num_like(facts[name]['jacobian']['collectives'], [[256, 256]]) == 4


def test_where_no_leaf_gains_it_is_what_rows_take(facts):
  auto, jacobian = facts['many auto'], facts['many jacobian']
  assert auto['bytes'] <= 1.01 * jacobian['bytes']
  tensor = facts['tensor']
  assert not any(map(all, tensor['forms'].values()))
  assert tensor['auto']['bytes'] <= 1.05 * tensor['jacobian']['bytes']


def test_marked_leaves_alone_are_summed_for_all_tasks(facts):
  """Of the others one gradient is, of the weighted sum."""
  found = facts['narrow']['collectives']
  assert num_like(found, [[256, 256]]) == 1
  assert num_like(found, [[32, 256], [256, 32]]) == 1


@pytest.mark.parametrize('title', ['staged', 'modo'])
def test_no_task_has_a_gradient_of_a_wide_leaf(facts, title):
  assert num_like(facts[title]['collectives'], [[256, 256]]) == 1

"""The table of methods says what the library does."""

import jax.numpy as jnp
import optax
import pytest
from battery import FIRST

import mtljax as mtl
from mtljax import _catalog
from mtljax.training import make_train_step

BY_NAME = {m.name: m for m in mtl.methods()}
LOSS = mtl.Staged(lambda w: w, [lambda w, z: jnp.sum(z)] * 2)


def test_every_method_is_in_it_and_in_the_battery():
  tested = {m.name for m in FIRST if '(' not in m.name}
  assert set(BY_NAME) - set(_catalog.OPTIMIZERS) == tested
  wrappers = {'cr_mogm', 'every_k', 'freeze_after', 'select'}
  lifted = set(mtl.weightings.__all__) - wrappers
  assert lifted <= set(BY_NAME)


@pytest.mark.parametrize('name', BY_NAME)
def test_routes_are_those_of_the_train_step(name):
  method, row = _catalog.example_method(name), BY_NAME[name]

  def taken(route):
    return make_train_step(method, optax.identity(), LOSS, route=route).route

  assert taken('auto') == row.routes[0]
  for route in ('losses', 'jacobian', 'gramian', 'layerwise', 'features'):
    if route in row.routes:
      assert taken(route) == route
    elif set(row.needs) - {'losses', 'hypergradient', 'feature_norms'}:
      with pytest.raises(ValueError, match='route'):
        taken(route)


def test_stateful_is_what_remembers():
  remembers = {m.name for m in mtl.methods() if m.stateful}
  yes = 'dwa famo slaw uncertainty gradnorm gradvac pcd moco modo excess_mtl'
  no = 'mean fixed rlw pcgrad mgda nash_mtl graddrop trimmed_mean uw_o'
  assert set(f'{yes} db_mtl adatask'.split()) <= remembers
  assert not remembers & set(no.split())


def test_prints_as_a_table():
  lines = str(mtl.methods()).splitlines()
  assert len(lines) == len(BY_NAME) + 1
  assert lines[0].split()[:3] == ['method', 'reads', 'routes']
  assert all(
    line.startswith(name) for line, name in zip(lines[1:], BY_NAME, strict=True)
  )
  column = lines[0].index('paper')
  assert {line[column - 1] for line in lines} == {' '}

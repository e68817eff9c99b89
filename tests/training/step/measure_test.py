"""Trying every route: what is tried, what is returned, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax.training import make_train_step, measure

QUICK = {'rounds': 1, 'seconds': 0.0}


def _losses(params, batch):
  z = jnp.tanh(batch @ params['first'])
  return jnp.stack([jnp.mean(z @ params['last']), jnp.mean(z**2)])


def _given():
  params = {'first': jnp.full((3, 4), 0.1), 'last': jnp.ones(4)}
  return params, jnp.arange(6.0).reshape(2, 3)


def _measure(method, **options):
  params, batch = _given()
  return measure(
    method,
    optax.adam(0.1),
    _losses,
    params,
    batch,
    key=jax.random.key(0),
    **{**QUICK, **options},
  )


def test_every_exact_route_is_tried_in_every_mode_the_fastest_first():
  found = _measure(mtl.mgda(2))
  ways = {(row.route, row.mode) for row in found.rows}
  routes = ('jacobian', 'gramian', 'layerwise')
  both = {(r, m) for r in routes for m in ('unroll', 'vmap')}
  assert ways == both | {('jacobian', 'map'), ('layerwise', 'map')}
  times = [row.milliseconds for row in found.rows]
  assert times == sorted(times)
  assert times[0] > 0
  assert found.fastest == found.rows[0]
  assert str(found).splitlines()[1].startswith(found.fastest.route)
  assert all(row.compile_seconds > 0 for row in found.rows)


@pytest.mark.parametrize(
  ('method', 'routes'),
  [
    (mtl.uncertainty(2), {'losses'}),
    (mtl.graddrop(2), {'jacobian'}),
    (mtl.mgda(2, nonfinite='drop_task'), {'jacobian'}),
  ],
)
def test_only_what_the_method_can_take(method, routes):
  assert {row.route for row in _measure(method).rows} == routes


def test_the_options_are_those_of_a_train_step():
  params, batch = _given()
  method = mtl.mgda(2)
  fastest = _measure(method).fastest
  train = make_train_step(method, optax.sgd(0.1), _losses, **fastest.options)
  assert train.route == fastest.route
  state, _ = train.step(train.init(params, key=jax.random.key(0)), batch)
  assert state.step == 1


def test_the_parameters_stay():
  params, batch = _given()
  measure(
    mtl.mgda(2),
    optax.sgd(0.1),
    _losses,
    params,
    np.asarray(batch),
    key=jax.random.key(0),
    **QUICK,
  )
  np.testing.assert_array_equal(params['last'], np.ones(4))


@pytest.mark.parametrize('option', [{'route': 'auto'}, {'mode': 'vmap'}])
def test_what_is_measured_is_no_option(option):
  with pytest.raises(ValueError, match='this is what is measured'):
    _measure(mtl.mgda(2), **option)


def test_numbers_out_of_range():
  with pytest.raises(ValueError, match='rounds=0'):
    _measure(mtl.mgda(2), rounds=0)
  with pytest.raises(ValueError, match='seconds=-1'):
    _measure(mtl.mgda(2), seconds=-1)


def test_no_route_at_all_says_why():
  with pytest.raises(ValueError, match='num_tasks'):
    _measure(mtl.weightings.mgda())


def test_nothing_traced_is_timed():
  params, batch = _given()

  @jax.jit
  def step(params):
    measure(
      mtl.mgda(2),
      optax.sgd(0.1),
      _losses,
      params,
      batch,
      key=jax.random.key(0),
    )

  with pytest.raises(TypeError, match='call measure outside of jax.jit'):
    step(params)


def test_a_step_is_built_without_a_batch():
  with pytest.raises(ValueError, match='mtljax.training.measure'):
    make_train_step(mtl.mgda(2), optax.sgd(0.1), _losses, route='measure')

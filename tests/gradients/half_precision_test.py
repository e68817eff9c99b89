"""Losses in half precision: weights keep their size to the end."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from benchmarks import bf16
from mtljax.training import make_train_step

HALVES = pytest.mark.parametrize('dtype', [jnp.float16, jnp.bfloat16])
# Far above the largest float16, 65504, and with gradients as much below 1.
WEIGHTS = [3e6, 1e6]


def heads(dtype):
  return [
    lambda p, z, x: (jnp.mean(z) * 1e-5).astype(dtype),
    lambda p, z, x: (jnp.mean(z * z) * 1e-5).astype(dtype),
  ]


def trunk(p, x):
  return x @ p


def plain(dtype):
  return lambda p, x: jnp.stack([h(p, trunk(p, x), x) for h in heads(dtype)])


def sequence(dtype):
  return [lambda p, x, h=h: h(p, trunk(p, x), x) for h in heads(dtype)]


def forms(dtype):
  x = jnp.array([[1.0, 2.0, 0.5], [0.3, -1.0, 0.7]])
  return {
    'plain': (plain(dtype), x),
    'staged': (mtl.Staged(trunk, heads(dtype)), x),
    'half trunk': (
      mtl.Staged(lambda p, x: trunk(p, x).astype(dtype), heads(dtype)),
      x,
    ),
    'sequence': (sequence(dtype), [x, x]),
  }


def update(loss, batch, route, weights=WEIGHTS, **kwargs):
  init, step, _ = make_train_step(
    mtl.fixed(2, weights=weights), optax.sgd(1.0), loss, route=route, **kwargs
  )
  start = jnp.array([0.5, -0.2, 0.1])
  state, _ = step(init(start, key=jax.random.key(0)), batch)
  return start - state.params


@HALVES
@pytest.mark.parametrize('route', ['losses', 'jacobian', 'gramian'])
@pytest.mark.parametrize('form', ['plain', 'staged', 'half trunk', 'sequence'])
def test_large_weights(form, route, dtype):
  got = update(*forms(dtype)[form], route)
  want = update(*forms(jnp.float32)[form], 'jacobian')
  np.testing.assert_allclose(got, want, rtol=0.03)


@HALVES
@pytest.mark.parametrize('route', ['jacobian', 'gramian', 'layerwise'])
@pytest.mark.parametrize('form', ['plain', 'staged', 'half trunk'])
def test_nash_weights(form, route, dtype):
  method = mtl.nash_mtl(2, max_norm=None)
  seen = []
  for kind in (dtype, jnp.float32):
    loss, batch = forms(kind)[form]
    init, step, _ = make_train_step(method, optax.sgd(1.0), loss, route=route)
    state = init(jnp.array([0.5, -0.2, 0.1]), key=jax.random.key(0))
    state, metrics = step(state, batch)
    assert metrics['weights'].dtype == jnp.float32
    assert float(jnp.min(metrics['weights'])) > 65504
    seen.append(state.params)
  np.testing.assert_allclose(*seen, rtol=0.05, atol=0.02)


@pytest.mark.parametrize('weights', [[0.0, 0.0], [jnp.nan, 1.0]])
def test_weights_without_a_size(weights):
  loss, batch = forms(jnp.float16)['plain']
  pulled = mtl.gradients._pullback.make_pullback(
    loss, jnp.ones(3), (batch,), labels=None, has_aux=False
  )
  got = pulled.combined(jnp.array(weights))[0]
  if np.isnan(weights[0]):
    assert bool(jnp.all(jnp.isnan(got)))
  else:
    np.testing.assert_array_equal(got, jnp.zeros(3))


def test_whole_precision_is_left_alone():
  loss, batch = forms(jnp.float32)['plain']
  pulled = lambda w: mtl.gradients._pullback.make_pullback(
    loss, jnp.ones(3), (batch,), labels=None, has_aux=False
  ).combined(w)
  assert 'log' not in str(jax.make_jaxpr(pulled)(jnp.ones(2)))


@HALVES
@pytest.mark.parametrize('accumulate', ['gradients', 'updates'])
def test_micro_batches(accumulate, dtype):
  got, want = (
    update(
      *forms(kind)['plain'],
      'jacobian',
      microbatch_size=1,
      accumulate=accumulate,
    )
    for kind in (dtype, jnp.float32)
  )
  np.testing.assert_allclose(got, want, rtol=0.03)


@pytest.mark.slow
def test_a_trunk_in_bfloat16_has_the_weights_of_one_in_float64():
  """Within a few roundings of bfloat16, 2 ** -8."""
  for (way, what), error in bf16.errors(quick=True).items():
    bound = 1e-5 if way == 'float32' else 4 * 2**-8
    assert error < bound, (way, what)

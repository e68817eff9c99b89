import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.diagnostics import filter_normalized, loss_surface

KEY = jax.random.key(0)


def test_every_filter_has_its_own_length():
  keys = jax.random.split(jax.random.key(1), 4)
  params = {
    'conv': jax.random.normal(keys[0], (3, 3, 2, 4)),
    'dense': jax.random.normal(keys[1], (5, 3)).at[:, 1].set(0),
    'bias': jnp.ones(3),
    'scale': jnp.ones(()),
    'heads': jax.random.normal(keys[2], (2, 5, 3), jnp.bfloat16),
    'head_biases': jnp.ones((2, 3)),
  }
  labels = {k: 'stacked' if k.startswith('head') else 'shared' for k in params}
  got = filter_normalized(KEY, params, labels=labels)
  length = lambda x, axes: jnp.sqrt(jnp.sum(x.astype(jnp.float32) ** 2, axes))
  for name, axes in {'conv': (0, 1, 2), 'dense': 0}.items():
    np.testing.assert_allclose(
      length(got[name], axes), length(params[name], axes), rtol=1e-5
    )
  assert length(got['heads'], 1).shape == (2, 3)
  np.testing.assert_allclose(
    length(got['heads'], 1), length(params['heads'], 1), rtol=2e-2
  )
  for name in ('bias', 'scale', 'head_biases'):
    assert not jnp.any(got[name])
  assert all(got[k].dtype == params[k].dtype for k in params)
  assert not jnp.allclose(got['conv'], params['conv'], atol=0.1)


def test_scaling_the_network_scales_the_direction():
  params = {'kernel': jax.random.normal(KEY, (4, 3))}
  one = filter_normalized(KEY, params)
  ten = filter_normalized(KEY, jax.tree.map(lambda x: 10 * x, params))
  np.testing.assert_allclose(ten['kernel'], 10 * one['kernel'], rtol=1e-5)


def _losses(params, shift):
  return jnp.stack([jnp.sum(params['a'] ** 2), jnp.sum(params['b'] - shift)])


PARAMS = {'a': jnp.ones(2), 'b': jnp.zeros(3)}
DIRECTIONS = [
  {'a': jnp.array([1.0, 0.0]), 'b': jnp.ones(3)},
  {'a': jnp.array([0.0, 2.0]), 'b': jnp.zeros(3)},
]
FIRST, SECOND = jnp.linspace(-1, 1, 5), jnp.array([0.0, 0.5, 2.0])


@pytest.mark.parametrize('batch_size', [None, 4])
def test_plane_and_line_are_the_losses_there(batch_size):
  got = jax.jit(
    lambda p, shift: loss_surface(
      _losses, p, DIRECTIONS, (FIRST, SECOND), shift, batch_size=batch_size
    )
  )(PARAMS, 1.0)
  expected = [
    [[(1 + a) ** 2 + (1 + 2 * b) ** 2, 3 * a - 3] for b in np.asarray(SECOND)]
    for a in np.asarray(FIRST)
  ]
  np.testing.assert_allclose(got, expected, rtol=1e-6)
  line = loss_surface(
    _losses, PARAMS, DIRECTIONS[:1], FIRST, 1.0, batch_size=batch_size
  )
  np.testing.assert_allclose(line, got[:, 0], rtol=1e-6)
  square = loss_surface(_losses, PARAMS, DIRECTIONS, [-1.0, 0.5], 1.0)
  np.testing.assert_allclose(square[0, 1], got[0, 1], rtol=1e-6)


def test_wrong_arguments_are_named():
  loss = lambda p: jnp.sum(p)
  with pytest.raises(ValueError, match='directions must be a list'):
    loss_surface(loss, jnp.ones(2), jnp.ones(2), FIRST)
  with pytest.raises(ValueError, match=r'directions\[0\] must have'):
    loss_surface(loss, jnp.ones(2), [{'w': jnp.ones(2)}], FIRST)
  with pytest.raises(ValueError, match='coordinates must be a vector'):
    loss_surface(loss, jnp.ones(2), [jnp.ones(2)], [FIRST, SECOND])
  with pytest.raises(ValueError, match='batch_size=0'):
    loss_surface(loss, jnp.ones(2), [jnp.ones(2)], FIRST, batch_size=0)

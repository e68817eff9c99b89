"""Networks that take a preference: what they compute, and what they learn."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax import models
from mtljax.models import _conditioned

HOWS = pytest.mark.parametrize('how', _conditioned.HOWS)
X = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
ONE, TWO = np.eye(2, dtype=np.float32)


def small():
  return models.multi_mlp(('a', 'b'), num_classes=2, hidden_sizes=(7, 4))


@functools.cache
def made(how):
  model = models.with_preference(small(), how, rank=2)
  params, state = jax.jit(model.init)(jax.random.key(0), (X, ONE))
  # Away from the start, where the changes are 0.
  leaves, treedef = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  moved = [
    x + 0.3 * jax.random.normal(k, x.shape)
    for k, x in zip(keys, leaves, strict=True)
  ]
  return model, jax.tree.unflatten(treedef, moved), state


@functools.cache
def trunk_of(how):
  model, _, state = made(how)
  return jax.jit(
    lambda params, x, preference: model.apply_trunk(
      params, state, (x, preference), train=False
    )[0]
  )


def features(how, preference):
  return trunk_of(how)(made(how)[1], X, preference)


@HOWS
def test_the_preference_changes_the_features_and_gets_gradients(how):
  assert features(how, ONE).shape == (5, 4)
  gap = np.max(np.abs(features(how, ONE) - features(how, TWO)))
  assert gap > 1e-2
  model, params, _ = made(how)
  half = jnp.array([0.5, 0.5])
  grads = jax.jit(jax.grad(lambda p: jnp.sum(trunk_of(how)(p, X, half))))(
    params
  )
  assert all(np.any(x) for x in jax.tree.leaves(grads['trunk']))
  labels = model.sharings(params).labels
  assert set(jax.tree.leaves(labels['trunk'])) == {'shared'}


def plain(params, x=X):
  return small().trunk.apply({'params': params}, x)


def test_input_is_further_columns():
  preference = np.array([0.3, 0.7], np.float32)
  _, params, _ = made('input')
  x = np.concatenate([X, np.tile(preference, (5, 1))], axis=1)
  expected = plain(params['trunk']['module'], x)
  np.testing.assert_allclose(features('input', preference), expected, rtol=1e-5)


def columns():
  """A trunk that reads a table's numbers and categories."""
  return models.multi_mlp(
    ('a', 'b'),
    num_classes=2,
    hidden_sizes=(7, 4),
    encoder=models.EmbedColumns((3, 4), 2),
  )


ROWS = {'numeric': X, 'categorical': np.ones((5, 2), np.int32)}


@HOWS
def test_rows_of_several_columns_take_a_preference(how):
  model = models.with_preference(columns(), how, rank=2)
  params, state = model.init(jax.random.key(0), (ROWS, ONE))
  outputs = model.apply(params, state, (ROWS, ONE))
  assert [x.shape for x in outputs] == [(5, 2), (5, 2)]


def test_a_preference_is_beside_the_numbers_of_rows():
  model = models.with_preference(columns(), 'input')
  params, state = model.init(jax.random.key(0), (ROWS, ONE))
  found = model.apply_trunk(params, state, (ROWS, TWO), train=False)[0]
  wide = {**ROWS, 'numeric': np.concatenate([X, np.tile(TWO, (5, 1))], axis=1)}
  inner = columns().trunk
  expected = inner.apply({'params': params['trunk']['module']}, wide)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
  ('rows', 'named'),
  [
    ({'categorical': ROWS['categorical']}, 'has none'),
    ({'left': X, 'right': X}, 'left, right'),
  ],
)
def test_inputs_without_one_place_for_a_preference_are_refused(rows, named):
  model = models.with_preference(columns(), 'input')
  with pytest.raises(ValueError, match=named):
    model.init(jax.random.key(0), (rows, ONE))


def test_interpolation_is_the_mean_of_weights():
  preference = np.array([0.3, 0.7], np.float32)
  members = made('interpolate')[1]['trunk']['members']
  mixed = jax.tree.map(lambda p: 0.3 * p[0] + 0.7 * p[1], members)
  found = features('interpolate', preference)
  np.testing.assert_allclose(found, plain(mixed), rtol=1e-4, atol=1e-5)
  first = jax.tree.map(lambda p: p[0], members)
  np.testing.assert_allclose(
    features('interpolate', ONE), plain(first), rtol=1e-4, atol=1e-5
  )


def test_low_rank_changes_kernels_by_their_products():
  trunk = made('low_rank')[1]['trunk']
  base = jax.tree.map(np.asarray, trunk['base'])
  for layer in ('fc1', 'fc2'):
    into = np.asarray(trunk[f'into_{layer}_kernel'])[1]
    out = np.asarray(trunk[f'out_{layer}_kernel'])[1]
    change = into.T @ out / 2
    assert np.linalg.matrix_rank(change) == 2
    base[layer] = dict(base[layer]) | {'kernel': base[layer]['kernel'] + change}
  np.testing.assert_allclose(
    features('low_rank', TWO), plain(base), rtol=1e-4, atol=1e-5
  )
  count = sum(x.size for x in jax.tree.leaves(trunk))
  plain_count = sum(x.size for x in jax.tree.leaves(base))
  assert count - plain_count == 2 * 2 * ((6 + 7) + (7 + 4))


@pytest.mark.parametrize('how', ['low_rank', 'hypernetwork'])
def test_starts_near_the_plain_network(how):
  model = models.with_preference(small(), how)
  params, state = model.init(jax.random.key(0), (X, ONE))
  found = model.apply_trunk(params, state, (X, ONE), train=False)[0]
  expected = plain(params['trunk']['base'])
  np.testing.assert_allclose(found, expected, atol=0.1)


def test_refuses_batch_statistics_and_what_is_not_known():
  class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
      return nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))

  model = models.MultiTaskModel(
    Normed(), (models.LinearHead(2),) * 2, tasks=('a', 'b')
  )
  with pytest.raises(ValueError, match='Normed has batch_stats'):
    models.with_preference(model, 'interpolate').init(
      jax.random.key(0), (X, ONE)
    )
  with pytest.raises(ValueError, match="how='lora'.*low_rank"):
    models.with_preference(small(), 'lora')
  with pytest.raises(ValueError, match='rank=0'):
    models.with_preference(small(), 'low_rank', rank=0)


@pytest.mark.slow
@HOWS
def test_one_network_learns_a_whole_curve(how):
  """Two regressions that contradict each other: the best output is p_1."""
  model = models.with_preference(
    models.multi_mlp(('a', 'b'), num_classes=1, hidden_sizes=(32, 32)), how
  )
  params, state = model.init(jax.random.key(0), (X, ONE))
  tx = optax.adam(3e-3)

  def loss(params, preference):
    z = model.apply_trunk(params, state, (X, preference), train=True)[0]
    out = model.apply_head(0, params, z)
    return jnp.mean(preference[0] * (out - 1) ** 2 + preference[1] * out**2)

  def step(carry, key):
    params, opt = carry
    grads = jax.grad(loss)(params, mtl.pareto.draw(key, 2))
    updates, opt = tx.update(grads, opt, params)
    return (optax.apply_updates(params, updates), opt), None

  keys = jax.random.split(jax.random.key(1), 3000)
  (params, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, keys))(
    (params, tx.init(params))
  )
  for share in (0.1, 0.5, 0.9):
    preference = jnp.array([share, 1 - share])
    z = model.apply_trunk(params, state, (X, preference), train=False)[0]
    np.testing.assert_allclose(model.apply_head(0, params, z), share, atol=0.1)

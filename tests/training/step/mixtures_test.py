"""A rule that sees some tasks in averages, and the passes that this spares."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax.training import make_train_step

T = 6
RNG = np.random.default_rng(0)
PARAMS = {
  'trunk': RNG.normal(size=(5, 4)),
  'heads': [RNG.normal(size=4) for _ in range(T)],
}
LABELS = {'trunk': 'shared', 'heads': list(range(T))}
X = RNG.normal(size=(8, 5))
Y = RNG.normal(size=(T, 8)) * np.geomspace(0.5, 3, T)[:, None]


def trunk(params, batch):
  return jnp.tanh(batch @ params['trunk'])


def head(t, params, features, batch):
  del batch
  return jnp.mean((features @ params['heads'][t] - Y[t]) ** 2)


def plain(params, batch):
  features = trunk(params, batch)
  return jnp.stack([head(t, params, features, batch) for t in range(T)])


STAGED = mtl.Staged(
  trunk,
  [lambda *args, t=t: head(t, *args) for t in range(T)],
)


def train(loss, method, steps=4, mask=None, **options):
  step = make_train_step(method, optax.sgd(0.1), loss, **options)
  params = jax.tree.map(jnp.asarray, PARAMS)
  state = step.init(params, key=jax.random.key(3))
  batch = jnp.asarray(X)
  batch = batch if mask is None else mtl.MaskedBatch(batch, mask)
  for _ in range(steps):
    state, metrics = step.step(state, batch)
  return step.route, state, metrics


def assert_same(found, expected):
  for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize('loss', [plain, STAGED], ids=['plain', 'staged'])
@pytest.mark.parametrize(
  'mask', [None, np.arange(T) != 2], ids=['all', 'one absent']
)
def test_all_routes_make_the_same_update(x64, loss, mask):
  method = mtl.cagrad(T, subset=2, labels=LABELS)
  route, state, metrics = train(loss, method, mask=mask)
  assert route == 'gramian'
  for other in ('jacobian', 'layerwise'):
    _, expected, by_other = train(loss, method, mask=mask, route=other)
    assert_same(state.params, expected.params)
    assert_same(metrics['weights'], by_other['weights'])
  _, full, _ = train(loss, mtl.cagrad(T, labels=LABELS), mask=mask)
  assert np.abs(full.params['trunk'] - state.params['trunk']).max() > 1e-4


@pytest.mark.parametrize('mode', ['vmap', 'unroll'])
def test_all_modes_do(x64, mode):
  method = mtl.cagrad(T, subset=3, labels=LABELS)
  _, expected, _ = train(STAGED, method, route='jacobian')
  assert_same(train(STAGED, method, mode=mode)[1].params, expected.params)


def test_leaves_of_the_gramian_and_weighted_heads(x64):
  both = {'trunk': LABELS['trunk'], 'heads': LABELS['heads']}
  params = jax.tree.map(jnp.asarray, PARAMS)
  method = mtl.cagrad(
    T,
    subset=2,
    labels=both,
    gramian_labels=mtl.match_params(params, 'trunk'),
    weight_heads=True,
  )
  _, expected, _ = train(STAGED, method, route='jacobian')
  assert_same(train(STAGED, method)[1].params, expected.params)


def test_weights_that_are_held(x64):
  method = mtl.every_k(mtl.cagrad(T, subset=2, labels=LABELS), 2)
  route, state, _ = train(STAGED, method)
  assert route == 'gramian'
  _, expected, _ = train(STAGED, method, route='layerwise')
  assert_same(state.params, expected.params)


def test_averages_of_weights_over_steps_see_all_tasks(x64):
  method = mtl.cr_mogm(mtl.cagrad(T, subset=2, labels=LABELS))
  _, expected, _ = train(STAGED, method, route='jacobian')
  assert_same(train(STAGED, method, route='gramian')[1].params, expected.params)


def operations(method, **options):
  step = make_train_step(method, optax.sgd(0.1), WIDE, mode='unroll', **options)
  state = step.init(jnp.ones((64, 64)), key=jax.random.key(0))
  found = step.step.lower(state, jnp.ones((32, 64))).compile().cost_analysis()
  found = found[0] if isinstance(found, list) else found
  return found['flops']


def _wide_trunk(w, x):
  for _ in range(3):
    x = jnp.tanh(x @ w)
  return x


WIDE = mtl.Staged(
  _wide_trunk,
  [
    lambda w, features, x, t=t: jnp.mean(features[:, t] ** 2) for t in range(20)
  ],
)


def test_tasks_that_are_not_drawn_cost_no_pass():
  full = operations(mtl.cagrad(20), route='jacobian')
  some = operations(mtl.cagrad(20, subset=3))
  # 4 backward passes in place of 20, and one forward.
  assert some < 0.35 * full

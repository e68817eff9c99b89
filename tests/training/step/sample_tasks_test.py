"""Every sample a task."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax.training import make_train_step

S = 6
METHODS = {
  'upgrad': mtl.upgrad,
  'mgda': mtl.mgda,
  'uncertainty': mtl.uncertainty,
}


def params():
  keys = jax.random.split(jax.random.key(0), 4)
  return {
    'w0': jax.random.normal(keys[0], (5, 16)),
    'b0': jax.random.normal(keys[1], (16,)),
    'w1': jax.random.normal(keys[2], (16, 2)),
  }


def batch(size=S):
  return {
    'x': jax.random.normal(jax.random.key(1), (size, 5)),
    'y': jax.random.normal(jax.random.key(2), (size, 2)),
  }


def of_each(p, batch):
  """Losses ``(S, 2)``."""
  z = jnp.tanh(batch['x'] @ p['w0'] + p['b0'][None])
  return (z @ p['w1'] - batch['y']) ** 2


def loss(p, batch):
  return of_each(p, batch).sum(1).mean()


def two_losses(p, batch):
  return of_each(p, batch).mean(0)


STAGED = mtl.Staged(
  lambda p, b: jnp.tanh(b['x'] @ p['w0'] + p['b0'][None]),
  [
    lambda p, z, b, t=t: jnp.mean((z @ p['w1'] - b['y'])[:, t] ** 2)
    for t in range(2)
  ],
)
FORMS = {'scalar': loss, 'plain': two_losses, 'staged': STAGED}


def one_task_each(p, batch):
  """What a user would write without ``tasks='samples'``."""
  return of_each(p, batch).sum(1)


def change(method, fun, **options):
  train = make_train_step(method, optax.sgd(1.0), fun, **options)
  start = params()
  state = train.init(start, key=jax.random.key(3))
  state, metrics = train.step(state, batch())
  moved = jax.tree.map(lambda a, b: a - b, state.params, start)
  flat = np.concatenate([x.ravel() for x in jax.tree.leaves(moved)])
  return flat, metrics, train.route


@pytest.mark.parametrize('name', METHODS)
def test_routes_are_the_jacobian_of_one_task_a_sample(name, x64):
  method = METHODS[name](S)
  want, metrics, _ = change(method, one_task_each, route='jacobian')
  assert np.linalg.norm(want) > 0.1
  options = [{}, {'route': 'jacobian'}, {'route': 'gramian'}]
  options += [{'route': 'layerwise', 'chunk_size': 2}]
  for more in options:
    got, found, route = change(method, loss, tasks='samples', **more)
    assert np.linalg.norm(got - want) <= 1e-10 * np.linalg.norm(want), more
    np.testing.assert_allclose(found['weights'], metrics['weights'], atol=1e-10)
    np.testing.assert_allclose(found['losses'], metrics['losses'], 1e-12)
    if not more:
      expected = 'losses' if name == 'uncertainty' else 'layerwise'
      assert route == expected


@pytest.mark.parametrize('form', FORMS)
def test_forms_of_the_loss(form, x64):
  want, _, _ = change(mtl.mgda(S), loss, tasks='samples')
  got, _, _ = change(mtl.mgda(S), FORMS[form], tasks='samples')
  np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


def test_the_gramian_of_chosen_layers(x64):
  marked = {'w0': False, 'b0': False, 'w1': True}
  method = mtl.mgda(S, gramian_labels=marked)
  want, metrics, _ = change(method, one_task_each, route='jacobian')
  got, found, _ = change(method, loss, tasks='samples')
  np.testing.assert_allclose(found['weights'], metrics['weights'], atol=1e-10)
  np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)
  whole = change(mtl.mgda(S), loss, tasks='samples')[1]['weights']
  assert np.max(np.abs(whole - found['weights'])) > 1e-3


@pytest.mark.parametrize('layerwise', [False, True])
def test_sample_gramians_of_chosen_layers(layerwise, x64):
  marked = {'w0': True, 'b0': False, 'w1': False}
  fun = mtl.value_and_sample_gramian(
    two_losses, gramian_labels=marked, layerwise=layerwise
  )
  got = fun(params(), batch())[1]
  rows = mtl.value_and_sample_grads(two_losses)(params(), batch())[1]['w0']
  np.testing.assert_allclose(
    got, np.einsum('stij,cuij->stcu', rows, rows), rtol=1e-10, atol=1e-12
  )


def test_no_gradient_of_a_sample_is_formed():
  """Two wide layers: S copies of their weights are never held."""
  size, width = 16, 256
  start = {name: jnp.zeros((width, width)) for name in ('w0', 'w1')}
  fun = lambda p, x: jnp.mean(jnp.tanh(x @ p['w0']) @ p['w1'])
  found = {}
  for route in ('layerwise', 'jacobian'):
    train = make_train_step(
      mtl.mgda(size), optax.sgd(0.1), fun, tasks='samples', route=route
    )
    state = train.init(start, key=jax.random.key(0))
    compiled = train.step.lower(state, jnp.ones((size, width))).compile()
    found[route] = compiled.memory_analysis().temp_size_in_bytes
  weights = 2 * 4 * width**2
  assert found['layerwise'] < 2 * weights < size * weights <= found['jacobian']


def build(method=None, fun=loss, **options):
  method = mtl.mgda(S) if method is None else method
  return make_train_step(
    method, optax.sgd(0.1), fun, tasks='samples', **options
  )


def test_errors_of_building():
  for options in ({'has_state': True}, {'microbatch_size': 2}):
    with pytest.raises(ValueError, match=next(iter(options))):
      build(**options)
  with pytest.raises(ValueError, match="route='features'"):
    build(route='features', fun=STAGED)
  with pytest.raises(ValueError, match='modo reads cross_gramian'):
    build(mtl.modo(S))
  with pytest.raises(ValueError, match='flat_regions|mgda'):
    build(mtl.flat_regions(mtl.mgda(S)))
  with pytest.raises(ValueError, match='no sample owns any'):
    build(mtl.mgda(S, labels={'w0': 'shared', 'b0': 'shared', 'w1': 1}))
  with pytest.raises(ValueError, match='sequence'):
    build(fun=[loss] * S)
  with pytest.raises(ValueError, match="tasks='rows'"):
    make_train_step(mtl.mgda(S), optax.sgd(0.1), loss, tasks='rows')
  with pytest.raises(ValueError, match='num_tasks=None'):
    build(mtl.weightings.mgda())


def test_a_batch_of_another_size():
  train = build()
  state = train.init(params(), key=jax.random.key(0))
  with pytest.raises(ValueError, match=r'num_tasks=6.*the batch has 4'):
    train.step(state, batch(4))

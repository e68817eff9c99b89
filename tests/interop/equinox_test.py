"""Equinox modules: their arrays are the parameters, the rest is static."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax import _labels
from mtljax.training import make_train_step

eqx = pytest.importorskip('equinox')

X = jax.random.normal(jax.random.key(1), (8, 3))


class Net(eqx.Module):
  trunk: eqx.nn.Linear
  heads: list
  activation: object = eqx.field(static=True)
  name: str = 'net'  # a leaf that is no array
  squash: object = jnp.tanh  # another

  def __call__(self, x):
    z = self.squash(self.activation(self.trunk(x)))
    return jnp.stack([head(z)[0] for head in self.heads])


def make():
  keys = jax.random.split(jax.random.key(0), 3)
  return Net(
    eqx.nn.Linear(3, 4, key=keys[0]),
    [eqx.nn.Linear(4, 1, key=key) for key in keys[1:]],
    jax.nn.gelu,
  )


def split():
  return eqx.partition(make(), eqx.is_inexact_array)


def task_losses(params, x):
  net = eqx.combine(params, split()[1])
  return jnp.mean((jax.vmap(net)(x) - jnp.array([[0.0, 1.0]])) ** 2, axis=0)


SPEC = dict(shared='trunk/.*', tasks=['heads/0/.*', 'heads/1/.*'])


def test_labels_and_gradients():
  params, _ = split()
  labels = mtl.label_params(params, **SPEC)
  assert (
    _labels.flatten_labels(labels, params, 2)
    == ['shared'] * 2 + [0] * 2 + [1] * 2
  )
  losses, grads = mtl.value_and_task_grads(task_losses, labels=labels)(
    params, X
  )
  assert grads.trunk.weight.shape == (2, 4, 3)
  assert grads.heads[0].weight.shape == (1, 4)
  assert grads.name is None
  expected = eqx.filter_jacrev(task_losses)(params, X)
  chex.assert_trees_all_close(
    grads.trunk.weight, expected.trunk.weight, atol=1e-6
  )
  assert losses.shape == (2,)


@pytest.mark.parametrize('route', ['jacobian', 'gramian', 'layerwise'])
def test_chain_and_train_step_agree(route):
  params, static = split()
  method = mtl.cagrad(2, labels=mtl.label_params(params, **SPEC))
  tx = optax.chain(method, optax.adam(0.1))

  @eqx.filter_jit
  def update(net, state, x):
    params, _ = eqx.partition(net, eqx.is_inexact_array)
    losses, grads = mtl.value_and_task_grads(task_losses, labels=method.labels)(
      params, x
    )
    updates, state = tx.update(grads, state, params, losses=losses)
    return eqx.apply_updates(net, updates), state

  step = make_train_step(method, optax.adam(0.1), task_losses, route=route)
  run = step.init(params, key=jax.random.key(0))
  net, state = make(), tx.init(params)
  for _ in range(2):
    net, state = update(net, state, X)
    run, _ = step.step(run, X)
  moved, _ = eqx.partition(net, eqx.is_inexact_array)
  chex.assert_trees_all_close(run.params, moved, rtol=1e-3, atol=1e-5)
  np.testing.assert_allclose(
    mtl.get_weights(state), mtl.get_weights(run), rtol=1e-3
  )
  assert eqx.combine(run.params, static).name == 'net'


def test_labels_of_a_whole_module_fit_its_arrays():
  """Labels made before the parts were separated."""
  whole = jax.tree.map(lambda x: x, make())
  labels = mtl.label_params(
    whole, **{**SPEC, 'shared': ['trunk/.*', 'name', 'squash']}
  )
  params, _ = split()
  assert _labels.flatten_labels(labels, params, 2).count('shared') == 2

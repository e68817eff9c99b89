"""States through what other programs do to trees: copy, pickle, serialize."""

import copy
import pickle

import battery
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization

import mtljax as mtl
from mtljax.training import TrainState, make_train_step

PLAIN = mtl.uncertainty(2, labels=battery.LABELS)
METHODS = {m.name: m(2, labels=battery.LABELS) for m in battery.FIRST}
METHODS |= {
  'per_task_optimizer': mtl.per_task_optimizer(
    optax.adam(0.1), 2, labels=battery.LABELS
  ),
  'adatask': mtl.adatask(2, 0.1, labels=battery.LABELS),
  'inject_hyperparams': mtl.inject_hyperparams(mtl.cagrad)(
    2, c=0.4, labels=battery.LABELS
  ),
  'sam': mtl.sam(PLAIN),
  'samo': mtl.samo(PLAIN),
  'flat_regions': mtl.flat_regions(PLAIN),
}
EACH = pytest.mark.parametrize('name', METHODS)


def bits(tree):
  """Typed keys by their bits, which numpy and msgpack can hold."""
  return jax.tree.map(
    lambda x: (
      jax.random.key_data(x)
      if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
      else x
    ),
    tree,
  )


def keys(tree, like):
  """Bits back to keys, where ``like`` has them."""
  return jax.tree.map(
    lambda x, key: (
      jax.random.wrap_key_data(jnp.asarray(x))
      if jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
      else jnp.asarray(x)
    ),
    tree,
    like,
  )


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  chex.assert_trees_all_equal(bits(a), bits(b))
  chex.assert_trees_all_equal_shapes_and_dtypes(bits(a), bits(b))


@EACH
def test_of_every_method(name):
  init, params = METHODS[name].init, battery.make_params()
  state = init(params)
  assert_same(copy.deepcopy(state), state)
  assert_same(pickle.loads(pickle.dumps(state)), state)
  as_dict = serialization.to_state_dict(state)
  assert_same(serialization.from_state_dict(state, as_dict), state)
  data = serialization.to_bytes(bits(state))
  restored = serialization.from_bytes(bits(init(params)), data)
  assert_same(keys(restored, state), state)
  shapes = jax.eval_shape(init, jax.eval_shape(lambda: params))
  assert jax.tree.structure(shapes) == jax.tree.structure(state)
  for shape, leaf in zip(
    jax.tree.leaves(shapes), jax.tree.leaves(state), strict=True
  ):
    assert (shape.shape, shape.dtype) == (leaf.shape, leaf.dtype)


def losses(w, x):
  return jnp.stack([jnp.sum((w - x) ** 2), jnp.sum((w + x) ** 4)])


def trained(steps=2):
  train = make_train_step(mtl.rlw(2), optax.adam(0.1), losses)
  state = train.init(jnp.array([1.0, 2.0]), key=jax.random.key(0))
  for _ in range(steps):
    state, _ = train.step(state, jnp.array([0.5, 0.1]))
  return train, state


def flax_round_trip(state):
  """`TrainState` is no type of flax's: its fields are, as a dictionary."""
  data = serialization.to_bytes(vars(bits(state)))
  like = vars(bits(state))
  return keys(TrainState(**serialization.from_bytes(like, data)), state)


@pytest.mark.parametrize(
  'round_trip',
  [
    copy.deepcopy,
    lambda state: pickle.loads(pickle.dumps(state)),
    flax_round_trip,
  ],
)
def test_a_run_goes_on_from_a_copy(round_trip):
  train, state = trained()
  restored = round_trip(state)
  assert_same(restored, state)
  x = jnp.array([0.5, 0.1])
  assert_same(train.step(restored, x)[0], train.step(state, x)[0])


def test_shapes_of_a_train_state():
  train, state = trained(0)
  shapes = jax.eval_shape(
    lambda key: train.init(jnp.array([1.0, 2.0]), key=key), jax.random.key(0)
  )
  assert jax.tree.structure(shapes) == jax.tree.structure(state)


@EACH
def test_methods_are_copied_with_their_facts(name):
  method = METHODS[name]
  assert copy.copy(method) == method
  for twin in (copy.copy(method), copy.deepcopy(method), method._replace()):
    assert isinstance(twin, mtl.Aggregator)
    assert twin.info == method.info
    assert twin.needs == method.needs
    assert twin.labels == method.labels
    assert twin.init is method.init


def test_replace_keeps_what_it_does_not_name():
  method = mtl.cagrad(2, labels=battery.LABELS, max_norm=1.0)
  init = lambda params: ()
  twin = method._replace(init=init)
  assert twin.init is init
  assert vars(twin) == vars(method)
  assert method._replace(num_tasks=3).num_tasks == 3
  with pytest.raises(TypeError, match='nothing'):
    method._replace(nothing=1)


def test_a_copy_gives_the_same_update():
  method = copy.deepcopy(mtl.cagrad(2, labels=battery.LABELS))
  out, _ = battery.run(method, 1)
  expected, _ = battery.run(mtl.cagrad(2, labels=battery.LABELS), 1)
  chex.assert_trees_all_equal(out, expected)
  rule = copy.deepcopy(mtl.weightings.mgda())
  assert rule == mtl.weightings.mgda()._replace(
    init=rule.init, update=rule.update
  )


def test_methods_are_functions_and_not_pickled():
  """What they were built with, and their states, are."""
  for method in (mtl.cagrad(2), mtl.weightings.cagrad()):
    with pytest.raises((AttributeError, pickle.PicklingError)):
      pickle.dumps(method)


def test_numpy_states_go_on():
  tx = mtl.uncertainty(2)
  grads, seen = jnp.eye(2), jnp.array([1.0, 2.0])
  _, state = tx.update(grads, tx.init(None), losses=seen)
  host = jax.device_get(state)
  assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(host))
  out, _ = tx.update(grads, host, losses=seen)
  expected, _ = tx.update(grads, state, losses=seen)
  np.testing.assert_array_equal(out, expected)

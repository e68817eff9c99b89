"""Methods beside optax's masks: what is right, and what is refused."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl

PARAMS = {
  'trunk': jnp.ones(3),
  'frozen': {'w': jnp.ones(2)},
  'head': [1.0, 2.0],
}
LABELS = {'trunk': 'shared', 'frozen': 'shared', 'head': [0, 1]}
GRADS = {
  'trunk': jnp.array([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]]),
  'frozen': {'w': jnp.array([[1.0, 0.0], [1.0, 0.0]])},
  'head': [jnp.array(5.0), jnp.array(7.0)],
}
LOSSES = jnp.array([1.0, 2.0])
GROUPS = {'trunk': 'a', 'frozen': 'b', 'head': 'a'}
TRAINED = {'trunk': True, 'frozen': False, 'head': True}


def freezing(method):
  """Every way in which optax freezes what is around a method."""
  zero = optax.set_to_zero()
  return {
    'partition': optax.partition({'a': method, 'b': zero}, GROUPS),
    'partition(chain)': optax.partition(
      {'a': optax.chain(method, optax.adam(0.1)), 'b': zero}, GROUPS
    ),
    'multi_transform': optax.multi_transform({'a': method, 'b': zero}, GROUPS),
    'masked': optax.masked(method, TRAINED),
    'selective_transform': optax.selective_transform(
      method, freeze_mask=jax.tree.map(lambda m: not m, TRAINED)
    ),
  }


def as_arrays(params):
  return jax.tree.map(jnp.asarray, params)


@pytest.mark.parametrize('name', ['mean', 'cagrad', 'graddrop'])
@pytest.mark.parametrize('way', freezing(mtl.mean(2)))
def test_freezing_a_shared_parameter_around_a_method(way, name):
  params = as_arrays(PARAMS)
  tx = freezing(getattr(mtl, name)(2, labels=LABELS))[way]
  state = tx.init(params)
  with pytest.raises(ValueError, match="'frozen.*right of the method"):
    jax.jit(tx.update)(GRADS, state, params, losses=LOSSES)


def test_without_labels():
  params = {'trunk': jnp.ones(3), 'frozen': jnp.ones(2)}
  tx = optax.masked(mtl.mean(2), {'trunk': True, 'frozen': False})
  grads = {'trunk': GRADS['trunk'], 'frozen': GRADS['frozen']['w']}
  with pytest.raises(ValueError, match="'frozen'.*right of the method"):
    tx.update(grads, tx.init(params), params)


@pytest.mark.parametrize(
  'wrap',
  [
    lambda tx: mtl.sam(tx, rho=0.1),
    lambda tx: mtl.samo(tx),
    lambda tx: mtl.flat_regions(tx),
    lambda tx: mtl.every_k(tx, 2),
    lambda tx: mtl.inject_hyperparams(mtl.cagrad)(2, c=0.4),
    lambda tx: mtl.per_task_optimizer(optax.sgd(0.1), 2),
  ],
)
def test_wrappers_refuse_too(wrap):
  params = {'trunk': jnp.ones(3), 'frozen': jnp.ones(3)}
  loss = lambda p: jnp.stack([jnp.sum(p['trunk'] ** 2), jnp.sum(p['frozen'])])
  losses, grads = mtl.value_and_task_grads(loss)(params)
  tx = optax.masked(wrap(mtl.mean(2)), {'trunk': True, 'frozen': False})
  state = tx.init(params)
  with pytest.raises(ValueError, match='right of the method'):
    tx.update(
      grads, state, params, losses=losses, task_grad_fn=mtl.task_grad_fn(loss)
    )


@pytest.mark.parametrize('way', freezing(mtl.mean(2)))
def test_the_way_that_works(way):
  """The same to the right: frozen leaves stay, the others move as alone."""
  params = as_arrays(PARAMS)
  method = mtl.mgda(2, labels=LABELS)
  tx = optax.chain(method, freezing(optax.sgd(0.1))[way])
  updates, state = jax.jit(tx.update)(GRADS, tx.init(params), params)
  alone, _ = method.update(GRADS, method.init(params), params)
  chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
  if way != 'partition(chain)':  # Adam
    np.testing.assert_allclose(updates['trunk'], -0.1 * alone['trunk'])
  if way != 'masked':  # which passes on what it masks
    np.testing.assert_array_equal(updates['frozen']['w'], 0)
  assert mtl.get_weights(state).shape == (2,)


def test_freeze_on_either_side():
  """On the left the frozen leaves do not count for the weights either."""
  params = as_arrays(PARAMS)
  frozen = jax.tree.map(lambda m: not m, TRAINED)
  method = mtl.mgda(2, labels=LABELS)
  marks = {'trunk': True, 'frozen': False, 'head': False}
  narrow = mtl.mgda(2, labels=LABELS, gramian_labels=marks)
  for chain, want in (
    ((optax.freeze(frozen), method), narrow),
    ((method, optax.freeze(frozen)), method),
  ):
    tx = optax.chain(*chain)
    updates, state = tx.update(GRADS, tx.init(params), params)
    expected, _ = want.update(GRADS, want.init(params), params)
    expected['frozen'] = jax.tree.map(jnp.zeros_like, expected['frozen'])
    chex.assert_trees_all_close(updates, expected, atol=1e-6)


def test_heads_may_be_frozen_around_a_method():
  """They have no task axis, so whoever masks them holds the right shapes."""
  params = as_arrays(PARAMS)
  tx = optax.partition(
    {'a': mtl.mean(2, labels=LABELS), 'b': optax.set_to_zero()},
    {'trunk': 'a', 'frozen': 'a', 'head': 'b'},
  )
  updates, _ = tx.update(GRADS, tx.init(params), params)
  chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
  np.testing.assert_array_equal(updates['head'], [0, 0])
  np.testing.assert_allclose(updates['trunk'], GRADS['trunk'].mean(0))


def test_a_method_a_part_of_the_network():
  """Said by the labels: each method leaves the other's parameters to it."""
  params = as_arrays(PARAMS)
  gap = optax.MaskedNode()
  tx = optax.partition(
    {
      'a': mtl.mean(2, labels={**LABELS, 'frozen': gap}),
      'b': mtl.sum_losses(
        2, labels={'trunk': gap, 'frozen': 'shared', 'head': gap}
      ),
    },
    GROUPS,
  )
  updates, _ = jax.jit(tx.update)(GRADS, tx.init(params), params)
  chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
  np.testing.assert_allclose(updates['trunk'], GRADS['trunk'].mean(0))
  np.testing.assert_allclose(updates['frozen']['w'], [2.0, 0.0])


@pytest.mark.parametrize(
  'wrap',
  [
    lambda tx: optax.apply_if_finite(tx, 3),
    lambda tx: optax.conditionally_mask(tx, lambda step: step < 3),
    lambda tx: optax.conditionally_transform(tx, lambda step: step < 3),
    lambda tx: optax.MultiSteps(tx, 2),
  ],
)
def test_wrappers_that_keep_what_comes_in_go_to_the_right(wrap):
  """Around a method the first call raises: what comes out is smaller."""
  params = {'w': jnp.ones(3)}
  grads = {'w': GRADS['trunk']}
  tx = wrap(optax.chain(mtl.mean(2), optax.sgd(0.1)))
  with pytest.raises((TypeError, ValueError)):
    tx.update(grads, tx.init(params), params)
  tx = optax.chain(mtl.mean(2), wrap(optax.sgd(0.1)))
  updates, _ = tx.update(grads, tx.init(params), params)
  chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)

"""Wrappers that hold weights, in the train step."""

import chex
import jax
import numpy as np
import optax
import pytest
from toy import BATCH, LABELS, PARAMS, STAGED, T, plain, products, run

import mtljax as mtl
from mtljax.training import make_train_step

SLW = mtl.slw(T, labels=LABELS)


def history(method, steps=5, **options):
  """Weights of every step, and the last state."""
  train = make_train_step(method, optax.sgd(1e-3), STAGED, **options)
  state, found = train.init(PARAMS, key=jax.random.key(0)), []
  for _ in range(steps):
    state, metrics = train.step(state, BATCH)
    found.append(np.asarray(metrics['weights']))
  return np.stack(found), state


def test_weights_of_the_method_move():
  """So that holding them is seen in all tests below."""
  found, _ = history(SLW)
  assert np.all(np.ptp(found, axis=0) > 1e-4 * found[0])


def optax_face(method, steps=5):
  tx = optax.chain(method, optax.sgd(1e-3))
  params, state, found = PARAMS, tx.init(PARAMS), []
  grad_fn = mtl.value_and_task_grads(plain, labels=LABELS)

  @jax.jit
  def step(params, state):
    losses, grads = grad_fn(params, BATCH)
    updates, state = tx.update(grads, state, params, losses=losses)
    return optax.apply_updates(params, updates), state

  for _ in range(steps):
    params, state = step(params, state)
    found.append(np.asarray(mtl.get_weights(state)))
  return np.stack(found), params


@pytest.mark.parametrize(
  'method',
  [
    mtl.every_k(SLW, 2),
    mtl.freeze_after(SLW, 2),
    mtl.cr_mogm(SLW, decay=0.5),
    mtl.every_k(mtl.cr_mogm(SLW, decay=0.5), 2),
    mtl.cr_mogm(mtl.every_k(SLW, 2), decay=0.5),
  ],
  ids=lambda m: m.info.name,
)
def test_train_step_is_the_optax_face(method):
  found, state = history(method)
  expected, params = optax_face(method)
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
  chex.assert_trees_all_close(state.params, params, rtol=1e-3, atol=1e-5)


def test_every_k_is_the_option_of_the_step():
  found, state = history(mtl.every_k(SLW, 3))
  expected, other = history(SLW, every=3)
  np.testing.assert_array_equal(found, expected)
  chex.assert_trees_all_equal(state.params, other.params)
  # No counter of its own beside the step's.
  chex.assert_trees_all_equal_shapes_and_dtypes(
    state.method_state, other.method_state
  )


def conditional_products(method, route='gramian'):
  """Matrix products outside conditionals, and inside."""
  train = make_train_step(method, optax.sgd(0.1), STAGED, route=route)
  state = train.init(PARAMS, key=jax.random.key(0))
  outside, branches = products(jax.make_jaxpr(train.step)(state, BATCH).jaxpr)
  return outside, sum(branches)


@pytest.mark.parametrize(
  'wrap', [lambda m: mtl.every_k(m, 4), lambda m: mtl.freeze_after(m, 4)]
)
def test_gradients_of_the_other_steps_are_inside_the_conditional(wrap):
  one_pass, _ = conditional_products(mtl.mean(T, labels=LABELS), 'losses')
  # The two further batches of double sampling too, forward passes included.
  for method in (SLW, mtl.modo(T, labels=LABELS)):
    always, _ = conditional_products(method)
    assert always >= one_pass + T - 1
    assert conditional_products(wrap(method)) == (0, one_pass + always)


def test_inside_sam_too():
  found, state = history(mtl.sam(mtl.every_k(SLW, 2)))
  expected, other = history(mtl.sam(SLW), every=2)
  np.testing.assert_array_equal(found, expected)
  chex.assert_trees_all_equal_shapes_and_dtypes(
    state.method_state, other.method_state
  )


def test_inside_flat_regions_the_solve_is_held():
  found, _ = history(mtl.flat_regions(mtl.every_k(SLW, 2)), steps=4)
  np.testing.assert_array_equal(found[0], found[1])
  assert not np.array_equal(found[1], found[2])


def test_method_that_is_more_than_weights_keeps_its_own_counter():
  dropping = mtl.slw(T, labels=LABELS, nonfinite='drop_task')
  found, state = history(mtl.every_k(dropping, 2), steps=3)
  np.testing.assert_array_equal(found[0], found[1])
  assert not np.array_equal(found[1], found[2])
  assert state.method_state.weighting_state.count == 1


def test_weighting_in_place_of_an_aggregator():
  found, _ = history(
    mtl.every_k(mtl.weightings.slw(), 2), steps=2, labels=LABELS
  )
  np.testing.assert_array_equal(found[0], found[1])


def test_two_ways_to_say_the_same_are_refused():
  with pytest.raises(ValueError, match=r'every=2: every_k\(slw\) says itself'):
    run(mtl.every_k(SLW, 3), every=2)
  with pytest.raises(ValueError, match='use every=1'):
    run(mtl.sam(mtl.freeze_after(SLW, 3)), every=2)

"""What is not finite never enters a method's state."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from battery import LABELS, LOSSES, METHODS, make_grads, make_params

import mtljax as mtl

# Finite, but outside of what some rules are defined on or can hold.
ODD_LOSSES = [
  (-1.0, 2.0),
  (-1.0, -1.0),
  (0.0, 2.0),
  (0.0, 0.0),
  (1e38, 2.0),
  (-1e38, 1e38),
  (3e38, 1.0),
  (1e-42, 2.0),
  (1e-30, 1e30),
]
ODD_SCALES = [1e19, 1e25, 1e-25, 1e-38, 1e-42]
STEPS = 8
READING_LOSSES = [
  m
  for m in METHODS
  if 'losses' in m(2, labels=LABELS).needs or m.name == 'famo'
]


def not_finite(tree):
  """The paths of the leaves that hold a number that is not finite."""
  return {
    jax.tree_util.keystr(path)
    for path, x in jax.tree_util.tree_leaves_with_path(tree)
    if jnp.issubdtype(x.dtype, jnp.inexact)
    and not bool(jnp.all(jnp.isfinite(x)))
  }


def inner(state):
  """What the method itself keeps from step to step."""
  if hasattr(state, 'weighting_state'):
    return state.weighting_state
  return state.method_state


LEARNING = [
  m for m in METHODS if jax.tree.leaves(inner(m(2).init(make_params())))
]


def train(tx, update, first, odd):
  """Two odd steps among good ones; the state after each, the last update."""
  params = make_params()
  state = tx.init(params)
  states, updates = [state], None
  for i in range(STEPS):
    grads, losses = make_grads(i), LOSSES + 0.1 * i
    if first <= i < first + 2:
      grads, losses = odd(grads, losses)
    updates, state = update(grads, state, params, losses=losses)
    states.append(state)
  return states, updates


def check(m, starts, changes):
  tx = m(2, labels=LABELS)
  update = jax.jit(tx.update)
  for first, odd in itertools.product(starts, changes):
    states, updates = train(tx, update, first, odd)
    unmeasured = not_finite(inner(states[0]))
    for state in states:
      assert not_finite(inner(state)) <= unmeasured
    if m.name.startswith('freeze_after') and first == 0:
      continue  # of the steps that its weights could be of, none was good
    assert not not_finite((states[-1], updates))
    assert any(jnp.any(x != 0) for x in jax.tree.leaves(updates))


@pytest.mark.parametrize('m', READING_LOSSES, ids=lambda m: m.name)
def test_losses_outside_the_domain(m):
  check(
    m,
    [0, 3],
    [
      lambda grads, losses, odd=odd: (grads, jnp.array(odd, losses.dtype))
      for odd in ODD_LOSSES
    ],
  )


@pytest.mark.parametrize('m', LEARNING, ids=lambda m: m.name)
def test_gradients_beyond_the_range(m):
  def scaled(factor):
    return lambda grads, losses: (
      jax.tree.map(lambda x: x * jnp.float32(factor), grads),
      losses,
    )

  check(m, [3], [scaled(factor) for factor in ODD_SCALES])


def test_a_first_estimate_next_to_zero_does_not_poison_excess_mtl():
  tx = mtl.excess_mtl(2, learning_rate=100.0)
  state = tx.init(jnp.zeros(2))
  for size in (2e-38, 1.0, 1.0):
    grads = jnp.array([[size, 0.0], [0.0, 1.0]])
    _, state = tx.update(grads, state)
  chex.assert_tree_all_finite((state.weights, state.method_state))
  np.testing.assert_allclose(state.weights, [1.0, 0.0])


@pytest.mark.parametrize(
  'tx',
  [
    mtl.adatask(2, 0.1, labels=LABELS),
    mtl.per_task_optimizer(optax.adagrad(0.1), 2, labels=LABELS),
    mtl.per_task(optax.scale_by_adam(), 2, labels=LABELS),
  ],
  ids=['adatask', 'per_task_optimizer', 'per_task'],
)
def test_an_optimizer_that_overflows_stands_still_for_that_task(tx):
  """The square of 1e25 is infinite, of which Adam would keep a part."""
  params = make_params()
  state = tx.init(params)
  _, state = tx.update(make_grads(0), state, params)
  grads = make_grads(1)
  large = jax.tree.map(lambda x: x, grads)
  large['trunk']['w'] = grads['trunk']['w'].at[1].multiply(1e25)
  large['heads_1'] = grads['heads_1'] * 1e25
  _, after = tx.update(large, state, params)
  _, good = tx.update(grads, state, params)
  assert not not_finite(after)
  shared = lambda state: getattr(state, 'shared', state)
  row = lambda state, t: jax.tree.map(lambda x: x[t], shared(state))
  chex.assert_trees_all_equal(row(after, 0), row(good, 0))
  chex.assert_trees_all_equal(row(after, 1), row(state, 1))
  if hasattr(state, 'own'):
    chex.assert_trees_all_equal(after.own[0], good.own[0])
    chex.assert_trees_all_equal(after.own[1], state.own[1])


def test_what_was_never_measured_stays_so():
  """NaN is how held weights say that there are none yet."""
  tx = mtl.every_k(mtl.mgda(2), 3)
  state = tx.init(jnp.zeros(2))
  bad = jnp.full((2, 2), jnp.nan)
  _, state = tx.update(bad, state)
  assert bool(jnp.all(jnp.isnan(state.weighting_state.held_weights)))
  assert int(state.weighting_state.count) == 1


def test_a_rule_of_ones_own_is_held_to_it():
  def update(stats, state):
    return jnp.ones(2), state / jnp.min(stats.losses)

  weighting = mtl.Weighting(
    lambda num_tasks, key=None: jnp.ones(()), update, frozenset({'losses'})
  )
  tx = mtl.aggregate(weighting, 2)
  state = tx.init(jnp.zeros(2))
  for losses, expected in (([2.0, 4.0], 0.5), ([0.0, 1.0], 0.5), ([1, 2], 0.5)):
    _, state = tx.update(jnp.eye(2), state, losses=jnp.array(losses, float))
    assert float(state.weighting_state) == expected


def test_observed_losses_that_overflow_do_not_enter():
  def observe(losses, state):
    return jnp.exp(jnp.max(losses))

  weighting = mtl.Weighting(
    lambda num_tasks, key=None: jnp.ones(()),
    lambda stats, state: (jnp.ones(2), state),
    frozenset({'losses'}),
    observe=observe,
  )
  tx = mtl.aggregate(weighting, 2)
  state = tx.init(jnp.zeros(2))
  for losses in ([1.0, 2.0], [1.0, 0.0], [1e3, 0.0], [0.0, -1.0]):
    _, state = tx.update(jnp.eye(2), state, losses=jnp.array(losses))
    assert bool(jnp.isfinite(state.weighting_state))
  assert float(state.weighting_state) == 1.0


def test_nadir_of_small_losses():
  """The mean is of the losses alone, not of where the state began."""
  rule = mtl.weightings.stch(warmup_steps=2, nadir_steps=2)
  state = rule.init(2)
  for losses in ([1e-10, 3.0], [3e-10, 5.0]):
    _, state = rule.update(mtl.TaskStats(losses=jnp.array(losses)), state)
  np.testing.assert_allclose(state.nadir, [2e-10, 4.0], rtol=1e-6)


@pytest.mark.parametrize('odd', [[-1.0, 2.0], [0.0, 2.0]])
def test_a_loss_without_logarithm_is_no_part_of_the_nadir(odd):
  rule = mtl.weightings.stch(warmup_steps=2, nadir_steps=2)
  state = rule.init(2)
  for losses in ([1.0, 3.0], odd, [3.0, 5.0]):
    _, state = rule.update(mtl.TaskStats(losses=jnp.array(losses)), state)
  np.testing.assert_allclose(state.nadir, [2.0, 4.0], rtol=1e-6)

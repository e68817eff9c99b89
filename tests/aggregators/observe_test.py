"""Losses after a step, which the optax face shows at its next call."""

import jax.numpy as jnp
import numpy as np
import pytest

import mtljax as mtl

T = 3
GRADS = jnp.eye(T, 4) + 0.1
LOSSES = jnp.array([1.0, 4.0, 2.0])


def listener():
  """A weighting whose state is the losses observed last, -1 for none."""
  return mtl.Weighting(
    lambda num_tasks, key=None: jnp.zeros(num_tasks),
    lambda stats, state: (jnp.ones(T), state),
    frozenset(),
    observe=lambda losses, state: jnp.nan_to_num(losses, nan=-1.0),
  )


def seen(tx, *calls):
  state = tx.init(jnp.zeros(4))
  for losses, mask in calls:
    _, state = tx.update(GRADS, state, losses=losses, task_mask=mask)
  return state.weighting_state


def test_the_first_call_shows_none_and_each_later_one_its_own():
  tx = mtl.aggregate(listener(), T)
  np.testing.assert_array_equal(seen(tx, (LOSSES, None)), jnp.zeros(T))
  found = seen(tx, (LOSSES, None), (2 * LOSSES, None))
  np.testing.assert_array_equal(found, 2 * LOSSES)


def test_the_losses_of_absent_tasks_are_not_seen():
  mask = jnp.array([True, False, True])
  found = seen(mtl.aggregate(listener(), T), (LOSSES, None), (LOSSES, mask))
  np.testing.assert_array_equal(found, jnp.where(mask, LOSSES, -1.0))


@pytest.mark.parametrize('held', [0.0, -1.0, 1e6, jnp.nan, jnp.inf])
def test_famo_learns_nothing_of_what_an_absent_task_holds(held):
  tx = mtl.famo(T, learning_rate=0.1)
  shrink = jnp.array([0.9, 0.5, 0.3])
  mask = jnp.array([True, False, True])
  states = []
  for value in (held, 7.0):
    absent = (LOSSES * shrink).at[1].set(value)
    states.append(
      seen(tx, (LOSSES, None), (absent, mask), (LOSSES * shrink**2, None))
    )
  assert jnp.all((states[0].logits != 0) == mask)
  np.testing.assert_array_equal(states[0].logits, states[1].logits)

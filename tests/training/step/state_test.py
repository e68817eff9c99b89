import dataclasses

import jax
import jax.numpy as jnp
import pytest

from mtljax.training import TrainState


def make(step):
  return TrainState(
    step=jnp.int32(step),
    params={'w': jnp.ones(3)},
    model_state={},
    opt_state=(),
    method_state=None,
    key=jax.random.key(0),
  )


def test_is_a_tree_of_its_fields():
  names = [
    jax.tree_util.keystr(path)
    for path, _ in jax.tree_util.tree_leaves_with_path(make(3))
  ]
  assert names == ['.step', ".params['w']", '.key']


def test_passes_through_jit_with_donation():
  @jax.jit
  def step(state):
    return dataclasses.replace(state, step=state.step + 1)

  donating = jax.jit(step, donate_argnums=0)
  state = donating(donating(make(3)))
  assert isinstance(state, TrainState)
  assert int(state.step) == 5


def test_is_frozen():
  with pytest.raises(dataclasses.FrozenInstanceError):
    make(0).step = 1

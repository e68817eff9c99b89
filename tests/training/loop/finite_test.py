"""A state that is not finite is never saved."""

import dataclasses
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from noise import Batches

import mtljax as mtl
from mtljax.training import (
  Checkpointer,
  NonFiniteLossError,
  fit,
  make_train_step,
)
from mtljax.training.loop._finite import check_state


def task_losses(params, x):
  return jnp.stack([jnp.mean((x @ params) ** 2), jnp.mean(x @ params - 1)])


TRAIN = make_train_step(mtl.mean(2), optax.sgd(0.01), task_losses)


def start():
  return TRAIN.init(jnp.ones(3), key=jax.random.key(0))


@pytest.mark.parametrize('bad', [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16, jnp.complex64])
@pytest.mark.parametrize('field', ['params', 'model_state'])
def test_every_leaf_is_looked_at(field, dtype, bad):
  good = {'count': jnp.array(3), 'key': jax.random.key(0), 'x': jnp.ones(2)}
  for last in (jnp.ones(3, dtype), jnp.zeros((0,), dtype)):
    check_state(dataclasses.replace(start(), **{field: good | {'z': last}}), 0)
  broken = good | {'z': jnp.array([1, bad, 1], dtype)}
  state = dataclasses.replace(start(), **{field: broken})
  with pytest.raises(NonFiniteLossError, match='after step 0') as caught:
    check_state(state, 0)
  assert (caught.value.step, caught.value.task) == (0, None)


@pytest.mark.parametrize('signalled', [False, True])
@pytest.mark.parametrize('field', ['params', 'model_state'])
def test_a_run_stops_before_it_saves(tmp_path, field, signalled):
  """Between evaluations too, where a signal asks for a checkpoint."""

  def step_fn(state, batch):
    state, metrics = TRAIN.step(state, batch)
    if int(state.step) == 5:
      broken = {'params': state.params * np.nan, 'model_state': jnp.inf}
      value = jnp.asarray(broken[field])
      state = dataclasses.replace(state, **{field: value})
    return state, metrics

  def callback(step, *_):
    if signalled and step == 5:
      signal.raise_signal(signal.SIGTERM)

  with Checkpointer(tmp_path) as checkpointer:
    with pytest.raises(NonFiniteLossError, match='good checkpoint is step 4'):
      fit(
        step_fn,
        dataclasses.replace(start(), model_state=jnp.zeros(())),
        Batches(0),
        num_steps=8 if signalled else 5,
        task_names=('a', 'b'),
        eval_every=4,
        checkpointer=checkpointer,
        progress=False,
        callback=callback,
      )

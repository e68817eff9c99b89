"""A run to be killed: python kill_script.py OUT. See kill_test.py."""

import contextlib
import dataclasses
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtljax.training import (
  Checkpointer,
  JsonlWriter,
  TrainState,
  exit_on_error,
  fit,
  open_run,
)

NUM_STEPS = 24
WIDTH = 800  # 8 MB of state, so that a save takes a while
optimizer = optax.adam(1e-3)


class Batches:
  """A shuffled epoch after the other, as grain does it."""

  def __init__(self):
    self.position = 0

  def __next__(self):
    epoch, place = divmod(self.position, 5)
    order = np.random.default_rng(epoch).permutation(40)
    self.position += 1
    x = order[place * 8 : place * 8 + 8, None] / 40 + np.arange(20) / 20
    return np.sin(7 * x).astype(np.float32)

  def get_state(self):
    return {'position': self.position}

  def set_state(self, state):
    self.position = state['position']


def task_losses(params, x, key):
  hidden = jnp.tanh(x @ params['in'])
  hidden *= jax.random.bernoulli(key, 0.8, hidden.shape)
  hidden = jnp.tanh(hidden @ params['hidden'])
  return jnp.mean((hidden @ params['out'] - x[:, :2]) ** 2, axis=0), hidden


def step_fn(state, batch):
  key, dropout = jax.random.split(state.key)
  weights = jax.random.dirichlet(key, jnp.ones(2))

  def total(params):
    losses, hidden = task_losses(params, batch, dropout)
    return losses @ weights, (losses, hidden)

  grads, (losses, hidden) = jax.grad(total, has_aux=True)(state.params)
  updates, opt_state = optimizer.update(grads, state.opt_state)
  state = TrainState(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    model_state=0.9 * state.model_state + 0.1 * hidden.mean(0),
    opt_state=opt_state,
    method_state=weights,
    key=key,
  )
  return state, {'losses': losses, 'weights': weights}


def eval_fn(state):
  return {'score': jnp.cos(100 * state.params['in'].sum())}


def main(out):
  run = open_run(out, {'width': WIDTH, 'steps': NUM_STEPS})
  keys = jax.random.split(jax.random.key(0), 3)
  params = {
    'in': jax.random.normal(keys[0], (20, WIDTH)) / 5,
    'hidden': jax.random.normal(keys[1], (WIDTH, WIDTH)) / WIDTH**0.5,
    'out': jax.random.normal(keys[2], (WIDTH, 2)) / WIDTH**0.5,
  }
  state = TrainState(
    step=jnp.int32(0),
    params=params,
    model_state=jnp.zeros(WIDTH),
    opt_state=optimizer.init(params),
    method_state=jnp.ones(2) / 2,
    key=jax.random.key(1),
  )
  with (
    contextlib.closing(JsonlWriter(run.metrics)) as writer,
    Checkpointer(run.checkpoints) as checkpointer,
  ):
    result = fit(
      jax.jit(step_fn, donate_argnums=0),
      state,
      Batches(),
      num_steps=NUM_STEPS,
      task_names=['a', 'b'],
      log_every=2,
      eval_every=3,
      eval_fn=eval_fn,
      select=lambda metrics: metrics['score'],
      writer=writer,
      checkpointer=checkpointer,
      progress=False,
    )
  state = dataclasses.replace(
    result.state, key=jax.random.key_data(result.state.key)
  )
  np.savez(
    run.path / 'final.npz',
    *map(np.asarray, jax.tree.leaves(state)),
    best=result.best_step,
  )


if __name__ == '__main__':
  with exit_on_error():
    main(pathlib.Path(sys.argv[1]))

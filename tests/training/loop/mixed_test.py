"""A run on several sources that is stopped midway ends in the same bits."""

import contextlib
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax import data
from mtljax.training import Checkpointer, JsonlWriter, fit, make_train_step

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 3)), RNG.normal(size=(30, 3))
LABELS = {'shared': 'shared', 'heads': [0, 1]}


def task_losses(params, batch):
  return jnp.stack(
    [
      jnp.mean((batch[name]['x'] @ params['shared'] * head - 1) ** 2)
      for name, head in zip(('a', 'b'), params['heads'], strict=True)
    ]
  )


TRAIN = make_train_step(
  mtl.famo(2, learning_rate=0.1, labels=LABELS), optax.adam(0.1), task_losses
)


def batches(rate=0.4):
  sources = {
    'a': data.Source(
      arrays={'x': X.astype(np.float32)}, tasks=('one',), batch_size=4
    ),
    'b': data.Source(
      arrays={'x': Y.astype(np.float32)},
      tasks=('two',),
      batch_size=6,
      rate=rate,
    ),
  }
  return data.make_mixed_iterator(sources, tasks=('one', 'two'), seed=0)


def run(out, num_steps, mixed=None):
  out.mkdir(exist_ok=True)
  params = {'shared': jnp.ones(3), 'heads': [jnp.ones(())] * 2}
  with (
    contextlib.closing(JsonlWriter(out / 'metrics.jsonl')) as writer,
    Checkpointer(out / 'checkpoints') as checkpointer,
  ):
    result = fit(
      TRAIN.step,
      TRAIN.init(params, key=jax.random.key(0)),
      mixed or batches(),
      num_steps=num_steps,
      task_names=['one', 'two'],
      log_every=1,
      eval_every=4,
      writer=writer,
      checkpointer=checkpointer,
      progress=False,
    )
  lines = (out / 'metrics.jsonl').read_text().splitlines()
  lines = [json.loads(line) for line in lines]
  for line in lines:
    line.pop('examples_per_second', None)
  return result, lines


def test_a_run_that_is_stopped_midway_ends_in_the_same_bits(tmp_path):
  whole, lines = run(tmp_path / 'whole', 12)
  assert TRAIN.step._cache_size() == 1  # one program, whoever is there
  run(tmp_path / 'parts', 4)
  resumed, again = run(tmp_path / 'parts', 12)
  assert resumed.resumed_from == 4
  chex.assert_trees_all_equal(
    jax.tree.map(np.asarray, resumed.state.params),
    jax.tree.map(np.asarray, whole.state.params),
  )
  chex.assert_trees_all_equal(resumed.state.opt_state, whole.state.opt_state)
  chex.assert_trees_all_equal(
    resumed.state.method_state, whole.state.method_state
  )
  assert again == lines
  said = [('loss/two' in line, line['present/two']) for line in lines]
  assert said == [(n == 1, n) for _, n in said]
  assert sum(n for _, n in said) == 5  # of 12 steps at a rate of 0.4


def test_another_mix_is_no_continuation(tmp_path):
  run(tmp_path, 4)
  with pytest.raises(ValueError, match='build it with the same arguments'):
    run(tmp_path, 8, batches(rate=0.5))

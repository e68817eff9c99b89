"""Times a front of sixteen preferences in one program, and in sixteen.

python -m benchmarks.fronts [--method fixed epo ...]

An MLP of the size that the census suite has: 500 inputs, a trunk of 128 and
64 units, two heads of 16 units with two outputs, batches of 256, Adam.
``alone`` is a run a preference with a train step of its own, as sixteen
commands make it (without the start of Python, which they would have besides);
the others are one sweep of sixteen members by every mode. ``ms`` is the time of
a step of all sixteen: the least over rounds. ``in all`` is what ``--steps``
steps of all take by the clock with compilation, and ``ratio`` that of ``in
all`` to ``alone``. Modes take turns in one process.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import mtljax as mtl
from mtljax import models
from mtljax.training import make_sweep, make_train_step

ALONE = 'alone'
INPUTS = 500


@dataclasses.dataclass(frozen=True)
class Config:
  """Times a front of preferences in one program, and in as many."""

  method: tuple[str, ...] = ('fixed', 'epo', 'pmgda')
  """Methods that take a preference, or fixed weights."""
  mode: tuple[str, ...] = (ALONE, 'vmap', 'map', 'loop')
  """alone, and modes of make_sweep."""
  preferences: int = 16
  """Members of the front."""
  steps: int = 400
  """Steps of every run that the time in all is for: two epochs of 50,000
  rows."""
  rounds: int = 5
  """Rounds of steps that the time of a step is the least of."""
  inner: int = 3
  """Steps of a round."""
  batch_size: int = 256
  """Examples a step."""


def make_build(method: str, batch_size: int):
  """From hyper-parameters to a train step; parameters, state and a batch."""
  model = models.multi_mlp(('income', 'married'), 2, (128, 64), (16,))
  keys = jax.random.split(jax.random.key(0), 4)
  batch = {
    'x': jax.random.normal(keys[0], (batch_size, INPUTS)),
    'income': jax.random.randint(keys[1], (batch_size,), 0, 2),
    'married': jax.random.randint(keys[2], (batch_size,), 0, 2),
  }
  params, model_state = model.init(keys[3], batch['x'])
  labels = model.sharings(params).labels

  def loss_of(task):
    def loss(logits, batch):
      return optax.losses.softmax_cross_entropy_with_integer_labels(
        logits, batch[task]
      ).mean(), {}

    return loss

  loss = models.staged_loss(
    model, [loss_of(x) for x in model.tasks], lambda batch: batch['x']
  )

  def build(hparams):
    name = 'weights' if method == 'fixed' else 'preference'
    options: dict[str, Any] = {name: hparams['preference']}
    return make_train_step(
      mtl.get_method(method)(2, labels=labels, **options),
      optax.adam(1e-3),
      loss,
      has_state=True,
      mode='unroll',
    )

  return build, params, model_state, batch


def make_runner(method: str, mode: str, config: Config) -> Callable[[int], Any]:
  """``run(steps)``, seconds for so many steps of all preferences."""
  build, params, model_state, batch = make_build(method, config.batch_size)
  grid = mtl.pareto.grid(2, config.preferences - 1, inset=0.1)
  grid = grid.astype(np.float32)
  keys = jax.random.split(jax.random.key(1), len(grid))
  if mode == ALONE:
    steps = [build({'preference': p}) for p in grid]
    states = [
      s.init(jax.tree.map(jnp.array, params), key=k, model_state=model_state)
      for s, k in zip(steps, keys, strict=True)
    ]

    def advance():
      for i, own in enumerate(steps):
        states[i], _ = own.step(states[i], batch)
      return states

  else:
    sweep = make_sweep(build, {'preference': grid}, mode=mode)
    states = [sweep.init(params, keys=keys, model_state=model_state)]

    def advance():
      states[0], _ = sweep.step(states[0], batch)
      return states

  def run(count):
    start = time.perf_counter()
    for _ in range(count):
      found = advance()
    jax.block_until_ready(found)
    return time.perf_counter() - start

  return run


def measure(method: str, config: Config) -> None:
  """Prints the table of one method."""
  print(f'\n{method}, {config.preferences} preferences, {config.steps} steps')
  print(f'{"mode":<8}{"ms":>9}{"compile, s":>12}{"in all, s":>11}{"ratio":>8}')
  runners = {mode: make_runner(method, mode, config) for mode in config.mode}
  firsts = {mode: run(1) for mode, run in runners.items()}
  least = {mode: run(1) for mode, run in runners.items()}
  for _ in range(config.rounds):
    for mode, run in runners.items():
      least[mode] = min(least[mode], run(config.inner) / config.inner)
  whole = {
    mode: firsts[mode] + (config.steps - 1) * least[mode] for mode in runners
  }
  for mode in runners:
    ratio = whole[mode] / whole[ALONE] if ALONE in whole else float('nan')
    print(
      f'{mode:<8}{1e3 * least[mode]:>9.2f}{firsts[mode] - least[mode]:>12.2f}'
      f'{whole[mode]:>11.2f}{ratio:>8.2f}',
      flush=True,
    )


def main() -> None:
  """The command line."""
  config = tyro.cli(Config, prog='python -m benchmarks.fronts')
  print(f'jax {jax.__version__}, {jax.devices()}')
  for name in config.method:
    measure(name, config)


if __name__ == '__main__':
  main()

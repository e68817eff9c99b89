"""Times eight runs in one program by every mode, and in eight processes.

python -m benchmarks.sweep [--model lenet mlp] [--mode vmap ...] [--quick]

MultiLeNet on images of 36 x 36 with a batch of 256, and an MLP of widths
40-64-64 with a batch of 64; two tasks, CAGrad, Adam, learning rates and ``c``
of their own. ``ms`` is the time of a step of one member: the least over rounds
of some steps of all members. ``compile`` is the first step less another one.
``in all`` is what ``--steps`` steps of all members take by the clock, with
compilation; ``processes`` does the same in fresh processes one after another,
and has the start of Python and its imports in it too. Modes take turns in one
process, so that all see the same machine.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax
import tyro

import mtljax as mtl
from experiments.suites.digits import SUITE
from mtljax import models
from mtljax.training import make_sweep, make_train_step

PROCESSES = 'processes'


@dataclasses.dataclass(frozen=True)
class Config:
  """Times eight runs in one program by every mode, and in eight processes."""

  model: tuple[str, ...] = ('lenet', 'mlp')
  """lenet, mlp."""
  mode: tuple[str, ...] = ('vmap', 'map', 'unroll', 'loop', PROCESSES)
  """Modes of make_sweep, and processes."""
  members: int = 8
  """Runs."""
  steps: int = 20
  """Steps of every run that the time in all is for."""
  rounds: int = 5
  """Rounds of five steps that the time of a step is the least of."""
  processes: int = 8
  """Of the processes, how many are run; their time is scaled to all members."""
  alone: int | None = None
  """Train this member alone and print nothing: what processes starts."""


def lenet() -> tuple[Any, ...]:
  """Loss, labels, parameters with model state, and batch of MultiLeNet."""
  keys = jax.random.split(jax.random.key(0), 3)
  batch = {
    'image': jax.random.normal(keys[0], (256, 36, 36, 1)),
    'left': jax.random.randint(keys[1], (256,), 0, 10),
    'right': jax.random.randint(keys[2], (256,), 0, 10),
  }
  model = models.multi_lenet()
  params, model_state = model.init(jax.random.key(0), batch['image'])
  losses = [task.loss for task in SUITE.tasks_of(model.tasks)]
  labels = mtl.label_params(
    params, shared=model.shared, tasks=model.task_patterns
  )
  loss = models.staged_loss(model, losses, lambda b: b['image'])
  return loss, labels, (params, model_state), batch


def mlp() -> tuple[Any, ...]:
  """The same of the MLP."""
  keys = jax.random.split(jax.random.key(0), 5)
  params = {
    'trunk': [
      jax.random.normal(keys[0], (40, 64)) / 40**0.5,
      jax.random.normal(keys[1], (64, 64)) / 8,
    ],
    'heads': [jax.random.normal(k, (64,)) / 8 for k in keys[2:4]],
  }
  labels = {'trunk': ['shared'] * 2, 'heads': [0, 1]}

  def trunk(params, x, state, key):
    del key
    for w in params['trunk']:
      x = jnp.tanh(x @ w)
    return x, state

  def head(t):
    def loss(params, z, x, state, key):
      del state, key
      return jnp.mean((z @ params['heads'][t] - x[:, t]) ** 2), {}

    return loss

  loss = mtl.Staged(trunk, [head(0), head(1)])
  return loss, labels, (params, {}), jax.random.normal(keys[4], (64, 40))


MODELS = {'lenet': lenet, 'mlp': mlp}


def members(size: int) -> dict[str, list[float]]:
  """Hyper-parameters of every member."""
  return {
    'learning_rate': [1e-3 * (1 + i / size) for i in range(size)],
    'c': [0.1 + 0.8 * i / size for i in range(size)],
  }


def make_runner(name: str, mode: str, hparams: dict[str, list[float]]):
  """``run(steps)``, which trains all members for so many steps."""
  loss, labels, (params, model_state), batch = MODELS[name]()

  def build(hparams):
    return make_train_step(
      mtl.cagrad(2, c=hparams['c'], labels=labels),
      optax.adam(hparams['learning_rate']),
      loss,
      has_state=True,
      mode='map' if name == 'lenet' else 'unroll',
    )

  sweep = make_sweep(build, hparams, mode=mode)
  keys = jax.random.split(jax.random.key(1), sweep.num_members)
  state = sweep.init(params, keys=keys, model_state=model_state)

  def run(steps):
    nonlocal state
    start = time.perf_counter()
    for _ in range(steps):
      state, _ = sweep.step(state, batch)
    jax.block_until_ready(state)
    return time.perf_counter() - start

  return run


def processes(name: str, config: Config) -> float:
  """Seconds of all members in processes of their own, one after another."""
  start = time.perf_counter()
  for i in range(config.processes):
    command = [sys.executable, '-m', 'benchmarks.sweep', '--model', name]
    command += ['--alone', str(i), '--steps', str(config.steps)]
    command += ['--members', str(config.members)]
    subprocess.run(command, check=True)
  seconds = time.perf_counter() - start
  return seconds / config.processes * config.members


def measure(name: str, config: Config) -> None:
  """Prints the table of one model."""
  print(f'\n{name}, {config.members} members, {config.steps} steps each')
  print(f'{"mode":<11}{"ms":>8}{"compile, s":>12}{"in all, s":>11}')
  runners, firsts, least = {}, {}, {}
  for mode in config.mode:
    if mode != PROCESSES:
      runners[mode] = make_runner(name, mode, members(config.members))
      firsts[mode] = runners[mode](1)
      least[mode] = runners[mode](1)
  for _ in range(config.rounds):
    for mode, run in runners.items():
      least[mode] = min(least[mode], run(5) / 5)
  for mode in runners:
    compile_time = firsts[mode] - least[mode]
    print(
      f'{mode:<11}{1e3 * least[mode] / config.members:>8.3f}'
      f'{compile_time:>12.2f}'
      f'{compile_time + least[mode] * config.steps:>11.2f}',
      flush=True,
    )
  if PROCESSES in config.mode:
    print(f'{PROCESSES:<11}{"":>8}{"":>12}{processes(name, config):>11.2f}')


def main() -> None:
  """The command line."""
  config = tyro.cli(Config, prog='python -m benchmarks.sweep')
  if config.alone is not None:
    hparams = members(config.members)
    own = {k: [v[config.alone]] for k, v in hparams.items()}
    make_runner(config.model[0], 'loop', own)(config.steps)
    return
  print(f'jax {jax.__version__}, {jax.devices()}')
  for name in config.model:
    measure(name, config)


if __name__ == '__main__':
  main()

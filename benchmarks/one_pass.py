"""Times methods of one backward pass: ``python -m benchmarks.one_pass``.

An MLP with about P shared parameters and a head a task, Adam, one train step as
`make_train_step` builds it. All methods take turns in one process, in an order
that changes from round to round. The ratios are to the plain sum of the losses,
medians of the ratios within each round. `two reads` is no step, but the least
that `m_config` adds to one: T x P numbers times a row, and weights times them.
"""

from __future__ import annotations

import argparse
import statistics

import jax
import jax.numpy as jnp
import optax

import mtljax as mtl
from mtljax.training import make_train_step
from mtljax.training.step._turns import take_turns

REFERENCE = 'sum_losses'
TWO_READS = 'two reads'
METHODS = (
  REFERENCE,
  TWO_READS,
  'igb',
  'relobralo',
  'ldc_mtl',
  'coba',
  'm_config',
)


def make_runner(name: str, num_tasks: int, width: int, batch_size: int):
  """``run(steps)``, which trains for so many steps."""
  keys = jax.random.split(jax.random.key(0), 4)
  params = {
    'trunk': jax.random.normal(keys[0], (width, width)) / width**0.5,
    'heads': jax.random.normal(keys[1], (num_tasks, width)) / width**0.5,
  }
  labels = {'trunk': 'shared', 'heads': 'stacked'}
  batch = jax.random.normal(keys[2], (batch_size, width))
  targets = jax.random.normal(keys[3], (num_tasks, batch_size))

  def losses(params, batch):
    outputs = params['heads'] @ jnp.tanh(batch @ params['trunk']).T
    return jnp.mean((outputs - targets) ** 2, axis=1) + 0.1

  init, step, _ = make_train_step(
    mtl.get_method(name)(num_tasks, labels=labels), optax.adam(1e-3), losses
  )
  state = init(params, key=jax.random.key(1))

  def run(steps):
    nonlocal state
    for _ in range(steps):
      state, _ = step(state, batch)
    jax.block_until_ready(state)

  return run


def two_reads(num_tasks: int, num_params: int):
  """``run(steps)``, which reads averages twice, as often."""

  @jax.jit
  def read(averages, row):
    weights = averages @ row
    return weights @ averages

  averages = jnp.ones((num_tasks, num_params))
  row = jnp.ones(num_params)

  def run(steps):
    for _ in range(steps):
      jax.block_until_ready(read(averages, row))

  return run


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--tasks', type=int, nargs='*', default=[2, 8, 40])
  parser.add_argument('--width', type=int, default=1000, help='root of P')
  parser.add_argument('--batch', type=int, default=1024)
  parser.add_argument('--rounds', type=int, default=15)
  parser.add_argument('--methods', nargs='*', default=METHODS)
  args = parser.parse_args()
  print(f'jax {jax.__version__}, {jax.devices()}, P = {args.width**2:.0e}')
  print(f'{"method":<14}{"T":>4}{"ms a step":>12}{"/ plain":>10}')
  for num_tasks in args.tasks:
    runs = {}
    for name in dict.fromkeys([REFERENCE, *args.methods]):
      runs[name] = (
        two_reads(num_tasks, args.width**2)
        if name == TWO_READS
        else make_runner(name, num_tasks, args.width, args.batch)
      )
      runs[name](2)
    times = take_turns(runs, args.rounds, lambda _: 5)
    for name, values in times.items():
      ratio = statistics.median(
        value / base
        for value, base in zip(values, times[REFERENCE], strict=True)
      )
      print(
        f'{name:<14}{num_tasks:>4}{statistics.median(values):>12.1f}'
        f'{ratio:>10.2f}',
        flush=True,
      )


if __name__ == '__main__':
  main()

"""Times a training step of every method beside one of the plain sum.

python -m benchmarks.steps [--quick]

MultiLeNet on images of 36 x 36, two tasks, Adam, one train step as
`make_train_step` builds it. All methods of a batch size take turns in one
process: a round runs each of them for some steps, in an order that changes
from round to round, and waits for the last. The ratios are to `sum_losses`,
medians of the ratios within each round.
"""

from __future__ import annotations

import statistics
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

import mtljax as mtl
from experiments.lab import methods
from mtljax import models
from mtljax.training import make_train_step
from mtljax.training.step._turns import take_turns

REFERENCE = 'sum_losses'
METHODS = (
  *'sum_losses mean uncertainty rlw pcgrad mgda cagrad imtl_g'.split(),
  *'nash_mtl fairgrad aligned_mtl flat_cagrad sam_cagrad'.split(),
)
CASES = [(name, 'auto') for name in METHODS] + [
  ('cagrad', route) for route in ('gramian', 'features', 'jacobian map')
]


class Sizes(NamedTuple):
  """How much is run."""

  batches: tuple[int, ...] = (256, 128)
  warmup: int = 5
  rounds: int = 15
  steps: int = 10


QUICK = Sizes(batches=(128,), warmup=1, rounds=3, steps=2)


def make_batch(size: int) -> dict[str, jax.Array]:
  """Images and labels drawn at random: time does not depend on them."""
  keys = jax.random.split(jax.random.key(0), 3)
  return {
    'image': jax.random.normal(keys[0], (size, 36, 36, 1)),
    'left': jax.random.randint(keys[1], (size,), 0, 10),
    'right': jax.random.randint(keys[2], (size,), 0, 10),
  }


def task_loss(task: str):
  """Mean cross entropy of a task."""

  def loss_fn(logits, batch):
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(
      logits, batch[task]
    )
    return jnp.mean(losses), {}

  return loss_fn


def make_runner(name: str, route: str, batch: dict[str, jax.Array]):
  """The route taken, and ``run(steps)``, which trains for so many steps.

  A second word of the route is the mode of its backward passes.
  """
  route, _, mode = route.partition(' ')
  model = models.multi_lenet()
  params, model_state = model.init(jax.random.key(0), batch['image'])
  labels = mtl.label_params(
    params, shared=model.shared, tasks=model.task_patterns
  )
  init, step, route = make_train_step(
    methods.make_method(name, model.num_tasks, labels, rho=0.05),
    optax.adam(1e-3),
    models.staged_loss(
      model, [task_loss(task) for task in model.tasks], lambda b: b['image']
    ),
    route=route,
    mode=mode or 'unroll',
    has_state=True,
  )
  state = init(params, key=jax.random.key(1), model_state=model_state)

  def run(steps):
    nonlocal state
    for _ in range(steps):
      state, _ = step(state, batch)
    jax.block_until_ready(state)

  return f'{route} {mode}'.strip(), run


def measure(batch_size: int, sizes: Sizes) -> None:
  """Prints the table of one batch size."""
  batch = make_batch(batch_size)
  runs = {}
  for name, route in CASES:
    taken, run = make_runner(name, route, batch)
    run(sizes.warmup)
    runs[name, taken] = run
  times = take_turns(runs, sizes.rounds, lambda _: sizes.steps)
  reference = times[REFERENCE, 'losses']
  print(f'\nbatch {batch_size}: ms a step over {sizes.rounds} rounds')
  print(f'{"method":<14}{"route":<14}{"median":>9}{"min":>9}{"ratio":>8}')
  for (name, route), values in times.items():
    ratio = statistics.median(
      value / base for value, base in zip(values, reference, strict=True)
    )
    print(
      f'{name:<14}{route:<14}{statistics.median(values):>9.2f}'
      f'{min(values):>9.2f}{ratio:>8.2f}'
    )


def main() -> None:
  """The command line."""
  sizes = QUICK if '--quick' in sys.argv[1:] else Sizes()
  print(f'jax {jax.__version__}, {jax.devices()}')
  for batch_size in sizes.batches:
    measure(batch_size, sizes)


if __name__ == '__main__':
  main()

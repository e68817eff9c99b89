"""Optimizers and methods on the two-task toy problem.

  python -m experiments.toy

From three starts every optimizer goes on until the mean of both losses is
within 0.1 of its minimum, or for 100,000 iterations, with the mean gradient,
PCGrad and CAGrad, at nine learning rates; AdaTask and MTL-IO, which take the
tasks' gradients apart, without a method. A cell's number is that of the slowest
of the three starts. To ``--out`` go ``config.json``, ``runs/<cell>.npz`` (the
numbers of each start, and where it went), ``results.csv``, ``summary.json`` and
``report.html`` with the published Table A3 beside ours, the verdict on E1 and
the trajectories. The same command again goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich.console
import tyro

import mtljax as mtl
from experiments.lab import command, identity, optimizers
from experiments.lab.options import ForceOptions, flag, free
from experiments.report import files, write_report
from experiments.report.console import print_end
from experiments.studies.toy import problem
from experiments.studies.toy.cells import (
  RATES,
  ToyCell,
  is_run,
  path_of,
  read_cells,
)
from mtljax import _validate

TASKS = ('first', 'second')
NEAR = 0.1  # above the minimum; the paper does not state its criterion
SLOTS = 150  # points kept of a trajectory

#: Optimizers that follow a method.
OPTIMIZERS: dict[str, optimizers.Make] = {
  'gd': optimizers.SGD,
  'momentum': optimizers.HEAVY_BALL,
  'signsgd': optimizers.SIGN,
  'adam': optimizers.ADAM,
}
#: Optimizers that read the gradient of each task; they sum their steps.
PER_TASK: dict[str, optimizers.Make] = {
  'adatask': lambda rate: mtl.adatask(len(TASKS), rate),
  'mtl_io': lambda rate: mtl.per_task_optimizer(
    optimizers.HEAVY_BALL(rate), len(TASKS)
  ),
}
METHODS: dict[str, Callable[[], optax.GradientTransformation]] = {
  'mean': lambda: mtl.mean(len(TASKS)),
  'pcgrad': lambda: mtl.pcgrad(len(TASKS), reduction='mean'),
  'cagrad': lambda: mtl.cagrad(len(TASKS), c=0.5, rescale='c'),
}


@dataclasses.dataclass(frozen=True)
class ToyConfig(ForceOptions):
  """Optimizers and methods on the two-task toy problem."""

  out: pathlib.Path = free(pathlib.Path('results/toy'))
  """Folder for everything this run writes."""
  optimizers: tuple[str, ...] = free((*OPTIMIZERS, *PER_TASK))
  """gd, momentum, signsgd, adam, adatask and mtl_io, separated by spaces."""
  methods: tuple[str, ...] = free(tuple(METHODS))
  """mean, pcgrad and cagrad; for the first four optimizers."""
  learning_rates: tuple[float, ...] = RATES
  """Learning rates, constant."""
  iterations: int = 100_000
  """Iterations after which a start counts as not arriving."""
  dtype: str = 'float32'
  """float32 or float64."""
  picture_rate: float | None = free(None)
  """The learning rate whose trajectories are drawn; by default 0.1, or the
  smallest where 0.1 is not run."""


def check(config: ToyConfig) -> None:
  """Raises ValueError for options that no study could be made of."""
  for name in config.optimizers:
    _validate.one_of('--optimizers', name, (*OPTIMIZERS, *PER_TASK))
  for name in config.methods:
    _validate.one_of('--methods', name, METHODS)
  for option in ('optimizers', 'methods', 'learning_rates'):
    if not getattr(config, option):
      raise ValueError(f'{flag(option)} is empty: name at least one.')
  for rate in config.learning_rates:
    _validate.in_range('--learning-rates', rate, 0, open_low=True)
  _validate.in_range('--iterations', config.iterations, 1)
  _validate.one_of('--dtype', config.dtype, ('float32', 'float64'))
  if config.picture_rate not in (None, *config.learning_rates):
    raise ValueError(
      f'--picture-rate={config.picture_rate} is not one of --learning-rates '
      f'{" ".join(map(str, config.learning_rates))}.'
    )


def cells(config: ToyConfig) -> list[ToyCell]:
  """The pairs of an optimizer and a method."""
  found = []
  for optimizer in dict.fromkeys(config.optimizers):
    methods = dict.fromkeys(config.methods) if optimizer in OPTIMIZERS else ['']
    found += [ToyCell(optimizer, method) for method in methods]
  return found


def make_transform(cell: ToyCell, rate: Any) -> optax.GradientTransformation:
  """From the gradients of both tasks to the step."""
  if cell.optimizer in PER_TASK:
    return PER_TASK[cell.optimizer](rate)
  return optax.chain(METHODS[cell.method](), OPTIMIZERS[cell.optimizer](rate))


def run_cell(
  cell: ToyCell, rates: Any, iterations: int
) -> dict[str, np.ndarray]:
  """All learning rates and starts of a cell, in one program.

  They run one after the other, each until it has arrived: on a CPU, so few
  numbers are faster as scalars of one fused loop than as a batch.

  Args:
    cell: optimizer and method.
    rates: learning rates, shape ``(R,)``.
    iterations: the most that are taken.

  Returns:
    ``iterations``, shape ``(R, 3)``: the first iteration at which the mean loss
    is near its minimum, -1 where it never is. ``points``, shape
    ``(R, 3, SLOTS, 3)``: iteration, x1 and x2, spaced by the logarithm of the
    iteration, NaN where nothing was kept.
  """
  grad_fn = mtl.value_and_task_grads(problem.losses)
  target = problem.MEAN_MINIMUM + NEAR
  count = np.log1p(np.arange(iterations + 1)) / np.log1p(iterations)
  slots = jnp.asarray(((SLOTS - 1) * count).astype(np.int32))

  def one(lane):
    rate, start = lane
    tx = make_transform(cell, rate)

    def go_on(carry):
      i, arrived, point, _, _ = carry
      # From a point that is not finite there is no way back.
      return (i <= iterations) & (arrived < 0) & jnp.all(jnp.isfinite(point))

    def step(carry):
      i, arrived, point, state, points = carry
      row = jnp.concatenate([i.astype(point.dtype)[None], point])
      points = points.at[slots[i]].set(row)
      losses, grads = grad_fn(point)
      arrived = jnp.where(jnp.mean(losses) < target, i, arrived)
      updates, state = tx.update(grads, state, point, losses=losses)
      return i + 1, arrived, optax.apply_updates(point, updates), state, points

    points = jnp.full((SLOTS, 3), jnp.nan, start.dtype)
    carry = jnp.int32(0), jnp.int32(-1), start, tx.init(start), points
    _, arrived, _, _, points = jax.lax.while_loop(go_on, step, carry)
    return arrived, points

  rates = jnp.asarray(rates, float)
  starts = jnp.asarray(problem.STARTS)
  shape = len(rates), len(starts)
  lanes = (
    jnp.repeat(rates, shape[1]),
    jnp.tile(starts, (shape[0], 1)),
  )
  arrived, points = jax.jit(lambda x: jax.lax.map(one, x))(lanes)
  return {
    'iterations': np.asarray(arrived).reshape(shape),
    'points': np.asarray(points, np.float32).reshape(*shape, SLOTS, 3),
  }


def write_results(directory: pathlib.Path) -> None:
  """Writes ``results.csv``, a row a cell and learning rate."""
  rows = [
    {
      'optimizer': cell.optimizer,
      'method': cell.method,
      'learning_rate': rate,
      'iterations': number,
    }
    for cell, numbers in read_cells(directory).numbers.items()
    for rate, number in numbers.items()
  ]
  files.write_table(directory / files.TABLE, rows)


def run(config: ToyConfig, console: rich.console.Console) -> None:
  """Runs the study."""
  start = time.perf_counter()
  wanted = cells(config)
  values = dataclasses.asdict(config)
  values |= {
    'experiment': 'toy',
    'tasks': list(TASKS),
    'cells': [cell.name for cell in wanted],
  }
  identity.open_study(
    config,
    values,
    growing=('cells',),
    finished=lambda: all(is_run(config.out, x) for x in wanted),
  )
  (config.out / 'runs').mkdir(exist_ok=True)

  def finish(cell):
    if is_run(config.out, cell):
      return
    with jax.enable_x64(config.dtype == 'float64'):
      found = run_cell(cell, config.learning_rates, config.iterations)
    path = path_of(config.out, cell)
    files.write_arrays(path, found, name=cell.name, compressed=True)

  # So small a program keeps one core busy.
  with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    list(pool.map(finish, wanted))
  write_results(config.out)
  write_report(config.out, console)
  print_end(config.out, start, console)


def main() -> None:
  """The command line."""
  command.run_command(
    lambda: tyro.cli(ToyConfig, prog='python -m experiments.toy'),
    lambda config, _: check(config),
    lambda config, _, console: run(config, console),
  )


if __name__ == '__main__':
  main()

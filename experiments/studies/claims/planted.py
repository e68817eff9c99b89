"""Drawn tasks whose scales, noise and rareness are planted."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from experiments.suites import (
  SPLITS,
  Data,
  DataOptions,
  Measure,
  Suite,
  Task,
  binary_task,
  mlp,
)
from mtljax.metrics import Mean

NUM_TASKS = 6
NUM_INPUTS, NUM_OUTPUTS = 20, 5
SIZES = {'train': 2000, 'validation': 500, 'test': 2000}
#: How far the maps of the tasks are from a common one.
APART = 0.35
#: Of label noise, by the scale of the task, from the first task to the last.
NOISE = (0.0, 3.0)
#: Positives of rare tasks, from the first task to the last.
SHARES = (0.5, 0.01)


def _squared(outputs, labels):
  return jnp.mean((outputs - labels) ** 2, axis=1)


def _explained(scale, outputs, labels, mask):
  error = _squared(outputs, labels) / scale**2
  return {'explained': Mean.from_values(1 - error, mask=mask)}


def _regressions(num_tasks: int) -> tuple[Task, ...]:
  return tuple(
    Task(
      name=f'y{t}',
      num_outputs=NUM_OUTPUTS,
      example_losses=_squared,
      metrics=functools.partial(_explained, (t + 1) / num_tasks),
      measures=(Measure(name='explained', unit='%'),),
    )
    for t in range(num_tasks)
  )


def _draw(
  num_tasks: int, options: DataOptions
) -> tuple[np.random.Generator, dict[str, np.ndarray], np.ndarray]:
  """Inputs by split, and a map for each task near a common one."""
  rng = np.random.default_rng([options.seed, num_tasks])
  shape = (num_tasks, NUM_OUTPUTS, NUM_INPUTS)
  maps = rng.normal(size=shape[1:]) + APART * rng.normal(size=shape)
  inputs = {
    split: rng.normal(size=(_size(options, split), NUM_INPUTS))
    for split in SPLITS
  }
  return rng, inputs, maps / np.sqrt(NUM_INPUTS)


def _size(options: DataOptions, split: str) -> int:
  return getattr(options, f'num_{split}') or SIZES[split]


def _data(splits: Mapping[str, Mapping[str, np.ndarray]]) -> Data:
  return Data(splits, lambda batch: batch['x'])


def _load_regressions(noisy, options, tasks, say) -> Data:
  """Labels have the standard deviation of the task's scale in training."""
  del say
  rng, inputs, maps = _draw(len(tasks), options)
  noise = np.linspace(*NOISE, len(tasks)) if noisy else np.zeros(len(tasks))
  splits = {k: {'x': x.astype(np.float32)} for k, x in inputs.items()}
  for t, name in enumerate(tasks):
    values = {k: np.tanh(1.5 * x @ maps[t].T) for k, x in inputs.items()}
    spread = values['train'].std()
    for split, y in values.items():
      y = y / spread
      if split != 'test':
        y = y + noise[t] * rng.normal(size=y.shape)
      scale = (t + 1) / len(tasks)
      splits[split][name] = (scale * y).astype(np.float32)
  return _data(splits)


def _load_rare(options, tasks, say) -> Data:
  """Labels are whether an output of the task's map is among its largest."""
  del say
  _, inputs, maps = _draw(len(tasks), options)
  splits = {k: {'x': x.astype(np.float32)} for k, x in inputs.items()}
  for t, share in enumerate(np.geomspace(*SHARES, len(tasks))):
    values = {k: x @ maps[t, 0] for k, x in inputs.items()}
    least = np.quantile(values['train'], 1 - share)
    for split, y in values.items():
      splits[split][tasks[t]] = (y > least).astype(np.int32)
  return _data(splits)


def regressions(num_tasks: int = NUM_TASKS, noisy: bool = False) -> Suite:
  r"""Maps near a common one, task t of T with labels of scale t / T.

  After Crawshaw and Košecká's MTRegression: :math:`y_t = \sigma_t
  \tanh((B + \epsilon_t) x)`, smaller.

  Args:
    num_tasks: T.
    noisy: whether labels to train on have noise, from none for the first task
      to three times the scale for the last.
  """
  return Suite(
    name='noisy' if noisy else 'regression',
    title='drawn regressions of unlike scales',
    tasks=_regressions(num_tasks),
    load=functools.partial(_load_regressions, noisy),
    networks={'multi_mlp': mlp()},
  )


def rare() -> Suite:
  """The same inputs, and tasks of yes or no from half yes to one in 100."""
  return Suite(
    name='rare',
    title='drawn tasks of yes or no, of which few are yes',
    tasks=tuple(binary_task(f'y{t}') for t in range(NUM_TASKS)),
    load=_load_rare,
    networks={'multi_mlp': mlp()},
  )

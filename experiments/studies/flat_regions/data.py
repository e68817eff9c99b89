"""The data of the study's variants: labels removed or flipped."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.lab.suite import Data, Suite
from experiments.lab.task import Task
from experiments.studies.flat_regions.config import FlatRegionsConfig

MISSING = -1
MAIN = 'main'


def check_labels(suite: Suite, data: Data) -> None:
  """Raises ValueError where a task has no labels, or has unknown classes."""
  for split, arrays in data.splits.items():
    for task in suite.tasks:
      labels, count = arrays[task.name], task.num_classes
      if not np.any(labels != MISSING):
        raise ValueError(
          f'task {task.name} has no labels in the split {split}.'
        )
      known = (labels >= MISSING) & (labels < count)
      if not known.all():
        raise ValueError(
          f'task {task.name} has the label {labels[~known][0]} in the split '
          f'{split}; labels are 0 to {count - 1}, or {MISSING} where one is '
          'missing.'
        )


def variants(config: FlatRegionsConfig) -> tuple[str, ...]:
  """Main, then each corruption of the training labels."""
  return (
    MAIN,
    *(f'low_resource_{x:g}' for x in dict.fromkeys(config.low_resource)),
    *(f'noisy_{x:g}' for x in dict.fromkeys(config.noisy)),
  )


def corrupt(data: Data, variant: str, task: Task, seed: int) -> Data:
  """The data with one task's training labels removed or flipped.

  Validation and test keep their labels.

  Args:
    data: the clean data.
    variant: ``'main'``, ``'low_resource_F'`` (the fraction F keeps its labels)
      or ``'noisy_F'`` (the fraction F gets another class, uniformly).
    task: the task.
    seed: of the examples and classes drawn; the same examples in every run.

  Returns:
    The data; splits that do not change are shared.
  """
  kind, _, text = variant.rpartition('_')
  if variant == MAIN:
    return data
  fraction, train = float(text), dict(data.splits['train'])
  labels: Any = train[task.name].copy()
  rng = np.random.default_rng([seed, len(labels)])
  order = rng.permutation(len(labels))
  if kind == 'low_resource':
    kept = max(1, round(fraction * len(labels)))
    labels[order[kept:]] = MISSING
  else:
    chosen = order[: round(fraction * len(labels))]
    shift = rng.integers(1, task.num_classes, len(chosen))
    labels[chosen] = (labels[chosen] + shift) % task.num_classes
  train[task.name] = labels
  splits = {**data.splits, 'train': train}
  return dataclasses.replace(data, splits=splits)


def labelled_loss(task: Task):
  """The mean loss of the examples that have a label; 0 if none has one."""

  def loss_fn(outputs, batch):
    labels = batch[task.name]
    there = labels != MISSING
    losses = task.example_losses(outputs, jnp.where(there, labels, 0))
    total = jnp.sum(jnp.where(there, losses, 0))
    return total / jnp.maximum(jnp.sum(there), 1), {}

  return loss_fn

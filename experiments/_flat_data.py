"""The data of the study's variants: labels removed, flipped, images pooled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import optax

from experiments import _digits
from experiments._digits import Digits
from experiments._flat_config import Config
from mtljax import data

MISSING = -1
MAIN = 'main'


def load(config: Config, say: Callable[[str], None]) -> Digits:
  """The digits, averaged over squares of ``config.pool`` pixels."""
  digits = _digits.load(config.data, config.batch_size, say)
  splits = {
    name: split | {'image': pool(split['image'], config.pool)}
    for name, split in digits.splits.items()
  }
  mean, std = data.channel_moments(splits['train']['image'])
  digits = Digits(splits, float(mean[0]), float(std[0]))
  check_labels(digits)
  return digits


def load_other(
  config: Config, digits: Digits, say: Callable[[str], None]
) -> np.ndarray:
  """Images of the kind that no network of the study is trained for."""
  if config.out_of_data == 'rotated':
    return np.ascontiguousarray(
      np.rot90(digits.splits['test']['image'], axes=(1, 2))
    )
  other = dataclasses.replace(config.data, source=config.out_of_data)
  return pool(_digits.load(other, 1, say).splits['test']['image'], config.pool)


def pool(images: np.ndarray, size: int) -> np.ndarray:
  """Means over squares, rounded to uint8."""
  if size == 1:
    return images
  n, height, width, channels = images.shape
  squares = images.reshape(n, height // size, size, width // size, size, -1)
  means = squares.mean(axis=(2, 4), dtype=np.float32)
  return (
    np.rint(means)
    .astype(np.uint8)
    .reshape(n, height // size, width // size, channels)
  )


def check_labels(digits: Digits) -> None:
  """Raises ValueError where a task has no labels, or has unknown classes."""
  for split, arrays in digits.splits.items():
    for task in _digits.TASKS:
      labels = arrays.get(task)
      if labels is None or not np.any(labels != MISSING):
        raise ValueError(f'task {task} has no labels in the split {split}.')
      known = (labels >= MISSING) & (labels < _digits.NUM_CLASSES)
      if not known.all():
        raise ValueError(
          f'task {task} has the label {labels[~known][0]} in the split '
          f'{split}; labels are 0 to {_digits.NUM_CLASSES - 1}, or '
          f'{MISSING} where one is missing.'
        )


def variants(config: Config) -> tuple[str, ...]:
  """Main, then each corruption of the training labels."""
  return (
    MAIN,
    *(f'low_resource_{x:g}' for x in dict.fromkeys(config.low_resource)),
    *(f'noisy_{x:g}' for x in dict.fromkeys(config.noisy)),
  )


def corrupt(digits: Digits, variant: str, task: str, seed: int) -> Digits:
  """The digits with one task's training labels removed or flipped.

  Validation and test keep their labels.

  Args:
    digits: the clean data.
    variant: ``'main'``, ``'low_resource_F'`` (the fraction F keeps its labels)
      or ``'noisy_F'`` (the fraction F gets another class, uniformly).
    task: the task.
    seed: of the examples and classes drawn; the same examples in every run.

  Returns:
    The data; splits that do not change are shared.
  """
  kind, _, text = variant.rpartition('_')
  if variant == MAIN:
    return digits
  fraction, train = float(text), dict(digits.splits['train'])
  labels = train[task].copy()
  rng = np.random.default_rng([seed, len(labels)])
  order = rng.permutation(len(labels))
  if kind == 'low_resource':
    kept = max(1, round(fraction * len(labels)))
    labels[order[kept:]] = MISSING
  else:
    chosen = order[: round(fraction * len(labels))]
    shift = rng.integers(1, _digits.NUM_CLASSES, len(chosen))
    labels[chosen] = (labels[chosen] + shift) % _digits.NUM_CLASSES
  train[task] = labels
  return dataclasses.replace(digits, splits=digits.splits | {'train': train})


def labelled_loss(task: str):
  """Cross entropy over the examples that have a label; 0 if none has one."""

  def loss_fn(logits, batch):
    labels = batch[task]
    there = labels != MISSING
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(
      logits, jnp.where(there, labels, 0)
    )
    total = jnp.sum(jnp.where(there, losses, 0))
    return total / jnp.maximum(jnp.sum(there), 1), {}

  return loss_fn

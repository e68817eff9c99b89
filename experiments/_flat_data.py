"""The data of the study's variants: labels removed or flipped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits, _sources
from experiments._flat_config import Config
from mtljax import data

MISSING = -1
MAIN = 'main'


def load(config: Config, say: Callable[[str], None]) -> _sources.Source:
  """The data set; digits averaged over squares of ``config.pool`` pixels."""
  if config.dataset == 'census':
    return _sources.load_census(config.census, config.batch_size, say)
  source = _sources.load_digits(config.data, config.batch_size, say)
  splits = {
    name: {**split, 'image': pool(split['image'], config.pool)}
    for name, split in source.loaded.splits.items()
  }
  mean, std = data.channel_moments(splits['train']['image'])
  source = _sources.of_digits(
    _digits.Digits(splits, float(mean[0]), float(std[0]))
  )
  check_labels(source)
  return source


def load_other(
  config: Config, source: _sources.Source, say: Callable[[str], None]
) -> dict[str, np.ndarray]:
  """Inputs of the kind that no network of the study is trained for."""
  test = source.loaded.splits['test']
  match config.out_of_data:
    case 'shuffled':
      rng = np.random.default_rng(0)
      return {
        name: rng.permuted(x, axis=0)
        for name, x in test.items()
        if name not in source.tasks
      }
    case 'rotated':
      images = np.ascontiguousarray(np.rot90(test['image'], axes=(1, 2)))
    case name:
      other = dataclasses.replace(config.data, source=name)
      splits = _digits.load(other, 1, say).splits
      images = pool(splits['test']['image'], config.pool)
  return {'image': images}


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


def check_labels(source: _sources.Source) -> None:
  """Raises ValueError where a task has no labels, or has unknown classes."""
  for split, arrays in source.loaded.splits.items():
    for task in source.tasks:
      labels = arrays.get(task)
      if labels is None or not np.any(labels != MISSING):
        raise ValueError(f'task {task} has no labels in the split {split}.')
      known = (labels >= MISSING) & (labels < source.num_classes)
      if not known.all():
        raise ValueError(
          f'task {task} has the label {labels[~known][0]} in the split '
          f'{split}; labels are 0 to {source.num_classes - 1}, or '
          f'{MISSING} where one is missing.'
        )


def variants(config: Config) -> tuple[str, ...]:
  """Main, then each corruption of the training labels."""
  return (
    MAIN,
    *(f'low_resource_{x:g}' for x in dict.fromkeys(config.low_resource)),
    *(f'noisy_{x:g}' for x in dict.fromkeys(config.noisy)),
  )


def corrupt(
  source: _sources.Source, variant: str, task: str, seed: int
) -> _sources.Source:
  """The data set with one task's training labels removed or flipped.

  Validation and test keep their labels.

  Args:
    source: the clean data.
    variant: ``'main'``, ``'low_resource_F'`` (the fraction F keeps its labels)
      or ``'noisy_F'`` (the fraction F gets another class, uniformly).
    task: the task.
    seed: of the examples and classes drawn; the same examples in every run.

  Returns:
    The data; splits that do not change are shared.
  """
  kind, _, text = variant.rpartition('_')
  if variant == MAIN:
    return source
  loaded: Any = source.loaded
  fraction, train = float(text), dict(loaded.splits['train'])
  labels = train[task].copy()
  rng = np.random.default_rng([seed, len(labels)])
  order = rng.permutation(len(labels))
  if kind == 'low_resource':
    kept = max(1, round(fraction * len(labels)))
    labels[order[kept:]] = MISSING
  else:
    chosen = order[: round(fraction * len(labels))]
    shift = rng.integers(1, source.num_classes, len(chosen))
    labels[chosen] = (labels[chosen] + shift) % source.num_classes
  train[task] = labels
  splits = loaded.splits | {'train': train}
  loaded = dataclasses.replace(loaded, splits=splits)
  return dataclasses.replace(source, loaded=loaded)


def labelled_loss(
  task: str,
  example_losses: Callable[
    [jax.Array, jax.Array], jax.Array
  ] = _digits.example_losses,
):
  """The mean loss of the examples that have a label; 0 if none has one."""

  def loss_fn(logits, batch):
    labels = batch[task]
    there = labels != MISSING
    losses = example_losses(logits, jnp.where(there, labels, 0))
    total = jnp.sum(jnp.where(there, losses, 0))
    return total / jnp.maximum(jnp.sum(there), 1), {}

  return loss_fn

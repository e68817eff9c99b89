"""Tasks whose likeness is planted, and pairs of real digits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.suites import DataOptions, digits, pool_images

Arrays = Mapping[str, np.ndarray]
SIZE = 20
POOL = 4


@dataclasses.dataclass(frozen=True, eq=False)
class BinaryTasks:
  """Several yes-or-no tasks on inputs of one length.

  Attributes:
    name: its name.
    title: in a line.
    num_tasks: T.
    train: ``x`` ``(N, D)`` and, of each row, ``label`` and its task ``owner``.
    test: the same.
  """

  name: str
  title: str
  num_tasks: int
  train: Arrays
  test: Arrays

  def rows(self) -> list[np.ndarray]:
    """For each task, its rows of the training data."""
    owner = self.train['owner']
    return [np.flatnonzero(owner == task) for task in range(self.num_tasks)]


def planted(
  num_tasks: int, options: DataOptions, say: Callable[[str], Any]
) -> BinaryTasks:
  """Tasks on half a circle, in an order that is hidden.

  A task's inputs lie around its place, and the direction that decides turns
  with it, so that the tasks at both ends contradict each other. A twentieth of
  the training labels is wrong.
  """
  del say
  rng = np.random.default_rng([options.seed, 1])
  angles = np.linspace(0, np.pi, num_tasks)[rng.permutation(num_tasks)]

  def draw(count):
    owner = np.repeat(np.arange(num_tasks), count)
    turn = np.stack([np.cos(angles), np.sin(angles)], 1)[owner]
    x = rng.normal(size=(len(owner), SIZE))
    label = np.sum(x[:, 2:4] * turn, axis=1) > 0
    x[:, :2] += 2 * turn
    return {
      'x': x.astype(np.float32),
      'label': label.astype(np.int32),
      'owner': owner.astype(np.int32),
    }

  train = draw((options.num_train or 2000) // num_tasks)
  wrong = rng.random(len(train['label'])) < 0.05
  train['label'] = np.where(wrong, 1 - train['label'], train['label'])
  test = draw((options.num_test or 2000) // num_tasks)
  title = f'{num_tasks} tasks on half a circle'
  return BinaryTasks('planted', title, num_tasks, train, test)


def digit_pairs(
  num_tasks: int, options: DataOptions, say: Callable[[str], Any]
) -> BinaryTasks:
  """Is the left of two overlapping digits i or i + 1, for ten i."""
  del num_tasks
  splits = {}
  for split in ('train', 'test'):
    arrays = digits.pairs(options.source or 'mnist_5k', split, options, say)
    images = pool_images(arrays['image'], POOL)
    x = images.reshape(len(images), -1).astype(np.float32) / 255
    # Each digit is the first of one pair and the second of another.
    left = arrays['left']
    splits[split] = {
      'x': np.concatenate([x, x]),
      'label': np.repeat([0, 1], len(x)).astype(np.int32),
      'owner': np.concatenate([left, (left - 1) % 10]).astype(np.int32),
    }
  mean, std = splits['train']['x'].mean(), splits['train']['x'].std()
  for arrays in splits.values():
    arrays['x'] = (arrays['x'] - mean) / std
  return BinaryTasks(
    'digit_pairs',
    'ten pairs of neighbouring digits',
    10,
    splits['train'],
    splits['test'],
  )


PROBLEMS = {'planted': planted, 'digit_pairs': digit_pairs}

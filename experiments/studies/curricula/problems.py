"""Tasks whose likeness is planted, pairs of real digits, real carriers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.lab.owned import draw_rows
from experiments.suites import DataOptions, digits, flights, pool_images

Arrays = Mapping[str, np.ndarray]
SIZE = 20
POOL = 4


#: From outputs and labels, each ``(N,)``, to ``(N,)``.
PerRow = Callable[[jax.Array, jax.Array], jax.Array]


class Kind(NamedTuple):
  """What the outputs of tasks are for.

  Attributes:
    score: its name.
    losses: of each row.
    margins: higher is easier.
    scores: of each row; that of a task is their mean.
  """

  score: str
  losses: PerRow
  margins: PerRow
  scores: PerRow


BINARY = Kind(
  'accuracy',
  optax.losses.sigmoid_binary_cross_entropy,
  lambda logits, labels: jnp.where(labels == 1, logits, -logits),
  lambda logits, labels: (logits > 0) == (labels == 1),
)
#: Of labels of variance 1: the score is the share of it that is explained.
REGRESSION = Kind(
  'explained',
  optax.losses.squared_error,
  lambda outputs, labels: -((outputs - labels) ** 2),
  lambda outputs, labels: 1 - (outputs - labels) ** 2,
)


@dataclasses.dataclass(frozen=True, eq=False)
class OwnedRows:
  """Several tasks with one output on inputs of one length.

  Attributes:
    name: its name.
    title: in a line.
    num_tasks: T.
    train: ``x`` ``(N, D)`` and, of each row, ``label`` and its task ``owner``.
    test: the same.
    kind: of all its tasks.
  """

  name: str
  title: str
  num_tasks: int
  train: Arrays
  test: Arrays
  kind: Kind = BINARY

  def rows(self) -> list[np.ndarray]:
    """For each task, its rows of the training data."""
    owner = self.train['owner']
    return [np.flatnonzero(owner == task) for task in range(self.num_tasks)]


def planted(
  num_tasks: int, options: DataOptions, say: Callable[[str], Any]
) -> OwnedRows:
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
  return OwnedRows('planted', title, num_tasks, train, test)


def digit_pairs(
  num_tasks: int, options: DataOptions, say: Callable[[str], Any]
) -> OwnedRows:
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
  return OwnedRows(
    'digit_pairs',
    'ten pairs of neighbouring digits',
    10,
    splits['train'],
    splits['test'],
  )


def carriers(
  num_tasks: int, options: DataOptions, say: Callable[[str], Any]
) -> OwnedRows:
  """How late a flight arrives, a task a carrier.

  Carriers have as many rows as each other, where they have them; at most two
  thirds of a carrier's are trained on. Features have mean 0 and variance 1 over
  the rows trained on; delays have mean 0 over those of the carrier, and are in
  deviations of all of its delays.
  """
  del num_tasks
  found = flights.by_carrier(options, say)
  total = np.bincount(found.owner, minlength=len(found.names))
  share = lambda count: (count or 16_000) // len(total)
  train = np.minimum(share(options.num_train), 2 * total // 3)
  test = np.minimum(share(options.num_test), total - train)
  rows = draw_rows(found.owner, {'train': train, 'test': test}, options.seed)
  fitted = found.features[np.concatenate(rows['train'])]
  mean, spread = fitted.mean(0), fitted.std(0)
  middle = np.array([found.labels[x].mean() for x in rows['train']])

  def take(split):
    own = np.concatenate(rows[split])
    owner = found.owner[own]
    x = (found.features[own] - mean) / np.where(spread > 0, spread, 1)
    label = (found.labels[own] - middle[owner]) / found.deviation[owner]
    return {'x': x, 'label': label.astype(np.float32), 'owner': owner}

  title = f'delays of {len(total)} carriers'
  return OwnedRows(
    'carriers', title, len(total), take('train'), take('test'), REGRESSION
  )


PROBLEMS = {
  'planted': planted,
  'digit_pairs': digit_pairs,
  'carriers': carriers,
}

"""Linear tasks: drawn ones in groups that would harm each other, real ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from experiments.lab.owned import TaskRows, by_size, draw_rows, task_rows

SIZE, TASKS, GROUPS = 24, 12, 3
#: Correlation between any two features: what is shared wrongly has an effect.
CORRELATED = 0.5
#: Within a group, of a task's weights from those of the group.
APART = 0.3
NOISE = 1.0
#: Tasks with weights of their own, and how much noisier their labels are.
HARD, NOISIER = (3, 9), 3.0
DRAWN = ('groups', 'one_group', 'hard')
CARRIERS, SCHOOLS = 'carriers', 'schools'
REAL = (CARRIERS, SCHOOLS)
PROBLEMS = (*DRAWN, *REAL)
#: Of a real task: the fewest rows to fit, and the most to test on.
LEAST, MOST = 10, 2000
#: Tasks with the fewest rows, which come last; carriers with under a thousand.
RARE = 5

Examples = tuple[np.ndarray, ...]


class LinearTasks(NamedTuple):
  """Tasks of a seed.

  Attributes:
    train: features ``(T, N, D)`` and labels ``(T, N)``; with a mask ``(T, N)``
      where tasks have unlike numbers of them.
    validation: the same.
    weights: the truth, ``(D, T)``; None where it is not known.
    test: as ``train``; None where the truth is known.
  """

  train: Examples
  validation: Examples
  weights: np.ndarray | None = None
  test: Examples | None = None


def covariance() -> np.ndarray:
  """Of the features, ``(D, D)``."""
  return (1 - CORRELATED) * np.eye(SIZE) + CORRELATED


def draw(name: str, seed: int, num_train: int, num_valid: int) -> LinearTasks:
  """The tasks of a problem.

  ``groups``: three groups of four tasks, each on eight features of its own.
  ``one_group``: all tasks near one vector, where sharing can only help.
  ``hard``: ``groups``, a vector added to all, and two tasks that have nothing
  in common with the rest.
  """
  rng = np.random.default_rng([seed, DRAWN.index(name)])
  centers = rng.choice([-1, 1], size=(SIZE, GROUPS)) * rng.uniform(
    0.5, 1.5, size=(SIZE, GROUPS)
  )
  groups = 1 if name == 'one_group' else GROUPS
  blocks = np.kron(np.eye(groups), np.ones((SIZE // groups, TASKS // groups)))
  owner = np.repeat(np.arange(groups), TASKS // groups)
  weights = blocks * centers[:, owner]
  weights = weights * (1 + APART * rng.normal(size=weights.shape))
  noise = np.full(TASKS, NOISE)
  if name == 'hard':
    weights = weights + rng.normal(size=(SIZE, 1))
    weights[:, HARD] = rng.normal(size=(SIZE, len(HARD)))
    noise[list(HARD)] *= NOISIER
  root = np.linalg.cholesky(covariance())

  def examples(count):
    x = rng.normal(size=(TASKS, count, SIZE)) @ root.T
    y = np.einsum('tnd,dt->tn', x, weights)
    return x, y + noise[:, None] * rng.normal(size=y.shape)

  return LinearTasks(examples(num_train), examples(num_valid), weights)


def schools(found: Mapping[str, np.ndarray]) -> TaskRows:
  """What `mtljax.data.load_star` returns, a task a school: scores in maths."""
  numbers, owner = np.unique(found['school'], return_inverse=True)
  return task_rows(
    tuple(map(str, numbers)),
    owner.astype(np.int32),
    found['x'],
    found['maths'],
  )


def divide(
  found: TaskRows, seed: int, num_train: int, num_valid: int
) -> LinearTasks:
  """Real tasks of a seed, those with the most rows first.

  Rows to fit are drawn in proportion to those that the tasks have,
  ``num_train`` in the mean and at least `LEAST`; then at most ``num_valid`` of
  each to choose by, and at most `MOST` to test on. Labels are in deviations of
  their task. Features have mean 0 and variance 1 over the rows to fit, and
  those and labels then mean 0 over those of each task, so that none has an
  intercept to be penalised.
  """
  total = np.bincount(found.owner, minlength=len(found.names))
  share = np.round(num_train * len(total) * total / total.sum()).astype(int)
  counts = {'train': np.minimum(np.maximum(share, LEAST), total // 2)}
  counts['validation'] = np.minimum(num_valid, total // 4)
  counts['test'] = np.minimum(MOST, total - sum(counts.values()))
  rows = draw_rows(found.owner, counts, seed)
  fitted = found.features[np.concatenate(rows['train'])]
  mean, spread = fitted.mean(0), fitted.std(0)
  features = (found.features - mean) / np.where(spread > 0, spread, 1)
  labels = found.labels / found.deviation[found.owner]
  order = by_size(found.owner, len(total))

  def examples(split):
    shape = len(order), counts[split].max()
    x, y = np.zeros((*shape, features.shape[1])), np.zeros(shape)
    for place, task in enumerate(order):
      own, to_fit = rows[split][task], rows['train'][task]
      x[place, : len(own)] = features[own] - features[to_fit].mean(0)
      y[place, : len(own)] = labels[own] - labels[to_fit].mean()
    return x, y, np.arange(shape[1]) < counts[split][order, None]

  return LinearTasks(
    *map(examples, ('train', 'validation')), None, examples('test')
  )


def errors(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
  """Of each task, the share of the variance that is not explained, ``(T,)``."""
  spread = covariance()
  of = lambda w: np.einsum('dt,de,et->t', w, spread, w)
  return of(found - truth) / of(truth)


def errors_of(tasks: LinearTasks, found: np.ndarray) -> np.ndarray:
  """`errors`, or on test examples of labels of variance 1, ``(T,)``."""
  if tasks.test is None:
    return errors(found, tasks.weights)
  x, y, mask = tasks.test
  left = (np.einsum('tnd,dt->tn', x, found) - y) ** 2
  return np.sum(left * mask, 1) / np.sum(mask, 1)

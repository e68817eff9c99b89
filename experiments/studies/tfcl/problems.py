"""Drawn linear tasks in groups that would harm each other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SIZE, TASKS, GROUPS = 24, 12, 3
#: Correlation between any two features: what is shared wrongly has an effect.
CORRELATED = 0.5
#: Within a group, of a task's weights from those of the group.
APART = 0.3
NOISE = 1.0
#: Tasks with weights of their own, and how much noisier their labels are.
HARD, NOISIER = (3, 9), 3.0
PROBLEMS = ('groups', 'one_group', 'hard')


class LinearTasks(NamedTuple):
  """Tasks of a seed.

  Attributes:
    weights: the truth, ``(D, T)``.
    train: features ``(T, N, D)`` and labels ``(T, N)``.
    validation: the same.
  """

  weights: np.ndarray
  train: tuple[np.ndarray, np.ndarray]
  validation: tuple[np.ndarray, np.ndarray]


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
  rng = np.random.default_rng([seed, PROBLEMS.index(name)])
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

  return LinearTasks(weights, examples(num_train), examples(num_valid))


def errors(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
  """Of each task, the share of the variance that is not explained, ``(T,)``."""
  spread = covariance()
  of = lambda w: np.einsum('dt,de,et->t', w, spread, w)
  return of(found - truth) / of(truth)

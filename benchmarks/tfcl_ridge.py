"""Why TFCL is behind each task alone: ``python -m benchmarks.tfcl_ridge``.

Drawn tasks of three groups, those of ``experiments.tfcl --problems groups``.
Each row is of one ridge, with means over seeds of errors in percent:

``alone``      ridge regression, task by task
``weakest``    TFCL at the least strength
``chosen``     TFCL at the strength that is best on validation
``strongest``  TFCL at the largest strength
``known``      ridge regression of each task on the features of its group alone

and of the fits at the largest strength, how many parts their graphs have, how
many of the features and tasks are in the largest (a third, where groups are
found), the F1 of what is not zero against what is planted (0.5 where nothing is
zero), and the relative change of the last step.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from scipy.sparse import csgraph

from experiments.studies.tfcl import fits, problems
from mtljax.contrib import tfcl

COLUMNS = ('alone', 'weakest', 'chosen', 'strongest', 'known')
FOUND = ('parts', 'largest', 'F1', 'change')
#: Planted, ``(D, T)``.
BLOCKS = np.kron(
  np.eye(problems.GROUPS),
  np.ones(
    (problems.SIZE // problems.GROUPS, problems.TASKS // problems.GROUPS)
  ),
).astype(bool)
#: Weights below count as zero.
SMALL = 1e-6


@dataclasses.dataclass(frozen=True)
class Config:
  """Compares TFCL at several ridges with each task alone."""

  ridges: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
  """A row each."""
  num_train: int = 20
  """Examples a task to fit."""
  num_validation: int = 100
  """Examples a task to choose the strength by."""
  strongest: float = 3.0
  """The largest of ten strengths, the least of which is 0.001."""
  seeds: int = 10
  """Number of seeds: 0, 1, ..."""


@jax.jit
def fit_all(losses, strengths, ridge):
  """The weights of TFCL at every strength, and the last changes."""

  def fit(strength):
    found = tfcl.fit(
      losses,
      problems.GROUPS,
      strength=strength,
      ridge=ridge,
      num_steps=fits.STEPS,
    )
    return found.weights, found.change

  return jax.lax.map(fit, strengths)


def known_blocks(losses: tfcl.QuadraticLosses, ridge: float) -> np.ndarray:
  """Ridge regression on the features of each task's group, ``(D, T)``."""
  curvature = np.where(
    BLOCKS.T[:, :, None] & BLOCKS.T[:, None, :], losses.curvature, 0
  )
  eye = np.eye(problems.SIZE)
  linear = np.where(BLOCKS.T, losses.linear, 0)
  return np.linalg.solve(curvature + ridge * eye, linear[..., None])[..., 0].T


def graph_of(weights: np.ndarray) -> tuple[int, float, float]:
  """Its parts, the share of the largest, and the F1 against the blocks."""
  kept = np.abs(weights) > SMALL
  size, count = kept.shape
  edges = np.zeros((size + count,) * 2, bool)
  edges[:size, size:] = kept
  parts, part = csgraph.connected_components(edges, directed=False)
  f1 = 2 * np.sum(kept & BLOCKS) / (kept.sum() + BLOCKS.sum())
  return parts, np.bincount(part).max() / len(edges), f1


def measure(seed: int, ridge: float, config: Config) -> tuple[float, ...]:
  """The columns of a seed."""
  tasks = problems.draw('groups', seed, config.num_train, config.num_validation)
  losses = tfcl.squared_losses(*tasks.train)
  strengths = fits.strengths(config.strongest)
  weights, changes = map(
    np.asarray, fit_all(losses, jnp.asarray(strengths), ridge)
  )
  x, y = tasks.validation
  left = np.einsum('tnd,sdt->stn', x, weights) - y
  chosen = int(np.argmin(np.mean(left**2, (1, 2))))
  alone = fits.METHODS['alone'](losses, ridge, ridge)
  known = known_blocks(losses, ridge)
  fitted = alone, weights[0], weights[chosen], weights[-1], known
  errors = [
    100 * np.mean(problems.errors(np.asarray(w), tasks.weights)) for w in fitted
  ]
  return (*errors, *graph_of(weights[-1]), float(changes[-1]))


def main() -> None:
  """The command line."""
  config = tyro.cli(Config, prog='python -m benchmarks.tfcl_ridge')
  print(f'{"ridge":>7}' + ''.join(f'{x:>11}' for x in (*COLUMNS, *FOUND)))
  for ridge in config.ridges:
    found = [measure(seed, ridge, config) for seed in range(config.seeds)]
    print(
      f'{ridge:>7g}' + ''.join(f'{x:>11.3g}' for x in np.mean(found, 0)),
      flush=True,
    )


if __name__ == '__main__':
  main()

"""The two-task toy problem of CAGrad, Nash-MTL and FAMO.

Liu et al., 2021, https://arxiv.org/abs/2110.14048, with the sign of
``tanh(-x2)`` in the second task that every published code has.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

STARTS = ((-8.5, 7.5), (-8.5, -5.0), (9.0, 9.0))
# Of the mean of both losses: where its minimum is, and how low.
MEAN_OPTIMUM = (0.0, -8.3551)
MEAN_MINIMUM = -15.0916
CENTER = 7.0  # x1 of the first task's minimum; the other's is at -7
NEAREST = 5e-6  # distances below it count as it, inside the logarithm


def losses(point: ArrayLike, scale: ArrayLike = 1.0) -> jax.Array:
  """The losses of both tasks at ``(x1, x2)``; the first times ``scale``."""
  x1, x2 = jnp.asarray(point)
  t = jnp.tanh(-x2)

  def log_distance(value):
    distance = jnp.abs(value)
    return jnp.log(jnp.where(distance > NEAREST, distance, NEAREST)) + 6

  def bowl(x):
    return ((-x1 + x) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20

  def positive(x):  # with slope 1 at 0, as the published gradients have
    return jnp.where(x >= 0, x, 0)

  up, down = positive(jnp.tanh(0.5 * x2)), positive(jnp.tanh(-0.5 * x2))
  first = log_distance(0.5 * (-x1 - 7) - t) * up + bowl(CENTER) * down
  second = log_distance(0.5 * (-x1 + 3) + t + 2) * up + bowl(-CENTER) * down
  return jnp.stack([scale * first, second])


def pareto_front(num_points: int = 41) -> np.ndarray:
  """Points that no other is better than for both tasks, shape ``(N, 2)``.

  They minimise ``w L1 + (1 - w) L2`` below the axis, where ``x1 = 7 (2w - 1)``
  for every x2, and x2 is the best of a fine grid.
  """
  grid = np.linspace(-9, -8, 2001)
  down = np.tanh(-0.5 * grid)
  first = np.linspace(-CENTER, CENTER, num_points)
  spread = (CENTER**2 - first**2) / 10  # of x1 between the two centers
  depth = 0.1 * (grid + 8) ** 2 / 10 - 20
  best = np.argmin(down * (spread[:, None] + depth), axis=1)
  return np.stack([first, grid[best]], axis=1)

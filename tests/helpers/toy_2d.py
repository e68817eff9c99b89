"""The two-task toy problem of CAGrad, Nash-MTL and FAMO.

Liu et al., 2021, https://arxiv.org/abs/2110.14048, with the sign of
``tanh(-x2)`` in the second task that every published code has.
"""

import jax.numpy as jnp

STARTS = ((-8.5, 7.5), (-8.5, -5.0), (9.0, 9.0))
MEAN_OPTIMUM = (0.0, -8.3551)


def losses(point, scale=1.0):
  """The losses of both tasks at ``(x1, x2)``; the first times ``scale``."""
  x1, x2 = point
  t = jnp.tanh(-x2)

  def log_distance(value):
    distance = jnp.abs(value)
    return jnp.log(jnp.where(distance > 5e-6, distance, 5e-6)) + 6

  def bowl(x):
    return ((-x1 + x) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20

  def positive(x):  # with slope 1 at 0, as the published gradients have
    return jnp.where(x >= 0, x, 0)

  up, down = positive(jnp.tanh(0.5 * x2)), positive(jnp.tanh(-0.5 * x2))
  first = log_distance(0.5 * (-x1 - 7) - t) * up + bowl(7) * down
  second = log_distance(0.5 * (-x1 + 3) + t + 2) * up + bowl(-7) * down
  return jnp.stack([scale * first, second])

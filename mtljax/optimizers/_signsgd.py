"""SignSGD, with or without momentum."""

from __future__ import annotations

import optax

from mtljax import _validate


def check_rate(learning_rate: optax.ScalarOrSchedule) -> None:
  """Raises unless it is a number of at least 0, or a schedule."""
  if not callable(learning_rate):
    _validate.in_range('learning_rate', learning_rate, 0)


def signsgd(
  learning_rate: optax.ScalarOrSchedule, *, momentum: float | None = None
) -> optax.GradientTransformation:
  r"""Steps of one length in every coordinate, by the gradient's sign.

  .. math:: m \leftarrow \mu m + (1 - \mu) g, \qquad
     \Delta\theta = -\eta \, \mathrm{sign}(m)

  A change of the scale of all gradients changes nothing, to the bit where the
  factor is a power of two: the limit of Adam's partial scale invariance, and
  the control for it. It is `optax.sign_sgd` or, with momentum, `optax.signum`,
  under the field's name. The sign of 0 is 0: a coordinate without a gradient
  stands still.

  Args:
    learning_rate: :math:`\eta`, a number or a schedule.
    momentum: :math:`\mu`, at least 0 and below 1; None: no average, no state.

  Returns:
    The `optax.GradientTransformation`, to the right of a method.

  Raises:
    ValueError: ``momentum`` is not at least 0 and below 1.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl, optax
    >>> tx = optax.chain(mtl.sum_losses(num_tasks=2), mtl.signsgd(0.1))
    >>> w = jnp.zeros(2)
    >>> grads = jnp.array([[3.0, -1.0], [200.0, 0.5]])
    >>> updates, state = tx.update(grads, tx.init(w), w)
    >>> print(updates)
    [-0.1  0.1]

  References:
    Bernstein et al., `signSGD: Compressed Optimisation for Non-Convex Problems
    <https://arxiv.org/abs/1802.04434>`_, 2018
  """
  _validate.in_range('momentum', momentum, 0, 1, open_high=True, optional=True)
  check_rate(learning_rate)
  if momentum is None:
    return optax.sign_sgd(learning_rate)
  return optax.signum(learning_rate, momentum)

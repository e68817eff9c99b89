"""MoDo: stochastic MGDA without bias, by double sampling."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.weightings import _common, _double_sampling


class MoDoState(NamedTuple):
  """State of `modo`."""

  iterate: jax.Array  # (T,), on the simplex


@jax.jit
def _step(
  cross: jax.Array,
  mask: jax.Array,
  iterate: jax.Array,
  learning_rate: ArrayLike,
  regularization: ArrayLike,
) -> tuple[jax.Array, jax.Array]:
  """One step from the iterate: the weights, and the next iterate."""
  both = mask[:, None] & mask[None, :]
  w, total = _double_sampling.start(iterate.astype(cross.dtype), mask)
  gradient = jnp.matmul(jnp.where(both, cross, 0), w, precision='highest')
  gradient = gradient + jnp.asarray(regularization, cross.dtype) * w
  moved = w - jnp.asarray(learning_rate, cross.dtype) * gradient
  w = _double_sampling.project_simplex(moved, mask)
  w = _common.nan_unless_finite(w, cross, mask)
  return w, _double_sampling.keep(iterate, w, total, mask)


def modo(
  *, learning_rate: ArrayLike = 0.1, regularization: ArrayLike = 0.1
) -> Weighting:
  r"""Multi-objective gradient with double sampling (MoDo).

  One step of projected gradient descent on MGDA's problem at every step. Its
  gradient :math:`J J^\top w` is estimated without bias from two independent
  batches, and the model steps along the gradients of a third:

  .. math:: w \leftarrow \Pi_\Delta \big(w - \gamma (M w + \rho w)\big), \qquad
     M = J_1 J_2^\top, \qquad d = J_3^\top w

  from :math:`w = 1/T`. The weights sum to 1. Heads are not weighted: only the
  shared parameters are in conflict. Scaling a task's loss changes the update
  (invariance ``'none'``), and the learning rate is in units of the gradients:
  :math:`\gamma M` is compared with weights of order 1/T. No solver: one sort
  of T numbers. `mtljax.training.make_train_step` makes the three batches out
  of each of its own; on the optax face see `mtljax.cross_gramian`. Costs T
  backward passes of two of the three batches and one of the third.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  zero or equal rows        nothing special: it is one step of descent
  0 in the hull             the same, and so of antiparallel rows
  rows of unlike length     a row much longer than the others loses its weight
                            in one step, if :math:`\gamma \|g\|^2` is over 2
  absent tasks              0; the others share 1 and move as in the smaller
                            problem; an absent task's share is kept for it
  NaN or infinity           NaN; the next step goes on from the weights before
  ========================  ==================================================

  Args:
    learning_rate: :math:`\gamma`, at least 0. LibMTL has 0.001.
    regularization: :math:`\rho`, at least 0: pulls towards equal weights.

  Returns:
    The `mtljax.Weighting`. Reads the cross-Gramian.

  Raises:
    ValueError: an argument is negative or not finite.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.modo()
    >>> cross = jnp.array([[3.0, -1.0], [0.0, 1.0]])
    >>> weights, _ = weighting.update(
    ...   mtl.TaskStats(cross_gramian=cross), weighting.init(2))
    >>> [round(float(w), 4) for w in weights]
    [0.475, 0.525]

  References:
    Chen et al., `Three-Way Trade-Off in Multi-Objective Learning:
    Optimization, Generalization and Conflict-Avoidance
    <https://arxiv.org/abs/2305.20057>`_, 2023
  """
  _validate.in_range('learning_rate', learning_rate, 0)
  _validate.in_range('regularization', regularization, 0)

  def init_fn(num_tasks, key=None):
    del key
    return MoDoState(iterate=jnp.full((num_tasks,), 1 / num_tasks, float))

  def update_fn(stats, state):
    cross, mask = _common.gramian_and_mask(stats, 'modo', 'cross_gramian')
    weights, iterate = _step(
      cross, mask, state.iterate, learning_rate, regularization
    )
    return weights, MoDoState(iterate=iterate)

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'cross_gramian'}),
    info=MethodInfo(
      name='modo', paper='Chen et al., 2023, https://arxiv.org/abs/2305.20057'
    ),
  )

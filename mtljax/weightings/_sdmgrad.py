"""SDMGrad: MGDA near the mean gradient, by double sampling."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.weightings import _common, _double_sampling, _preference


class SDMGradState(NamedTuple):
  """State of `sdmgrad`."""

  iterate: jax.Array  # (T,), on the simplex
  residual: jax.Array  # the last inner step's largest change, float32


def _normalized(matrix: jax.Array, mask: jax.Array) -> jax.Array:
  """The cross-Gramian over the squared mean length of the gradients."""
  diagonal = jnp.diagonal(matrix)
  lengths = jnp.sqrt(jnp.where(diagonal < 0, 0, diagonal))
  mean = jnp.sum(lengths) / jnp.maximum(jnp.sum(mask), 1)
  # Twice divided by the length: its square may leave the range.
  mean = jnp.where(mean == 0, 1, mean).astype(matrix.dtype)
  return matrix / mean / mean


@functools.partial(jax.jit, static_argnames=('num_steps', 'normalize'))
def _steps(
  cross: jax.Array,
  mask: jax.Array,
  iterate: jax.Array,
  share: jax.Array,
  lambda_: ArrayLike,
  learning_rate: ArrayLike,
  momentum: ArrayLike,
  *,
  num_steps: int,
  normalize: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The inner loop: weights, the next iterate, the last step's change."""
  lambda_, rate, decay = (
    jnp.asarray(x, cross.dtype) for x in (lambda_, learning_rate, momentum)
  )
  matrix = jnp.where(mask[:, None] & mask[None, :], cross, 0)
  if normalize:
    matrix = _normalized(matrix, mask)

  def body(carry, _):
    w, velocity = carry
    gradient = jnp.matmul(matrix, w + lambda_ * share, precision='highest')
    velocity = decay * velocity + gradient
    new = _double_sampling.project_simplex(w - rate * velocity, mask)
    return (new, velocity), jnp.max(jnp.abs(new - w))

  w, total = _double_sampling.start(iterate.astype(matrix.dtype), mask)
  (w, _), changes = jax.lax.scan(body, (w, jnp.zeros_like(w)), length=num_steps)
  w = _common.nan_unless_finite(w, cross, mask)
  weights = (w + lambda_ * share) / (1 + lambda_)
  kept = _double_sampling.keep(iterate, w, total, mask)
  return weights, kept, changes[-1]


def sdmgrad(
  *,
  lambda_: ArrayLike = 0.3,
  learning_rate: ArrayLike = 0.1,
  momentum: ArrayLike = 0.5,
  num_steps: int = 20,
  normalize: bool = False,
  preference: _preference.Preference = None,
) -> Weighting:
  r"""Stochastic direction-oriented multi-objective gradient descent (SDMGrad).

  MGDA's problem with the update kept near a preferred direction,
  :math:`g_0 = J^\top p`, the mean gradient by default:

  .. math:: \min_{w \in \Delta} \tfrac12 \| J^\top w + \lambda g_0 \|^2

  It takes some steps of projected gradient descent, whose gradient is
  estimated without bias from two independent batches, from the weights of the
  step before; the model then steps along the gradients of a third:

  .. math:: w \leftarrow \Pi_\Delta \big(w - \gamma M (w + \lambda p)\big),
     \qquad M = J_1 J_2^\top, \qquad
     d = J_3^\top \frac{w + \lambda p}{1 + \lambda}

  The weights sum to 1 if the preference does. Heads are not weighted: only the
  shared parameters are in conflict. Scaling a task's loss changes the update
  (invariance ``'none'``). With :math:`\lambda = 0` it is stochastic MGDA, with
  a large one the mean. The inner loop is ``num_steps`` products with a T by T
  matrix. `mtljax.training.make_train_step` makes the three batches out of each
  of its own; on the optax face see `mtljax.cross_gramian`. Costs T backward
  passes of two of the three batches and one of the third.

  The learning rate is in units of the gradients. The authors' code divides M
  by the squared mean length of the gradients first, so that it is not:
  ``normalize=True`` with ``learning_rate=10`` (LibMTL: 5). Such steps are too
  long to settle, and the weights jump between corners of the simplex. (In its
  supervised experiments the three batches' gradients share one buffer, so that
  they are those of one batch.)

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  zero or equal rows        nothing special: these are steps of descent
  0 in the hull             the same, and so of antiparallel rows
  rows of unlike length     a row much longer than the others is left with
                            :math:`\lambda p_t / (1 + \lambda)`, if
                            :math:`\gamma \|g\|^2` is over 2
  absent tasks              0; the others share 1 and move as in the smaller
                            problem; an absent task's share is kept for it
  NaN or infinity           NaN; the next step goes on from the weights before
  ========================  ==================================================

  Args:
    lambda_: :math:`\lambda`, at least 0. The paper has 0.3, and 0.6 for
      reinforcement learning.
    learning_rate: :math:`\gamma`, at least 0.
    momentum: of the inner steps, at least 0, from rest at every step; the
      paper's analysis has 0, its experiments 0.5.
    num_steps: inner steps, at least 1.
    normalize: whether M is divided by
      :math:`(\frac1T \sum_t \sqrt{\max(M_{tt}, 0)})^2`.
    preference: :math:`p`, shape ``(T,)``, not negative, used as it is; None:
      1/T, over the tasks present.

  Returns:
    The `mtljax.Weighting`. Reads the cross-Gramian. Its state has as residual
    the largest change of a weight in the last inner step.

  Raises:
    ValueError: an argument is out of range, or the preference is negative, not
      finite, 0, or not of length T.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.sdmgrad()
    >>> cross = jnp.array([[3.0, -1.0], [0.0, 1.0]])
    >>> weights, _ = weighting.update(
    ...   mtl.TaskStats(cross_gramian=cross), weighting.init(2))
    >>> [round(float(w), 3) for w in weights]
    [0.4, 0.6]

  References:
    Xiao et al., `Direction-oriented Multi-objective Learning: Simple and
    Provable Stochastic Algorithms <https://arxiv.org/abs/2305.18409>`_, 2023
  """
  _validate.flag('normalize', normalize)
  _validate.in_range('lambda_', lambda_, 0)
  _validate.in_range('learning_rate', learning_rate, 0)
  _validate.in_range('momentum', momentum, 0)
  num_steps = _validate.integer('num_steps', num_steps, 1)
  _preference.check(preference)

  def init_fn(num_tasks, key=None):
    del key
    _preference.check_length(preference, num_tasks)
    return SDMGradState(
      iterate=jnp.full((num_tasks,), 1 / num_tasks, float),
      residual=_common.zero_residual(),
    )

  def update_fn(stats, state):
    cross, mask = _common.gramian_and_mask(stats, 'sdmgrad', 'cross_gramian')
    share = _preference.as_share(preference, mask, cross.dtype)
    weights, iterate, residual = _steps(
      cross,
      mask,
      state.iterate,
      share,
      lambda_,
      learning_rate,
      momentum,
      num_steps=num_steps,
      normalize=normalize,
    )
    return weights, SDMGradState(iterate, residual.astype(jnp.float32))

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'cross_gramian'}),
    info=MethodInfo(
      name='sdmgrad',
      paper='Xiao et al., 2023, https://arxiv.org/abs/2305.18409',
    ),
  )

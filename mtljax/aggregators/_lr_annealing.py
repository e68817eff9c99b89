"""Learning-rate annealing: weights against the largest residual gradient."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _tree, _validate
from mtljax._types import MethodInfo
from mtljax.aggregators import _gradient_based as _base


class LRAnnealingState(NamedTuple):
  """State of `lr_annealing`."""

  loss_weights: jax.Array  # (T,)


def lr_annealing(
  *, primary: int = 0, decay: ArrayLike = 0.9, weighted: bool = False
) -> _base.GradientRule:
  r"""Learning-rate annealing for physics-informed networks.

  The primary loss is the residual of the differential equation, the others are
  boundary and initial conditions and data, whose gradients are often far
  smaller. With p the primary task,

  .. math:: \hat w_t = \frac{\max_i |\partial_i L_p|}
     {\mathrm{mean}_i |\partial_i L_t|}, \qquad
     w_t \leftarrow \beta w_t + (1 - \beta) \hat w_t, \qquad w_p = 1

  from :math:`w = 1`, over all shared coordinates i; the update is
  :math:`\sum_t w_t g_t`. The weights have no fixed sum: a maximum over a mean
  is large, and grows with the number of parameters that a gradient does not
  reach. Heads are weighted: the method weights losses. The authors' code takes
  the mean of the gradient of :math:`w_t L_t`, ``weighted=True``, which tends
  to the root of the quotient; it renews the weights at every tenth step.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs the T gradients and O(T) a coordinate.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  a zero row                its weight stands still; of the primary task: those
                            of the others fall
  equal, antiparallel rows  nothing special: only sizes are read
  absent tasks              0, and their weights stand still; without the
                            primary task all do
  NaN or infinity           NaN; the state stands still
  ========================  ==================================================

  Args:
    primary: the index of the primary task, the residual.
    decay: :math:`\beta`, from 0 to 1: what is kept of the weights. The paper's
      :math:`\alpha` is one less it.
    weighted: whether the mean is of the weighted gradient, see above.

  Returns:
    The `mtljax.Aggregator`. Reads the gradients.

  Raises:
    ValueError: an argument is out of its range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.lr_annealing(num_tasks=2)
    >>> params = {'w': jnp.zeros(2)}
    >>> grads = {'w': jnp.array([[4.0, 1.0], [0.0, 1.0]])}
    >>> update, state = tx.update(grads, tx.init(params), params)
    >>> print(mtl.get_weights(state).round(3), update['w'].round(3))
    [1.  1.7] [4.  2.7]

  References:
    Wang et al., `Understanding and Mitigating Gradient Pathologies in
    Physics-Informed Neural Networks <https://arxiv.org/abs/2001.04536>`_, 2021
  """
  primary = _validate.integer('primary', primary, 0)
  _validate.in_range('decay', decay, 0, 1)
  _validate.flag('weighted', weighted)

  def init_fn(num_tasks, shared, key):
    del shared, key
    if primary >= num_tasks:
      raise ValueError(
        f'primary={primary} must be below num_tasks={num_tasks}.'
      )
    return LRAnnealingState(loss_weights=jnp.ones((num_tasks,), float))

  def update_fn(rows, state):
    mask = rows.present
    old = state.loss_weights
    sizes = [
      jnp.abs(x.astype(_tree.accumulator(x.dtype))).reshape(len(old), -1)
      for x in rows.leaves
    ]
    count = sum(x.shape[1] for x in sizes)
    largest = [jnp.max(x[primary], initial=0) for x in sizes]
    largest = jnp.max(jnp.stack(largest))
    means = sum(jnp.sum(x / count, axis=1) for x in sizes).astype(old.dtype)
    if weighted:
      means = means * old
    some = ~(means <= 0)
    quotient = largest.astype(old.dtype) / jnp.where(some, means, 1)
    kept = jnp.asarray(decay, old.dtype)
    new = kept * old + (1 - kept) * quotient
    moves = mask & some & mask[primary]
    moves = moves & (jnp.arange(len(old)) != primary)
    new = jnp.where(moves, new, old)
    ok = jnp.all(jnp.isfinite(jnp.where(mask, means + new, 0)))
    weights = jnp.where(mask, jnp.where(ok, new, jnp.nan), 0)
    return _base.Outcome(
      [_tree.combine_leaf(weights, leaf) for leaf in rows.leaves],
      LRAnnealingState(jnp.where(ok, new, old)),
      weights,
      own=weights,
    )

  return _base.GradientRule(
    init_fn,
    update_fn,
    MethodInfo(
      name='lr_annealing',
      paper='Wang et al., 2021, https://arxiv.org/abs/2001.04536',
      weight_heads=True,
    ),
  )

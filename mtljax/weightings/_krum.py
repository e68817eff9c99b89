"""Krum: the gradients with the nearest neighbours."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.weightings import _common


class KrumState(NamedTuple):
  """State of `krum`: none."""


@functools.partial(
  jax.jit, static_argnames=('num_byzantine', 'num_selected', 'squared')
)
def _select(
  gramian: jax.Array,
  mask: jax.Array,
  *,
  num_byzantine: int,
  num_selected: int,
  squared: bool,
) -> jax.Array:
  num_tasks = len(mask)
  both = mask[:, None] & mask[None, :]
  gramian = jnp.where(both, gramian, 0)
  largest = jnp.max(jnp.diagonal(gramian))
  gramian = gramian / jnp.where(largest > 0, largest, 1)
  norms = jnp.diagonal(gramian)
  distances = norms[:, None] + norms[None, :] - 2 * gramian
  distances = jnp.maximum(distances, 0)
  if not squared:
    distances = jnp.sqrt(distances)
  eye = jnp.eye(num_tasks, dtype=bool)
  distances = jnp.where(both & ~eye, distances, jnp.inf)
  # Ranks by comparison, as a sort of 40 x 40 takes twice as long on CPU.
  one, other = distances[:, :, None], distances[:, None, :]
  index = jnp.arange(num_tasks)
  first = index[None, :] < index[:, None]
  closer = (other < one) | ((other == one) & first[None])
  ranks = jnp.sum(closer, axis=2)

  present = jnp.sum(mask)
  neighbours = jnp.clip(present - num_byzantine - 2, 1, present - 1)
  scores = jnp.sum(jnp.where(ranks < neighbours, distances, 0), axis=1)
  order = jnp.argsort(jnp.where(mask, scores, jnp.inf))
  rank = jnp.zeros(num_tasks, int).at[order].set(jnp.arange(num_tasks))
  count = jnp.minimum(present, num_selected)
  chosen = (rank < count) & mask
  return chosen / jnp.maximum(count, 1).astype(gramian.dtype)


def krum(
  *, num_byzantine: int, num_selected: int = 1, squared: bool = True
) -> Weighting:
  r"""Krum and multi-Krum: robust to a few arbitrary gradients.

  A task's score is the sum of the squared distances to its :math:`T - f - 2`
  nearest neighbours, with :math:`f` the number of tasks that may be arbitrary:

  .. math:: s_t = \sum_{t \to j} \|g_t - g_j\|^2, \qquad
     w_t = 1/m \text{ for the } m \text{ lowest scores, else } 0

  The weights sum to 1. Made for workers with the same loss, it leaves out the
  tasks that are unlike the others, which also get nothing in that step. Heads
  are not weighted: theirs would not be trained. Scaling a task's loss changes
  the update (invariance ``'none'``). Costs the Gramian (T backward passes)
  and T^3 comparisons of distances.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  zero rows                 nothing special: points like others
  equal rows, ties          the first of equal scores
  rows of unlike length     the short ones are nearest to each other, and win
  f = 0 and two tasks       one neighbour is counted: a tie
  fewer than f + 3 present  one neighbour is counted; without the guarantee
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    num_byzantine: :math:`f`, at least 0; if it is above 0 there have to be
      :math:`f + 3` tasks or more.
    num_selected: :math:`m`, how many gradients are averaged, at least 1; all
      tasks present if there are fewer.
    squared: whether distances are squared (the paper) or not (TorchJD).

  Returns:
    The `mtljax.Weighting`. Reads the Gramian; it has no state.

  Raises:
    ValueError: an argument is out of its range or too large for T.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.krum(num_byzantine=1, num_selected=2)
    >>> rows = jnp.array([[1.0, 0.0], [1.1, 0.0], [1.3, 0.0], [-9.0, 5.0]])
    >>> stats = mtl.TaskStats(gramian=rows @ rows.T)
    >>> weights, _ = weighting.update(stats, weighting.init(4))
    >>> print(weights)
    [0.5 0.5 0.  0. ]

  References:
    Blanchard et al., `Byzantine-Tolerant Machine Learning
    <https://arxiv.org/abs/1703.02757>`_, 2017
  """
  _validate.flag('squared', squared)
  num_byzantine = _validate.integer('num_byzantine', num_byzantine, 0)
  num_selected = _validate.integer('num_selected', num_selected, 1)

  def init_fn(num_tasks, key=None):
    del key
    if num_byzantine and num_tasks < num_byzantine + 3:
      raise ValueError(
        f'num_byzantine={num_byzantine} must be at most num_tasks - 3, and '
        f'num_tasks={num_tasks}: lower num_byzantine.'
      )
    return KrumState()

  def update_fn(stats, state):
    gramian, mask = _common.gramian_and_mask(stats, 'krum')
    weights = _select(
      gramian,
      mask,
      num_byzantine=num_byzantine,
      num_selected=num_selected,
      squared=squared,
    )
    return _common.nan_unless_finite(weights, gramian, mask), state

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'gramian'}),
    info=MethodInfo(
      name='krum',
      paper='Blanchard et al., 2017, https://arxiv.org/abs/1703.02757',
    ),
  )

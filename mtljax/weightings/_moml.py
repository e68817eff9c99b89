"""MOML: weights learned on several validation losses at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import Hypergradient, Lookahead, MethodInfo, Weighting
from mtljax.solvers import min_norm_unit, row_normalize
from mtljax.weightings import _common, _learned, _loss_common


class MOMLState(NamedTuple):
  """State of `moml`."""

  learned: jax.Array  # (T,), what the softmax is taken of
  optimizer_state: Any
  residual: jax.Array  # of the last solve, float32


def moml(
  *,
  primary: Sequence[int] | None = None,
  learning_rate: ArrayLike = 1e-3,
  inner_learning_rate: ArrayLike = 0.1,
  normalize: Literal['none', 'l2'] = 'l2',
  hypergradient: Hypergradient = 'exact',
) -> Weighting:
  r"""Multi-objective meta learning (MOML) of the weights, after one step.

  With weights :math:`w = \mathrm{softmax}(\alpha)` and the parameters after a
  step that they decide,

  .. math:: \theta' = \theta - \eta \sum_t w_t \nabla L_t(\theta), \qquad
     a_p = \nabla_\alpha L^{\mathrm{val}}_p(\theta'), \qquad
     d = \sum_{p \in P} c_p \frac{a_p}{\|a_p\|}

  where c are the weights of `mgda` for the vectors :math:`a_p / \|a_p\|`: d is
  the shortest vector of their hull, and Adam moves :math:`\alpha` by it, so
  that no validation loss of a primary task rises to first order. The
  parameters then take a step with the new weights, which sum to 1 and start
  equal. Where `auto_lambda` adds the validation losses up, this weighs them.
  The paper's method looks any number of steps ahead; this is the case of one,
  which its authors run and for which no second derivative is needed. Heads are
  weighted, in the step ahead too: the method weights losses.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs in `mtljax.training.make_train_step`, which takes the
  validation batch as ``val_batch=``, a backward pass of the training batch
  more, and for each of P primary tasks one of the validation batch and a
  forward-mode pass (or two evaluations of the losses); O(P^2 T) beside it. On
  the optax face ``hypergradient=`` ``(P, T)`` is an argument of ``update``, see
  `mtljax.hypergradient`.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  :math:`a_p = 0`           p does not count; with no other, Adam goes on by
                            what it has of the steps before
  0 in the hull             Adam gets 0: d is no longer than the root of the
                            rounding error times the longest :math:`a_p`
  absent tasks              0, and they are not in the step ahead; what is
                            learned of them stands still
  validation lacks a task   it does not count; those that are there do
  NaN or infinity           NaN in that step; what is learned stands still
  ========================  ==================================================

  Args:
    primary: P, indices of tasks, from 0; None: all.
    learning_rate: of :math:`\alpha`'s Adam, at least 0.
    inner_learning_rate: :math:`\eta`, at least 0.
    normalize: ``'l2'`` as above, or ``'none'``, where :math:`a_p` stands for
      :math:`a_p / \|a_p\|`.
    hypergradient: ``'exact'`` or ``'finite_difference'``, see
      `mtljax.hypergradient`.

  Returns:
    The `mtljax.Weighting`. Reads the hypergradient, of every primary task by
    itself. Its state has the residual of the last solve, see
    `mtljax.solvers.min_norm_simplex`.

  Raises:
    TypeError: ``primary`` is not a list.
    ValueError: an argument is out of range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.moml(learning_rate=0.1)
    >>> state = weighting.init(2)
    >>> stats = mtl.TaskStats(
    ...   hypergradient=jnp.array([[-3.0, 0.5], [-0.2, -0.1]]))
    >>> for _ in range(2):
    ...   weights, state = weighting.update(stats, state)
    ...   print([round(float(w), 3) for w in weights])
    [0.55, 0.45]
    [0.599, 0.401]

  References:
    Ye et al., `Multi-Objective Meta Learning
    <https://arxiv.org/abs/2102.07121>`_, 2021
  """
  _validate.in_range('learning_rate', learning_rate, 0)
  _validate.one_of('normalize', normalize, ('none', 'l2'))

  def init_fn(num_tasks, key=None):
    del key
    _validate.tasks('primary', asked.primary, num_tasks)
    start = jnp.zeros((num_tasks,), float)
    return MOMLState(
      start, _loss_common.adam_init(start), _common.zero_residual()
    )

  def update_fn(stats, state):
    by_weight, mask = _learned.hypergradient_and_mask(stats, 'moml')
    weights = _loss_common.softmax(state.learned, mask)
    rows = jax.vmap(_learned.through_softmax, (0, None))(by_weight, weights)
    lengths, units = jax.vmap(_loss_common.direction)(rows)
    counts = ~(lengths == 0)  # a NaN has to stay one
    unit, _ = row_normalize(units @ units.T, counts)
    l2 = normalize == 'l2'
    shares, residual = min_norm_unit(
      unit, jnp.where(lengths > 0, 1, lengths) if l2 else lengths, counts
    )
    sizes = jnp.where(counts, jnp.ones_like(lengths) if l2 else lengths, 0)
    shortest = (shares * sizes) @ units
    # Adam would make steps of full length of what is rounding.
    least = jnp.sqrt(jnp.finfo(shortest.dtype).eps) * jnp.max(sizes)
    nothing = jnp.sqrt(jnp.sum(jnp.square(shortest))) <= least
    direction, optimizer_state = _loss_common.adam_step(
      jnp.where(nothing, 0, shortest), state.optimizer_state, mask
    )
    rate = jnp.asarray(learning_rate, state.learned.dtype)
    learned = state.learned - rate * direction
    return _loss_common.softmax(learned, mask), MOMLState(
      learned, optimizer_state, residual.astype(jnp.float32)
    )

  asked = Lookahead(
    weights=lambda state: _loss_common.softmax(
      state.learned, jnp.ones(state.learned.shape, bool)
    ),
    separate=True,
    **_learned.checked(primary, inner_learning_rate, hypergradient),
  )
  return Weighting(
    init_fn,
    update_fn,
    frozenset({'hypergradient'}),
    info=MethodInfo(
      name='moml',
      paper='Ye et al., 2021, https://arxiv.org/abs/2102.07121',
      weight_heads=True,
    ),
    lookahead=asked,
  )

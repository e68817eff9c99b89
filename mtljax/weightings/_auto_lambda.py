"""Auto-Lambda: weights learned by what a step with them does to validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import Hypergradient, Lookahead, MethodInfo, Weighting
from mtljax.weightings import _learned, _loss_common


class AutoLambdaState(NamedTuple):
  """State of `auto_lambda`."""

  learned: jax.Array  # (T,), the weights, or what the softmax is taken of
  optimizer_state: Any


def auto_lambda(
  *,
  primary: Sequence[int] | None = None,
  learning_rate: ArrayLike = 1e-4,
  inner_learning_rate: ArrayLike = 0.1,
  initial_weight: ArrayLike = 0.1,
  projection: Literal['nonnegative', 'softmax'] = 'nonnegative',
  hypergradient: Hypergradient = 'exact',
) -> Weighting:
  r"""Auto-Lambda: weights that make one step best for primary tasks.

  The weights :math:`\lambda` descend the validation losses of the primary
  tasks P after a step that they decide:

  .. math:: \min_\lambda \sum_{p \in P} L^{\mathrm{val}}_p(\theta'), \qquad
     \theta' = \theta - \eta \sum_t \lambda_t \nabla L_t(\theta), \qquad
     h_t = -\eta\, \left\langle \nabla L_t(\theta),
     \sum_{p \in P} \nabla L^{\mathrm{val}}_p(\theta') \right\rangle

  At every step Adam moves them by :math:`h`, and the parameters take a step
  with the new ones: a task whose gradient lowers the primary tasks' validation
  losses gets more. Tasks that are not primary are auxiliary: trained as far as
  they help. The authors' step ahead has the momentum and the weight decay of
  their optimizer in it, which do not depend on :math:`\lambda`; here it is
  plain gradient descent, as in their paper. Theirs may turn negative, which
  would make a head ascend: here they are kept from 0 on, and grow again from
  there as soon as :math:`h_t < 0`. The weights have no fixed sum; with
  ``projection='softmax'``, as in LibMTL, they sum to 1. Heads are weighted, in
  the step ahead too: the method weights losses.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs in `mtljax.training.make_train_step`, which takes the
  validation batch as ``val_batch=``, three backward passes in place of one,
  one of them on that batch, and a forward-mode pass, or two evaluations of the
  losses; O(T) beside it. On the optax face ``hypergradient=`` is an argument of
  ``update``, see `mtljax.hypergradient`.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  learned as any; 1 with ``'softmax'``
  :math:`h = 0`             they stay
  absent tasks              0, and they are not in the step ahead; what is
                            learned of them stands still
  validation lacks a task   it does not count; those that are there do
  NaN or infinity           NaN in that step; what is learned stands still
  ========================  ==================================================

  Args:
    primary: P, indices of tasks, from 0; None: all.
    learning_rate: of the weights' Adam, at least 0; the authors' is 1e-4, or
      3e-5.
    inner_learning_rate: :math:`\eta`, at least 0; the authors take that of
      their optimizer at the time, from 0.1 on. As Adam does not see the length
      of :math:`h`, only :math:`\theta'` depends on it.
    initial_weight: where all weights start, above 0; with ``'softmax'`` they
      start equal.
    projection: ``'nonnegative'`` or ``'softmax'``.
    hypergradient: ``'exact'`` or ``'finite_difference'``, the authors', see
      `mtljax.hypergradient`.

  Returns:
    The `mtljax.Weighting`. Reads the hypergradient.

  Raises:
    TypeError: ``primary`` is not a list.
    ValueError: an argument is out of range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.auto_lambda(learning_rate=0.01)
    >>> state = weighting.init(2)
    >>> stats = mtl.TaskStats(hypergradient=jnp.array([-3.0, 0.5]))
    >>> for _ in range(3):
    ...   weights, state = weighting.update(stats, state)
    ...   print([round(float(w), 3) for w in weights])
    [0.11, 0.09]
    [0.12, 0.08]
    [0.13, 0.07]

  References:
    Liu et al., `Auto-Lambda: Disentangling Dynamic Task Relationships
    <https://arxiv.org/abs/2202.03091>`_, 2022
  """
  _validate.in_range('learning_rate', learning_rate, 0)
  _validate.in_range('initial_weight', initial_weight, 0, open_low=True)
  _validate.one_of('projection', projection, ('nonnegative', 'softmax'))
  soft = projection == 'softmax'

  def init_fn(num_tasks, key=None):
    del key
    _validate.tasks('primary', asked.primary, num_tasks)
    start = _loss_common.one_a_task('initial_weight', initial_weight, num_tasks)
    return AutoLambdaState(start, _loss_common.adam_init(start))

  def weights_of(learned, mask):
    return _loss_common.softmax(learned, mask) if soft else learned

  def update_fn(stats, state):
    by_weight, mask = _learned.hypergradient_and_mask(stats, 'auto_lambda')
    gradient = by_weight
    if soft:
      gradient = _learned.through_softmax(
        by_weight, _loss_common.softmax(state.learned, mask)
      )
    direction, optimizer_state = _loss_common.adam_step(
      gradient, state.optimizer_state, mask
    )
    rate = jnp.asarray(learning_rate, state.learned.dtype)
    learned = state.learned - rate * direction
    if not soft:
      learned = jnp.maximum(learned, 0)
    weights = jnp.where(mask, weights_of(learned, mask), 0)
    return weights, AutoLambdaState(learned, optimizer_state)

  asked = Lookahead(
    weights=lambda state: weights_of(
      state.learned, jnp.ones(state.learned.shape, bool)
    ),
    **_learned.checked(primary, inner_learning_rate, hypergradient),
  )
  return Weighting(
    init_fn,
    update_fn,
    frozenset({'hypergradient'}),
    info=MethodInfo(
      name='auto_lambda',
      paper='Liu et al., 2022, https://arxiv.org/abs/2202.03091',
      weight_heads=True,
    ),
    lookahead=asked,
  )

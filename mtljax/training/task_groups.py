r"""Selective task group updates: groups of tasks stepped on in turn.

Tasks whose steps help each other are put into a group, anew as training goes
on, and a batch is used for one step a group. The affinity is that of
`mtljax.diagnostics.task_affinity` with ``update_own``, measured here on the
steps that are made anyway.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from mtljax import _labels, _validate
from mtljax.gradients._pullback import LossFn
from mtljax.training.step import _begin, _optimizer
from mtljax.training.step._task_groups import (
  ORDERS,
  GroupState,
  Order,
  Plan,
  groups_of,
  run_step,
)
from mtljax.training.step.train_step import TrainStep

__all__ = ['GroupState', 'affinity_propagation', 'make_group_step']


def affinity_propagation(
  similarity: ArrayLike,
  *,
  preference: ArrayLike | None = None,
  damping: ArrayLike = 0.5,
  num_iterations: int = 200,
) -> jax.Array:
  r"""Groups around exemplars, as many as the similarities ask for.

  Messages between all pairs, responsibilities r and availabilities a, from
  zeros and damped by :math:`\delta`, as :math:`r \leftarrow \delta r
  + (1 - \delta) r'` and a likewise:

  .. math:: r'_{ik} = s_{ik} - \max_{j \ne k} (a_{ij} + s_{ij}), \qquad
     a'_{ik} = \min\left(0, r_{kk} + \sum_{j \ne i, k} \max(0, r_{jk})\right),
     \qquad a'_{kk} = \sum_{j \ne k} \max(0, r_{jk})

  where :math:`s_{kk}` is the preference. Tasks with :math:`r_{kk} + a_{kk} > 0`
  are exemplars, and every other one goes to the exemplar most similar to it.
  Of exemplars that are as good as each other the one of lower index is taken:
  preferences fall with the index by a ten-thousandth of the range of the
  similarities in all.

  The number of iterations is fixed; scikit-learn's stops when exemplars have
  stayed the same for a while, and then chooses anew in each group the exemplar
  with the largest sum.

  Args:
    similarity: s, shape ``(T, T)``, row i to column k.
    preference: of all tasks, or one a task; the larger, the more groups. None:
      the median of ``similarity``, its diagonal included, as in scikit-learn.
    damping: :math:`\delta`, at least 0 and below 1.
    num_iterations: at least 1.

  Returns:
    Bools ``(T, T)``: row k marks the members of the group of exemplar k, and is
    all false for what is none. Every task is in one group, unless there is no
    exemplar: messages that have not settled leave all false, and so do
    similarities that are not finite.

  Raises:
    ValueError: the similarity is not square, or an argument is out of range.

  Examples:
    >>> import jax.numpy as jnp
    >>> from mtljax.training import task_groups
    >>> s = jnp.array([[1.0, 0.9, 0.1], [0.9, 1.0, 0.1], [0.1, 0.1, 1.0]])
    >>> print(task_groups.affinity_propagation(s).astype(int))
    [[1 1 0]
     [0 0 0]
     [0 0 1]]

  References:
    Frey and Dueck, `Clustering by Passing Messages Between Data Points
    <https://doi.org/10.1126/science.1136800>`_, 2007
  """
  similarity = jnp.asarray(similarity)
  if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1]:
    raise ValueError(
      f'similarity of shape {similarity.shape} must be of (T, T).'
    )
  _validate.in_range('damping', damping, 0, 1, open_high=True)
  _validate.in_range('preference', preference, optional=True, vector=True)
  num_iterations = _validate.integer('num_iterations', num_iterations, 1)
  return groups_of(similarity, preference, damping, num_iterations)


def make_group_step(
  optimizer: optax.GradientTransformation,
  loss_fn: LossFn,
  *,
  labels: _labels.Labels | None = None,
  num_tasks: int | None = None,
  groups: Sequence[Sequence[int]] | None = None,
  order: Order = 'random',
  decay: ArrayLike = 1e-3,
  preference: float | None = None,
  damping: ArrayLike = 0.5,
  num_iterations: int = 200,
  warmup_steps: int = 100,
  every: int = 1,
) -> TrainStep:
  r"""Builds a step of selective task group updates.

  A batch is used for one optimizer step a group, one after the other: on the
  sum of the group's losses, with respect to the shared parameters and to those
  that its tasks own. What other tasks own stands still, the optimizer's state
  of it too. How a step on group C changes the losses of all tasks is noted of
  its members s, averaged over steps:

  .. math:: b_t = 1 - \frac{L_t(\theta \text{ after})}
     {L_t(\theta \text{ before})}, \qquad
     B_{st} \leftarrow (1 - \beta) B_{st} + \beta \frac{1}{|C|}
     \begin{cases} b_t & t \notin C \text{ or } b_s b_t \ge 0 \\
     -\max(b_s, b_t) & \text{else} \end{cases}

  with :math:`B_{ss}` left as it is where :math:`b_s < 0`: within a group the
  members' parts cannot be told apart, and those that fare differently are taken
  to be in each other's way. Groups are those of `affinity_propagation` of

  .. math:: S = \frac12 (\tilde B + \tilde B^\top), \qquad
     \tilde B_{st} = B_{st} / B_{tt}

  formed anew every ``every`` steps; in the first ``warmup_steps`` each task is
  a group. Where the clustering finds no exemplar, or a task has
  :math:`B_{tt} \le 0`, groups stay as they are.

  From the paper are the affinity, its average, the clustering and the steps in
  turn. The rule within a group and the constants are those of the authors'
  code. That code takes a group's losses before its step, so that what it notes
  of a group is the effect of the one before; here it is the effect of the
  group's own step.

  Costs for M groups M forward and backward passes, M optimizer steps and a
  forward pass in the end, against one of each; the optimizer counts M steps a
  batch, and so do its schedules. The program has a loop over T places for
  groups, of which empty ones do nothing.

  The state is a `mtljax.training.TrainState` whose ``method_state`` is a
  `GroupState`. The metrics: ``losses`` ``(T,)`` before the step, ``group``
  ``(T,)``, the exemplar of each task (of fixed groups their places in
  ``groups``), and ``num_groups``.

  ============================ ==============================================
  case                         result
  ============================ ==============================================
  one group of all tasks       a step on the sum of the losses
  one task                     likewise
  a loss of 0 or below, NaN    nothing is noted of it
  a loss that is not finite    its gradient goes into the parameters, as in
                               plain training
  ============================ ==============================================

  Args:
    optimizer: plain optax; it gets ``value``, the sum of the group's losses,
      if it takes that.
    loss_fn: the task losses, called with ``(params, batch)``, in one of the
      forms of `mtljax.value_and_task_grads`.
    labels: which task owns which parameter, see `mtljax.label_params`. None:
      all are shared, and an optimizer with momentum or weight decay then moves
      heads of other groups too.
    num_tasks: for a plain ``loss_fn``; else known.
    groups: fixed ones, each the indices of its tasks, every task in one; None:
      formed by affinity.
    order: of groups in a step: ``'random'``, drawn for each step, or
      ``'index'``, by their exemplars (fixed ones: as given).
    decay: :math:`\beta`, above 0 and at most 1.
    preference: of the clustering, see `affinity_propagation`.
    damping: likewise.
    num_iterations: likewise.
    warmup_steps: see above, at least 1.
    every: see above.

  Returns:
    A `mtljax.training.TrainStep`: ``init(params, *, key)``, and
    ``step(state, batch)``, jitted, which donates the state. ``route`` is
    ``'losses'``.

  Raises:
    TypeError: the optimizer is none, or ``groups`` no list of lists.
    ValueError: an argument is out of range, the number of tasks is not known,
      or a task is not in exactly one of ``groups``; from ``init``, there is a
      model state; from ``step``, the batch is a `mtljax.MaskedBatch`.

  Examples:
    >>> import jax, jax.numpy as jnp, optax
    >>> from mtljax.training import task_groups
    >>> def task_losses(w, x):
    ...   return jnp.stack([(w - x) ** 2, (w + x) ** 2])
    >>> init, step, _ = task_groups.make_group_step(
    ...   optax.sgd(0.25), task_losses, num_tasks=2, order='index')
    >>> state = init(jnp.array(0.0), key=jax.random.key(0))
    >>> state, metrics = step(state, 1.0)  # to 0.5, and from there to -0.25
    >>> print(state.params, metrics['group'])
    -0.25 [0 1]

  References:
    Jeong and Yoon, `Selective Task Group Updates for Multi-Task Optimization
    <https://arxiv.org/abs/2502.11986>`_, 2025
  """
  _validate.one_of('order', order, ORDERS)
  _validate.in_range('decay', decay, 0, 1, open_low=True)
  _validate.in_range('damping', damping, 0, 1, open_high=True)
  _validate.in_range('preference', preference, optional=True)
  num_tasks = _begin.num_tasks_of(loss_fn, num_tasks)
  plan = Plan(
    loss_fn=loss_fn,
    optimizer=_optimizer.checked(optimizer),
    labels=labels,
    first=_masks(groups, num_tasks),
    is_fixed=groups is not None,
    order=order,
    decay=decay,
    preference=preference,
    damping=damping,
    num_iterations=_validate.integer('num_iterations', num_iterations, 1),
    warmup_steps=_validate.integer('warmup_steps', warmup_steps, 1),
    every=_validate.integer('every', every, 1),
  )

  def init(params, *, key, model_state=None):
    _begin.check_no_model_state(
      model_state, 'this step takes losses without a state'
    )
    method_state = GroupState(
      affinity=jnp.zeros((num_tasks, num_tasks), float),
      groups=jnp.array(plan.first, copy=True),
    )
    init_optimizer = functools.partial(_optimizer.init, plan.optimizer)
    return _begin.first_state(init_optimizer, params, method_state, key)

  def step(state, batch):
    _begin.check_state(state)
    _begin.check_no_mask(
      'batch', batch, 'affinities need all tasks in every step'
    )
    return run_step(plan, state, batch)

  return TrainStep(init, jax.jit(step, donate_argnums=0), 'losses')


def _masks(groups: Any, num_tasks: int) -> np.ndarray:
  """Bools ``(T, T)``: a row for each group, and empty ones."""
  if groups is None:
    return np.eye(num_tasks, dtype=bool)
  if not isinstance(groups, Sequence) or isinstance(groups, str):
    raise TypeError(
      f'groups={groups!r} must be a list of lists of indices of tasks.'
    )
  found = [
    _validate.tasks(f'groups[{i}]', group, num_tasks)
    for i, group in enumerate(groups)
  ]
  members = [t for group in found for t in group or ()]
  if sorted(members) != list(range(num_tasks)):
    raise ValueError(
      f'groups={groups!r} must have each of the {num_tasks} tasks in one group.'
    )
  masks = np.zeros((num_tasks, num_tasks), bool)
  for row, group in zip(masks, found, strict=False):
    row[list(group)] = True
  return masks

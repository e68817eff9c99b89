"""One optimizer a task on the shared parameters: AdaTask and MTL-IO."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtljax import _labels, _params, _tree, _validate
from mtljax._types import Aggregator, MethodInfo
from mtljax.aggregators import _checks, _per_task
from mtljax.optimizers import _signsgd


class PerTaskState(NamedTuple):
  """State of `per_task_optimizer`."""

  shared: Any  # of the optimizer on the shared leaves, (T, ...) a leaf
  own: tuple[Any, ...]  # of the optimizer on each task's own leaves


def _row(leaf: Any, task: int) -> Any:
  if isinstance(leaf, jax.ShapeDtypeStruct):
    return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
  return leaf[task]


def _sum_tasks(leaf: jax.Array) -> jax.Array:
  """``sum_t leaf[t]`` in float32 or wider, in the leaf's dtype."""
  return jnp.sum(leaf.astype(_tree.accumulator(leaf.dtype)), axis=0).astype(
    leaf.dtype
  )


def _per_task_optimizer(
  tx: optax.GradientTransformation,
  num_tasks: int,
  labels: _labels.Labels | None,
  info: MethodInfo,
) -> Aggregator:
  num_tasks = _validate.num_tasks(num_tasks)
  lifted = _per_task.per_task(tx, num_tasks)
  tx = optax.with_extra_args_support(tx)
  tasks = range(num_tasks)

  def flat_labels(tree):
    return _labels.flatten_labels(labels, tree, num_tasks)

  def shared_of(tree):
    pairs = zip(jax.tree.leaves(tree), flat_labels(tree), strict=True)
    return [x for x, label in pairs if label == _labels.SHARED]

  def own_of(tree, task):
    pairs = zip(jax.tree.leaves(tree), flat_labels(tree), strict=True)
    return [
      _row(x, task) if label == _labels.STACKED else x
      for x, label in pairs
      if label in (task, _labels.STACKED)
    ]

  def init_fn(params):
    _params.check_no_module(params)
    if params is None:
      raise ValueError(
        f'params=None: the state of {info.name} has a row a task for each '
        'shared parameter; call init(params).'
      )
    if not jax.tree.leaves(params):
      # What `optax.tree.map_params` stands for parameters.
      own = tuple(tx.init(params) for _ in tasks)
      return PerTaskState(lifted.init(params), own)
    return PerTaskState(
      lifted.init(shared_of(params)),
      tuple(tx.init(own_of(params, t)) for t in tasks),
    )

  def update_fn(updates, state, params=None, *, task_mask=None, **extra_args):
    leaves, treedef = jax.tree.flatten(updates)
    flat = flat_labels(updates)
    _checks.check_gradients(updates, flat, num_tasks, params)
    mask = _checks.checked_mask(task_mask, num_tasks)
    rows = [_tree.present(mask, x) for x in shared_of(updates)]
    rows, shared_state = lifted.update(
      rows,
      state.shared,
      None if params is None else shared_of(params),
      **extra_args,
    )
    if mask is not None:
      # An optimizer moves without a gradient too: momentum, decay.
      rows = [_tree.present(mask, x) for x in rows]
      shared_state = _per_task.select_rows(mask, shared_state, state.shared)

    own_updates, own_states = [], []
    for t in tasks:
      here = None if mask is None else mask[t]
      gradient = [_tree.present(here, x) for x in own_of(updates, t)]
      good = _per_task.all_finite(gradient)
      update, new = tx.update(
        gradient,
        state.own[t],
        None if params is None else own_of(params, t),
        **extra_args,
      )
      good &= _tree.stays_finite(new, state.own[t])
      if here is not None:
        good &= here
      new = _per_task.select_rows(good, new, state.own[t])
      own_updates.append(iter([_tree.present(here, x) for x in update]))
      own_states.append(new)

    shared = iter(_sum_tasks(x) for x in rows)

    def one(label):
      if label == _labels.SHARED:
        return next(shared)
      if label == _labels.STACKED:
        return jnp.stack([next(own_updates[t]) for t in tasks])
      return next(own_updates[label])

    out = [
      one(label).astype(x.dtype) for x, label in zip(leaves, flat, strict=True)
    ]
    return (
      jax.tree.unflatten(treedef, out),
      PerTaskState(shared_state, tuple(own_states)),
    )

  return Aggregator(
    init_fn,
    update_fn,
    num_tasks=num_tasks,
    needs=frozenset({'gradients'}),
    info=info,
    labels=labels,
  )


def per_task_optimizer(
  tx: optax.GradientTransformation,
  num_tasks: int,
  *,
  labels: _labels.Labels | None = None,
) -> Aggregator:
  r"""Individual optimizers (MTL-IO): each task has one on shared parameters.

  .. math:: \Delta\theta_{sh} = \sum_t \mathrm{tx}_t(g^t_{sh}), \qquad
     \Delta\theta^t_{ns} = \mathrm{tx}'_t(g^t_{ns})

  Every task's optimizer sees its own gradient alone, so that what it keeps
  (moments, norms) is never a mixture of tasks. Its updates are summed. The
  parameters that a task owns get one more optimizer of the same kind.

  Unlike the methods it returns the step itself, with the sign and the learning
  rate of ``tx``: nothing goes after it, or ``optax.identity()`` where a train
  step wants an optimizer. There are no task weights. The invariance to a
  task's loss scale is that of ``tx``: declared ``'none'``. The state is T times
  that of ``tx`` on the shared parameters, and a step costs T of its updates
  and T backward passes.

  ========================  ==================================================
  input                     update
  ========================  ==================================================
  one task                  that of ``tx``
  zero rows                 what ``tx`` makes of a zero gradient
  a linear optimizer (SGD)  that of ``tx`` on the sum of the gradients
  weight decay in ``tx``    applied T times to the shared parameters, by each
                            optimizer: divide it by T, or chain it after this
  absent tasks              they add nothing, and their optimizers stand still
  NaN or infinity           reaches the sum; that task's optimizer stands still
  ========================  ==================================================

  Args:
    tx: the optimizer, such as ``optax.adam(1e-3)``.
    num_tasks: T, a Python int.
    labels: which task owns which parameter, see `mtljax.label_params`; None:
      all parameters are shared.

  Returns:
    The `mtljax.Aggregator`: ``update`` takes per-task gradients and
    ``task_mask=``.

  Raises:
    TypeError: ``tx`` is not an optax transformation, or is a method.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl, optax
    >>> tx = mtl.per_task_optimizer(optax.sgd(0.1), num_tasks=2)
    >>> w = jnp.zeros(2)
    >>> grads = jnp.array([[1.0, 0.0], [1.0, 2.0]])
    >>> updates, state = tx.update(grads, tx.init(w), w)
    >>> print(updates)
    [-0.2 -0.2]

  References:
    Elich et al., `Examining Common Paradigms in Multi-Task Learning
    <https://arxiv.org/abs/2311.04698>`_, 2023, which names it MTL-IO.
  """
  if isinstance(tx, Aggregator) or not isinstance(
    tx, optax.GradientTransformation
  ):
    raise TypeError(
      f'tx={type(tx).__name__} must be an optimizer for one gradient, such as '
      'optax.adam(1e-3).'
    )
  info = MethodInfo(
    name='per_task_optimizer',
    paper='Elich et al., 2023, https://arxiv.org/abs/2311.04698',
    is_optimizer=True,
  )
  return _per_task_optimizer(tx, num_tasks, labels, info)


def adatask(
  num_tasks: int,
  learning_rate: optax.ScalarOrSchedule,
  *,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  labels: _labels.Labels | None = None,
) -> Aggregator:
  r"""AdaTask: Adam with the moments of each task apart.

  .. math:: \Delta\theta_{sh} = -\eta \sum_t
     \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon}

  with :math:`\hat m_t, \hat v_t` Adam's moments of task t's gradient, so that a
  task with large gradients does not set the step of the others. It is
  `per_task_optimizer` of `optax.adam`, and returns the step itself: nothing
  goes after it. There are no task weights. A constant factor on a task's loss
  changes nothing, as long as its gradients are far above eps (invariance
  ``'full'``; to the bit if the factor is a power of two and eps is 0). The
  state is 2 T copies of the shared parameters.

  ========================  ==================================================
  input                     update
  ========================  ==================================================
  one task                  Adam's
  zero rows                 nothing from that task once its moments are gone
  absent tasks              they add nothing, and their moments stand still
  NaN or infinity           reaches the sum; that task's moments stand still
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    learning_rate: :math:`\eta`, a number or a schedule.
    b1: decay of the first moments.
    b2: decay of the second moments.
    eps: :math:`\epsilon`.
    labels: which task owns which parameter, see `mtljax.label_params`; None:
      all parameters are shared. What a task owns gets an Adam of its own.

  Returns:
    The `mtljax.Aggregator`: ``update`` takes per-task gradients and
    ``task_mask=``.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.adatask(num_tasks=2, learning_rate=0.1)
    >>> w = jnp.zeros(2)
    >>> grads = jnp.array([[1.0, 5.0], [1000.0, -0.1]])
    >>> updates, state = tx.update(grads, tx.init(w), w)
    >>> print(updates.round(3))
    [-0.2  0. ]

  References:
    Yang et al., `AdaTask: A Task-aware Adaptive Learning Rate Approach to
    Multi-task Learning <https://arxiv.org/abs/2211.15055>`_, 2023
  """
  _validate.refuse_narrow(learning_rate=learning_rate, b1=b1, b2=b2, eps=eps)
  _signsgd.check_rate(learning_rate)
  _validate.in_range('b1', b1, 0, 1, open_high=True)
  _validate.in_range('b2', b2, 0, 1, open_high=True)
  _validate.in_range('eps', eps, 0)
  info = MethodInfo(
    name='adatask',
    paper='Yang et al., 2023, https://arxiv.org/abs/2211.15055',
    invariance='full',
    is_optimizer=True,
  )
  tx = optax.adam(learning_rate, b1=b1, b2=b2, eps=eps)
  return _per_task_optimizer(tx, num_tasks, labels, info)

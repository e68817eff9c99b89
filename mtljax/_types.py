"""The types every layer shares: statistics, weightings, method facts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax

from mtljax import _labels

Invariance = Literal['none', 'direction', 'full']
Need = Literal[
  'losses',
  'gramian',
  'cross_gramian',
  'hypergradient',
  'feature_norms',
  'alignment',
  'gradients',
  'task_grads',
]
#: What is read at the features, which the staged form of a loss names.
AT_FEATURES: frozenset[Need] = frozenset({'feature_norms', 'alignment'})
Hypergradient = Literal['exact', 'finite_difference']
HYPERGRADIENTS: tuple[Hypergradient, ...] = ('exact', 'finite_difference')

WeightingState = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskStats:
  """What a weighting may know about the tasks of one step.

  Attributes:
    losses: the task losses, shape ``(T,)``.
    gramian: inner products of the shared gradients, shape ``(T, T)``, float32
      or wider.
    cross_gramian: inner products between the gradients of two independent
      batches, shape ``(T, T)``; row from the first batch.
    hypergradient: derivatives of validation losses after a step ahead by the
      tasks' weights in it: of their sum ``(T,)`` or of each of P losses
      ``(P, T)``, as the method asks for them.
    feature_norms: squared norms of the tasks' gradients at the features of n
      chunks of the batch, shape ``(T, n)``.
    mask: true for the tasks present in this step, shape ``(T,)``; None means
      that all are.
  """

  losses: jax.Array | None = None
  gramian: jax.Array | None = None
  cross_gramian: jax.Array | None = None
  hypergradient: jax.Array | None = None
  feature_norms: jax.Array | None = None
  mask: jax.Array | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MaskedBatch:
  """A batch that not all tasks are present in.

  What `mtljax.training.make_train_step` and the iterators of `mtljax.data` say
  it by, where tasks come from data sets of their own. What stands in the batch
  for an absent task keeps its shape, so that one compiled step serves all
  masks, and is of no effect.

  Attributes:
    batch: what the losses are called with.
    task_mask: true for the tasks present, shape ``(T,)``.

  Raises:
    ValueError: no task is present. Only a mask that is a numpy array or a list
      is looked at: arrays of JAX may not be there yet.

  Examples:
    >>> import numpy as np, mtljax as mtl
    >>> mtl.MaskedBatch(np.zeros((4, 2)), [True, False]).task_mask
    array([ True, False])
    >>> mtl.MaskedBatch(np.zeros((4, 2)), [False, False])
    Traceback (most recent call last):
    ...
    ValueError: task_mask=[False, False]: no task is present; leave it out.
  """

  batch: Any
  task_mask: Any

  def __post_init__(self):
    mask = self.task_mask
    if isinstance(mask, list | tuple):
      mask = np.asarray(mask)
      object.__setattr__(self, 'task_mask', mask)
    if isinstance(mask, np.ndarray) and not np.atleast_1d(mask).any(-1).all():
      raise ValueError(
        f'task_mask={mask.tolist()}: no task is present; leave it out.'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodInfo:
  """Facts about a method that other layers act on.

  Attributes:
    name: the factory's name.
    paper: authors, year and link.
    invariance: what a change of the tasks' loss scales does to the update:
      nothing (``'full'``), only to its length (``'direction'``), or more
      (``'none'``).
    weight_heads: whether the paper weights the task-specific parameters too.
    signed: whether a weight can be negative; heads are then never weighted.
    random: whether the state holds a key.
    is_optimizer: whether the update is the step itself, with the sign and the
      learning rate, so that no optimizer comes after it.
  """

  name: str
  paper: str
  invariance: Invariance = 'none'
  weight_heads: bool = False
  signed: bool = False
  random: bool = False
  is_optimizer: bool = False


class Weighting(NamedTuple):
  """A rule from task statistics to task weights.

  Attributes:
    init: ``init(num_tasks, key=None) -> state``, a tree of arrays.
    update: ``update(stats, state) -> (weights, state)``; ``weights`` has shape
      ``(T,)``. The state keeps its structure, shapes and dtypes.
    needs: the fields of `TaskStats` that ``update`` reads.
    observe: ``observe(losses_after, state) -> state``, called after the
      optimizer step with the losses of the same batch (NaN for a task that is
      absent by then); None if unused.
    info: facts about the method.
    reuse: for a wrapper that holds weights over steps, what it holds and when
      they are due; None for the others.
    lookahead: what a rule that reads the hypergradient asks for; None for the
      others.
    chunks: into how many the batch is cut for a rule that reads the norms at
      the features; None for the others.
    alignment: what the heads' gradients get beside their own; None for the
      rules that leave them to themselves.
    mixtures: for a rule that sees some tasks only in averages with others,
      ``mixtures(state, mask) -> (K, T)``: shares of the tasks present in each
      average that it sees, no task in two of them. From the Gramian of a
      problem in which every task has the gradient of its average it makes what
      it makes of the tasks' own. None for the others.
  """

  init: Callable[..., WeightingState]
  update: Callable[[TaskStats, WeightingState], tuple[jax.Array, Any]]
  needs: frozenset[Need]
  observe: Callable[[jax.Array, WeightingState], WeightingState] | None = None
  info: MethodInfo = MethodInfo(name='custom', paper='')
  reuse: Reuse | None = None
  lookahead: Lookahead | None = None
  chunks: int | None = None
  alignment: Alignment | None = None
  mixtures: Callable[[WeightingState, jax.Array], jax.Array] | None = None


class Alignment(NamedTuple):
  """How a head is moved so that its gradient at the features agrees.

  Attributes:
    strength: of the inner product with the weighted sum of all tasks', which
      its own parameters then descend the negative of.
    max_ratio: bound on that part's norm, over that of the gradient of the
      task's loss; None: not bounded.
  """

  strength: Any
  max_ratio: Any = None


class Lookahead(NamedTuple):
  """Which hypergradient a rule reads.

  Attributes:
    weights: ``weights(state) -> (T,)``: those of the losses in the step ahead.
    inner_learning_rate: of that step.
    primary: the tasks whose validation losses count; None: all.
    separate: whether each of them by itself, ``(P, T)``, or their sum.
    hypergradient: how it is taken.
  """

  weights: Callable[[WeightingState], jax.Array]
  inner_learning_rate: Any
  primary: tuple[int, ...] | None = None
  separate: bool = False
  hypergradient: Hypergradient = 'exact'


class Reuse(NamedTuple):
  """When the weights of a wrapper are computed anew.

  Attributes:
    weighting: the rule inside.
    due: ``due(step)``: whether it is run at a step, counted from 0.
  """

  weighting: Weighting
  due: Callable[[jax.Array], jax.Array]


class OneTask(NamedTuple):
  """How a method that reads one task's gradient a step is called with it.

  Attributes:
    due: ``due(state)``: that task, an index.
    update: ``update`` for the gradients of that task's loss on the shared
      parameters, and of every task's on its own, in the parameters' shapes.
  """

  due: Callable[[Any], jax.Array]
  update: Callable[..., Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conventions:
  """How weights become an update: what papers leave to their code.

  Attributes:
    weight_heads: whether the task-specific parameters' gradients are weighted;
      an array where `mtljax.select` chooses among methods that differ in it.
    scale: factor on the shared update; ``num_tasks`` turns a method defined on
      the mean into one on the sum of losses.
    max_norm: bound on the norm of the shared update, after ``scale``; None:
      not clipped.
    nonfinite: what a task with a non-finite loss or gradient does:
      ``'propagate'`` makes all weights NaN, ``'drop_task'`` masks the task.
  """

  weight_heads: bool | jax.Array = False
  scale: Any = 1.0
  max_norm: Any = None
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate'


def _whole(
  update: Callable[..., Any], labels: Any, name: str
) -> Callable[..., Any]:
  """The update, refusing gradients that `optax.masked` has taken parts of."""
  said, inner = getattr(update, 'refuses', (None, update))
  if said is labels and inner is not update:
    return update

  @functools.wraps(inner)
  def whole_update(updates, state, params=None, **extra_args):
    _labels.refuse_masked(updates, labels, name)
    return inner(updates, state, params, **extra_args)

  whole_update.refuses = labels, inner  # pyrefly: ignore
  return whole_update


class Aggregator(optax.GradientTransformationExtraArgs):
  """An optax transformation from per-task gradients to one update.

  A marker, with facts that a train step needs; `mtljax.aggregate` and the
  method factories return it. Its ``update`` takes gradients with the task on
  axis 0 of every shared leaf and returns a tree of the parameters' shapes.

  Attributes:
    num_tasks: how many tasks it was built for.
    labels: the labels it was built with, or None.
    weighting: the rule inside, or None if it needs more than weights.
    gramian_labels: leaves the Gramian is taken over, or None for all shared.
    conventions: how weights become an update, or None without a weighting.
    key: seed or typed key of a random method; None without a weighting.
    needs: what ``update`` reads besides the structure of the gradients.
    info: facts about the method.
    inner: the aggregator that a wrapper wraps, or None.
    perturb: ``perturb(params, summed_grads) -> params``, where a wrapper takes
      all its gradients at one perturbed point, or None.
    update_from_sum: ``update`` for the gradient of the summed loss in place of
      per-task gradients, where that is all it reads of them, or None.
    one_task: for a method that reads one task's gradient a step, else None.
  """

  num_tasks: int
  labels: Any
  weighting: Weighting | None
  gramian_labels: Any
  conventions: Conventions | None
  key: jax.Array | int | None
  needs: frozenset[Need]
  info: MethodInfo
  inner: Aggregator | None
  perturb: Callable[[Any, Any], Any] | None
  update_from_sum: Callable[..., Any] | None
  one_task: OneTask | None

  def __new__(
    cls,
    init: Callable[..., Any],
    update: Callable[..., Any],
    *,
    num_tasks: int,
    needs: frozenset[Need],
    info: MethodInfo,
    labels: Any = None,
    weighting: Weighting | None = None,
    gramian_labels: Any = None,
    conventions: Conventions | None = None,
    key: jax.Array | int | None = None,
    inner: Aggregator | None = None,
    perturb: Callable[[Any, Any], Any] | None = None,
    update_from_sum: Callable[..., Any] | None = None,
    one_task: OneTask | None = None,
  ) -> Aggregator:
    """Builds the transformation and attaches the facts."""
    self = super().__new__(cls, init, _whole(update, labels, info.name))
    self.num_tasks = num_tasks
    self.needs = needs
    self.info = info
    self.labels = labels
    self.weighting = weighting
    self.gramian_labels = gramian_labels
    self.conventions = conventions
    self.key = key
    self.inner = inner
    self.perturb = perturb
    self.update_from_sum = update_from_sum
    self.one_task = one_task
    return self

  def _replace(self, **changes: Any) -> Aggregator:  # pyrefly: ignore
    """With other fields or facts; those not named stay.

    Under another ``update`` nothing else may stand for the update: a rule, or a
    wrapper's way around one, goes unless it is named too, and the train step
    calls the update with per-task gradients.
    """
    facts = {**self._asdict(), **vars(self)}
    if changes.get('update', self.update) is not self.update:
      gone = ('inner', 'perturb', 'update_from_sum', 'one_task')
      if 'weighting' not in changes:
        gone += ('weighting', 'conventions', 'key')
        facts['needs'] = self.needs | {'gradients'}
      facts |= dict.fromkeys(gone)
    return type(self)(**{**facts, **changes})

  def __getnewargs_ex__(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What `copy` needs to build another one."""
    return tuple(self), vars(self)

  @property
  def invariance(self) -> Invariance:
    """The method's invariance to the scale of a task's loss."""
    return self.info.invariance

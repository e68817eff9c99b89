"""Methods that need the tasks' gradients themselves, not only their Gramian."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _labels, _params, _tree, _validate
from mtljax._types import Aggregator, MethodInfo, OneTask
from mtljax.aggregators import _aggregate, _checks


class TaskRows(NamedTuple):
  """What a rule sees: absent tasks' rows and losses are zeros."""

  leaves: list[jax.Array]  # the shared leaves, (T, ...)
  losses: jax.Array | None  # (T,)
  mask: jax.Array | None  # (T,); None: all tasks are present

  @property
  def present(self) -> jax.Array:
    """The mask as an array, shape ``(T,)``."""
    if self.mask is not None:
      return self.mask
    return jnp.ones((self.leaves[0].shape[0],), bool)


class Outcome(NamedTuple):
  """What a rule makes of them."""

  update: list[jax.Array]  # one leaf a shared parameter, before the scale
  state: Any
  weights: jax.Array | None = None  # (T,), where the method has weights
  own: jax.Array | None = None  # (T,), for the heads if they are weighted


class GradientRule(NamedTuple):
  """A rule from the tasks' shared gradients to one update.

  Attributes:
    init: ``init(num_tasks, shared, key) -> state``; ``shared`` are the shared
      parameters. Raises ValueError for a ``num_tasks`` that does not fit.
    update: ``update(rows, state) -> Outcome``. The state keeps its structure,
      shapes and dtypes.
    info: facts about the method.
    keeps_rows: whether its state has the size of T copies of the shared
      parameters, so that ``init`` needs them.
    has_weights: whether the outcome has weights.
    reads_losses: whether it reads the losses.
    min_tasks: the fewest tasks that it is defined for.
    due: ``due(state, mask)``, where it reads the gradient of one task alone:
      which; the rows are then that one, ``(1, ...)``. None: it reads all.
  """

  init: Callable[[int, Any, jax.Array], Any]
  update: Callable[[TaskRows, Any], Outcome]
  info: MethodInfo
  keeps_rows: bool = False
  has_weights: bool = True
  reads_losses: bool = False
  min_tasks: int = 1
  due: Callable[[Any, jax.Array | None], jax.Array] | None = None


class GradientState(NamedTuple):
  """State of a method that needs the gradients themselves."""

  weights: jax.Array | None  # (T,); None if the method has none
  method_state: Any


def zero_rows(shared: Any, num_tasks: int) -> Any:
  """Zeros of the shape of the tasks' gradients, to accumulate in."""

  def zeros(p):
    zero = jnp.zeros_like(p, dtype=_tree.accumulator(p.dtype))
    return jnp.broadcast_to(zero, (num_tasks, *p.shape))

  return jax.tree.map(zeros, shared)


def keep_unless(
  ok: jax.Array, new: list[jax.Array], old: list[jax.Array]
) -> list[jax.Array]:
  """The new rows, or the old ones where a step was not finite."""
  return [jnp.where(ok, n, o) for n, o in zip(new, old, strict=True)]


def weighted_sum(
  weights: jax.Array, rows: list[jax.Array], like: list[jax.Array]
) -> list[jax.Array]:
  """``sum_t w_t rows_t`` in the dtypes of other leaves."""
  return [
    _tree.combine_leaf(weights, row).astype(leaf.dtype)
    for row, leaf in zip(rows, like, strict=True)
  ]


def gradient_method(
  rule: GradientRule,
  num_tasks: int,
  *,
  labels: _labels.Labels | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  """An optax transformation from such a rule, as `mtljax.aggregate` does."""
  num_tasks = _validate.num_tasks(num_tasks)
  info = rule.info
  if num_tasks < rule.min_tasks:
    raise ValueError(
      f'num_tasks={num_tasks}: {info.name} as built here needs at least '
      f'{rule.min_tasks} tasks.'
    )
  conventions = _aggregate.checked_conventions(
    info, weight_heads, scale, max_norm, nonfinite
  )
  if weight_heads and not rule.has_weights:
    raise ValueError(
      f'weight_heads=True: {info.name} gives no task weights; leave it at None.'
    )
  jax.eval_shape(lambda: rule.init(num_tasks, [], _aggregate.fresh_key(key)))

  def shared_of(tree: Any) -> list[Any]:
    flat = _labels.flatten_labels(labels, tree, num_tasks)
    pairs = zip(jax.tree.leaves(tree), flat, strict=True)
    return [x for x, label in pairs if label == _labels.SHARED]

  def real_shapes(tree: Any) -> Any:
    """The coordinates that a rule sees: two for a complex number."""
    return jax.tree.map(
      lambda p: jax.eval_shape(_tree.as_real, p) if _tree.is_complex(p) else p,
      tree,
    )

  def init_fn(params):
    _params.check_no_module(params)
    if rule.keeps_rows and params is None:
      raise ValueError(
        f'params=None: the state of {info.name} has a row a task for each '
        'shared parameter; call init(params).'
      )
    # Without leaves it is what `optax.tree.map_params` stands for parameters.
    shared = shared_of(params) if jax.tree.leaves(params) else params
    return GradientState(
      weights=jnp.zeros((num_tasks,), float) if rule.has_weights else None,
      method_state=rule.init(
        num_tasks, real_shapes(shared), _aggregate.fresh_key(key)
      ),
    )

  def update_fn(
    updates, state, params=None, *, losses=None, task_mask=None, **extra_args
  ):
    del extra_args
    leaves, treedef = jax.tree.flatten(updates)
    flat = _labels.flatten_labels(labels, updates, num_tasks)
    _checks.check_gradients(updates, flat, num_tasks, params)
    losses = _checks.checked_losses(
      info.name, rule.reads_losses, losses, num_tasks
    )
    mask = _checks.checked_mask(task_mask, num_tasks)
    if nonfinite == 'drop_task':
      finite = _aggregate.finite_tasks(leaves, flat, losses, num_tasks)
      mask = finite if mask is None else mask & finite
    shared = shared_of(updates)
    if rule.due is None:
      shared = [_tree.present(mask, x) for x in shared]
    else:
      task = rule.due(state.method_state, mask)
      shared = [
        jax.lax.dynamic_index_in_dim(x, task, keepdims=True) for x in shared
      ]
    return of_rows(shared, leaves, treedef, flat, losses, mask, state)

  def update_one(updates, state, params=None, *, losses=None, **extra_args):
    del params, extra_args
    leaves, treedef = jax.tree.flatten(updates)
    flat = _labels.flatten_labels(labels, updates, num_tasks)
    losses = losses if rule.reads_losses else None
    shared = [x[None] for x in shared_of(updates)]
    return of_rows(shared, leaves, treedef, flat, losses, None, state)

  def of_rows(shared, leaves, treedef, flat, losses, mask, state):
    if not shared:
      raise ValueError(f'{info.name} needs at least one shared parameter.')
    if losses is not None:
      losses = _tree.present(mask, losses)
    real = [_tree.as_real(x) for x in shared]
    out = rule.update(TaskRows(real, losses, mask), state.method_state)
    update = [_tree.like(u, x) for u, x in zip(out.update, shared, strict=True)]
    own = out.own if conventions.weight_heads else None
    if own is None:
      own = jnp.ones((num_tasks,), float)
    leaves = _aggregate.merge(
      conventions,
      flat,
      leaves,
      [_tree.scale_leaf(jnp.asarray(scale), u) for u in update],
      own if mask is None else jnp.where(mask, own, 0),
      mask,
    )
    weights = state.weights
    if weights is not None:
      weights = out.weights.astype(weights.dtype)
    return (
      jax.tree.unflatten(treedef, leaves),
      GradientState(weights, out.state),
    )

  one_task = None
  if rule.due is not None and nonfinite == 'propagate':
    due = rule.due
    one_task = OneTask(lambda state: due(state.method_state, None), update_one)
  needs = {'gradients', 'losses'} if rule.reads_losses else {'gradients'}
  return Aggregator(
    init_fn,
    update_fn,
    num_tasks=num_tasks,
    needs=frozenset(needs),
    info=info,
    labels=labels,
    conventions=conventions,
    key=key,
    one_task=one_task,
  )

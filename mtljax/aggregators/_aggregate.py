"""A weighting as an optax transformation on per-task gradients."""

from __future__ import annotations

import dataclasses
import operator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _labels, _params, _tree, _validate
from mtljax._types import (
  Aggregator,
  Conventions,
  MethodInfo,
  TaskStats,
  Weighting,
)
from mtljax.aggregators import _alignment, _checks, _counting


class AggregateState(NamedTuple):
  """State of `aggregate`: arrays only, T-sized."""

  weights: jax.Array  # (T,)
  gramian: jax.Array | None  # (T, T); None if the weighting does not read it
  count: jax.Array | None  # () int32; None if the weighting observes nothing
  weighting_state: Any


def decide(
  weighting: Weighting, stats: TaskStats, state: AggregateState
) -> AggregateState:
  """Runs the weighting; absent tasks get 0, non-finite statistics give NaN.

  What is not finite never enters the weighting's state, be it of statistics
  that are not or of those that are, where the method is not defined.
  """
  stats = _counting.masked_stats(stats)
  weights, inner = weighting.update(stats, state.weighting_state)
  read = [getattr(stats, need) for need in sorted(weighting.needs)]
  finite = jnp.array(True)
  for value in read:
    finite = finite & jnp.all(jnp.isfinite(value))
  weights = jnp.where(finite, weights, jnp.nan)
  if stats.mask is not None:
    weights = jnp.where(stats.mask, weights, 0)
  gramian = state.gramian
  if gramian is not None:
    gramian = stats.gramian.astype(gramian.dtype)
  return state._replace(
    weights=weights.astype(state.weights.dtype),
    gramian=gramian,
    weighting_state=_counting.stay_unless(finite, inner, state.weighting_state),
  )


def observe(
  weighting: Weighting, losses_after: jax.Array, state: AggregateState
) -> AggregateState:
  """Shows the weighting the losses after its update, if it asks for them.

  After weights that were not finite there was no update to learn from.
  """
  if weighting.observe is None:
    return state
  before = state.weighting_state
  moved = jnp.all(jnp.isfinite(state.weights))
  after = weighting.observe(losses_after, before)
  return state._replace(
    weighting_state=_counting.stay_unless(moved, after, before)
  )


def observe_inside(
  weighting: Weighting, losses_after: jax.Array, state: Any
) -> Any:
  """`observe`, wherever in the state of a wrapper the weighting's is."""

  def is_ours(x):
    return isinstance(x, AggregateState)

  def one(x):
    return observe(weighting, losses_after, x) if is_ours(x) else x

  return jax.tree.map(one, state, is_leaf=is_ours)


def hold(
  new: AggregateState, old: AggregateState, mask: jax.Array | None = None
) -> AggregateState:
  """The new state with weights that can be held: the old ones if it has none.

  Before weights were ever computed there are none to fall back on. An absent
  task's stay what they were.
  """
  good = jnp.all(jnp.isfinite(new.weights)) | ~jnp.any(old.weights)
  good = good if mask is None else good & mask
  return new._replace(weights=jnp.where(good, new.weights, old.weights))


def head_weights(
  conventions: Conventions, weights: jax.Array, mask: jax.Array | None
) -> jax.Array:
  """The factor of each task's own parameters, shape ``(T,)``."""
  heads = conventions.weight_heads
  ones = jnp.ones_like(weights)
  ones = ones if mask is None else jnp.where(mask, ones, 0)
  if isinstance(heads, jax.Array):
    return jnp.where(heads, weights, ones)
  return weights if heads else ones


def clip(conventions: Conventions, leaves: list[jax.Array]) -> list[jax.Array]:
  """Bounds the norm of the shared update."""
  if conventions.max_norm is None or not leaves:
    return leaves
  norm = _tree.norm(leaves)
  over = norm > conventions.max_norm
  factor = jnp.where(over, conventions.max_norm / jnp.where(over, norm, 1), 1)
  return [_tree.scale_leaf(factor.astype(norm.dtype), leaf) for leaf in leaves]


def _weigh_own(
  leaf: jax.Array,
  label: _labels.Label,
  weights: jax.Array,
  mask: jax.Array | None,
) -> jax.Array:
  """Weights the gradient of a leaf that a task owns, or of a stacked one."""
  if label != _labels.STACKED:
    weights = weights[label]
    mask = None if mask is None else mask[label]
  return _tree.scale_leaf(weights, _tree.present(mask, leaf))


def merge(
  conventions: Conventions,
  labels: list[_labels.Label],
  leaves: list[jax.Array],
  shared: list[jax.Array],
  own: jax.Array,
  mask: jax.Array | None,
) -> list[jax.Array]:
  """The shared update, clipped, and the heads' gradients times their factor."""
  clipped = iter(clip(conventions, shared))
  return [
    next(clipped)
    if label == _labels.SHARED
    else _weigh_own(leaf, label, own, mask)
    for leaf, label in zip(leaves, labels, strict=True)
  ]


def combine(
  conventions: Conventions,
  labels: list[_labels.Label],
  leaves: list[jax.Array],
  weights: jax.Array,
  mask: jax.Array | None,
) -> list[jax.Array]:
  """The update ``J^T w`` on shared leaves, and the heads' own gradients."""
  scaled = weights * conventions.scale
  shared = [
    _tree.combine_leaf(scaled, _tree.present(mask, leaf))
    for leaf, label in zip(leaves, labels, strict=True)
    if label == _labels.SHARED
  ]
  own = head_weights(conventions, weights, mask)
  return merge(conventions, labels, leaves, shared, own, mask)


def finite_tasks(
  leaves: list[jax.Array],
  labels: list[_labels.Label],
  losses: jax.Array | None,
  num_tasks: int,
) -> jax.Array:
  """Which tasks have finite losses and gradients, shape ``(T,)``."""
  finite = jnp.ones((num_tasks,), bool)
  for leaf, label in zip(leaves, labels, strict=True):
    if label in (_labels.SHARED, _labels.STACKED):
      axes = tuple(range(1, leaf.ndim))
      finite = finite & jnp.all(jnp.isfinite(leaf), axis=axes)
    else:
      finite = finite.at[label].set(finite[label] & jnp.all(jnp.isfinite(leaf)))
  return finite if losses is None else finite & jnp.isfinite(losses)


def apply(
  weighting: Weighting,
  conventions: Conventions,
  labels: list[_labels.Label],
  in_gramian: list[bool],
  leaves: list[jax.Array],
  losses: jax.Array | None,
  cross_gramian: jax.Array | None,
  mask: jax.Array | None,
  state: AggregateState,
  hypergradient: jax.Array | None = None,
  feature_norms: jax.Array | None = None,
) -> tuple[list[jax.Array], AggregateState]:
  """Gradients to statistics to weights to one update, on checked leaves."""
  if conventions.nonfinite == 'drop_task':
    finite = finite_tasks(leaves, labels, losses, state.weights.shape[0])
    if cross_gramian is not None:
      # A bad gradient of either batch is seen on the diagonal.
      finite = finite & jnp.isfinite(jnp.diagonal(cross_gramian))
    if hypergradient is not None:
      rows = hypergradient.reshape(-1, len(finite))
      finite = finite & jnp.all(jnp.isfinite(rows), axis=0)
    if feature_norms is not None:
      finite = finite & jnp.all(jnp.isfinite(feature_norms), axis=1)
    mask = finite if mask is None else mask & finite
  gramian = None
  if 'gramian' in weighting.needs:
    gramian = _tree.gramian_of(
      [x for x, used in zip(leaves, in_gramian, strict=True) if used]
    )
  stats = TaskStats(
    losses=losses,
    gramian=gramian,
    cross_gramian=cross_gramian,
    hypergradient=hypergradient,
    feature_norms=feature_norms,
    mask=mask,
  )
  state = decide(weighting, stats, state)
  return combine(conventions, labels, leaves, state.weights, mask), state


def checked_conventions(
  info: MethodInfo,
  weight_heads: bool | None,
  scale: ArrayLike,
  max_norm: ArrayLike | None,
  nonfinite: Literal['propagate', 'drop_task'],
) -> Conventions:
  """The conventions asked for, or the method's own; ValueError if not valid."""
  _validate.one_of('nonfinite', nonfinite, ('propagate', 'drop_task'))
  _validate.in_range('max_norm', max_norm, 0, open_low=True, optional=True)
  _validate.in_range('scale', scale, 0, open_low=True)
  _validate.flag('weight_heads', weight_heads, optional=True)
  if weight_heads and info.signed:
    raise ValueError(
      f'weight_heads=True: {info.name} can give a task a negative weight, '
      'which would make its head ascend; leave weight_heads at None or False.'
    )
  return Conventions(
    weight_heads=info.weight_heads if weight_heads is None else weight_heads,
    scale=scale,
    max_norm=max_norm,
    nonfinite=nonfinite,
  )


def fresh_key(key: jax.Array | int) -> jax.Array:
  """A typed key in a buffer of its own, so that donating it is harmless."""
  if isinstance(key, jax.Array) and jnp.issubdtype(
    key.dtype, jax.dtypes.prng_key
  ):
    return jax.random.clone(key)
  try:
    return jax.random.key(operator.index(key))
  except TypeError as e:
    raise TypeError(
      f'key={key!r} must be an int or a typed key, from jax.random.key.'
    ) from e


def aggregate(
  weighting: Weighting,
  num_tasks: int,
  *,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Turns a rule for task weights into an optax transformation.

  The update of the shared parameters is :math:`c \sum_t w_t g_t`, clipped to
  ``max_norm``; a parameter that task :math:`t` owns gets :math:`w_t g_t` or,
  if heads are not weighted, :math:`g_t`. It keeps the gradients' sign: the
  optimizer after it brings the minus.

  ``update(grads, state, params=None, *, losses=None, cross_gramian=None,
  hypergradient=None, feature_norms=None, alignment_fn=None, task_mask=None)``
  takes the gradients that `mtljax.value_and_task_grads` returns: shared leaves
  ``(T, *p.shape)``, leaves of a task ``p.shape``. ``losses`` ``(T,)``,
  ``cross_gramian`` ``(T, T)``, of two further batches (see
  `mtljax.cross_gramian`), ``hypergradient`` (see `mtljax.hypergradient`),
  ``feature_norms`` ``(T, n)`` (see `mtljax.value_and_feature_norms`) and
  ``alignment_fn`` (see `mtljax.alignment_fn`) are required where the method
  reads them. ``task_mask`` ``(T,)`` is true for the tasks present; the others
  get weight 0 and the rest the answer of the smaller problem, whatever the
  absent ones' losses and gradients hold (but a NaN of theirs reaches the
  gradients of all in the plain form of `mtljax.value_and_task_grads`). Unknown
  keywords are ignored, as optax asks. Sums are in float32 or wider; each leaf
  of the update has the dtype of its gradient.

  Args:
    weighting: the rule, for example `mtljax.weightings.cagrad`.
    num_tasks: T, a Python int.
    labels: which task owns which parameter, see `mtljax.label_params`; None:
      all parameters are shared.
    gramian_labels: tree of bools, see `mtljax.match_params`: the shared leaves
      over which the Gramian is taken; None: all of them.
    weight_heads: whether task-specific parameters are weighted too; None: as
      the method's paper does.
    scale: :math:`c`; ``num_tasks`` makes a method defined on the mean of the
      gradients comparable with the sum of the losses.
    max_norm: bound on the norm of the shared update; None: no bound.
    key: seed or typed key of a random method.
    nonfinite: ``'propagate'``: a non-finite number among the statistics that
      the method reads makes all weights NaN; ``'drop_task'``: a task with a
      non-finite loss or gradient is treated as masked. A plain loss
      function has one backward pass for all tasks, in which the NaN of one
      reaches all; the staged form and a sequence keep them apart.

  Returns:
    The `mtljax.Aggregator`. Its state holds the last ``weights`` (see
    `mtljax.get_weights`), T-sized statistics and the weighting's own state.

  Raises:
    ValueError: an option is not valid, the weighting reads something other
      than losses, Gramian and cross-Gramian, or, when traced, a gradient's
      shape does not fit its label.
    TypeError: the key is neither an int nor a typed key; or, when traced,
      losses or a cross-Gramian are needed and missing.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl, optax
    >>> tx = optax.chain(
    ...   mtl.aggregate(mtl.weightings.mean(), num_tasks=2), optax.sgd(1.0)
    ... )
    >>> params = {'w': jnp.zeros(2)}
    >>> state = tx.init(params)
    >>> grads = {'w': jnp.array([[2.0, 0.0], [0.0, 4.0]])}
    >>> updates, state = tx.update(grads, state, params)
    >>> print(updates['w'])
    [-1. -2.]
    >>> print(mtl.get_weights(state))
    [0.5 0.5]

  Edge cases, for every method:

  ========================= =============================================
  input                     result
  ========================= =============================================
  all gradients zero        zero update, finite weights
  all tasks masked          zero update, zero weights
  NaN or inf in a gradient  ``nonfinite`` decides
  one task                  its gradient, up to the method's scale
  ========================= =============================================
  """
  return build(
    weighting,
    _validate.num_tasks(num_tasks),
    labels=labels,
    gramian_labels=gramian_labels,
    conventions=checked_conventions(
      weighting.info, weight_heads, scale, max_norm, nonfinite
    ),
    key=key,
  )


def build(
  weighting: Weighting,
  num_tasks: int,
  *,
  labels: _labels.Labels | None,
  gramian_labels: Any | None,
  conventions: Conventions,
  key: jax.Array | int,
) -> Aggregator:
  """`aggregate`, with conventions that are known to be good."""
  info = weighting.info
  known = {field.name for field in dataclasses.fields(TaskStats)} - {'mask'}
  if weighting.needs - known:
    raise ValueError(
      f'{info.name} needs {sorted(weighting.needs - known)}, which aggregate '
      f'does not compute: it takes weightings that read {sorted(known)}.'
    )
  reads_gramian = 'gramian' in weighting.needs
  reads_cross = 'cross_gramian' in weighting.needs
  reads_losses = 'losses' in weighting.needs or weighting.observe is not None
  jax.eval_shape(lambda: weighting.init(num_tasks, key=fresh_key(key)))

  def init_fn(params):
    _params.check_no_module(params)
    return AggregateState(
      weights=jnp.zeros((num_tasks,), float),
      gramian=jnp.zeros((num_tasks, num_tasks), float)
      if reads_gramian
      else None,
      count=None if weighting.observe is None else jnp.zeros((), jnp.int32),
      weighting_state=weighting.init(num_tasks, key=fresh_key(key)),
    )

  def update_fn(
    updates,
    state,
    params=None,
    *,
    losses=None,
    cross_gramian=None,
    hypergradient=None,
    feature_norms=None,
    alignment_fn=None,
    task_mask=None,
    losses_after_follow=False,
    **extra_args,
  ):
    del extra_args
    leaves, treedef = jax.tree.flatten(updates)
    flat = _labels.flatten_labels(labels, updates, num_tasks)
    _checks.check_gradients(updates, flat, num_tasks, params)
    losses = _checks.checked_losses(info.name, reads_losses, losses, num_tasks)
    cross_gramian = _checks.checked_cross_gramian(
      info.name, reads_cross, cross_gramian, num_tasks
    )
    hypergradient = _checks.checked_hypergradient(
      info.name, weighting.lookahead, hypergradient, num_tasks
    )
    feature_norms = _checks.checked_feature_norms(
      info.name, weighting.chunks, feature_norms, num_tasks
    )
    _checks.check_alignment_fn(info.name, weighting.alignment, alignment_fn)
    task_mask = _checks.checked_mask(task_mask, num_tasks)
    if state.count is not None and not losses_after_follow:
      # The optax face sees the losses after a step only at the next call.
      after = losses
      if task_mask is not None:
        after = jnp.where(task_mask, losses, jnp.nan)
      state = jax.lax.cond(
        state.count > 0,
        lambda s: observe(weighting, after, s),
        lambda s: s,
        state,
      )
      state = state._replace(count=state.count + 1)
    used = _labels.flatten_gramian_labels(gramian_labels, flat, updates)
    leaves, state = apply(
      weighting,
      conventions,
      flat,
      used,
      leaves,
      losses,
      cross_gramian,
      task_mask,
      state,
      hypergradient,
      feature_norms,
    )
    if weighting.alignment is not None:
      pulls = alignment_fn(state.weights)
      leaves = _alignment.moved(
        weighting.alignment, flat, leaves, jax.tree.leaves(pulls), num_tasks
      )
    return jax.tree.unflatten(treedef, leaves), state

  return Aggregator(
    init_fn,
    update_fn,
    num_tasks=num_tasks,
    needs=_alignment.needs_of(weighting),
    info=info,
    labels=labels,
    weighting=weighting,
    gramian_labels=gramian_labels,
    conventions=conventions,
    key=key,
  )


def rebuild(method: Aggregator, weighting: Weighting) -> Aggregator:
  """The same aggregator around another weighting, which says its own facts."""
  built = build(
    weighting,
    method.num_tasks,
    labels=method.labels,
    gramian_labels=method.gramian_labels,
    conventions=method.conventions,
    key=method.key,
  )
  return method._replace(
    init=built.init,
    update=built.update,
    weighting=weighting,
    needs=built.needs,
    info=built.info,
  )

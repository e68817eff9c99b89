"""Gradient accumulation in two orders, which are two methods.

A method is not linear in the gradients. Averaging the tasks' gradients over the
micro-batches before the method sees them is the method on the whole batch;
averaging the updates that it makes of each is another one, whose conflicts are
those of small batches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from mtljax import _labels, _tree, _validate
from mtljax._jaxprs import canonical_convolutions
from mtljax._types import AT_FEATURES, Aggregator
from mtljax.gradients import _owners, _pullback
from mtljax.gradients._passes import Passes
from mtljax.gradients._pullback import LossFn, Pullback
from mtljax.training.step._model_state import Summable, is_floating

Accumulate = Literal['gradients', 'updates']
ORDERS = ('gradients', 'updates')


def check(
  size: int | None, accumulate: str, route: str, method: Aggregator
) -> int | None:
  """Returns the size as an int.

  Raises:
    ValueError: the method or the route cannot accumulate so.
  """
  _validate.one_of('accumulate', accumulate, ORDERS)
  if size is None:
    return None
  size = _validate.integer('microbatch_size', size, 1)
  name = method.info.name
  if 'hypergradient' in method.needs:
    raise ValueError(
      f'microbatch_size={size}: {name} looks a step of the whole batch ahead; '
      'pass smaller batches.'
    )
  if 'cross_gramian' in method.needs:
    raise ValueError(
      f'microbatch_size={size}: {name} already cuts its batch in three; pass '
      'smaller batches.'
    )
  if accumulate == 'updates':
    return size
  if AT_FEATURES & method.needs:
    raise ValueError(
      f'microbatch_size={size}: {name} reads gradients at the features, which '
      "are those of each part alone; use accumulate='updates'."
    )
  if 'task_grads' in method.needs and method.perturb is None:
    raise ValueError(
      f'microbatch_size={size}: {name} takes gradients at points that depend '
      "on the first ones; use accumulate='updates'."
    )
  if route != 'jacobian':
    raise ValueError(
      f'microbatch_size={size} accumulates the gradients of all tasks; route='
      f"{route!r} keeps none. Use route='jacobian' or accumulate='updates'."
    )
  return size


def _parts(batch: Any, size: int) -> int:
  """How many micro-batches there are."""
  names = _labels.path_names(batch)
  for name, leaf in zip(names, jax.tree.leaves(batch), strict=True):
    shape = jnp.shape(leaf)
    if not shape or shape[0] % size or not shape[0]:
      raise ValueError(
        f'batch: its array {name!r} has shape {shape}; microbatch_size={size} '
        'must divide axis 0.'
      )
  sizes = {leaf.shape[0] for leaf in jax.tree.leaves(batch)}
  if len(sizes) > 1:
    raise ValueError(
      f'batch: its arrays have {sorted(sizes)} examples on axis 0; with '
      'microbatch_size all must have the same.'
    )
  return sizes.pop() // size


def _keep_first(kept: Any, x: Any, index: Any) -> Any:
  return jnp.where(index == 0, x, kept)


def _wide(x: Any) -> Any:
  """The dtype to add such leaves in."""
  dtype = jnp.result_type(x)
  return _tree.accumulator(dtype) if is_floating(x) else dtype


def _mean_of_floating(count: int) -> optax.microbatching.Accumulator:
  """Means of floating leaves; of the others, the first part's."""

  def update(total, x, i):
    return total + x if is_floating(x) else _keep_first(total, x, i)

  def finalize(total):
    return total / count if is_floating(total) else total

  return optax.microbatching.Accumulator(
    init=lambda tree: jax.tree.map(jnp.zeros_like, tree),
    update=lambda totals, tree, i: jax.tree.map(
      lambda total, x: update(total, x, i), totals, tree
    ),
    finalize=lambda totals: jax.tree.map(finalize, totals),
    aggregate=lambda tree: tree,
  )


def averaged(
  pull: Callable[[Any, tuple[Any, ...]], Pullback],
  loss_fn: LossFn,
  labels: Any,
  size: int,
  passes: Passes,
) -> Callable[[Any, tuple[Any, ...]], Pullback]:
  """``pull`` whose losses and gradients are means over micro-batches."""

  def mean_pull(params, args):
    batch, *rest = args
    count = _parts(batch, size)
    keys = jnp.zeros(count * size)
    if rest:
      # Part i holds the examples i, i + count, ... and so the i-th key.
      keys = jnp.tile(jax.random.split(rest[-1], count), size)

    summable = Summable()

    @canonical_convolutions
    def one(batch, keys):
      args = (batch, *rest[:-1], keys[0]) if rest else (batch,)
      pullback = pull(params, args)
      grads = jax.tree.leaves(pullback.task_grads(passes))
      found = pullback.losses, summable.encode(pullback.aux), grads
      dtypes[:] = [jnp.result_type(x) for x in jax.tree.leaves(found)]
      return jax.tree.map(lambda x: jnp.asarray(x, _wide(x)), found)

    dtypes: list[Any] = []
    found = optax.microbatching.microbatch(
      one,
      argnums=(0, 1),
      microbatch_size=size,
      accumulator=_mean_of_floating(count),
    )(batch, keys)
    leaves, treedef = jax.tree.flatten(found)
    leaves = [x.astype(dtype) for x, dtype in zip(leaves, dtypes, strict=True)]
    losses, aux, grads = jax.tree.unflatten(treedef, leaves)
    aux = summable.decode(aux)
    split = _pullback.make_split(loss_fn, params, labels)
    return _of_grads(split, losses, aux, grads)

  return mean_pull


def _of_grads(
  split: _pullback.Split, losses: jax.Array, aux: Any, grads: list[jax.Array]
) -> Pullback:
  """The pullback of a pass whose gradients are at hand."""
  shared, own = split.split(grads)

  def weigh(weights=None):
    return own if weights is None else _owners.weigh(weights, split.owners, own)

  return Pullback(
    losses=losses,
    aux=aux,
    split=split,
    rows=lambda passes, tasks=None: _pullback.take(shared, tasks),
    own=weigh,
    combined=lambda weights: [_tree.combine_leaf(weights, x) for x in shared],
  )


def mean_update(
  direct: Callable[[Any, Any, jax.Array], tuple[Any, ...]], size: int
) -> Callable[[Any, Any, jax.Array], tuple[Any, ...]]:
  """``direct(method_state, batch, key)``, averaged over micro-batches.

  The method's state goes from one to the next; the direction, the losses and
  what is floating of the auxiliary output are means.
  """
  summable = Summable()

  def plain_direct(method_state, batch, key):
    method_state, *found, aux = direct(method_state, batch, key)
    return method_state, *found, summable.encode(aux)

  def mean_direct(method_state, batch, key):
    count = _parts(batch, size)
    # Every part is spread over the batch, as it may be over devices.
    parts = jax.tree.map(
      lambda x: jnp.swapaxes(x.reshape(size, count, *x.shape[1:]), 0, 1), batch
    )
    keys = jax.random.split(key, count)
    first = jax.tree.map(lambda x: x[0], (parts, keys))
    shapes = jax.eval_shape(plain_direct, method_state, *first)[1:]
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, _wide(x)), shapes)

    def body(carry, part):
      method_state, totals = carry
      i, *part = part
      method_state, *found = canonical_convolutions(plain_direct)(
        method_state, *part
      )
      totals = jax.tree.map(
        lambda total, x: (
          total + x / count if is_floating(x) else _keep_first(total, x, i)
        ),
        totals,
        tuple(found),
      )
      return (method_state, totals), None

    carry, _ = jax.lax.scan(
      body, (method_state, zeros), (jnp.arange(count), parts, keys)
    )
    method_state, totals = carry
    *means, aux = jax.tree.map(lambda x, s: x.astype(s.dtype), totals, shapes)
    return method_state, *means, summable.decode(aux)

  return mean_direct

"""The method once more, on the two gradients loss and flat."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from mtljax import _labels
from mtljax._types import Aggregator, TaskStats, Weighting
from mtljax.aggregators import _aggregate
from mtljax.sharpness import _common

Leaves = list[jax.Array]


def _refuse_unless_general(aggregation: str, method: Aggregator) -> None:
  """Raises ValueError unless the rule is one for any number of gradients."""
  start = (
    f'aggregation={aggregation!r}: {method.info.name} cannot be called on '
  )
  start += 'the two gradients loss and flat, '
  end = "; use 'separate' or 'direct'."
  weighting = method.weighting
  if weighting is None:
    raise ValueError(
      start + 'it has no rule for weights that two could use' + end
    )
  if weighting.needs - {'gramian'} or weighting.observe is not None:
    raise ValueError(start + 'it reads losses and these two have none' + end)
  for size in (2, method.num_tasks + 1):
    try:
      jax.eval_shape(lambda size=size: _weights_for(weighting, size))
    except (TypeError, ValueError) as e:
      raise ValueError(
        start + f'its arguments fit {method.num_tasks} tasks only ({e})' + end
      ) from e


def _weights_for(weighting: Weighting, size: int) -> jax.Array:
  state = weighting.init(size, key=jax.random.key(0))
  weights, _ = weighting.update(TaskStats(gramian=jnp.eye(size)), state)
  return weights + jnp.zeros((size,))


def pair_method(aggregation: str, method: Aggregator) -> Aggregator:
  """The method for two gradients, with its ``max_norm`` and without ``scale``.

  Raises:
    ValueError: its rule needs losses or fits one number of tasks only.
  """
  _refuse_unless_general(aggregation, method)
  return _aggregate.aggregate(
    method.weighting,
    2,
    max_norm=method.conventions.max_norm,
    nonfinite=method.conventions.nonfinite,
  )


def init_pairs(pair: Aggregator, number: int, like: Any) -> tuple[Any, ...]:
  """States of the pair method, with keys that descend from those in like."""
  keys = _common.keys_of(like)
  return tuple(
    _common.rekeyed(pair.init(None), i + 2, keys[0] if keys else None)
    for i in range(number)
  )


def combine_pair(
  pair: Aggregator,
  loss: Leaves,
  flat: Leaves,
  in_gramian: list[bool],
  state: Any,
) -> tuple[Leaves, Any]:
  """The method's update for two gradients; the first where the other is 0."""
  leaves = [jnp.stack(x) for x in zip(loss, flat, strict=True)]
  update, new = _aggregate.apply(
    pair.weighting,
    pair.conventions,
    [_labels.SHARED] * len(leaves),
    in_gramian,
    leaves,
    losses=None,
    cross_gramian=None,
    mask=None,
    state=state,
  )
  found = _common.any_nonzero(flat)
  update = [jnp.where(found, a, b) for a, b in zip(update, loss, strict=True)]
  return update, _common.choose(found, new, state)


def combine_each(
  pair: Aggregator,
  loss: Leaves,
  flat: Leaves,
  in_gramian: list[bool],
  mask: jax.Array | None,
  states: tuple[Any, ...],
) -> tuple[Leaves, tuple[Any, ...]]:
  """`combine_pair` for every task's rows, all at once."""
  stacked = jax.tree.map(lambda *x: jnp.stack(x), *states)
  rows, new = jax.vmap(
    lambda a, b, state: combine_pair(pair, a, b, in_gramian, state)
  )(loss, flat, stacked)
  return rows, tuple(
    jax.tree.map(lambda x, t=t: x[t], new)
    if mask is None
    else _common.choose(mask[t], jax.tree.map(lambda x, t=t: x[t], new), old)
    for t, old in enumerate(states)
  )

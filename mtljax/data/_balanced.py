"""Batches that hold as many rows of every group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mtljax.data import pipeline


class BalancedIterator(Iterator[pipeline.Batch]):
  """What `make_balanced_iterator` returns: batches, with a state as JSON."""

  def __init__(
    self,
    arrays: pipeline.Arrays,
    places: Mapping[str, pipeline.BatchIterator],
  ):
    self._arrays = arrays
    self._places = places

  def __next__(self) -> pipeline.Batch:
    rows = [next(places)['row'] for places in self._places.values()]
    together = np.concatenate(rows)
    return {name: array[together] for name, array in self._arrays.items()}

  def get_state(self) -> dict[str, Any]:
    """Returns the position in every group, as a tree of JSON values."""
    return {name: x.get_state() for name, x in self._places.items()}

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Goes to a position.

    Args:
      state: what `get_state` returned.

    Raises:
      ValueError: if it is the state of an iterator over other data or in
        another order.
    """
    if state.keys() != self._places.keys():
      raise ValueError(
        f'the saved state has the groups {sorted(state)}, this iterator has '
        f'{sorted(self._places)}: build it with the same arguments to resume.'
      )
    for name, places in self._places.items():
      places.set_state(state[name])


def make_balanced_iterator(
  arrays: pipeline.Arrays,
  groups: np.ndarray,
  *,
  batch_size: int,
  seed: int,
) -> BalancedIterator:
  """Shuffled batches with as many rows of every group, without end.

  Each group has an order of its own, as that of `make_train_iterator`, and
  begins again when it ends, so small groups are seen more often. The rows of a
  batch are in the order of the groups' numbers.

  Args:
    arrays: arrays with the same leading axis, by name.
    groups: the group of each row, integers, shape ``(N,)``.
    batch_size: rows in a batch, a multiple of the number of groups.
    seed: of the orders.

  Returns:
    An iterator over dicts of arrays, each with leading axis ``batch_size``.

  Raises:
    ValueError: if the lengths differ, or the groups have no like shares of a
      batch.

  Example:
    >>> batches = make_balanced_iterator(
    ...   {'x': np.arange(7)},
    ...   np.array([5, 5, 5, 5, 5, 8, 8]),
    ...   batch_size=4,
    ...   seed=0,
    ... )
    >>> [int(x > 4) for x in next(batches)['x']]
    [0, 0, 1, 1]
  """
  groups = np.asarray(groups)
  for name, array in arrays.items():
    if groups.shape != (len(array),):
      raise ValueError(
        f'groups has shape {groups.shape}, and {name!r} {len(array)} rows: '
        'give a number a row.'
      )
  found, counts = np.unique(groups, return_counts=True)
  share, rest = divmod(batch_size, max(len(found), 1))
  if share < 1 or rest:
    raise ValueError(
      f'batch_size={batch_size} must be a multiple of the {len(found)} groups.'
    )
  if counts.min() < share:
    raise ValueError(
      f'batch_size={batch_size} takes {share} rows of each group, and group '
      f'{found[counts.argmin()]} has {counts.min()}: make it smaller.'
    )
  seeds = np.random.SeedSequence(seed).generate_state(len(found))
  places = {
    str(group): pipeline.make_train_iterator(
      {'row': np.flatnonzero(groups == group)},
      batch_size=share,
      seed=int(own),
    )
    for group, own in zip(found, seeds, strict=True)
  }
  return BalancedIterator(arrays, places)

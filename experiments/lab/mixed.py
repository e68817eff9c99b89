"""Data of several sources, which are on different examples."""

from __future__ import annotations

import dataclasses
import fractions
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

import mtljax as mtl
from experiments.lab.suite import SPLITS, Data, rows_apart, with_train
from mtljax import data as readers


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourcePart:
  """A source of a suite that has several.

  Attributes:
    splits: as of `Data`, of its own examples.
    tasks: the names of its tasks.
    share: its examples a step, as a multiple of ``--batch-size``.
    rate: the share of steps that it is in; 1 for one of the parts at least.
  """

  splits: Mapping[str, Mapping[str, np.ndarray]]
  tasks: tuple[str, ...]
  share: float = 1.0
  rate: float = 1.0


@dataclasses.dataclass(frozen=True)
class MixedData(Data):
  """Data whose tasks come from several sources, made by `mix`.

  An epoch is a pass over the first part that is in every step. Where only tasks
  of rarer parts are trained, it is as many of their batches as they have in
  it, so that a task sees the same number of examples alone and with others.

  Attributes:
    splits: the examples of all parts side by side, for measuring: what a
      shorter part has no more of is zeros, and labels that are missing.
    parts: by name.
  """

  parts: Mapping[str, SourcePart] = dataclasses.field(default_factory=dict)
  spread = False

  def batches(
    self,
    batch_size: int,
    seed: int,
    rows: Any = None,
    tasks: Sequence[str] | None = None,
    augment: bool = False,
  ) -> Any:
    """As of `Data`, each a `mtljax.MaskedBatch` of the tasks; it needs these.

    Raises:
      ValueError: there are no ``tasks``, or only some rows are asked for.
    """
    del augment  # none is known
    if tasks is None or rows is not None:
      raise ValueError(
        'the tasks of this suite are on batches of their own, some of them '
        'absent in a step: only comparisons without --layout train on it.'
      )
    chosen = self._chosen(tasks)
    most = max(part.rate for part in chosen.values())
    sources = {
      name: readers.Source(
        arrays=part.splits['train'],
        tasks=tuple(task for task in part.tasks if task in tasks),
        batch_size=_rows(part, batch_size),
        rate=part.rate / most,
      )
      for name, part in chosen.items()
    }
    return _Flat(readers.make_mixed_iterator(sources, tasks=tasks, seed=seed))

  def split_train(self, share: float, seed: int) -> tuple[MixedData, MixedData]:
    """As of `Data`; the share is that of the examples of every part."""
    apart = {}
    for name, part in self.parts.items():
      count = len(next(iter(part.splits['train'].values())))
      apart[name] = rows_apart(count, share, seed)

    def those(second: bool) -> MixedData:
      parts = {
        name: dataclasses.replace(
          part, splits=with_train(part.splits, apart[name] == second)
        )
        for name, part in self.parts.items()
      }
      return dataclasses.replace(self, splits=_splits_of(parts), parts=parts)

    return those(False), those(True)

  def steps_per_epoch(
    self, batch_size: int, tasks: Sequence[str] | None = None
  ) -> int:
    """Whole batches of the first part that is in every step, see above."""
    first = next(part for part in self.parts.values() if part.rate == 1)
    rows = len(next(iter(first.splits['train'].values())))
    steps = rows // _rows(first, batch_size)
    most = max(part.rate for part in self._chosen(tasks).values())
    return math.ceil(steps * fractions.Fraction(most))

  def counted(self, batch_size: int, tasks: Sequence[str]) -> int:
    """The examples that `mtljax.training.fit` counts in a step."""
    of_array = {
      name: part
      for part in self._chosen(tasks).values()
      for name in part.splits['train']
    }
    return _rows(of_array[min(of_array)], batch_size)  # of the first leaf

  def _chosen(self, tasks: Sequence[str] | None) -> dict[str, SourcePart]:
    return {
      name: part
      for name, part in self.parts.items()
      if tasks is None or set(part.tasks) & set(tasks)
    }


class _Flat(Iterator[mtl.MaskedBatch]):
  """Steps whose arrays are not by source: labels go by their task."""

  def __init__(self, batches: readers.BatchIterator):
    self._batches = batches
    self.get_state = batches.get_state
    self.set_state = batches.set_state

  def __next__(self) -> mtl.MaskedBatch:
    step: Any = next(self._batches)
    return mtl.MaskedBatch(_merged(step.batch), step.task_mask)


def mix(
  parts: Mapping[str, SourcePart],
  inputs: Callable[[Mapping[str, jax.Array]], Any],
  **facts: int,
) -> MixedData:
  """The data of several parts.

  Args:
    parts: by name; no two have an array of the same name. Labels that are
      missing are NaN, or -1 where they are integers.
    inputs: as of `Data`; in training only arrays of the parts that are trained
      on are there.
    **facts: others of `Data`.

  Raises:
    ValueError: two parts have an array of the same name, or none is in every
      step.
  """
  if all(part.rate != 1 for part in parts.values()):
    found = {name: part.rate for name, part in parts.items()}
    raise ValueError(
      f'rates {found}: some steps would have no task; give rate=1 to one part.'
    )
  return MixedData(_splits_of(parts), inputs, parts=dict(parts), **facts)


def _splits_of(
  parts: Mapping[str, SourcePart],
) -> dict[str, dict[str, np.ndarray]]:
  """The examples of all parts side by side; labels that end sooner, missing."""
  splits = {
    split: _side_by_side({x: part.splits[split] for x, part in parts.items()})
    for split in SPLITS
  }
  for part in parts.values():
    for split in SPLITS:
      count = len(next(iter(part.splits[split].values())))
      for task in part.tasks:
        labels = splits[split][task]
        whole = np.issubdtype(labels.dtype, np.integer)
        labels[count:] = -1 if whole else np.nan
  return splits


def _side_by_side(
  arrays: Mapping[str, Mapping[str, np.ndarray]],
) -> dict[str, np.ndarray]:
  merged = _merged(arrays)
  size = max(map(len, merged.values()))
  return {
    name: np.concatenate([x, np.zeros((size - len(x), *x.shape[1:]), x.dtype)])
    for name, x in merged.items()
  }


def _merged(by_part: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
  merged: dict[str, Any] = {}
  for part, arrays in by_part.items():
    for name, x in arrays.items():
      if name in merged:
        raise ValueError(f'{part}: {name!r} is an array of another part too.')
      merged[name] = x
  return merged


def _rows(part: SourcePart, batch_size: int) -> int:
  return max(1, round(batch_size * part.share))

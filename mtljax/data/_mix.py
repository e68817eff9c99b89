"""Batches of several data sets together, some of them absent in a step."""

from __future__ import annotations

import dataclasses
import fractions
import math
import sys
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np

from mtljax import _validate
from mtljax._types import MaskedBatch
from mtljax.data import pipeline


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
  """A data set that some of the tasks come from.

  Attributes:
    arrays: arrays with the same leading axis, by name.
    tasks: the names of its tasks.
    batch_size: its examples in a step.
    rate: the share of steps that it is in, above 0 and at most 1.
  """

  arrays: pipeline.Arrays
  tasks: tuple[str, ...]
  batch_size: int
  rate: float = 1.0


def make_mixed_iterator(
  sources: Mapping[str, Source], *, tasks: Sequence[str], seed: int
) -> pipeline.BatchIterator:
  """Steps with a batch of each data set, in its own size, or of some of them.

  Each data set has its own order, that of `make_train_iterator`: every example
  once in an epoch of its own, without end. One with ``rate=r`` is in the steps
  i at which ``ceil((i + 1) r) > ceil(i r)``: the first, and then evenly; its
  next batch waits for the next such step. In the others zeros stand in its
  place, so that all steps have the same shapes, and the mask says that its
  tasks are absent.

  Args:
    sources: by name.
    tasks: the names of all tasks, in the order of the losses.
    seed: of the orders.

  Returns:
    An iterator over `mtljax.MaskedBatch`, whose batch is a dict by source of
    dicts of arrays. Its state is one position, and resumes exactly.

  Raises:
    ValueError: the tasks are not one source's each, no source has ``rate=1``
      (so that steps could have no task), a rate is out of range, or a source
      has not one batch.

  Example:
    >>> sources = {
    ...   'a': Source(arrays={'x': np.arange(8)}, tasks=('s', 't'),
    ...               batch_size=2),
    ...   'b': Source(arrays={'y': np.arange(9)}, tasks=('u',), batch_size=3,
    ...               rate=0.5),
    ... }
    >>> batches = make_mixed_iterator(sources, tasks=('s', 't', 'u'), seed=0)
    >>> for _ in range(3):
    ...   step = next(batches)
    ...   print(step.batch['a']['x'].shape, step.batch['b']['y'].shape,
    ...         step.task_mask)
    (2,) (3,) [ True  True  True]
    (2,) (3,) [ True  True False]
    (2,) (3,) [ True  True  True]
  """
  owners = _owners(sources, tasks)
  rates = {name: _rate(name, source) for name, source in sources.items()}
  if max(rates.values()) < 1:
    found = {name: float(rate) for name, rate in rates.items()}
    raise ValueError(
      f'rates {found}: some steps would have no task; give rate=1 to the '
      'source that is to be in every step.'
    )
  orders = {
    name: _batches_of(source, _seed(seed, name))
    for name, source in sources.items()
  }

  def step(i):
    here = {name: _count(rates[name], i) for name in sources}
    batch = {}
    for name, source in sources.items():
      rows = None
      if here[name] < _count(rates[name], i + 1):
        rows = orders[name][here[name]]
      batch[name] = {
        key: np.zeros((source.batch_size, *x.shape[1:]), x.dtype)
        if rows is None
        else x[rows]
        for key, x in source.arrays.items()
      }
    mask = [here[x] < _count(rates[x], i + 1) for x in owners]
    return MaskedBatch(batch, np.array(mask))

  # Indexing is cheaper than handing batches from thread to thread.
  options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
  steps = grain.MapDataset.range(sys.maxsize).map(step)
  identity = {
    'seed': seed,
    'tasks': list(tasks),
    'sources': {
      name: {
        'num_examples': pipeline.num_rows(source.arrays),
        'batch_size': source.batch_size,
        'rate': str(rates[name]),
      }
      for name, source in sources.items()
    },
  }
  return pipeline.BatchIterator(steps.to_iter_dataset(options), identity)


def _owners(
  sources: Mapping[str, Source], tasks: Sequence[str]
) -> tuple[str, ...]:
  """The source of each task."""
  owners: dict[str, str] = {}
  for name, source in sources.items():
    for task in source.tasks:
      if task in owners:
        raise ValueError(
          f'tasks: {task!r} is a task of the sources {owners[task]!r} and '
          f'{name!r}; give the losses names of their own.'
        )
      owners[task] = name
  if sorted(owners) != sorted(tasks):
    raise ValueError(
      f'tasks={tuple(tasks)} are not those of the sources, {tuple(owners)}; '
      'name each once.'
    )
  return tuple(owners[task] for task in tasks)


def _rate(name: str, source: Source) -> fractions.Fraction:
  _validate.in_range(f'{name}: rate', source.rate, 0, 1, open_low=True)
  return fractions.Fraction(source.rate).limit_denominator(10_000)


def _count(rate: fractions.Fraction, step: int) -> int:
  """The batches of a source before a step."""
  return math.ceil(rate * step)


def _seed(seed: int, name: str) -> int:
  """Of the order of a source, whatever others there are."""
  _validate.in_range('seed', seed, 0)
  parts = [seed, zlib.crc32(name.encode())]
  return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _batches_of(source: Source, seed: int) -> Any:
  size = pipeline.num_rows(source.arrays)
  return pipeline.index_batches(size, source.batch_size, seed)

"""A second batch a step, for methods that learn their weights on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from experiments.lab.suite import Data
from mtljax.training import TrainStep

#: Added to the seed of a run: its validation batches have an order of their
#: own, and sources that are not in every step are in others of them.
SEED = 1_000_000


class TwoBatches(NamedTuple):
  """What a step is given.

  Attributes:
    batch: what it trains on.
    val_batch: what the weights are learned on.
  """

  batch: Any
  val_batch: Any


class PairedBatches(Iterator[TwoBatches]):
  """Steps of two iterators, whose state is that of both."""

  def __init__(self, batches: Any, val_batches: Any):
    self._parts = {'train': batches, 'val': val_batches}

  def __next__(self) -> TwoBatches:
    return TwoBatches(*map(next, self._parts.values()))

  def get_state(self) -> dict[str, Any]:
    """The position in both, as a tree of JSON values."""
    return {name: part.get_state() for name, part in self._parts.items()}

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Goes to a position; ValueError if it is one in other data."""
    if state.keys() != self._parts.keys():
      raise ValueError(
        f'the saved state is of {sorted(state)}, this iterator gives '
        f'{sorted(self._parts)}: build it with the same arguments to resume.'
      )
    for name, part in self._parts.items():
      part.set_state(state[name])


class HeldOut(NamedTuple):
  """The training data in two parts.

  Attributes:
    train: with the part that is trained on.
    val: with the part that the weights are learned on.
  """

  train: Data
  val: Data

  @property
  def num_examples(self) -> int:
    """How many are held out; of several sources, of the largest."""
    return self.val.num_examples('train')

  def batches(
    self, batch_size: int, seed: int, **options: Any
  ) -> PairedBatches:
    """Those of a seed, without end; the options are those of `Data.batches`."""
    return PairedBatches(
      self.train.batches(batch_size, seed, **options),
      self.val.batches(batch_size, SEED + seed, **options),
    )


def hold_out(
  found: Data, share: float, seed: int, batch_size: int, tasks: Sequence[str]
) -> HeldOut:
  """Holds a part of the training data out.

  Args:
    found: the data.
    share: of the training examples, between 0 and 1.
    seed: of the draw.
    batch_size: examples a step, of either part.
    tasks: that are trained.

  Raises:
    ValueError: no batch can be made of a part, or the data cannot be split.
  """
  parts = HeldOut(*found.split_train(share, seed))
  for name, part in parts._asdict().items():
    try:
      part.batches(batch_size, seed, tasks=tasks)
    except ValueError as error:
      does = {'train': 'leaves too few', 'val': 'holds too few out'}[name]
      raise ValueError(
        f'--val-share={share} {does} of the {found.num_examples("train")} '
        f'training examples for --batch-size={batch_size} ({error}): change '
        'one of them.'
      ) from error
  return parts


def of_training(probe: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
  """A measurement on the batch of a `TwoBatches` that is trained on."""
  return lambda state, both: probe(state, both.batch)


def on_pairs(step: TrainStep) -> TrainStep:
  """A train step that takes a `TwoBatches` in place of a batch."""

  def take(state, both):
    return step.step(state, both.batch, val_batch=both.val_batch)

  return step._replace(step=jax.jit(take, donate_argnums=0))

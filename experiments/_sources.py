"""The data sets that a study can be run on, behind one face."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments import _census, _digits
from mtljax import data, models

NAMES = ('digits', 'census')
CENSUS_TASKS = ('income', 'never_married')


@dataclasses.dataclass(frozen=True)
class Source:
  """A data set in memory, and what a network on it is trained and scored by.

  Attributes:
    name: one of `NAMES`.
    tasks: its tasks.
    loaded: the three splits, and how a batch becomes inputs.
    num_classes: of each task's labels.
    num_outputs: of each task's head.
    score: the metric of a task that counts, higher is better; its values are
      called ``<score>/<task>``.
    example_losses: of a task's outputs ``(B, num_outputs)`` and its labels.
    class_logits: from a task's outputs to ``(B, num_classes)``.
    make_loss: the loss of a task.
    metrics_of: the mergeable metrics of a task.
    select: the score of a state, from its validation metrics.
  """

  name: str
  tasks: tuple[str, ...]
  loaded: _digits.Loaded
  num_classes: int
  num_outputs: int
  score: str
  example_losses: Callable[[jax.Array, jax.Array], jax.Array]
  class_logits: Callable[[jax.Array], jax.Array]
  make_loss: Callable[[str], Any]
  metrics_of: Callable[..., Any]
  select: Callable[[Mapping[str, float]], float]

  def make_problem(
    self,
    tasks: Sequence[str] | None = None,
    *,
    hidden_sizes: Sequence[int],
    head_sizes: Sequence[int] = (),
  ) -> _digits.Problem:
    """An MLP trunk with a head a task, for all tasks or some."""
    model = models.multi_mlp(
      tuple(self.tasks if tasks is None else tasks),
      num_classes=self.num_outputs,
      hidden_sizes=hidden_sizes,
      head_sizes=head_sizes,
    )
    return _digits.make_problem(
      model, self.loaded, self.make_loss, self.metrics_of
    )

  def batches(self, batch_size: int, seed: int) -> Any:
    """The training batches of a seed, without end."""
    return data.make_train_iterator(
      self.loaded.splits['train'], batch_size=batch_size, seed=seed
    )

  def steps_per_epoch(self, batch_size: int) -> int:
    """`steps_per_epoch` of its training data."""
    return steps_per_epoch(self.loaded.splits['train'], batch_size)


def steps_per_epoch(train: Mapping[str, np.ndarray], batch_size: int) -> int:
  """Whole batches in a pass over training data."""
  return len(next(iter(train.values()))) // batch_size


def load_digits(
  config: _digits.DataConfig, batch_size: int, say: Callable[[str], None]
) -> Source:
  """Two overlapping digits."""
  return of_digits(_digits.load(config, batch_size, say))


def of_digits(digits: _digits.Digits) -> Source:
  """Digits that are in memory."""
  return Source(
    'digits',
    _digits.TASKS,
    digits,
    _digits.NUM_CLASSES,
    _digits.NUM_CLASSES,
    'accuracy',
    _digits.example_losses,
    lambda outputs: outputs,
    _digits.task_loss,
    _digits.task_metrics,
    _digits.select,
  )


def load_census(
  config: _census.DataConfig,
  batch_size: int,
  say: Callable[[str], None],
  tasks: tuple[str, ...] = CENSUS_TASKS,
) -> Source:
  """Census-Income (KDD)."""
  return Source(
    'census',
    tasks,
    _census.load(config, tasks, batch_size, say),
    2,
    1,
    'auc',
    _census.example_losses,
    _census.class_logits,
    _census.task_loss,
    _census.task_metrics,
    _census.select,
  )

"""Census-Income (KDD): data, model and measurements of the studies."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtljax import data
from mtljax.metrics import AUC, Accuracy, Mean

SPLITS = ('train', 'validation', 'test')


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """The data set."""

  dir: pathlib.Path | None = None
  """Folder of tfds; its default is ~/tensorflow_datasets. The raw files are
  taken from downloads/manual there (python -m mtljax.data.fetch census puts
  them there), else from UCI."""
  num_train: int | None = None
  """Rows to train on, the first ones; by default all 199,523."""


@dataclasses.dataclass(frozen=True)
class Rows:
  """The three splits in memory, and how rows become numbers.

  Attributes:
    splits: the arrays of each split.
    places: of each column of the one-hot part, the categorical column and the
      value that it stands for, shape ``(2, D)``.
  """

  splits: dict[str, dict[str, np.ndarray]]
  places: np.ndarray

  def inputs(self, batch: Mapping[str, jax.Array]) -> jax.Array:
    """Numbers, then categories one-hot; a value not trained on is all 0."""
    column, value = self.places
    one_hot = batch['categorical'][:, column] == jnp.asarray(value)[None]
    return jnp.concatenate([batch['numeric'], one_hot], axis=-1)


def load(
  config: DataConfig,
  tasks: tuple[str, ...],
  batch_size: int,
  say: Callable[[str], None],
) -> Rows:
  """Reads the data, preparing it first if it is not there yet."""
  splits = {
    split: data.load_census(
      split=split, tasks=tasks, data_dir=config.dir, progress=say
    )
    for split in SPLITS
  }
  if config.num_train is not None:
    splits['train'] = {
      name: x[: config.num_train] for name, x in splits['train'].items()
    }
  categorical = splits['train']['categorical']
  if batch_size > len(categorical):
    raise ValueError(
      f'--batch-size={batch_size} is more than the {len(categorical)} training '
      'rows.'
    )
  places = [
    (column, value)
    for column, values in enumerate(categorical.T)
    for value in np.unique(values)
  ]
  return Rows(splits, np.array(places).T)


def example_losses(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Binary cross entropy of each row, ``(B,)``; logits are ``(B, 1)``."""
  return optax.losses.sigmoid_binary_cross_entropy(
    logits[:, 0], labels.astype(logits.dtype)
  )


def class_logits(logits: jax.Array) -> jax.Array:
  """Logits of both classes, ``(B, 2)``, from those of one, ``(B, 1)``."""
  return jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1)


def task_loss(task: str):
  """Binary cross entropy of a task."""

  def loss_fn(logits, batch):
    return jnp.mean(example_losses(logits, batch[task])), {}

  return loss_fn


def task_metrics(task: str, logits: jax.Array, batch: Mapping[str, jax.Array]):
  """Mergeable metrics of a task's logits on a batch with a mask."""
  labels, mask = batch[task], batch['mask']
  losses, two = example_losses(logits, labels), class_logits(logits)
  return {
    f'loss/{task}': Mean.from_values(losses, mask=mask),
    f'auc/{task}': AUC.from_logits(logits[:, 0], labels, mask=mask),
    f'accuracy/{task}': Accuracy.from_logits(two, labels, mask=mask),
  }


def select(metrics: Mapping[str, float]) -> float:
  """The score of a state: its mean AUC on validation."""
  scores = [v for name, v in metrics.items() if name.startswith('auc/')]
  return sum(scores) / len(scores)

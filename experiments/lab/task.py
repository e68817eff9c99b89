"""A task of a suite, and what it is measured by."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mtljax.metrics import Mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measure:
  """A metric that a task is scored by.

  Attributes:
    name: ``'accuracy'``; its values are called ``accuracy/<task>``.
    higher_is_better: its direction.
    unit: of its values; ``'%'`` for a share, a fraction shown in percent.
    in_delta_m: whether delta-m and mean rank are taken over it.
  """

  name: str
  higher_is_better: bool = True
  unit: str = ''
  in_delta_m: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
  """One task of a suite.

  Attributes:
    name: its name; the labels of a batch are called so.
    num_outputs: K, of its head.
    example_losses: from outputs ``(B, K)``, or ``(B, H, W, K)`` of a dense
      task, and labels ``(B, ...)`` to the loss of each example, ``(B,)``.
    metrics: from outputs, labels and a mask ``(B,)`` to mergeable metrics by
      name; the loss is there without it.
    measures: what the metrics mean; the first is the score of the task.
    num_classes: of its labels; None: it is no classification.
    class_logits: from outputs to ``(B, num_classes)``.
    present: from labels to a mask ``(B,)`` of those that there are; None: all.
      ``example_losses`` has to be finite, and flat, where there is none.
  """

  name: str
  num_outputs: int
  example_losses: Callable[[jax.Array, jax.Array], jax.Array]
  metrics: Callable[[jax.Array, jax.Array, jax.Array], Mapping[str, Any]]
  measures: tuple[Measure, ...]
  num_classes: int | None = None
  class_logits: Callable[[jax.Array], jax.Array] = lambda outputs: outputs
  present: Callable[[jax.Array], jax.Array] | None = None

  def __post_init__(self):
    if not self.measures:
      raise ValueError(f'task {self.name}: measures=() leaves it no score.')

  @property
  def score(self) -> Measure:
    """The measure that counts."""
    return self.measures[0]

  def loss(self, outputs: jax.Array, batch: Mapping[str, jax.Array]):
    """The mean loss of a batch over the labels there are, and no more."""
    labels = batch[self.name]
    losses = self.example_losses(outputs, labels)
    if self.present is None:
      return jnp.mean(losses), {}
    mask = self.present(labels)
    total = jnp.sum(jnp.where(mask, losses, 0))
    return total / jnp.maximum(jnp.sum(mask), 1), {}

  def measure(self, outputs: jax.Array, batch: Mapping[str, jax.Array]):
    """Mergeable metrics on a batch with a mask, by ``<metric>/<task>``."""
    labels, mask = batch[self.name], batch['mask']
    if self.present is not None:
      mask = mask & self.present(labels)
    losses = self.example_losses(outputs, labels)
    found = {'loss': Mean.from_values(losses, mask=mask)}
    found |= self.metrics(outputs, labels, mask)
    return {f'{metric}/{self.name}': x for metric, x in found.items()}

"""Parameters that a task owns and whose gradient others have a part in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from mtljax import _labels, _tree
from mtljax.gradients import _dependence
from mtljax.gradients._patterns import Pattern

Own = Callable[..., list[jax.Array]]


def check_tasks(
  labels: Sequence[_labels.Label],
  names: Sequence[str],
  leaves: Sequence[Any],
  num_tasks: int,
) -> None:
  """Raises ValueError where an owned leaf is of no task that there is."""
  for label, name, leaf in zip(labels, names, leaves, strict=True):
    shape = np.shape(leaf)
    if label == _labels.STACKED and shape[:1] != (num_tasks,):
      raise ValueError(
        f'labels: {name!r} is labelled {label!r} and has shape {shape}; its '
        f'axis 0 must be that of the {num_tasks} tasks.'
      )
    if label != _labels.STACKED and label >= num_tasks:
      raise ValueError(
        f'labels: {name!r} is labelled {label}; the loss has the tasks 0 to '
        f'{num_tasks - 1}.'
      )


def find_tangled(
  labels: Sequence[_labels.Label],
  names: Sequence[str],
  patterns: Sequence[Pattern],
  prove: Callable[[], Sequence[Pattern]],
) -> list[bool]:
  """Of which owned leaves it cannot be told that their task alone reads them.

  Args:
    labels: of the owned leaves.
    names: their paths.
    patterns: what their gradients may depend on.
    prove: gives what they depend on for certain; called if that matters.

  Raises:
    ValueError: another task's loss is certain to depend on a leaf.
  """
  tangled = [
    bool(_others(label, p)) for label, p in zip(labels, patterns, strict=True)
  ]
  if not any(tangled):
    return tangled
  for label, name, p in zip(labels, names, prove(), strict=True):
    for owner, other in _others(label, p)[:1]:
      whose = f'labelled as that of task {owner}'
      if label == _labels.STACKED:
        whose = f'labelled stacked: its row {owner} is that of task {owner}'
      raise ValueError(
        f'labels: {name!r} is {whose}, and the loss of task {other} depends '
        "on it too. Label it 'shared', or pass it through "
        f'jax.lax.stop_gradient where task {other} reads it.'
      )
  return tangled


def _others(label: _labels.Label, pattern: Pattern) -> list[tuple[int, int]]:
  """Pairs of a task that owns an entry and another that reaches it."""
  if pattern is None:
    return []
  if label != _labels.STACKED:
    return [(label, t) for t in _dependence.readers(pattern) if t != label]
  count = len(pattern)
  rows = pattern.reshape(*pattern.shape[:2], -1).any(2)
  rows = np.broadcast_to(rows, (count, max(count, rows.shape[1])))
  return [(row, t) for t, row in np.argwhere(rows) if t != row]


def separate(
  own: Own, labels: Sequence[_labels.Label], tangled: Sequence[bool], ones: Any
) -> Own:
  """``own(weights)`` whose tangled leaves are weighed by their owner alone.

  Those are the sum of all tasks' gradients, times the weight of the owner.
  ``own()`` is without weights.
  """

  def owned(weights=None):
    if not labels:
      return []
    if weights is None:
      return own(ones)
    if all(tangled):
      return weigh(weights, labels, own(ones))
    found = own(weights)
    if not any(tangled):
      return found
    plain = weigh(weights, labels, own(ones))
    return [
      b if both else a for a, b, both in zip(found, plain, tangled, strict=True)
    ]

  return owned


def weigh(
  weights: jax.Array,
  labels: Sequence[_labels.Label],
  leaves: Sequence[jax.Array],
) -> list[jax.Array]:
  """Owned leaves, each times the weight of its task."""
  return [
    _tree.scale_leaf(weights if t == _labels.STACKED else weights[t], leaf)
    for t, leaf in zip(labels, leaves, strict=True)
  ]

"""Dense layers that all tasks share, with a small head per task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from mtljax import _validate
from mtljax.models import _base, _embed


class MLPTrunk(nn.Module):
  """Dense layers with ReLU over flattened examples.

  Args:
    hidden_sizes: units of each layer.
    dropout_rate: of every layer's units.
    encoder: from what the model takes to ``(B, D)``; None: examples flattened.
  """

  hidden_sizes: tuple[int, ...] = (128, 64)
  dropout_rate: float = 0.0
  encoder: nn.Module | None = None

  @nn.compact
  def __call__(self, x: Any, *, train: bool = False) -> jax.Array:
    """Maps examples (B, ...) to features (B, hidden_sizes[-1])."""
    x = _embed.encode(self.encoder, x, train=train)
    for i, size in enumerate(self.hidden_sizes, start=1):
      x = nn.relu(nn.Dense(size, name=f'fc{i}')(x))
      x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
    return x


class MLPHead(nn.Module):
  """Dense layers with ReLU, and one of outputs.

  Args:
    num_outputs: size of the output.
    hidden_sizes: units of each layer before it; none: a linear head.
    dropout_rate: of the hidden units.
  """

  num_outputs: int = 10
  hidden_sizes: tuple[int, ...] = ()
  dropout_rate: float = 0.0

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Maps features (B, D) to outputs (B, num_outputs)."""
    for i, size in enumerate(self.hidden_sizes, start=1):
      x = nn.relu(nn.Dense(size, name=f'fc{i}')(x))
      x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
    return nn.Dense(self.num_outputs, name='out')(x)


def check_heads(
  tasks: Sequence[str],
  num_classes: int | Sequence[int],
  dropout_rate: float,
  sizes: Mapping[str, Sequence[int]],
) -> tuple[tuple[str, ...], tuple[int, ...]]:
  """The tasks and the outputs of each, or a ValueError.

  Args:
    tasks: their names.
    num_classes: outputs per task, or one number a task.
    dropout_rate: in [0, 1).
    sizes: units of layers, by the argument's name.
  """
  if isinstance(tasks, str):
    raise ValueError(f'tasks={tasks!r} is a string: pass a tuple of names.')
  tasks = tuple(tasks)
  if isinstance(num_classes, int):
    num_classes = (num_classes,) * len(tasks)
  if len(num_classes) != len(tasks):
    raise ValueError(
      f'num_classes={tuple(num_classes)} has to be one number, or one for each '
      f'of the {len(tasks)} tasks.'
    )
  for name, numbers in {'num_classes': num_classes, **sizes}.items():
    for number in numbers:
      _validate.in_range(name, number, 1)
  _validate.in_range('dropout_rate', dropout_rate, 0.0, 0.999)
  return tasks, tuple(num_classes)


def multi_mlp(
  tasks: Sequence[str],
  num_classes: int | Sequence[int] = 10,
  hidden_sizes: Sequence[int] = (128, 64),
  head_sizes: Sequence[int] = (),
  dropout_rate: float = 0.0,
  encoder: nn.Module | None = None,
) -> _base.MultiTaskModel:
  """Builds a multilayer perceptron with hard parameter sharing.

  Trunk: dense layers with ReLU that all tasks share. Head: dense layers with
  ReLU of the task's own (none by default: linear heads), then its outputs.

  Args:
    tasks: the names of the tasks.
    num_classes: outputs per task, or one number a task; 1 for a regression or
      a binary task with a single logit.
    hidden_sizes: units of the trunk's layers, at least one layer.
    head_sizes: units of each head's hidden layers.
    dropout_rate: in [0, 1), after every hidden layer; 0 needs no key.
    encoder: as in `mmoe`; it is shared.

  Returns:
    The model; without an encoder it takes examples ``(B, ...)`` of any shape,
    flattened.

  Raises:
    ValueError: if a size is below 1, the trunk has no layer, or ``num_classes``
      is not one a task.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> model = multi_mlp(('income', 'married'), num_classes=(2, 7))
    >>> x = jnp.zeros((4, 40))
    >>> params, model_state = model.init(jax.random.key(0), x)
    >>> [logits.shape for logits in model.apply(params, model_state, x)]
    [(4, 2), (4, 7)]

  References:
    Caruana, Multitask Learning, Machine Learning 28, 1997,
    https://doi.org/10.1023/A:1007379606734
  """
  if not hidden_sizes:
    raise ValueError('hidden_sizes=() leaves nothing to share: name a layer.')
  tasks, num_classes = check_heads(
    tasks,
    num_classes,
    dropout_rate,
    {'hidden_sizes': hidden_sizes, 'head_sizes': head_sizes},
  )
  heads = [
    MLPHead(num_outputs, tuple(head_sizes), dropout_rate)
    for num_outputs in num_classes
  ]
  return _base.MultiTaskModel(
    MLPTrunk(tuple(hidden_sizes), dropout_rate, encoder), tuple(heads), tasks
  )

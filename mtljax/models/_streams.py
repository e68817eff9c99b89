"""A dilated residual network for each task, mixed between the stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtljax.models import _backbone, _base, _blocks, _deeplab


def streams(
  x: jax.Array,
  mixing: Callable[[int], jax.Array | None],
  *,
  num_tasks: int,
  depth: int,
  width: int,
  norm: str,
  conv_impl: str,
  train: bool,
) -> tuple[jax.Array, ...]:
  """The last stage of each task's network; called inside of a module.

  ``mixing(i)`` gives the weights ``(T, T)`` of what each task's stage i reads,
  a row for each task, or None: its own.
  """
  found = [
    _backbone.Stem(width, norm, conv_impl, name=f'task{t}_stem')(x, train=train)
    for t in range(num_tasks)
  ]
  for i in range(4):
    weights = mixing(i)
    if weights is not None:
      weights = weights.astype(found[0].dtype)
      found = list(jnp.einsum('ts,sbhwc->tbhwc', weights, jnp.stack(found)))
    found = [
      _backbone.Stage(
        i, depth, width, norm, conv_impl, name=f'task{t}_stage{i}'
      )(each, train=train)[1]
      for t, each in enumerate(found)
    ]
  return tuple(found)


class HeadOfStream(nn.Module):
  """A head on the features of one task among those of all.

  Args:
    index: of the task.
    prediction: the head.
  """

  index: int
  prediction: nn.Module

  def __call__(self, features: Any, *, train: bool = False) -> jax.Array:
    """Maps the features of all tasks to the outputs of one."""
    return self.prediction(features[self.index], train=train)


def make_model(
  trunk_of: Callable[[int], nn.Module],
  tasks: Sequence[str],
  num_outputs: Sequence[int],
  about: str,
  *,
  depth: int,
  width: int,
  head_features: int,
  norm: str,
  conv_impl: str,
) -> _base.MultiTaskModel:
  """The model of a trunk of streams, its arguments checked."""
  _blocks.check_outputs(tasks, num_outputs)
  _backbone.check(depth, width, norm, conv_impl)
  heads = _deeplab.make_heads(num_outputs, head_features, norm, conv_impl)
  return _base.MultiTaskModel(
    trunk_of(len(tasks)),
    tuple(HeadOfStream(t, head) for t, head in enumerate(heads)),
    tuple(tasks),
    conventions={'trunk': _base.Sharing(about)},
  )

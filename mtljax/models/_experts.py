"""Several small networks side by side, and gates that mix what they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtljax.models import _embed
from mtljax.models._multi_mlp import check_heads

_kernel_init = nn.initializers.lecun_normal(batch_axis=0)


class ExpertFeatures(NamedTuple):
  """What a trunk of experts hands to the heads.

  Attributes:
    inputs: what gates and own experts read, ``(B, D)``, or images.
    experts: outputs of the shared experts, ``(B, E, H)``, or of images
      ``(B, E, H, W, C)``.
  """

  inputs: jax.Array
  experts: jax.Array


class _ExpertDense(nn.Module):
  """A dense layer an expert: one kernel with the experts on axis 0."""

  num_experts: int
  size: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps ``(B, D)``, or ``(B, E, D)``, to ``(B, E, size)``."""
    shape = (self.num_experts, x.shape[-1], self.size)
    kernel = self.param('kernel', _kernel_init, shape)
    bias = self.param('bias', nn.initializers.zeros, shape[::2])
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias)
    form = 'bd,edh->beh' if x.ndim == 2 else 'bed,edh->beh'
    return jnp.einsum(form, x, kernel) + bias[None]


class Experts(nn.Module):
  """Networks of dense layers with ReLU that read the same inputs.

  Args:
    num_experts: E.
    hidden_sizes: units of the layers of each.
    dropout_rate: of every layer's units.
  """

  num_experts: int
  hidden_sizes: tuple[int, ...] = (64,)
  dropout_rate: float = 0.0

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Maps ``(B, D)`` to ``(B, E, hidden_sizes[-1])``."""
    for i, size in enumerate(self.hidden_sizes, start=1):
      x = nn.relu(_ExpertDense(self.num_experts, size, name=f'fc{i}')(x))
      x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
    return x


class ExpertsTrunk(nn.Module):
  """Experts that all tasks share, and the inputs for those that do not.

  Args:
    experts: from inputs to what an `ExpertFeatures` has.
    encoder: from what the model takes to the inputs; None: examples flattened.
  """

  experts: nn.Module
  encoder: nn.Module | None = None

  @nn.compact
  def __call__(self, x: Any, *, train: bool = False) -> ExpertFeatures:
    """Maps examples to `ExpertFeatures`."""
    x = _embed.encode(self.encoder, x, train=train)
    return ExpertFeatures(x, self.experts(x, train=train))


class GatedHead(nn.Module):
  """Experts of the task's own, a softmax gate over all experts, and a tower.

  Args:
    tower: from the mixture of experts to the outputs.
    experts: those of the task's own; None: there are none.
    raw_inputs: whether no parameter is read on the way to the inputs, so that
      nothing is gained by a gradient there.
  """

  tower: nn.Module
  experts: nn.Module | None = None
  raw_inputs: bool = True

  @nn.compact
  def __call__(
    self, features: ExpertFeatures, *, train: bool = False
  ) -> jax.Array:
    """Maps `ExpertFeatures` to the outputs of the tower."""
    x, experts = features
    x = jax.lax.stop_gradient(x) if self.raw_inputs else x
    if self.experts is not None:
      own = self.experts(x, train=train)
      experts = jnp.concatenate([own, experts], axis=1)
    return self.tower(gated(x, experts, 'gate'), train=train)


def gated(x: jax.Array, experts: jax.Array, name: str) -> jax.Array:
  """Experts ``(B, E, ...)`` weighed by a softmax of a dense layer on x."""
  flat = x.reshape(len(x), -1)
  weights = nn.softmax(nn.Dense(experts.shape[1], name=name)(flat))
  return jnp.einsum('be,be...->b...', weights, experts)


def check(
  tasks: Sequence[str],
  num_classes: int | Sequence[int],
  dropout_rate: float,
  expert_sizes: Sequence[int],
  head_sizes: Sequence[int],
) -> tuple[tuple[str, ...], tuple[int, ...]]:
  """The tasks and the outputs of each, or a ValueError."""
  if not expert_sizes:
    raise ValueError('expert_sizes=() leaves experts no layer: name one.')
  sizes = {'expert_sizes': expert_sizes, 'head_sizes': head_sizes}
  return check_heads(tasks, num_classes, dropout_rate, sizes)

"""MultiLeNet, the usual network of Multi-MNIST."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax

from mtljax import _validate
from mtljax.models import _base, layers


class MultiLeNetTrunk(nn.Module):
  """Two 5 x 5 convolutions and a dense layer of 50 units.

  Args:
    dropout_rate: of whole channels, after the second convolution.
    conv_impl: as in `layers.conv2d`.
  """

  dropout_rate: float = 0.0
  conv_impl: str = 'auto'

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Maps images (B, H, W, C) to features (B, 50)."""
    if min(x.shape[1:3]) < 16:
      raise ValueError(
        f'x has shape {x.shape}: MultiLeNet needs images (B, H, W, C) of at '
        'least 16 x 16.'
      )
    for i, features in enumerate((10, 20), start=1):
      x = layers.Conv(
        features, 5, padding='VALID', impl=self.conv_impl, name=f'conv{i}'
      )(x)
      if i == 2:
        x = nn.Dropout(
          self.dropout_rate, broadcast_dims=(1, 2), deterministic=not train
        )(x)
      x = nn.relu(layers.max_pool_2x2(x))
    return nn.relu(nn.Dense(50, name='fc')(x.reshape(x.shape[0], -1)))


class MultiLeNetHead(nn.Module):
  """A dense layer of 50 units and one of logits.

  Args:
    num_classes: the number of logits.
    dropout_rate: of the hidden units.
  """

  num_classes: int = 10
  dropout_rate: float = 0.0

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Maps features (B, 50) to logits (B, num_classes)."""
    x = nn.relu(nn.Dense(50, name='fc1')(x))
    x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
    return nn.Dense(self.num_classes, name='fc2')(x)


def multi_lenet(
  tasks: Sequence[str] = ('left', 'right'),
  num_classes: int = 10,
  dropout_rate: float = 0.0,
  conv_impl: str = 'auto',
) -> _base.MultiTaskModel:
  """Builds MultiLeNet: a shared LeNet and one small head per task.

  Trunk: conv 10 5x5, max-pool, ReLU, conv 20 5x5, max-pool, ReLU, dense 50,
  ReLU. Head: dense 50, ReLU, dense ``num_classes``. With 36 x 36 images of one
  channel the trunk has 41,330 parameters and a head of ten classes 3,060.

  The original drops channels and hidden units at rate 0.5 without rescaling,
  one mask for the whole batch; with ``dropout_rate`` this one has a mask for
  each sample and rescales.

  Args:
    tasks: the names of the tasks.
    num_classes: logits per task.
    dropout_rate: in [0, 1); 0 needs no key.
    conv_impl: as in `layers.conv2d`.

  Returns:
    The model; it takes images ``(B, H, W, C)`` of at least 16 x 16.

  Raises:
    ValueError: if an argument is out of range or unknown.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> model = multi_lenet(tasks=('left', 'right'))
    >>> x = jnp.zeros((4, 36, 36, 1))
    >>> params, model_state = model.init(jax.random.key(0), x)
    >>> [logits.shape for logits in model.apply(params, model_state, x)]
    [(4, 10), (4, 10)]

  References:
    Sener and Koltun, Multi-Task Learning as Multi-Objective Optimization,
    2018, https://arxiv.org/abs/1810.04650
  """
  _validate.one_of('conv_impl', conv_impl, layers.IMPLS)
  _validate.in_range('num_classes', num_classes, 1)
  _validate.in_range('dropout_rate', dropout_rate, 0.0, 0.999)
  trunk = MultiLeNetTrunk(dropout_rate=dropout_rate, conv_impl=conv_impl)
  head = MultiLeNetHead(num_classes=num_classes, dropout_rate=dropout_rate)
  return _base.with_same_heads(trunk, head, tasks)

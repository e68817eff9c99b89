"""The network of Office-31 and Office-Home, by LibMTL."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax

from mtljax import _validate
from mtljax.models import _base, _blocks
from mtljax.models._resnet import LinearHead, ResNetTrunk


class OfficeTrunk(nn.Module):
  """ResNet-18, averaged over the image, and a dense layer with a norm.

  Args:
    width: channels of the first stage; the dense layer has 8 times as many.
    dropout_rate: of the features.
    norm: ``'batch'`` or ``'group'``.
    conv_impl: as in `layers.conv2d`.
  """

  width: int = 64
  dropout_rate: float = 0.5
  norm: str = 'batch'
  conv_impl: str = 'auto'

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Maps images (B, H, W, C) to features (B, 8 width)."""
    x = ResNetTrunk(
      width=self.width,
      features=0,
      norm=self.norm,
      conv_impl=self.conv_impl,
      name='resnet',
    )(x, train=train)
    x = nn.Dense(
      8 * self.width,
      kernel_init=nn.initializers.normal(0.005),
      bias_init=nn.initializers.constant(0.1),
      name='fc',
    )(x)
    make = _blocks.norm(self.norm, 8 * self.width, train)
    x = nn.relu(make(name='fc_norm')(x))
    return nn.Dropout(self.dropout_rate, deterministic=not train)(x)


def office_resnet18(
  tasks: Sequence[str] = ('amazon', 'dslr', 'webcam'),
  num_classes: int = 31,
  width: int = 64,
  dropout_rate: float = 0.5,
  norm: str = 'batch',
  conv_impl: str = 'auto',
) -> _base.MultiTaskModel:
  """Builds the network of Office-31 and Office-Home, by LibMTL.

  ResNet-18, a dense layer of 512 units with a norm, ReLU and dropout, and a
  linear head a task. With three tasks of 31 classes it has 11,487,901
  parameters, of which 11,440,192 are shared. LibMTL begins with weights of
  ImageNet; this one begins at random.

  Args:
    tasks: the names of the tasks.
    num_classes: logits a task.
    width: channels of the first stage.
    dropout_rate: of the features, in [0, 1); training needs a key unless it is
      0.
    norm: ``'batch'`` or ``'group'``.
    conv_impl: as in `layers.conv2d`.

  Returns:
    The model; it takes images ``(B, H, W, C)`` of any size, such as 224 x 224.

  Raises:
    ValueError: if an argument is out of range or unknown.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> model = office_resnet18(width=4)
    >>> x = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    >>> variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    >>> [y.shape for y in jax.eval_shape(model.apply, *variables, x)]
    [(2, 31), (2, 31), (2, 31)]

  References:
    Lin and Zhang, LibMTL: A Python Library for Multi-Task Learning, 2023,
    https://arxiv.org/abs/2203.14338
  """
  _validate.in_range('num_classes', num_classes, 1)
  _validate.in_range('width', width, 1)
  _validate.in_range('dropout_rate', dropout_rate, 0.0, 0.999)
  _blocks.check_layers(norm, conv_impl)
  trunk = OfficeTrunk(width, dropout_rate, norm, conv_impl)
  return _base.with_same_heads(trunk, LinearHead(num_classes), tasks)

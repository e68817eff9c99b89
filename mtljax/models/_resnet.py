"""Residual networks of basic blocks, with linear heads."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax

from mtljax import _validate
from mtljax.models import _base, _blocks, layers

STEMS = ('large', 'small')


class ResNetTrunk(nn.Module):
  """Residual blocks, averaged over the image, and a dense layer.

  Args:
    stages: blocks per stage; each stage after the first halves the image and
      doubles the channels.
    width: channels of the first stage.
    features: units of the dense layer; 0 leaves it out, and the features are
      the averaged channels.
    norm: ``'batch'`` or ``'group'`` (gcd(8, channels) groups; no state).
    stem: ``'large'``, a 7 x 7 convolution and a 3 x 3 max-pool, each at stride
      2; or ``'small'``, a 3 x 3 convolution at stride 1.
    conv_impl: as in `layers.conv2d`.
  """

  stages: tuple[int, ...] = (2, 2, 2, 2)
  width: int = 64
  features: int = 100
  norm: str = 'batch'
  stem: str = 'large'
  conv_impl: str = 'auto'

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Maps images (B, H, W, C) to features (B, features)."""
    large = self.stem == 'large'
    size, stride = (7, 2) if large else (3, 1)
    x = _blocks.conv(self.width, size, stride, self.conv_impl, 'stem')(x)
    x = nn.relu(_blocks.norm(self.norm, self.width, train)(name='stem_norm')(x))
    if large:
      x = layers.max_pool_3x3(x)
    for i, blocks in enumerate(self.stages):
      for j in range(blocks):
        x = _blocks.ResidualBlock(
          self.width * 2**i,
          bottleneck=False,
          stride=2 if i > 0 and j == 0 else 1,
          norm=self.norm,
          conv_impl=self.conv_impl,
          name=f'stage{i}_block{j}',
        )(x, train=train)
    x = x.mean(axis=(1, 2))
    if self.features:
      x = nn.relu(nn.Dense(self.features, name='fc')(x))
    return x


class LinearHead(nn.Module):
  """One dense layer of logits.

  Args:
    num_classes: the number of logits.
  """

  num_classes: int = 10

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Maps features (B, D) to logits (B, num_classes)."""
    del train
    return nn.Dense(self.num_classes, name='fc')(x)


def resnet(
  tasks: Sequence[str] = ('left', 'right'),
  num_classes: int = 10,
  stages: Sequence[int] = (1, 1, 1, 1),
  width: int = 16,
  features: int = 100,
  norm: str = 'batch',
  stem: str = 'small',
  conv_impl: str = 'auto',
) -> _base.MultiTaskModel:
  """Builds a residual network of basic blocks with linear heads.

  The defaults are small enough for a CPU. In evaluation mode batch norm uses
  the running averages in the model state; group norm needs no state.

  Args:
    tasks: the names of the tasks.
    num_classes: logits per task.
    stages: blocks per stage; each stage after the first halves the image and
      doubles the channels.
    width: channels of the first stage.
    features: units of the last layer of the trunk; 0 leaves the layer out.
    norm: ``'batch'`` or ``'group'``.
    stem: ``'small'`` (3 x 3, stride 1) or ``'large'`` (7 x 7 and a max-pool,
      each at stride 2).
    conv_impl: as in `layers.conv2d`.

  Returns:
    The model; it takes images ``(B, H, W, C)`` of any size and channels.

  Raises:
    ValueError: if an argument is out of range or unknown.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> model = resnet(tasks=('a', 'b', 'c'), stages=(1,), width=4)
    >>> x = jnp.zeros((2, 16, 16, 1))
    >>> params, model_state = jax.jit(model.init)(jax.random.key(0), x)
    >>> logits = jax.jit(model.apply)(params, model_state, x)
    >>> [y.shape for y in logits]
    [(2, 10), (2, 10), (2, 10)]

  References:
    He et al., Deep Residual Learning for Image Recognition, 2016,
    https://arxiv.org/abs/1512.03385
  """
  _validate.one_of('norm', norm, _blocks.NORMS)
  _validate.one_of('stem', stem, STEMS)
  _validate.one_of('conv_impl', conv_impl, layers.IMPLS)
  _validate.in_range('num_classes', num_classes, 1)
  _validate.in_range('width', width, 1)
  _validate.in_range('features', features, 0)
  if not stages or min(stages) < 1:
    raise ValueError(
      f'stages={stages!r} must be one or more positive numbers of blocks.'
    )
  trunk = ResNetTrunk(
    stages=tuple(stages),
    width=width,
    features=features,
    norm=norm,
    stem=stem,
    conv_impl=conv_impl,
  )
  head = LinearHead(num_classes=num_classes)
  return _base.with_same_heads(trunk, head, tasks)


def resnet18(
  tasks: Sequence[str] = ('left', 'right'),
  num_classes: int = 10,
  width: int = 64,
  norm: str = 'batch',
  conv_impl: str = 'auto',
) -> _base.MultiTaskModel:
  """Builds the ResNet-18 of the F-MTL paper for the Multi-MNIST family.

  The stem and stages of ResNet-18, a dense layer of 100 units, ReLU, and one
  linear head per task.

  Args:
    tasks: the names of the tasks.
    num_classes: logits per task.
    width: channels of the first stage.
    norm: ``'batch'`` or ``'group'``.
    conv_impl: as in `layers.conv2d`.

  Returns:
    The model; it takes images ``(B, H, W, C)`` of any size and channels.

  Raises:
    ValueError: if an argument is out of range or unknown.

  Example:
    >>> model = resnet18(tasks=('left', 'right'), norm='group')
    >>> model.trunk.stages
    (2, 2, 2, 2)

  References:
    He et al., Deep Residual Learning for Image Recognition, 2016,
    https://arxiv.org/abs/1512.03385; Phan et al., Improving Multi-task
    Learning via Seeking Task-based Flat Regions, 2022,
    https://arxiv.org/abs/2211.13723
  """
  return resnet(
    tasks=tasks,
    num_classes=num_classes,
    stages=(2, 2, 2, 2),
    width=width,
    norm=norm,
    stem='large',
    conv_impl=conv_impl,
  )

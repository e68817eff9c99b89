"""Parts that several convolutional trunks are built of."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax

from mtljax import _validate
from mtljax.models import layers

NORMS = ('batch', 'group')

kernel_init = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def conv(
  features: int,
  size: int,
  strides: int,
  impl: str,
  name: str,
  *,
  dilation: int = 1,
  use_bias: bool = False,
  kernel_init: Callable[..., jax.Array] = kernel_init,
) -> layers.Conv:
  """A convolution before a norm, padded to keep the image's size."""
  return layers.Conv(
    features,
    size,
    strides,
    padding=size // 2 * dilation,
    dilation=dilation,
    use_bias=use_bias,
    kernel_init=kernel_init,
    impl=impl,
    name=name,
  )


def norm(kind: str, features: int, train: bool) -> Callable[..., nn.Module]:
  """The norm layer, but for its name."""
  if kind == 'batch':
    return functools.partial(
      nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5
    )
  return functools.partial(nn.GroupNorm, num_groups=math.gcd(features, 8))


class ConvNormReLU(nn.Module):
  """A convolution, a norm and ReLU."""

  features: int
  norm: str
  conv_impl: str
  size: int = 3
  dilation: int = 1
  use_bias: bool = False
  kernel_init: Callable[..., jax.Array] = kernel_init

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    x = conv(
      self.features,
      self.size,
      1,
      self.conv_impl,
      'conv',
      dilation=self.dilation,
      use_bias=self.use_bias,
      kernel_init=self.kernel_init,
    )(x)
    return nn.relu(norm(self.norm, self.features, train)(name='norm')(x))


class ResidualBlock(nn.Module):
  """A residual block: two 3 x 3 convolutions, or a bottleneck of three.

  Args:
    width: channels inside; a bottleneck gives four times as many.
    bottleneck: which of both.
    stride: of the first 3 x 3 convolution.
    dilations: of the 3 x 3 convolutions, in order.
    norm: ``'batch'`` or ``'group'``.
    conv_impl: as in `layers.conv2d`.
  """

  width: int
  bottleneck: bool
  stride: int = 1
  dilations: tuple[int, ...] = (1, 1)
  norm: str = 'batch'
  conv_impl: str = 'auto'

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps (B, H, W, C) to (B, H', W', width) or four times the width."""
    out = 4 * self.width if self.bottleneck else self.width

    def unit(x, features, size, names, stride=1, dilation=1):
      x = conv(
        features,
        size,
        stride,
        self.conv_impl,
        names[0],
        dilation=dilation,
      )(x)
      return norm(self.norm, features, train)(name=names[1])(x)

    first = {'stride': self.stride, 'dilation': self.dilations[0]}
    if self.bottleneck:
      y = nn.relu(unit(x, self.width, 1, ('conv1', 'norm1')))
      y = nn.relu(unit(y, self.width, 3, ('conv2', 'norm2'), **first))
      y = unit(y, out, 1, ('conv3', 'norm3'))
    else:
      y = nn.relu(unit(x, self.width, 3, ('conv1', 'norm1'), **first))
      y = unit(y, out, 3, ('conv2', 'norm2'), dilation=self.dilations[1])
    if x.shape != y.shape:
      x = unit(x, out, 1, ('shortcut', 'shortcut_norm'), self.stride)
    return nn.relu(x + y)


class Attention(nn.Module):
  """A mask in (0, 1): two 1 x 1 convolutions with norms, ReLU, sigmoid."""

  hidden: int
  features: int
  norm: str
  conv_impl: str

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    for i, width in enumerate((self.hidden, self.features)):
      x = conv(width, 1, 1, self.conv_impl, f'conv{i}', use_bias=True)(x)
      x = norm(self.norm, width, train)(name=f'norm{i}')(x)
      x = nn.relu(x) if i == 0 else nn.sigmoid(x)
    return x


def check_outputs(tasks: Sequence[str], num_outputs: Sequence[int]) -> None:
  """Raises ValueError unless there is a positive number for each task."""
  if isinstance(tasks, str):
    raise ValueError(f'tasks={tasks!r} is a string: pass a tuple of names.')
  if len(num_outputs) != len(tasks):
    raise ValueError(
      f'num_outputs={tuple(num_outputs)} has to be one number for each of the '
      f'{len(tasks)} tasks.'
    )
  for size in num_outputs:
    _validate.in_range('num_outputs', size, 1)


def check_layers(norm: str, conv_impl: str) -> None:
  """Raises ValueError for an unknown norm or convolution."""
  _validate.one_of('norm', norm, NORMS)
  _validate.one_of('conv_impl', conv_impl, layers.IMPLS)

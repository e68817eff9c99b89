"""Parts that several convolutional trunks are built of."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax

from mtljax.models import layers

NORMS = ('batch', 'group')

_kernel_init = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def conv(
  features: int, size: int, strides: int, impl: str, name: str
) -> layers.Conv:
  """A convolution before a norm: no bias, padded to keep the image's size."""
  return layers.Conv(
    features,
    size,
    strides,
    padding=size // 2,
    use_bias=False,
    kernel_init=_kernel_init,
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
  """A 3 x 3 convolution, a norm and ReLU."""

  features: int
  norm: str
  conv_impl: str

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    x = conv(self.features, 3, 1, self.conv_impl, 'conv')(x)
    return nn.relu(norm(self.norm, self.features, train)(name='norm')(x))

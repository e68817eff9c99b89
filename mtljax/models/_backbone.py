"""Residual networks whose last stages are dilated, for dense predictions."""

from __future__ import annotations

import flax.linen as nn
import jax

from mtljax import _validate
from mtljax.models import _blocks, layers

#: Blocks a stage, and whether they are bottlenecks.
DEPTHS = {
  10: ((1, 1, 1, 1), False),
  18: ((2, 2, 2, 2), False),
  50: ((3, 4, 6, 3), True),
}
#: Strides and dilations of the stages of output stride 8.
STRIDES = (1, 2, 1, 1)
DILATIONS = (1, 1, 2, 4)


class Stem(nn.Module):
  """A 7 x 7 convolution at stride 2, norm, ReLU, 3 x 3 max-pool at stride 2."""

  width: int
  norm: str
  conv_impl: str

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps (B, H, W, C) to (B, H / 4, W / 4, width)."""
    x = _blocks.conv(self.width, 7, 2, self.conv_impl, 'conv')(x)
    x = nn.relu(_blocks.norm(self.norm, self.width, train)(name='norm')(x))
    return layers.max_pool_3x3(x)


class Stage(nn.Module):
  """One of the four stages of a dilated residual network.

  Args:
    index: 0 to 3.
    depth: 10, 18 or 50.
    width: channels inside the blocks of the first stage.
    norm: ``'batch'`` or ``'group'``.
    conv_impl: as in `layers.conv2d`.
  """

  index: int
  depth: int
  width: int
  norm: str
  conv_impl: str

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool
  ) -> tuple[jax.Array, jax.Array]:
    """What all blocks but the last give, and what the last gives."""
    blocks, bottleneck = DEPTHS[self.depth]
    i, before = self.index, x
    dilation = DILATIONS[i]
    for j in range(blocks[i]):
      # The convolution that would have had the stride has half the dilation.
      first = max(dilation // 2, 1) if j == 0 else dilation
      before = x
      x = _blocks.ResidualBlock(
        self.width * 2**i,
        bottleneck,
        STRIDES[i] if j == 0 else 1,
        (first, dilation),
        self.norm,
        self.conv_impl,
        name=f'block{j}',
      )(x, train=train)
    return before, x


class DilatedResNetTrunk(nn.Module):
  """A residual network of output stride 8.

  The third and fourth stage keep the size of the second and dilate their 3 x 3
  convolutions by 2 and 4.

  Args:
    depth: 10 or 18, of basic blocks, or 50, of bottlenecks.
    width: channels inside the blocks of the first stage.
    outputs: ``'last'``, the last stage; ``'skip'``, the first and the last;
      ``'all'``, for each stage what its blocks give but for the last, and what
      the last gives.
    norm: ``'batch'`` or ``'group'``.
    conv_impl: as in `layers.conv2d`.
  """

  depth: int = 50
  width: int = 64
  outputs: str = 'last'
  norm: str = 'batch'
  conv_impl: str = 'auto'

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False):
    """Maps images (B, H, W, C) to features, H / 8 of the last stages."""
    x = Stem(self.width, self.norm, self.conv_impl, name='stem')(x, train=train)
    found = []
    for i in range(4):
      pair = self.stage(i)(x, train=train)
      found.append(pair)
      x = pair[1]
    if self.outputs == 'last':
      return x
    return (found[0][1], x) if self.outputs == 'skip' else tuple(found)

  def stage(self, index: int) -> Stage:
    """One of its stages."""
    return Stage(
      index,
      self.depth,
      self.width,
      self.norm,
      self.conv_impl,
      name=f'stage{index}',
    )


def channels(depth: int, width: int) -> list[int]:
  """Of the output of each stage."""
  return [width * 2**i * (4 if DEPTHS[depth][1] else 1) for i in range(4)]


def check(depth: int, width: int, norm: str, conv_impl: str) -> None:
  """Raises ValueError for what is no such network."""
  if depth not in DEPTHS:
    raise ValueError(f'depth={depth!r} must be one of {sorted(DEPTHS)}.')
  _validate.in_range('width', width, 1)
  _blocks.check_layers(norm, conv_impl)

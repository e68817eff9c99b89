"""DeepLabV3 and V3+ on a dilated residual network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtljax import _validate
from mtljax.models import _backbone, _base, _blocks, layers
from mtljax.models._resize import resize_bilinear

RATES = (12, 24, 36)
#: What the stem, the second stage and its neighbours make of an image's side.
OUTPUT_STRIDE = 8


class DeepLabHead(nn.Module):
  """Atrous spatial pyramid pooling, a convolution and one of outputs.

  With ``skip`` it is that of V3+: the pyramid, enlarged to the size of an early
  feature map, beside 48 channels of that map, and two convolutions.

  Args:
    num_outputs: channels of the output.
    features: channels inside.
    rates: dilations of the three 3 x 3 convolutions of the pyramid.
    skip: channels that the early feature map is taken to; 0: there is none.
    dropout_rate: after the pyramid.
    norm: ``'batch'`` or ``'group'``.
    conv_impl: as in `layers.conv2d`.
    upsample: how many times larger the image is than the features.
  """

  num_outputs: int = 1
  features: int = 256
  rates: tuple[int, ...] = RATES
  skip: int = 0
  dropout_rate: float = 0.0
  norm: str = 'batch'
  conv_impl: str = 'auto'
  upsample: int = OUTPUT_STRIDE

  @nn.compact
  def __call__(self, x: Any, *, train: bool = False) -> jax.Array:
    """Maps (B, H, W, C), after an early map if any, to outputs of the image."""
    early, x = x if self.skip else (None, x)
    _, height, width, _ = x.shape
    size = height * self.upsample, width * self.upsample

    def unit(x, name, features=self.features, size=3, dilation=1):
      return _blocks.ConvNormReLU(
        features, self.norm, self.conv_impl, size, dilation, name=name
      )(x, train=train)

    pyramid = [unit(x, 'aspp0', size=1)]
    for i, rate in enumerate(self.rates, start=1):
      pyramid.append(unit(x, f'aspp{i}', dilation=rate))
    pooled = unit(x.mean(axis=(1, 2), keepdims=True), 'aspp_pool', size=1)
    pyramid.append(jnp.broadcast_to(pooled, pyramid[0].shape))
    x = unit(jnp.concatenate(pyramid, axis=-1), 'project', size=1)
    x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
    if early is None:
      x = unit(x, 'conv')
    else:
      x = resize_bilinear(x, *early.shape[1:3])
      early = unit(early, 'skip', self.skip, size=1)
      x = jnp.concatenate([x, early], axis=-1)
      x = unit(unit(x, 'conv0'), 'conv1')
    x = layers.Conv(self.num_outputs, 1, impl=self.conv_impl, name='out')(x)
    return resize_bilinear(x, *size, align_corners=early is None)


def make_heads(
  num_outputs: Sequence[int],
  features: int,
  norm: str,
  conv_impl: str,
  dropout_rate: float = 0.0,
  **kwargs: Any,
) -> tuple[DeepLabHead, ...]:
  """One head a task, their arguments checked."""
  _validate.in_range('head_features', features, 1)
  _validate.in_range('dropout_rate', dropout_rate, 0.0, 0.999)
  return tuple(
    DeepLabHead(
      n,
      features,
      norm=norm,
      conv_impl=conv_impl,
      dropout_rate=dropout_rate,
      **kwargs,
    )
    for n in num_outputs
  )


def deeplab_v3(
  tasks: Sequence[str] = ('segmentation', 'depth', 'normals'),
  num_outputs: Sequence[int] = (13, 1, 3),
  depth: int = 50,
  width: int = 64,
  head_features: int = 256,
  dropout_rate: float = 0.0,
  norm: str = 'batch',
  conv_impl: str = 'auto',
) -> _base.MultiTaskModel:
  """Builds DeepLabV3: a dilated residual network, one pyramid head per task.

  Hard parameter sharing of dense prediction: the trunk is shared, the heads are
  not. Heads have batch statistics. For NYUv2 it has 71,888,721 parameters, of
  which 23,508,032 are shared. LibMTL names this network DeepLabV3+, though it
  has no skip; its heads drop out at ``dropout_rate=0.5``.

  Args:
    tasks: the names of the tasks; the defaults are those of NYUv2.
    num_outputs: channels of each task's output.
    depth: of the residual network, 10, 18 or 50.
    width: channels inside the blocks of its first stage, 64 in the papers.
    head_features: channels inside the heads, 256 in the paper.
    dropout_rate: after the pyramid, in [0, 1).
    norm: ``'batch'`` or ``'group'``.
    conv_impl: as in `layers.conv2d`.

  Returns:
    The model; it takes images ``(B, H, W, C)`` whose height and width are
    multiples of 8. Outputs are ``(B, H, W, num_outputs)``.

  Raises:
    ValueError: if an argument is out of range or unknown.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> model = deeplab_v3(depth=18, width=2, head_features=2)
    >>> x = jax.ShapeDtypeStruct((1, 16, 24, 3), jnp.float32)
    >>> variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    >>> [y.shape for y in jax.eval_shape(model.apply, *variables, x)]
    [(1, 16, 24, 13), (1, 16, 24, 1), (1, 16, 24, 3)]

  References:
    Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation,
    2017, https://arxiv.org/abs/1706.05587
  """
  _blocks.check_outputs(tasks, num_outputs)
  _backbone.check(depth, width, norm, conv_impl)
  trunk = _backbone.DilatedResNetTrunk(
    depth, width, norm=norm, conv_impl=conv_impl
  )
  heads = make_heads(num_outputs, head_features, norm, conv_impl, dropout_rate)
  return _base.MultiTaskModel(trunk, heads, tuple(tasks))


def deeplab_v3_plus(
  tasks: Sequence[str] = ('segmentation', 'depth', 'normals'),
  num_outputs: Sequence[int] = (13, 1, 3),
  depth: int = 50,
  width: int = 64,
  head_features: int = 256,
  dropout_rate: float = 0.0,
  norm: str = 'batch',
  conv_impl: str = 'auto',
) -> _base.MultiTaskModel:
  """Builds DeepLabV3+: as `deeplab_v3`, with the skip that the paper adds.

  Each head enlarges its pyramid to the size of the first stage, puts 48
  channels of that beside, and convolves twice. All 3 x 3 convolutions are plain
  ones, as with the ResNets of the paper's ablation; at a smaller
  ``head_features`` the 48 shrink alike.

  Args:
    tasks: as in `deeplab_v3`.
    num_outputs: as there.
    depth: as there.
    width: as there.
    head_features: as there.
    dropout_rate: as there.
    norm: as there.
    conv_impl: as there.

  Returns:
    The model; it takes images ``(B, H, W, C)`` whose height and width are
    multiples of 8. Outputs are ``(B, H, W, num_outputs)``.

  Raises:
    ValueError: if an argument is out of range or unknown.

  Example:
    >>> model = deeplab_v3_plus(depth=18, width=4, head_features=16)
    >>> model.heads[0].skip
    3

  References:
    Chen et al., Encoder-Decoder with Atrous Separable Convolution for Semantic
    Image Segmentation, 2018, https://arxiv.org/abs/1802.02611
  """
  _blocks.check_outputs(tasks, num_outputs)
  _backbone.check(depth, width, norm, conv_impl)
  trunk = _backbone.DilatedResNetTrunk(
    depth, width, outputs='skip', norm=norm, conv_impl=conv_impl
  )
  heads = make_heads(
    num_outputs,
    head_features,
    norm,
    conv_impl,
    dropout_rate,
    skip=max(1, 48 * head_features // 256),
  )
  return _base.MultiTaskModel(trunk, heads, tuple(tasks))

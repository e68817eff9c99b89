"""MTAN: soft attention of each task on the features of a shared network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtljax.models import _backbone, _base, _blocks, _deeplab, _segnet, layers
from mtljax.models._resize import resize_bilinear

OWN = r'heads_\d+/(?!prediction/).*'


def _conventions() -> dict[str, _base.Sharing]:
  return {
    'trunk': _base.Sharing(
      'the network that attention looks at, as in LibMTL',
      gramian=('trunk/.*',),
    ),
    'trunk_and_blocks': _base.Sharing(
      'that and the blocks after attention, which tasks have in common, as in '
      'the code of Auto-lambda'
    ),
    'all_but_predictions': _base.Sharing(
      'that and the attention of each task, as in the codes of CAGrad, '
      'Nash-MTL and FAMO',
      shared=(OWN,),
    ),
  }


class SegNetAttentionHead(nn.Module):
  """Attention on every stage of a SegNet, and a dense head.

  Args:
    widths: of the trunk.
    num_outputs: channels of the output.
    norm: ``'batch'`` or ``'group'``.
    conv_impl: as in `layers.conv2d`.
  """

  widths: tuple[int, ...]
  num_outputs: int = 1
  norm: str = 'batch'
  conv_impl: str = 'auto'

  @nn.compact
  def __call__(self, features: Any, *, train: bool = False) -> jax.Array:
    """Maps the features of all stages to outputs (B, H, W, num_outputs)."""
    encoder, decoder = features
    attended = None

    def attend(name, seen, values):
      if attended is not None:
        seen = jnp.concatenate([seen, attended], axis=-1)
      width = values.shape[-1]
      mask = _blocks.Attention(
        width, width, self.norm, self.conv_impl, name=name
      )(seen, train=train)
      return mask * values

    def block(x, width, name):
      return _blocks.ConvNormReLU(
        width,
        self.norm,
        self.conv_impl,
        use_bias=True,
        kernel_init=_segnet.XAVIER,
        name=name,
      )(x, train=train)

    last = len(self.widths) - 1
    for i, (first, values) in enumerate(encoder):
      attended = attend(f'encoder_attention{i}', first, values)
      width = self.widths[min(i + 1, last)]
      attended = block(attended, width, f'encoder_block{i}')
      attended = layers.max_pool_2x2(attended)
    for i, (unpooled, values) in zip(range(last, -1, -1), decoder, strict=True):
      attended = resize_bilinear(
        attended, *unpooled.shape[1:3], align_corners=True
      )
      width = self.widths[max(i - 1, 0)]
      attended = block(attended, width, f'decoder_block{i}')
      attended = attend(f'decoder_attention{i}', unpooled, values)
    return _segnet.SegNetHead(
      self.num_outputs, self.conv_impl, 'mtan', name='prediction'
    )(attended, train=train)


def mtan_segnet(
  tasks: Sequence[str] = ('segmentation', 'depth', 'normals'),
  num_outputs: Sequence[int] = (13, 1, 3),
  widths: Sequence[int] = (16, 32, 64),
  num_convs: Sequence[int] = (2, 2, 2),
  norm: str = 'batch',
  conv_impl: str = 'auto',
) -> _base.MultiTaskModel:
  """Builds MTAN on SegNet, the network of its paper.

  Every stage of a shared SegNet (`segnet` with ``definition='mtan'``) is seen
  by each task through a mask of its own between 0 and 1. The convolutions after
  the masks are shared by all tasks, but are part of the heads: they are under
  ``'tied'``.

  With ``widths=(64, 128, 256, 512, 512)`` and ``num_convs=(2, 2, 3, 3, 3)`` it
  has 44,229,073 parameters for NYUv2; the 44,229,076 of the paper's code
  include three log-variances, which are the weighting's here. Which of them are
  shared is a convention: ``'trunk'`` (24,943,296), ``'trunk_and_blocks'``
  (35,163,456) or ``'all_but_predictions'`` (44,117,184).

  Where the original moves the running statistics of what tasks have in common
  once for every task, they move once a step, by the mean over tasks.

  Args:
    tasks: the names of the tasks; the defaults are those of NYUv2.
    num_outputs: channels of each task's output.
    widths: channels of each stage of the encoder.
    num_convs: convolutions of each stage.
    norm: ``'batch'`` or ``'group'``.
    conv_impl: as in `layers.conv2d`.

  Returns:
    The model; it takes images ``(B, H, W, C)`` whose height and width are
    multiples of ``2 ** len(widths)``. Outputs are ``(B, H, W, num_outputs)``.

  Raises:
    ValueError: if an argument is out of range or unknown.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> model = mtan_segnet(('a', 'b'), (2, 1), widths=(4, 8), num_convs=(2, 2))
    >>> x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    >>> shapes, _ = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    >>> [model.sharings(shapes, name).num_gramian for name in model.conventions]
    [1956, 3324, 4236]

  References:
    Liu, Johns and Davison, End-to-End Multi-Task Learning with Attention, 2019,
    https://arxiv.org/abs/1803.10704
  """
  _blocks.check_outputs(tasks, num_outputs)
  _segnet.check(widths, num_convs, norm, conv_impl)
  trunk = _segnet.SegNetTrunk(
    tuple(widths), tuple(num_convs), norm, conv_impl, 'mtan', outputs='all'
  )
  heads = tuple(
    SegNetAttentionHead(tuple(widths), n, norm, conv_impl) for n in num_outputs
  )
  tied = tuple(
    f'{half}_block{i}'
    for half in ('encoder', 'decoder')
    for i in range(len(widths))
  )
  return _base.MultiTaskModel(
    trunk, heads, tuple(tasks), tied=tied, conventions=_conventions()
  )


class ResNetAttentionHead(nn.Module):
  """Attention on every stage of a dilated residual network, and DeepLab's head.

  Args:
    channels: of the output of each stage.
    bottleneck: of what kind the blocks after attention are.
    prediction: the head.
    norm: ``'batch'`` or ``'group'``.
    conv_impl: as in `layers.conv2d`.
  """

  channels: tuple[int, ...]
  bottleneck: bool
  prediction: nn.Module
  norm: str = 'batch'
  conv_impl: str = 'auto'

  @nn.compact
  def __call__(self, features: Any, *, train: bool = False) -> jax.Array:
    """Maps the features of all stages to outputs of the image's size."""
    attended = None
    for i, (seen, values) in enumerate(features):
      if attended is not None:
        if attended.shape[1:3] != seen.shape[1:3]:
          attended = layers.max_pool_2x2(attended)
        seen = jnp.concatenate([seen, attended], axis=-1)
      width = self.channels[i]
      mask = _blocks.Attention(
        max(width // 4, 1),
        width,
        self.norm,
        self.conv_impl,
        name=f'attention{i}',
      )(seen, train=train)
      attended = mask * values
      if i + 1 < len(self.channels):
        out = self.channels[i + 1]
        attended = _blocks.ResidualBlock(
          out // 4 if self.bottleneck else out,
          self.bottleneck,
          norm=self.norm,
          conv_impl=self.conv_impl,
          name=f'block{i}',
        )(attended, train=train)
    return self.prediction(attended, train=train)


def mtan_resnet(
  tasks: Sequence[str] = ('segmentation', 'depth', 'normals'),
  num_outputs: Sequence[int] = (13, 1, 3),
  depth: int = 50,
  width: int = 64,
  head_features: int = 256,
  dropout_rate: float = 0.0,
  norm: str = 'batch',
  conv_impl: str = 'auto',
) -> _base.MultiTaskModel:
  """Builds MTAN on a dilated residual network with DeepLabV3 heads.

  In each stage a task's mask is made of what all blocks but the last give, and
  lies on what the last gives. The blocks after the masks are shared by all
  tasks, but are part of the heads: they are under ``'tied'``.

  For NYUv2 it has 92,347,921 parameters. Which of them are shared is a
  convention: ``'trunk'`` (23,508,032), ``'trunk_and_blocks'`` (31,439,424) or
  ``'all_but_predictions'`` (43,967,232).

  Args:
    tasks: as in `deeplab_v3`.
    num_outputs: as there.
    depth: of the residual network, 18 or 50.
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
    >>> model = mtan_resnet(depth=18, width=2, head_features=2)
    >>> model.tied
    ('block0', 'block1', 'block2')

  References:
    Liu, Johns and Davison, End-to-End Multi-Task Learning with Attention, 2019,
    https://arxiv.org/abs/1803.10704
  """
  _blocks.check_outputs(tasks, num_outputs)
  _backbone.check(depth, width, norm, conv_impl)
  if min(_backbone.DEPTHS[depth][0]) < 2:
    raise ValueError(
      f'depth={depth}: attention needs stages of two blocks or more; use 18 or '
      '50.'
    )
  trunk = _backbone.DilatedResNetTrunk(depth, width, 'all', norm, conv_impl)
  predictions = _deeplab.make_heads(
    num_outputs, head_features, norm, conv_impl, dropout_rate
  )
  channels = tuple(_backbone.channels(depth, width))
  heads = tuple(
    ResNetAttentionHead(
      channels, _backbone.DEPTHS[depth][1], head, norm, conv_impl
    )
    for head in predictions
  )
  return _base.MultiTaskModel(
    trunk,
    heads,
    tuple(tasks),
    tied=tuple(f'block{i}' for i in range(len(channels) - 1)),
    conventions=_conventions(),
  )

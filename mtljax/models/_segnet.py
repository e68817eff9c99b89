"""SegNet: an encoder and a decoder that share pooling indices, dense heads."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax

from mtljax import _validate
from mtljax.models import _base, _blocks, layers

DEFINITIONS = ('paper', 'mtan')
XAVIER = nn.initializers.glorot_normal()
#: Of the code of MTAN.
WIDTHS = (64, 128, 256, 512, 512)
NUM_CONVS = (2, 2, 3, 3, 3)


class SegNetTrunk(nn.Module):
  """An encoder that pools and a decoder that puts back what it pooled.

  Args:
    widths: channels of each stage of the encoder, each followed by a 2 x 2
      max-pool; the decoder mirrors it.
    num_convs: 3 x 3 convolutions of each stage, in both halves.
    norm: ``'batch'`` or ``'group'`` (gcd(8, channels) groups; no state).
    conv_impl: as in `layers.conv2d`.
    definition: as in `segnet`.
    outputs: ``'last'``; or ``'all'``, what attention reads: for each stage of
      the encoder what its first and its last convolution give, then for each
      of the decoder, the deepest first, what it unpools and its last gives.
  """

  widths: tuple[int, ...] = (16, 32, 64)
  num_convs: tuple[int, ...] = (2, 2, 2)
  norm: str = 'batch'
  conv_impl: str = 'auto'
  definition: str = 'paper'
  outputs: str = 'last'

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False):
    """Maps images (B, H, W, C) to features (B, H, W, widths[0])."""
    mtan = self.definition == 'mtan'
    check_size(x, len(self.widths))
    block = blocks(self.norm, self.conv_impl, mtan=mtan, train=train)
    pooled, encoder, decoder = [], [], []
    for i, width in enumerate(self.widths):
      names = [f'encoder{i}_{j}' for j in range(self.num_convs[i])]
      first, x = encode(block, x, width, names)
      encoder.append((first, x))
      x, indices = layers.max_pool_2x2_with_indices(x)
      pooled.append(indices)
    for i in reversed(range(len(self.widths))):
      x = first = layers.max_unpool_2x2(x, pooled[i])
      names = [f'decoder{i}_{j}' for j in range(self.num_convs[i])]
      x = decode(block, x, self.widths, i, names, mtan=mtan)
      decoder.append((first, x))
    return x if self.outputs == 'last' else (tuple(encoder), tuple(decoder))


def check_size(x: jax.Array, stages: int) -> None:
  """Raises ValueError for images that cannot be halved so often."""
  side = 2**stages
  if x.shape[1] % side or x.shape[2] % side:
    raise ValueError(
      f'x has shape {x.shape}: a SegNet of {stages} stages needs images '
      f'(B, H, W, C) whose height and width are multiples of {side}.'
    )


def blocks(
  norm: str, conv_impl: str, *, mtan: bool, train: bool
) -> Callable[[jax.Array, int, str], jax.Array]:
  """``block(x, features, name)``, inside of a module."""
  more = {'use_bias': True, 'kernel_init': XAVIER} if mtan else {}

  def block(x, features, name):
    layer = _blocks.ConvNormReLU(features, norm, conv_impl, name=name, **more)
    return layer(x, train=train)

  return block


def encode(
  block: Callable[..., jax.Array],
  x: jax.Array,
  width: int,
  names: Sequence[str],
) -> tuple[jax.Array, jax.Array]:
  """What the first and the last convolution of a stage give."""
  first = x = block(x, width, names[0])
  for name in names[1:]:
    x = block(x, width, name)
  return first, x


def decode(
  block: Callable[..., jax.Array],
  x: jax.Array,
  widths: Sequence[int],
  i: int,
  names: Sequence[str],
  *,
  mtan: bool,
) -> jax.Array:
  """Stage i of the decoder, on what is unpooled."""
  for name in names:
    # One of them has the channels that the next unpooling needs.
    narrow = i > 0 and (mtan or name == names[-1])
    x = block(x, widths[i - 1] if narrow else widths[i], name)
  return x


class SegNetHead(nn.Module):
  """A 3 x 3 convolution of as many channels, ReLU, and a 1 x 1 of outputs.

  Args:
    num_outputs: channels of the output: classes, or the numbers of a
      regression.
    conv_impl: as in `layers.conv2d`.
    definition: as in `segnet`.
  """

  num_outputs: int = 1
  conv_impl: str = 'auto'
  definition: str = 'paper'

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Maps features (B, H, W, C) to outputs (B, H, W, num_outputs)."""
    del train
    mtan = self.definition == 'mtan'
    make = functools.partial(layers.Conv, impl=self.conv_impl)
    if mtan:
      make = functools.partial(make, kernel_init=XAVIER)
    x = make(x.shape[-1], 3, name='conv')(x)
    x = x if mtan else nn.relu(x)
    return make(self.num_outputs, 1, name='out')(x)


def segnet(
  tasks: Sequence[str] = ('segmentation', 'depth', 'normals'),
  num_outputs: Sequence[int] = (13, 1, 3),
  widths: Sequence[int] = (16, 32, 64),
  num_convs: Sequence[int] = (2, 2, 2),
  norm: str = 'batch',
  conv_impl: str = 'auto',
  definition: str = 'paper',
) -> _base.MultiTaskModel:
  """Builds a SegNet shared by all tasks, with one dense head per task.

  The shared trunk is the whole encoder and decoder; each of their
  convolutions is followed by a norm and ReLU. The decoder puts each maximum
  back at the place that it was pooled from (`layers.max_unpool_2x2`), zeros
  elsewhere. The split at the decoder's output, and the heads but for their
  ReLU, are those of the baselines of MTAN.

  The defaults are small enough for a CPU; the network of the papers has
  ``widths=(64, 128, 256, 512, 512)`` and ``num_convs=(2, 2, 3, 3, 3)``. With
  ``definition='mtan'`` it then has 25,055,185 parameters for NYUv2, of which
  24,943,296 are shared.

  Args:
    tasks: the names of the tasks; the defaults are those of NYUv2.
    num_outputs: channels of each task's output, such as 13 classes, a depth,
      and a normal (which is not scaled to length one here).
    widths: channels of each stage of the encoder.
    num_convs: convolutions of each stage.
    norm: ``'batch'`` or ``'group'``.
    conv_impl: as in `layers.conv2d`.
    definition: ``'paper'``; or ``'mtan'``, as in the code of MTAN: convolutions
      have biases (which the norm undoes) and Xavier's initialization, a stage
      of the decoder narrows in its first convolution instead of its last, and
      heads have no ReLU.

  Returns:
    The model; it takes images ``(B, H, W, C)`` whose height and width are
    multiples of ``2 ** len(widths)``. Outputs are ``(B, H, W, num_outputs)``.

  Raises:
    ValueError: if an argument is out of range or unknown.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> model = segnet(widths=(4, 8), num_convs=(1, 1))
    >>> x = jnp.zeros((2, 8, 8, 3))
    >>> params, model_state = jax.jit(model.init)(jax.random.key(0), x)
    >>> outputs = jax.jit(model.apply)(params, model_state, x)
    >>> [y.shape for y in outputs]
    [(2, 8, 8, 13), (2, 8, 8, 1), (2, 8, 8, 3)]

  References:
    Badrinarayanan, Kendall and Cipolla, SegNet: A Deep Convolutional
    Encoder-Decoder Architecture for Image Segmentation, 2017,
    https://arxiv.org/abs/1511.00561; Liu, Johns and Davison, End-to-End
    Multi-Task Learning with Attention, 2019, https://arxiv.org/abs/1803.10704
  """
  _blocks.check_outputs(tasks, num_outputs)
  check(widths, num_convs, norm, conv_impl)
  _validate.one_of('definition', definition, DEFINITIONS)
  trunk = SegNetTrunk(
    widths=tuple(widths),
    num_convs=tuple(num_convs),
    norm=norm,
    conv_impl=conv_impl,
    definition=definition,
  )
  heads = [SegNetHead(n, conv_impl, definition) for n in num_outputs]
  return _base.MultiTaskModel(trunk, tuple(heads), tuple(tasks))


def check(
  widths: Sequence[int], num_convs: Sequence[int], norm: str, conv_impl: str
) -> None:
  """Raises ValueError for what is no trunk."""
  if not widths or len(widths) != len(num_convs):
    raise ValueError(
      f'widths={tuple(widths)} and num_convs={tuple(num_convs)} must both have '
      'one number for each stage, and at least one.'
    )
  for name, sizes in (('widths', widths), ('num_convs', num_convs)):
    for size in sizes:
      _validate.in_range(name, size, 1)
  _blocks.check_layers(norm, conv_impl)

"""The convolutional network of CelebA's forty attributes."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax

from mtljax import _validate
from mtljax.models import _base, _blocks, layers
from mtljax.models._resnet import LinearHead

CELEBA_ATTRIBUTES = (
  '5_o_Clock_Shadow',
  'Arched_Eyebrows',
  'Attractive',
  'Bags_Under_Eyes',
  'Bald',
  'Bangs',
  'Big_Lips',
  'Big_Nose',
  'Black_Hair',
  'Blond_Hair',
  'Blurry',
  'Brown_Hair',
  'Bushy_Eyebrows',
  'Chubby',
  'Double_Chin',
  'Eyeglasses',
  'Goatee',
  'Gray_Hair',
  'Heavy_Makeup',
  'High_Cheekbones',
  'Male',
  'Mouth_Slightly_Open',
  'Mustache',
  'Narrow_Eyes',
  'No_Beard',
  'Oval_Face',
  'Pale_Skin',
  'Pointy_Nose',
  'Receding_Hairline',
  'Rosy_Cheeks',
  'Sideburns',
  'Smiling',
  'Straight_Hair',
  'Wavy_Hair',
  'Wearing_Earrings',
  'Wearing_Hat',
  'Wearing_Lipstick',
  'Wearing_Necklace',
  'Wearing_Necktie',
  'Young',
)


class CelebATrunk(nn.Module):
  """Seven convolutions, averaged over the image, and two dense layers.

  Args:
    width: channels of the first convolution; the stages have 1, 2, 4 and 8
      times as many.
    norm: ``'batch'`` or ``'group'``.
    conv_impl: as in `layers.conv2d`.
  """

  width: int = 64
  norm: str = 'batch'
  conv_impl: str = 'auto'

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Maps images (B, H, W, C) to features (B, 8 width)."""
    count = 0
    for i, convs in enumerate((1, 2, 2, 2)):
      if i:
        x = layers.max_pool_2x2(x)
      for _ in range(convs):
        x = _blocks.ConvNormReLU(
          self.width * 2**i, self.norm, self.conv_impl, name=f'conv{count}'
        )(x, train=train)
        count += 1
    x = x.mean(axis=(1, 2))
    for i in range(2):
      x = nn.Dense(8 * self.width, use_bias=False, name=f'fc{i}')(x)
      make = _blocks.norm(self.norm, 8 * self.width, train)
      x = nn.relu(make(name=f'fc{i}_norm')(x))
    return x


def celeba_cnn(
  tasks: Sequence[str] = CELEBA_ATTRIBUTES,
  width: int = 64,
  norm: str = 'batch',
  conv_impl: str = 'auto',
) -> _base.MultiTaskModel:
  """Builds the nine-layer network of CelebA, with a logit for each attribute.

  Seven 3 x 3 convolutions without bias, each with a norm and ReLU, 2 x 2
  max-pools between the four widths, the average over the image, and two dense
  layers with a norm and ReLU. With 40 tasks it has 5,197,160 parameters, of
  which 5,176,640 are shared.

  Args:
    tasks: the names of the tasks, by default the attributes of CelebA.
    width: channels of the first convolution.
    norm: ``'batch'`` or ``'group'``.
    conv_impl: as in `layers.conv2d`.

  Returns:
    The model; it takes images ``(B, H, W, C)`` of at least 8 x 8, such as 64 x
    64. Outputs are logits ``(B, 1)``.

  Raises:
    ValueError: if an argument is out of range or unknown.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> model = celeba_cnn(width=2)
    >>> x = jax.ShapeDtypeStruct((4, 16, 16, 3), jnp.float32)
    >>> variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    >>> outputs = jax.eval_shape(model.apply, *variables, x)
    >>> len(outputs), outputs[0].shape
    (40, (4, 1))

  References:
    Liu et al., FAMO: Fast Adaptive Multitask Optimization, 2023,
    https://arxiv.org/abs/2306.03792
  """
  _validate.in_range('width', width, 1)
  _blocks.check_layers(norm, conv_impl)
  trunk = CelebATrunk(width, norm, conv_impl)
  return _base.with_same_heads(trunk, LinearHead(num_classes=1), tasks)

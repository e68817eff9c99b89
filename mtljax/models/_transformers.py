"""Small transformers: of images, cut into patches, and of token ids."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtljax import _validate
from mtljax.models import _base
from mtljax.models._resnet import LinearHead

_embedding_init = nn.initializers.normal(0.02)


class _Layer(nn.Module):
  """Attention and a dense layer, each after a norm and beside a shortcut."""

  num_heads: int
  hidden: int
  dropout_rate: float

  @nn.compact
  def __call__(self, x, mask, *, train):
    drop = nn.Dropout(self.dropout_rate, deterministic=not train)
    y = nn.LayerNorm(name='norm1')(x)
    y = nn.MultiHeadDotProductAttention(self.num_heads, name='attention')(
      y, mask=mask
    )
    x = x + drop(y)
    y = nn.LayerNorm(name='norm2')(x)
    y = nn.gelu(nn.Dense(self.hidden, name='fc1')(y))
    return x + drop(nn.Dense(x.shape[-1], name='fc2')(y))


class ViTTrunk(nn.Module):
  """A vision transformer whose features are the average over patches.

  Args:
    patch: side of a patch.
    features: size of a token.
    depth: layers.
    num_heads: of attention, in each layer.
    hidden: units between the dense layers of a layer.
    dropout_rate: after attention and dense layers.
  """

  patch: int = 4
  features: int = 64
  depth: int = 4
  num_heads: int = 4
  hidden: int = 128
  dropout_rate: float = 0.0

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Maps images (B, H, W, C) to features (B, features)."""
    b, h, w, c = x.shape
    p = self.patch
    if h % p or w % p:
      raise ValueError(
        f'x has shape {x.shape}: patch={p} needs images (B, H, W, C) whose '
        f'height and width are multiples of {p}.'
      )
    x = x.reshape(b, h // p, p, w // p, p, c).swapaxes(2, 3)
    x = x.reshape(b, (h // p) * (w // p), p * p * c)
    x = nn.Dense(self.features, name='patches')(x)
    places = self.param('places', _embedding_init, x.shape[1:])
    x = x + places[None].astype(x.dtype)
    for i in range(self.depth):
      x = _Layer(
        self.num_heads, self.hidden, self.dropout_rate, name=f'layer{i}'
      )(x, None, train=train)
    return nn.LayerNorm(name='norm')(x).mean(axis=1)


class TextTrunk(nn.Module):
  """A transformer of token ids whose features are the average over tokens.

  Args:
    vocabulary: how many ids there are; 0 stands for nothing.
    max_length: tokens of the longest text.
    features: size of a token.
    depth: layers.
    num_heads: of attention, in each layer.
    hidden: units between the dense layers of a layer.
    dropout_rate: after attention and dense layers.
  """

  vocabulary: int = 1000
  max_length: int = 64
  features: int = 64
  depth: int = 2
  num_heads: int = 4
  hidden: int = 128
  dropout_rate: float = 0.0

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Maps token ids (B, L) to features (B, features)."""
    if x.ndim != 2 or x.shape[1] > self.max_length:
      raise ValueError(
        f'x has shape {x.shape}: pass token ids (B, L) of at most '
        f'max_length={self.max_length} tokens.'
      )
    there = x != 0
    x = nn.Embed(
      self.vocabulary,
      self.features,
      embedding_init=_embedding_init,
      name='tokens',
    )(x)
    shape = self.max_length, self.features
    places = self.param('places', _embedding_init, shape)
    x = x + places[None, : x.shape[1]].astype(x.dtype)
    # A text of nothing looks at nothing: at itself, then.
    mask = (there | ~there.any(axis=1, keepdims=True))[:, None, None, :]
    for i in range(self.depth):
      x = _Layer(
        self.num_heads, self.hidden, self.dropout_rate, name=f'layer{i}'
      )(x, mask, train=train)
    x = nn.LayerNorm(name='norm')(x)
    kept = there[..., None].astype(x.dtype)
    return (x * kept).sum(axis=1) / jnp.maximum(kept.sum(axis=1), 1)


def vit(
  tasks: Sequence[str] = ('left', 'right'),
  num_classes: int = 10,
  patch: int = 4,
  features: int = 64,
  depth: int = 4,
  num_heads: int = 4,
  hidden: int = 128,
  dropout_rate: float = 0.0,
) -> _base.MultiTaskModel:
  """Builds a small vision transformer with linear heads.

  Norms come before attention and dense layers, and the features are the average
  over patches, not a token of their own.

  Args:
    tasks: the names of the tasks.
    num_classes: logits per task.
    patch: side of a patch.
    features: size of a token, a multiple of ``num_heads``.
    depth: layers.
    num_heads: of attention, in each layer.
    hidden: units between the dense layers of a layer.
    dropout_rate: in [0, 1); 0 needs no key.

  Returns:
    The model; it takes images ``(B, H, W, C)`` whose height and width are
    multiples of ``patch``, all of the same size.

  Raises:
    ValueError: if an argument is out of range.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> model = vit(depth=1, features=8, hidden=8)
    >>> x = jnp.zeros((2, 8, 8, 1))
    >>> params, model_state = jax.jit(model.init)(jax.random.key(0), x)
    >>> [y.shape for y in jax.jit(model.apply)(params, model_state, x)]
    [(2, 10), (2, 10)]

  References:
    Dosovitskiy et al., An Image is Worth 16x16 Words, 2020,
    https://arxiv.org/abs/2010.11929
  """
  _validate.in_range('patch', patch, 1)
  _check(num_classes, features, depth, num_heads, hidden, dropout_rate)
  trunk = ViTTrunk(patch, features, depth, num_heads, hidden, dropout_rate)
  return _base.with_same_heads(trunk, LinearHead(num_classes), tasks)


def text_encoder(
  tasks: Sequence[str],
  num_classes: int = 2,
  vocabulary: int = 1000,
  max_length: int = 64,
  features: int = 64,
  depth: int = 2,
  num_heads: int = 4,
  hidden: int = 128,
  dropout_rate: float = 0.0,
) -> _base.MultiTaskModel:
  """Builds a small transformer of texts with linear heads.

  The id 0 stands for nothing: no token looks at it, and the average over tokens
  leaves it out. A text of nothing has features of zeros.

  Args:
    tasks: the names of the tasks.
    num_classes: logits per task.
    vocabulary: how many ids there are.
    max_length: tokens of the longest text.
    features: size of a token, a multiple of ``num_heads``.
    depth: layers.
    num_heads: of attention, in each layer.
    hidden: units between the dense layers of a layer.
    dropout_rate: in [0, 1); 0 needs no key.

  Returns:
    The model; it takes token ids ``(B, L)``, integers, ``L <= max_length``.

  Raises:
    ValueError: if an argument is out of range.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> model = text_encoder(('mood', 'topic'), depth=1, features=8, hidden=8)
    >>> x = jnp.array([[5, 7, 0, 0], [3, 3, 3, 3]])
    >>> params, model_state = jax.jit(model.init)(jax.random.key(0), x)
    >>> [y.shape for y in jax.jit(model.apply)(params, model_state, x)]
    [(2, 2), (2, 2)]

  References:
    Vaswani et al., Attention Is All You Need, 2017,
    https://arxiv.org/abs/1706.03762
  """
  _validate.in_range('vocabulary', vocabulary, 2)
  _validate.in_range('max_length', max_length, 1)
  _check(num_classes, features, depth, num_heads, hidden, dropout_rate)
  trunk = TextTrunk(
    vocabulary, max_length, features, depth, num_heads, hidden, dropout_rate
  )
  return _base.with_same_heads(trunk, LinearHead(num_classes), tasks)


def _check(num_classes, features, depth, num_heads, hidden, dropout_rate):
  _validate.in_range('num_classes', num_classes, 1)
  _validate.in_range('depth', depth, 1)
  _validate.in_range('num_heads', num_heads, 1)
  _validate.in_range('hidden', hidden, 1)
  _validate.in_range('dropout_rate', dropout_rate, 0.0, 0.999)
  if features < 1 or features % num_heads:
    raise ValueError(
      f'features={features} must be a multiple of num_heads={num_heads}.'
    )

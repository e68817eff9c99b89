"""A transformer encoder of six layers, written out and as a loop over layers.

Width 256, 8 examples of 32 tokens, a linear head for each of eight tasks.
"""

from __future__ import annotations

import flax.linen as nn

from benchmarks import _models
from mtljax.models import MultiTaskModel

NAMES = ('encoder', 'encoder_scan', 'encoder_remat')


class _Layer(nn.Module):
  width: int

  @nn.compact
  def __call__(self, x):
    mixed = nn.MultiHeadDotProductAttention(8)(nn.LayerNorm()(x))
    x = x + mixed
    z = nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x)))
    return x + nn.Dense(self.width)(z), None


class _Encoder(nn.Module):
  """``kind`` is one of `NAMES`."""

  kind: str
  width: int
  depth: int

  @nn.compact
  def __call__(self, x, *, train=False):
    del train
    if self.kind == 'encoder':
      for _ in range(self.depth):
        x, _ = _Layer(self.width)(x)
      return x.mean(1)
    layer = _Layer
    if self.kind == 'encoder_remat':
      layer = nn.remat(_Layer, prevent_cse=False)
    layers = nn.scan(
      layer,
      variable_axes={'params': 0},
      split_rngs={'params': True},
      length=self.depth,
    )
    return layers(self.width)(x)[0].mean(1)


class _Head(nn.Module):
  num_outputs: int = 1

  @nn.compact
  def __call__(self, x, *, train=False):
    del train
    return nn.Dense(self.num_outputs, name='out')(x)


def make_case(name: str, quick: bool = False) -> _models.Case:
  """A case by its name, one of `NAMES`; ``quick``: everything small."""
  size, width, depth = (2, 16, 2) if quick else (8, 256, 6)
  model = MultiTaskModel(
    trunk=_Encoder(name, width, depth),
    heads=tuple(_Head() for _ in range(8)),
    tasks=_models.task_names(8),
  )
  return _models.build_case(name, model, (size, 32, width), ['binary'] * 8)

"""Networks from coordinates to fields."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies.pinn.problems import Equation


class TanhMLP(nn.Module):
  """Layers of tanh on coordinates scaled to [-1, 1], as the literature has.

  Attributes:
    low: lower ends of the box.
    high: upper ends.
    hidden_sizes: units of the layers.
    num_outputs: K.
  """

  low: tuple[float, ...]
  high: tuple[float, ...]
  hidden_sizes: tuple[int, ...]
  num_outputs: int

  @nn.compact
  def __call__(self, points: jax.Array) -> jax.Array:
    """From points, shape ``(N, D)``, to values, ``(N, K)``."""
    x = _scaled(points, self.low, self.high)
    return _layers(x, self.hidden_sizes, self.num_outputs)


class FourierMLP(nn.Module):
  """The same on sines and cosines of random projections, which stay.

  `Tancik et al., Fourier Features Let Networks Learn High Frequency Functions
  in Low Dimensional Domains <https://arxiv.org/abs/2006.10739>`_.

  Attributes:
    low: lower ends of the box.
    high: upper ends.
    hidden_sizes: units of the layers; half the first as many projections.
    num_outputs: K.
    scale: standard deviation of the projections, in waves over the box.
    seed: of the projections.
  """

  low: tuple[float, ...]
  high: tuple[float, ...]
  hidden_sizes: tuple[int, ...]
  num_outputs: int
  scale: float = 1.0
  seed: int = 0

  @nn.compact
  def __call__(self, points: jax.Array) -> jax.Array:
    """From points, shape ``(N, D)``, to values, ``(N, K)``."""
    x = _scaled(points, self.low, self.high)
    rng = np.random.default_rng(self.seed)
    shape = len(self.low), max(self.hidden_sizes[0] // 2, 1)
    projections = np.pi * self.scale * rng.normal(size=shape)
    waves = x @ jnp.asarray(projections, x.dtype)
    x = jnp.concatenate([jnp.sin(waves), jnp.cos(waves)], axis=1)
    return _layers(x, self.hidden_sizes, self.num_outputs)


def _scaled(points, low, high):
  a, b = (jnp.array(x, points.dtype)[None] for x in (low, high))
  return 2 * (points - a) / (b - a) - 1


def _layers(x, hidden_sizes, num_outputs):
  for size in hidden_sizes:
    x = jnp.tanh(nn.Dense(size, kernel_init=nn.initializers.glorot_normal())(x))
  return nn.Dense(num_outputs, kernel_init=nn.initializers.glorot_normal())(x)


Make = Callable[..., nn.Module]
NETWORKS: dict[str, Make] = {'tanh': TanhMLP, 'fourier': FourierMLP}


def make_network(
  name: str, equation: Equation, hidden_sizes: tuple[int, ...]
) -> nn.Module:
  """A network of `NETWORKS` for an equation."""
  return NETWORKS[name](
    low=equation.low,
    high=equation.high,
    hidden_sizes=hidden_sizes,
    num_outputs=len(equation.outputs),
  )

"""Five more networks: recurrent, mixing, looking up, differentiating, graphs.

Cases as those of `benchmarks._models`, for three or four tasks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import mtljax as mtl
from benchmarks import _models
from mtljax.models import MultiTaskModel

NAMES = ('lstm', 'mixer', 'recommender', 'pinn', 'message_passing')


class _Lstm(nn.Module):
  width: int

  @nn.compact
  def __call__(self, x, *, train=False):
    del train
    return nn.RNN(nn.OptimizedLSTMCell(self.width))(x)[:, -1]


class _Mixer(nn.Module):
  width: int
  depth: int

  @nn.compact
  def __call__(self, x, *, train=False):
    del train
    places = x.shape[1]
    x = nn.Dense(self.width)(x)
    for _ in range(self.depth):
      z = nn.LayerNorm()(x).swapaxes(1, 2)
      z = nn.Dense(places)(nn.gelu(nn.Dense(2 * places)(z)))
      x = x + z.swapaxes(1, 2)
      z = nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x)))
      x = x + nn.Dense(self.width)(z)
    return x.mean(1)


class _Recommender(nn.Module):
  rows: int
  width: int

  @nn.compact
  def __call__(self, x, *, train=False):
    del train
    fields = [
      nn.Embed(self.rows, self.width, name=f'field_{i}')(x[:, i])
      for i in range(x.shape[1])
    ]
    z = jnp.concatenate(fields, axis=-1)
    for width in (8 * self.width, 4 * self.width):
      z = nn.relu(nn.Dense(width)(z))
    return z


class _MessagePassing(nn.Module):
  """Nodes of complete graphs, with a weight for each pair."""

  width: int
  depth: int

  @nn.compact
  def __call__(self, x, *, train=False):
    del train
    x = nn.Dense(self.width)(x)
    for _ in range(self.depth):
      one, other = nn.Dense(self.width)(x), nn.Dense(self.width)(x)
      pairs = nn.silu(one[:, :, None] + other[:, None, :])
      messages = nn.Dense(self.width)(pairs).sum(2)
      x = x + nn.silu(nn.Dense(self.width)(messages))
    return x.sum(1)


class _Head(nn.Module):
  @nn.compact
  def __call__(self, x, *, train=False):
    del train
    return nn.Dense(1)(x)


def _of_trunk(name, trunk, x, num_tasks) -> _models.Case:
  model = MultiTaskModel(
    trunk=trunk,
    heads=tuple(_Head() for _ in range(num_tasks)),
    tasks=_models.task_names(num_tasks),
  )
  case = _models.build_case(name, model, x.shape, ['binary'] * num_tasks)
  return case._replace(batch={**case.batch, 'x': x})


def _normal(*shape: int) -> jax.Array:
  return jax.random.normal(jax.random.key(2), shape)


def lstm(quick: bool = False) -> _models.Case:
  """An LSTM of 256 units on 32 x 32 steps of 64 numbers."""
  size, steps, width = (4, 8, 16) if quick else (32, 32, 256)
  return _of_trunk('lstm', _Lstm(width), _normal(size, steps, 64), 4)


def mixer(quick: bool = False) -> _models.Case:
  """An MLP-mixer of four layers of width 256 on 16 x 64 patches."""
  size, places, width, depth = (2, 8, 16, 2) if quick else (16, 64, 256, 4)
  x = _normal(size, places, 48)
  return _of_trunk('mixer', _Mixer(width, depth), x, 4)


def recommender(quick: bool = False) -> _models.Case:
  """Eight tables of 10,000 rows of width 32, then three dense layers."""
  size, rows, width = (8, 50, 8) if quick else (256, 10_000, 32)
  x = jax.random.randint(jax.random.key(2), (size, 8), 0, rows)
  return _of_trunk('recommender', _Recommender(rows, width), x, 3)


def message_passing(quick: bool = False) -> _models.Case:
  """Four rounds of messages of width 128 in 16 complete graphs of 16 nodes."""
  size, nodes, width, depth = (2, 4, 16, 2) if quick else (16, 16, 128, 4)
  x = _normal(size, nodes, 16)
  return _of_trunk('message_passing', _MessagePassing(width, depth), x, 4)


@dataclasses.dataclass(frozen=True)
class Pinn:
  """The heat equation by a network: in the inside, at walls, at the start."""

  size: int
  width: int
  depth: int = 4
  name: str = 'pinn'
  num_tasks: int = 3

  @property
  def batch(self) -> dict[str, jax.Array]:
    """Points ``(size, 2)`` of time and place for each task."""
    points = jax.random.uniform(jax.random.key(2), (3, self.size, 2))
    walls = points[1].at[:, 1].set(jnp.round(points[1, :, 1]))
    return {
      'inside': points[0],
      'walls': walls,
      'start': points[2].at[:, 0].set(0.0),
    }

  @property
  def loss(self) -> Callable[..., Any]:
    """For ``make_train_step(..., has_state=True)``."""

    def u(params, point):
      z = point[None]
      for i, (w, b) in enumerate(params):
        z = z @ w + b[None]
        z = jnp.tanh(z) if i < len(params) - 1 else z
      return z[0, 0]

    def residual(params, point):
      gradient = jax.grad(u, 1)
      across = jnp.array([0.0, 1.0])
      _, second = jax.jvp(lambda x: gradient(params, x), (point,), (across,))
      return gradient(params, point)[0] - 0.1 * second[1]

    def losses(params, batch, model_state, key):
      del key
      of_all = lambda fun, x: jax.vmap(fun, (None, 0))(params, x)
      wanted = jnp.sin(jnp.pi * batch['start'][:, 1])
      found = jnp.stack(
        [
          jnp.mean(of_all(residual, batch['inside']) ** 2),
          jnp.mean(of_all(u, batch['walls']) ** 2),
          jnp.mean((of_all(u, batch['start']) - wanted) ** 2),
        ]
      )
      return found, (model_state, {})

    return losses

  def init(self) -> tuple[Any, Any, Any]:
    """The parameters, the model's state, and the labels."""
    sizes = [2, *[self.width] * self.depth, 1]
    keys = jax.random.split(jax.random.key(0), len(sizes) - 1)
    params = [
      (jax.random.normal(key, (a, b)) / a**0.5, jnp.zeros(b))
      for key, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]
    return params, {}, mtl.label_params(params, shared='.*', tasks=())


def pinn(quick: bool = False) -> Pinn:
  """Three losses at 256 points each of a network of four layers of 128."""
  return Pinn(8, 16) if quick else Pinn(256, 128)


_CASES: dict[str, Callable[..., Any]] = {
  'lstm': lstm,
  'mixer': mixer,
  'recommender': recommender,
  'pinn': pinn,
  'message_passing': message_passing,
}


def make_case(name: str, quick: bool = False) -> Any:
  """A case by its name, one of `NAMES`; ``quick``: everything small."""
  return _CASES[name](quick=quick)

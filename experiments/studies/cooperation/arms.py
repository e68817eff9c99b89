"""The sub-models of a problem, and the train step of each arm."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtljax as mtl
from experiments.studies.cooperation.claims import (
  ALTERNATING,
  APART,
  JOINT,
  MOVED_TIMES,
  MOVES,
  NOISES,
  TOGETHER,
)
from experiments.studies.cooperation.problems import PairedTasks
from mtljax.training import TrainStep, cooperative, make_train_step


class Layers(nn.Module):
  """Linear layers with a ReLU between each two."""

  sizes: Sequence[int]

  @nn.compact
  def __call__(self, x):
    """The last layer's outputs."""
    for size in self.sizes[:-1]:
      x = nn.relu(nn.Dense(size)(x))
    return nn.Dense(self.sizes[-1])(x)


@dataclasses.dataclass(frozen=True, eq=False)
class SubModelPair:
  """Two sub-models: an encoder of a modality and a decoder of both's features.

  Attributes:
    tasks: what they are trained on.
    hidden: width of the hidden layers.
    width: of the features of each.
  """

  tasks: PairedTasks
  hidden: int
  width: int

  def _encoder(self) -> Layers:
    return Layers((self.hidden, self.width))

  def _decoder(self, t: int) -> Layers:
    return Layers((self.hidden, self.tasks.classes[t]))

  def init(self, key: jax.Array) -> tuple[Any, ...]:
    """The parameters of both."""
    found = []
    for t, own in enumerate(jax.random.split(key)):
      first, second = jax.random.split(own)
      x = self.tasks.splits['train'][f'x{t}'][:1]
      found.append(
        {
          'encoder': self._encoder().init(first, x),
          'decoder': self._decoder(t).init(
            second, jnp.zeros((1, 2 * self.width))
          ),
        }
      )
    return tuple(found)

  def features(self, t: int, params: Any, batch: Mapping[str, Any]) -> Any:
    """Of sub-model t, ``(B, width)``."""
    return self._encoder().apply(params['encoder'], batch[f'x{t}'])

  def logits(self, t: int, params: Any, features: Sequence[Any]) -> Any:
    """Of task t, by the features of both."""
    both = jnp.concatenate(list(features), axis=1)
    return self._decoder(t).apply(params['decoder'], both)

  def loss(
    self, t: int, params: Any, features: Sequence[Any], batch: Any
  ) -> jax.Array:
    """The mean cross-entropy of task t."""
    return jnp.mean(
      optax.losses.softmax_cross_entropy_with_integer_labels(
        self.logits(t, params, features), batch[f'y{t}']
      )
    )

  def functions(self, apart: bool = False) -> tuple[list[Any], list[Any]]:
    """Features and losses; apart, the other's features are zeros."""

    def seen(t, features):
      if not apart:
        return features
      return [
        f if s == t else jnp.zeros_like(f) for s, f in enumerate(features)
      ]

    def loss(t, params, features, batch):
      return self.loss(t, params, seen(t, features), batch)

    return (
      [functools.partial(self.features, t) for t in range(2)],
      [functools.partial(loss, t) for t in range(2)],
    )

  @functools.cached_property
  def measured(self) -> Any:
    """Of both sub-models on all of a split: accuracies and losses, jitted."""

    def measure(params, arrays, apart):
      features = [self.features(t, params[t], arrays) for t in range(2)]
      right, losses = [], []
      for t in range(2):
        seen = [f * (1 - apart * (s != t)) for s, f in enumerate(features)]
        logits = self.logits(t, params[t], seen)
        right.append(jnp.mean(jnp.argmax(logits, axis=1) == arrays[f'y{t}']))
        losses.append(self.loss(t, params[t], seen, arrays))
      return jnp.stack(right), jnp.stack(losses)

    return jax.jit(measure)

  @functools.cached_property
  def changes(self) -> Any:
    """How the losses change when the other is moved, jitted."""

    def change(params, arrays, key):
      return {
        moved: cooperative.loss_changes(
          *self.functions(),
          params,
          arrays,
          jax.random.fold_in(key, i),
          bound=bound,
          num_noises=MOVED_TIMES,
          moved=moved,
        )
        for i, (moved, bound) in enumerate(MOVES.items())
      }

    return jax.jit(change)


def make_plain(pair: SubModelPair, arm: str, learning_rate: float) -> TrainStep:
  """The train step of an arm without a search."""
  optimizer = optax.adam(learning_rate)
  functions = pair.functions(apart=arm == APART)
  if arm == JOINT:
    return make_train_step(
      mtl.sum_losses(2), optimizer, cooperative.joint_losses(*functions)
    )
  turns = {ALTERNATING: 'cyclic', TOGETHER: 'together', APART: 'together'}
  return cooperative.make_cooperative_step(
    *functions, optimizer, search='none', turns=turns[arm]
  )


def make_search(
  pair: SubModelPair,
  search: str,
  learning_rate: float,
  warmup_steps: int,
  hparams: Mapping[str, Any],
) -> TrainStep:
  """The train step of an arm with a search, within ``hparams['bound']``."""
  return cooperative.make_cooperative_step(
    *pair.functions(),
    optax.adam(learning_rate),
    search=search,
    bound=hparams['bound'],
    num_noises=NOISES if search == 'uniform' else 1,
    scale='relative',
    warmup_steps=warmup_steps,
  )


def means(found: Any) -> list[float]:
  """Of arrays over the tasks."""
  return [float(np.mean(np.asarray(x))) for x in found]

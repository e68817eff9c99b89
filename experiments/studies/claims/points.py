"""Strictly convex quadratics, where stationarity and minima are known."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtljax as mtl
from mtljax import data
from mtljax.training import TrainState, make_train_step

NUM_TASKS, SIZE = 3, 10
STEPS, RATE = 1000, 0.05

ARMS: dict[str, Callable[[], Any]] = {
  'fair_1': lambda: mtl.fairgrad(NUM_TASKS, alpha=1.0),
  'fair_2': lambda: mtl.fairgrad(NUM_TASKS, alpha=2.0),
  'fair_5': lambda: mtl.fairgrad(NUM_TASKS, alpha=5.0),
  'cagrad_0_2': lambda: mtl.cagrad(NUM_TASKS, c=0.2),
  'cagrad_0_5': lambda: mtl.cagrad(NUM_TASKS, c=0.5),
  'cagrad_0_9': lambda: mtl.cagrad(NUM_TASKS, c=0.9),
  'mgda': lambda: mtl.mgda(NUM_TASKS),
}


def losses(params: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
  """Half the squared distance to each center, by curvature, ``(T,)``."""
  away = params[None] - batch['center'][0]
  return 0.5 * jnp.sum(batch['curvature'][0] * away**2, axis=1)


def draw(seed: int) -> dict[str, np.ndarray]:
  """Centers and curvatures of the tasks, and where to begin, in a row."""
  rng = np.random.default_rng([seed, 4])
  shape = 1, NUM_TASKS, SIZE
  found = {
    'center': rng.normal(size=shape),
    'curvature': 10 ** rng.uniform(-0.5, 0.5, size=shape),
    'start': 3 * rng.normal(size=(1, SIZE)),
  }
  return {name: x.astype(np.float32) for name, x in found.items()}


def make_step(arm: str):
  """Gradient descent whose steps fall to zero along a cosine."""
  schedule = optax.cosine_decay_schedule(RATE, STEPS)
  return make_train_step(ARMS[arm](), optax.sgd(schedule), losses)


def start(step: Any, seed: int) -> TrainState:
  """The state of a seed before its first step."""
  point = jnp.asarray(draw(seed)['start'][0])
  return step.init(point, key=jax.random.key(seed))


def batches(seed: int) -> Iterator[Any]:
  """The problem of a seed, again and again."""
  return data.make_train_iterator(draw(seed), batch_size=1, seed=seed)


@functools.cache
def _solver() -> Any:
  return jax.jit(mtl.weightings.mgda().update)


def _shortest(arrays: Mapping[str, np.ndarray], point: Any) -> float:
  """The length of the shortest convex combination of the gradients."""
  away = np.asarray(point) - arrays['center'][0]
  gradients = arrays['curvature'][0] * away
  gramian = jnp.asarray(gradients @ gradients.T)
  state = mtl.weightings.mgda().init(NUM_TASKS)
  weights = _solver()(mtl.TaskStats(gramian=gramian), state)[0]
  return float(np.linalg.norm(np.asarray(weights) @ gradients))


def measure(seed: int, state: TrainState) -> dict[str, float]:
  """How far a state is from being stationary, and from the mean's minimum.

  Returns:
    ``stationarity``: the shortest convex combination of the gradients, by that
    at the start. ``gap``: the mean loss above its minimum, by that at the
    start.
  """
  arrays = draw(seed)
  point, first = np.asarray(state.params), arrays['start'][0]
  center, curvature = arrays['center'][0], arrays['curvature'][0]
  best = np.sum(curvature * center, 0) / np.sum(curvature, 0)
  mean = lambda x: float(jnp.mean(losses(jnp.asarray(x), arrays)))
  return {
    'stationarity': _shortest(arrays, point) / _shortest(arrays, first),
    'gap': (mean(point) - mean(best)) / (mean(first) - mean(best)),
  }

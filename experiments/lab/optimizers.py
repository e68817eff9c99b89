"""Optimizers by name, from a learning rate or a schedule."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import mtljax as mtl
from experiments.lab.options import flag
from mtljax import _validate
from mtljax.training import TrainState

MOMENTUM = 0.9

Make = Callable[[Any], optax.GradientTransformation]

ADAM: Make = optax.adam
SGD: Make = optax.sgd
HEAVY_BALL: Make = functools.partial(optax.sgd, momentum=MOMENTUM)
SIGN: Make = mtl.signsgd
SIGN_HEAVY_BALL: Make = functools.partial(mtl.signsgd, momentum=MOMENTUM)

#: What ``--schedule`` takes.
PLATEAU = 'plateau'
SCHEDULES = ('cosine', 'constant', 'step', PLATEAU)

#: What ``--optimizer`` takes.
OPTIMIZERS: dict[str, Make] = {
  'adam': ADAM,
  'adamw': optax.adamw,
  'sgd': SGD,
  'momentum': HEAVY_BALL,
}


@dataclasses.dataclass(frozen=True)
class ScheduleOptions:
  """How a learning rate goes on."""

  schedule: str = 'cosine'
  """How the learning rate goes on: cosine (to zero), constant, step, or plateau
  (it falls when the score on validation stalls)."""
  decay_every: int = 100
  """Epochs after which step multiplies it."""
  decay_factor: float = 0.5
  """What step and plateau multiply it by."""
  patience: int = 5
  """Epochs in a row without a better score that plateau lets pass; after one
  more it multiplies."""
  min_learning_rate: float = 1e-5
  """Where plateau ends."""


def check_schedule(
  config: ScheduleOptions, learning_rate: float, last_epochs: int
) -> None:
  """Raises ValueError for what is no schedule from a learning rate."""
  _validate.one_of('--schedule', config.schedule, SCHEDULES)
  _validate.in_range('--decay-factor', config.decay_factor, 0, open_low=True)
  for name, low in (('decay_every', 1), ('patience', 0)):
    _validate.in_range(flag(name), getattr(config, name), low)
  if config.schedule == PLATEAU:
    _validate.in_range(
      '--decay-factor', config.decay_factor, 0, 1, open_low=True, open_high=True
    )
    _validate.in_range(
      '--min-learning-rate', config.min_learning_rate, 0, learning_rate
    )
    if last_epochs:
      raise ValueError(
        f'--schedule plateau and --last-epochs {last_epochs}: the rate falls '
        'by the score that selects a state, and none is; leave one out.'
      )


def check_takes(method: mtl.Aggregator, name: str, schedule: str) -> None:
  """Raises ValueError for a method that a schedule does not reach."""
  if schedule == PLATEAU and method.info.is_optimizer:
    raise ValueError(
      f'--schedule plateau and the method {name}, which is an optimizer of its '
      'own: take another schedule or another method.'
    )


class PlateauState(NamedTuple):
  """What stands in the optimizer's state, so that it is saved with it."""

  scale: jax.Array  # float32, times the update
  best: jax.Array  # float32, of the scores
  waited: jax.Array  # int32, epochs since it was better


class Plateau:
  """A learning rate that falls when validation stalls, as PyTorch's does.

  A score is better that is so by a ten-thousandth of the best one's size, which
  is PyTorch's rule for errors above 0 (``'min'``) and for shares (``'max'``).
  `optax.contrib.reduce_on_plateau` acts an epoch earlier, and calls no worse
  what is a little worse below 0.

  Args:
    config: the options.
    learning_rate: of the first step.
  """

  def __init__(self, config: ScheduleOptions, learning_rate: float):
    self._config = config
    self._least = min(1.0, config.min_learning_rate / learning_rate)

  def scaled(self, make: Make) -> Make:
    """An optimizer whose updates have the scale."""

    def init(params):
      del params
      return PlateauState(
        jnp.ones((), jnp.float32),
        jnp.full((), -jnp.inf, jnp.float32),
        jnp.zeros((), jnp.int32),
      )

    def update(updates, state, params=None):
      del params
      scale = lambda u: (state.scale * u).astype(u.dtype)
      return jax.tree.map(scale, updates), state

    last = optax.GradientTransformation(init, update)
    return lambda learning_rate: optax.chain(make(learning_rate), last)

  def after(self, state: TrainState, score: float) -> TrainState:
    """The state after an epoch with this score, of which higher is better."""
    is_plateau = lambda x: isinstance(x, PlateauState)

    def told(x):
      return self._told(x, score) if is_plateau(x) else x

    opt_state = jax.tree.map(told, state.opt_state, is_leaf=is_plateau)
    return dataclasses.replace(state, opt_state=opt_state)

  def _told(self, state: PlateauState, score: float) -> PlateauState:
    scale, best, waited = (x.item() for x in jax.device_get(state))
    if not math.isfinite(best) or score > best + 1e-4 * abs(best):
      best, waited = score, 0
    else:
      waited += 1
    if waited > self._config.patience:
      scale, waited = max(scale * self._config.decay_factor, self._least), 0
    return jax.tree.map(_like, PlateauState(scale, best, waited), state)


def _like(value: float, old: jax.Array) -> jax.Array:
  """A number where another is, so that no step is compiled anew."""
  new = jnp.asarray(value, old.dtype)
  return jax.device_put(new, old.sharding) if old.committed else new


def make_plateau(
  config: ScheduleOptions, learning_rate: float
) -> Plateau | None:
  """What falls when validation stalls, if that is the schedule."""
  return Plateau(config, learning_rate) if config.schedule == PLATEAU else None


def make_schedule(
  name: str, rate: float, steps: int, *, every: int, factor: float
) -> optax.Schedule:
  """The learning rate of each step.

  Args:
    name: ``'cosine'``, which falls to zero; ``'step'``; ``'constant'``, and
      ``'plateau'``, whose scale is that of `Plateau`.
    rate: of the first step.
    steps: of the whole run.
    every: steps after which ``'step'`` multiplies it.
    factor: what it multiplies by.
  """
  if name == 'cosine':
    return optax.cosine_decay_schedule(rate, steps)
  if name in ('constant', PLATEAU):
    return optax.constant_schedule(rate)
  return optax.exponential_decay(rate, every, factor, staircase=True)


def with_weight_decay(name: str, weight_decay: float) -> Make:
  """One of `OPTIMIZERS`, with a penalty on the size of the parameters.

  Args:
    name: of the optimizer.
    weight_decay: times each parameter, it is added to its gradient, or, with
      ``'adamw'``, to its update; 0 is the optimizer as it is.
  """
  make = OPTIMIZERS[name]
  if not weight_decay:
    return make
  if name == 'adamw':
    return functools.partial(optax.adamw, weight_decay=weight_decay)
  return lambda learning_rate: optax.chain(
    optax.add_decayed_weights(weight_decay), make(learning_rate)
  )

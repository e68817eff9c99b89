"""Optimizers by name, from a learning rate or a schedule."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import optax

import mtljax as mtl

MOMENTUM = 0.9

Make = Callable[[Any], optax.GradientTransformation]

ADAM: Make = optax.adam
SGD: Make = optax.sgd
HEAVY_BALL: Make = functools.partial(optax.sgd, momentum=MOMENTUM)
SIGN: Make = mtl.signsgd
SIGN_HEAVY_BALL: Make = functools.partial(mtl.signsgd, momentum=MOMENTUM)

#: What ``--schedule`` takes.
SCHEDULES = ('cosine', 'constant', 'step')

#: What ``--optimizer`` takes.
OPTIMIZERS: dict[str, Make] = {
  'adam': ADAM,
  'adamw': optax.adamw,
  'sgd': SGD,
  'momentum': HEAVY_BALL,
}


def make_schedule(
  name: str, rate: float, steps: int, *, every: int, factor: float
) -> optax.Schedule:
  """The learning rate of each step.

  Args:
    name: ``'cosine'``, which falls to zero; ``'constant'``; or ``'step'``.
    rate: of the first step.
    steps: of the whole run.
    every: steps after which ``'step'`` multiplies it.
    factor: what it multiplies by.
  """
  if name == 'cosine':
    return optax.cosine_decay_schedule(rate, steps)
  if name == 'constant':
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

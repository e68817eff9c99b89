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

#: What ``--optimizer`` takes.
OPTIMIZERS: dict[str, Make] = {
  'adam': ADAM,
  'adamw': optax.adamw,
  'sgd': SGD,
  'momentum': HEAVY_BALL,
}

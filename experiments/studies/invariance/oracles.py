"""What a factor on a loss does to a chain exactly, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtljax as mtl

POWER = 2.0**7
FACTORS = (10.0, 0.1)
STEPS = 50
SIZE = 5
EPS = 1e-3
RATE = 0.1


class Oracle(NamedTuple):
  """Two trainings whose displacements are known multiples of each other.

  Attributes:
    name: as shown.
    dtype: that they are done in.
    factors: of the losses, as text.
    times: how many times the displacement of the first is expected.
    plain: the displacement without factors.
    scaled: that with them.
    bound: the largest relative difference; 0 is equal to the bit.
  """

  name: str
  dtype: str
  factors: str
  times: float
  plain: Callable[[], jax.Array]
  scaled: Callable[[], jax.Array]
  bound: float


def _summed(optimizer):
  return optax.chain(mtl.sum_losses(2), optimizer)


def _adam(eps):
  return _summed(optax.adam(RATE, eps=eps))


def _adatask(eps):
  return mtl.adatask(2, RATE, eps=eps)


def _follow(tx, factor):
  """The displacement under given gradients, times the factor."""

  def displacement():
    key = jax.random.key(0)
    grads = factor * jax.random.normal(key, (STEPS, 2, SIZE), jnp.float32)

    def step(carry, g):
      point, state = carry
      updates, state = tx.update(g, state, point)
      return (optax.apply_updates(point, updates), state), None

    start = jnp.zeros(SIZE, jnp.float32)
    return jax.lax.scan(step, (start, tx.init(start)), grads)[0][0]

  return displacement


def _uncertainty(factors, shift):
  """The displacement with learned weights that start at ``shift``."""

  def displacement():
    factor, start = jnp.asarray(factors), jnp.zeros(3)
    tx = optax.chain(
      mtl.uncertainty(2, log_variance=jnp.asarray(shift)),
      optax.sgd(0.01, momentum=0.9),
    )

    def losses(w):
      return factor * jnp.stack(
        [jnp.sum((w - 1) ** 2), 1 + jnp.sum((w + 2) ** 2)]
      )

    def step(carry, _):
      w, state = carry
      found, grads = mtl.value_and_task_grads(losses)(w)
      updates, state = tx.update(grads, state, w, losses=found)
      return (optax.apply_updates(w, updates), state), None

    return jax.lax.scan(step, (start, tx.init(start)), length=STEPS)[0][0]

  return displacement


def oracles() -> list[Oracle]:
  """The rows, in order; the last two are what goes wrong without the remedy."""
  power = f'{POWER:g}'

  def exact(name, make, times=1.0):
    plain, scaled = _follow(make(1.0), 1.0), _follow(make(POWER), POWER)
    return Oracle(name, 'float32', power, times, plain, scaled, 0.0)

  none, pair = (0.0, 0.0), ', '.join(f'{x:g}' for x in FACTORS)
  without = _uncertainty((1.0, 1.0), none)
  shifted = _uncertainty(FACTORS, tuple(np.log(FACTORS)))
  return [
    exact('Adam, epsilon times the factor', lambda x: _adam(EPS * x)),
    exact('AdaTask, epsilon times the factor', lambda x: _adatask(EPS * x)),
    exact(
      'signSGD with momentum',
      lambda _: _summed(mtl.signsgd(RATE, momentum=0.9)),
    ),
    exact(
      'SGD with momentum',
      lambda _: _summed(optax.sgd(RATE, momentum=0.9)),
      POWER,
    ),
    Oracle(
      'uncertainty from s0 + log a', 'float64', pair, 1, without, shifted, 1e-12
    ),
    exact('Adam, epsilon left alone', lambda _: _adam(EPS)),
    Oracle(
      'uncertainty from s0',
      'float64',
      pair,
      1,
      without,
      _uncertainty(FACTORS, none),
      1e-12,
    ),
  ]


def measure(oracle: Oracle) -> dict[str, Any]:
  """A row of ``oracles.json``; to be called in double precision."""
  plain, scaled = (
    np.asarray(jax.jit(displacement)())
    for displacement in (oracle.plain, oracle.scaled)
  )
  expected = oracle.times * plain
  difference = np.max(np.abs(scaled - expected) / np.abs(expected))
  return {
    'oracle': oracle.name,
    'dtype': oracle.dtype,
    'factors': oracle.factors,
    'times': oracle.times,
    'bound': oracle.bound,
    'difference': float(difference),
    'holds': bool(difference <= oracle.bound),
  }

"""Fresh points at every step, the same again after a stop."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from experiments.studies.pinn.problems import Equation


@functools.cache
def _make_draw(equation: Equation, counts: tuple[int, ...]) -> Callable:
  """From seed and step to points, compiled once for all runs."""

  @jax.jit
  def draw(seed, step):
    key = jax.random.fold_in(jax.random.key(seed), step)
    keys = jax.random.split(key, len(equation.terms))
    terms = zip(equation.terms, keys, counts, strict=True)
    return tuple(term.sample(key, count) for term, key, count in terms)

  return draw


class PointBatches:
  """An endless iterator over points for each term of an equation.

  Args:
    equation: whose terms draw them.
    counts: points of each term.
    seed: of the points; every method with this seed sees the same ones.
  """

  def __init__(self, equation: Equation, counts: Sequence[int], seed: int):
    self._draw = _make_draw(equation, tuple(counts))
    self._seed, self._step = seed, 0

  def __iter__(self) -> PointBatches:
    return self

  def __next__(self) -> tuple[jax.Array, ...]:
    found = self._draw(self._seed, self._step)
    self._step += 1
    return found

  def get_state(self) -> dict[str, Any]:
    """Where it is."""
    return {'step': self._step}

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes on from there."""
    self._step = int(state['step'])

"""What a problem is: terms whose residual is zero, points, a solution."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

#: From points, shape ``(N, D)``, to values, ``(N, K)``, row by row.
Field = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Term:
  """A task: a residual that is to vanish at points of a part of the domain.

  Attributes:
    name: of the task.
    sample: ``sample(key, count)``: points, shape ``(count, D)``.
    residual: ``residual(field, points)``, shape ``(count, R)``.
  """

  name: str
  sample: Callable[[jax.Array, int], jax.Array]
  residual: Callable[[Field, jax.Array], jax.Array]

  def loss(self, field: Field, points: jax.Array) -> jax.Array:
    """The mean over points of the residual's squared length."""
    found = self.residual(field, points)
    return jnp.mean(jnp.sum(found**2, axis=1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Equation:
  """A differential equation on a box, and its solution.

  Attributes:
    name: as typed.
    title: in words, with the formula.
    coordinates: their names; of a problem in time the last is ``'t'``.
    low: lower ends of the box, one a coordinate.
    high: upper ends.
    outputs: the names of what is looked for.
    terms: the tasks, the residual of the equation first.
    solution: the values at points, shape ``(N, D)``, in float64 where that is
      enabled: a closed form, or an approximation far more accurate than a
      network.
    shape: points of the grid on which errors are taken, one a coordinate.
    shown: the coordinates along which the field is drawn; the others stand at
      the middle of the box.
  """

  name: str
  title: str
  coordinates: tuple[str, ...]
  low: tuple[float, ...]
  high: tuple[float, ...]
  outputs: tuple[str, ...]
  terms: tuple[Term, ...]
  solution: Field
  shape: tuple[int, ...]
  shown: tuple[str, str]

  @property
  def tasks(self) -> tuple[str, ...]:
    """The names of the terms."""
    return tuple(term.name for term in self.terms)

  def losses(self, field: Field, points: Sequence[jax.Array]) -> jax.Array:
    """Those of all terms, each at its own points; shape ``(T,)``."""
    pairs = zip(self.terms, points, strict=True)
    return jnp.stack([term.loss(field, x) for term, x in pairs])

  def grid(self) -> np.ndarray:
    """The points at which errors are taken, shape ``(N, D)``."""
    ends = zip(self.low, self.high, self.shape, strict=True)
    return _product([np.linspace(*x) for x in ends])

  def picture(self, points: int = 65) -> np.ndarray:
    """Points over the two coordinates shown, ``(points, points, D)``."""
    axes = [
      np.linspace(a, b, points if name in self.shown else 1)
      if name in self.shown
      else np.array([(a + b) / 2])
      for name, a, b in zip(self.coordinates, self.low, self.high, strict=True)
    ]
    return _product(axes).reshape(points, points, len(axes))


def _product(axes: Sequence[np.ndarray]) -> np.ndarray:
  found = np.meshgrid(*axes, indexing='ij')
  return np.stack(found, axis=-1).reshape(-1, len(axes))


def inside(
  low: Sequence[float], high: Sequence[float]
) -> Callable[[jax.Array, int], jax.Array]:
  """A sampler of the uniform distribution on a box."""

  def sample(key, count):
    a, b = jnp.array(low, float), jnp.array(high, float)
    unit = jax.random.uniform(key, (count, len(low)), a.dtype)
    return a[None] + (b - a)[None] * unit

  return sample


def on_faces(
  low: Sequence[float], high: Sequence[float], axes: Sequence[int]
) -> Callable[[jax.Array, int], jax.Array]:
  """A sampler of both faces across each of some axes, all as often."""
  faces = [(axis, end[axis]) for axis in axes for end in (low, high)]

  def sample(key, count):
    points = inside(low, high)(key, count)
    # In turn and not drawn, so that a batch has of every face as much.
    face = jnp.arange(count) % len(faces)
    where = jnp.array([axis for axis, _ in faces])[face]
    value = jnp.array([end for _, end in faces], points.dtype)[face]
    across = jnp.arange(len(low))[None] == where[:, None]
    return jnp.where(across, value[:, None], points)

  return sample


def at_start(
  low: Sequence[float], high: Sequence[float]
) -> Callable[[jax.Array, int], jax.Array]:
  """A sampler of the first moment, where time is the last coordinate."""
  return inside(low, (*high[:-1], low[-1]))


def fits(solution: Field) -> Callable[[Field, jax.Array], jax.Array]:
  """The residual of prescribed values."""
  return lambda field, points: field(points) - solution(points)


def derivative(field: Field, points: jax.Array, axis: int) -> jax.Array:
  """First derivatives along a coordinate, shape ``(N, K)``."""
  return jax.jvp(field, (points,), (_along(points, axis),))[1]


def derivatives(
  field: Field, points: jax.Array, axis: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Values, first and second derivatives along a coordinate.

  Forward over forward: the field is evaluated once, with two tangents.
  """
  direction = _along(points, axis)

  def first(points):
    return jax.jvp(field, (points,), (direction,))

  (value, slope), (_, curve) = jax.jvp(first, (points,), (direction,))
  return value, slope, curve


def _along(points: jax.Array, axis: int) -> jax.Array:
  unit = jnp.arange(points.shape[1]) == axis
  return jnp.broadcast_to(unit.astype(points.dtype), points.shape)

"""Flows of the Navier-Stokes equations with closed forms."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies.pinn.problems import equation


def residual_of(reynolds: float, dimensions: int, *, in_time: bool):
  """Momentum in each direction, and the divergence.

  The outputs are the velocities along the first coordinates, and the pressure;
  time, if there is one, is the last coordinate.
  """

  def residual(field, points):
    along = [
      equation.derivatives(field, points, axis) for axis in range(dimensions)
    ]
    value = along[0][0]
    total = 0
    if in_time:
      total = equation.derivative(field, points, dimensions)[:, :dimensions]
    for axis, (_, slope, curve) in enumerate(along):
      carried = value[:, axis, None] * slope[:, :dimensions]
      total = total + carried - curve[:, :dimensions] / reynolds
    pressure = jnp.stack([slope[:, -1] for _, slope, _ in along], axis=1)
    divergence = sum(x[1][:, axis] for axis, x in enumerate(along))
    return jnp.concatenate([total + pressure, divergence[:, None]], axis=1)

  return residual


def _terms(residual, low, high, solution, *, in_time: bool):
  space = range(len(low) - in_time)
  terms = [
    equation.Term(
      name='residual', sample=equation.inside(low, high), residual=residual
    ),
    equation.Term(
      name='boundary',
      sample=equation.on_faces(low, high, space),
      residual=equation.fits(solution),
    ),
  ]
  if in_time:
    terms.append(
      equation.Term(
        name='initial',
        sample=equation.at_start(low, high),
        residual=equation.fits(solution),
      )
    )
  return tuple(terms)


REYNOLDS = 40.0
DECAY = REYNOLDS / 2 - np.sqrt(REYNOLDS**2 / 4 + 4 * np.pi**2)


def kovasznay(points: jax.Array) -> jax.Array:
  """The steady flow behind a grid: u, v and the pressure, ``(N, 3)``."""
  x, y = points[:, 0], points[:, 1]
  fading = jnp.exp(DECAY * x)
  u = 1 - fading * jnp.cos(2 * jnp.pi * y)
  v = DECAY / (2 * jnp.pi) * fading * jnp.sin(2 * jnp.pi * y)
  return jnp.stack([u, v, (1 - fading**2) / 2], axis=1)


def beltrami(points: jax.Array) -> jax.Array:
  """The decaying flow of Ethier and Steinman, a = d = 1: u, v, w, pressure."""
  x, y, z, t = points.T
  fading = jnp.exp(-t)

  def part(a, b, c):
    # Velocity along a, with b and c the next two in turn.
    return -(jnp.exp(a) * jnp.sin(b + c) + jnp.exp(c) * jnp.cos(a + b)) * fading

  def product(a, b, c):
    return 2 * jnp.sin(a + b) * jnp.cos(c + a) * jnp.exp(b + c)

  turns: Sequence[tuple[jax.Array, ...]] = ((x, y, z), (y, z, x), (z, x, y))
  squares = jnp.exp(2 * x) + jnp.exp(2 * y) + jnp.exp(2 * z)
  pressure = -(squares + sum(product(*turn) for turn in turns)) / 2
  velocities = [part(*turn) for turn in turns]
  return jnp.stack([*velocities, pressure * fading**2], axis=1)


KOVASZNAY = equation.Equation(
  name='kovasznay',
  title='Kovasznay flow, steady Navier-Stokes in 2-D, Reynolds number 40',
  coordinates=('x', 'y'),
  low=(-0.5, -0.5),
  high=(1.0, 1.5),
  outputs=('u', 'v', 'p'),
  terms=_terms(
    residual_of(REYNOLDS, 2, in_time=False),
    (-0.5, -0.5),
    (1.0, 1.5),
    kovasznay,
    in_time=False,
  ),
  solution=kovasznay,
  shape=(65, 65),
  shown=('x', 'y'),
)

BELTRAMI = equation.Equation(
  name='beltrami',
  title='Beltrami flow, Navier-Stokes in 3-D and time, Reynolds number 1',
  coordinates=('x', 'y', 'z', 't'),
  low=(-1.0, -1.0, -1.0, 0.0),
  high=(1.0, 1.0, 1.0, 1.0),
  outputs=('u', 'v', 'w', 'p'),
  terms=_terms(
    residual_of(1.0, 3, in_time=True),
    (-1.0, -1.0, -1.0, 0.0),
    (1.0, 1.0, 1.0, 1.0),
    beltrami,
    in_time=True,
  ),
  solution=beltrami,
  shape=(11, 11, 11, 6),
  shown=('x', 'y'),
)

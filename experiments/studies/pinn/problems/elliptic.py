"""Helmholtz and Poisson equations on a square, with closed forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from experiments.studies.pinn.problems import equation

WAVES = 1.0, 4.0


def helmholtz(points: jax.Array) -> jax.Array:
  """sin(pi x) sin(4 pi y)."""
  waves = jnp.pi * jnp.array(WAVES, points.dtype)
  return jnp.prod(jnp.sin(waves[None] * points), axis=1, keepdims=True)


def poisson(points: jax.Array) -> jax.Array:
  """sin(pi x) sin(2 pi y) + x (1 - y)."""
  x, y = points[:, :1], points[:, 1:]
  return jnp.sin(jnp.pi * x) * jnp.sin(2 * jnp.pi * y) + x * (1 - y)


def _laplacian(field, points):
  value, _, u_xx = equation.derivatives(field, points, 0)
  return value, u_xx + equation.derivatives(field, points, 1)[2]


def helmholtz_residual(field: equation.Field, points: jax.Array) -> jax.Array:
  """u_xx + u_yy + u - f."""
  value, laplacian = _laplacian(field, points)
  factor = 1 - sum((jnp.pi * wave) ** 2 for wave in WAVES)
  return laplacian + value - factor * helmholtz(points)


def poisson_residual(field: equation.Field, points: jax.Array) -> jax.Array:
  """u_xx + u_yy - f."""
  x, y = points[:, :1], points[:, 1:]
  waves = jnp.sin(jnp.pi * x) * jnp.sin(2 * jnp.pi * y)
  return _laplacian(field, points)[1] + 5 * jnp.pi**2 * waves


def _make(name, title, low, high, solution, residual):
  return equation.Equation(
    name=name,
    title=title,
    coordinates=('x', 'y'),
    low=low,
    high=high,
    outputs=('u',),
    terms=(
      equation.Term(
        name='residual', sample=equation.inside(low, high), residual=residual
      ),
      equation.Term(
        name='boundary',
        sample=equation.on_faces(low, high, (0, 1)),
        residual=equation.fits(solution),
      ),
    ),
    solution=solution,
    shape=(65, 65),
    shown=('x', 'y'),
  )


HELMHOLTZ = _make(
  'helmholtz',
  'Helmholtz, u_xx + u_yy + u = f, with one wave along x and four along y',
  (-1.0, -1.0),
  (1.0, 1.0),
  helmholtz,
  helmholtz_residual,
)

POISSON = _make(
  'poisson',
  'Poisson, u_xx + u_yy = f',
  (0.0, 0.0),
  (1.0, 1.0),
  poisson,
  poisson_residual,
)

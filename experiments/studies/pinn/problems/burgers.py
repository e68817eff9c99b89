"""Burgers' equation: a wave that steepens to a shock in the middle."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies.pinn.problems import equation

VISCOSITY = 0.01 / np.pi
NODES = 160
LOW, HIGH = (-1.0, 0.0), (1.0, 1.0)


def solution(points: jax.Array, nodes: int = NODES) -> jax.Array:
  """The Cole-Hopf transform, its integrals by Gauss-Hermite quadrature.

  Args:
    points: x and t, shape ``(N, 2)``.
    nodes: of the quadrature.

  Returns:
    The values, shape ``(N, 1)``.
  """
  node, weight = map(jnp.asarray, np.polynomial.hermite.hermgauss(nodes))
  x, t = points[:, :1], points[:, 1:]
  y = x - jnp.sqrt(4 * VISCOSITY * t) * node[None]
  # The largest exponent is taken off, so that float32 holds the others. It
  # cancels; its derivative would be divided by the number of entries that equal
  # it, which is 0 where a program computes them twice.
  exponent = -jnp.cos(jnp.pi * y) / (2 * jnp.pi * VISCOSITY)
  largest = jnp.max(exponent, axis=1, keepdims=True)
  exponent = exponent - jax.lax.stop_gradient(largest)
  density = weight[None] * jnp.exp(exponent)
  above = jnp.sum(jnp.sin(jnp.pi * y) * density, axis=1)
  return -(above / jnp.sum(density, axis=1))[:, None]


def residual(field: equation.Field, points: jax.Array) -> jax.Array:
  """u_t + u u_x - nu u_xx."""
  u, u_x, u_xx = equation.derivatives(field, points, 0)
  u_t = equation.derivative(field, points, 1)
  return u_t + u * u_x - VISCOSITY * u_xx


BURGERS = equation.Equation(
  name='burgers',
  title='Burgers, u_t + u u_x = nu u_xx, nu = 0.01/pi, u(x, 0) = -sin(pi x)',
  coordinates=('x', 't'),
  low=LOW,
  high=HIGH,
  outputs=('u',),
  terms=(
    equation.Term(
      name='residual', sample=equation.inside(LOW, HIGH), residual=residual
    ),
    equation.Term(
      name='boundary',
      sample=equation.on_faces(LOW, HIGH, (0,)),
      residual=lambda field, points: field(points),
    ),
    equation.Term(
      name='initial',
      sample=equation.at_start(LOW, HIGH),
      residual=lambda field, points: (
        field(points) + jnp.sin(jnp.pi * points[:, :1])
      ),
    ),
  ),
  solution=solution,
  shape=(129, 41),
  shown=('t', 'x'),
)

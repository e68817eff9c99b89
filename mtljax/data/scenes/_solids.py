r"""Solids in closed form: a quadric of revolution cut by a box.

In its own coordinates, with y along its axis, a solid is where

.. math:: x^2 + z^2 + a y^2 + 2 b y \le c, \qquad |x_i| \le s_i

A ray is inside a quadric on an interval, inside a slab on another, and inside
the solid where all of them meet. The same few operations serve every kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

KINDS = ('sphere', 'box', 'cylinder', 'cone')
SPHERE, BOX, CYLINDER, CONE = range(len(KINDS))

#: Three components, each an array; components stay apart for the compiler.
Vector = Sequence[jax.Array]

_LOOSE = 1e3  # a bound that never binds
_TINY = 1e-9
_MISS = jnp.inf


class Solids(NamedTuple):
  """Solids of a scene; the leaves have N on axis 0.

  Attributes:
    kind: place in `KINDS`, ``(N,)``.
    center: of the box, in world coordinates, ``(N, 3)``.
    axes: rows are the own axes in world coordinates, ``(N, 3, 3)``.
    half: half the sides of the box, ``(N, 3)``.
    quadric: a, b and c, ``(N, 3)``.
  """

  kind: jax.Array
  center: jax.Array
  axes: jax.Array
  half: jax.Array
  quadric: jax.Array


class Entry(NamedTuple):
  """Where rays enter convex solids, by the constraint that is met last."""

  near: jax.Array
  slabs: tuple[jax.Array, jax.Array, jax.Array]
  quadric: jax.Array


def make_shapes(
  kind: jax.Array, radius: jax.Array, half_height: jax.Array, depth: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The boxes and quadrics of solids by their sizes in metres, each ``(N,)``.

  Args:
    kind: place in `KINDS`.
    radius: of spheres, cylinders and the feet of cones; half a box's width.
    half_height: of boxes, cylinders and cones, along y.
    depth: half a box's depth, along z.

  Returns:
    ``half`` and ``quadric`` of `Solids`, both ``(N, 3)``.
  """
  loose = jnp.full_like(radius, _LOOSE)
  zero = jnp.zeros_like(radius)
  slope = (radius / (2 * half_height)) ** 2
  squared = radius**2

  def choose(sphere, box, cylinder, cone):
    return jnp.choose(kind, [sphere, box, cylinder, cone], mode='clip')

  half = jnp.stack(
    [
      choose(loose, radius, loose, loose),
      choose(loose, half_height, half_height, half_height),
      choose(loose, depth, loose, loose),
    ],
    axis=-1,
  )
  quadric = jnp.stack(
    [
      choose(zero + 1, zero, zero, -slope),
      choose(zero, zero, zero, slope * half_height),
      choose(squared, loose, squared, slope * half_height**2),
    ],
    axis=-1,
  )
  return half, quadric


def rotate(axes: Any, v: Vector) -> tuple[jax.Array, ...]:
  """The components of a vector along axes, ``axes[i][j]`` and ``v[j]``."""
  return tuple(sum(axes[i][j] * v[j] for j in range(3)) for i in range(3))


def enter(half: Vector, quadric: Vector, origin: Vector, ray: Vector) -> Entry:
  """Where a ray enters a solid, all in the solid's own coordinates.

  Args:
    half: the half sides of the box.
    quadric: a, b and c.
    origin: of the ray.
    ray: its direction, of any length.

  Returns:
    The `Entry`, in lengths of ``ray``; ``near`` is infinite for a miss. It is
    negative where the origin is inside or the solid behind.
  """
  a, b, c = quadric
  (ox, oy, oz), (dx, dy, dz) = origin, ray
  # A t^2 + 2 B t + C <= 0, whose roots are taken without cancellation.
  square = dx * dx + dz * dz + a * dy * dy
  square = jnp.where(jnp.abs(square) < _TINY**2, _TINY**2, square)
  linear = ox * dx + oz * dz + a * oy * dy + b * dy
  constant = ox * ox + oz * oz + a * oy * oy + 2 * b * oy - c
  discriminant = linear * linear - square * constant
  root = jnp.sqrt(jnp.maximum(discriminant, 0))
  sum_ = -(linear + jnp.where(linear < 0, -root, root))
  sum_ = jnp.where(sum_ == 0, _TINY, sum_)
  one, other = sum_ / square, constant / sum_
  first = jnp.where(linear < 0, other, one)
  second = jnp.where(linear < 0, one, other)
  # Steeper than its side, a ray is in a cone beyond, or before, one root; the
  # other root is on the nappe above the tip.
  closed, down = square > 0, dy < 0
  near_quadric = jnp.where(closed | down, first, -jnp.inf)
  far = jnp.where(closed | ~down, second, jnp.inf)
  slabs = []
  for s, o, d in zip(half, origin, ray, strict=True):
    inverse = 1 / jnp.where(jnp.abs(d) < _TINY, _TINY, d)
    one, other = (-s - o) * inverse, (s - o) * inverse
    slabs.append(jnp.minimum(one, other))
    far = jnp.minimum(far, jnp.maximum(one, other))
  near = jnp.maximum(near_quadric, jnp.maximum(slabs[0], slabs[1]))
  near = jnp.maximum(near, slabs[2])
  hit = (discriminant > 0) & (near < far)
  return Entry(jnp.where(hit, near, _MISS), tuple(slabs), near_quadric)


def normal(
  entry: Entry, quadric: Vector, point: Vector, ray: Vector
) -> tuple[jax.Array, ...]:
  """The outward unit normal where a ray enters, in own coordinates."""
  a, b, _ = quadric
  x, y, z = point
  slope = a * y + b
  length = jnp.sqrt(jnp.maximum(x * x + slope * slope + z * z, _TINY))
  first, second, third = entry.slabs
  on_quadric = entry.quadric >= jnp.maximum(jnp.maximum(first, second), third)
  on_first = ~on_quadric & (first >= jnp.maximum(second, third))
  on_second = ~on_quadric & ~on_first & (second >= third)
  flat = (on_first, on_second, ~on_quadric & ~on_first & ~on_second)
  return tuple(
    jnp.where(on_quadric, curved / length, jnp.where(face, -jnp.sign(d), 0))
    for curved, face, d in zip((x, slope, z), flat, ray, strict=True)
  )


def first_hit(
  solids: Solids, origin: Vector, ray: Vector
) -> tuple[jax.Array, jax.Array]:
  """The nearest solid in front of rays of any one shape.

  Args:
    solids: the solids.
    origin: of the rays, three numbers or arrays.
    ray: their directions, three numbers or arrays.

  Returns:
    Where it is entered, infinite where there is none, and its index.
  """

  def body(n, found):
    nearest, index = found
    near = _enter_one(solids, n, origin, ray)
    closer = (near > 0) & (near < nearest)
    return jnp.where(closer, near, nearest), jnp.where(closer, n, index)

  shape = jnp.broadcast_shapes(*(x.shape for x in (*origin, *ray)))
  start = jnp.full(shape, _MISS), jnp.zeros(shape, jnp.int32)
  return _over(solids, body, start)


def shaded(
  solids: Solids, origin: Vector, ray: Vector, margin: float
) -> jax.Array:
  """Whether a solid lies ahead of rays, further away than a margin."""

  def body(n, hidden):
    near = _enter_one(solids, n, origin, ray)
    return hidden | ((near > margin) & jnp.isfinite(near))

  shape = jnp.broadcast_shapes(*(x.shape for x in (*origin, *ray)))
  return _over(solids, body, jnp.zeros(shape, bool))


def _over(solids: Solids, body: Any, start: Any) -> Any:
  """A loop over solids: unrolled, XLA would compute a solid many times."""
  return jax.lax.fori_loop(0, solids.kind.shape[0], body, start)


def _enter_one(
  solids: Solids, n: Any, origin: Vector, ray: Vector
) -> jax.Array:
  own = jax.tree.map(lambda x: x[n], solids)
  offset = [o - c for o, c in zip(origin, own.center, strict=True)]
  axes = own.axes
  return enter(
    own.half, own.quadric, rotate(axes, offset), rotate(axes, ray)
  ).near

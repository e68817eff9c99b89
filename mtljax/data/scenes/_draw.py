"""Random scenes: solids that stand on a ground, a camera and a sun."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtljax.data.scenes import _solids
from mtljax.data.scenes._solids import Solids

NUM_SOLIDS = 8  # places; each is taken with the probability below
PRESENCE = 0.9
SPACING = 1.3  # of the grid that solids stand on, in metres
TEXTURES = ('plain', 'striped', 'checkered')
_AWAY = 1e4


class Look(NamedTuple):
  """Textures of surfaces; the leaves have N on axis 0, the ground is last.

  Attributes:
    texture: place in `TEXTURES`, ``(N,)``.
    colors: two, in [0, 1], ``(N, 2, 3)``.
    waves: what the pattern follows, in radians a metre, ``(N, 3)``.
    phase: of the pattern, ``(N, 3)``.
  """

  texture: jax.Array
  colors: jax.Array
  waves: jax.Array
  phase: jax.Array


class Camera(NamedTuple):
  """A pinhole camera.

  Attributes:
    position: in world coordinates, ``(3,)``.
    axes: rows are right, up and towards the viewer, ``(3, 3)``.
    tangent: of half the field of view across the longer side.
  """

  position: jax.Array
  axes: jax.Array
  tangent: jax.Array


class Light(NamedTuple):
  """A sun and a sky.

  Attributes:
    direction: to the sun, of length 1, ``(3,)``.
    sun: its strength on a surface that faces it.
    ambient: the sky's on a surface that faces up.
    sky: its colour, ``(3,)``.
  """

  direction: jax.Array
  sun: jax.Array
  ambient: jax.Array
  sky: jax.Array


class Scene(NamedTuple):
  """Everything that a picture is made of, in metres, y up."""

  solids: Solids
  look: Look
  camera: Camera
  light: Light


def draw_scene(key: jax.Array) -> Scene:
  """A scene from a key."""
  # One draw for all: it compiles in a fraction of the time of many.
  solid, look, rest = jnp.split(
    jax.random.uniform(key, ((NUM_SOLIDS + 1) * 24,)),
    [(NUM_SOLIDS + 1) * 10, (NUM_SOLIDS + 1) * 22],
  )
  return Scene(
    _draw_solids(solid.reshape(-1, 10)),
    _draw_look(look.reshape(-1, 12)),
    _draw_camera(rest[:7]),
    _draw_light(rest[7:14]),
  )


def _draw_solids(numbers: jax.Array) -> Solids:
  numbers, count = numbers.T, NUM_SOLIDS
  order = jnp.argsort(numbers[0])  # of the places, one more than solids
  rows = iter(numbers[1:, :count])
  uniform = lambda low, high: low + (high - low) * next(rows)
  kind = _pick(next(rows), len(_solids.KINDS))
  radius = uniform(0.35, 0.7)
  half_height = uniform(0.35, 0.8)
  depth = uniform(0.35, 0.7)
  half, quadric = _solids.make_shapes(kind, radius, half_height, depth)
  turn = uniform(-jnp.pi, jnp.pi)
  # Most stand; some lean, up to lying on their side.
  tilt = jnp.pi / 2 * uniform(0.0, 1.0) ** 4
  axes = _axes(turn, tilt)
  # A leaning solid touches the ground with one point.
  up = jnp.abs(axes[:, :, 1])
  flat = jnp.sqrt(jnp.maximum(1 - up[:, 1] ** 2, 0))
  box = up[:, 0] * radius + up[:, 1] * half_height + up[:, 2] * depth
  round_ = up[:, 1] * half_height + flat * radius
  height = jnp.choose(kind, [radius, box, round_, round_], mode='clip')
  cell = order[:count]
  x = (cell // 3 - 1) * SPACING + uniform(-0.35, 0.35)
  z = (cell % 3 - 1) * SPACING + uniform(-0.35, 0.35)
  there = uniform(0.0, 1.0) < PRESENCE
  height = jnp.where(there, height, -_AWAY)
  center = jnp.stack([x, height, z], axis=-1)
  return Solids(kind, center, axes, half, quadric)


def _axes(turn: jax.Array, tilt: jax.Array) -> jax.Array:
  """Rows: own axes of solids that are turned about y, then leaned."""
  zero = jnp.zeros_like(turn)
  c, s, lean, sink = jnp.cos(turn), jnp.sin(turn), jnp.cos(tilt), jnp.sin(tilt)
  return jnp.stack(
    [
      jnp.stack([c * lean, sink, -s * lean], axis=-1),
      jnp.stack([-c * sink, lean, s * sink], axis=-1),
      jnp.stack([s, zero, c], axis=-1),
    ],
    axis=-2,
  )


def _pick(numbers: jax.Array, count: int) -> jax.Array:
  """Integers below a count, from numbers in [0, 1)."""
  return jnp.minimum((numbers * count).astype(jnp.int32), count - 1)


def _draw_look(numbers: jax.Array) -> Look:
  texture = _pick(numbers[:, 0], len(TEXTURES))
  bright = 0.3 + 0.7 * numbers[:, 1:4]
  colors = jnp.stack([bright, 0.3 * numbers[:, 4:7] * bright], axis=1)
  period = 0.3 + 0.2 * numbers[:, 7:8]
  # On no face of a box is a stripe parallel to it.
  slant = (0.5 + 0.5 * numbers[:, 8:11]) / 1.3
  waves = jnp.where((texture == 1)[:, None], slant, 0.7) * 2 * jnp.pi / period
  phase = 2 * jnp.pi * numbers[:, 9:12]
  # The ground's pattern is wide and faint.
  waves = waves.at[-1].multiply(0.3)
  colors = colors.at[-1, 1].set(0.75 * colors[-1, 0])
  return Look(texture, colors, waves, phase)


def _draw_camera(numbers: jax.Array) -> Camera:
  between = lambda i, low, high: low + (high - low) * numbers[i]
  around = between(0, -jnp.pi, jnp.pi)
  rise = jnp.deg2rad(between(1, 15.0, 45.0))
  distance = between(2, 4.2, 6.0)
  target = jnp.stack([between(3, -0.5, 0.5), 0.4, between(4, -0.5, 0.5)])
  back = jnp.stack(
    [
      jnp.cos(rise) * jnp.cos(around),
      jnp.sin(rise),
      jnp.cos(rise) * jnp.sin(around),
    ]
  )
  right = jnp.stack([jnp.sin(around), 0.0, -jnp.cos(around)])
  up = jnp.cross(back, right)
  roll = jnp.deg2rad(between(5, -5.0, 5.0))
  cosine, sine = jnp.cos(roll), jnp.sin(roll)
  axes = jnp.stack(
    [cosine * right + sine * up, cosine * up - sine * right, back]
  )
  tangent = jnp.tan(jnp.deg2rad(between(6, 40.0, 55.0)) / 2)
  return Camera(target + distance * back, axes, tangent)


def _draw_light(numbers: jax.Array) -> Light:
  around = 2 * jnp.pi * numbers[0]
  rise = jnp.deg2rad(30 + 35 * numbers[1])
  direction = jnp.stack(
    [
      jnp.cos(rise) * jnp.cos(around),
      jnp.sin(rise),
      jnp.cos(rise) * jnp.sin(around),
    ]
  )
  sky = jnp.array([0.55, 0.7, 0.9]) * (0.7 + 0.3 * numbers[4:])
  return Light(direction, 0.6 + 0.4 * numbers[2], 0.2 + 0.2 * numbers[3], sky)

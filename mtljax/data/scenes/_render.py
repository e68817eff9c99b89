"""From a scene to its picture and exact labels, one ray a pixel."""

from __future__ import annotations

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp

from mtljax import _validate
from mtljax.data.scenes import _draw, _solids

#: Of segmentation, thirteen as NYUv2 has: the ground, then every kind of solid
#: with every texture. A label of -1 is the background.
CLASSES: tuple[str, ...] = (
  'ground',
  *(
    f'{texture} {kind}' for kind in _solids.KINDS for texture in _draw.TEXTURES
  ),
)
#: Metres, along the camera's axis, beyond which nothing is labelled.
FAR = 10.0
_MARGIN = 1e-3
_GROUND = _draw.NUM_SOLIDS


def render_scenes(
  key: jax.Array, batch: int, size: int | tuple[int, int] = 64
) -> dict[str, jax.Array]:
  """Pictures of random scenes with exact labels, from a key.

  Up to eight spheres, boxes, cylinders and cones stand or lean on a ground,
  plain, striped or checkered, under a sun that casts shadows. The camera's
  place, turn and field of view vary. Rays are cast through the centres of the
  pixels and meet the solids in closed form, so labels have no error but that
  of float32, and no pixel is of two surfaces.

  ============================== ============================================
  pixel                          labels
  ============================== ============================================
  a surface within 10 m          its class, depth and normal
  beyond 10 m, or no surface     -1, 0 and (0, 0, 0): to be ignored
  ============================== ============================================

  Args:
    key: a random key. Scene i depends on the key and i alone.
    batch: how many scenes, B.
    size: height and width in pixels, or one number for both, at least 8.

  Returns:
    ``image`` (uint8, ``(B, H, W, 3)``), ``segmentation`` (int32, ``(B, H, W)``,
    a place in `SCENE_CLASSES`), ``depth`` (float32, ``(B, H, W)``, metres along
    the camera's axis, not along the ray) and ``normals`` (float32, ``(B, H, W,
    3)``, of length 1, in camera coordinates: right, up, towards the viewer).

  Raises:
    ValueError: there is no scene, or a side is less than 8.
    TypeError: a number is none.

  Example:
    >>> import jax
    >>> scenes = render_scenes(jax.random.key(0), batch=2, size=16)
    >>> scenes['image'].shape, scenes['normals'].shape
    ((2, 16, 16, 3), (2, 16, 16, 3))
  """
  return render_range(key, 0, operator.index(batch), check_size(size))


def check_size(size: int | tuple[int, int]) -> tuple[int, int]:
  """Height and width, or raises."""
  sides = (size, size) if not isinstance(size, (tuple, list)) else tuple(size)
  if len(sides) != 2:
    raise ValueError(f'size={size!r} must be one number, or height and width.')
  for side in sides:
    _validate.in_range('size', side, 8)
  return operator.index(sides[0]), operator.index(sides[1])


def render_range(
  key: jax.Array, start: Any, batch: int, size: tuple[int, int]
) -> dict[str, jax.Array]:
  """Scenes ``start`` to ``start + batch`` of a key."""
  _validate.in_range('batch', batch, 1)
  return render(_draw_range(key, start, batch), size)


@functools.partial(jax.jit, static_argnames='batch')
def _draw_range(key: jax.Array, start: Any, batch: int) -> _draw.Scene:
  numbers = start + jnp.arange(batch)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
  return jax.vmap(_draw.draw_scene)(keys)


def render(scenes: _draw.Scene, size: tuple[int, int]) -> dict[str, jax.Array]:
  """The pictures and labels of scenes, all leaves with B on axis 0.

  Compiled in three parts: in one, XLA would compute what several outputs need
  many times over.
  """
  ray, near, index = _cast(scenes, size)
  seen, surface, labels = _meet(scenes, ray, near, index)
  return {'image': _shade(scenes, ray, seen, *surface), **labels}


def rays(camera: _draw.Camera, size: tuple[int, int]) -> tuple[jax.Array, ...]:
  """Rays in camera coordinates, which go one metre along its axis."""
  height, width = size
  scale = 2 * camera.tangent / max(size)
  x = (jnp.arange(width) + 0.5 - width / 2) * scale
  y = (height / 2 - jnp.arange(height) - 0.5) * scale
  x, y = jnp.broadcast_to(x[None], size), jnp.broadcast_to(y[:, None], size)
  return x, y, jnp.full(size, -1.0)


@functools.partial(jax.jit, static_argnames='size')
@functools.partial(jax.vmap, in_axes=(0, None))
def _cast(scene: _draw.Scene, size: tuple[int, int]) -> Any:
  """Rays in world coordinates, and the solids that they meet first."""
  ray = _solids.rotate(scene.camera.axes.T, rays(scene.camera, size))
  origin = tuple(scene.camera.position)
  return ray, *_solids.first_hit(scene.solids, origin, ray)


@jax.jit
@jax.vmap
def _meet(scene: _draw.Scene, ray: Any, near: jax.Array, index: Any) -> Any:
  """What is seen: whether, the surface for `_shade`, and the labels."""
  solids, _, camera, _ = scene
  origin = tuple(camera.position)
  down = ray[1] < -1e-6
  ground = jnp.where(down, -origin[1] / jnp.where(down, ray[1], -1), jnp.inf)
  is_ground = ground < near
  depth = jnp.minimum(near, ground)
  seen = depth <= FAR
  depth = jnp.where(seen, depth, 1.0)
  point = tuple(o + depth * d for o, d in zip(origin, ray, strict=True))
  kind, center, axes, half, quadric = _select(solids, index)
  offset = [o - c for o, c in zip(origin, center, strict=True)]
  local = _solids.rotate(axes, offset), _solids.rotate(axes, ray)
  entry = _solids.enter(half, quadric, *local)
  place = tuple(o + depth * d for o, d in zip(*local, strict=True))
  outward = _solids.normal(entry, quadric, place, local[1])
  outward = _solids.rotate(_transposed(axes), outward)
  outward = tuple(
    jnp.where(is_ground, float(i == 1), x) for i, x in enumerate(outward)
  )
  place = tuple(
    jnp.where(is_ground, p, x) for p, x in zip(point, place, strict=True)
  )
  index = jnp.where(is_ground, _GROUND, index)
  texture = _select(scene.look[:1], index)[0]
  label = 1 + len(_draw.TEXTURES) * kind + texture
  own = jnp.stack(_solids.rotate(camera.axes, outward), axis=-1)
  labels = {
    'segmentation': jnp.where(seen, jnp.where(is_ground, 0, label), -1).astype(
      jnp.int32
    ),
    'depth': jnp.where(seen, depth, 0),
    'normals': jnp.where(seen[..., None], own, 0),
  }
  return seen, (index, depth, point, outward, place), labels


@jax.jit
@jax.vmap
def _shade(
  scene: _draw.Scene,
  ray: Any,
  seen: jax.Array,
  index: jax.Array,
  depth: jax.Array,
  point: Any,
  outward: Any,
  place: Any,
) -> jax.Array:
  """The picture."""
  color = _paint(_select(scene.look, index), place)
  color = _light(scene.solids, scene.light, color, point, outward, ray)
  haze = jnp.where(seen, (depth / FAR) ** 2, 1.0)
  image = jnp.stack(
    [c + haze * (s - c) for c, s in zip(color, scene.light.sky, strict=True)],
    axis=-1,
  )
  return jnp.rint(255 * jnp.sqrt(jnp.clip(image, 0, 1))).astype(jnp.uint8)


def _select(table: Any, index: jax.Array) -> Any:
  """Rows of a table by pixel, components apart."""
  count = table[0].shape[0]
  flat = jnp.concatenate([x.reshape(count, -1) for x in table], -1)
  found = flat.astype(jnp.float32)[index]
  rows = iter(jnp.moveaxis(found, -1, 0))

  def nested(shape):
    if not shape:
      return next(rows)
    return tuple(nested(shape[1:]) for _ in range(shape[0]))

  return tuple(nested(x.shape[1:]) for x in table)


def _transposed(axes: Any) -> list[list[jax.Array]]:
  return [[axes[i][j] for i in range(3)] for j in range(3)]


def _paint(surface: Any, place: _solids.Vector) -> tuple[jax.Array, ...]:
  """The colour of surfaces at points in their own coordinates."""
  texture, (bright, dark), waves, phase = surface
  angles = [w * x for w, x in zip(waves, place, strict=True)]
  stripes = jnp.sin(sum(angles) + phase[0]) > 0
  checks = functools.reduce(
    operator.xor,
    [jnp.sin(a + p) > 0 for a, p in zip(angles, phase, strict=True)],
  )
  second = jnp.where(texture == 1, stripes, (texture == 2) & checks)
  return tuple(
    jnp.where(second, b, a) for a, b in zip(bright, dark, strict=True)
  )


def _light(
  solids: _solids.Solids,
  light: _draw.Light,
  color: _solids.Vector,
  point: _solids.Vector,
  outward: _solids.Vector,
  ray: _solids.Vector,
) -> tuple[jax.Array, ...]:
  """Colours under sun and sky, with shadows and a little gloss."""
  sun = tuple(light.direction)
  facing = sum(n * s for n, s in zip(outward, sun, strict=True))
  lit = (facing > 0) & ~_solids.shaded(solids, point, sun, _MARGIN)
  length = jnp.sqrt(sum(d * d for d in ray))
  half = [s - d / length for s, d in zip(sun, ray, strict=True)]
  half_length = jnp.sqrt(sum(h * h for h in half))
  gloss = sum(h * n for h, n in zip(half, outward, strict=True)) / half_length
  gloss = jnp.maximum(gloss, 0) ** 32
  strength = light.ambient * (0.7 + 0.3 * outward[1])
  strength += jnp.where(lit, light.sun * facing, 0)
  gloss = jnp.where(lit, 0.25 * light.sun * gloss, 0)
  return tuple(c * strength + gloss for c in color)

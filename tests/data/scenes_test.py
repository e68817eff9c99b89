"""Rendered scenes against closed forms, written again in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import data
from mtljax.data.scenes import _draw, _render, _solids

SIZE = 48
BATCH = 8


@pytest.fixture(scope='module')
def scenes():
  return jax.device_get(_render._draw_range(jax.random.key(3), 0, BATCH))


@pytest.fixture(scope='module')
def pictures():
  return jax.device_get(data.render_scenes(jax.random.key(3), BATCH, size=SIZE))


def rays(scenes, b):
  """Origin and directions of the pixels in world coordinates, float64."""
  camera = jax.tree.map(lambda x: np.float64(x[b]), scenes.camera)
  scale = 2 * camera.tangent / SIZE
  middle = np.arange(SIZE) + 0.5 - SIZE / 2
  x, y = np.meshgrid(middle * scale, -middle * scale)
  own = np.stack([x, y, -np.ones_like(x)], -1)
  return camera, own, own @ camera.axes


def outside(solids, points):
  """By how much points ``(..., 3)`` are outside each solid, ``(..., N)``."""
  far = []
  for n in range(len(solids.kind)):
    own = (points - solids.center[n]) @ solids.axes[n].T
    x, y, z = np.moveaxis(own, -1, 0)
    a, b, c = solids.quadric[n]
    quadric = x**2 + z**2 + a * y**2 + 2 * b * y - c
    box = (np.abs(own) - solids.half[n]).max(-1)
    far.append(np.maximum(quadric, box))
  return np.stack(far, -1)


def test_nothing_lies_before_a_surface_and_every_surface_is_where_it_is(
  scenes, pictures
):
  for b in range(BATCH):
    solids = jax.tree.map(lambda x, b=b: np.float64(x[b]), scenes.solids)
    camera, _, ray = rays(scenes, b)
    depth, labels = pictures['depth'][b], pictures['segmentation'][b]
    seen = labels >= 0
    np.testing.assert_array_equal(seen, depth > 0)
    reach = np.where(seen, depth, _render.FAR)[..., None]
    for share in np.linspace(0.02, 0.995, 40):
      points = camera.position + share * reach * ray
      assert (outside(solids, points) > -1e-3).all()
      assert (points[..., 1] > -1e-3).all()
    points = camera.position + depth[..., None] * ray
    nearest = outside(solids, points)
    kind = (labels - 1) // 3
    solid = labels > 0
    assert solid.any() and (labels == 0).any()
    assert np.abs(points[labels == 0][:, 1]).max() < 1e-3
    touched = np.abs(nearest[solid]) < 2e-3
    own = solids.kind[None] == kind[solid][:, None]
    assert (touched & own).any(-1).all()
    texture = scenes.look.texture[b][:-1]
    assert (
      (touched & own & (texture[None] == (labels[solid] - 1)[:, None] % 3))
      .any(-1)
      .all()
    )


def test_every_kind_and_texture_is_seen():
  found = data.render_scenes(jax.random.key(0), 64, size=32)
  counts = np.bincount(
    np.asarray(found['segmentation']).ravel() + 1,
    minlength=len(data.SCENE_CLASSES) + 1,
  )
  assert len(data.SCENE_CLASSES) == 13
  assert (counts > 0).all()
  assert 0.3 < counts[2:].sum() / counts.sum() < 0.7  # solids


def test_normals_are_those_of_finite_differences(scenes, pictures):
  """Of points within a face; across an edge there is none."""
  checked = 0
  for b in range(BATCH):
    _, own, _ = rays(scenes, b)
    points = np.float64(pictures['depth'][b])[..., None] * own
    right = points[1:-1, 2:] - points[1:-1, :-2]
    down = points[2:, 1:-1] - points[:-2, 1:-1]
    normal = np.cross(down, right)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-12
    labels, found = pictures['segmentation'][b], pictures['normals'][b]
    inner = labels[1:-1, 1:-1] >= 0
    for i, j in ((0, 1), (2, 1), (1, 0), (1, 2)):
      rows, columns = slice(i, SIZE - 2 + i), slice(j, SIZE - 2 + j)
      inner &= labels[1:-1, 1:-1] == labels[rows, columns]
      near = np.sum(found[1:-1, 1:-1] * found[rows, columns], -1) > 0.98
      inner &= near
    # Two spheres of one class can touch: a few pixels are of such borders.
    cosine = np.sum(normal * found[1:-1, 1:-1], -1)[inner]
    checked += len(cosine)
    assert np.mean(cosine > 0.98) > 0.98
    assert np.median(cosine) > 0.999
  assert checked > 0.4 * BATCH * SIZE**2


def test_normals_have_length_one_and_face_the_camera(scenes, pictures):
  for b in range(BATCH):
    seen = pictures['segmentation'][b] >= 0
    normals = pictures['normals'][b]
    np.testing.assert_allclose(
      np.linalg.norm(normals[seen], axis=-1), 1, atol=1e-4
    )
    assert not normals[~seen].any()
    own = rays(scenes, b)[1]
    assert (np.sum(own * normals, -1)[seen] < 1e-3).all()


def one_solid(scenes, kind, **sizes):
  """A single solid before a camera that looks along -z from (0, 1, 5)."""
  scene = jax.tree.map(lambda x: jnp.asarray(x[:1]), scenes)
  count = _draw.NUM_SOLIDS
  sizes = {'radius': 0.8, 'half_height': 0.6, 'depth': 0.5} | sizes
  half, quadric = _solids.make_shapes(
    jnp.full(count, kind), *(jnp.full(count, x) for x in sizes.values())
  )
  center = jnp.full((count, 3), 1e4).at[0].set(jnp.array([0.0, 1.0, 0.0]))
  axes = jnp.broadcast_to(jnp.eye(3), (count, 3, 3))
  solids = _solids.Solids(jnp.full(count, kind), center, axes, half, quadric)
  camera = _draw.Camera(
    jnp.array([0.0, 1.0, 5.0]), jnp.eye(3), jnp.asarray(0.3)
  )
  whole = scene._replace(
    solids=jax.tree.map(lambda x: x[None], solids),
    camera=jax.tree.map(lambda x: x[None], camera),
  )
  found = _render.render(whole, (33, 33))
  return jax.tree.map(lambda x: np.asarray(x[0]), found)


def test_depth_and_normals_of_a_sphere(scenes):
  found = one_solid(scenes, _solids.SPHERE)
  middle = 0.6 / 33 * (np.arange(33) - 16)
  x, y = np.meshgrid(middle, -middle)
  # |t d - (0, 0, -5)|^2 = 0.64 with d = (x, y, -1)
  square = x**2 + y**2 + 1
  inside = 25 - square * (25 - 0.64)
  expected = (5 - np.sqrt(np.maximum(inside, 0))) / square
  solid = found['segmentation'] > 0
  np.testing.assert_array_equal(solid, inside > 0)
  np.testing.assert_allclose(
    found['depth'][solid], expected[solid], rtol=1e-5, atol=1e-4
  )
  assert found['depth'][16, 16] == pytest.approx(5 - 0.8, rel=1e-6)
  normals = np.stack([expected * x, expected * y, 5 - expected], -1) / 0.8
  np.testing.assert_allclose(found['normals'][solid], normals[solid], atol=2e-3)


@pytest.mark.parametrize(
  ('kind', 'depth', 'normal'),
  [
    (_solids.BOX, 5 - 0.5, (0, 0, 1)),
    (_solids.CYLINDER, 5 - 0.8, (0, 0, 1)),
    # Its side leans by the angle of radius and height; at half its height it
    # has half its radius.
    (_solids.CONE, 5 - 0.4, (0, 0.5547002, 0.8320503)),
  ],
)
def test_the_pixel_in_the_middle(scenes, kind, depth, normal):
  found = one_solid(scenes, kind)
  assert found['depth'][16, 16] == pytest.approx(depth, rel=1e-5)
  np.testing.assert_allclose(found['normals'][16, 16], normal, atol=1e-4)
  texture = scenes.look.texture[0][0]
  assert found['segmentation'][16, 16] == 1 + 3 * kind + texture


def test_a_shadow_is_where_the_sun_is_hidden(scenes):
  b = 0
  solids = jax.tree.map(lambda x: jnp.asarray(x[b]), scenes.solids)
  center = np.float64(solids.center)
  sun = np.float64(scenes.light.direction[b])
  there = np.flatnonzero(center[:, 1] > 0)
  # Under the middle of a solid, and far away in the open.
  under = center[there] - sun * (center[there, 1] / sun[1])[:, None]
  points = np.concatenate([under, [[50.0, 0.0, 50.0]]]).astype(np.float32)
  hidden = _solids.shaded(solids, tuple(points.T), tuple(sun), 1e-3)
  assert np.asarray(hidden).tolist() == [True] * len(there) + [False]


def test_pictures_show_what_the_labels_say(pictures):
  image = pictures['image']
  assert image.dtype == np.uint8 and image.shape == (BATCH, SIZE, SIZE, 3)
  assert image.std(axis=(1, 2)).min() > 5
  assert pictures['segmentation'].dtype == np.int32
  assert pictures['depth'].dtype == pictures['normals'].dtype == np.float32


def test_the_same_key_and_place_give_the_same_scene(pictures):
  again = data.render_scenes(jax.random.key(3), 2, size=SIZE)
  for name, x in jax.device_get(again).items():
    # Another batch may round elsewhere: an edge can move by a pixel.
    assert np.mean(x == pictures[name][:2]) > 0.99
  other = data.render_scenes(jax.random.key(4), 2, size=SIZE)
  assert np.mean(np.asarray(other['image']) == pictures['image'][:2]) < 0.5


def test_sizes():
  found = data.render_scenes(jax.random.key(0), 1, size=(16, 32))
  assert found['image'].shape == (1, 16, 32, 3)
  assert found['depth'].shape == (1, 16, 32)
  with pytest.raises(ValueError, match='size=4 must be at least 8'):
    data.render_scenes(jax.random.key(0), 1, size=4)
  with pytest.raises(ValueError, match='batch=0 must be at least 1'):
    data.render_scenes(jax.random.key(0), 0)
  with pytest.raises(ValueError, match='height and width'):
    data.render_scenes(jax.random.key(0), 1, size=(16, 16, 3))


CONFIG = data.ScenesConfig(
  size=(16, 24), seed=2, num_train=5, num_validation=2, num_test=3
)


def test_a_stored_set_is_that_rendered_and_is_made_again_when_damaged(tmp_path):
  lines = []
  load = lambda split: data.load_scenes(
    CONFIG, split=split, data_dir=tmp_path, progress=lines.append
  )
  train = load('train')
  key = jax.random.fold_in(jax.random.key(2), 0)
  rendered = jax.device_get(data.render_scenes(key, 5, size=(16, 24)))
  assert train.keys() == rendered.keys()
  for name, x in rendered.items():
    assert (train[name].shape, train[name].dtype) == (x.shape, x.dtype)
    assert np.mean(np.isclose(train[name], x, atol=1e-3)) > 0.98
  assert [len(load(split)['depth']) for split in ('validation', 'test')] == [
    2,
    3,
  ]
  assert len(lines) == 1 and 'Preparing scenes/16x24' in lines[0]
  assert (load('validation')['image'] != train['image'][:2]).any()
  (file,) = tmp_path.rglob('*train*array_record*')
  file.write_bytes(file.read_bytes()[:-7])
  again = load('train')
  assert len(lines) == 2 and 'is built again' in lines[1]
  np.testing.assert_array_equal(again['normals'], train['normals'])


def test_other_scenes_in_its_place_are_noticed(tmp_path):
  builder = data.prepare_scenes(CONFIG, data_dir=tmp_path)
  builder.compare()
  builder.builder_config.seed = 3
  try:
    with pytest.raises(ValueError, match='is of other scenes: example 0'):
      builder.compare()
  finally:
    builder.builder_config.seed = 2


def test_configurations_that_cannot_be_are_refused():
  with pytest.raises(ValueError, match='num_test=0 must be at least 1'):
    data.ScenesConfig(num_test=0)
  with pytest.raises(ValueError, match='size=4 must be at least 8'):
    data.ScenesConfig(size=(4, 64))
  with pytest.raises(ValueError, match="split='val' is not one of"):
    data.load_scenes(CONFIG, split='val')

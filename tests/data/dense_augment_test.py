"""The augmentation of dense labels, against a plain reference in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import data

HEIGHT, WIDTH = 12, 18


@pytest.fixture(scope='module')
def example():
  rng = np.random.default_rng(0)
  return {
    'image': rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8),
    'segmentation': rng.integers(-1, 5, (HEIGHT, WIDTH)).astype(np.int32),
    'depth': rng.uniform(1, 9, (HEIGHT, WIDTH)).astype(np.float32),
    'normals': rng.normal(size=(HEIGHT, WIDTH, 3)).astype(np.float32),
  }


def enlarged(x, top, left, h, w):
  """Bilinear with the corners kept, by np.interp along each axis."""
  part = x[top : top + h, left : left + w].astype(np.float64)
  for axis, (new, old) in enumerate(((h, HEIGHT), (w, WIDTH))):
    at = np.linspace(0, new - 1, old)
    part = np.apply_along_axis(
      lambda v, at=at, new=new: np.interp(at, np.arange(new), v), axis, part
    )
  return part


def repeated(x, top, left, h, w):
  rows = top + np.floor(np.arange(HEIGHT) * h / HEIGHT).astype(int)
  columns = left + np.floor(np.arange(WIDTH) * w / WIDTH).astype(int)
  return x[np.ix_(rows, columns)]


def candidates(x, how, scale):
  """All crops of a scale, plain and mirrored."""
  h, w = int(HEIGHT / scale), int(WIDTH / scale)
  for top in range(HEIGHT - h + 1):
    for left in range(WIDTH - w + 1):
      made = how(x, top, left, h, w)
      yield (top, left, False), made
      yield (top, left, True), made[:, ::-1]


@pytest.mark.parametrize('scale', [1.2, 1.5])
def test_all_entries_are_one_crop_of_the_reference(example, scale):
  seen = set()
  augment = jax.jit(
    lambda key: data.scale_crop_flip(key, example, scales=(scale,))
  )
  tables = {
    name: dict(candidates(example[name], how, scale))
    for name, how in (
      ('image', enlarged),
      ('segmentation', repeated),
      ('depth', repeated),
      ('normals', enlarged),
    )
  }
  for seed in range(30):
    made = augment(jax.random.key(seed))
    place = [
      place
      for place, depth in tables['depth'].items()
      if np.allclose(made['depth'] * scale, depth, rtol=1e-5)
    ]
    assert len(place) == 1, seed
    place = place[0]
    seen.add(place)
    np.testing.assert_array_equal(
      made['segmentation'], tables['segmentation'][place]
    )
    image = np.asarray(made['image'], np.float64)
    assert made['image'].dtype == np.uint8
    np.testing.assert_allclose(image, tables['image'][place], atol=0.501)
    normals = tables['normals'][place] * [-1 if place[2] else 1, 1, 1]
    np.testing.assert_allclose(made['normals'], normals, atol=1e-5)
  assert len({place[2] for place in seen}) == 2
  assert len({place[0] for place in seen}) == HEIGHT - int(HEIGHT / scale) + 1


def test_scales_are_drawn_alike(example):
  only = {'image': example['image'], 'depth': jnp.ones((HEIGHT, WIDTH))}
  made = jax.vmap(lambda key: data.scale_crop_flip(key, only)['depth'][0, 0])(
    jax.random.split(jax.random.key(0), 600)
  )
  shares = [np.mean(np.isclose(made, 1 / s)) for s in (1.0, 1.2, 1.5)]
  np.testing.assert_allclose(shares, 1 / 3, atol=0.06)


def test_nothing_changes_without_scale_and_flip(example):
  made = data.scale_crop_flip(
    jax.random.key(0), example, scales=(1.0,), flip=False
  )
  for name, x in example.items():
    np.testing.assert_allclose(made[name], x, err_msg=name)


def test_bad_arguments_are_named(example):
  key = jax.random.key(0)
  with pytest.raises(ValueError, match="'label' is not one of"):
    data.scale_crop_flip(key, example | {'label': example['depth']})
  with pytest.raises(ValueError, match=r'scales=0\.5 must be'):
    data.scale_crop_flip(key, example, scales=(0.5,))
  with pytest.raises(ValueError, match='at least one'):
    data.scale_crop_flip(key, example, scales=())

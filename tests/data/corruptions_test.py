"""The corruptions against the reference, Pillow, and their own definitions."""

import io
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mtljax.data import corruptions
from mtljax.data.corruptions import _digital, _resample, _severities

GOLDEN = pathlib.Path(__file__).parent.parent / 'golden' / 'corruptions.npz'
EXACT = (
  'defocus_blur',
  'gaussian_blur',
  'zoom_blur',
  'contrast',
  'brightness',
  'saturate',
)
# Largest distance of mean, deviation and change from those of the reference.
MOMENTS = {
  'gaussian_noise': 0.005,
  'shot_noise': 0.005,
  'impulse_noise': 0.005,
  'speckle_noise': 0.005,
  'motion_blur': 0.02,
  'snow': 0.02,
  'fog': 0.04,
  'glass_blur': 0.03,
  'spatter': 0.03,
}
NAMES = corruptions.CORRUPTIONS + corruptions.HELD_OUT


@pytest.fixture(scope='module')
def golden():
  with np.load(GOLDEN) as arrays:
    return dict(arrays)


@pytest.fixture(scope='module')
def image(golden):
  return jnp.asarray(golden['image'] / 255, jnp.float32)


def corrupt(images, name, severity, seed=0, **options):
  key = jax.random.key(seed)
  return np.asarray(corruptions.corrupt(images, key, name, severity, **options))


@pytest.mark.parametrize('name', EXACT)
def test_deterministic_ones_are_those_of_the_reference(golden, image, name):
  for severity in (1, 3):
    found = corrupt(image[None], name, severity)[0] * 255
    # The reference cuts off to 8 bits, so it is up to one level below.
    gap = found - golden[f'{name}/{severity}']
    assert -0.01 < gap.min()
    assert gap.max() < 1.01


@pytest.mark.parametrize('name', MOMENTS)
def test_random_ones_have_the_moments_of_the_reference(golden, image, name):
  draws = 16 if name.endswith('noise') else 64
  images = jnp.broadcast_to(image, (draws, *image.shape))
  x = corrupt(images, name, 3)
  gap = x - np.asarray(image)
  found = x.mean(), x.std((1, 2)).mean(), np.sqrt((gap**2).mean())
  np.testing.assert_allclose(
    found, golden[f'moments/{name}/3'], rtol=0, atol=MOMENTS[name]
  )


@pytest.mark.parametrize('size', [(40, 48), (37, 45)])
@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_jpeg_is_close_to_libjpeg(image, size, mode):
  levels = np.rint(np.asarray(image)[: size[0], : size[1]] * 255)
  picture = Image.fromarray(levels.astype(np.uint8)).convert(mode)
  file = io.BytesIO()
  picture.save(file, 'JPEG', quality=15)
  want = np.asarray(Image.open(file), np.float32)
  given = np.asarray(picture, np.float32).reshape(*size, -1) / 255
  found = corrupt(jnp.asarray(given)[None], 'jpeg_compression', 3)[0] * 255
  gap = np.abs(found - want.reshape(found.shape))
  assert gap.mean() < 0.6
  # A coefficient between two steps may go the other way, and takes its block.
  assert (gap > 2).mean() < 0.05


@pytest.mark.parametrize('size', [32, 36, 37, 40, 224])
def test_pixelate_is_two_box_filters_of_pillow(size):
  line = np.random.default_rng(0).random((1, size)).astype(np.float32)
  for table in _severities.SCALES.values():
    for factor in table['pixelate']:
      small = Image.fromarray(line).resize((int(size * factor), 1), Image.BOX)
      want = np.asarray(small.resize((size, 1), Image.BOX))[0]
      found = _digital._blocks(size, factor) @ line[0]
      np.testing.assert_allclose(found, want, atol=1e-6)


@pytest.mark.parametrize('name', NAMES)
def test_grey_images_of_small_size(name):
  """In range, of their shape and dtype, and different; equal keys agree."""
  grey = jax.random.uniform(jax.random.key(1), (3, 9, 12, 1), jnp.float16)
  found = corrupt(grey, name, 5, scale='cifar')
  assert found.shape == grey.shape
  assert found.dtype == grey.dtype
  assert (found >= 0).all()
  assert (found <= 1).all()
  assert (name == 'saturate') == np.array_equal(found, grey)
  np.testing.assert_array_equal(found, corrupt(grey, name, 5, scale='cifar'))


def test_images_have_keys_of_their_own(image):
  pair = jnp.stack([image, image])
  found = corrupt(pair, 'motion_blur', 3)
  assert np.abs(found[0] - found[1]).max() > 0.01


def test_glass_keeps_the_values_between_its_blurs(image):
  """Exchanges move pixels, so the sum is kept; the reference copies."""
  found = corrupt(image[None], 'glass_blur', 1, scale='cifar')[0]
  want = np.floor(np.asarray(image) * 255 + 1e-3) / 255
  np.testing.assert_allclose(
    np.sort(found.ravel()), np.sort(want.ravel()), atol=1.1 / 255
  )
  assert np.abs(found - want).max() > 0.1


def test_brightness_and_saturation_of_grey_pixels():
  pixel = jnp.asarray([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
  images = jnp.broadcast_to(pixel[:, None, None], (2, 2, 2, 3))
  brighter = corrupt(images, 'brightness', 1)
  np.testing.assert_allclose(brighter[:, 0, 0], pixel + 0.1, atol=1e-6)
  red = corrupt(images, 'saturate', 4)[1, 0, 0]
  np.testing.assert_allclose(red, [0.5, 0.45, 0.45], atol=1e-6)


def test_blurs_keep_a_constant():
  flat = jnp.full((1, 9, 12, 3), 0.4)
  for name in ('gaussian_blur', 'defocus_blur', 'zoom_blur', 'pixelate'):
    np.testing.assert_allclose(corrupt(flat, name, 3), 0.4, atol=1e-5)


def test_sampling_where_nothing_moves(image):
  rows, columns = jnp.meshgrid(
    jnp.arange(40.0), jnp.arange(48.0), indexing='ij'
  )
  found = _resample.sample(image, rows, columns, 'mirror')
  np.testing.assert_array_equal(found, image)


def test_every_severity_of_both_scales_is_there():
  for table in _severities.SCALES.values():
    assert set(table) == set(NAMES)
    assert all(len(values) == 5 for values in table.values())


def test_no_image(image):
  assert corrupt(image[None][:0], 'fog', 1).shape == (0, 40, 48, 3)


@pytest.mark.parametrize(
  ('change', 'error', 'text'),
  [
    ({'name': 'gausian_noise'}, ValueError, "Did you mean 'gaussian_noise'"),
    ({'severity': 6}, ValueError, 'severity=6'),
    ({'severity': 1.5}, TypeError, 'severity=1.5'),
    ({'scale': 'mnist'}, ValueError, "scale='mnist'"),
    ({'images': jnp.zeros((4, 4, 3))}, ValueError, r'\(4, 4, 3\)'),
    ({'images': jnp.zeros((1, 4, 4, 2))}, ValueError, '1 or 3'),
    ({'images': jnp.zeros((1, 1, 4, 1))}, ValueError, '2 x 2'),
    ({'images': jnp.zeros((1, 4, 4, 1), jnp.uint8)}, TypeError, 'by 255'),
  ],
)
def test_bad_input(change, error, text):
  given = {'images': jnp.zeros((1, 4, 4, 3)), 'name': 'fog', 'severity': 1}
  given |= change
  images = given.pop('images')
  with pytest.raises(error, match=text):
    corruptions.corrupt(images, jax.random.key(0), **given)

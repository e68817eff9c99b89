"""CelebA as tfds stores it, read from files that its own builder made."""

import io

import celeba_files
import numpy as np
import pytest
from PIL import Image

from mtljax import data, models
from mtljax.data import _photographs

SIZES = (7, 3, 4)


@pytest.fixture(scope='module')
def faces(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tfds')
  return folder, *celeba_files.write(folder, SIZES)


def test_splits_are_those_of_the_authors(faces):
  folder, colours, signs = faces
  ends = np.cumsum((0, *SIZES))
  for i, split in enumerate(('train', 'validation', 'test')):
    found = data.load_celeba(split=split, data_dir=folder)
    assert found['image'].shape == (SIZES[i], 64, 64, 3)
    assert found['image'].dtype == np.uint8
    # tfds stores them in an order of its own: find each by its colour.
    own = colours[ends[i] : ends[i + 1]].astype(int)
    apart = np.abs(found['image'][:, 0, 0].astype(int)[:, None] - own).sum(-1)
    place = apart.argmin(1)
    assert sorted(place) == list(range(SIZES[i])) and apart.min(1).max() < 9
    for j, name in enumerate(celeba_files.ATTRIBUTES):
      wanted = signs[ends[i] : ends[i + 1]][place, j] > 0
      np.testing.assert_array_equal(found[name], wanted, name)


def test_attributes_are_the_tasks_of_the_network(faces):
  found = data.load_celeba(split='test', data_dir=faces[0])
  assert tuple(found) == ('image', *models.CELEBA_ATTRIBUTES)
  assert celeba_files.ATTRIBUTES == models.CELEBA_ATTRIBUTES


def test_photographs_are_shrunk_as_pillow_does():
  """By an average over the pixels that a smaller one covers."""
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (128, 64, 3), dtype=np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'PNG')
  small = _photographs.shrunk(file, 64, '', '')
  # Rows shrink by two: weights of a triangle of half-width two, at odd pixels.
  weights = np.array([1, 3, 3, 1]) / 8
  wanted = sum(
    w * pixels[1 + k : 125 + k : 2].astype(float) for k, w in enumerate(weights)
  )
  np.testing.assert_allclose(small[1:63], wanted, atol=0.51)


def test_the_first_ones_alone(faces):
  whole = data.load_celeba(split='train', size=16, data_dir=faces[0])
  some = data.load_celeba(
    split='train', size=16, num_examples=2, data_dir=faces[0]
  )
  assert some['image'].shape == (2, 16, 16, 3)
  for name, x in some.items():
    np.testing.assert_array_equal(x, whole[name][:2])


def test_missing_data_says_where_to_get_it(tmp_path):
  with pytest.raises(FileNotFoundError) as raised:
    data.load_celeba(split='train', data_dir=tmp_path)
  said = str(raised.value)
  assert str(tmp_path) in said
  assert 'tfds build celeb_a --file_format=array_record' in said


def test_a_damaged_file_is_named(tmp_path):
  celeba_files.write(tmp_path, SIZES)
  (path,) = tmp_path.glob('celeb_a/*/celeb_a-test.array_record*')
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 255
  path.write_bytes(content)
  data.load_celeba(split='train', data_dir=tmp_path)
  with pytest.raises(ValueError, match=f'{path.name}.*prepare it again'):
    data.load_celeba(split='test', data_dir=tmp_path)


def test_what_is_no_image_is_named():
  with pytest.raises(ValueError, match='face 3 is no image.*: take another'):
    _photographs.shrunk(io.BytesIO(b'no'), 64, 'face 3', 'take another')

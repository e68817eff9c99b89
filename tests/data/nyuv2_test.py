"""Reading the files of NYUv2, and what is said of those that are wrong."""

import re
import shutil

import dense_files
import numpy as np
import pytest

from mtljax import data


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tfds')
  dense_files.write_nyuv2(folder, train=2, val=1)
  return folder


@pytest.fixture
def copy(whole, tmp_path):
  shutil.copytree(whole, tmp_path / 'tfds')
  return tmp_path / 'tfds'


def root(folder):
  return folder / 'downloads' / 'manual' / 'nyuv2'


def test_arrays_are_those_of_the_files(whole):
  found = data.load_nyuv2(split='train', data_dir=whole)
  assert {k: (x.shape, x.dtype.name) for k, x in found.items()} == {
    'image': ((2, 288, 384, 3), 'uint8'),
    'segmentation': ((2, 288, 384), 'int32'),
    'depth': ((2, 288, 384), 'float32'),
    'normals': ((2, 288, 384, 3), 'float32'),
  }
  load = lambda name: np.load(root(whole) / 'train' / name / '1.npy')
  np.testing.assert_allclose(
    found['image'][1] / 255, load('image'), atol=0.5 / 255 + 1e-6
  )
  np.testing.assert_array_equal(found['segmentation'][1], load('label'))
  np.testing.assert_array_equal(found['depth'][1], load('depth')[..., 0])
  np.testing.assert_array_equal(found['normals'][1], load('normal'))
  assert found['segmentation'].min() == -1


def test_the_test_split_is_the_folder_val(whole):
  found = data.load_nyuv2(split='test', data_dir=whole)
  expected = np.load(root(whole) / 'val' / 'depth' / '0.npy')
  np.testing.assert_array_equal(found['depth'], expected[None, ..., 0])


def test_missing_data_says_where_from_and_where_to(tmp_path):
  with pytest.raises(FileNotFoundError) as error:
    data.load_nyuv2(split='train', data_dir=tmp_path)
  text = str(error.value)
  assert 'https://github.com/lorenmt/mtan' in text
  assert str(root(tmp_path) / 'train' / 'image' / '0.npy') in text


def test_a_missing_file_is_named(copy):
  (root(copy) / 'train' / 'normal' / '1.npy').unlink()
  with pytest.raises(FileNotFoundError, match='normal/1.npy is missing'):
    data.load_nyuv2(split='train', data_dir=copy)


@pytest.mark.parametrize(
  ('folder', 'array', 'text'),
  [
    (
      'depth',
      np.zeros((288, 384, 3)),
      r'shape \(288, 384, 3\) and dtype float',
    ),
    ('depth', np.full((288, 384), np.nan), 'not finite'),
    ('image', np.full((288, 384, 3), 255.0), 'from 255 to 255.*from 0 to 1'),
    ('label', np.full((288, 384), 13), 'from 13 to 13.*from 0 to 12'),
    ('label', np.full((288, 384), 0.5), '0.5 to 0.5.*whole numbers'),
    ('normal', np.zeros((288, 384, 3), complex), 'dtype complex128; expected'),
  ],
)
def test_a_wrong_file_is_named(copy, folder, array, text):
  path = root(copy) / 'train' / folder / '1.npy'
  np.save(path, array)
  with pytest.raises(ValueError, match=f'{re.escape(str(path))}.*{text}'):
    data.load_nyuv2(split='train', data_dir=copy)


@pytest.mark.parametrize('content', [b'', b'no numbers'])
def test_what_is_no_array_is_named(copy, content):
  path = root(copy) / 'train' / 'label' / '0.npy'
  path.write_bytes(content)
  with pytest.raises(ValueError, match='label/0.npy is no .npy file'):
    data.load_nyuv2(split='train', data_dir=copy)

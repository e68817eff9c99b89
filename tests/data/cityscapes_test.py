"""Reading Cityscapes in both forms, and what is said of what is wrong."""

import dense_files
import numpy as np
import pytest

from mtljax import data
from mtljax.data import cityscapes


def test_arrays_are_those_of_the_files(tmp_path):
  root = dense_files.write_cityscapes(tmp_path, train=2, val=1)
  found = data.load_cityscapes(split='train', data_dir=tmp_path)
  assert {k: (x.shape, x.dtype.name) for k, x in found.items()} == {
    'image': ((2, 128, 256, 3), 'uint8'),
    'segmentation': ((2, 128, 256), 'int32'),
    'depth': ((2, 128, 256), 'float32'),
  }
  load = lambda name: np.load(root / 'train' / name / '1.npy')
  np.testing.assert_array_equal(found['segmentation'][1], load('label_7'))
  np.testing.assert_array_equal(found['depth'][1], load('depth')[..., 0])
  np.save(root / 'val' / 'label_7' / '0.npy', np.full((128, 256), 18))
  with pytest.raises(ValueError, match=r'label_7/0\.npy has values.*0 to 6'):
    data.load_cityscapes(split='test', data_dir=tmp_path)


def test_missing_data_says_where_from_and_where_to(tmp_path):
  with pytest.raises(FileNotFoundError) as error:
    data.load_cityscapes(split='test', data_dir=tmp_path)
  assert 'https://github.com/lorenmt/mtan' in str(error.value)
  assert 'cityscapes/train/image/0.npy' in str(error.value)
  with pytest.raises(FileNotFoundError) as error:
    data.load_cityscapes(split='test', form='tfds', data_dir=tmp_path)
  text = str(error.value)
  assert 'https://www.cityscapes-dataset.com' in text
  assert 'tfds build cityscapes/semantic_segmentation' in text
  with pytest.raises(ValueError, match="form='tfd' is not one of"):
    data.load_cityscapes(split='test', form='tfd', data_dir=tmp_path)


def test_categories_are_those_of_the_labels_of_the_data_set():
  known = {
    'void': (range(0, 7), -1),
    'flat': (range(7, 11), 0),
    'construction': (range(11, 17), 1),
    'object': (range(17, 21), 2),
    'nature': (range(21, 23), 3),
    'sky': ([23], 4),
    'human': ([24, 25], 5),
    'vehicle': (range(26, 34), 6),
    'licence plate': ([255], -1),
  }
  for labels, number in known.values():
    for label in labels:
      image = np.full((1024, 2048), label, np.uint8)
      assert (cityscapes.category(image[:128, :256]) == number).all()


def test_tfds_is_joined_by_name_and_keeps_16_bits(tmp_path):
  folder = tmp_path / 'png'
  folder.mkdir()
  dense_files.prepare_cityscapes(
    tmp_path, folder, {'train': 2, 'validation': 1}
  )
  said = []
  found = data.load_cityscapes(
    split='train', form='tfds', data_dir=tmp_path, progress=said.append
  )
  assert said == ['Decoding 2 images of Cityscapes (train).']
  assert found['image'].shape == (2, 128, 256, 3)
  made = [dense_files.street(i) for i in range(2)]
  # Squares of 16 pixels are of one colour, so those of 8 are.
  small = [x['image_left'][::8, ::8] for x in made]
  order = [0, 1] if (found['image'][0] == small[0]).all() else [1, 0]
  for i, row in enumerate(order):
    np.testing.assert_array_equal(found['image'][i], small[row])
    labels = made[row]['segmentation_label'][::8, ::8]
    np.testing.assert_array_equal(
      found['segmentation'][i], cityscapes.CATEGORIES[labels]
    )
    disparity = made[row]['disparity_map'][::8, ::8].astype(np.float64)
    expected = np.where(disparity > 0, (disparity - 1) / 256 / 2048, 0)
    np.testing.assert_allclose(found['depth'][i], expected, rtol=1e-6)
  assert found['depth'].max() > 255 / 256 / 2048  # not cut to 8 bits
  test = data.load_cityscapes(split='test', form='tfds', data_dir=tmp_path)
  np.testing.assert_array_equal(
    test['image'][0], dense_files.street(2)['image_left'][::8, ::8]
  )

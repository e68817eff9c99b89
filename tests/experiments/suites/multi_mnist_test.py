"""Multi-MNIST and its two relatives, of small files as tfds stores them."""

import json
import sys

import mnist_files
import numpy as np
import pytest
from PIL import Image

from experiments import compare
from experiments.lab import comparison
from experiments.suites import DataOptions, digits, find

NAMES = ('multi_mnist', 'multifashion', 'fashion_and_mnist')
SIZES = {'num_train': 60, 'num_validation': 20, 'num_test': 30}
#: Of a bar, by what is left and right of a pair.
SHADES = {'mnist': 250, 'fashion_mnist': 150}


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tfds')
  for name, shade in SHADES.items():
    mnist_files.write(folder, name, (200, 50), shade)
  return folder


def bars(images):
  """The shades of the bars, above the noise, at both ends of the diagonal."""
  left = images[:, :28, 1, 0].max(1)  # columns that the right one leaves free
  right = images[:, 8:, 34, 0].max(1)
  return set(left), set(right)


@pytest.mark.parametrize(
  ('name', 'left', 'right'),
  [
    ('multi_mnist', 250, 250),
    ('multifashion', 150, 150),
    ('fashion_and_mnist', 150, 250),
  ],
)
def test_pairs_are_of_their_data_sets(data_dir, name, left, right):
  found = find(name).read(DataOptions(dir=data_dir, **SIZES), 8, lambda _: None)
  for split, size in zip(found.splits, (60, 20, 30), strict=True):
    arrays = found.splits[split]
    assert arrays['image'].shape == (size, 36, 36, 1)
    assert bars(arrays['image']) == ({left}, {right})
    # The bar of a label starts two pixels lower than that of the one before.
    rows = (arrays['image'][:, :28, 1, 0] == left).argmax(1)
    np.testing.assert_array_equal((rows - 4) / 2, arrays['left'])


def test_the_canvas_of_sener_and_koltun(data_dir):
  """Offset 6, and shrunk as Pillow does by nearest neighbours."""
  suite = find('multi_mnist')
  options = DataOptions(dir=data_dir, source='28', **SIZES)
  small = suite.read(options, 8, lambda _: None).splits['test']
  whole = digits.load_pairs('mnist', options, lambda _: None, offset=6).splits[
    'test'
  ]
  assert small['image'].shape == (30, 28, 28, 1)
  assert not whole['image'][:, 34:].any() and whole['image'][:, 33].any()
  np.testing.assert_array_equal(small['left'], whole['left'])
  for image, canvas in zip(small['image'], whole['image'], strict=True):
    wanted = Image.fromarray(canvas[..., 0]).resize(
      (28, 28), Image.Resampling.NEAREST
    )
    np.testing.assert_array_equal(image[..., 0], np.asarray(wanted))


def test_other_data_sets_of_the_family_can_be_tested_on(data_dir):
  suite = find('multi_mnist')
  assert set(suite.others) == {'rotated', 'fashion_mnist', 'fashion_and_mnist'}
  options = DataOptions(dir=data_dir, **SIZES)
  found = suite.read(options, 8, lambda _: None)
  images = suite.others['fashion_mnist'](found, options, lambda _: None)
  assert bars(images['image']) == ({150}, {150})


@pytest.mark.parametrize('name', NAMES)
def test_presets_are_options_of_a_comparison(name):
  suite = find(name)
  found = comparison.configs(suite)
  for config in found.values():
    comparison.check(comparison.complete(config, suite), suite)
  paper = found['paper']
  assert (paper.model, paper.epochs, paper.batch_size) == ('resnet18', 200, 256)
  assert (paper.learning_rate, paper.schedule) == (1e-3, 'constant')
  sener = found['sener']
  assert (sener.decay_every, sener.decay_factor) == (10, 0.85)
  assert sener.data == DataOptions(source='28')


def test_missing_digits_say_where_to_get_them(tmp_path):
  with pytest.raises(FileNotFoundError, match='tfds build fashion_mnist'):
    find('multifashion').read(DataOptions(dir=tmp_path), 8, lambda _: None)


@pytest.mark.parametrize(
  'name',
  [
    'multi_mnist',
    pytest.param('multifashion', marks=pytest.mark.slow),
    pytest.param('fashion_and_mnist', marks=pytest.mark.slow),
  ],
)
def test_a_comparison_end_to_end(data_dir, tmp_path, monkeypatch, name):
  command = ['compare', '--suite', name, '--out', str(tmp_path)]
  command += ['--data.dir', str(data_dir), '--no-progress', '--no-tensorboard']
  command += '--methods sum_losses --no-baselines --seeds 1'.split()
  command += ['--data.pool', '2']
  command += '--model multi_mlp --epochs 12 --batch-size 32'.split()
  command += '--data.num-train 512 --data.num-validation 64'.split()
  command += ['--data.num-test', '128']
  monkeypatch.setattr(sys, 'argv', command)
  compare.main()
  summary = json.loads((tmp_path / 'summary.json').read_text())
  assert not summary['failures']
  rows = {(r['kind'], r['name']): r for r in summary['beside']['rows']}
  own = rows['method', 'sum_losses']['metrics']
  assert own['accuracy/left'] > 0.6 and own['accuracy/right'] > 0.6
  published = rows['published', 'F-CAGrad']['means']['accuracy']
  wanted = {'multi_mnist': 0.9595, 'multifashion': 0.8782}
  assert published == wanted.get(name, 0.9354)
  page = (tmp_path / 'report.html').read_text()
  assert 'accuracy, mean' in page and 'F-CAGrad (published)' in page

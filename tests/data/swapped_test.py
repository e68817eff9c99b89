"""Data sets of the same form and size as the right one, and not it."""

import io
import pathlib
import shutil

import census_rows
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import registered

from mtljax import data
from mtljax.data import _cache
from mtljax.data import _census_columns as raw

SIZES = {'num_train': 40, 'num_validation': 10, 'num_test': 20}


class Base(tfds.core.GeneratorBasedBuilder):
  """Sixty digits a split; those of the two sets differ in size too."""

  VERSION = tfds.core.Version('3.0.1')
  url_infos = None

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(shape=(28, 28, 1)),
          'label': tfds.features.ClassLabel(num_classes=10),
        }
      ),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    return {s: self._generate_examples(s) for s in ('train', 'test')}

  def _generate_examples(self, split):
    rng = np.random.default_rng(len(self.name))
    for key in range(60):
      image = rng.integers(0, 256, (28, 28, 1), np.uint8)
      image[: len(self.name)] = 0
      file = io.BytesIO()  # encoding an array needs TensorFlow
      Image.fromarray(image[..., 0]).save(file, 'PNG')
      yield key, {'image': file.getvalue(), 'label': key % 10}


with registered.skip_registration():

  class Mnist(Base):
    pass

  class FashionMnist(Base):
    pass


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
  root = tmp_path_factory.mktemp('sources')
  for builder in (Mnist, FashionMnist):
    builder(data_dir=root, file_format='array_record').download_and_prepare()
  return root


@pytest.fixture
def root(sources, tmp_path):
  shutil.copytree(sources, tmp_path / 'data')
  return tmp_path / 'data'


def prepare_mnist(root):
  config = data.MultiDigitsConfig(source='mnist', **SIZES)
  return data.prepare_multi_digits(config, data_dir=root)


def swap_folder(root):
  shutil.rmtree(root / 'mnist')
  shutil.copytree(root / 'fashion_mnist', root / 'mnist')


def swap_and_rename(root):
  swap_folder(root)
  for path in (root / 'mnist').rglob('fashion_mnist-*'):
    path.rename(path.with_name(path.name.removeprefix('fashion_')))


def swap_records(root):
  for path in (root / 'mnist').rglob('*.array_record-*'):
    (other,) = (root / 'fashion_mnist').rglob(f'fashion_{path.name}')
    shutil.copy(other, path)


def test_a_source_that_is_what_it_says_is_read(root):
  assert prepare_mnist(root).info.splits['train'].num_examples == 40


@pytest.mark.parametrize(
  ('swap', 'said'),
  [
    (swap_folder, 'dataset_info.json is of fashion_mnist, not of mnist'),
    (swap_and_rename, 'dataset_info.json is of fashion_mnist, not of mnist'),
    (swap_records, 'is of another data set: the examples of train have'),
  ],
)
def test_a_source_swapped_for_another_is_named(root, swap, said):
  swap(root)
  with pytest.raises(ValueError, match=said) as caught:
    prepare_mnist(root)
  assert 'tfds build mnist' in str(caught.value)
  assert not list((root / 'multi_digits').rglob(_cache.MANIFEST))


def prepare(root, **config):
  said = []
  builder = data.prepare_multi_digits(
    data.MultiDigitsConfig(**SIZES | config),
    data_dir=root,
    progress=said.append,
  )
  source = builder.as_data_source(split='train')
  return np.stack([source[i]['image'] for i in range(40)]), ' '.join(said)


def folders(root):
  found = sorted((root / 'multi_digits').glob('*/1.0.0'))
  for folder in found:
    (folder / _cache.MANIFEST).unlink()
  return found


@pytest.mark.parametrize('other', [{'seed': 1}, {'offset': 7}])
@pytest.mark.parametrize('named', [False, True])
def test_other_pairs_without_a_manifest_are_not_adopted(tmp_path, other, named):
  """Not even where their metadata are those of the right configuration."""
  expected, _ = prepare(tmp_path, seed=0, offset=8)
  wrong, _ = prepare(tmp_path, **other)
  assert not np.array_equal(wrong, expected)
  by_name = {folder.parent.name: folder for folder in folders(tmp_path)}
  right = by_name.pop('mnist_5k-seed0-offset8-40-10-20')
  (there,) = by_name.values()
  info = (right / 'dataset_info.json').read_bytes()
  shutil.rmtree(right)
  shutil.copytree(there, right)
  if named:
    (right / 'dataset_info.json').write_bytes(info)
  found, said = prepare(tmp_path)
  assert 'is built again' in said
  assert ('example 0 of train' in said or 'bytes' in said) == named
  np.testing.assert_array_equal(found, expected)


def test_without_its_source_a_folder_is_taken_with_a_word(
  tmp_path, monkeypatch
):
  expected, _ = prepare(tmp_path)
  folders(tmp_path)

  def missing(*args):
    raise FileNotFoundError('no digits here')

  monkeypatch.setattr(data.MultiDigits, 'compare', missing)
  monkeypatch.setattr(data.multi_digits._sources, 'digits_by_split', missing)
  found, said = prepare(tmp_path)
  assert 'taken as it is' in said and 'no digits here' in said
  np.testing.assert_array_equal(found, expected)


@pytest.fixture(scope='module')
def census(tmp_path_factory):
  root = tmp_path_factory.mktemp('census')
  census_rows.write_raw(root / 'a', raw.COLUMNS)
  census_rows.write_raw(root / 'b', raw.COLUMNS)
  rng = np.random.default_rng(1)
  rows = [census_rows.make_row(rng, raw.COLUMNS) for _ in range(200)]
  manual = root / 'b' / 'downloads' / 'manual'
  census_rows.write_rows(manual / 'census-income.data.gz', rows)
  for name in 'ab':
    data.prepare_census(data_dir=root / name)
  return root


def census_folder(root):
  return root / 'census' / '1.0.0'


def shard(root):
  (path,) = census_folder(root).glob('*-train.array_record*')
  return path


def cut(root, other):
  del other
  shard(root).write_bytes(shard(root).read_bytes()[:-100])


def flip(root, other):
  del other
  content = bytearray(shard(root).read_bytes())
  content[len(content) // 2] ^= 1
  shard(root).write_bytes(content)


def swap(root, other):
  shutil.copy(shard(other), shard(root))


def swap_vocabularies(root, other):
  for name in ('metadata.json', 'dataset_info.json'):
    shutil.copy(census_folder(other) / name, census_folder(root) / name)


def swap_whole(root, other):
  shutil.rmtree(census_folder(root))
  shutil.copytree(census_folder(other), census_folder(root))


DAMAGES = [cut, flip, swap, swap_vocabularies]
CASES = [(damage, manifest) for damage in DAMAGES for manifest in (True, False)]
# With its manifest it would be whole, and of other raw files.
CASES += [(swap_whole, False)]


@pytest.mark.parametrize(('damage', 'manifest'), CASES)
def test_damage_to_the_census_is_named_and_built_again(
  census, tmp_path, damage, manifest
):
  root = tmp_path / 'data'
  shutil.copytree(census / 'a', root)
  damage(root, census / 'b')
  if not manifest:
    (census_folder(root) / _cache.MANIFEST).unlink()
  said = []
  found = data.load_census(split='train', data_dir=root, progress=said.append)
  assert any('is built again' in line for line in said)
  expected = data.load_census(split='train', data_dir=census / 'a')
  assert found.keys() == expected.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize('half', [0.5, 0.99])
def test_a_raw_file_that_is_cut_is_named(tmp_path, half):
  census_rows.write_raw(tmp_path, raw.COLUMNS)
  path = tmp_path / 'downloads' / 'manual' / 'census-income.data.gz'
  content = path.read_bytes()
  path.write_bytes(content[: int(half * len(content))])
  with pytest.raises(ValueError, match=r'census-income\.data\.gz is damaged'):
    data.prepare_census(data_dir=tmp_path)
  assert not census_folder(tmp_path).exists()
  path.write_bytes(content[:-6] + bytes(2) + content[-4:])  # its checksum
  with pytest.raises(ValueError, match=r'census-income\.data\.gz is damaged'):
    data.prepare_census(data_dir=tmp_path)


def test_the_folder_of_a_home_that_cannot_be_written_is_named():
  path = pathlib.Path('/proc/home/tensorflow_datasets')
  with pytest.raises(OSError, match=r'/proc/home.*--data\.dir'):
    prepare(path)

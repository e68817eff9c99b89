"""Damaged data sets on disk are found, named and built again."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from mtljax import data
from mtljax.data import _cache

CONFIG = {'num_train': 40, 'num_validation': 10, 'num_test': 20}


def prepare(root, **config):
  said = []
  builder = data.prepare_multi_digits(
    data.MultiDigitsConfig(**CONFIG | config),
    data_dir=root,
    progress=said.append,
  )
  return builder, ' '.join(said)


def pixels(builder):
  source = builder.as_data_source(split='train')
  return np.stack([source[i]['image'] for i in range(len(source))])


@pytest.fixture(scope='module')
def original(tmp_path_factory):
  root = tmp_path_factory.mktemp('original')
  builder, _ = prepare(root)
  prepare(root, seed=1)
  return root, pixels(builder)


@pytest.fixture
def root(original, tmp_path):
  shutil.copytree(original[0], tmp_path / 'data')
  return tmp_path / 'data'


def folder(root, seed=0):
  (found,) = (root / 'multi_digits').glob(f'*seed{seed}-*/1.0.0')
  return found


def shard(root, seed=0):
  return next(folder(root, seed).glob('*-train.array_record*'))


def cut(root):
  path = shard(root)
  path.write_bytes(path.read_bytes()[:-100])
  return path.name


def empty(root):
  shard(root).write_bytes(b'')
  return shard(root).name


def flip(root):
  content = bytearray(shard(root).read_bytes())
  content[len(content) // 2] ^= 1
  shard(root).write_bytes(content)
  return shard(root).name


def swap_one(root):
  shutil.copy(shard(root, 1), shard(root))
  return shard(root).name


def swap_whole(root):
  target, source = folder(root), folder(root, 1)
  shutil.rmtree(target)
  shutil.copytree(source, target)
  return _cache.MANIFEST


def missing(root):
  name = shard(root).name
  shard(root).unlink()
  return name


def shorter(root):
  path = folder(root) / 'dataset_info.json'
  info = json.loads(path.read_text())
  for split in info['splits']:
    if split['name'] == 'train':
      split['shardLengths'] = ['4']
  path.write_text(json.dumps(info))
  return 'dataset_info.json'


def broken_metadata(root):
  path = folder(root) / 'dataset_info.json'
  path.write_text(path.read_text()[:50])
  return 'dataset_info.json'


def broken_manifest(root):
  (folder(root) / _cache.MANIFEST).write_text('{"files": 3}')
  return _cache.MANIFEST


DAMAGES = [cut, empty, flip, swap_one, swap_whole, missing, shorter]
DAMAGES += [broken_metadata, broken_manifest]


@pytest.mark.parametrize('damage', DAMAGES)
def test_damage_is_named_and_built_again(original, root, damage):
  name = damage(root)
  builder, said = prepare(root)
  assert name in said and 'is built again' in said
  np.testing.assert_array_equal(pixels(builder), original[1])
  assert prepare(root)[1] == ''
  left = [p.name for p in folder(root).parent.iterdir()]
  assert sorted(left) == ['.lock', '1.0.0']


@pytest.mark.parametrize(
  'damage', [cut, empty, flip, missing, shorter, broken_metadata]
)
def test_damage_is_found_without_a_manifest(original, root, damage):
  (folder(root) / _cache.MANIFEST).unlink()
  name = damage(root)
  builder, said = prepare(root)
  assert name in said or 'dataset_info.json' in said
  np.testing.assert_array_equal(pixels(builder), original[1])


def test_a_whole_folder_without_manifest_is_kept(root):
  (folder(root) / _cache.MANIFEST).unlink()
  before = shard(root).stat().st_mtime_ns
  assert prepare(root)[1] == ''
  assert shard(root).stat().st_mtime_ns == before
  assert _cache.has_manifest(folder(root))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(OSError, match=r'file.*--data\.dir'):
    prepare(tmp_path / 'file' / 'data')


def test_two_processes_build_one_data_set(original, tmp_path):
  code = (
    'import sys; from mtljax import data; '
    f'data.prepare_multi_digits(data.MultiDigitsConfig(**{CONFIG}), '
    'data_dir=sys.argv[1])'
  )
  command = [sys.executable, '-W', 'ignore', '-c', code, str(tmp_path)]
  both = [subprocess.Popen(command) for _ in range(2)]
  assert [process.wait() for process in both] == [0, 0]
  builder, said = prepare(tmp_path)
  assert said == ''
  np.testing.assert_array_equal(pixels(builder), original[1])

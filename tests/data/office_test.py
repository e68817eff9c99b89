"""Office-31 and Office-Home, read from small files in their folders."""

import numpy as np
import office_files
import pytest

from mtljax import data

SPLITS = ('train', 'validation', 'test')


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tfds')
  office_files.write(folder, 'office31', {'amazon': 10, 'dslr': 5, 'webcam': 5})
  office_files.write(folder, 'office_home')
  return folder


@pytest.mark.parametrize('name', ['office31', 'office_home'])
def test_every_image_is_in_one_split_under_its_label(data_dir, name):
  classes = office_files.CLASSES[name]
  blues = list(office_files.DOMAINS[name].values())
  seen = []
  for split, share in zip(SPLITS, (0.6, 0.2, 0.2), strict=True):
    found = data.load_office(name, split=split, size=4, data_dir=data_dir)
    image, domain, label = found['image'], found['domain'], found['label']
    assert image.shape == (len(label), 4, 4, 3)
    assert image.dtype == np.uint8 and label.dtype == np.int32
    red, green, blue = image[:, 0, 0].astype(int).T
    np.testing.assert_array_equal(red, 255 * label // (classes - 1))
    np.testing.assert_array_equal(blue, np.array(blues)[domain])
    for number, domain_name in enumerate(office_files.DOMAINS[name]):
      whole = 10 if domain_name == 'amazon' else 5
      counts = np.bincount(label[domain == number], minlength=classes)
      np.testing.assert_array_equal(counts, share * whole)
    seen += list(zip(domain, label, green, strict=True))
  assert len(seen) == len(set(seen))
  assert len(seen) == 20 * classes


def test_domains_come_in_turn_as_long_as_they_last(data_dir):
  found = data.load_office('office31', split='train', size=4, data_dir=data_dir)
  domain, label = found['domain'], found['label']
  np.testing.assert_array_equal(domain[: 3 * 93], np.tile([0, 1, 2], 93))
  assert set(domain[3 * 93 :]) == {0}
  assert len(set(label[:60:3])) > 10  # not class by class


def test_a_seed_is_a_split(data_dir):
  read = lambda seed: data.load_office(
    'office31', split='test', size=2, seed=seed, data_dir=data_dir
  )
  first, again, other = read(0), read(0), read(1)
  for name, x in first.items():
    np.testing.assert_array_equal(x, again[name])
  assert (first['image'] != other['image']).any()
  greens = lambda x: x['image'][np.lexsort((x['label'], x['domain'])), 0, 0, 1]
  assert (greens(first) != greens(other)).any()  # other images of a class


def test_the_lists_of_libmtl_count_where_they_are(tmp_path):
  folder = office_files.write(tmp_path, 'office_home', 2)
  lists = folder / 'data_txt'
  lists.mkdir()
  for domain in data.OFFICE_DOMAINS['office_home']:
    for number, split in enumerate(('train', 'test')):
      rows = [
        f'{domain}/thing_{i:02d}/frame_000{number + 1}.png' for i in (7, 3)
      ]
      text = ''.join(f'{row} {i}\n' for i, row in enumerate(rows))
      (lists / f'{domain}_{split}.txt').write_text(text)
  for number, split in enumerate(('train', 'test')):
    found = data.load_office(
      'office_home', split=split, size=2, data_dir=tmp_path
    )
    assert len(found['label']) == 8
    assert set(found['label']) == {3, 7}
    assert set(found['image'][:, 0, 0, 1]) == {40 * number}
  with pytest.raises(FileNotFoundError, match='Art_val.txt is not there'):
    data.load_office(
      'office_home', split='validation', size=2, data_dir=tmp_path
    )
  (lists / 'Art_test.txt').write_text('Art/thing_00/frame_0009.png 0\n')
  with pytest.raises(
    FileNotFoundError, match="line 1, names 'Art/thing_00/frame_0009.png'"
  ):
    data.load_office('office_home', split='test', size=2, data_dir=tmp_path)
  (lists / 'Art_test.txt').write_text('')
  with pytest.raises(ValueError, match='Art_test.txt is empty'):
    data.load_office('office_home', split='test', size=2, data_dir=tmp_path)


def test_missing_folders_say_where_to_get_them(tmp_path):
  with pytest.raises(FileNotFoundError) as raised:
    data.load_office('office31', split='train', data_dir=tmp_path)
  said = str(raised.value)
  place = tmp_path / 'downloads' / 'manual' / 'office31'
  assert f'{place / "amazon" / "images"} is not there' in said
  assert 'https://faculty.cc.gatech.edu/~judy/domainadapt/' in said
  assert f'amazon, dslr, webcam into {place}.' in said


def test_what_is_wrong_is_named(tmp_path):
  folder = office_files.write(tmp_path, 'office31', 5)
  read = lambda: data.load_office(
    'office31', split='train', size=2, data_dir=tmp_path
  )
  images = folder / 'dslr' / 'images'
  for path in (images / 'thing_04').iterdir():
    path.write_bytes(b'no image')
  with pytest.raises(ValueError, match=r'thing_04/frame_\d+.png is no image'):
    read()
  for path in (images / 'thing_04').iterdir():
    path.unlink()
  with pytest.raises(ValueError, match='dslr/images/thing_04 has no image'):
    read()
  (images / 'thing_04').rmdir()
  with pytest.raises(ValueError, match='has 30 folders of classes, not 31'):
    read()
  (images / 'other').mkdir()
  (images / 'other' / 'frame_0001.png').write_bytes(b'')
  with pytest.raises(ValueError, match='amazon and dslr have unlike classes'):
    read()


def test_arguments_out_of_range_are_refused(tmp_path):
  with pytest.raises(ValueError, match="name='office'.*mean 'office31'"):
    data.load_office('office', split='train', data_dir=tmp_path)
  with pytest.raises(ValueError, match='size=0'):
    data.load_office('office31', split='test', size=0, data_dir=tmp_path)

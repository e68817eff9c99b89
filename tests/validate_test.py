import pytest

from mtljax import _validate


def test_one_of_names_the_closest():
  with pytest.raises(
    ValueError, match="route='gramain'.*Did you mean 'gramian'"
  ):
    _validate.one_of('route', 'gramain', ['losses', 'gramian'])


@pytest.mark.parametrize('value', [-1, -0.1, float('nan')])
def test_in_range(value):
  with pytest.raises(ValueError, match='rho='):
    _validate.in_range('rho', value, 0)


def test_in_range_open_and_high():
  with pytest.raises(ValueError, match='above 0'):
    _validate.in_range('c', 0, 0, open_low=True)
  with pytest.raises(ValueError, match='at most 1'):
    _validate.in_range('c', 2, 0, 1)
  _validate.in_range('c', None, 0, optional=True)


@pytest.mark.parametrize(
  'value, error', [(0, ValueError), (2.0, TypeError), (True, TypeError)]
)
def test_num_tasks(value, error):
  with pytest.raises(error, match='num_tasks='):
    _validate.num_tasks(value)

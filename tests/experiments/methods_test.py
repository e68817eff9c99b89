import pytest

import mtljax as mtl
from experiments import _methods


@pytest.mark.parametrize('name', _methods.method_names())
def test_every_name_builds(name):
  method = _methods.make_method(name, 2, None, rho=0.1)
  assert isinstance(method, mtl.Aggregator)
  assert name.endswith(method.info.name)


def test_weights_reach_fixed():
  method = _methods.make_method('fixed', 2, None, rho=0.1, weights=(3.0, 1.0))
  with pytest.raises(ValueError, match='num_tasks=2'):
    _methods.make_method('fixed', 2, None, rho=0.1, weights=(1.0,))
  assert method.init(None).weighting_state.tolist() == [3.0, 1.0]


def test_unknown_name_lists_the_closest():
  with pytest.raises(ValueError, match="Did you mean 'flat_cagrad'"):
    _methods.make_method('flat_cagrd', 2, None, rho=0.1)

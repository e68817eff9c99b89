import fractions

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax as mtl
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


ARRAYS = [np.asarray, jnp.asarray, np.int32, np.int64]


@pytest.mark.parametrize('make', ARRAYS)
def test_one_number_in_an_array_is_one(make):
  _validate.in_range('c', make(2), 0, 3)
  _validate.integer('k', make(2), 1)
  with pytest.raises(ValueError, match='c=.*must be at least 0 and at most 1'):
    _validate.in_range('c', make(2), 0, 1)
  with pytest.raises(ValueError, match='k=.*must be an int of at least 3'):
    _validate.integer('k', make(2), 3)


@pytest.mark.parametrize(
  'value',
  [np.array([2]), jnp.array([2]), np.array(2.0), jnp.array(2.0), np.array(True)]
  + [np.array('2'), [2], True],
)
def test_what_is_no_int(value):
  with pytest.raises(ValueError, match='k=.*must be an int of at least 1'):
    _validate.integer('k', value, 1)


def test_an_int_that_is_traced_is_none():
  @jax.jit
  def build(k):
    _validate.integer('k', k, 1)
    return k

  with pytest.raises(ValueError, match='k=.*must be an int of at least 1'):
    build(2)


@pytest.mark.parametrize('value', [np.ones(1), jnp.ones((1, 1)), [1.0]])
def test_more_than_a_number_says_its_shape(value):
  with pytest.raises(TypeError, match=r'c=.*must be a number.*has shape \(1,'):
    _validate.in_range('c', value, 0, 1)


def test_a_fraction_says_the_way():
  with pytest.raises(TypeError, match=r'c=Fraction.*a number.*float\(c\)'):
    mtl.cagrad(2, c=fractions.Fraction(2, 5))


@pytest.mark.parametrize('value', [np.array(['a', 'b']), jnp.ones(2), [1, 2]])
def test_a_choice_that_is_an_array(value):
  with pytest.raises(ValueError, match='rescale=.*is not one of'):
    mtl.cagrad(2, rescale=value)


ROWS = jnp.array([[1.0, 0.3], [-0.5, 2.0], [0.7, 0.1]])
INTS = [
  ('dwa', {'window': 1}),
  ('go4align', {'num_groups': 2}),
  ('stch', {'warmup_steps': 2, 'nadir_steps': 1}),
  ('krum', {'num_byzantine': 0, 'num_selected': 2}),
  ('pcd', {'primary': 1}),
  ('trimmed_mean', {'trim': 1}),
  ('excess_mtl', {'warmup_steps': 1}),
  ('pivrg', {'scores': [1.0, 2.0, 3.0], 'window': 2}),
]


@pytest.mark.parametrize('make', [np.asarray, jnp.asarray])
@pytest.mark.parametrize(('name', 'ints'), INTS)
def test_ints_in_arrays_give_what_ints_give(name, ints, make):
  """Where they are accepted they are used as well."""
  found = []
  arrays = {k: make(v) if isinstance(v, int) else v for k, v in ints.items()}
  for kwargs in (ints, arrays):
    tx = getattr(mtl, name)(3, **kwargs)
    state = tx.init(jnp.zeros(2))
    for _ in range(2):
      out, state = jax.jit(tx.update)(
        ROWS, state, losses=jnp.array([1.0, 2.0, 0.5])
      )
    found.append(out)
  np.testing.assert_array_equal(*found)


@pytest.mark.parametrize('make', [np.asarray, jnp.asarray])
@pytest.mark.parametrize('wrap', [mtl.every_k, mtl.freeze_after])
def test_counts_in_arrays(wrap, make):
  found = []
  for count in (2, make(2)):
    tx = wrap(mtl.mgda(3), count)
    state = tx.init(jnp.zeros(2))
    for scale in (1.0, 2.0, 5.0):
      factor = jnp.array([scale, 1.0, 1.0])[:, None]
      _, state = tx.update(ROWS * factor, state)
    found.append(mtl.get_weights(state))
  np.testing.assert_array_equal(*found)

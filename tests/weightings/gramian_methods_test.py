"""What holds for every weighting that reads the Gramian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import weightings
from mtljax._types import TaskStats

METHODS = {
  'mgda': lambda: weightings.mgda(),
  'mgda_l2': lambda: weightings.mgda(normalize='l2'),
  'cagrad': lambda: weightings.cagrad(c=0.4),
  'imtl_g': lambda: weightings.imtl_g(),
  'nash_mtl': lambda: weightings.nash_mtl(),
  'fairgrad': lambda: weightings.fairgrad(alpha=2.0),
  'pcgrad': lambda: weightings.pcgrad(),
}
DETERMINISTIC = [name for name in METHODS if name != 'pcgrad']
# Tests share these, and one shape, so that each compiles once.
UPDATES = {name: make() for name, make in METHODS.items()}
JITTED = {name: jax.jit(w.update) for name, w in UPDATES.items()}
SIZE = 5


def run(name, jacobian, mask=None):
  """The weights of up to `SIZE` tasks, padded with masked ones."""
  rows = len(jacobian)
  gramian = np.full((SIZE, SIZE), np.nan)
  gramian[:rows, :rows] = jacobian @ jacobian.T
  keep = np.zeros(SIZE, bool)
  keep[:rows] = True if mask is None else mask
  stats = TaskStats(gramian=jnp.asarray(gramian), mask=jnp.asarray(keep))
  state = UPDATES[name].init(SIZE)
  weights, new_state = JITTED[name](stats, state)
  old, new = jax.tree.leaves(state), jax.tree.leaves(new_state)
  assert jax.tree.structure(state) == jax.tree.structure(new_state)
  assert [(x.shape, x.dtype) for x in old] == [(x.shape, x.dtype) for x in new]
  assert np.all(weights[rows:] == 0)
  return np.asarray(weights)[:rows], new_state


def jacobian_of(seed, rows=SIZE):
  jacobian = np.random.default_rng(seed).normal(size=(rows, 8))
  return jacobian - 0.5 * jacobian.mean(0)


@pytest.mark.parametrize('name', METHODS)
def test_says_what_it_reads_and_where_it_is_from(name):
  weighting = UPDATES[name]
  assert weighting.needs == frozenset({'gramian'})
  assert weighting.observe is None
  assert weighting.info.name in name
  assert 'https://' in weighting.info.paper
  assert weighting.info.random == (name == 'pcgrad')
  assert weighting.info.weight_heads == (name == 'nash_mtl')
  assert weighting.info.signed == (name == 'imtl_g')
  with pytest.raises(ValueError, match='gramian'):
    weighting.update(TaskStats(), weighting.init(3))
  with pytest.raises(ValueError, match=r'\(2, 3\)'):
    weighting.update(TaskStats(gramian=jnp.ones((2, 3))), weighting.init(3))


@pytest.mark.parametrize('name', METHODS)
def test_residual_is_small_and_float32(name, x64):
  _, state = run(name, jacobian_of(0))
  if name != 'pcgrad':
    assert state.residual.dtype == jnp.float32
    assert state.residual < 1e-12


@pytest.mark.parametrize('name', METHODS)
def test_absent_tasks_give_the_smaller_problem(name, x64):
  jacobian = jacobian_of(1)
  jacobian[2] = np.nan
  mask = np.array([True, True, False, True, True])
  if name == 'pcgrad':
    # The order in which three tasks meet matters: keep two.
    mask = np.array([True, False, False, True, False])
  weights, _ = run(name, jacobian, mask)
  small, _ = run(name, jacobian[mask])
  np.testing.assert_allclose(weights[mask], small, rtol=1e-9)
  assert np.all(weights[~mask] == 0) and np.all(np.isfinite(small))
  none, _ = run(name, jacobian, np.zeros(5, bool))
  assert np.all(none == 0)


@pytest.mark.parametrize('name', METHODS)
@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_bad_input_is_not_swallowed(name, bad, x64):
  jacobian = jacobian_of(2)
  jacobian[1, 0] = bad
  with np.errstate(invalid='ignore'):
    weights, _ = run(name, jacobian)
  assert np.all(np.isnan(weights))


@pytest.mark.parametrize('name', METHODS)
def test_one_task(name, x64):
  weights, _ = run(name, np.array([[3.0, 0.0, 4.0]]))
  expected = {'nash_mtl': 1 / 5, 'fairgrad': 5 ** (-4 / 3), 'cagrad': 1.4}
  np.testing.assert_allclose(weights, expected.get(name, 1.0), rtol=1e-12)


@pytest.mark.parametrize('name', METHODS)
def test_degenerate_input_is_finite(name, zoo, x64):
  for case, jacobian in zoo.degenerate().items():
    if len(jacobian) <= SIZE:
      weights, _ = run(name, jacobian)
      assert np.all(np.isfinite(weights)), case


@pytest.mark.parametrize('name', METHODS)
def test_a_zero_row(name, x64):
  jacobian = jacobian_of(3, 4)
  jacobian[2] = 0
  weights, _ = run(name, jacobian)
  rest, _ = run(name, np.delete(jacobian, 2, 0))
  others = np.delete(weights, 2)
  if name.startswith('mgda'):
    np.testing.assert_allclose(weights, [0, 0, 1, 0])
  elif name == 'cagrad':
    np.testing.assert_allclose(others, 0.75 * rest, rtol=1e-7)
    assert weights[2] == 0.25
  elif name == 'pcgrad':
    assert weights[2] == 1 and np.all(others >= 1)
  else:
    np.testing.assert_allclose(others, rest, rtol=1e-9)
    assert weights[2] == 0


@pytest.mark.parametrize('name', DETERMINISTIC)
def test_permuted_tasks_have_permuted_weights(name, x64):
  jacobian = jacobian_of(4)
  order = np.array([3, 0, 4, 1, 2])
  weights, _ = run(name, jacobian)
  permuted, _ = run(name, jacobian[order])
  np.testing.assert_allclose(permuted, weights[order], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('name', METHODS)
def test_invariance_is_as_declared(name, x64):
  scales = np.array([10, 0.1, 3, 0.7, 1.0])[:, None]
  lengths, cosines = [], []
  for seed in range(5):
    jacobian = jacobian_of(seed)
    before = run(name, jacobian)[0] @ jacobian
    after = run(name, jacobian * scales)[0] @ (jacobian * scales)
    norms = np.linalg.norm(before), np.linalg.norm(after)
    # IMTL-G's common projection may change its sign, not its line.
    cosines.append(abs(before @ after) / norms[0] / norms[1])
    lengths.append(norms[1] / norms[0])
  declared = UPDATES[name].info.invariance
  if declared == 'none':
    assert min(cosines) < 0.999
  else:
    np.testing.assert_allclose(cosines, 1, rtol=1e-9)
    assert np.allclose(lengths, 1, rtol=1e-9) == (declared == 'full')


@pytest.mark.parametrize('name', ['mgda', 'nash_mtl', 'fairgrad'])
def test_harms_no_task(name, zoo, x64):
  cases = zoo.jacobians()
  for case, jacobian in cases.items():
    if len(jacobian) <= SIZE:
      weights, _ = run(name, jacobian)
      parts = weights[:, None] * jacobian
      size = np.max(np.linalg.norm(parts, axis=1))
      norms = np.linalg.norm(jacobian, axis=1)
      assert np.all(jacobian @ parts.sum(0) >= -1e-12 * size * norms), case


@pytest.mark.parametrize('name', ['imtl_g', 'mgda', 'nash_mtl', 'pcgrad'])
def test_traces_once_and_batches(name):
  traces = []
  weighting = UPDATES[name]

  def update(gramian):
    traces.append(None)
    state = weighting.init(SIZE)
    return weighting.update(TaskStats(gramian=gramian), state)[0]

  gramians = np.stack([j @ j.T for j in map(jacobian_of, range(3))])
  gramians = jnp.asarray(gramians, jnp.float32)
  jitted = jax.jit(update)
  alone = [jitted(gramian) for gramian in gramians]
  assert len(traces) == 1
  batched = jax.jit(jax.vmap(update))(gramians)
  np.testing.assert_allclose(batched, np.stack(alone), rtol=1e-3, atol=1e-6)


def test_arguments_are_checked():
  for make in (
    lambda: weightings.cagrad(c=-0.1),
    lambda: weightings.cagrad(rescale='half'),
    lambda: weightings.fairgrad(alpha=0),
    lambda: weightings.mgda(normalize='l1'),
    lambda: weightings.pcgrad(reduction='max'),
  ):
    with pytest.raises(ValueError, match='='):
      make()

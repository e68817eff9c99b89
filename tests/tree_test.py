import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax as mtl
from mtljax import _tree


def _tree_and_matrix(dtype=jnp.float32):
  keys = jax.random.split(jax.random.key(0), 3)
  tree = {
    'a': jax.random.normal(keys[0], (3, 2, 5), dtype),
    'b': [jax.random.normal(keys[1], (3, 7), dtype)],
    'c': jax.random.normal(keys[2], (3,), dtype),
  }
  flat = np.concatenate(
    [np.asarray(x, np.float64).reshape(3, -1) for x in jax.tree.leaves(tree)], 1
  )
  return tree, flat


def test_gramian_is_that_of_the_flat_matrix():
  tree, flat = _tree_and_matrix()
  np.testing.assert_allclose(mtl.gramian(tree), flat @ flat.T, rtol=1e-5)


def test_gramian_in_bfloat16_adds_in_float32():
  tree, flat = _tree_and_matrix(jnp.bfloat16)
  gramian = mtl.gramian(tree)
  assert gramian.dtype == jnp.float32
  np.testing.assert_allclose(gramian, flat @ flat.T, rtol=1e-5)


def test_gramian_leaves_out_heads():
  tree, _ = _tree_and_matrix()
  head = jnp.ones(4)
  labels = {'tree': 'shared', 'head': 2}
  np.testing.assert_array_equal(
    mtl.gramian({'tree': tree, 'head': head}, labels=labels), mtl.gramian(tree)
  )


def test_gramian_without_shared_leaves():
  with pytest.raises(ValueError, match='at least one shared'):
    mtl.gramian({'head': jnp.ones(3)}, labels=0)


def test_float64(x64):
  tree, flat = _tree_and_matrix(jnp.float64)
  np.testing.assert_allclose(mtl.gramian(tree), flat @ flat.T, rtol=1e-12)


def test_combine_keeps_the_dtype():
  leaf = jnp.array([[1, 2], [3, 4]], jnp.bfloat16)
  out = _tree.combine_leaf(jnp.array([1.0, 0.5]), leaf)
  assert out.dtype == jnp.bfloat16
  np.testing.assert_array_equal(out.astype(jnp.float32), [2.5, 4.0])


def test_combine_by_label():
  grads = {
    't': jnp.arange(6.0).reshape(2, 3),
    'h': jnp.ones(2),
    's': jnp.ones((2, 2)),
  }
  labels = {'t': 'shared', 'h': 1, 's': 'stacked'}
  out = mtl.combine(grads, jnp.array([2.0, 0.5]), labels=labels)
  np.testing.assert_allclose(out['t'], [1.5, 4.0, 6.5])
  np.testing.assert_allclose(out['h'], [0.5, 0.5])
  np.testing.assert_allclose(out['s'], [[2.0, 2.0], [0.5, 0.5]])


def test_cosines_beside_zero_rows():
  rows = jnp.array([[3.0, 0.0], [0.0, 0.0], [-1.0, 1.0]])
  cosines = mtl.cosines(rows @ rows.T)
  expected = [[1, 0, -(0.5**0.5)], [0, 0, 0], [-(0.5**0.5), 0, 1]]
  np.testing.assert_allclose(cosines, expected, atol=1e-6)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('num_tasks', [1, 2, 3])
@pytest.mark.parametrize('size', [_tree.BLOCK, 3 * _tree.BLOCK + 5])
def test_long_rows(num_tasks, size, dtype, monkeypatch):
  """Every form that one CPU takes, with and without a rest."""
  monkeypatch.setattr(_tree, 'LARGE', _tree.BLOCK)
  one, other = jax.random.normal(
    jax.random.key(num_tasks), (2, num_tasks, size), dtype
  )
  exact = np.asarray(one, np.float64) @ np.asarray(other, np.float64).T
  out = _tree.leaf_products(one, other)
  assert out.dtype == jnp.float32
  np.testing.assert_allclose(out, exact, atol=1e-6 * size)
  grid = lambda x: x[:, : size // 8 * 8].reshape(num_tasks, 4, -1)
  lanes = jax.vmap(_tree.leaf_products)(
    jnp.stack([one, other]), jnp.stack([other, one])
  )
  np.testing.assert_allclose(lanes, [exact, exact.T], atol=1e-6 * size)
  plain = _tree._einsum(grid(one), grid(other))
  out = jax.jit(_tree.leaf_products)(grid(one), grid(other))
  np.testing.assert_allclose(out, plain, atol=1e-6 * size)


def test_long_rows_have_derivatives(monkeypatch):
  monkeypatch.setattr(_tree, 'LARGE', _tree.BLOCK)
  rows = jax.random.normal(jax.random.key(0), (3, 2 * _tree.BLOCK + 5))
  of = lambda form: jax.grad(lambda x: jnp.sum(jnp.sin(form(x, x) / 1e4)))(rows)
  np.testing.assert_allclose(
    of(_tree.leaf_products), of(_tree._einsum), rtol=1e-3, atol=1e-3
  )


@pytest.mark.parametrize(
  ('second', 'shape'),
  [(jnp.ones(()), r'\(\)'), (jnp.ones((3, 2)), r'\(3, 2\)')],
)
def test_a_leaf_without_the_task_axis_is_named(second, shape):
  grads = {'a': jnp.ones((2, 4)), 'b': second}
  with pytest.raises(ValueError, match=f"'b' has shape {shape}"):
    mtl.gramian(grads)
  with pytest.raises(ValueError, match=f"'b' has shape {shape}"):
    mtl.cross_gramian(grads, grads)
  with pytest.raises(ValueError, match=r"'a' has shape \(\)"):
    mtl.cross_gramian({'a': jnp.ones(())}, {'a': jnp.ones(())})

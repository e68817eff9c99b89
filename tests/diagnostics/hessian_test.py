import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from jax.flatten_util import ravel_pytree

from mtljax.diagnostics import hessian_eigenvalues

KEY = jax.random.key(0)


def _loss(params, batch):
  return toy.plain(params, batch)[0]


def _dense():
  flat, unravel = ravel_pytree(toy.PARAMS)
  hessian = jax.jit(jax.hessian(lambda v: _loss(unravel(v), toy.BATCH)))(flat)
  return np.asarray(hessian, np.float64)


def test_values_and_vectors_are_those_of_the_dense_hessian():
  got = jax.jit(
    lambda p: hessian_eigenvalues(
      _loss, p, toy.BATCH, num=3, num_iters=30, key=KEY
    )
  )(toy.PARAMS)
  dense = _dense()
  expected = np.linalg.eigvalsh(dense)[::-1][:3]
  np.testing.assert_allclose(got.values, expected, rtol=1e-4)
  assert jnp.all(got.residuals < 1e-3 * got.values)
  for i in range(3):
    v, _ = ravel_pytree(jax.tree.map(lambda x, i=i: x[i], got.vectors))
    np.testing.assert_allclose(np.linalg.norm(v), 1, rtol=1e-5)
    np.testing.assert_allclose(
      np.linalg.norm(dense @ v - float(got.values[i]) * np.asarray(v)),
      got.residuals[i],
      atol=1e-4 * expected[0],
    )


def test_too_few_steps_show_in_the_residual():
  spectrum = jnp.linspace(1.0, 2.0, 50)
  loss = lambda w: jnp.sum(spectrum * w**2) / 2
  find = jax.jit(lambda w: hessian_eigenvalues(loss, w, num_iters=4, key=KEY))
  got = find(jnp.ones(50))
  gap = jnp.min(jnp.abs(spectrum - got.values))
  assert got.residuals[0] > 0.01
  assert gap <= got.residuals[0] + 1e-6
  assert got.values[0] < 2.0


DIAGONALS = {
  'zero': [0.0, 0.0, 0.0],
  'repeated': [2.0, 2.0, 2.0],
  'one of rank': [5.0, 0.0, 0.0],
  'indefinite': [-9.0, 1.0, 3.0],
  'small': [1e-10, 2e-10, 3e-10],
  'large': [1e10, 2e10, 3e10],
}


def test_invariant_subspaces_and_scales():
  @jax.jit
  def find(diagonal):
    return hessian_eigenvalues(
      lambda w: jnp.sum(diagonal * w**2) / 2, jnp.ones(3), num=3, key=KEY
    )

  for name, diagonal in DIAGONALS.items():
    got = find(jnp.array(diagonal))
    size = max(abs(x) for x in diagonal)
    expected = np.sort(diagonal)[::-1]
    np.testing.assert_allclose(
      got.values, expected, rtol=1e-5, atol=1e-5 * size, err_msg=name
    )
    assert jnp.all(got.residuals <= 1e-5 * size), name


def test_low_precision_parameters_give_float32():
  loss = lambda w: jnp.sum(jnp.array([1, 4], w.dtype) * w**2) / 2
  find = jax.jit(lambda w: hessian_eigenvalues(loss, w, key=KEY))
  got = find(jnp.ones(2, jnp.bfloat16))
  assert got.values.dtype == jnp.float32
  np.testing.assert_allclose(got.values, [4.0], rtol=2e-2)


def test_a_loss_that_is_not_finite_gives_nan():
  loss = lambda w: jnp.nan * jnp.sum(w**2)
  find = jax.jit(lambda w: hessian_eigenvalues(loss, w, key=KEY))
  got = find(jnp.ones(2))
  assert jnp.isnan(got.values).all()


def test_wrong_arguments_are_named():
  with pytest.raises(ValueError, match='loss_fn must return a scalar'):
    hessian_eigenvalues(lambda w: w, jnp.ones(2), key=KEY)
  with pytest.raises(ValueError, match='num=3 eigenvalues'):
    hessian_eigenvalues(jnp.sum, jnp.ones(2), num=3, key=KEY)

"""Programs for a batch of any size, and parts of unequal sizes."""

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from jax import export

import mtljax as mtl
from mtljax.gradients import _gramian, _passes, _pullback


def losses(p, x):
  return nets.losses_of(jnp.tanh(x @ p['w'] + p['a'] @ p['b']) @ p['v'])


def params():
  make = lambda seed, *shape: jnp.asarray(nets.normal(*shape, seed=seed))
  return {
    'w': make(0, 16, 16),
    'a': make(1, 1, 16),
    'b': make(2, 16, 16),
    'v': make(3, 16, 16),
  }


@pytest.mark.parametrize('mode', ['unroll', 'vmap'])
def test_export_for_any_batch(mode):
  fun = mtl.value_and_gramian(losses, layerwise=True, mode=mode)
  (size,) = export.symbolic_shape('batch')
  shapes = jax.tree.map(
    lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params()
  )
  x = jax.ShapeDtypeStruct((size, 16), jnp.float32)
  exported = export.export(jax.jit(fun))(shapes, x)
  for n in (2, 5):
    x = jnp.asarray(nets.normal(n, 16))
    got, want = exported.call(params(), x), mtl.value_and_gramian(losses)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4),
      got,
      want(params(), x),
    )


def test_export_of_single_samples_says_what_is_wrong():
  fun = mtl.value_and_sample_gramian(losses, layerwise=True)
  (size,) = export.symbolic_shape('batch')
  x = jax.ShapeDtypeStruct((size, 16), jnp.float32)
  shapes = jax.tree.map(
    lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params()
  )
  with pytest.raises(ValueError, match='number of samples must be known'):
    export.export(jax.jit(fun))(shapes, x)


def test_inner_products_of_passes_of_unequal_sizes(x64):
  """The cross-Gramian of batches of 4 and 3, both by layers."""
  x = jnp.asarray(nets.normal(7, 16))
  passes = _passes.make_passes('unroll')

  def pull(x, watch):
    return _pullback.make_pullback(
      losses, params(), (x,), labels=None, has_aux=False, watch=watch
    )

  def cross(watch):
    pulls = pull(x[:4], watch), pull(x[4:], watch)
    return _gramian.products(*pulls, passes, [True] * 4)

  np.testing.assert_allclose(cross(True), cross(False), rtol=1e-10)

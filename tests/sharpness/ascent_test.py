import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sharp import (
  PARAMS,
)

import mtljax as mtl


def test_zero_gradients_are_not_perturbed():
  ascent = mtl.normalized_ascent(0.5)
  out, _ = ascent.update({'a': jnp.zeros(3)}, ascent.init(None))
  assert not np.any(out['a'])
  empty, _ = ascent.update([], ascent.init(None))
  assert empty == []


def test_ascent_has_length_rho():
  ascent = mtl.normalized_ascent(0.5)
  out, _ = ascent.update(PARAMS, ascent.init(None))
  np.testing.assert_allclose(optax.tree.norm(out), 0.5, rtol=1e-5)


def test_adaptive_ascent_does_not_see_how_two_layers_share_a_scale():
  keys = jax.random.split(jax.random.key(1), 4)
  params, grads = (
    [jax.random.normal(k, (5,)) for k in keys[i::2]] for i in (0, 1)
  )
  ascent = mtl.adaptive_ascent(0.5)
  epsilon, _ = ascent.update(grads, ascent.init(None), params)
  # Scaling a layer by 8 and the next by 1/8 scales gradients the other way.
  scales = [8.0, 0.125]
  scaled, _ = ascent.update(
    [g / c for g, c in zip(grads, scales, strict=True)],
    ascent.init(None),
    [p * c for p, c in zip(params, scales, strict=True)],
  )
  for a, b, c in zip(epsilon, scaled, scales, strict=True):
    np.testing.assert_allclose(c * a, b, rtol=1e-5)
  measured = [e / abs(p) for e, p in zip(epsilon, params, strict=True)]
  np.testing.assert_allclose(optax.tree.norm(measured), 0.5, rtol=1e-5)


def test_adaptive_ascent_of_zero_parameters():
  zeros, grads = [jnp.zeros(3)], [jnp.ones(3)]
  still, _ = mtl.adaptive_ascent(2.0).update(grads, None, zeros)
  np.testing.assert_array_equal(still[0], 0)
  moved, _ = mtl.adaptive_ascent(2.0, eta=0.01).update(grads, None, zeros)
  np.testing.assert_allclose(moved[0], 2 * 0.01 / np.sqrt(3), rtol=1e-5)


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float32])
def test_ascents_keep_the_dtype(dtype):
  params = [jnp.ones(3, dtype)]
  for ascent in (mtl.normalized_ascent(0.1), mtl.adaptive_ascent(0.1)):
    epsilon, _ = ascent.update(params, ascent.init(None), params)
    assert epsilon[0].dtype == dtype

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax.diagnostics import scale_sensitivity

S, T = 6, 2
LABELS = {'trunk': 'shared', 'heads': [0, 1]}
KEYS = jax.random.split(jax.random.key(0), 4)
GRADS = {
  'trunk': jax.random.normal(KEYS[0], (S, T, 5)),
  'heads': [jax.random.normal(KEYS[1 + t], (S, 3)) for t in range(T)],
}
LOSSES = 1 + jax.random.uniform(KEYS[3], (S, T))


def _measure(method, optimizer, scale=8.0):
  tx = optax.chain(method(T, labels=LABELS), optimizer)
  return jax.jit(
    lambda grads, losses: scale_sensitivity(
      tx, grads, losses=losses, labels=LABELS, scale=scale
    )
  )(GRADS, LOSSES)


def test_sgd_multiplies_each_task_by_the_scale():
  got = _measure(mtl.sum_losses, optax.sgd(0.1, momentum=0.9))
  np.testing.assert_allclose(got.own, [7.0, 7.0], rtol=1e-6)
  summed = lambda g: np.sum(  # momentum weighs early steps more
    np.asarray(g, np.float64)
    * sum(0.9**k * (np.arange(S) < S - k) for k in range(S))[:, None],
    axis=0,
  )
  parts = [summed(GRADS['trunk'][:, t]) for t in range(T)]
  expected = [7 * np.linalg.norm(p) / np.linalg.norm(sum(parts)) for p in parts]
  np.testing.assert_allclose(got.shared, expected, rtol=1e-4)


def test_adam_is_invariant_on_heads_only_and_without_epsilon():
  exact = _measure(mtl.sum_losses, optax.adam(0.1, eps=0.0))
  np.testing.assert_array_equal(exact.own, [0, 0])  # a power of two: bitwise
  assert np.all(exact.shared > 0.1)
  damped = _measure(mtl.sum_losses, optax.adam(0.1, eps=1.0))
  assert np.all(damped.own > 0.1)


def test_what_breaks_adams_invariance():
  clip = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1, eps=0.0))
  assert np.all(_measure(mtl.sum_losses, clip).own > 1e-3)
  coupled = optax.chain(
    optax.add_decayed_weights(0.1), optax.adam(0.1, eps=0.0)
  )
  start = jax.tree.map(jnp.ones_like, {'trunk': GRADS['trunk'][0, 0]})
  start['heads'] = [jnp.ones(3)] * 2
  tx = optax.chain(mtl.sum_losses(T, labels=LABELS), coupled)
  got = scale_sensitivity(tx, GRADS, params=start, labels=LABELS)
  assert np.all(got.own > 1e-3)


def test_adam_without_memory_is_not_invariant_on_shared_parameters():
  """The paper's appendix says that it is; signs of sums are not."""
  got = _measure(mtl.sum_losses, optax.adam(0.1, b1=0.0, b2=0.0, eps=0.0))
  np.testing.assert_array_equal(got.own, [0, 0])
  assert np.all(got.shared > 0.1)


@pytest.mark.parametrize(
  'optimizer', [optax.sgd(0.1, momentum=0.9), optax.adam(0.1)]
)
def test_uw_o_is_invariant_under_any_optimizer(optimizer):
  got = _measure(mtl.uw_o, optimizer)
  np.testing.assert_allclose(got.shared, [0, 0], atol=1e-6)
  np.testing.assert_allclose(got.own, [0, 0], atol=1e-6)


def test_without_own_parameters_and_with_stacked_ones():
  method = mtl.sum_losses(T)
  got = scale_sensitivity(method, GRADS['trunk'], scale=2.0)
  assert np.isnan(got.own).all()
  assert np.all(got.shared > 0)
  labels = {'trunk': 'shared', 'heads': 'stacked'}
  stacked = {
    'trunk': GRADS['trunk'],
    'heads': jnp.stack(GRADS['heads'], axis=1),
  }
  tx = mtl.sum_losses(T, labels=labels)
  got = scale_sensitivity(tx, stacked, labels=labels, scale=2.0)
  np.testing.assert_allclose(got.own, [1.0, 1.0], rtol=1e-6)


def test_no_update_is_no_change():
  got = scale_sensitivity(mtl.sum_losses(2), jnp.zeros((3, 2, 4)))
  np.testing.assert_array_equal(got.shared, [0, 0])


def test_wrong_arguments_are_named():
  with pytest.raises(ValueError, match='scale=0'):
    scale_sensitivity(mtl.sum_losses(2), jnp.ones((3, 2, 4)), scale=0)
  with pytest.raises(ValueError, match='grads must have a step axis'):
    scale_sensitivity(
      mtl.sum_losses(2), jnp.ones((3, 2, 4)), losses=jnp.ones((3, 3))
    )
  with pytest.raises(ValueError, match='grads must have a step axis'):
    scale_sensitivity(mtl.sum_losses(2), jnp.ones(2))

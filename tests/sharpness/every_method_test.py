"""Flat regions around every method of the package."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from battery import FIRST, weights_of

import mtljax as mtl

# Those that read more than one batch, or features, are refused.
REFUSED = {'cross_gramian', 'hypergradient', 'feature_norms', 'alignment'}
METHODS = [m for m in FIRST if not REFUSED & m(2).needs]
LABELS = {'trunk': 'shared', 'heads': [0, 1]}
PARAMS = {
  'trunk': jnp.array([0.5, -1.0, 2.0]),
  'heads': [jnp.array([0.7, 0.1, -0.4]), jnp.array([-0.3, 0.9, 0.2])],
}


def task_loss(params, t):
  z = jnp.sin(params['trunk']) * params['heads'][t]
  return 0.3 + (1 + t) * (jnp.sum(z) - 0.5) ** 2 + jnp.sum(z**4)


LOSS = [lambda params, batch, t=t: task_loss(params, t) for t in range(2)]


@pytest.mark.parametrize('m', METHODS, ids=lambda m: m.name)
def test_zero_radius_masks_and_radii(m):
  """One program: no radius is the plain method; an absent task is not read."""
  inner = m(2, labels=LABELS)

  @jax.jit
  def updates(rho, mask, poison):
    grad_fn = mtl.value_and_task_grads(LOSS, labels=LABELS)
    losses, grads = grad_fn(PARAMS, [None, None])
    grads['trunk'] = grads['trunk'].at[1].add(poison)
    args = dict(params=PARAMS, losses=losses, task_mask=mask)
    plain, _ = inner.update(grads, inner.init(PARAMS), **args)
    method = mtl.flat_regions(inner, rho_shared=rho)
    flat, state = method.update(
      grads,
      method.init(PARAMS),
      task_grad_fn=mtl.task_grad_fn(LOSS, [None, None]),
      **args,
    )
    return plain, flat, weights_of(state)

  both, first = jnp.array([True, True]), jnp.array([True, False])
  plain, flat, weights = updates(0.0, both, 0.0)
  for a, b in zip(jax.tree.leaves(flat), jax.tree.leaves(plain), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
  _, moved, _ = updates(0.2, both, 0.0)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(moved))
  if weights is None or np.any(weights):
    assert not np.allclose(moved['trunk'], flat['trunk'], rtol=1e-3)
  clean = updates(0.2, first, 0.0)
  poisoned = updates(0.2, first, jnp.nan)
  for a, b in zip(
    jax.tree.leaves(clean[1:]), jax.tree.leaves(poisoned[1:]), strict=True
  ):
    np.testing.assert_array_equal(a, b)
  assert poisoned[2] is None or poisoned[2][1] == 0
  assert not np.any(poisoned[1]['heads'][1])

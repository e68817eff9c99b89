"""The control whose shared update is as long as another's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax as mtl
from experiments._norm_matched import norm_matched

PARAMS = {'trunk': jnp.array([1.0, -2.0]), 'head': jnp.array([0.5])}
LABELS = {'trunk': 'shared', 'head': 1}


def task_losses(params):
  w, h = params['trunk'], params['head']
  return jnp.stack([w[0] ** 4 + w[1] ** 2, (w[0] * h[0]) ** 2 + jnp.sum(h**2)])


def update(method, params=PARAMS, scale=1.0):
  def losses_fn(p):
    return scale * task_losses(p)

  @jax.jit
  def run(params):
    losses, grads = mtl.value_and_task_grads(losses_fn, labels=LABELS)(params)
    return method.update(
      grads,
      method.init(params),
      params,
      losses=losses,
      task_grad_fn=mtl.task_grad_fn(losses_fn),
    )

  return run(params)


def test_direction_of_one_length_of_the_other():
  base = mtl.mgda(2, labels=LABELS)
  flat = mtl.flat_regions(base, rho_shared=0.3)
  (plain, _), (other, _), (found, state) = (
    update(method) for method in (base, flat, norm_matched(base, flat))
  )
  np.testing.assert_allclose(
    jnp.linalg.norm(found['trunk']),
    jnp.linalg.norm(other['trunk']),
    rtol=1e-6,
  )
  cosine = jnp.vdot(found['trunk'], plain['trunk']) / (
    jnp.linalg.norm(found['trunk']) * jnp.linalg.norm(plain['trunk'])
  )
  assert cosine == pytest.approx(1.0, abs=1e-6)
  np.testing.assert_array_equal(found['head'], plain['head'])
  assert not np.allclose(found['trunk'], plain['trunk'], rtol=1e-2)
  np.testing.assert_array_equal(
    mtl.get_weights(state), mtl.get_weights(update(base)[1])
  )


def test_a_zero_update_stays_zero():
  base = mtl.mean(2, labels=LABELS)
  found, _ = update(norm_matched(base, mtl.flat_regions(base)), scale=0.0)
  assert all(not np.any(x) for x in jax.tree.leaves(found))

"""The control whose shared update is as long as another's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax as mtl
from experiments.studies.flat_regions.norm_matched import norm_matched

PARAMS = {'trunk': jnp.array([1.0, -2.0]), 'head': jnp.array([0.5])}
LABELS = {'trunk': 'shared', 'head': 1}


def task_losses(params):
  w, h = params['trunk'], params['head']
  return jnp.stack([w[0] ** 4 + w[1] ** 2, (w[0] * h[0]) ** 2 + jnp.sum(h**2)])


def updates(*methods, scale=1.0):
  """The update and the state of each, in one program."""

  def losses_fn(p):
    return scale * task_losses(p)

  @jax.jit
  def run(params):
    losses, grads = mtl.value_and_task_grads(losses_fn, labels=LABELS)(params)
    task_grad_fn = mtl.task_grad_fn(losses_fn)
    return [
      method.update(
        grads,
        method.init(params),
        params,
        losses=losses,
        task_grad_fn=task_grad_fn,
      )
      for method in methods
    ]

  return run(PARAMS)


def test_direction_of_one_length_of_the_other():
  base = mtl.pcgrad(2, labels=LABELS)
  flat = mtl.flat_regions(base, rho_shared=0.3)
  (plain, base_state), (other, _), (found, state) = updates(
    base, flat, norm_matched(base, flat)
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
    mtl.get_weights(state), mtl.get_weights(base_state)
  )


def test_a_zero_update_stays_zero():
  base = mtl.mean(2, labels=LABELS)
  method = norm_matched(base, mtl.flat_regions(base))
  found = updates(method, scale=0.0)[0][0]
  assert all(not np.any(x) for x in jax.tree.leaves(found))

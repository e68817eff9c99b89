import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sharp import (
  LABELS,
  PARAMS,
  STAGED,
  T,
  X,
  losses_of,
  unit,
  update_of,
)

import mtljax as mtl


def test_sam_moves_along_the_summed_gradient():
  method = mtl.sam(mtl.mean(T, labels=LABELS), rho=0.2)
  out, _ = update_of(method)
  total = jax.grad(lambda p: jnp.sum(losses_of(p, X)))(PARAMS)
  point = jax.tree.map(lambda p, e: p + 0.2 * e, PARAMS, unit(total))
  expected = jax.grad(lambda p: jnp.mean(losses_of(p, X)))(point)
  chex.assert_trees_all_close(out, expected, rtol=1e-4, atol=1e-6)


def test_sam_shows_the_method_the_losses_at_the_perturbed_point():
  method = mtl.sam(mtl.uncertainty(T, labels=LABELS), rho=0.5)
  seen = {}

  def spying(params, t):
    loss, grads = mtl.task_grad_fn(STAGED, X)(params, t)
    seen[t] = loss
    return loss, grads

  losses, grads = mtl.value_and_task_grads(STAGED, labels=LABELS)(PARAMS, X)
  _, state = method.update(
    grads, method.init(PARAMS), PARAMS, losses=losses, task_grad_fn=spying
  )
  mu = state.inner_state.weighting_state.optimizer_state.mu
  np.testing.assert_allclose(
    mu, 0.1 * (0.5 - 0.5 * jnp.stack(list(seen.values()))), rtol=1e-4
  )


def test_schedule_of_the_radius():
  rho = optax.linear_schedule(0.0, 0.5, 1)
  tx = mtl.inject_hyperparams(mtl.sam)(mtl.mean(T, labels=LABELS), rho=rho)
  losses, grads = mtl.value_and_task_grads(STAGED, labels=LABELS)(PARAMS, X)
  args = dict(
    params=PARAMS, losses=losses, task_grad_fn=mtl.task_grad_fn(STAGED, X)
  )
  first, state = tx.update(grads, tx.init(PARAMS), **args)
  second, state = tx.update(grads, state, **args)
  plain, _ = update_of(mtl.sam(mtl.mean(T, labels=LABELS), rho=0.0))
  moved, _ = update_of(mtl.sam(mtl.mean(T, labels=LABELS), rho=0.5))
  chex.assert_trees_all_close(first, plain, rtol=1e-5)
  chex.assert_trees_all_close(second, moved, rtol=1e-5)

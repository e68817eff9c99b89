import chex
import jax
import jax.numpy as jnp
import optax
from sharp import (
  LABELS,
  PARAMS,
  STAGED,
  T,
  X,
  losses_of,
  task_gradient,
  update_of,
)

import mtljax as mtl


def test_without_penalty_it_is_exactly_the_plain_method():
  m = mtl.nash_mtl(T, labels=LABELS)
  grads = mtl.value_and_task_grads(STAGED, labels=LABELS)(PARAMS, X)[1]
  expected, _ = m.update(
    grads, m.init(PARAMS), PARAMS, losses=losses_of(PARAMS, X)
  )
  for options in (dict(rho=0.3, alpha=0.0), dict(rho=0.0, alpha=0.7)):
    out, _ = update_of(mtl.gradient_norm_penalty(m, **options))
    chex.assert_trees_all_equal(out, expected)


def test_whole_share_is_the_direct_form():
  m = mtl.cagrad(T, labels=LABELS)
  out, _ = update_of(mtl.gradient_norm_penalty(m, rho=0.2, alpha=1.0))
  expected, _ = update_of(
    mtl.flat_regions(m, rho_shared=0.2, aggregation='direct')
  )
  chex.assert_trees_all_close(out, expected, rtol=1e-4, atol=1e-5)


def test_tends_to_the_gradient_of_the_penalised_loss(x64):
  params = optax.tree.cast(PARAMS, jnp.float64)
  x = X.astype(jnp.float64)
  strength = 0.3

  def penalty(params):
    g = task_gradient(params, 0, x)
    return optax.tree.norm(g['trunk']) + optax.tree.norm(g['heads'][0])

  m = mtl.fixed(T, weights=[1.0, 0.0, 0.0], labels=LABELS)
  clean = task_gradient(params, 0, x)['trunk']
  expected = jax.tree.map(
    lambda p: strength * p, jax.grad(penalty)(params)['trunk']
  )

  @jax.jit
  def update(rho):
    # A traced share may be above 1: the first-order form does not mind.
    method = mtl.gradient_norm_penalty(m, rho=rho, alpha=strength / rho)
    return update_of(method, params, x)[0]

  errors = []
  for rho in (1e-2, 1e-3):
    out = update(rho)
    change = optax.tree.sub(out['trunk'], clean)
    off = optax.tree.norm(optax.tree.sub(change, expected))
    errors.append(float(off / optax.tree.norm(expected)))
  assert errors[1] < 1e-2
  assert 0.05 < errors[1] / errors[0] < 0.2

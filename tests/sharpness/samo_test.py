import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sharp import (
  HEADS,
  LABELS,
  PARAMS,
  STAGED,
  T,
  X,
  losses_of,
  task_gradient,
  trunk,
  unit,
)

import mtljax as mtl
from mtljax.training import make_train_step

M = mtl.sum_losses(T, labels=LABELS)


def moves_of(method, staged=STAGED, state=None):
  """How far each task is moved, and the state after."""
  seen = {}

  def spy(params, t):
    seen.setdefault(t, []).append(params)
    return mtl.task_grad_fn(staged, X)(params, t)

  losses, grads = mtl.value_and_task_grads(staged, labels=LABELS)(PARAMS, X)
  _, state = method.update(
    grads,
    method.init(PARAMS) if state is None else state,
    PARAMS,
    losses=losses,
    task_grad_fn=spy,
  )
  assert all(len(seen[t]) == 3 for t in range(T))  # two losses, a gradient
  return [optax.tree.sub(seen[t][-1], PARAMS) for t in range(T)], state


def global_gradient():
  return jax.grad(lambda p: jnp.mean(losses_of(p, X)))(PARAMS)


def test_no_local_part_is_the_common_perturbation():
  moves, _ = moves_of(mtl.samo(M, rho=0.1, beta=0.0))
  common = unit(global_gradient()['trunk'])
  for t, move in enumerate(moves):
    expected = jax.tree.map(lambda e: 0.1 * e, common)
    chex.assert_trees_all_close(move['trunk'], expected, rtol=1e-3, atol=1e-6)
    head = unit(task_gradient(PARAMS, t)['heads'][t])
    np.testing.assert_allclose(
      move['heads'][t], 0.1 * head, rtol=1e-3, atol=1e-6
    )


def test_local_part_alone_has_the_layers_lengths_of_the_global_one():
  moves, _ = moves_of(mtl.samo(M, rho=0.1, beta=1.0))
  g = global_gradient()['trunk']
  for move in moves:
    np.testing.assert_allclose(optax.tree.norm(move['trunk']), 0.1, rtol=1e-4)
    chex.assert_trees_all_close(
      unit(jax.tree.map(jnp.linalg.norm, move['trunk'])),
      unit(jax.tree.map(jnp.linalg.norm, g)),
      rtol=1e-4,
    )
  first, second = (m['trunk']['w'].ravel() for m in moves[:2])
  assert abs(jnp.vdot(first, second)) < 0.9 * 0.1**2  # draws of their own


def test_local_part_goes_uphill_and_ignores_the_loss_scale():
  method = mtl.samo(M, rho=0.1, beta=1.0)
  scaled = mtl.Staged(trunk, [lambda *a, h=h: 16 * h(*a) for h in HEADS])
  plain, _ = moves_of(method)
  moves, _ = moves_of(method, scaled)
  chex.assert_trees_all_close(plain, moves, rtol=1e-3, atol=1e-6)
  for t, move in enumerate(plain):
    up = lambda c, move=move, t=t: losses_of(
      {
        **PARAMS,
        'trunk': jax.tree.map(
          lambda p, e: p + c * e, PARAMS['trunk'], move['trunk']
        ),
      },
      X,
    )[t]
    assert up(0.1) > up(-0.1)


def test_estimate_without_rescaling_is_unbiased(x64):
  """A linear loss has no error of the difference: the mean is its gradient."""
  slope = jnp.array([1.0, -2.0, 0.5])
  method = mtl.samo(
    mtl.sum_losses(1),
    rho=1.0,
    beta=1.0,
    normalize='none',
    ascent=lambda rho: optax.identity(),
  )
  params = jnp.zeros(3)
  state = method.init(params)

  def estimate(key):
    return method.update(
      jnp.ones((1, 3)),
      state._replace(rng_key=key),
      params,
      losses=jnp.ones(1),
      task_grad_fn=lambda p, t: (jnp.vdot(slope, p), p),  # "its" point
    )[0]

  found = jax.vmap(estimate)(jax.random.split(jax.random.key(0), 20000))
  np.testing.assert_allclose(found.mean(0), slope, atol=0.06)


def test_directions_are_new_at_every_step_and_reproducible():
  method = mtl.samo(M, beta=1.0, key=3)
  first, state = moves_of(method)
  second, _ = moves_of(method, state=state)
  again, _ = moves_of(mtl.samo(M, beta=1.0, key=jax.random.key(3)))
  chex.assert_trees_all_equal(first, again)
  assert not np.allclose(first[0]['trunk']['w'], second[0]['trunk']['w'])


def test_equal_losses_leave_the_global_part():
  flat = mtl.samo(mtl.sum_losses(1), rho=0.1, beta=0.5)
  out, _ = flat.update(
    jnp.array([[3.0, 4.0]]),
    flat.init(None),
    jnp.zeros(2),
    losses=jnp.ones(1),
    task_grad_fn=lambda p, t: (jnp.zeros(()), p),
  )
  np.testing.assert_allclose(out, [0.06, 0.08], rtol=1e-5)


def test_step_takes_one_backward_pass_and_one_a_task():
  train = make_train_step(
    mtl.samo(mtl.imtl_g(T, labels=LABELS)), optax.sgd(0.1), STAGED
  )
  # One product forward and one backward (its input is data) in this trunk.
  narrow = jnp.zeros((16, 4))
  state = train.init(PARAMS, key=jax.random.key(0))
  text = train.step.lower(state, narrow).compile().as_text()
  products = [
    line
    for line in text.splitlines()
    if ' dot(' in line and ('f32[16,6]' in line or 'f32[4,6]' in line)
  ]
  forward = [x for x in products if 'f32[16,6]{1,0} dot' in x]
  backward = [x for x in products if 'f32[4,6]{1,0} dot' in x]
  assert 0 < len(forward) <= 1 + 3 * T
  assert 0 < len(backward) <= 1 + T


@pytest.mark.parametrize('mask', [None, [True, False, True]])
def test_masks(mask):
  method = mtl.samo(mtl.cagrad(T, labels=LABELS), rho=0.1)
  _, grads = mtl.value_and_task_grads(STAGED, labels=LABELS)(PARAMS, X)
  outs = []
  for poison in (0, jnp.nan):
    rows = jax.tree.map(
      lambda g, p=poison: g.at[1].add(p) if mask else g, grads['trunk']
    )
    out, state = method.update(
      {**grads, 'trunk': rows},
      method.init(PARAMS),
      PARAMS,
      losses=losses_of(PARAMS, X),
      task_mask=None if mask is None else jnp.array(mask),
      task_grad_fn=mtl.task_grad_fn(STAGED, X),
    )
    outs.append(out)
  chex.assert_trees_all_close(*outs, rtol=1e-5)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(outs[1]))
  assert (mtl.get_weights(state)[1] == 0) == (mask is not None)

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sharp import (
  HEADS,
  LABELS,
  LINEAR,
  NONLINEAR,
  PARAMS,
  STAGED,
  T,
  X,
  by_name,
  direct,
  losses_of,
  sam_gradient,
  task_gradient,
  trunk,
  update_of,
)

import mtljax as mtl


@pytest.mark.parametrize('m', LINEAR, ids=by_name)
def test_separate_is_direct_for_linear_methods(m):
  out, _ = update_of(mtl.flat_regions(m, rho_shared=0.1, rho_task=0.3))
  chex.assert_trees_all_close(out, direct(m, 0.1, 0.3), rtol=1e-5, atol=1e-6)


def gramian_twice(weights):
  """A linear method that says that it reads the Gramian, so is called twice."""
  fixed = mtl.weightings.fixed(weights=weights)
  return mtl.aggregate(
    fixed._replace(needs=frozenset({'gramian'})), T, labels=LABELS
  )


def test_separate_is_direct_to_rounding_when_called_twice():
  m = gramian_twice([1.0, 0.2, 3.0])
  out, state = update_of(mtl.flat_regions(m, rho_shared=0.1, rho_task=0.3))
  assert state.flat_state is not None
  chex.assert_trees_all_close(out, direct(m, 0.1, 0.3), rtol=1e-5, atol=1e-6)


def test_separate_is_not_direct_for_a_nonlinear_method():
  m = mtl.mgda(T, labels=LABELS)
  out, _ = update_of(mtl.flat_regions(m, rho_shared=0.5))
  other = direct(m, 0.5, 0.5)
  difference = optax.tree.norm(optax.tree.sub(out['trunk'], other['trunk']))
  assert difference > 1e-2 * optax.tree.norm(other['trunk'])


@pytest.mark.parametrize('m', NONLINEAR, ids=by_name)
def test_heads_take_their_sam_gradients(m):
  out, state = update_of(mtl.flat_regions(m, rho_shared=0.1, rho_task=0.3))
  weights = mtl.get_weights(state) if m.info.weight_heads else jnp.ones(T)
  for t in range(T):
    expected = weights[t] * sam_gradient(t, 0.1, 0.3)['heads'][t]
    np.testing.assert_allclose(out['heads'][t], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('m', NONLINEAR, ids=by_name)
def test_shared_update_is_the_sum_of_two_calls(m):
  loss_rows = [task_gradient(PARAMS, t)['trunk'] for t in range(T)]
  sam_rows = [sam_gradient(t, 0.2, 0.2)['trunk'] for t in range(T)]
  stack = lambda rows: jax.tree.map(lambda *g: jnp.stack(g), *rows)
  loss, sam = stack(loss_rows), stack(sam_rows)
  flat = jax.tree.map(jnp.subtract, sam, loss)
  method = mtl.flat_regions(m, rho_shared=0.2)
  out, _ = update_of(method)
  state = method.init(PARAMS)
  zeros = jax.tree.map(jnp.zeros_like, PARAMS['heads'])
  args = dict(params=PARAMS, losses=losses_of(PARAMS, X))
  a, _ = m.update({'trunk': loss, 'heads': zeros}, state.loss_state, **args)
  b, _ = m.update({'trunk': flat, 'heads': zeros}, state.flat_state, **args)
  expected = jax.tree.map(jnp.add, a['trunk'], b['trunk'])
  chex.assert_trees_all_close(out['trunk'], expected, rtol=1e-2, atol=1e-4)


def test_two_calls_of_a_random_method_draw_different_numbers():
  state = mtl.flat_regions(mtl.pcgrad(T, labels=LABELS)).init(PARAMS)
  keys = [
    jax.random.key_data(s.weighting_state.rng_key)
    for s in (state.loss_state, state.flat_state)
  ]
  assert not np.array_equal(*keys)


def test_losses_only_method_is_called_once():
  method = mtl.flat_regions(mtl.uncertainty(T, labels=LABELS))
  _, state = update_of(method)
  assert state.flat_state is None
  optimizer_state = state.loss_state.weighting_state.optimizer_state
  assert np.all(optimizer_state.count == 1)


def test_flat_gradient_tends_to_the_gradient_of_the_norms(x64):
  """F-MTL's flat part is the gradient of rho |g_sh| + rho |g_ns|."""
  params = jax.tree.map(lambda p: p.astype(jnp.float64), PARAMS)
  x = X.astype(jnp.float64)

  def norms(params):
    g = task_gradient(params, 0, x)
    return optax.tree.norm(g['trunk']) + optax.tree.norm(g['heads'][0])

  expected = jax.grad(norms)(params)['trunk']
  clean = task_gradient(params, 0, x)['trunk']
  errors = []
  for rho in (1e-2, 1e-3, 1e-4):
    sam = sam_gradient(0, rho, rho, params, x)['trunk']
    flat = jax.tree.map(lambda s, g, r=rho: (s - g) / r, sam, clean)
    off = optax.tree.norm(optax.tree.sub(flat, expected))
    errors.append(float(off / optax.tree.norm(expected)))
  assert errors[2] < 1e-3
  np.testing.assert_allclose(errors[1] / errors[0], 0.1, rtol=0.1)
  np.testing.assert_allclose(errors[2] / errors[1], 0.1, rtol=0.1)


def test_library_matches_the_written_out_phase_two(x64):
  params = jax.tree.map(lambda p: p.astype(jnp.float64), PARAMS)
  x = X.astype(jnp.float64)
  m = mtl.fixed(T, weights=[1.0, 0.0, 0.0], labels=LABELS)
  method = mtl.flat_regions(m, rho_shared=0.1, rho_task=0.7)
  out, _ = update_of(method, params, x)
  expected = sam_gradient(0, 0.1, 0.7, params, x)
  chex.assert_trees_all_close(out['trunk'], expected['trunk'], rtol=1e-10)


def test_dropping_the_head_perturbation_is_another_method():
  m = mtl.mgda(T, labels=LABELS)
  both, _ = update_of(mtl.flat_regions(m, rho_shared=0.1, rho_task=0.1))
  trunk_only, _ = update_of(mtl.flat_regions(m, rho_shared=0.1, rho_task=0.0))
  plain, _ = update_of(m_plain(m))
  flat = optax.tree.sub(both['trunk'], plain['trunk'])
  change = optax.tree.sub(both['trunk'], trunk_only['trunk'])
  assert optax.tree.norm(change) > 0.2 * optax.tree.norm(flat)


def m_plain(m):
  """The method without its sharpness part, called the same way."""
  return mtl.flat_regions(m, rho_shared=0.0)


@pytest.mark.parametrize('m', [*LINEAR[:3], *NONLINEAR], ids=by_name)
def test_radius_zero_is_the_plain_method(m):
  out, _ = update_of(mtl.flat_regions(m, rho_shared=0.0))
  grads = mtl.value_and_task_grads(STAGED, labels=LABELS)(PARAMS, X)[1]
  expected, _ = m.update(
    grads, m.init(PARAMS), PARAMS, losses=losses_of(PARAMS, X)
  )
  chex.assert_trees_all_close(out, expected, rtol=1e-3, atol=1e-5)


def test_perturbation_ignores_the_loss_scale():
  scaled = mtl.Staged(
    trunk,
    [
      lambda *a, h=h, c=c: c * h(*a)
      for h, c in zip(HEADS, [1, 10, 100], strict=True)
    ],
  )
  method = mtl.flat_regions(mtl.sum_losses(T, labels=LABELS), rho_shared=0.3)
  plain, _ = update_of(method)
  losses, grads = mtl.value_and_task_grads(scaled, labels=LABELS)(PARAMS, X)
  out, _ = method.update(
    grads,
    method.init(PARAMS),
    PARAMS,
    losses=losses,
    task_grad_fn=mtl.task_grad_fn(scaled, X),
  )
  for t, c in enumerate([1, 10, 100]):
    np.testing.assert_allclose(
      out['heads'][t], c * plain['heads'][t], rtol=1e-4
    )


def test_stacked_heads_are_perturbed_like_separate_ones():
  stacked = {'trunk': PARAMS['trunk'], 'heads': jnp.stack(PARAMS['heads'])}
  labels = {'trunk': 'shared', 'heads': 'stacked'}
  for m in (mtl.cagrad, mtl.nash_mtl):
    out, _ = update_of(mtl.flat_regions(m(T, labels=labels)), stacked)
    separate, _ = update_of(mtl.flat_regions(m(T, labels=LABELS)))
    chex.assert_trees_all_close(
      out['heads'], jnp.stack(separate['heads']), rtol=1e-4
    )
    chex.assert_trees_all_close(
      out['trunk'], separate['trunk'], rtol=1e-3, atol=1e-5
    )


def test_masked_task_changes_nothing():
  mask = jnp.array([True, False, True])
  for wrap in (mtl.flat_regions, mtl.sam):
    method = wrap(mtl.cagrad(T, labels=LABELS))
    grads = mtl.value_and_task_grads(STAGED, labels=LABELS)(PARAMS, X)[1]
    poisoned = jax.tree.map(lambda g: g.at[1].set(jnp.nan), grads['trunk'])
    outs = []
    for trunk_grads in (grads['trunk'], poisoned):
      out, state = method.update(
        {**grads, 'trunk': trunk_grads},
        method.init(PARAMS),
        PARAMS,
        losses=losses_of(PARAMS, X),
        task_mask=mask,
        task_grad_fn=mtl.task_grad_fn(STAGED, X),
      )
      outs.append(out)
    assert mtl.get_weights(state)[1] == 0
    assert not np.any(outs[0]['heads'][1])
    chex.assert_trees_all_close(*outs, rtol=1e-5)


def test_inside_a_chain_under_jit():
  tx = optax.chain(
    mtl.flat_regions(mtl.cagrad(T, labels=LABELS)), optax.adam(1e-2)
  )

  @jax.jit
  def step(params, state, x):
    losses, grads = mtl.value_and_task_grads(STAGED, labels=LABELS)(params, x)
    updates, state = tx.update(
      grads,
      state,
      params,
      losses=losses,
      task_grad_fn=mtl.task_grad_fn(STAGED, x),
    )
    return optax.apply_updates(params, updates), state, losses

  params, state = PARAMS, tx.init(PARAMS)
  history = []
  for _ in range(30):
    params, state, losses = step(params, state, X)
    history.append(float(losses.sum()))
  assert history[-1] < 0.8 * history[0]

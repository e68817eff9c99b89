"""The other forms of flat regions: what A is called on, and how."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sharp import (
  LABELS,
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
  unit,
  update_of,
)

import mtljax as mtl

CLEAN = mtl.value_and_task_grads(STAGED, labels=LABELS)(PARAMS, X)[1]
HEADS = CLEAN['heads']


def trunk_rows(gradient):
  rows = [gradient(t)['trunk'] for t in range(T)]
  return jax.tree.map(lambda *g: jnp.stack(g), *rows)


def loss_and_flat(rho):
  sam = trunk_rows(lambda t: sam_gradient(t, rho, rho))
  return CLEAN['trunk'], jax.tree.map(jnp.subtract, sam, CLEAN['trunk'])


def on_rows(method, rows):
  """The method's update for per-task trees of shared parameters."""
  return method.update(
    rows, method.init(None), losses=jnp.ones(method.num_tasks)
  )[0]


@pytest.mark.parametrize('m', NONLINEAR[2:4], ids=by_name)
def test_direct_is_the_method_on_the_sam_gradients(m):
  method = mtl.flat_regions(
    m, rho_shared=0.1, rho_task=0.3, aggregation='direct'
  )
  out, state = update_of(method)
  chex.assert_trees_all_close(out, direct(m, 0.1, 0.3), rtol=1e-4, atol=1e-5)
  assert state.flat_state is None and state.pair_states == ()


def test_second_calls_the_method_once_more():
  method = mtl.flat_regions(
    mtl.imtl_g(T, labels=LABELS), rho_shared=0.4, aggregation='second'
  )
  out, state = update_of(method)
  loss, flat = (on_rows(mtl.imtl_g(T), rows) for rows in loss_and_flat(0.4))
  pair = jax.tree.map(lambda *x: jnp.stack(x), loss, flat)
  expected = on_rows(mtl.imtl_g(2), pair)
  chex.assert_trees_all_close(out['trunk'], expected, rtol=1e-3, atol=1e-5)
  assert mtl.get_weights(state).shape == (T,)
  assert mtl.get_weights(state.pair_states).shape == (2,)


def test_each_combines_every_task_before_the_tasks():
  method = mtl.flat_regions(
    mtl.imtl_g(T, labels=LABELS), rho_shared=0.4, aggregation='each'
  )
  out, state = update_of(method)
  loss, flat = loss_and_flat(0.4)
  rows = []
  for t in range(T):
    pair = jax.tree.map(lambda a, b, t=t: jnp.stack([a[t], b[t]]), loss, flat)
    rows.append(on_rows(mtl.imtl_g(2), pair))
  rows = jax.tree.map(lambda *x: jnp.stack(x), *rows)
  expected = on_rows(mtl.imtl_g(T), rows)
  chex.assert_trees_all_close(out['trunk'], expected, rtol=1e-3, atol=1e-5)
  assert len(state.pair_states) == T
  for t in range(T):  # the heads are the paper's
    sam_head = sam_gradient(t, 0.4, 0.4)['heads'][t]
    np.testing.assert_allclose(out['heads'][t], sam_head, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('aggregation', ['second', 'each', 'direct'])
def test_every_form_of_a_sum_is_the_same(aggregation):
  m = mtl.sum_losses(T, labels=LABELS)
  out, _ = update_of(mtl.flat_regions(m, aggregation=aggregation))
  separate, _ = update_of(mtl.flat_regions(m))
  chex.assert_trees_all_close(out, separate, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  'aggregation', ['separate', 'second', 'each', 'direct']
)
@pytest.mark.parametrize('m', [NONLINEAR[1], *NONLINEAR[3:]], ids=by_name)
def test_no_radius_is_exactly_the_plain_method(m, aggregation):
  method = mtl.flat_regions(m, rho_shared=0.0, aggregation=aggregation)
  out, state = update_of(method)
  expected, _ = m.update(
    CLEAN, m.init(PARAMS), PARAMS, losses=losses_of(PARAMS, X)
  )
  chex.assert_trees_all_equal(out, expected)
  start = method.init(PARAMS)
  for part in ('flat_state', 'pair_states'):
    states = [getattr(s, part) for s in (start, state)]
    if jax.tree.leaves(states[0]):
      chex.assert_trees_all_equal(*map(optax.tree.cast, states, [None] * 2))


def test_rescaling_is_of_each_result():
  rho = 0.3
  loss, flat = (on_rows(mtl.imtl_g(T), rows) for rows in loss_and_flat(rho))
  found = {
    kind: update_of(
      mtl.flat_regions(
        mtl.imtl_g(T, labels=LABELS), rho_shared=rho, rescale=kind
      )
    )[0]
    for kind in ('num_tasks', 'unit')
  }
  expected = {
    'num_tasks': jax.tree.map(lambda a, b: T * (a + b), loss, flat),
    'unit': jax.tree.map(jnp.add, unit(loss), unit(flat)),
  }
  for kind, out in found.items():
    chex.assert_trees_all_close(
      out['trunk'], expected[kind], rtol=1e-3, atol=1e-4
    )
  chex.assert_trees_all_equal(
    found['unit']['heads'], found['num_tasks']['heads']
  )


def test_rescaling_of_a_linear_method_keeps_the_calls_apart():
  loss, flat = (on_rows(mtl.mean(T), rows) for rows in loss_and_flat(0.3))
  method = mtl.flat_regions(
    mtl.mean(T, labels=LABELS), rho_shared=0.3, rescale='unit'
  )
  out, state = update_of(method)
  expected = jax.tree.map(jnp.add, unit(loss), unit(flat))
  chex.assert_trees_all_close(out['trunk'], expected, rtol=1e-4, atol=1e-5)
  assert state.flat_state is None
  method = mtl.flat_regions(
    mtl.mean(T, labels=LABELS), aggregation='direct', rescale='unit'
  )
  out, _ = update_of(method)
  np.testing.assert_allclose(optax.tree.norm(out['trunk']), 1, rtol=1e-5)


def points_of(method, **options):
  """The trees at which the gradient of each task is taken."""
  seen = {}

  def spy(params, t):
    seen[t] = params
    return mtl.task_grad_fn(STAGED, X)(params, t)

  method.update(
    CLEAN,
    method.init(PARAMS),
    PARAMS,
    losses=losses_of(PARAMS, X),
    task_grad_fn=spy,
    **options,
  )
  return [optax.tree.sub(seen[t], PARAMS) for t in range(T)]


def test_joint_norm_is_over_shared_and_own():
  m = mtl.mean(T, labels=LABELS)
  moves = points_of(mtl.flat_regions(m, rho_shared=0.2, norms='joint'))
  for t, move in enumerate(moves):
    expected = jax.tree.map(lambda e: 0.2 * e, unit(task_gradient(PARAMS, t)))
    chex.assert_trees_all_close(move, expected, rtol=1e-3, atol=1e-6)


def test_separate_norms_have_two_radii():
  m = mtl.mean(T, labels=LABELS)
  moves = points_of(mtl.flat_regions(m, rho_shared=0.2, rho_task=0.7))
  for t, move in enumerate(moves):
    np.testing.assert_allclose(optax.tree.norm(move['trunk']), 0.2, rtol=1e-4)
    for owner, head in enumerate(move['heads']):
      np.testing.assert_allclose(
        optax.tree.norm(head), 0.7 if owner == t else 0, rtol=1e-4
      )


def test_heads_can_stay():
  m = mtl.imtl_g(T, labels=LABELS)
  out, _ = update_of(mtl.flat_regions(m, perturb_heads=False))
  expected, _ = update_of(mtl.flat_regions(m, rho_task=0.0))
  chex.assert_trees_all_equal(out, expected)


def test_adaptive_perturbation_written_out():
  m = mtl.mean(T, labels=LABELS)
  moves = points_of(mtl.flat_regions(m, rho_shared=2.0, ascent='adaptive'))
  for t, move in enumerate(moves):
    g = task_gradient(PARAMS, t)
    for part, p, e in (
      (g['trunk'], PARAMS['trunk'], move['trunk']),
      (g['heads'][t], PARAMS['heads'][t], move['heads'][t]),
    ):
      norm = optax.tree.norm(jax.tree.map(lambda g, p: abs(p) * g, part, p))
      expected = jax.tree.map(lambda g, p, n=norm: 2 * p**2 * g / n, part, p)
      chex.assert_trees_all_close(e, expected, rtol=1e-3, atol=1e-5)


def test_own_ascent_rule():
  m = mtl.mean(T, labels=LABELS)
  signs = lambda rho: optax.stateless(
    lambda g, p: jax.tree.map(lambda x: rho * jnp.sign(x), g)
  )
  for move in points_of(mtl.flat_regions(m, rho_shared=0.1, ascent=signs)):
    np.testing.assert_allclose(abs(move['trunk']['w']), 0.1, rtol=1e-4)


@pytest.mark.parametrize('aggregation', ['separate', 'direct'])
@pytest.mark.parametrize('stacked', [False, True])
def test_mode_map_agrees_with_unroll(aggregation, stacked):
  params, labels = PARAMS, LABELS
  if stacked:
    params = {**PARAMS, 'heads': jnp.stack(PARAMS['heads'])}
    labels = {'trunk': 'shared', 'heads': 'stacked'}
  m = mtl.cagrad(T, labels=labels)
  outs = [
    update_of(mtl.flat_regions(m, aggregation=aggregation, mode=mode), params)
    for mode in ('unroll', 'map')
  ]
  chex.assert_trees_all_close(outs[0][0], outs[1][0], rtol=1e-4, atol=1e-5)


def test_task_points_bound_a_common_one_to_first_order(x64):
  """Each task's own worst point is worse for it than any common one."""
  params = optax.tree.cast(PARAMS, jnp.float64)
  x = X.astype(jnp.float64)

  def losses_at(move, rho):
    return losses_of(jax.tree.map(lambda p, e: p + rho * e, params, move), x)

  @jax.jit
  def excess(rho):
    keys = jax.random.split(jax.random.key(0), 64)
    common = jax.vmap(lambda k: unit(optax.tree.random_like(k, params)))(keys)
    at_common = jax.vmap(lambda move: losses_at(move, rho))(common)
    own = []
    for t in range(T):
      g = task_gradient(params, t, x)
      worst = {'trunk': unit(g['trunk']), 'heads': list(g['heads'])}
      worst['heads'][t] = unit(g['heads'][t])
      own.append(losses_at(worst, rho)[t])
    return at_common - jnp.stack(own)[None], losses_at(params, 0.0)

  for rho in (1e-1, 1e-2, 1e-3):
    over, clean = excess(rho)
    assert jnp.all(over < 10 * rho**2)
    assert jnp.all(jnp.max(over, axis=0) > -10 * rho)  # of the size of rho
    assert jnp.all(clean > 0)

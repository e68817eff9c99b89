"""The sharpness methods inside jit, vmap, the train step and a checkpoint."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sharp import LABELS, PARAMS, STAGED, T, X, losses_of, trunk, update_of

import mtljax as mtl
from mtljax.training import Checkpointer, make_train_step

# A rule that is cheap to compile, not linear, and random in one case.
INNER = mtl.imtl_g(T, labels=LABELS)
RANDOM = mtl.pcgrad(T, labels=LABELS)
METHODS = {
  'separate': mtl.flat_regions(INNER, rho_shared=0.1),
  'second': mtl.flat_regions(RANDOM, aggregation='second', ascent='adaptive'),
  'each': mtl.flat_regions(RANDOM, aggregation='each'),
  'map': mtl.flat_regions(INNER, mode='map', rescale='unit', norms='joint'),
  'sam': mtl.sam(INNER, ascent='adaptive', rho=0.5),
  'samo': mtl.samo(INNER, rho=0.1),
  'penalty': mtl.gradient_norm_penalty(INNER, alpha=0.7),
}


@pytest.mark.parametrize('name', METHODS)
def test_train_step(name, tmp_path):
  """One trace, no host callback, donated, restored, as on the optax face."""
  method, traces = METHODS[name], []

  def counted(params, x):
    traces.append(1)
    return trunk(params, x)

  loss = mtl.Staged(counted, STAGED.heads)
  train = make_train_step(method, optax.sgd(0.1), loss)
  start = train.init(PARAMS, key=jax.random.key(0))
  text = train.step.lower(start, X).as_text()
  assert 'callback' not in text
  number = len(traces)
  losses, grads = mtl.value_and_task_grads(STAGED, labels=LABELS)(PARAMS, X)
  update = jax.jit(
    functools.partial(method.update, task_grad_fn=mtl.task_grad_fn(STAGED, X))
  )
  direction, _ = update(grads, start.method_state, PARAMS, losses=losses)
  state, metrics = train.step(start, X)
  expected = jax.tree.map(lambda p, d: p - 0.1 * d, PARAMS, direction)
  chex.assert_trees_all_close(state.params, expected, rtol=1e-3, atol=1e-5)
  assert metrics['weights'].shape == (T,)
  with Checkpointer(tmp_path / 'run') as checkpointer:
    checkpointer.save(1, state)
    restored = checkpointer.restore(state)[0]
  one, _ = train.step(state, X)
  two, _ = train.step(restored, X)
  chex.assert_trees_all_equal(one.params, two.params)
  assert len(traces) == number  # lowering traced it, and nothing did again


def test_sweep_over_seeds_and_radii():
  method_of = lambda rho: mtl.flat_regions(INNER, rho_shared=rho)

  def one(rho, params):
    return update_of(method_of(rho), params)[0]

  radii = jnp.array([0.0, 0.05, 0.4])
  seeds = jax.tree.map(lambda p: jnp.stack([p, 1.1 * p + 0.01]), PARAMS)
  over_seeds = jax.vmap(one, in_axes=(None, 0))
  found = jax.jit(jax.vmap(over_seeds, in_axes=(0, None)))(radii, seeds)
  assert found['trunk']['w'].shape == (3, 2, 4, 6)
  single = jax.jit(one)
  for i, rho in enumerate(radii):
    for j in range(2):
      expected = single(rho, jax.tree.map(lambda p, j=j: p[j], seeds))
      lane = jax.tree.map(lambda x, i=i, j=j: x[i, j], found)
      chex.assert_trees_all_close(lane, expected, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize('name', ['separate', 'map', 'samo', 'penalty'])
def test_dtypes(name, x64):
  for dtype in (jnp.bfloat16, jnp.float64):
    params = optax.tree.cast(PARAMS, dtype)
    losses, grads = mtl.value_and_task_grads(STAGED, labels=LABELS)(
      params, X.astype(dtype)
    )
    method = METHODS[name]
    out, state = jax.eval_shape(
      functools.partial(
        method.update, task_grad_fn=mtl.task_grad_fn(STAGED, X.astype(dtype))
      ),
      grads,
      method.init(params),
      params,
      losses=losses,
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(out, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, method.init(params))


def test_radius_below_the_spacing_of_bfloat16_is_the_plain_method():
  params = optax.tree.cast(PARAMS, jnp.bfloat16)
  x = X.astype(jnp.bfloat16)
  method = mtl.flat_regions(INNER, rho_shared=1e-5, perturb_heads=False)
  out, _ = update_of(method, params, x)
  losses, grads = mtl.value_and_task_grads(STAGED, labels=LABELS)(params, x)
  plain, _ = INNER.update(grads, INNER.init(params), params, losses=losses)
  chex.assert_trees_all_equal(out, plain)


def test_dropped_task_where_only_the_second_phase_is_not_finite():
  m = mtl.mean(T, labels=LABELS, nonfinite='drop_task')
  method = mtl.flat_regions(m, rho_shared=0.1, rescale='unit')
  grads = mtl.value_and_task_grads(STAGED, labels=LABELS)(PARAMS, X)[1]

  def broken(params, t):
    loss, grads = mtl.task_grad_fn(STAGED, X)(params, t)
    return loss, jax.tree.map(lambda g: g * (jnp.nan if t == 1 else 1), grads)

  out, _ = method.update(
    grads,
    method.init(PARAMS),
    PARAMS,
    losses=losses_of(PARAMS, X),
    task_grad_fn=broken,
  )
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(out))
  assert not np.any(out['heads'][1]) and np.any(out['heads'][0])

"""The common battery: what optax, jax and training ask of every method."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from battery import (
  ALL,
  FIRST,
  LABELS,
  LOSSES,
  VARIANTS,
  fill,
  make_grads,
  make_params,
  rows,
  run,
  weights_of,
)

import mtljax as mtl
from mtljax.training import Checkpointer

READ_ROWS = [
  m for m in FIRST if {'gradients', 'task_grads'} & m(2, labels=LABELS).needs
]


_BY_NAME = {m.name: m for m in FIRST}


@functools.cache
def _built(name):
  tx = _BY_NAME[name](2, labels=LABELS)
  return tx, jax.jit(tx.update)


def built(m):
  """A method, and its update as a program, which several tests share."""
  return _built(m.name)


@ALL
def test_unknown_extra_args_are_ignored(m):
  tx, _ = built(m)
  params = make_params()

  def update(grads, state):
    return tx.update(grads, state, params, losses=LOSSES, surprise=1, value=2.0)

  out, _ = jax.eval_shape(update, make_grads(), tx.init(params))
  chex.assert_trees_all_equal_shapes_and_dtypes(out, params)


@pytest.mark.parametrize('m', READ_ROWS, ids=lambda m: m.name)
def test_a_leaf_without_entries_changes_nothing(m):
  """It has no largest entry, which methods of the Gramian never ask for."""
  grads = {'w': jnp.array([[1.0, 0.2, 0.0], [0.3, 2.0, 0.1]])}
  more = {**grads, 'none': jnp.zeros((2, 0))}
  updates = []
  for given in (grads, more):
    tx = m(2)
    state = tx.init(jax.tree.map(lambda g: jnp.zeros(g.shape[1:]), given))
    updates.append(tx.update(given, state, losses=jnp.array([1.0, 2.0]))[0])
  np.testing.assert_allclose(updates[1]['w'], updates[0]['w'], rtol=1e-6)
  assert updates[1]['none'].shape == (0,)


@ALL
def test_one_trace(m):
  tx = m(2, labels=LABELS)
  traces = []

  def update(*args, **kwargs):  # of that name it is a program of other tests
    traces.append(1)
    return tx.update(*args, **kwargs)

  run(tx, update=jax.jit(update))
  assert len(traces) == 1


@ALL
def test_jit_agrees(m):
  tx, update = built(m)
  chex.assert_trees_all_close(
    run(tx)[0], run(tx, update=update)[0], rtol=1e-4, atol=1e-5
  )


@ALL
def test_state_is_stable(m):
  tx = m(2, labels=LABELS)
  params = make_params()

  def body(state, i):
    def step(state):
      out, state = tx.update(make_grads(), state, params, losses=LOSSES)
      return out, state

    def skip(state):
      return jax.tree.map(jnp.zeros_like, params), state

    out, state = jax.lax.cond(i > 0, step, skip, state)
    return state, out

  state, _ = jax.eval_shape(
    lambda state: jax.lax.scan(body, state, jnp.arange(3)), tx.init(params)
  )
  chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(params))


@ALL
def test_map_params_and_abstract_init(m):
  tx = m(2, labels=LABELS)
  state = tx.init(make_params())
  optax.tree.map_params(tx, lambda x: x, state)
  shapes = jax.eval_shape(make_params)
  chex.assert_trees_all_equal_shapes_and_dtypes(tx.init(shapes), state)


@ALL
def test_dtypes(m):
  tx = m(2, labels=LABELS)
  for dtype in (jnp.bfloat16, jnp.float32):
    out, state = run(tx, dtype=dtype)
    assert {x.dtype for x in jax.tree.leaves(out)} == {jnp.dtype(dtype)}
    weights = weights_of(state)
    assert weights is None or weights.dtype == jnp.float32


@ALL
def test_bfloat16_weights_agree_with_float32(m):
  grads = make_grads(0, jnp.bfloat16)
  wide = jax.tree.map(lambda g: g.astype(jnp.float32), grads)
  tx = m(2, labels=LABELS)
  outs, weights = [], []
  for g in (grads, wide):
    out, state = tx.update(g, tx.init(make_params()), None, losses=LOSSES)
    outs.append(jax.tree.map(lambda x: x.astype(jnp.float32), out['trunk']))
    weights.append(weights_of(state))
  if m.has_weights:
    np.testing.assert_allclose(*weights, rtol=1e-5)
  chex.assert_trees_all_close(*outs, rtol=1e-2, atol=1e-2)


@ALL
def test_float64(m, x64):
  jacobian = np.random.default_rng(0).normal(size=(3, 7))
  tx = m(3, scale=2.0, max_norm=None)
  out, weights = rows(tx, jacobian)
  assert out.dtype == jnp.float64
  if tx.weighting is not None:
    assert weights.dtype == jnp.float64
    np.testing.assert_allclose(out, 2 * (weights @ jacobian), rtol=1e-12)
  gramian = mtl.gramian(jnp.asarray(jacobian))
  np.testing.assert_allclose(gramian, jacobian @ jacobian.T, rtol=1e-12)
  state = m(3).init(jnp.zeros(7))
  _, state = m(3).update(jnp.asarray(jacobian), state, losses=jnp.ones(3))
  if 'gramian' in mtl.get_stats(state):
    kept = mtl.get_stats(state)['gramian']
    np.testing.assert_allclose(kept, gramian, rtol=1e-12)


@ALL
def test_inject_hyperparams(m):
  if '(' in m.name:
    return  # a wrapper takes a method that is built
  factory = mtl.inject_hyperparams(mtl.get_method(m.name))
  kwargs = {k: v[:2] if k in m.per_task else v for k, v in m.kwargs.items()}
  kwargs.update((k, f(2)) for k, f in m.by_size.items())
  tx = fill(factory(num_tasks=2, labels=LABELS, **kwargs))
  plain, update = built(m)
  expected, _ = run(plain, update=update)
  out, _ = run(tx, update=jax.jit(tx.update))
  chex.assert_trees_all_close(out, expected, rtol=1e-4, atol=1e-5)


@ALL
def test_vmap_is_a_loop(m):
  tx = m(2)
  grads = jax.random.normal(jax.random.key(1), (4, 2, 5))
  losses = jnp.arange(1.0, 9.0).reshape(4, 2)
  state = tx.init(jnp.zeros(5))
  states = jax.tree.map(lambda x: jnp.stack([x] * 4), state)
  update = jax.vmap(lambda g, s, l: tx.update(g, s, losses=l))
  out, _ = update(grads, states, losses)
  for i in range(4):
    one, _ = tx.update(grads[i], state, losses=losses[i])
    np.testing.assert_allclose(out[i], one, rtol=2e-4, atol=1e-5)


@ALL
def test_init_after_donation(m):
  key = jax.random.key(3)
  tx = m(2, labels=LABELS, key=key)
  params = make_params()
  step = jax.jit(
    lambda s, g: tx.update(g, s, losses=LOSSES)[1], donate_argnums=0
  )
  step(tx.init(params), make_grads())
  again = tx.init(params)
  chex.assert_trees_all_equal_shapes_and_dtypes(
    step(again, make_grads()), tx.init(params)
  )


@ALL
def test_restore_and_continue(m, tmp_path):
  tx, update = built(m)
  params = make_params()
  _, state = run(tx, update=update)
  with Checkpointer(tmp_path / 'checkpoints') as checkpointer:
    checkpointer.save(1, state, data_state={}, meta={}, score=None)
  with Checkpointer(tmp_path / 'checkpoints') as checkpointer:
    restored = checkpointer.restore(jax.eval_shape(tx.init, params))[0]
  args = dict(params=params, losses=LOSSES)
  chex.assert_trees_all_equal(
    update(make_grads(9), state, **args)[0],
    update(make_grads(9), restored, **args)[0],
  )


@VARIANTS
def test_facts(m):
  tx = m(2)
  assert isinstance(tx, mtl.Aggregator)
  assert isinstance(tx, optax.GradientTransformationExtraArgs)
  assert tx.info.name == m.name
  has_weights = weights_of(tx.init(jnp.zeros(2))) is not None
  assert has_weights == m.has_weights
  assert tx.info.random == any(
    jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    for x in jax.tree.leaves(tx.init(jnp.zeros(2)))
  )

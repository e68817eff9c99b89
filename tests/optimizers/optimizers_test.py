"""Optimizers a task, and the sign: oracles, state, bad input."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from battery import LABELS, LOSSES, make_grads, make_params

import mtljax as mtl
from mtljax.training import Checkpointer, make_train_step

BUILDERS = {
  'adatask': lambda t, **kw: mtl.adatask(t, 0.1, **kw),
  'per_task_optimizer': lambda t, **kw: mtl.per_task_optimizer(
    optax.chain(optax.add_noise(0.01, 0.5, 3), optax.sgd(0.1, momentum=0.9)),
    t,
    **kw,
  ),
}
ALL = pytest.mark.parametrize('name', BUILDERS)


def run(tx, steps=3, update=None, scale=None, **extra):
  params = make_params()
  state = tx.init(params)
  for i in range(steps):
    grads = make_grads(i)
    if scale is not None:
      grads = scaled(grads, scale)
    out, state = (update or tx.update)(grads, state, params, **extra)
  return out, state


def scaled(grads, scale):
  rows = jax.tree.map(
    lambda g: g * scale.reshape((2,) + (1,) * (g.ndim - 1)),
    {k: grads[k] for k in ('trunk', 'fused')},
  )
  own = {f'heads_{t}': grads[f'heads_{t}'] * scale[t] for t in (0, 1)}
  return {**rows, **own}


@pytest.mark.parametrize(
  'optimizer',
  [optax.adam(0.1), optax.adamw(0.1), optax.sgd(0.1, momentum=0.9)],
)
def test_one_task_is_the_plain_optimizer(optimizer):
  tx = mtl.per_task_optimizer(optimizer, num_tasks=1)
  params = {'w': jnp.arange(3.0), 'b': jnp.ones(2)}
  state, plain_state = tx.init(params), optimizer.init(params)
  for i in range(3):
    grads = jax.tree.map(lambda p, i=i: jnp.sin(p + i), params)
    rows = jax.tree.map(lambda g: g[None], grads)
    out, state = tx.update(rows, state, params)
    expected, plain_state = optimizer.update(grads, plain_state, params)
    chex.assert_trees_all_close(out, expected, rtol=1e-6)


def test_sgd_a_task_is_sgd_on_the_sum():
  tx = mtl.per_task_optimizer(optax.sgd(0.1, momentum=0.9), 2, labels=LABELS)
  plain = optax.chain(
    mtl.sum_losses(2, labels=LABELS), optax.sgd(0.1, momentum=0.9)
  )
  chex.assert_trees_all_close(run(tx)[0], run(plain)[0], rtol=1e-5, atol=1e-6)


def test_adatask_is_the_loop_over_tasks(x64):
  b1, b2, eps, rate = 0.8, 0.95, 1e-3, 0.1
  tx = mtl.adatask(2, rate, b1=b1, b2=b2, eps=eps)
  grads = np.random.default_rng(0).normal(size=(4, 2, 5))
  m, v = np.zeros((2, 5)), np.zeros((2, 5))
  state = tx.init(jnp.zeros(5))
  for k, g in enumerate(grads, start=1):
    out, state = tx.update(jnp.asarray(g), state)
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    step = (m / (1 - b1**k)) / (np.sqrt(v / (1 - b2**k)) + eps)
    np.testing.assert_allclose(out, -rate * step.sum(0), rtol=1e-10)


def test_adatask_takes_powers_of_two_to_the_bit():
  tx = mtl.adatask(2, 0.1, eps=0.0, labels=LABELS)
  out, _ = run(tx)
  same, _ = run(tx, scale=jnp.array([2.0**10, 2.0**-7]))
  chex.assert_trees_all_equal(same, out)
  # With eps only nearly, and plain Adam on the sum not at all.
  out, _ = run(mtl.adatask(2, 0.1, labels=LABELS))
  same, _ = run(
    mtl.adatask(2, 0.1, labels=LABELS), scale=jnp.array([1e3, 1e-2])
  )
  chex.assert_trees_all_close(same, out, rtol=1e-3, atol=1e-4)
  summed = optax.chain(mtl.sum_losses(2, labels=LABELS), optax.adam(0.1))
  a, b = (
    run(summed, scale=s)[0]['trunk']['w'] for s in (None, jnp.array([1e3, 1.0]))
  )
  assert np.max(np.abs(a - b)) > 0.01


@pytest.mark.parametrize('momentum', [None, 0.9])
def test_signsgd_takes_powers_of_two_to_the_bit(momentum):
  tx = optax.chain(
    mtl.sum_losses(2, labels=LABELS), mtl.signsgd(0.1, momentum=momentum)
  )
  for factor in (2.0**-20, 2.0**20):
    chex.assert_trees_all_equal(
      run(tx, scale=jnp.full(2, factor))[0], run(tx)[0]
    )


def test_signsgd_with_momentum_follows_the_average():
  tx = mtl.signsgd(1.0, momentum=0.5)
  state = tx.init(jnp.zeros(1))
  out = []
  for g in (4.0, -1.0, -3.0):
    update, state = tx.update(jnp.array([g]), state)
    out.append(float(update[0]))
  assert out == [-1.0, -1.0, 1.0]


@ALL
def test_absent_task_adds_nothing_and_its_optimizer_stands_still(name):
  tx = BUILDERS[name](2, labels=LABELS)
  params = make_params()
  _, before = run(tx)
  grads = make_grads(7)
  grads['trunk'] = jax.tree.map(lambda g: g.at[1].set(jnp.nan), grads['trunk'])
  grads['heads_1'] = jnp.full_like(grads['heads_1'], jnp.nan)
  grads['fused'] = grads['fused'].at[1].set(jnp.nan)
  mask = jnp.array([True, False])
  out, state = jax.jit(tx.update)(grads, before, params, task_mask=mask)
  chex.assert_tree_all_finite(out)
  assert not np.any(out['heads_1'])
  assert not np.any(out['fused'][1])
  assert np.any(out['heads_0'])
  chex.assert_trees_all_equal(state.own[1], before.own[1])
  second = jax.tree.map(lambda x: x[1], (state.shared, before.shared))
  chex.assert_trees_all_equal(*second)
  # Nobody: nothing moves at all.
  out, state = tx.update(grads, before, params, task_mask=jnp.zeros(2, bool))
  assert not any(np.any(x) for x in jax.tree.leaves(out))
  chex.assert_trees_all_equal(state, before)


@ALL
def test_plumbing(name, tmp_path):
  """One trace, scan, cond, donation, unknown arguments, checkpoint."""
  tx = BUILDERS[name](2, labels=LABELS)
  params = make_params()
  traces = []

  def counted(grads, state, params):
    traces.append(1)
    return tx.update(grads, state, params, losses=LOSSES, surprise=1)

  update = jax.jit(counted, donate_argnums=1)
  out, state = run(tx, update=update)
  assert len(traces) == 1
  chex.assert_trees_all_equal_shapes_and_dtypes(out, params)
  chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(params))
  chex.assert_trees_all_close(out, run(tx)[0], rtol=1e-4, atol=1e-5)
  shapes = jax.eval_shape(make_params)
  chex.assert_trees_all_equal_shapes_and_dtypes(tx.init(shapes), state)
  optax.tree.map_params(tx, lambda x: x, state)

  def body(state, i):
    def step(state):
      return tx.update(make_grads(), state, params)[1]

    return jax.lax.cond(i > 0, step, lambda s: s, state), None

  scanned, _ = jax.lax.scan(body, tx.init(params), jnp.arange(3))
  chex.assert_trees_all_equal_shapes_and_dtypes(scanned, state)

  with Checkpointer(tmp_path / 'checkpoints') as checkpointer:
    checkpointer.save(1, state, data_state={}, meta={}, score=None)
    restored = checkpointer.restore(jax.eval_shape(tx.init, params))[0]
  chex.assert_trees_all_equal(
    tx.update(make_grads(9), state, params)[0],
    tx.update(make_grads(9), restored, params)[0],
  )


def test_vmap_is_a_loop():
  tx = mtl.adatask(2, 0.1)
  grads = jax.random.normal(jax.random.key(0), (3, 2, 5))
  state = tx.init(jnp.zeros(5))
  states = jax.tree.map(lambda x: jnp.stack([x] * 3), state)
  out, _ = jax.vmap(lambda g, s: tx.update(g, s))(grads, states)
  for i in range(3):
    np.testing.assert_allclose(out[i], tx.update(grads[i], state)[0], rtol=1e-6)


def test_bfloat16_in_and_out():
  params = make_params(jnp.bfloat16)
  tx = mtl.adatask(2, 0.1, labels=LABELS)
  out, _ = tx.update(make_grads(0, jnp.bfloat16), tx.init(params), params)
  assert {x.dtype for x in jax.tree.leaves(out)} == {jnp.dtype(jnp.bfloat16)}


def test_train_step_and_a_schedule():
  def task_losses(w, batch):
    return jnp.stack([jnp.sum((w - batch) ** 2), 1e4 * jnp.sum((w + 1) ** 2)])

  schedule = optax.cosine_decay_schedule(0.1, 200)
  method = mtl.adatask(2, schedule)
  step = make_train_step(method, optax.identity(), task_losses)
  assert step.route == 'jacobian'
  state = step.init(jnp.full(2, 3.0), key=jax.random.key(0))
  for _ in range(200):
    state, _ = step.step(state, jnp.ones(2))
  # Equal pulls of both tasks, though one loss is 10,000 times the other.
  assert np.all(np.abs(state.params) < 1.0)
  with pytest.raises(ValueError, match="route='gramian': adatask"):
    make_train_step(method, optax.identity(), task_losses, route='gramian')


@pytest.mark.parametrize(
  'call, error, message',
  [
    (lambda: mtl.per_task_optimizer(mtl.mean(2), 2), TypeError, 'one gradient'),
    (lambda: mtl.per_task_optimizer(0.1, 2), TypeError, 'tx=float'),
    (lambda: mtl.adatask(0, 0.1), ValueError, 'num_tasks=0'),
    (lambda: mtl.adatask(2, 0.1).init(None), ValueError, 'init.params'),
    (lambda: mtl.signsgd(0.1, momentum=1.0), ValueError, 'momentum=1.0'),
    (lambda: mtl.signsgd(0.1, momentum=-0.1), ValueError, 'momentum=-0.1'),
    (
      lambda: mtl.adatask(3, 0.1).update(
        jnp.eye(2), mtl.adatask(3, 0.1).init(jnp.zeros(2))
      ),
      ValueError,
      'num_tasks=3',
    ),
  ],
)
def test_bad_input(call, error, message):
  with pytest.raises(error, match=message):
    call()

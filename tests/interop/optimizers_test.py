"""Optimizers that want more than an update, to the right of a method.

With the sum of the losses as the method, each must do what it does alone.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax.training import make_train_step

contrib = optax.contrib


def task_losses(params, x):
  z = params['w'] * x + params['b']
  return jnp.stack([jnp.mean((z - 1) ** 2), jnp.mean(jnp.cosh(z))])


def summed(params, x):
  return jnp.sum(task_losses(params, x))


PARAMS = {'w': jnp.array([0.5, -0.3, 0.8]), 'b': jnp.array(0.2)}
X = jnp.array([1.0, 2.0, 0.5])
ASCENT = optax.chain(contrib.normalize(), optax.sgd(0.05))


def plain_sam():
  return contrib.sam(optax.sgd(0.1), ASCENT)


# Name, how it is built, whether the train step takes it.
ROWS = {
  'adam': (lambda: optax.adam(0.1), True),
  'sam': (plain_sam, True),
  'lbfgs': (optax.lbfgs, False),
  'lbfgs, no line search': (lambda: optax.lbfgs(0.1, linesearch=None), True),
  'backtracking': (
    lambda: optax.chain(
      optax.sgd(0.5), optax.scale_by_backtracking_linesearch(5)
    ),
    False,
  ),
  'zoom': (
    lambda: optax.chain(optax.sgd(0.5), optax.scale_by_zoom_linesearch(5)),
    False,
  ),
  'MultiSteps': (lambda: optax.MultiSteps(optax.adam(0.1), 2), True),
  'schedule_free': (lambda: contrib.schedule_free(optax.sgd(0.1), 0.1), True),
  'reduce_on_plateau': (
    lambda: optax.chain(
      optax.sgd(0.1), contrib.reduce_on_plateau(patience=1, cooldown=0)
    ),
    True,
  ),
  'polyak_sgd': (optax.polyak_sgd, True),
  'momo': (lambda: contrib.momo(0.1), True),
}
EACH = pytest.mark.parametrize('row', ROWS)
TRAINED = pytest.mark.parametrize('row', [k for k, v in ROWS.items() if v[1]])
STEPS = 3


def told(value, grad):
  # A line search wants every further argument taken by `value_fn`.
  value_fn = lambda p, losses=None: summed(p, X)
  return {'value': value, 'grad': grad, 'value_fn': value_fn}


def alone(tx):
  """Plain optax on the sum of the losses."""
  params = PARAMS
  if isinstance(tx, optax.MultiSteps):
    tx = tx.gradient_transformation()
  takes_none = tx.update.__qualname__.startswith('sam.')
  state = tx.init(params)
  for _ in range(STEPS):
    value, grad = jax.value_and_grad(summed)(params, X)
    extra = {} if takes_none else told(value, grad)
    updates, state = optax.with_extra_args_support(tx).update(
      grad, state, params, **extra
    )
    params = optax.apply_updates(params, updates)
  return params


@EACH
def test_right_of_a_method_in_a_chain(row):
  tx = ROWS[row][0]()
  if row == 'sam':
    # It says that it takes further arguments, and takes none.
    tx = optax.GradientTransformation(tx.init, tx.update)
  tx = optax.chain(mtl.sum_losses(2), tx)
  params, state = PARAMS, tx.init(PARAMS)
  for _ in range(STEPS):
    losses, grads = mtl.value_and_task_grads(task_losses)(params, X)
    grad = jax.tree.map(lambda g: jnp.sum(g, axis=0), grads)
    updates, state = tx.update(
      grads, state, params, losses=losses, **told(jnp.sum(losses), grad)
    )
    params = optax.apply_updates(params, updates)
  chex.assert_trees_all_close(params, alone(ROWS[row][0]()), rtol=1e-4)
  assert mtl.get_weights(state).shape == (2,)


@TRAINED
def test_in_the_train_step(row):
  init, step, _ = make_train_step(
    mtl.sum_losses(2), ROWS[row][0](), task_losses
  )
  state = init(PARAMS, key=jax.random.key(0))
  for _ in range(STEPS):
    state, _ = step(state, X)
  chex.assert_trees_all_close(state.params, alone(ROWS[row][0]()), rtol=1e-4)


def one_step(optimizer):
  init, step, _ = make_train_step(mtl.mgda(2), optimizer, task_losses)
  return step(init(PARAMS, key=jax.random.key(0)), X)


@pytest.mark.parametrize('row', [k for k, v in ROWS.items() if not v[1]])
def test_line_searches_are_refused_in_the_train_step(row):
  with pytest.raises(TypeError, match=r'optax.chain\(method, optimizer\)'):
    one_step(ROWS[row][0]())


def test_others_are_refused_with_the_way_that_works():
  opaque = contrib.sam(optax.sgd(0.1), ASCENT, opaque_mode=True)
  with pytest.raises(TypeError, match='there is mtl.sam'):
    one_step(opaque)
  chained = optax.chain(optax.clip(1.0), plain_sam())
  with pytest.raises(TypeError, match=r'part.init, part.update'):
    one_step(chained)
  with pytest.raises(TypeError, match='in turn by hand'):
    one_step(optax.lookahead(optax.sgd(0.1), 2, 0.5))
  with pytest.raises(TypeError, match='the method cagrad'):
    make_train_step(mtl.mgda(2), mtl.cagrad(2), task_losses)
  with pytest.raises(TypeError, match='optimizer=0.1'):
    make_train_step(mtl.mgda(2), 0.1, task_losses)


def test_what_an_optimizer_does_not_expect_is_its_own_error():
  def update(updates, state, params=None):
    raise TypeError('something else')

  with pytest.raises(TypeError, match='something else'):
    one_step(optax.GradientTransformation(optax.sgd(0.1).init, update))


def test_the_value_is_the_sum_of_the_losses():
  def update(updates, state, params=None, *, value, **extra_args):
    assert set(extra_args) == set()
    return jax.tree.map(jnp.zeros_like, updates), {'value': value}

  spy = optax.GradientTransformationExtraArgs(
    lambda params: {'value': jnp.zeros(())}, update
  )
  init, step, _ = make_train_step(mtl.mean(2), spy, task_losses)
  state, metrics = step(init(PARAMS, key=jax.random.key(0)), X)
  np.testing.assert_allclose(state.opt_state['value'], summed(PARAMS, X))
  np.testing.assert_allclose(
    state.opt_state['value'], jnp.sum(metrics['losses'])
  )


@pytest.mark.parametrize('names', [(), ('value',)])
def test_arguments_are_filtered_by_what_it_takes(names):
  seen = {}

  def none(updates, state, params=None):
    return updates, state

  def some(updates, state, params=None, *, value=None):
    seen['value'] = value
    return updates, state

  tx = optax.GradientTransformationExtraArgs(
    lambda params: (), some if names else none
  )
  one_step(tx)
  assert set(seen) == set(names)
  assert all(v is not None for v in seen.values())


def test_lookahead_by_hand():
  """The method first, then the optimizer with its two sets of parameters."""
  method = mtl.uncertainty(2)
  tx = optax.lookahead(optax.sgd(0.1), 2, 0.5)
  params = optax.LookaheadParams.init_synced(PARAMS)
  method_state, state = method.init(PARAMS), tx.init(params)
  fast, slow = PARAMS, PARAMS
  rule_state = method.init(PARAMS)
  for i in range(4):
    losses, grads = mtl.value_and_task_grads(task_losses)(params.fast, X)
    direction, method_state = method.update(
      grads, method_state, params.fast, losses=losses
    )
    updates, state = tx.update(direction, state, params)
    params = optax.apply_updates(params, updates)

    losses, grads = mtl.value_and_task_grads(task_losses)(fast, X)
    direction, rule_state = method.update(
      grads, rule_state, fast, losses=losses
    )
    fast = jax.tree.map(lambda p, d: p - 0.1 * d, fast, direction)
    if i % 2:
      slow = jax.tree.map(lambda s, f: s + 0.5 * (f - s), slow, fast)
      fast = slow
  chex.assert_trees_all_close(params.fast, fast, rtol=1e-5)
  chex.assert_trees_all_close(params.slow, slow, rtol=1e-5)


def test_lookahead_in_a_chain_raises():
  tx = optax.chain(mtl.mean(2), optax.lookahead(optax.sgd(0.1), 2, 0.5))
  params = optax.LookaheadParams.init_synced(PARAMS)
  _, grads = mtl.value_and_task_grads(task_losses)(params.fast, X)
  with pytest.raises(ValueError, match='different tree structures'):
    tx.update(grads, tx.init(params), params)


def test_schedule_free_evaluates_at_its_average():
  init, step, _ = make_train_step(
    mtl.mgda(2), contrib.schedule_free(optax.sgd(0.1), 0.1), task_losses
  )
  state, _ = step(init(PARAMS, key=jax.random.key(0)), X)
  average = contrib.schedule_free_eval_params(state.opt_state, state.params)
  chex.assert_trees_all_equal_shapes(average, state.params)

"""The optax contract of per-task aggregators, point by point.

What holds for every method one by one is in the common battery.
"""

import pathlib
from typing import NamedTuple

import chex
import eight_devices
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import mtljax as mtl

PARAMS = {'trunk': jnp.ones((3, 4)), 'heads': [jnp.ones(2), jnp.ones((2, 2))]}
LABELS = {'trunk': 'shared', 'heads': [0, 1]}
GRADS = {
  'trunk': jax.random.normal(jax.random.key(0), (2, 3, 4)),
  'heads': [jnp.full(2, 3.0), jnp.full((2, 2), -1.0)],
}
LOSSES = jnp.array([1.0, 4.0])


# 1. Shapes and sign.
def test_structure_shapes_and_sign():
  tx = mtl.mean(2, labels=LABELS)
  out, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
  chex.assert_trees_all_equal_shapes_and_dtypes(out, PARAMS)
  np.testing.assert_allclose(out['trunk'], GRADS['trunk'].mean(0), rtol=1e-6)


# 2. Checks at trace time.
@pytest.mark.parametrize(
  'change, message',
  [
    (
      {'trunk': GRADS['trunk'][0]},
      r"'trunk'.*shape \(3, 4\).*on axis 0",
    ),
    ({'trunk': jnp.ones((3, 3, 4))}, 'num_tasks=2'),
    ({'trunk': jnp.ones((2, 4, 3))}, r'\(3, 4\)'),
    ({'heads': [jnp.ones((2, 2)), jnp.ones((2, 2))]}, "'heads/0'.*task 0 owns"),
  ],
)
def test_shapes_are_checked(change, message):
  tx = mtl.mean(2, labels=LABELS)
  with pytest.raises(ValueError, match=message):
    tx.update({**GRADS, **change}, tx.init(PARAMS), PARAMS)


def test_first_dimension_that_happens_to_equal_num_tasks():
  params = {'w': jnp.ones((2, 5))}
  tx = mtl.mean(2)
  with pytest.raises(ValueError, match='expected'):
    tx.update(params, tx.init(params), params)


def test_other_structure_than_params():
  tx = mtl.mean(2)
  with pytest.raises(ValueError, match='different tree structures'):
    tx.update({'w': jnp.ones((2, 3))}, tx.init(None), {'v': jnp.ones(3)})


def test_losses_and_mask_shapes():
  tx = mtl.uncertainty(2)
  grads = jnp.ones((2, 3))
  with pytest.raises(ValueError, match=r'losses has shape \(3,\)'):
    tx.update(grads, tx.init(None), losses=jnp.ones(3))
  with pytest.raises(ValueError, match='task_mask has shape'):
    tx.update(grads, tx.init(None), losses=LOSSES, task_mask=jnp.ones(1))


# 3. Dtypes: the battery. Here: float16 overflows unless added in float32.
def test_accumulates_in_float32():
  grads = jnp.full((2, 400), 20.0, jnp.float16)
  tx = mtl.nash_mtl(2, max_norm=None)
  _, state = tx.update(grads, tx.init(jnp.zeros(400)))
  np.testing.assert_allclose(
    mtl.get_stats(state)['gramian'], jnp.full((2, 2), 160000.0)
  )


# 4, 5. init and state: the battery. Here: reading it.
def test_state_is_read_through_wrappers():
  tx = optax.chain(
    optax.named_chain(('mtl', mtl.mgda(2)), ('clip', optax.clip(1.0))),
    optax.adam(1e-3),
  )
  state = tx.init(jnp.zeros(3))
  _, state = tx.update(jnp.eye(2, 3), state, jnp.zeros(3))
  np.testing.assert_allclose(mtl.get_weights(state), [0.5, 0.5], atol=1e-6)
  np.testing.assert_allclose(
    optax.tree.get(state, 'weights'), [0.5, 0.5], atol=1e-6
  )
  assert set(mtl.get_stats(state)) == {'gramian', 'residual'}


def test_parameters_named_weights_are_not_taken_for_task_weights():
  with pytest.raises(ValueError, match='no task weights'):
    mtl.get_weights(optax.adam(0.1).init({'weights': jnp.ones(3)}))


# 6. Extra arguments.
def test_missing_losses_name_the_argument():
  tx = mtl.uncertainty(2)
  with pytest.raises(TypeError, match='losses=losses'):
    tx.update(jnp.ones((2, 3)), tx.init(None))


# 7. Keys.
@pytest.mark.parametrize('key', [jax.random.PRNGKey(0), 0.5, 'seed'])
def test_keys_are_ints_or_typed(key):
  with pytest.raises(TypeError, match='typed key'):
    mtl.rlw(2, key=key)
  mtl.rlw(2, key=np.int64(3))


def test_keys_are_in_the_state_and_move_on():
  tx = mtl.rlw(3, key=7)
  state = tx.init(None)
  grads = jnp.ones((3, 2))
  _, first = tx.update(grads, state)
  _, second = tx.update(grads, first)
  _, again = tx.update(grads, state)
  assert not np.allclose(mtl.get_weights(first), mtl.get_weights(second))
  np.testing.assert_array_equal(mtl.get_weights(first), mtl.get_weights(again))


def test_replicas_can_be_rekeyed():
  tx = mtl.rlw(3)
  state = tx.init(None)
  keys = jax.random.split(jax.random.key(1), 4)
  states = jax.vmap(lambda k: optax.tree.set(state, rng_key=k))(keys)
  update = jax.vmap(lambda s: tx.update(jnp.ones((3, 2)), s)[1])
  weights = mtl.get_weights(update(states))
  assert len(np.unique(np.round(np.asarray(weights), 5))) == 12


# 8. Composition.
@pytest.mark.parametrize(
  'wrap',
  [
    lambda agg, opt: optax.chain(agg, optax.clip_by_global_norm(1.0), opt),
    lambda agg, opt: optax.chain(
      agg, optax.MultiSteps(opt, 2).gradient_transformation()
    ),
    lambda agg, opt: optax.chain(agg, optax.apply_if_finite(opt, 3)),
    lambda agg, opt: optax.chain(
      agg,
      optax.partition(
        {'a': opt, 'b': optax.set_to_zero()}, {'trunk': 'a', 'heads': 'b'}
      ),
    ),
    lambda agg, opt: optax.chain(agg, optax.add_decayed_weights(0.1), opt),
    lambda agg, opt: optax.chain(agg, optax.contrib.mechanize(opt)),
  ],
)
def test_optax_to_the_right(wrap):
  tx = wrap(mtl.cagrad(2, labels=LABELS), optax.adam(1e-2))
  state = tx.init(PARAMS)
  update = jax.jit(tx.update)
  for _ in range(3):
    out, state = update(GRADS, state, PARAMS, losses=LOSSES)
  chex.assert_trees_all_equal_shapes_and_dtypes(out, PARAMS)
  chex.assert_tree_all_finite(out)


def test_optimizer_sees_what_it_would_see_alone():
  adam = optax.adam(1e-2)
  chain = optax.chain(mtl.sum_losses(2, labels=LABELS), adam)
  summed = {'trunk': GRADS['trunk'].sum(0), 'heads': GRADS['heads']}
  out, _ = chain.update(GRADS, chain.init(PARAMS), PARAMS)
  expected, _ = adam.update(summed, adam.init(PARAMS), PARAMS)
  chex.assert_trees_all_close(out, expected, rtol=1e-6)


def test_per_task_clips_each_task_by_itself():
  tx = optax.chain(
    mtl.per_task(optax.clip_by_global_norm(0.1), 2, labels=LABELS),
    mtl.sum_losses(2, labels=LABELS),
  )
  out, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
  rows = GRADS['trunk'].reshape(2, -1)
  unit = 0.1 * rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
  np.testing.assert_allclose(out['trunk'].ravel(), unit.sum(0), rtol=1e-5)
  np.testing.assert_array_equal(out['heads'][0], GRADS['heads'][0])


def test_per_task_keeps_a_state_a_task():
  tx = mtl.per_task(optax.scale_by_adam(), 2, labels=LABELS)
  state = tx.init(PARAMS)
  optax.tree.map_params(tx, lambda x: x, state)
  for _ in range(2):
    out, state = tx.update(GRADS, state, PARAMS)
  for t in range(2):
    adam = optax.scale_by_adam()
    alone = adam.init(PARAMS['trunk'])
    for _ in range(2):
      expected, alone = adam.update(GRADS['trunk'][t], alone)
    np.testing.assert_allclose(out['trunk'][t], expected, rtol=1e-5)


def test_per_task_noise_differs_between_tasks():
  noise = optax.add_noise(eta=1.0, gamma=0.0, key=jax.random.key(0))
  tx = mtl.per_task(noise, 2)
  out, _ = tx.update(jnp.zeros((2, 4)), tx.init(jnp.zeros(4)))
  assert not np.allclose(out[0], out[1])


def test_plain_clip_to_the_left_is_another_thing():
  """What per_task is there for: the joint norm over tasks is clipped."""
  tx = optax.chain(optax.clip_by_global_norm(0.1), mtl.sum_losses(2))
  grads = jnp.array([[1.0, 0.0], [0.0, 1e-3]])
  out, _ = tx.update(grads, tx.init(jnp.zeros(2)))
  assert out[1] < 2e-4


# 9. Shared and task-specific parameters, by labels.
def test_heads_are_left_alone_or_weighted():
  weights = [0.5, 3.0]
  weighted = mtl.fixed(2, weights=weights, labels=LABELS)
  alone = mtl.fixed(2, weights=weights, labels=LABELS, weight_heads=False)
  for tx, scale in ((weighted, weights), (alone, [1.0, 1.0])):
    out, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    for t in range(2):
      np.testing.assert_allclose(out['heads'][t], scale[t] * GRADS['heads'][t])
    expected = 0.5 * GRADS['trunk'][0] + 3.0 * GRADS['trunk'][1]
    np.testing.assert_allclose(out['trunk'], expected, rtol=1e-5)


def test_stacked_heads_equal_separate_ones():
  heads = jax.random.normal(jax.random.key(3), (2, 5))
  tx = mtl.fixed(2, weights=[2.0, 0.5], labels={'w': 'shared', 'h': 'stacked'})
  split = mtl.fixed(2, weights=[2.0, 0.5], labels={'w': 'shared', 'h': [0, 1]})
  trunk = jnp.ones((2, 3))
  a, _ = tx.update({'w': trunk, 'h': heads}, tx.init(None))
  b, _ = split.update({'w': trunk, 'h': list(heads)}, split.init(None))
  np.testing.assert_array_equal(a['h'], jnp.stack(b['h']))


def test_gramian_labels_narrow_the_gramian():
  grads = {'first': jnp.eye(2, 3) * 5, 'last': jnp.array([[1.0, 0], [2, 1]])}
  marks = mtl.match_params(grads, 'last')
  tx = mtl.mgda(2, gramian_labels=marks)
  _, state = tx.update(grads, tx.init(None))
  np.testing.assert_allclose(mtl.get_stats(state)['gramian'], [[1, 2], [2, 5]])
  np.testing.assert_allclose(mtl.get_weights(state), [1, 0], atol=1e-5)


def test_negative_weights_never_reach_heads():
  with pytest.raises(ValueError, match='weight_heads=True: imtl_g'):
    mtl.imtl_g(2, weight_heads=True)


# 10. inject_hyperparams: the battery. Here: a schedule is followed.
def test_scheduled_hyperparameter():
  c = optax.linear_schedule(0.0, 0.9, 1)
  tx = mtl.inject_hyperparams(mtl.cagrad)(num_tasks=2, c=c, labels=LABELS)
  assert isinstance(tx, mtl.Aggregator)
  state = tx.init(PARAMS)
  first, state = tx.update(GRADS, state, PARAMS)
  second, state = tx.update(GRADS, state, PARAMS)
  mean, _ = mtl.mean(2, labels=LABELS).update(
    GRADS, mtl.mean(2).init(PARAMS), PARAMS
  )
  np.testing.assert_allclose(first['trunk'], mean['trunk'], rtol=1e-5)
  plain = mtl.cagrad(2, c=0.9, labels=LABELS)
  expected, _ = plain.update(GRADS, plain.init(PARAMS), PARAMS)
  np.testing.assert_allclose(second['trunk'], expected['trunk'], rtol=1e-4)


# 11. Sharding: in a process with eight virtual devices.
def test_sharded_equals_unsharded_without_all_gather():
  script = pathlib.Path(__file__).with_name('sharded_main.py')
  out = eight_devices.output_of(script)
  assert out.split() == ['auto', 'ok', 'explicit', 'ok']


# 12. Gradient accumulation: two orders, two methods.
def test_microbatches_are_averaged_before_the_method():
  def task_losses(params, x):
    residual = x @ params - 1.0
    return jnp.stack([jnp.mean(residual**2), jnp.mean(jnp.abs(residual))])

  grad_fn = mtl.value_and_task_grads(task_losses)
  params, x = jnp.ones(3), jax.random.normal(jax.random.key(0), (8, 3))
  accumulated = optax.microbatching.microbatch(
    grad_fn,
    argnums=1,
    microbatch_size=2,
    accumulator=optax.microbatching.AccumulationType.MEAN,
  )
  chex.assert_trees_all_close(accumulated(params, x), grad_fn(params, x))


def test_accumulation_before_and_after_are_different_methods():
  grads = [jax.random.normal(jax.random.key(i), (2, 6)) for i in range(2)]
  params = jnp.zeros(6)
  tx = mtl.mgda(2)
  averaged, _ = tx.update(sum(grads) / 2, tx.init(params), params)
  after = optax.chain(
    mtl.mgda(2), optax.MultiSteps(optax.identity(), 2).gradient_transformation()
  )
  state = after.init(params)
  for g in grads:
    out, state = after.update(g, state, params)
  assert not np.allclose(out, averaged, atol=1e-3)
  linear = optax.chain(
    mtl.mean(2), optax.MultiSteps(optax.identity(), 2).gradient_transformation()
  )
  state = linear.init(params)
  for g in grads:
    out, state = linear.update(g, state, params)
  np.testing.assert_allclose(out, (sum(grads) / 2).mean(0), rtol=1e-5)


# 13. Degenerate input: the battery. Here: options are validated.
@pytest.mark.parametrize(
  'options, message',
  [
    (dict(nonfinite='ignore'), "nonfinite='ignore'"),
    (dict(max_norm=-1.0), 'max_norm=-1.0'),
    (dict(num_tasks=0), 'num_tasks=0'),
  ],
)
def test_options_are_validated_when_built(options, message):
  with pytest.raises(ValueError, match=message):
    mtl.mean(**{'num_tasks': 2, **options})


def test_unknown_option():
  with pytest.raises(TypeError, match='unknown'):
    mtl.mean(2, unknown=1)


def test_weightings_that_read_what_nobody_computes_are_refused():
  weighting = mtl.weightings.mean()
  weighting = weighting._replace(needs=frozenset({'gradients'}))
  with pytest.raises(ValueError, match="needs .'gradients'."):
    mtl.aggregate(weighting, 2)


def test_dropped_task_may_be_bad_in_its_head_alone():
  heads = [jnp.full(2, jnp.nan), GRADS['heads'][1]]
  tx = mtl.mgda(2, labels=LABELS, nonfinite='drop_task')
  out, state = tx.update({**GRADS, 'heads': heads}, tx.init(PARAMS), PARAMS)
  np.testing.assert_allclose(mtl.get_weights(state), [0, 1])
  assert not np.any(out['heads'][0])
  chex.assert_tree_all_finite(out)


def test_weights_are_found_beside_parameters_and_on_the_host():
  class Params(NamedTuple):
    weights: jax.Array

  from mtljax.training import make_train_step

  train = make_train_step(
    mtl.mean(2), optax.sgd(0.1), lambda p, x: jnp.stack([p.weights.sum()] * 2)
  )
  state = train.init(Params(jnp.ones((3, 3))), key=jax.random.key(0))
  state, _ = train.step(state, 0)
  np.testing.assert_allclose(mtl.get_weights(state), [0.5, 0.5])
  np.testing.assert_allclose(mtl.get_weights(jax.device_get(state)), [0.5, 0.5])


def test_scale_and_max_norm_act_on_the_shared_update_only():
  tx = mtl.sum_losses(2, labels=LABELS, scale=2.0, max_norm=1.0)
  out, state = tx.update(GRADS, tx.init(PARAMS), PARAMS)
  np.testing.assert_allclose(np.linalg.norm(out['trunk']), 1.0, rtol=1e-5)
  np.testing.assert_array_equal(out['heads'][0], GRADS['heads'][0])
  np.testing.assert_array_equal(mtl.get_weights(state), [1.0, 1.0])
  loose = mtl.sum_losses(2, labels=LABELS, scale=2.0, max_norm=1e6)
  out, _ = loose.update(GRADS, loose.init(PARAMS), PARAMS)
  np.testing.assert_allclose(out['trunk'], 2 * GRADS['trunk'].sum(0), rtol=1e-5)


# Observation: the optax face shows a weighting the next call's losses.
def test_observe_sees_the_losses_of_the_next_call():
  def init(num_tasks, key=None):
    del key
    return {'seen': jnp.zeros(num_tasks)}

  weighting = mtl.Weighting(
    init,
    lambda stats, state: (jnp.ones(2), state),
    frozenset({'losses'}),
    observe=lambda losses, state: {'seen': state['seen'] + losses},
  )
  tx = mtl.aggregate(weighting, 2)
  state = tx.init(None)
  for losses in ([1.0, 2.0], [10.0, 20.0], [100.0, 200.0]):
    _, state = tx.update(jnp.ones((2, 3)), state, losses=jnp.array(losses))
  np.testing.assert_allclose(state.weighting_state['seen'], [110.0, 220.0])


# nnx: states go through labels and aggregators as they are.
def test_nnx_state():
  class Model(nnx.Module):
    def __init__(self, rngs):
      self.trunk = nnx.Linear(3, 4, rngs=rngs)
      self.heads = nnx.List([nnx.Linear(4, 1, rngs=rngs) for _ in range(2)])

  graph, params = nnx.split(Model(nnx.Rngs(0)), nnx.Param)
  labels = mtl.label_params(
    params, shared='trunk/.*', tasks=['heads/0/.*', 'heads/1/.*']
  )

  def task_losses(params, x):
    model = nnx.merge(graph, params)
    z = jnp.tanh(model.trunk(x))
    return jnp.stack([jnp.mean((h(z) - 1) ** 2) for h in model.heads])

  tx = optax.chain(mtl.cagrad(2, labels=labels), optax.adam(0.05))
  state = tx.init(params)
  x = jax.random.normal(jax.random.key(0), (8, 3))

  @jax.jit
  def step(params, state):
    losses, grads = mtl.value_and_task_grads(task_losses, labels=labels)(
      params, x
    )
    updates, state = tx.update(grads, state, params, losses=losses)
    return optax.apply_updates(params, updates), state, losses

  history = []
  for _ in range(20):
    params, state, losses = step(params, state)
    history.append(losses)
  assert isinstance(params, nnx.State)
  assert np.all(history[-1] < 0.5 * history[0])

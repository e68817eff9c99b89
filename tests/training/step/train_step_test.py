import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import (
  BATCH,
  GRAMIAN_METHODS,
  HEADS,
  LABELS,
  PARAMS,
  SEQUENCE,
  STAGED,
  T,
  as_optax,
  plain,
  run,
  trunk,
)

import mtljax as mtl
from mtljax.training import make_train_step


def test_weighting_in_place_of_an_aggregator():
  weighting = mtl.weightings.cagrad()
  state, _ = run(weighting, labels=LABELS)
  expected, _ = run(mtl.cagrad(T, labels=LABELS))
  chex.assert_trees_all_equal(state.params, expected.params)


def test_one_trace_and_donation():
  traces = []

  def counted(params, x):
    traces.append(1)
    return trunk(params, x)

  train = make_train_step(
    mtl.cagrad(T, labels=LABELS), optax.adam(0.1), mtl.Staged(counted, HEADS)
  )
  state = train.init(jax.tree.map(jnp.array, PARAMS), key=jax.random.key(0))
  for _ in range(3):
    old = state
    state, _ = train.step(state, BATCH)
  assert len(traces) == 1
  assert jax.tree.leaves(old.params)[0].is_deleted()


def test_no_host_callback_in_the_program():
  for method in GRAMIAN_METHODS.values():
    train = make_train_step(method, optax.adam(0.1), STAGED)
    state = train.init(PARAMS, key=jax.random.key(0))
    text = train.step.lower(state, BATCH).as_text()
    assert 'callback' not in text


def test_runs_with_different_keys_differ_and_equal_keys_agree():
  def weights(seed):
    train = make_train_step(mtl.rlw(T, labels=LABELS), optax.sgd(0.1), STAGED)
    params = jax.tree.map(jnp.array, PARAMS)
    state = train.init(params, key=jax.random.key(seed))
    return np.asarray(train.step(state, BATCH)[1]['weights'])

  np.testing.assert_array_equal(weights(0), weights(0))
  assert not np.allclose(weights(0), weights(1))


def stateful(params, x, model_state, key):
  noise = jax.random.normal(key, x.shape)
  losses = plain(params, x + 0.1 * noise)
  return losses, (
    {'count': model_state['count'] + 1},
    {'noise': jnp.mean(noise)},
  )


def test_model_state_key_and_metrics():
  train = make_train_step(
    mtl.cagrad(T, labels=LABELS), optax.sgd(0.1), stateful, has_state=True
  )
  state = train.init(
    jax.tree.map(jnp.array, PARAMS),
    key=jax.random.key(0),
    model_state={'count': jnp.array(0)},
  )
  noise = []
  for _ in range(3):
    state, metrics = train.step(state, BATCH)
    noise.append(float(metrics['noise']))
  assert int(state.model_state['count']) == 3
  assert len(set(noise)) == 3


def test_staged_metrics_are_stacked():
  staged = mtl.Staged(
    lambda p, x, s, k: (trunk(p, x), s),
    [
      lambda p, z, x, s, k, t=t: (HEADS[t](p, z, x), {'mean': jnp.mean(z) + t})
      for t in range(T)
    ],
  )
  _, metrics = run(mtl.mean(T, labels=LABELS), staged, has_state=True)
  assert metrics['mean'].shape == (T,)


def test_sequence_with_state_averages_it():
  sequence = [
    lambda p, x, s, k, t=t: (
      SEQUENCE[t](p, x),
      ({'v': s['v'] + t}, {'t': jnp.float32(t)}),
    )
    for t in range(T)
  ]
  train = make_train_step(
    mtl.mean(T, labels=LABELS), optax.sgd(0.1), sequence, has_state=True
  )
  state = train.init(
    jax.tree.map(jnp.array, PARAMS),
    key=jax.random.key(0),
    model_state={'v': jnp.float32(0)},
  )
  state, metrics = train.step(state, [BATCH] * T)
  np.testing.assert_allclose(state.model_state['v'], 1.0)
  np.testing.assert_array_equal(metrics['t'], [0, 1, 2])


def test_observe_is_called_with_the_losses_after():
  weighting = mtl.Weighting(
    lambda num_tasks, key=None: jnp.zeros(num_tasks),
    lambda stats, state: (jnp.ones(T), state),
    frozenset({'losses'}),
    observe=lambda losses, state: losses,
  )
  state, _ = run(weighting, steps=1, labels=LABELS)
  np.testing.assert_allclose(
    state.method_state.weighting_state, plain(state.params, BATCH), rtol=1e-4
  )


@pytest.mark.parametrize('name', ['flat', 'sam'])
def test_sharpness_in_the_step_is_the_optax_face(name):
  wrap = {'flat': mtl.flat_regions, 'sam': mtl.sam}[name]
  method = wrap(mtl.cagrad(T, labels=LABELS))
  params, weights = as_optax(method, steps=2)
  state, metrics = run(method, steps=2)
  chex.assert_trees_all_close(state.params, params, rtol=2e-3, atol=2e-4)
  np.testing.assert_allclose(metrics['weights'], weights, rtol=2e-3)


def test_sam_takes_any_route():
  found = [
    run(mtl.sam(mtl.mgda(T, labels=LABELS)), route=route)[0].params
    for route in ('jacobian', 'gramian')
  ]
  chex.assert_trees_all_close(*found, rtol=2e-3, atol=2e-4)
  linear = mtl.sam(mtl.sum_losses(T, labels=LABELS))
  assert make_train_step(linear, optax.sgd(0.1), STAGED).route == 'losses'


def test_first_phase_alone_moves_the_model_state():
  train = make_train_step(
    mtl.flat_regions(mtl.mean(T, labels=LABELS)),
    optax.sgd(0.1),
    stateful,
    has_state=True,
  )
  state = train.init(
    jax.tree.map(jnp.array, PARAMS),
    key=jax.random.key(0),
    model_state={'count': jnp.array(0)},
  )
  state, _ = train.step(state, BATCH)
  assert int(state.model_state['count']) == 1


def test_what_a_sharp_step_reports_is_of_the_clean_pass():
  def seeing(params, x, model_state, key):
    del model_state, key
    b = params['trunk']['b']
    return plain(params, x), ({'b': b}, {'b': b})

  method = mtl.sam(mtl.cagrad(T, labels=LABELS), rho=0.5)
  train = make_train_step(method, optax.sgd(1e-3), seeing, has_state=True)
  state = train.init(
    PARAMS, key=jax.random.key(0), model_state={'b': jnp.zeros(6)}
  )
  state, metrics = train.step(state, BATCH)
  clean = PARAMS['trunk']['b']
  np.testing.assert_array_equal(state.model_state['b'], clean)
  np.testing.assert_array_equal(metrics['b'], clean)
  losses = plain(PARAMS, BATCH)
  np.testing.assert_allclose(metrics['losses'], losses, rtol=1e-5)


@pytest.mark.parametrize(
  'call, error, message',
  [
    (
      lambda: run(optax.chain(mtl.mean(T), optax.adam(0.1))),
      TypeError,
      'optax chain.*as optimizer=',
    ),
    (lambda: run('cagrad'), TypeError, "method='cagrad' must be"),
    (
      lambda: run(mtl.cagrad(T, labels=LABELS), route='gramain'),
      ValueError,
      "Did you mean 'gramian'",
    ),
    (
      lambda: run(mtl.cagrad(T, labels=LABELS), route='losses'),
      ValueError,
      'cagrad reads the Gramian',
    ),
    (
      lambda: run(mtl.mgda(T, labels=LABELS), plain, route='features'),
      ValueError,
      'staged form',
    ),
    (
      lambda: run(mtl.flat_regions(mtl.mean(T)), route='gramian'),
      ValueError,
      "route='jacobian'",
    ),
    (
      lambda: run(mtl.flat_regions(mtl.mean(T)), every=2),
      ValueError,
      'every=2',
    ),
    (
      lambda: run(mtl.mean(T, nonfinite='drop_task'), every=2),
      ValueError,
      'every=2',
    ),
    (lambda: run(mtl.mean(T), every=0), ValueError, 'every=0'),
    (lambda: run(mtl.mgda(2, labels=None)), ValueError, 'num_tasks=2'),
    (lambda: run(mtl.mgda(4), plain), ValueError, 'num_tasks=4.*has 3'),
    (
      lambda: run(mtl.weightings.mgda(), num_tasks=2),
      ValueError,
      'num_tasks=2.*has 3',
    ),
    (lambda: run(mtl.mean(T), num_tasks=5), ValueError, 'num_tasks=5'),
    (
      lambda: run(mtl.mgda(T), route='gramian', mode='map'),
      ValueError,
      "mode='map'",
    ),
    (
      lambda: run(
        mtl.mgda(T, gramian_labels=mtl.match_params(PARAMS, 'trunk/b')),
        route='features',
      ),
      ValueError,
      'gramian_labels',
    ),
    (
      lambda: run(mtl.weightings.mean(), plain),
      ValueError,
      'num_tasks=None',
    ),
    (
      lambda: run(mtl.mean(T), labels=LABELS),
      ValueError,
      'labels differ',
    ),
    (
      lambda: make_train_step(mtl.mean(T), 'adam', STAGED),
      TypeError,
      "optimizer='adam'",
    ),
  ],
)
def test_bad_input(call, error, message):
  with pytest.raises(error, match=message):
    call()


def test_what_the_caller_passed_in_is_not_donated():
  weights = jnp.array([1.0, 0.5, 0.0])
  shared = jnp.ones((4, 6))
  params = {**PARAMS, 'trunk': {'w': shared, 'b': jnp.ones(6)}}
  train = make_train_step(
    mtl.fixed(T, weights=weights, labels=LABELS), optax.adam(0.1), STAGED
  )
  for _ in range(2):
    state = train.init(params, key=jax.random.key(0))
    state, _ = train.step(state, BATCH)
  assert not shared.is_deleted()
  assert not weights.is_deleted()


def test_aggregator_without_weights():
  median = mtl.Aggregator(
    lambda params: (),
    lambda grads, state, params=None, **_: (
      jax.tree.map(lambda g: jnp.median(g, axis=0), grads),
      state,
    ),
    num_tasks=2,
    needs=frozenset({'gradients'}),
    info=mtl.MethodInfo(name='median', paper=''),
  )
  train = make_train_step(
    median, optax.sgd(0.1), lambda w, x: jnp.stack([jnp.sum(w * x)] * 2)
  )
  state = train.init(jnp.ones(3), key=jax.random.key(0))
  state, metrics = train.step(state, jnp.ones(3))
  assert set(metrics) == {'losses'}
  np.testing.assert_allclose(state.params, 0.9)

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend import core as jex_core

import mtljax as mtl
from mtljax.training import make_train_step

T = 3
KEYS = jax.random.split(jax.random.key(0), 8)
PARAMS = {
  'trunk': {'w': jax.random.normal(KEYS[0], (4, 6)), 'b': jnp.ones(6)},
  'heads': [jax.random.normal(KEYS[1 + t], (6,)) for t in range(T)],
}
LABELS = {'trunk': 'shared', 'heads': [0, 1, 2]}
BATCH = jax.random.normal(KEYS[5], (16, 4))


def trunk(params, x):
  return jnp.tanh(x @ params['trunk']['w'] + params['trunk']['b'][None])


HEADS = [
  lambda params, z, x, t=t: (
    10.0**t * jnp.mean((z @ params['heads'][t] - x[:, t]) ** 2)
  )
  for t in range(T)
]
STAGED = mtl.Staged(trunk, HEADS)


def plain(params, x):
  z = trunk(params, x)
  return jnp.stack([head(params, z, x) for head in HEADS])


SEQUENCE = [
  lambda params, x, t=t: HEADS[t](params, trunk(params, x), x) for t in range(T)
]
FORMS = {'plain': plain, 'staged': STAGED, 'sequence': SEQUENCE}


def run(method, fun=STAGED, steps=4, batch=BATCH, params=PARAMS, **options):
  """Parameters and metrics after some steps."""
  train = make_train_step(method, optax.sgd(1e-3), fun, **options)
  params = jax.tree.map(jnp.array, params)  # the step donates its state
  state = train.init(params, key=jax.random.key(1))
  for _ in range(steps):
    state, metrics = train.step(state, batch)
  return state, metrics


def as_optax(method, steps=4):
  """The same by hand, on the optax face."""
  tx = optax.chain(method, optax.sgd(1e-3))
  params, state = PARAMS, tx.init(PARAMS)
  grad_fn = mtl.value_and_task_grads(plain, labels=LABELS)
  for _ in range(steps):
    losses, grads = grad_fn(params, BATCH)
    updates, state = tx.update(
      grads,
      state,
      params,
      losses=losses,
      task_grad_fn=mtl.task_grad_fn(plain, BATCH),
    )
    params = optax.apply_updates(params, updates)
  return params, mtl.get_weights(state)


GRAMIAN_METHODS = {
  'mgda': mtl.mgda(T, labels=LABELS),
  'cagrad': mtl.cagrad(T, labels=LABELS, scale=3.0),
  'imtl_g': mtl.imtl_g(T, labels=LABELS),
  'nash_mtl': mtl.nash_mtl(T, labels=LABELS),
  'fairgrad': mtl.fairgrad(T, labels=LABELS, weight_heads=True),
}
LOSS_METHODS = {
  'sum_losses': mtl.sum_losses(T, labels=LABELS, max_norm=1.0),
  'uncertainty': mtl.uncertainty(T, labels=LABELS),
  'fixed': mtl.fixed(T, weights=[1.0, 0.5, 0.0], labels=LABELS),
  'mean': mtl.mean(T, labels=LABELS),
}
RANDOM_METHODS = {
  'rlw': mtl.rlw(T, labels=LABELS),
  'pcgrad': mtl.pcgrad(T, labels=LABELS),
}


@pytest.mark.parametrize('name', RANDOM_METHODS)
def test_random_methods_agree_between_routes(name):
  method = RANDOM_METHODS[name]
  found = [
    run(method, FORMS[form], route=route)[0].params
    for form in ('plain', 'staged')
    for route in ('jacobian', 'gramian')
  ]
  for other in found[1:]:
    chex.assert_trees_all_close(other, found[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('name', [*GRAMIAN_METHODS, *LOSS_METHODS])
def test_every_exact_route_is_the_optax_face(name, form):
  method = (GRAMIAN_METHODS | LOSS_METHODS)[name]
  params, weights = as_optax(method)
  batch = [BATCH] * T if form == 'sequence' else BATCH
  routes = ['jacobian', 'gramian'] + ['losses'] * (name in LOSS_METHODS)
  for route in routes:
    state, metrics = run(method, FORMS[form], batch=batch, route=route)
    # The whole change, so that a factor on it cannot hide in the parameters.
    change = jax.tree.map(jnp.subtract, state.params, PARAMS)
    expected = jax.tree.map(jnp.subtract, params, PARAMS)
    size = max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(expected))
    chex.assert_trees_all_close(change, expected, rtol=1e-3, atol=1e-3 * size)
    np.testing.assert_allclose(metrics['weights'], weights, rtol=1e-3)


def test_exact_routes_agree_in_float64(x64):
  wide = jax.tree.map(lambda x: x.astype(jnp.float64), PARAMS)
  batch = BATCH.astype(jnp.float64)
  for method in (mtl.cagrad(T, labels=LABELS), mtl.nash_mtl(T, labels=LABELS)):
    found = [
      run(method, fun, params=wide, batch=batch, route=route)[0].params
      for fun in (plain, STAGED)
      for route in ('jacobian', 'gramian')
    ]
    for other in found[1:]:
      chex.assert_trees_all_close(other, found[0], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize('mode', ['vmap', 'map'])
def test_modes_agree(mode):
  expected, _ = run(mtl.cagrad(T, labels=LABELS))
  state, _ = run(mtl.cagrad(T, labels=LABELS), mode=mode)
  chex.assert_trees_all_close(state.params, expected.params, rtol=1e-4)


def test_auto_takes_the_cheapest_exact_route():
  routes = {
    name: make_train_step(method, optax.sgd(0.1), STAGED).route
    for name, method in (GRAMIAN_METHODS | LOSS_METHODS).items()
  }
  assert {routes[name] for name in GRAMIAN_METHODS} == {'jacobian'}
  assert {routes[name] for name in LOSS_METHODS} == {'losses'}
  dropping = mtl.sum_losses(T, labels=LABELS, nonfinite='drop_task')
  assert make_train_step(dropping, optax.sgd(0.1), STAGED).route == 'jacobian'


def test_losses_route_makes_one_backward_pass():
  """The losses route compiles to as few products as the plain gradient."""

  def products(fun, *args):
    return jax.jit(fun).lower(*args).compile().as_text().count(' dot(')

  train = make_train_step(
    mtl.sum_losses(T, labels=LABELS), optax.identity(), plain
  )
  state = train.init(PARAMS, key=jax.random.key(0))
  one = products(jax.grad(lambda p, x: jnp.sum(plain(p, x))), PARAMS, BATCH)
  assert products(lambda s, b: train.step(s, b), state, BATCH) <= one + 1


def test_features_route_is_exact_where_the_trunk_is_the_identity():
  """With z = shared parameter, feature gradients are parameter gradients."""
  staged = mtl.Staged(
    lambda p, x: p['z'],
    [lambda p, z, x, t=t: jnp.sum((z - x[t]) ** 2) for t in range(2)],
  )
  params, batch = {'z': jnp.ones(4)}, BATCH[:2]
  method = mtl.mgda(2)
  exact, _ = run(method, staged, params=params, batch=batch)
  features, _ = run(
    method, staged, params=params, batch=batch, route='features'
  )
  chex.assert_trees_all_close(features.params, exact.params, rtol=1e-4)


def test_features_route_uses_the_gramian_of_features():
  state, metrics = run(mtl.mgda(T, labels=LABELS), steps=1, route='features')
  z = trunk(PARAMS, BATCH)
  rows = jnp.stack(
    [jax.grad(lambda z, h=h: h(PARAMS, z, BATCH))(z).ravel() for h in HEADS]
  )
  np.testing.assert_allclose(
    mtl.get_stats(state)['gramian'], rows @ rows.T, rtol=1e-4
  )
  del metrics


@pytest.mark.parametrize('route', ['jacobian', 'gramian', 'features'])
def test_amortised_weights_are_held(route):
  train = make_train_step(
    mtl.cagrad(T, labels=LABELS), optax.sgd(1e-3), STAGED, route=route, every=3
  )
  state = train.init(jax.tree.map(jnp.array, PARAMS), key=jax.random.key(0))
  history = []
  for _ in range(6):
    state, metrics = train.step(state, BATCH)
    history.append(np.asarray(metrics['weights']))
  np.testing.assert_array_equal(history[0], history[2])
  np.testing.assert_array_equal(history[3], history[5])
  assert not np.array_equal(history[2], history[3])


def test_amortised_first_step_is_the_full_one():
  full, _ = run(mtl.cagrad(T, labels=LABELS), steps=1)
  held, _ = run(mtl.cagrad(T, labels=LABELS), steps=1, every=5)
  chex.assert_trees_all_close(held.params, full.params, rtol=1e-4)


def products(jaxpr, inside_cond):
  """Matrix products in a program: in its conditionals' branches, or not."""
  count = 0
  for eqn in jaxpr.eqns:
    is_cond = eqn.primitive.name == 'cond'
    if eqn.primitive.name == 'dot_general' and not inside_cond:
      count += 1
    for sub in jex_core.jaxprs_in_params(eqn.params):
      if is_cond and inside_cond:
        count += products(sub, False)
      elif not is_cond:
        count += products(sub, inside_cond)
  return count


def test_skipped_gradients_are_inside_the_conditional():
  """Between recomputations the T backward passes are really not made."""

  def programs(**options):
    train = make_train_step(
      mtl.mgda(T, labels=LABELS), optax.sgd(0.1), STAGED, **options
    )
    state = train.init(PARAMS, key=jax.random.key(0))
    jaxpr = jax.make_jaxpr(train.step)(state, BATCH).jaxpr
    return products(jaxpr, False), products(jaxpr, True)

  always, _ = programs(route='gramian')
  outside, inside = programs(route='gramian', every=2)
  plain = make_train_step(mtl.mean(T, labels=LABELS), optax.sgd(0.1), STAGED)
  state = plain.init(PARAMS, key=jax.random.key(0))
  once = products(jax.make_jaxpr(plain.step)(state, BATCH).jaxpr, False)
  assert outside == once
  assert inside >= T
  assert outside + inside == always


def test_gramian_route_keeps_no_jacobian():
  """Its temporary memory does not grow with T times the parameters."""
  depth, width, num_tasks = 12, 256, 6
  params = {
    'layers': [jnp.eye(width)] * depth,
    'heads': [jnp.ones(width)] * num_tasks,
  }
  labels = {'layers': 'shared', 'heads': list(range(num_tasks))}

  def deep(params, x):
    for w in params['layers']:
      x = jnp.tanh(x @ w)
    return x

  heads = [
    lambda p, z, x, t=t: jnp.mean((z @ p['heads'][t]) ** 2)
    for t in range(num_tasks)
  ]

  def temporary(route):
    train = make_train_step(
      mtl.mgda(num_tasks, labels=labels),
      optax.sgd(0.1),
      mtl.Staged(deep, heads),
      route=route,
    )
    state = train.init(params, key=jax.random.key(0))
    compiled = train.step.lower(state, jnp.ones((8, width))).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  jacobian = 4 * num_tasks * depth * width**2
  assert temporary('jacobian') > jacobian
  assert temporary('gramian') < 0.6 * jacobian


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

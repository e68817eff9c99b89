"""Every route gives the same update, at the cost that it promises."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from toy import (
  BATCH,
  FORMS,
  GRAMIAN_METHODS,
  HEADS,
  LABELS,
  LOSS_METHODS,
  PARAMS,
  RANDOM_METHODS,
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


@pytest.mark.parametrize('name', RANDOM_METHODS)
def test_random_methods_agree_between_routes(name):
  method = RANDOM_METHODS[name]
  found = [
    run(method, FORMS[form], route=route)[0].params
    for form in ('plain', 'staged')
    for route in ('jacobian', 'gramian', 'layerwise')
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
  routes += ['layerwise'] * (form != 'sequence')
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
      for route in ('jacobian', 'gramian', 'layerwise')
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
  assert {routes[name] for name in GRAMIAN_METHODS} == {'layerwise'}
  assert {routes[name] for name in LOSS_METHODS} == {'losses'}
  dropping = mtl.sum_losses(T, labels=LABELS, nonfinite='drop_task')
  assert make_train_step(dropping, optax.sgd(0.1), STAGED).route == 'jacobian'
  method = GRAMIAN_METHODS['cagrad']
  assert make_train_step(method, optax.sgd(0.1), SEQUENCE).route == 'jacobian'


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


@pytest.mark.parametrize(
  'route', ['jacobian', 'gramian', 'layerwise', 'features']
)
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


def test_skipped_gradients_are_inside_the_conditional():
  """Between recomputations the T backward passes are really not made."""

  def programs(method, **options):
    train = make_train_step(method, optax.sgd(0.1), STAGED, **options)
    state = train.init(PARAMS, key=jax.random.key(0))
    return toy.products(jax.make_jaxpr(train.step)(state, BATCH).jaxpr)

  method = mtl.mgda(T, labels=LABELS)
  for route in ('jacobian', 'gramian'):
    always, _ = programs(method, route=route)
    once, _ = programs(mtl.mean(T, labels=LABELS))
    # A step that is due costs what it costs alone, any other a plain step.
    outside, branches = programs(method, route=route, every=2)
    assert outside == 0
    assert sorted(filter(None, branches)) == [once, always]


def test_gramian_route_keeps_no_jacobian():
  """Its temporary memory does not grow with T times the parameters."""
  depth, width, num_tasks = 12, 256, 6
  params, labels, loss = toy.deep_stack(num_tasks, depth, width)

  def temporary(route):
    train = make_train_step(
      mtl.mgda(num_tasks, labels=labels),
      optax.sgd(0.1),
      loss,
      route=route,
    )
    state = train.init(params, key=jax.random.key(0))
    compiled = train.step.lower(state, jnp.ones((8, width))).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  jacobian = 4 * num_tasks * depth * width**2
  assert temporary('jacobian') > jacobian
  assert temporary('gramian') < 0.6 * jacobian

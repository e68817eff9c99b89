"""Methods that compare two batches, in the train step."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import (
  BATCH,
  FORMS,
  LABELS,
  PARAMS,
  SEQUENCE,
  STAGED,
  T,
  plain,
  run,
)

import mtljax as mtl
from mtljax.training import make_train_step
from mtljax.training.step import _parts

METHODS = {
  'modo': mtl.modo(T, labels=LABELS, learning_rate=1e-4),
  'sdmgrad': mtl.sdmgrad(T, labels=LABELS, learning_rate=1e-4),
}
GRAD_FN = mtl.value_and_task_grads(plain, labels=LABELS)


def by_hand(method, batches, gramian_labels=None):
  """On the optax face; every batch is cut in three."""
  tx = optax.chain(method, optax.sgd(1e-3))
  params, state = PARAMS, tx.init(PARAMS)
  for batch in batches:
    first, second, third = jnp.array_split(batch, 3)
    cross = mtl.cross_gramian(
      GRAD_FN(params, first)[1],
      GRAD_FN(params, second)[1],
      labels=LABELS,
      gramian_labels=gramian_labels,
    )
    losses, grads = GRAD_FN(params, third)
    updates, state = tx.update(
      grads, state, params, losses=losses, cross_gramian=cross
    )
    params = optax.apply_updates(params, updates)
  return params, mtl.get_weights(state), losses


def check(found, expected):
  """The whole change, so that a factor on it cannot hide."""
  change = jax.tree.map(jnp.subtract, found, PARAMS)
  wanted = jax.tree.map(jnp.subtract, expected, PARAMS)
  size = max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(wanted))
  chex.assert_trees_all_close(change, wanted, rtol=1e-3, atol=1e-3 * size)


@pytest.mark.parametrize(
  'name, form', [*[('modo', form) for form in FORMS], ('sdmgrad', 'staged')]
)
def test_every_route_is_the_optax_face(name, form):
  method = METHODS[name]
  params, weights, losses = by_hand(method, [BATCH] * 2)
  assert float(jnp.ptp(weights)) > 0.05
  batch = [BATCH] * T if form == 'sequence' else BATCH
  for route in ('auto', 'jacobian'):
    if form != 'staged' and route == 'auto':
      continue
    state, metrics = run(method, FORMS[form], steps=2, batch=batch, route=route)
    check(state.params, params)
    np.testing.assert_allclose(metrics['weights'], weights, rtol=1e-3)
    # Those of the third part, which the update is made on.
    np.testing.assert_allclose(metrics['losses'], losses, rtol=1e-4)


def test_gramian_labels_and_inject_hyperparams():
  marks = mtl.match_params(PARAMS, 'trunk/b')
  plain_method = mtl.modo(
    T, labels=LABELS, gramian_labels=marks, learning_rate=1e-3
  )
  params, weights, _ = by_hand(plain_method, [BATCH], marks)
  injected = mtl.inject_hyperparams(mtl.modo)(
    num_tasks=T, labels=LABELS, gramian_labels=marks, learning_rate=1e-3
  )
  for method in (plain_method, injected):
    state, metrics = run(method, steps=1)
    check(state.params, params)
    np.testing.assert_allclose(metrics['weights'], weights, rtol=1e-3)


def test_auto_takes_the_route_with_the_least_passes():
  def route(method, **options):
    return make_train_step(method, optax.sgd(0.1), STAGED, **options).route

  assert route(METHODS['modo']) == 'gramian'
  assert route(mtl.every_k(METHODS['modo'], 2)) == 'gramian'
  dropping = mtl.modo(T, labels=LABELS, nonfinite='drop_task')
  assert route(dropping) == 'jacobian'


def test_sequence_splits_the_batch_of_every_task():
  sizes = (3, 7, 16)
  batches = [BATCH[:size] for size in sizes]
  method = METHODS['modo']
  state, metrics = run(method, SEQUENCE, steps=1, batch=batches)
  parts = [
    [jnp.array_split(batch, 3)[i] for batch in batches] for i in range(3)
  ]
  grad_fn = mtl.value_and_task_grads(SEQUENCE, labels=LABELS)
  cross = mtl.cross_gramian(
    grad_fn(PARAMS, parts[0])[1], grad_fn(PARAMS, parts[1])[1], labels=LABELS
  )
  losses, grads = grad_fn(PARAMS, parts[2])
  update, _ = method.update(grads, method.init(PARAMS), cross_gramian=cross)
  check(state.params, jax.tree.map(lambda p, u: p - 1e-3 * u, PARAMS, update))
  np.testing.assert_allclose(metrics['losses'], losses, rtol=1e-5)


def test_model_state_and_metrics_are_those_of_the_third_part():
  def stateful(params, x, model_state, key):
    noise = jax.random.normal(key, ())
    return plain(params, x), (
      {'seen': model_state['seen'] + jnp.mean(x)},
      {'noise': noise, 'mean': jnp.mean(x)},
    )

  for route in ('jacobian', 'gramian'):
    train = make_train_step(
      METHODS['sdmgrad'], optax.sgd(0.1), stateful, has_state=True, route=route
    )
    state = train.init(
      PARAMS, key=jax.random.key(0), model_state={'seen': jnp.array(0.0)}
    )
    state, metrics = train.step(state, BATCH)
    third = np.mean(jnp.array_split(BATCH, 3)[2])
    np.testing.assert_allclose(state.model_state['seen'], third, rtol=1e-5)
    np.testing.assert_allclose(metrics['mean'], third, rtol=1e-5)


def test_parts_have_keys_of_their_own():
  """Noise that is equal in both parts would make them dependent."""

  def noisy(params, x, model_state, key):
    # The gradient is the noise: the cross-Gramian is its products.
    noise = jax.random.normal(key, (T, 6))
    return noise @ params['trunk']['b'], (model_state, {})

  seen = []
  original = mtl.weightings.modo(learning_rate=1e-4)

  def spying(stats, weighting_state):
    jax.debug.callback(
      lambda m: seen.append(np.asarray(m)), stats.cross_gramian
    )
    return original.update(stats, weighting_state)

  spy = mtl.aggregate(original._replace(update=spying), T, labels=LABELS)
  train = make_train_step(
    spy, optax.sgd(0.0), noisy, has_state=True, route='jacobian'
  )
  train.step(train.init(PARAMS, key=jax.random.key(0)), BATCH)
  jax.effects_barrier()
  (cross,) = seen
  assert not np.allclose(cross, cross.T)


def test_amortised_skips_the_other_batches():
  method = mtl.every_k(METHODS['modo'], 2)
  train = make_train_step(method, optax.sgd(1e-3), STAGED)
  state = train.init(PARAMS, key=jax.random.key(0))
  found = []
  for _ in range(4):
    state, metrics = train.step(state, BATCH)
    found.append(np.asarray(metrics['weights']))
  np.testing.assert_array_equal(found[0], found[1])
  np.testing.assert_array_equal(found[2], found[3])
  assert not np.array_equal(found[1], found[2])


def test_sizes_are_those_of_array_split():
  parts = _parts.split_batch({'x': BATCH, 'y': jnp.arange(16)}, STAGED, 3)
  assert [len(p['x']) for p in parts] == [6, 5, 5]
  np.testing.assert_array_equal(
    np.concatenate([p['y'] for p in parts]), np.arange(16)
  )


@pytest.mark.parametrize(
  'call, error, message',
  [
    (
      lambda: run(METHODS['modo'], batch=BATCH[:2]),
      ValueError,
      r'shape \(2, 4\).*at least 3 examples',
    ),
    (
      lambda: _parts.split_batch({'x': BATCH, 'n': 3.0}, plain, 3),
      ValueError,
      r"array 'n' has shape \(\)",
    ),
    (
      lambda: _parts.split_batch({'x': BATCH, 'n': jnp.ones(5)}, STAGED, 3),
      ValueError,
      r'\[5, 16\] examples',
    ),
    (
      lambda: run(METHODS['modo'], route='features'),
      ValueError,
      "route='features': modo compares the gradients",
    ),
    (
      lambda: run(METHODS['modo'], route='losses'),
      ValueError,
      "route='losses': modo compares the gradients",
    ),
  ],
)
def test_bad_input(call, error, message):
  with pytest.raises(error, match=message):
    call()

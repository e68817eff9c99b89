"""Methods that learn their weights on a validation batch, in the train step."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import BATCH, FORMS, LABELS, PARAMS, STAGED, T, plain

import mtljax as mtl
from mtljax.training import (
  Checkpointer,
  make_mesh,
  make_sweep,
  make_train_step,
)
from mtljax.training.step import _lookahead
from mtljax.training.step.sharding import Layout

VAL = BATCH[:9][::-1] * 1.3
OPTIONS = {'learning_rate': 0.02, 'inner_learning_rate': 1e-3, 'primary': [0]}
GRAD_FN = jax.jit(mtl.value_and_task_grads(plain, labels=LABELS))


def build(name, **options):
  return mtl.get_method(name)(T, labels=LABELS, **{**OPTIONS, **options})


def train(method, fun=STAGED, steps=3, batch=BATCH, val_batch=VAL, **options):
  made = make_train_step(method, optax.sgd(1e-3), fun, **options)
  state = made.init(PARAMS, key=jax.random.key(1))
  for _ in range(steps):
    state, metrics = made.step(state, batch, val_batch=val_batch)
  return state, metrics


def by_hand(method, steps=3, every=1):
  """On the optax face, with the hypergradient of the same losses."""
  ahead = method.weighting.lookahead
  fn = jax.jit(
    mtl.hypergradient(
      plain,
      inner_learning_rate=ahead.inner_learning_rate,
      primary=ahead.primary,
      separate=ahead.separate,
      hypergradient=ahead.hypergradient,
    )
  )
  tx = optax.chain(method, optax.sgd(1e-3))
  params, state = PARAMS, tx.init(PARAMS)
  for i in range(steps):
    before = ahead.weights(state[0].weighting_state)
    rows = fn(params, before, (BATCH,), (VAL,))
    losses, grads = GRAD_FN(params, BATCH)
    if i % every == 0:
      updates, state = tx.update(
        grads, state, params, losses=losses, hypergradient=rows
      )
    else:
      fixed = mtl.fixed(T, weights=mtl.get_weights(state), labels=LABELS)
      update, _ = fixed.update(grads, fixed.init(None), losses=losses)
      updates = jax.tree.map(lambda u: -1e-3 * u, update)
    params = optax.apply_updates(params, updates)
  return params, state[0]


def check(found, expected):
  """The whole change, so that a factor on it cannot hide."""
  change = jax.tree.map(jnp.subtract, found, PARAMS)
  wanted = jax.tree.map(jnp.subtract, expected, PARAMS)
  size = max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(wanted))
  chex.assert_trees_all_close(change, wanted, rtol=2e-3, atol=2e-3 * size)


@pytest.mark.parametrize(
  'name, form, options',
  [
    pytest.param('auto_lambda', 'plain', {}, marks=pytest.mark.slow),
    ('auto_lambda', 'staged', {'hypergradient': 'finite_difference'}),
    ('auto_lambda', 'sequence', {'projection': 'softmax', 'primary': None}),
    ('moml', 'staged', {'primary': [0, 2]}),
  ],
)
def test_step_is_the_optax_face(name, form, options):
  method = build(name, **options)
  batch, val = ([BATCH] * T, [VAL] * T) if form == 'sequence' else (BATCH, VAL)
  params, expected = by_hand(method)
  state, metrics = train(method, FORMS[form], batch=batch, val_batch=val)
  np.testing.assert_allclose(metrics['weights'], expected.weights, rtol=2e-3)
  # Adam sees little more than signs; its moments are the hypergradients.
  chex.assert_trees_all_close(
    state.method_state.weighting_state.optimizer_state,
    expected.weighting_state.optimizer_state,
    rtol=5e-3,
  )
  check(state.params, params)


def test_a_weighting_and_the_other_routes():
  method = build('auto_lambda')
  params, expected = by_hand(method, steps=1)
  for given, options in [
    (method, {'route': 'jacobian'}),
    (
      mtl.weightings.auto_lambda(**OPTIONS),
      {'route': 'losses', 'labels': LABELS},
    ),
  ]:
    state, metrics = train(given, steps=1, **options)
    np.testing.assert_allclose(metrics['weights'], expected.weights, rtol=1e-5)
    check(state.params, params)


@pytest.mark.parametrize(
  'how', ['every', pytest.param('every_k', marks=pytest.mark.slow)]
)
def test_held_weights_do_not_look_ahead(how):
  method = build('auto_lambda')
  params, expected = by_hand(method, every=2)
  given = mtl.every_k(method, 2) if how == 'every_k' else method
  options = {'every': 2} if how == 'every' else {}
  state, metrics = train(given, **options)
  np.testing.assert_allclose(metrics['weights'], expected.weights, rtol=1e-3)
  check(state.params, params)


def test_what_helps_the_primary_task_grows_and_what_harms_it_goes():
  # Of three tasks on one number, the second wants what the first does on
  # held-out data, the third the opposite.
  def losses(w, x):
    return jnp.stack([(w - x) ** 2, (w - 2.0) ** 2, (w + 5.0) ** 2])

  def last(primary):
    method = mtl.weightings.auto_lambda(
      primary=primary, learning_rate=0.01, inner_learning_rate=0.05
    )
    made = make_train_step(method, optax.sgd(0.05), losses, num_tasks=3)
    state = made.init(jnp.array(0.0), key=jax.random.key(0))
    for _ in range(40):
      state, metrics = made.step(state, 1.0, val_batch=2.0)
    return metrics['weights'], state.params

  weights, w = last([0])
  assert weights[1] > weights[0] > 0.2 and weights[2] == 0
  assert abs(float(w) - 1.6) < 0.3
  weights, _ = last([2])
  assert weights[2] > 0.3 and weights[0] == 0


def test_scan_is_the_loop_in_one_trace():
  traces = []

  def losses(params, x):
    traces.append(1)
    return plain(params, x)

  method = build('moml')
  made = make_train_step(method, optax.sgd(1e-3), losses)
  start = made.init(PARAMS, key=jax.random.key(1))
  batches = jnp.stack([BATCH, BATCH + 0.1, BATCH - 0.1])
  vals = jnp.stack([VAL, VAL * 0.9, VAL * 1.1])

  def body(state, both):
    return made.step(state, both[0], val_batch=both[1])

  scanned, _ = jax.lax.scan(body, start, (batches, vals))
  count = len(traces)
  state = made.init(PARAMS, key=jax.random.key(1))
  for batch, val in zip(batches, vals, strict=True):
    state, _ = made.step(state, batch, val_batch=val)
  assert len(traces) <= 2 * count
  chex.assert_trees_all_close(scanned.params, state.params, rtol=1e-5)
  more = len(traces)
  made.step(state, BATCH, val_batch=VAL)
  assert len(traces) == more


def with_state(params, x, model_state, key):
  """Batch statistics, and a draw of every call."""
  mean = jnp.mean(x, axis=0)
  noise = 1 + 0.1 * jax.random.normal(key, (T,))
  new = {'mean': 0.9 * model_state['mean'] + 0.1 * mean}
  losses = plain(params, x - 0.1 * mean[None]) * noise
  return losses, (new, {'drawn': noise[0]})


def test_model_state_and_keys():
  method = build('auto_lambda', primary=None)
  made = make_train_step(method, optax.sgd(1e-3), with_state, has_state=True)
  state = made.init(
    PARAMS, key=jax.random.key(1), model_state={'mean': jnp.zeros(4)}
  )
  key = jax.random.fold_in(state.key, 0)
  before = {'mean': jnp.zeros(4)}
  fn = mtl.hypergradient(with_state, inner_learning_rate=1e-3, has_aux=True)
  expected = fn(
    PARAMS,
    jnp.full(T, 0.1),
    (BATCH, before, key),
    (VAL, before, jax.random.fold_in(key, _lookahead._VALIDATION)),
  )
  state, metrics = made.step(state, BATCH, val_batch=VAL)
  np.testing.assert_allclose(
    state.model_state['mean'], 0.1 * BATCH.mean(0), rtol=1e-5
  )
  (_, (_, alone)) = with_state(PARAMS, BATCH, before, key)
  np.testing.assert_allclose(metrics['drawn'], alone['drawn'], rtol=1e-6)
  moments = state.method_state.weighting_state.optimizer_state.mu
  np.testing.assert_allclose(10 * moments, expected, rtol=1e-4)


def test_resumes_in_the_same_bits(tmp_path):
  made = make_train_step(build('auto_lambda'), optax.adam(1e-3), STAGED)
  state = made.init(PARAMS, key=jax.random.key(1))
  for _ in range(2):
    state, _ = made.step(state, BATCH, val_batch=VAL)
  with Checkpointer(tmp_path / 'checkpoints') as checkpointer:
    checkpointer.save(2, state, data_state={}, meta={}, score=None)
  with Checkpointer(tmp_path / 'checkpoints') as checkpointer:
    shapes = jax.eval_shape(lambda: made.init(PARAMS, key=jax.random.key(1)))
    again = checkpointer.restore(shapes)[0]
  for _ in range(2):
    state, _ = made.step(state, BATCH, val_batch=VAL)
    again, _ = made.step(again, BATCH, val_batch=VAL)
  chex.assert_trees_all_equal(
    jax.tree.map(jax.random.key_data, state.key), jax.random.key_data(again.key)
  )
  for one, other in zip(
    jax.tree.leaves((state.params, state.method_state)),
    jax.tree.leaves((again.params, again.method_state)),
    strict=True,
  ):
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
  'name', ['auto_lambda', pytest.param('moml', marks=pytest.mark.slow)]
)
def test_masks_of_either_batch(name):
  made = make_train_step(build(name, primary=[0, 2]), optax.sgd(1e-3), STAGED)
  alone = make_train_step(build(name, primary=[0]), optax.sgd(1e-3), STAGED)

  def one(made, batch, val_batch):
    state = made.init(PARAMS, key=jax.random.key(1))
    return made.step(state, batch, val_batch=val_batch)

  # A primary task that the validation batch lacks is as one that is none.
  _, found = one(
    made, BATCH, mtl.MaskedBatch(VAL, np.array([True, True, False]))
  )
  _, expected = one(alone, BATCH, VAL)
  np.testing.assert_allclose(found['weights'], expected['weights'], rtol=1e-6)
  here = np.array([True, False, True])
  state, found = one(made, mtl.MaskedBatch(BATCH, here), VAL)
  assert found['weights'][1] == 0 and jnp.isnan(found['losses'][1])
  start = made.init(PARAMS, key=jax.random.key(1)).method_state
  chex.assert_trees_all_equal(
    state.method_state.weighting_state.learned[1],
    start.weighting_state.learned[1],
  )


@pytest.mark.parametrize(
  'mode', ['vmap', pytest.param('loop', marks=pytest.mark.slow)]
)
def test_members_of_a_sweep_are_as_alone(mode):
  def losses(w, x):
    return jnp.stack([(w - x) ** 2, (w + x) ** 4])

  def build_one(hparams):
    method = mtl.auto_lambda(
      2, inner_learning_rate=hparams['inner'], learning_rate=0.02
    )
    return make_train_step(method, optax.sgd(0.1), losses)

  inner = [0.02, 0.2]
  sweep = make_sweep(build_one, {'inner': inner}, mode=mode)
  keys = jax.random.split(jax.random.key(0), 2)
  state = sweep.init(jnp.array(0.3), keys=keys)
  for val in (0.5, -1.0):
    state, metrics = sweep.step(state, 1.0, val_batch=val)
  for i, rate in enumerate(inner):
    made = build_one({'inner': rate})
    alone = made.init(jnp.array(0.3), key=keys[i])
    for val in (0.5, -1.0):
      alone, expected = made.step(alone, 1.0, val_batch=val)
    np.testing.assert_allclose(
      metrics['weights'][i], expected['weights'], rtol=1e-6
    )
    np.testing.assert_allclose(
      sweep.member(state, i).params, alone.params, rtol=1e-6
    )
  with pytest.raises(ValueError, match='val_batch=None'):
    sweep.step(state, 1.0)


@pytest.mark.parametrize(
  'method, val_batch, words',
  [
    (build('auto_lambda'), None, 'val_batch=None: auto_lambda learns'),
    (mtl.every_k(build('moml'), 2), None, r'val_batch=None: every_k\(moml\)'),
    (mtl.mgda(T, labels=LABELS), VAL, 'val_batch: mgda reads no validation'),
  ],
)
def test_validation_batch_missing_or_superfluous(method, val_batch, words):
  with pytest.raises(ValueError, match=words):
    train(method, steps=1, val_batch=val_batch)


@pytest.mark.parametrize(
  'make, error, words',
  [
    (
      lambda: make_train_step(
        mtl.inject_hyperparams(mtl.auto_lambda)(num_tasks=T),
        optax.sgd(1e-3),
        plain,
      ),
      TypeError,
      'auto_lambda under mtl.inject_hyperparams',
    ),
    (
      lambda: make_train_step(
        build('auto_lambda'),
        optax.sgd(1e-3),
        STAGED,
        layout=Layout(make_mesh()),
      ),
      ValueError,
      'layout: auto_lambda takes a step ahead',
    ),
    (
      lambda: make_train_step(
        build('moml'), optax.sgd(1e-3), STAGED, microbatch_size=4
      ),
      ValueError,
      'microbatch_size=4: moml looks a step',
    ),
    (
      lambda: make_train_step(
        mtl.auto_lambda(16), optax.sgd(1e-3), plain, tasks='samples'
      ),
      ValueError,
      'auto_lambda reads hypergradient',
    ),
    (lambda: mtl.sam(build('moml')), TypeError, 'sam: moml learns its weights'),
    (
      lambda: mtl.select([build('moml'), mtl.mgda(T, labels=LABELS)], 0),
      ValueError,
      'moml reads a hypergradient of its own',
    ),
    (
      lambda: build('auto_lambda', primary=[T]),
      ValueError,
      r'primary=\(3,\) must be .*below num_tasks=3',
    ),
  ],
)
def test_what_cannot_look_ahead(make, error, words):
  with pytest.raises(error, match=words):
    make()

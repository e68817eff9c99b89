"""Sub-models in turn: by hand, against plain training, resumed, refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax import data
from mtljax.training import (
  Checkpointer,
  cooperative,
  fit,
  make_sweep,
  make_train_step,
)

D, H, B, T = 3, 2, 8, 2
RNG = np.random.default_rng(0)
BATCH = {
  'x': RNG.normal(size=(B, T, D)).astype(np.float32),
  'y': RNG.normal(size=(B, T)).astype(np.float32),
}
PARAMS = tuple(
  {
    'w': RNG.normal(size=(D, H)).astype(np.float32),
    'v': RNG.normal(size=(T * H,)).astype(np.float32),
  }
  for _ in range(T)
)
RATE = 0.1


def feature_fn(t):
  return lambda params, batch: jnp.tanh(batch['x'][:, t] @ params['w'])


def loss_fn(t):
  def loss(params, features, batch):
    found = jnp.concatenate(features, axis=1) @ params['v']
    return jnp.mean((found - batch['y'][:, t]) ** 2)

  return loss


MODELS = [feature_fn(t) for t in range(T)], [loss_fn(t) for t in range(T)]


def make(models=MODELS, optimizer=None, **options):
  optimizer = optax.sgd(RATE) if optimizer is None else optimizer
  return cooperative.make_cooperative_step(*models, optimizer, **options)


def train(program, steps=3, params=PARAMS, seed=0, batch=BATCH):
  state = program.init(params, key=jax.random.key(seed))
  losses = []
  for _ in range(steps):
    state, metrics = program.step(state, batch)
    losses.append(metrics['losses'])
  return state, np.stack(losses)


def same(a, b, **tolerance):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(x, y, **{'rtol': 1e-5, 'atol': 1e-6} | tolerance)


def by_hand(bound, ascents, relative=False, together=False):
  """One step of alternation in numpy, in float64."""
  params = [{k: np.float64(v) for k, v in p.items()} for p in PARAMS]
  x, y = np.float64(BATCH['x']), np.float64(BATCH['y'])
  features = [np.tanh(x[:, t] @ params[t]['w']) for t in range(T)]
  losses, new = [], []
  for t in range(T):
    w, v = params[t]['w'], params[t]['v']
    seen = [f.copy() for f in features]
    size = np.linalg.norm(seen[1 - t]) if relative else 1.0
    for _ in range(ascents):
      residual = 2 * (np.concatenate(seen, 1) @ v - y[:, t]) / B
      slope = np.outer(residual, v.reshape(T, H)[1 - t])
      seen[1 - t] += bound * size / ascents * slope / np.linalg.norm(slope)
    both = np.concatenate(seen, 1)
    error = both @ v - y[:, t]
    losses.append(np.mean(error**2))
    residual = 2 * error / B
    back = np.outer(residual, v.reshape(T, H)[t]) * (1 - seen[t] ** 2)
    new.append(
      {'w': w - RATE * x[:, t].T @ back, 'v': v - RATE * both.T @ residual}
    )
    if not together:
      features[t] = np.tanh(x[:, t] @ new[t]['w'])
  return tuple(new), np.array(losses)


@pytest.mark.parametrize(
  ('options', 'hand'),
  [
    ({'search': 'none'}, (0, 0)),
    ({'search': 'none', 'turns': 'together'}, (0, 0, False, True)),
    ({'search': 'ascent', 'bound': 0.7}, (0.7, 1)),
    (
      {
        'search': 'ascent',
        'bound': 0.3,
        'num_ascents': 2,
        'scale': 'relative',
      },
      (0.3, 2, True),
    ),
  ],
)
def test_one_step_by_hand_in_float64(options, hand):
  with jax.enable_x64(True):
    params, batch = jax.tree.map(np.float64, (PARAMS, BATCH))
    state, losses = train(make(**options), 1, params, batch=batch)
    expected, expected_losses = by_hand(*hand)
    same(state.params, expected, rtol=1e-12, atol=1e-12)
    same(losses[0], expected_losses, rtol=1e-12)


def test_one_sub_model_is_plain_training():
  def loss(params, features, batch):
    return jnp.mean((features[0] @ params['v'][:H] - batch['y'][:, 0]) ** 2)

  models = [feature_fn(0)], [loss]
  found, losses = train(
    make(models, optax.adam(RATE), bound=5.0), params=PARAMS[:1]
  )
  plain = make_train_step(
    mtl.sum_losses(1), optax.adam(RATE), cooperative.joint_losses(*models)
  )
  expected, expected_losses = train(plain, params=PARAMS[:1])
  same(found.params, expected.params)
  same(losses, expected_losses)


@pytest.mark.parametrize('search', ['uniform', 'ascent'])
def test_a_bound_of_zero_is_no_search(search):
  plain, losses = train(make(search='none'))
  zero, _ = train(make(search=search, bound=0.0))
  jax.tree.map(np.testing.assert_array_equal, zero.params, plain.params)
  # Of a traced bound the search is in the program, and moves nothing.
  traced = make_sweep(
    lambda h: make(search=search, bound=h['bound']),
    {'bound': [0.0, 0.5]},
    mode='vmap',
  )
  state = traced.init(PARAMS, keys=jax.random.split(jax.random.key(0), 2))
  for _ in range(3):
    state, _ = traced.step(state, BATCH)
  same(traced.member(state, 0).params, plain.params)
  searched, searched_losses = train(make(search=search, bound=0.5))
  assert np.abs(searched_losses - losses).max() > 1e-3
  own = jax.random.split(jax.random.key(0), 2)[1]
  alone = make(search=search, bound=0.5)
  expected = alone.init(PARAMS, key=own)
  for _ in range(3):
    expected, _ = alone.step(expected, BATCH)
  same(traced.member(state, 1).params, expected.params)


#: A loss is the own number times the other's: its gradient is the latter.
PRODUCT = (
  [lambda p, batch: p] * 2,
  [lambda p, f, batch: f[0] * f[1]] * 2,
)
TWO = (jnp.array(1.0), jnp.array(2.0))


def test_noise_is_within_the_bound_and_new_each_step():
  program = make(PRODUCT, optax.sgd(0.0), bound=0.5)
  _, losses = train(program, 20, TWO)
  noise = losses[:, 0] - 2.0
  assert np.abs(noise).max() <= 0.5 and noise.min() < -0.2 < 0.2 < noise.max()
  assert len(np.unique(noise)) == 20
  _, other = train(program, 20, TWO, seed=1)
  assert not np.isin(other, losses).any()
  # The gradient is that of the loss that is told.
  state, losses = train(make(PRODUCT, optax.sgd(1.0), bound=0.5), 1, TWO)
  np.testing.assert_allclose(state.params[0], 1.0 - losses[0, 0], rtol=1e-6)


def test_the_mean_and_the_worst_of_many_noises():
  options = {'bound': 0.5, 'num_noises': 500}
  _, mean = train(make(PRODUCT, optax.sgd(0.0), **options), 1, TWO)
  worst = make(PRODUCT, optax.sgd(0.0), reduce='max', **options)
  _, found = train(worst, 1, TWO)
  np.testing.assert_allclose(mean[0], 2.0, atol=0.1)
  np.testing.assert_allclose(found[0], [2.5, 3.0], atol=0.02)
  relative = make(PRODUCT, optax.sgd(0.0), scale='relative', **options)
  _, found = train(relative, 1, TWO)
  np.testing.assert_allclose(found[0], 2.0, atol=0.15)


def test_parameters_of_others_can_be_moved():
  squares = [lambda p, batch: p**2] * 2, PRODUCT[1]
  program = make(
    squares, optax.sgd(0.0), search='ascent', moved='params', bound=0.5
  )
  _, losses = train(program, 1, TWO)
  np.testing.assert_allclose(losses[0], [1 * 2.5**2, 4 * 1.5**2])
  program = make(squares, optax.sgd(0.0), search='ascent', bound=0.5)
  _, losses = train(program, 1, TWO)
  np.testing.assert_allclose(losses[0], [1 * 4.5, 4 * 1.5])


def test_turns_of_several_steps():
  program = make(search='none', turn_steps=2)
  state = program.init(PARAMS, key=jax.random.key(0))
  for step in range(6):
    before = jax.tree.map(np.asarray, state.params)
    state, metrics = program.step(state, BATCH)
    t = step // 2 % T
    assert metrics['present'].tolist() == [t == 0, t == 1]
    assert np.isfinite(metrics['losses']).tolist() == [t == 0, t == 1]
    jax.tree.map(
      np.testing.assert_array_equal, state.params[1 - t], before[1 - t]
    )
    assert np.abs(state.params[t]['w'] - before[t]['w']).min() > 0


def test_random_turns_are_one_of_the_orders():
  cyclic, _ = train(make(search='none'), 1)
  back = make((MODELS[0][::-1], [_swapped(1), _swapped(0)]), search='none')
  reverse, _ = train(back, 1, PARAMS[::-1])
  orders = [cyclic.params, reverse.params[::-1]]
  random = make(search='none', turns='random')
  seen = set()
  for seed in range(8):
    found, _ = train(random, 1, seed=seed)
    close = [
      bool(jnp.allclose(found.params[0]['w'], x[0]['w'], atol=1e-6))
      and bool(jnp.allclose(found.params[1]['w'], x[1]['w'], atol=1e-6))
      for x in orders
    ]
    assert sum(close) == 1
    seen.add(close.index(True))
  assert seen == {0, 1}


def _swapped(t):
  """The loss of sub-model t, where the order of sub-models is the other."""
  return lambda params, features, batch: loss_fn(t)(
    params, features[::-1], batch
  )


def test_warm_up():
  plain, _ = train(make(search='none'), 2)
  off = make(bound=0.5, warmup_steps=2)
  found, _ = train(off, 2)
  same(found.params, plain.params)
  assert _apart(train(off, 3)[0], train(make(search='none'), 3)[0])
  ramp = make(search='ascent', bound=0.5, warmup='ramp', warmup_steps=2)
  _, losses = train(ramp, 2)
  # A half of the bound at the second step.
  first, _ = train(make(search='none'), 1)
  program = make(search='ascent', bound=0.25)
  _, expected = train(program, 1, first.params)
  same(losses[1], expected[0])
  joint = make(search='none', warmup='joint', warmup_steps=2)
  plain_joint = make_train_step(
    mtl.sum_losses(T), optax.sgd(RATE), cooperative.joint_losses(*MODELS)
  )
  same(train(joint, 2)[0].params, train(plain_joint, 2)[0].params)
  assert _apart(train(joint, 3)[0], train(plain_joint, 3)[0])


def _apart(a, b):
  return any(
    np.abs(x - y).max() > 1e-4
    for x, y in zip(
      jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True
    )
  )


def test_one_trace_donation_and_own_optimizers():
  traces = []

  def counted(params, batch):
    traces.append(1)
    return MODELS[0][0](params, batch)

  models = [counted, MODELS[0][1]], MODELS[1]
  program = make(models, [optax.adam(0.1), optax.sgd(0.0)], bound=0.1)
  state = program.init(PARAMS, key=jax.random.key(0))
  state, _ = program.step(state, BATCH)
  count = len(traces)
  old = state
  state, _ = program.step(state, BATCH)
  assert len(traces) == count
  assert jax.tree.leaves(old.params)[0].is_deleted()
  same(state.params[1], PARAMS[1])
  assert np.abs(state.params[0]['w'] - PARAMS[0]['w']).max() > 0.05


class Stop(Exception):
  pass


def _fit(program, path, stop_at=None):
  def stop(step, *_):
    if step == stop_at:
      raise Stop

  arrays = {
    name: np.tile(x, (4,) + (1,) * (x.ndim - 1))
    + np.float32(np.random.default_rng(1).normal(size=(4 * B,) + x.shape[1:]))
    for name, x in BATCH.items()
  }
  with Checkpointer(path) as checkpointer:
    return fit(
      program.step,
      program.init(PARAMS, key=jax.random.key(0)),
      data.make_train_iterator(arrays, batch_size=B, seed=0),
      num_steps=7,
      task_names=('first', 'second'),
      eval_every=3,
      checkpointer=checkpointer,
      progress=False,
      callback=stop,
    )


@pytest.mark.parametrize(
  'options', [{'num_noises': 2, 'turns': 'random'}, {'turn_steps': 2}]
)
def test_a_resumed_run_ends_in_the_same_bits(tmp_path, options):
  program = make(optimizer=optax.adam(0.05), bound=0.3, **options)
  whole = _fit(program, tmp_path / 'whole')
  with pytest.raises(Stop):
    _fit(program, tmp_path / 'cut', stop_at=5)
  resumed = _fit(program, tmp_path / 'cut')
  assert (whole.resumed_from, resumed.resumed_from) == (None, 3)
  bits = lambda x: (
    jax.random.key_data(x)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    else x
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(bits(a), bits(b)),
    resumed.state,
    whole.state,
  )


def test_changes_of_losses_when_others_are_moved():
  found = cooperative.loss_changes(
    [lambda p, batch: p] * 2,
    [lambda p, f, batch: f[1] ** 2, lambda p, f, batch: f[1] ** 2],
    (jnp.array(1.0), jnp.array(2.0)),
    None,
    jax.random.key(0),
    bound=0.5,
    num_noises=20_000,
  )
  # Noise within 1 about 2: its variance is a third.
  np.testing.assert_allclose(found, [1 / 3, 0], atol=0.03)
  alone = cooperative.loss_changes(
    [lambda p, batch: p],
    [lambda p, f, batch: p**2],
    [jnp.array(1.0)],
    None,
    jax.random.key(0),
    bound=1.0,
  )
  assert alone.tolist() == [0.0]


@pytest.mark.parametrize(
  ('error', 'options', 'match'),
  [
    (ValueError, {'search': 'unifrom'}, "Did you mean 'uniform'"),
    (ValueError, {'bound': -0.1}, 'bound=-0.1 must be'),
    (ValueError, {'num_noises': 0}, 'num_noises=0'),
    (
      ValueError,
      {'search': 'ascent', 'num_noises': 2},
      "num_noises=2 has no effect with search='ascent'",
    ),
    (
      ValueError,
      {'search': 'none', 'reduce': 'max'},
      "reduce='max' has no effect",
    ),
    (ValueError, {'num_ascents': 3}, "take search='ascent'"),
    (
      ValueError,
      {'turns': 'random', 'turn_steps': 2},
      "turn_steps=2 has no effect with turns='random'",
    ),
    (ValueError, {'warmup_steps': -1}, 'warmup_steps=-1'),
    (TypeError, {'optimizer': [optax.sgd(0.1)]}, 'a list of 2'),
    (TypeError, {'optimizer': mtl.mgda(2)}, 'is the method mgda'),
    (TypeError, {'models': (feature_fn(0), [loss_fn(0)])}, 'feature_fns='),
    (ValueError, {'models': (MODELS[0], MODELS[1][:1])}, '2 feature_fns and 1'),
  ],
)
def test_what_cannot_be_built_is_refused(error, options, match):
  with pytest.raises(error, match=match):
    make(**options)


def test_what_cannot_be_traced_is_refused():
  program = make()
  with pytest.raises(ValueError, match='params is a dict'):
    program.init(PARAMS[0], key=jax.random.key(0))
  with pytest.raises(ValueError, match='a tuple of 1'):
    program.init(PARAMS[:1], key=jax.random.key(0))
  with pytest.raises(TypeError, match='state is a dict'):
    program.step({}, BATCH)
  vector = lambda p, f, batch: jnp.ones(3)
  with pytest.raises(ValueError, match=r'loss_fns\[1\] returned float32\[3\]'):
    train(make((MODELS[0], [loss_fn(0), vector])))
  whole = lambda p, batch: jnp.ones((B, H), int)
  with pytest.raises(TypeError, match=r'feature_fns\[1\] has an array of int'):
    train(make(([feature_fn(0), whole], MODELS[1])))
  train(make(([feature_fn(0), whole], MODELS[1]), search='none'), 1)

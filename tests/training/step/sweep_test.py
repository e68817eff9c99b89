"""Many runs in one program: each is what it is alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import BATCH, LABELS, PARAMS, STAGED, T

import mtljax as mtl
from mtljax.training import Checkpointer, make_sweep, make_train_step

MODES = ('vmap', 'map', 'unroll', 'loop')
HPARAMS = {
  'learning_rate': [1e-3, 2e-3, 5e-4],
  'weights': np.array([[1, 1, 1], [1, 0.5, 0], [0.1, 2, 0.3]], np.float32),
}
M = 3


def build(hparams):
  return make_train_step(
    mtl.fixed(T, weights=hparams['weights'], labels=LABELS),
    optax.adam(hparams['learning_rate']),
    STAGED,
  )


def keys(size=M):
  return jax.random.split(jax.random.key(0), size)


def train(sweep, steps=3, **options):
  state = sweep.init(PARAMS, keys=keys(sweep.num_members), **options)
  metrics = None
  for _ in range(steps):
    state, metrics = sweep.step(state, BATCH)
  return state, metrics


def train_alone(sweep, i, steps=3, batch=BATCH):
  own = sweep.steps[i]
  state = own.init(PARAMS, key=keys(sweep.num_members)[i])
  metrics = None
  for _ in range(steps):
    state, metrics = own.step(state, batch)
  return state, metrics


def same(a, b, **tolerance):
  def compare(x, y):
    assert (x.shape, x.dtype) == (y.shape, y.dtype)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
      x, y = jax.random.key_data(x), jax.random.key_data(y)
    np.testing.assert_allclose(x, y, **{'rtol': 1e-5, 'atol': 1e-6} | tolerance)

  jax.tree.map(compare, a, b)


@pytest.fixture(scope='module')
def alone():
  """Every member's state and metrics after three steps of its own."""
  sweep = make_sweep(build, HPARAMS, mode='loop')
  return [train_alone(sweep, i) for i in range(M)]


@pytest.mark.parametrize('mode', MODES)
def test_each_member_is_its_run_alone(mode, alone):
  sweep = make_sweep(build, HPARAMS, mode=mode)
  assert (sweep.mode, sweep.num_members) == (mode, M)
  state, metrics = train(sweep)
  for i, (expected, measured) in enumerate(alone):
    same(sweep.member(state, i), expected)
    same(jax.tree.map(lambda x, i=i: x[i], metrics), measured)
  np.testing.assert_allclose(metrics['weights'], HPARAMS['weights'])


def test_batches_of_their_own():
  batches = jnp.stack([BATCH, 2 * BATCH])
  for mode in MODES:
    sweep = make_sweep(build, {k: v[:2] for k, v in HPARAMS.items()}, mode=mode)
    state = sweep.init(PARAMS, keys=keys(2))
    state, metrics = sweep.step(state, batches, shared_batch=False)
    assert metrics['losses'].shape == (2, T)
    for i in range(2):
      expected, _ = train_alone(sweep, i, 1, batches[i])
      same(sweep.member(state, i), expected)


def eqns(jaxpr):
  """All equations, those inside others too."""
  for eqn in jaxpr.eqns:
    yield eqn
    for value in jax.tree.leaves(
      list(eqn.params.values()), is_leaf=lambda x: hasattr(x, 'eqns')
    ):
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        yield from eqns(inner)


def is_branch(eqn):
  """A condition, but one on the platform."""
  return eqn.primitive.name == 'cond' and not eqn.params.get(
    'branches_platforms'
  )


@pytest.mark.parametrize(
  'method, every',
  [
    (lambda: mtl.slw(T, labels=LABELS), 2),
    (lambda: mtl.every_k(mtl.slw(T, labels=LABELS), 2), 1),
    (lambda: mtl.cr_mogm(mtl.every_k(mtl.slw(T, labels=LABELS), 2)), 1),
  ],
  ids=['every', 'every_k', 'every_k inside'],
)
def test_counters_stay_single_so_that_steps_are_skipped(method, every):
  def build(hparams):
    return make_train_step(
      method(), optax.sgd(hparams['learning_rate']), STAGED, every=every
    )

  sweep = make_sweep(build, {'learning_rate': [1e-3, 1e-4]}, mode='vmap')
  state = sweep.init(PARAMS, keys=keys(2))
  conds = [
    eqn
    for eqn in eqns(jax.make_jaxpr(sweep.step)(state, BATCH).jaxpr)
    if is_branch(eqn)
  ]
  assert len(conds) == 1
  assert conds[0].invars[0].aval.shape == ()
  assert state.step.shape == ()
  if every == 2:
    text = jax.jit(sweep.step).lower(state, BATCH).compile().as_text()
    assert ' conditional(' in text
    # A batched counter, which a plain vmap has, makes a select of it.
    state = jax.vmap(lambda _: sweep.member(state, 0))(jnp.arange(2))
    plain = jax.make_jaxpr(jax.vmap(sweep.steps[0].step, (0, None)))
    assert not any(map(is_branch, eqns(plain(state, BATCH).jaxpr)))


def test_counters_that_differ_by_member_get_the_axis():
  def build(hparams):
    optimizer = optax.apply_if_finite(optax.sgd(hparams['rate']), 5)
    return make_train_step(mtl.mean(T, labels=LABELS), optimizer, STAGED)

  # The second member's updates are skipped after the first.
  sweep = make_sweep(build, {'rate': [1e-3, np.inf]}, mode='vmap')
  state, _ = train(sweep, steps=2)
  assert state.step.shape == ()
  np.testing.assert_array_equal(state.opt_state.total_notfinite, [0, 1])
  for i in range(2):
    same(sweep.member(state, i), train_alone(sweep, i, 2)[0])
  again = sweep.stack([sweep.member(state, i) for i in range(2)])
  same(again, state)


@pytest.mark.parametrize('mode', ['vmap', 'map'])
def test_a_counter_that_follows_another_gets_the_axis_too(mode):
  def build(hparams):
    def update(updates, state, params=None):
      del params
      large = jnp.asarray(hparams['rate'] > 0.5, jnp.int32)
      first, second, third = state
      return jax.tree.map(jnp.zeros_like, updates), (
        first + large,
        first,
        third + 1,
      )

    counters = (jnp.zeros((), jnp.int32),) * 3
    optimizer = optax.GradientTransformation(lambda params: counters, update)
    return make_train_step(mtl.mean(T, labels=LABELS), optimizer, STAGED)

  sweep = make_sweep(build, {'rate': [0.1, 0.9]}, mode=mode)
  state, _ = train(sweep, steps=2)
  first, second, third = state.opt_state
  np.testing.assert_array_equal(first, [0, 2])
  np.testing.assert_array_equal(second, [0, 1])
  assert third.shape == () and third == 2


@pytest.mark.parametrize('mode', MODES)
def test_what_was_stacked_is_not_given_away(mode):
  sweep = make_sweep(build, HPARAMS, mode=mode)
  states = [
    own.init(PARAMS, key=key)
    for own, key in zip(sweep.steps, keys(), strict=True)
  ]
  sweep.step(sweep.stack(states), BATCH)
  assert not any(x.is_deleted() for x in jax.tree.leaves(states))


def test_what_build_is_called_with():
  seen = []
  given = {'rate': [0.5, 1.0], 'method': [0, 1], 'weights': np.ones((2, T))}

  def see(hparams):
    seen.append(hparams)
    return make_train_step(mtl.mean(T, labels=LABELS), optax.sgd(1.0), STAGED)

  make_sweep(see, given)
  assert [(x['rate'], x['method']) for x in seen] == [(0.5, 0), (1.0, 1)]
  for hparams in seen:
    assert [type(hparams[k]) for k in ('rate', 'method')] == [float, int]
    assert hparams['weights'].shape == (T,)


@pytest.mark.parametrize('mode', ['vmap', 'map'])
def test_a_member_that_diverges_leaves_the_others_alone(mode):
  # The solver of mgda loops until the last member is done.
  def build(hparams):
    return make_train_step(
      mtl.mgda(T, labels=LABELS), optax.sgd(hparams['rate']), STAGED
    )

  sweep = make_sweep(build, {'rate': [1e-3, 1e30, 2e-3]}, mode=mode)
  state, metrics = train(sweep)
  finite = np.isfinite(np.asarray(metrics['losses'])).all(axis=1)
  np.testing.assert_array_equal(finite, [True, False, True])
  sound = make_sweep(build, {'rate': [1e-3, 2e-3]}, mode='loop')
  states, _ = sound.step(sound.init(PARAMS, keys=keys()[:2]), BATCH)
  for _ in range(2):
    states, _ = sound.step(states, BATCH)
  for i, own in [(0, 0), (2, 1)]:
    same(
      sweep.member(state, i).params, sound.member(states, own).params, rtol=1e-4
    )


def test_methods_as_an_axis():
  def method(index):
    methods = [mtl.mgda, mtl.mean, mtl.slw]
    return mtl.select([m(T, labels=LABELS) for m in methods], index)

  def build(hparams):
    return make_train_step(method(hparams['method']), optax.sgd(1e-3), STAGED)

  sweep = make_sweep(build, {'method': [0, 1, 2]}, mode='vmap')
  state, metrics = train(sweep)
  for i, plain in enumerate([mtl.mgda, mtl.mean, mtl.slw]):
    own = make_train_step(plain(T, labels=LABELS), optax.sgd(1e-3), STAGED)
    expected = own.init(PARAMS, key=keys()[i])
    for _ in range(3):
      expected, measured = own.step(expected, BATCH)
    same(sweep.member(state, i).params, expected.params, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
      metrics['weights'][i], measured['weights'], rtol=1e-3, atol=1e-5
    )


def test_a_members_checkpoint_is_that_of_its_run(tmp_path):
  sweep = make_sweep(build, HPARAMS, mode='vmap')
  state, _ = train(sweep, steps=1)
  with Checkpointer(tmp_path) as checkpointer:
    checkpointer.save(1, sweep.member(state, 1))
    example = sweep.steps[1].init(PARAMS, key=keys()[1])
    restored, _, _ = checkpointer.restore(example)
  # It goes on alone, or among others.
  again = sweep.stack(
    [sweep.member(state, 0), restored, sweep.member(state, 2)]
  )
  again, _ = sweep.step(again, BATCH)
  restored, _ = sweep.steps[1].step(restored, BATCH)
  same(sweep.member(again, 1), restored)
  state, _ = sweep.step(state, BATCH)  # nothing of it was given away
  same(again, state)


def test_a_member_has_buffers_of_its_own():
  for mode in MODES:
    sweep = make_sweep(build, HPARAMS, mode=mode)
    state = sweep.init(PARAMS, keys=keys())
    member = sweep.member(state, -1)
    for leaf in jax.tree.leaves(member):
      leaf.delete()
    assert not any(x.is_deleted() for x in jax.tree.leaves(state))


def test_parameters_of_their_own():
  sweep = make_sweep(build, HPARAMS, mode='vmap')
  params = jax.tree.map(lambda x: jnp.stack([x, 2 * x, 3 * x]), PARAMS)
  state = sweep.init(params, keys=keys(), stacked=True)
  same(sweep.member(state, 1).params, jax.tree.map(lambda x: 2 * x, PARAMS))


def test_arithmetic_is_in_the_dtype_of_a_run_alone():
  params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)

  def build(hparams):
    return make_train_step(
      mtl.mean(T, labels=LABELS), optax.sgd(hparams['rate'], 0.9), STAGED
    )

  sweep = make_sweep(build, {'rate': [1e-3]}, mode='vmap')
  state = sweep.init(params, keys=keys(1))
  after, _ = jax.eval_shape(sweep.step, state, BATCH.astype(jnp.bfloat16))
  assert jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(
    lambda x: x.dtype, state
  )


TRACED = {
  'cagrad': lambda x: mtl.cagrad(T, c=x, labels=LABELS),
  'fairgrad': lambda x: mtl.fairgrad(T, alpha=x, labels=LABELS),
  'fixed': lambda x: mtl.fixed(T, weights=jnp.stack([x] * T), labels=LABELS),
  'stch': lambda x: mtl.stch(T, temperature=x, labels=LABELS),
  'dwa': lambda x: mtl.dwa(T, temperature=x, labels=LABELS),
  'gradnorm': lambda x: mtl.gradnorm(T, alpha=x, labels=LABELS),
  'famo': lambda x: mtl.famo(T, learning_rate=x, labels=LABELS),
  'moco': lambda x: mtl.moco(T, decay=x, labels=LABELS),
  'cr_mogm': lambda x: mtl.cr_mogm(mtl.mean(T, labels=LABELS), decay=x),
  'sam': lambda x: mtl.sam(mtl.mean(T, labels=LABELS), rho=x),
  'flat_regions': lambda x: mtl.flat_regions(
    mtl.mean(T, labels=LABELS), rho_shared=x
  ),
  'scale': lambda x: mtl.mgda(T, scale=x, max_norm=x, labels=LABELS),
}


@pytest.mark.parametrize('name', TRACED)
def test_numbers_of_methods_may_be_traced(name):
  def build(hparams):
    return make_train_step(
      TRACED[name](jnp.asarray(hparams['x'])), optax.sgd(1e-3), STAGED
    )

  sweep = make_sweep(build, {'x': [0.5, 0.25]}, mode='vmap')
  state = sweep.init(PARAMS, keys=keys(2))
  after, _ = jax.eval_shape(sweep.step, state, BATCH)
  assert after.step.shape == ()


def test_default_mode_is_that_of_the_backend():
  assert make_sweep(build, HPARAMS).mode == 'loop'
  one = {'learning_rate': 0.1, 'weights': (1.0, 1.0, 1.0)}
  assert make_sweep(lambda _: build(one), num_members=4).num_members == 4


def test_members_at_different_steps_are_refused():
  sweep = make_sweep(build, HPARAMS, mode='vmap')
  states = [
    sweep.steps[i].init(PARAMS, key=key) for i, key in enumerate(keys())
  ]
  states[1] = dataclasses.replace(states[1], step=jnp.int32(4))
  with pytest.raises(ValueError, match=r'at steps \[0, 4, 0\]'):
    sweep.stack(states)
  with pytest.raises(ValueError, match='there are 2 for num_members=3'):
    sweep.stack(states[:2])


@pytest.mark.parametrize(
  'call, error, message',
  [
    (
      lambda: make_sweep(build, HPARAMS, mode='scan'),
      ValueError,
      "mode='scan'",
    ),
    (lambda: make_sweep(build), ValueError, 'num_members must be given'),
    (
      lambda: make_sweep(build, {**HPARAMS, 'c': [1.0]}),
      ValueError,
      "'c': 1",
    ),
    (lambda: make_sweep(build, {'c': 1.0}), ValueError, "'c': None"),
    (lambda: make_sweep(build, HPARAMS, num_members=2), ValueError, '=2'),
    (lambda: make_sweep(build, HPARAMS, num_members=0), ValueError, '=0'),
    (
      lambda: make_sweep(lambda _: mtl.mean(2), HPARAMS),
      TypeError,
      'build returned Aggregator',
    ),
    (
      lambda: make_sweep(build, {**HPARAMS, 'weights': -HPARAMS['weights']}),
      ValueError,
      'none of them negative',
    ),
    (
      lambda: make_sweep(build, HPARAMS).init(PARAMS, keys=keys(2)),
      ValueError,
      r'shape \(2,\): pass 3 typed keys',
    ),
    (
      lambda: make_sweep(build, HPARAMS).init(
        PARAMS, keys=keys(), stacked=True
      ),
      ValueError,
      "'0/heads/0' has shape",
    ),
    (
      lambda: make_sweep(build, HPARAMS).step((), BATCH, shared_batch=False),
      ValueError,
      'axis 0 must be the 3 members',
    ),
    (
      lambda: make_sweep(build, HPARAMS).member((), 3),
      IndexError,
      'i=3',
    ),
  ],
)
def test_bad_input(call, error, message):
  with pytest.raises(error, match=message):
    call()

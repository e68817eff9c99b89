"""Absent tasks through the train step: the method with its mask, by hand."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import (
  BATCH,
  FORMS,
  GRAMIAN_METHODS,
  HEADS,
  LABELS,
  LOSS_METHODS,
  PARAMS,
  RANDOM_METHODS,
  T,
  plain,
  trunk,
)

import mtljax as mtl
from mtljax.aggregators._reading import find_weights
from mtljax.training import Layout, make_mesh, make_train_step

MASKS = [
  np.array(x) for x in itertools.product([True, False], repeat=T) if any(x)
]
MASK = np.array([True, False, True])
GRADIENT_METHODS = {
  'graddrop': mtl.graddrop(T, labels=LABELS),
  'moco': mtl.moco(T, labels=LABELS),
  'drop_task': mtl.cagrad(T, labels=LABELS, nonfinite='drop_task'),
  'inject': mtl.inject_hyperparams(mtl.cagrad)(T, c=0.3, labels=LABELS),
}
SHARP = {
  'sam': mtl.sam(GRAMIAN_METHODS['cagrad']),
  'samo': mtl.samo(GRAMIAN_METHODS['cagrad']),
  'inject(samo)': mtl.inject_hyperparams(mtl.samo)(
    GRAMIAN_METHODS['cagrad'], rho=0.05
  ),
  'flat_regions': mtl.flat_regions(GRAMIAN_METHODS['cagrad']),
  'gradient_norm': mtl.gradient_norm_penalty(
    GRAMIAN_METHODS['cagrad'], rho=0.1, alpha=0.5
  ),
}


def batch_of(form):
  return [BATCH] * T if form == 'sequence' else BATCH


def start(method, fun, optimizer=None, **options):
  train = make_train_step(method, optimizer or optax.sgd(1e-3), fun, **options)
  return train, train.init(PARAMS, key=jax.random.key(1))


def by_hand(method, state, masks):
  """Parameters and weights after steps of SGD on the method's own update."""
  params, method_state = PARAMS, state.method_state

  @jax.jit
  def step(params, method_state, mask):
    losses, grads = mtl.value_and_task_grads(plain, labels=LABELS)(
      params, BATCH
    )
    update, method_state = method.update(
      grads,
      method_state,
      params,
      losses=losses,
      task_mask=mask,
      task_grad_fn=mtl.task_grad_fn(plain, BATCH),
    )
    params = jax.tree.map(lambda p, u: p - 1e-3 * u, params, update)
    return params, method_state

  for mask in masks:
    params, method_state = step(params, method_state, mask)
  return params, find_weights(method_state)


def check(method, routes):
  """By pairs of form and route."""
  masks = [MASK, np.array([False, True, True]), np.array([True] * T)]
  _, state = start(method, plain)
  expected, weights = by_hand(method, state, masks)
  expected = jax.tree.map(jnp.subtract, expected, PARAMS)
  size = max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(expected))
  for form, route in routes:
    train, state = start(method, FORMS[form], route=route)
    for mask in masks:
      state, metrics = train.step(state, mtl.MaskedBatch(batch_of(form), mask))
    change = jax.tree.map(jnp.subtract, state.params, PARAMS)
    chex.assert_trees_all_close(change, expected, rtol=1e-3, atol=1e-3 * size)
    if weights is not None:
      np.testing.assert_allclose(metrics['weights'], weights, rtol=1e-3)
    assert train.step._cache_size() == 1


@pytest.mark.parametrize('name', ['cagrad', 'uncertainty', 'pcgrad'])
def test_every_route_is_the_method_with_its_mask(name):
  methods = GRAMIAN_METHODS | LOSS_METHODS | RANDOM_METHODS
  routes = ['jacobian', 'gramian'] + ['losses'] * (name in LOSS_METHODS)
  pairs = [(form, route) for form in FORMS for route in routes]
  pairs += [('plain', 'layerwise'), ('staged', 'layerwise')]
  check(methods[name], pairs)


@pytest.mark.parametrize(
  'name',
  [
    'graddrop',
    'drop_task',
    'sam',
    'flat_regions',
    *(
      pytest.param(name, marks=pytest.mark.slow)
      for name in ('moco', 'inject', 'samo', 'inject(samo)', 'gradient_norm')
    ),
  ],
)
def test_methods_that_are_more_than_weights(name):
  check((GRADIENT_METHODS | SHARP)[name], [('staged', 'auto')])


@pytest.mark.parametrize('mask', [MASKS[1], MASKS[4]], ids=str)
@pytest.mark.parametrize('route', ['jacobian', 'layerwise'])
def test_it_is_the_step_of_the_smaller_problem(mask, route):
  tasks = np.flatnonzero(mask)
  names = {int(t): i for i, t in enumerate(tasks)}
  labels = {'trunk': 'shared', 'heads': [names.get(t, 0) for t in range(T)]}
  small = {
    'trunk': PARAMS['trunk'],
    'heads': [PARAMS['heads'][t] for t in tasks],
  }
  labels['heads'] = list(range(len(tasks)))
  staged = mtl.Staged(
    trunk,
    [
      lambda p, z, x, i=i, t=t: HEADS[t]({'heads': [p['heads'][i]] * T}, z, x)
      for i, t in enumerate(tasks)
    ],
  )
  alone = make_train_step(
    mtl.mgda(len(tasks), labels=labels), optax.adam(1e-2), staged, route=route
  )
  expected, _ = alone.step(alone.init(small, key=jax.random.key(1)), BATCH)
  train, state = start(
    mtl.mgda(T, labels=LABELS), FORMS['staged'], optax.adam(1e-2), route=route
  )
  found, _ = train.step(state, mtl.MaskedBatch(BATCH, mask))
  chex.assert_trees_all_close(
    found.params['trunk'], expected.params['trunk'], rtol=1e-4, atol=1e-6
  )
  for i, t in enumerate(tasks):
    np.testing.assert_allclose(
      found.params['heads'][t], expected.params['heads'][i], rtol=1e-5
    )


@pytest.mark.parametrize('form', ['staged', 'sequence'])
@pytest.mark.parametrize('route', ['jacobian', 'gramian', 'layerwise'])
@pytest.mark.parametrize(
  'name', ['cagrad', pytest.param('sam', marks=pytest.mark.slow)]
)
def test_what_stands_for_an_absent_task_has_no_effect(form, route, name):
  """NaN in its loss and gradients, where the tasks are apart."""
  if form == 'sequence' and route == 'layerwise':
    pytest.skip('a sequence has no layer-wise pass')
  method = (GRAMIAN_METHODS | LOSS_METHODS | SHARP)[name]

  def broken(t):
    def head(params, z, x):
      return HEADS[t](params, z, x) * (1.0 if MASK[t] else jnp.nan)

    return head

  heads = [broken(t) for t in range(T)]
  bad = {
    'staged': mtl.Staged(trunk, heads),
    'sequence': [
      lambda p, x, head=head: head(p, trunk(p, x), x) for head in heads
    ],
  }[form]
  found = []
  for fun in (bad, FORMS[form]):
    train, state = start(method, fun, route=route)
    state, metrics = train.step(state, mtl.MaskedBatch(batch_of(form), MASK))
    found.append((state.params, metrics['losses'][MASK]))
    assert np.isnan(metrics['losses'][1])
    np.testing.assert_array_equal(metrics['present'], MASK)
  chex.assert_trees_all_close(*found, rtol=1e-6)


OPTIMIZERS = {
  'adam': optax.adam(1e-2),
  'adamw': optax.adamw(1e-2, weight_decay=0.1),
  'momentum': optax.sgd(1e-2, momentum=0.9),
  'clipped': optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2)),
  'adafactor': optax.adafactor(1e-2),
  'lion': optax.lion(1e-3),
  'scheduled': optax.inject_hyperparams(optax.adam)(
    optax.cosine_decay_schedule(1e-2, 100)
  ),
}


@pytest.mark.parametrize(
  ('name', 'stacked'),
  [*((name, False) for name in OPTIMIZERS), ('adamw', True)],
)
def test_what_an_absent_task_owns_stands_still(name, stacked):
  """Momentum, second moments and weight decay too; it then goes on."""
  params, labels, fun = PARAMS, LABELS, FORMS['staged']
  if stacked:
    params = {**PARAMS, 'heads': jnp.stack(PARAMS['heads'])}
    labels = {'trunk': 'shared', 'heads': 'stacked'}
  optimizer = OPTIMIZERS[name]
  train = make_train_step(mtl.mean(T, labels=labels), optimizer, fun)
  state = train.init(params, key=jax.random.key(0))
  for _ in range(3):
    state, _ = train.step(state, BATCH)
  before = jax.device_get(state)
  state, _ = train.step(state, mtl.MaskedBatch(BATCH, MASK))
  for t in range(T):
    same = np.array_equal(before.params['heads'][t], state.params['heads'][t])
    assert same != MASK[t]
  assert not np.array_equal(
    before.params['trunk']['w'], state.params['trunk']['w']
  )
  # All that the optimizer keeps of it, and nothing of the others.
  old, new = (
    jax.tree_util.tree_flatten_with_path(x.opt_state)[0]
    for x in (before, state)
  )
  kept = [
    (jax.tree_util.keystr(path), np.array_equal(a, b))
    for (path, a), (_, b) in zip(old, new, strict=True)
    if np.size(a) == 6 * (T if stacked else 1) and 'heads' in str(path)
  ]
  if stacked:
    for (path, a), (_, b) in zip(old, new, strict=True):
      if np.size(a) == 6 * T and 'heads' in str(path):
        same = [np.array_equal(x, y) for x, y in zip(a, b, strict=True)]
        assert same == list(~MASK), path
  else:
    assert all(
      same == ("['heads'][1]" in path or '[1]' in path[-3:])
      for path, same in kept
    ), kept
  assert kept


def test_adam_goes_on_where_it_stood():
  """Its moments are those of the steps that the task was in."""
  optimizer = optax.adam(1e-2)
  method = mtl.sum_losses(T, labels=LABELS)
  train, state = start(method, FORMS['staged'], optimizer)
  state, _ = train.step(state, BATCH)
  moments = jax.device_get(state.opt_state[0].mu['heads'][1])
  state, _ = train.step(state, mtl.MaskedBatch(BATCH, MASK))
  params = jax.device_get(state.params)
  grad = jax.grad(lambda p: jnp.sum(plain(p, BATCH)))(params)['heads'][1]
  state, _ = train.step(state, BATCH)
  np.testing.assert_allclose(
    state.opt_state[0].mu['heads'][1], 0.9 * moments + 0.1 * grad, rtol=1e-5
  )
  assert int(state.opt_state[0].count) == 3


def test_where_nobody_is_present_nothing_moves():
  train, state = start(GRAMIAN_METHODS['mgda'], plain, optax.adam(0.1))
  state, _ = train.step(state, BATCH)
  before = jax.device_get(state)
  nobody = mtl.MaskedBatch(BATCH, jnp.zeros(T, bool))
  state, _ = train.step(state, nobody)
  chex.assert_trees_all_equal(before.params, jax.device_get(state.params))
  chex.assert_trees_all_equal(
    before.opt_state[0].mu, jax.device_get(state.opt_state[0].mu)
  )
  assert int(state.step) == 2


def test_a_task_that_is_back_has_the_weight_held_for_it():
  method = GRAMIAN_METHODS['cagrad']
  train, state = start(method, FORMS['staged'], every=2)
  every = np.ones(T, bool)
  found = []
  for mask in (every, MASK, MASK, every):
    state, metrics = train.step(state, mtl.MaskedBatch(BATCH, mask))
    found.append(np.asarray(metrics['weights']))
  assert found[1][1] == 0 and found[2][1] == 0
  assert found[3][1] == found[0][1] != 0
  np.testing.assert_array_equal(found[1][MASK], found[0][MASK])
  np.testing.assert_array_equal(found[3][MASK], found[2][MASK])
  assert not np.array_equal(found[2][MASK], found[0][MASK])


def test_every_k_and_the_option_agree():
  rule = functools.partial(mtl.slw, T, labels=LABELS)
  found = []
  for method, options in (
    (mtl.every_k(rule(), 2), {}),
    (rule(), {'every': 2}),
  ):
    train, state = start(method, FORMS['staged'], **options)
    for mask in MASKS[:5]:
      state, metrics = train.step(state, mtl.MaskedBatch(BATCH, mask))
    found.append((state.params, metrics['weights']))
  chex.assert_trees_all_equal(*found)


def test_the_rule_sees_nan_after_the_step_for_absent_tasks():
  seeing = mtl.Weighting(
    lambda num_tasks, key=None: jnp.ones(num_tasks),
    lambda stats, state: (jnp.ones(T), state),
    frozenset({'losses'}),
    observe=lambda losses, state: jnp.where(jnp.isnan(losses), -1.0, losses),
  )
  method = mtl.aggregate(seeing, T, labels=LABELS)
  train, state = start(method, FORMS['staged'])
  state, _ = train.step(state, mtl.MaskedBatch(BATCH, MASK))
  expected = np.where(MASK, plain(state.params, BATCH), -1)
  np.testing.assert_allclose(
    state.method_state.weighting_state, expected, rtol=1e-5
  )


@pytest.mark.parametrize('accumulate', ['gradients', 'updates'])
def test_micro_batches_have_the_mask_of_the_whole(accumulate):
  options = {'microbatch_size': 4, 'accumulate': accumulate}
  method = mtl.sum_losses(T, labels=LABELS)
  found = []
  for more in ({}, options):
    train, state = start(method, FORMS['staged'], **more)
    state, _ = train.step(state, mtl.MaskedBatch(BATCH, MASK))
    found.append(state.params)
  chex.assert_trees_all_close(*found, rtol=1e-5)


def test_with_a_layout_every_device_has_the_whole_mask():
  method = GRAMIAN_METHODS['cagrad']
  found = []
  for layout in (None, Layout(make_mesh())):
    train, state = start(method, FORMS['staged'], layout=layout)
    state, metrics = train.step(state, mtl.MaskedBatch(BATCH, MASK))
    found.append((state.params, metrics['weights']))
  chex.assert_trees_all_close(*found, rtol=1e-5)


def test_a_method_of_three_batches():
  method = mtl.modo(T, labels=LABELS)
  train, state = start(method, FORMS['staged'])
  state, metrics = train.step(state, mtl.MaskedBatch(BATCH[:15], MASK))
  assert metrics['weights'][1] == 0
  np.testing.assert_allclose(jnp.sum(metrics['weights']), 1.0, rtol=1e-5)
  np.testing.assert_array_equal(state.params['heads'][1], PARAMS['heads'][1])


def test_the_optimizer_is_told_the_sum_of_the_losses_present():
  told = optax.GradientTransformationExtraArgs(
    lambda params: jnp.zeros(()),
    lambda updates, state, params=None, *, value: (updates, value),
  )
  train, state = start(LOSS_METHODS['mean'], FORMS['staged'], told)
  state, _ = train.step(state, mtl.MaskedBatch(BATCH, MASK))
  expected = jnp.sum(plain(PARAMS, BATCH)[MASK])
  np.testing.assert_allclose(state.opt_state, expected, rtol=1e-6)


def test_the_model_state_is_that_of_the_tasks_present():
  def loss(t, params, x, model_state, key):
    del key
    moved = {'mean': model_state['mean'] + t + 1, 'seen': model_state['seen']}
    moved['seen'] = moved['seen'] + 10**t
    return HEADS[t](params, trunk(params, x), x), (moved, {'own': x[0, t]})

  fun = [functools.partial(loss, t) for t in range(T)]
  train = make_train_step(
    mtl.mean(T, labels=LABELS), optax.sgd(0.1), fun, has_state=True
  )
  start_state = {'mean': jnp.zeros(()), 'seen': jnp.int32(0)}
  for mask in MASKS[:4]:
    state = train.init(PARAMS, key=jax.random.key(0), model_state=start_state)
    state, _ = train.step(state, mtl.MaskedBatch([BATCH] * T, mask))
    present = np.flatnonzero(mask)
    np.testing.assert_allclose(
      state.model_state['mean'], np.mean(present + 1), rtol=1e-6
    )
    assert int(state.model_state['seen']) == 10 ** present[0]


def test_members_of_a_sweep_have_masks_of_their_own():
  from mtljax.training import make_sweep

  def build(hparams):
    return make_train_step(
      mtl.cagrad(T, labels=LABELS, c=hparams['c']),
      optax.adam(1e-2),
      FORMS['staged'],
    )

  sweep = make_sweep(build, {'c': [0.1, 0.4]}, mode='vmap')
  keys = jax.random.split(jax.random.key(0), 2)
  state = sweep.init(PARAMS, keys=keys)
  masks = np.stack([MASK, ~MASK])
  both = mtl.MaskedBatch(np.stack([BATCH, BATCH]), masks)
  state, metrics = sweep.step(state, both, shared_batch=False)
  np.testing.assert_array_equal(metrics['present'], masks)
  for i in range(2):
    alone = sweep.steps[i].init(PARAMS, key=keys[i])
    alone, _ = sweep.steps[i].step(alone, mtl.MaskedBatch(BATCH, masks[i]))
    chex.assert_trees_all_close(
      sweep.member(state, i).params, alone.params, rtol=1e-4, atol=1e-6
    )


def test_the_name_of_the_mask_is_the_steps_own():
  """Beside it, means over steps would be of other steps."""

  def fun(params, x, model_state, key):
    del key
    return plain(params, x), (model_state, {'present': jnp.ones(T)})

  train, state = start(LOSS_METHODS['mean'], fun, has_state=True)
  with pytest.raises(ValueError, match="'present', which is what the step"):
    train.step(state, BATCH)


def test_errors_by_name():
  train, state = start(GRAMIAN_METHODS['cagrad'], plain)
  with pytest.raises(ValueError, match=r'task_mask has shape \(2,\)'):
    train.step(state, mtl.MaskedBatch(BATCH, np.array([True, False])))
  with pytest.raises(ValueError, match='no task is present'):
    mtl.MaskedBatch(BATCH, np.zeros(T, bool))
  samples = make_train_step(
    mtl.mean(len(BATCH)), optax.sgd(0.1), plain, tasks='samples'
  )
  state = samples.init(PARAMS, key=jax.random.key(0))
  with pytest.raises(ValueError, match="tasks='samples'"):
    samples.step(state, mtl.MaskedBatch(BATCH, MASK))
  unknown = optax.GradientTransformation(
    lambda params: [jnp.zeros(p.shape) for p in jax.tree.leaves(params)][0],
    lambda updates, state, params=None: (updates, state),
  )
  train, state = start(GRAMIAN_METHODS['cagrad'], plain, unknown)
  with pytest.raises(ValueError, match='cannot be told which part'):
    train.step(state, mtl.MaskedBatch(BATCH, MASK))

"""Accumulation in both orders, against the steps that it stands for."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import (
  BATCH,
  FORMS,
  HEADS,
  LABELS,
  PARAMS,
  STAGED,
  T,
  plain,
  run,
  trunk,
)

import mtljax as mtl
from mtljax.training import make_train_step

SIZE = 4
CAGRAD = mtl.cagrad(T, labels=LABELS)


@pytest.mark.parametrize('fun', [STAGED, plain])
def test_mean_gradients_are_those_of_the_whole_batch(fun):
  expected, metrics = run(CAGRAD, fun)
  state, found = run(CAGRAD, fun, microbatch_size=SIZE)
  chex.assert_trees_all_close(state.params, expected.params, rtol=1e-4)
  np.testing.assert_allclose(found['losses'], metrics['losses'], rtol=1e-5)
  np.testing.assert_allclose(found['weights'], metrics['weights'], rtol=1e-3)


@pytest.mark.parametrize(
  'method',
  [mtl.famo(T, labels=LABELS), mtl.sam(CAGRAD), mtl.graddrop(T, labels=LABELS)],
  ids=['famo', 'sam', 'graddrop'],
)
def test_methods_that_do_more(method):
  expected, _ = run(method, steps=2)
  state, _ = run(method, steps=2, microbatch_size=SIZE)
  chex.assert_trees_all_close(state.params, expected.params, rtol=1e-4)


@pytest.mark.parametrize('route', ['jacobian', 'layerwise'])
def test_mean_updates_are_those_of_each_part(route):
  """As ``chain(method, MultiSteps(optimizer))`` on the optax face."""
  parts = [BATCH[i :: len(BATCH) // SIZE] for i in range(len(BATCH) // SIZE)]
  tx = optax.chain(
    CAGRAD,
    optax.MultiSteps(optax.sgd(1e-3), len(parts)).gradient_transformation(),
  )
  params, state = PARAMS, tx.init(PARAMS)
  grad_fn = mtl.value_and_task_grads(plain, labels=LABELS)
  for part in parts:
    losses, grads = grad_fn(PARAMS, part)
    updates, state = tx.update(grads, state, params, losses=losses)
    params = optax.apply_updates(params, updates)
  options = {'microbatch_size': SIZE, 'accumulate': 'updates', 'route': route}
  found, _ = run(CAGRAD, steps=1, **options)
  change = lambda x: jax.tree.map(jnp.subtract, x, PARAMS)
  chex.assert_trees_all_close(
    change(found.params), change(params), rtol=1e-3, atol=1e-5
  )
  whole, _ = run(CAGRAD, steps=1)
  with pytest.raises(AssertionError):  # it is another method
    chex.assert_trees_all_close(
      change(found.params), change(whole.params), rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize('accumulate', ['gradients', 'updates'])
def test_state_and_keys_go_through_the_parts(accumulate):
  def stateful_trunk(params, x, model_state, key):
    noise = jax.random.normal(key, ())
    seen = {'mean': jnp.mean(x), 'noise': noise}
    del model_state
    return trunk(params, x), seen

  def head(t):
    return lambda p, z, x, s, key: (HEADS[t](p, z, x), {'part': jnp.mean(x)})

  train = make_train_step(
    CAGRAD,
    optax.sgd(1e-3),
    mtl.Staged(stateful_trunk, [head(t) for t in range(T)]),
    has_state=True,
    microbatch_size=SIZE,
    accumulate=accumulate,
  )
  state = train.init(
    jax.tree.map(jnp.array, PARAMS),
    key=jax.random.key(0),
    model_state={'mean': jnp.zeros(()), 'noise': jnp.zeros(())},
  )
  key = jax.random.fold_in(state.key, 0)
  keys = jax.random.split(key, len(BATCH) // SIZE)
  noise = np.mean([jax.random.normal(k, ()) for k in keys])
  state, metrics = train.step(state, BATCH)
  np.testing.assert_allclose(state.model_state['mean'], BATCH.mean(), rtol=1e-5)
  np.testing.assert_allclose(state.model_state['noise'], noise, rtol=1e-5)
  np.testing.assert_allclose(metrics['part'], [BATCH.mean()] * T, rtol=1e-5)


def test_only_a_part_is_held():
  """Less memory than the whole batch takes at once."""
  width, batch = 64, jnp.ones((512, 64))
  params = [jnp.eye(width)] * 4

  def deep(params, x):
    for w in params:
      x = jnp.tanh(x @ w)
    return x

  heads = [lambda p, z, x, t=t: jnp.mean(z**2) * t for t in (1.0, 2.0)]

  def temporary(**options):
    train = make_train_step(
      mtl.mgda(2), optax.sgd(0.1), mtl.Staged(deep, heads), **options
    )
    state = train.init(params, key=jax.random.key(0))
    compiled = train.step.lower(state, batch).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  whole = temporary()
  for accumulate in ('gradients', 'updates'):
    part = temporary(microbatch_size=64, accumulate=accumulate)
    assert part < 0.7 * whole, (accumulate, part, whole)


def test_errors():
  def build(method=CAGRAD, **options):
    return make_train_step(method, optax.sgd(0.1), STAGED, **options)

  with pytest.raises(ValueError, match='must divide axis 0'):
    run(CAGRAD, microbatch_size=5)
  with pytest.raises(ValueError, match="accumulate='losses'"):
    build(microbatch_size=4, accumulate='losses')
  with pytest.raises(ValueError, match='already cuts its batch in three'):
    build(mtl.modo(T, labels=LABELS), microbatch_size=4)
  with pytest.raises(ValueError, match="use accumulate='updates'"):
    build(mtl.flat_regions(CAGRAD), microbatch_size=4)
  with pytest.raises(ValueError, match="route='gramian' keeps none"):
    build(microbatch_size=4, route='gramian')
  with pytest.raises(ValueError, match='microbatch_size=0'):
    build(microbatch_size=0)


@pytest.mark.parametrize('fun', ['plain', 'staged', 'sequence'])
@pytest.mark.parametrize('accumulate', ['gradients', 'updates'])
def test_every_form_without_a_state(fun, accumulate):
  data = [BATCH] * T if fun == 'sequence' else BATCH
  state, _ = run(
    mtl.sum_losses(T, labels=LABELS),
    FORMS[fun],
    batch=data,
    microbatch_size=SIZE,
    accumulate=accumulate,
  )
  whole, _ = run(mtl.sum_losses(T, labels=LABELS), FORMS[fun], batch=data)
  chex.assert_trees_all_close(state.params, whole.params, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
  ('dtype', 'value'), [(jnp.bfloat16, 1.0), (jnp.float16, 100.0)]
)
@pytest.mark.parametrize('accumulate', ['gradients', 'updates'])
def test_many_parts_in_half_precision(accumulate, dtype, value):
  """256 ones are the most that bfloat16 adds up, and float16 overflows."""
  parts = 1024

  def loss(params, x, model_state, key):
    del key
    seen = jnp.mean(x)
    losses = jnp.stack([jnp.sum(params * seen)] * 2)
    return losses + seen, ({'seen': seen + model_state['seen']}, {'m': seen})

  train = make_train_step(
    mtl.mean(2),
    optax.sgd(1.0),
    loss,
    has_state=True,
    microbatch_size=1,
    accumulate=accumulate,
  )
  state = train.init(
    jnp.zeros(2, dtype),
    key=jax.random.key(0),
    model_state={'seen': jnp.zeros((), dtype)},
  )
  state, metrics = train.step(state, jnp.full((parts, 1), value, dtype))
  assert state.params.dtype == state.model_state['seen'].dtype == dtype
  assert metrics['losses'].dtype == metrics['m'].dtype == dtype
  np.testing.assert_array_equal(state.params, jnp.full(2, -value, dtype))
  np.testing.assert_array_equal(metrics['losses'], jnp.full(2, value, dtype))
  assert metrics['m'] == state.model_state['seen'] == value

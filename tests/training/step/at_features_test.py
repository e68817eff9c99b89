"""Methods that read gradients at the features: masks, parts, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import BATCH, LABELS, PARAMS, SEQUENCE, STAGED, T, plain, run

import mtljax as mtl
from mtljax.training import make_mesh, make_train_step
from mtljax.training.step.sharding import Layout

NAMES = ['ntkmtl_sr', 'cons_mtl']


def build(name, **options):
  return mtl.get_method(name)(T, labels=LABELS, **options)


def make(name='ntkmtl_sr', fun=STAGED, **options):
  return make_train_step(build(name), optax.sgd(1e-3), fun, **options)


@pytest.mark.parametrize('name', NAMES)
def test_absent_tasks_stand_still_and_say_nothing(name):
  """Whatever an absent task's head gives, NaN included."""
  broken = lambda params, z, x: jnp.sum(jnp.log(z - 9) @ params['heads'][1])
  heads = [STAGED.heads[0], broken, STAGED.heads[2]]
  made = make(name, mtl.Staged(STAGED.trunk, heads))
  state = made.init(PARAMS, key=jax.random.key(1))
  here = np.array([True, False, True])
  state, metrics = made.step(state, mtl.MaskedBatch(BATCH, here))
  np.testing.assert_array_equal(state.params['heads'][1], PARAMS['heads'][1])
  assert metrics['weights'][1] == 0
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))

  labels = {'trunk': 'shared', 'heads': [0, 0, 1]}
  two = mtl.get_method(name)(2, labels=labels)
  pair = mtl.Staged(STAGED.trunk, STAGED.heads[::2])
  alone, expected = run(two, pair, steps=1)
  np.testing.assert_allclose(
    metrics['weights'][::2], expected['weights'], rtol=1e-4
  )
  if name == 'ntkmtl_sr':
    np.testing.assert_allclose(
      state.params['trunk']['w'], alone.params['trunk']['w'], rtol=1e-5
    )


def with_state(params, z, args, t):
  batch, model_state, _ = args
  loss = STAGED.heads[t](params, z, batch)
  return loss, mtl.HeadAux({}, {'mean': model_state['mean']})


def test_batch_statistics_behind_the_features_are_refused():
  fun = mtl.Staged(
    lambda params, x, state, key: (STAGED.trunk(params, x), state),
    [
      lambda params, z, *args, t=t: with_state(params, z, args, t)
      for t in range(T)
    ],
  )
  made = make(fun=fun, has_state=True)
  state = made.init(
    PARAMS, key=jax.random.key(0), model_state={'mean': jnp.zeros(6)}
  )
  with pytest.raises(ValueError, match="head 0 changes 'mean'"):
    made.step(state, BATCH)
  norms_fn = mtl.value_and_feature_norms(fun, has_aux=True)
  with pytest.raises(ValueError, match="head 0 changes 'mean'"):
    norms_fn(PARAMS, BATCH, {'mean': jnp.zeros(6)}, None)


def norms_of(trunk, batch=BATCH):
  fun = mtl.Staged(
    trunk, [lambda params, z, x: 1.0 * jnp.sum(jax.tree.leaves(z)[0])]
  )
  return mtl.value_and_feature_norms(fun)(PARAMS, batch)


@pytest.mark.parametrize(
  'call, error, words',
  [
    (lambda: run(build('ntkmtl_sr'), batch=BATCH[:6]), ValueError, r'chunks=4'),
    (lambda: norms_of(lambda p, x: {'z': jnp.sum(x)}), ValueError, "'z' has"),
    (
      lambda: norms_of(lambda p, x: {'a': x, 'b': x[:4]}),
      ValueError,
      'different numbers of examples',
    ),
    (lambda: norms_of(lambda p, x: jnp.arange(16)), ValueError, 'no floating'),
    (lambda: make(fun=plain), ValueError, 'ntkmtl_sr reads gradients at'),
    (lambda: make('cons_mtl', SEQUENCE), ValueError, 'cons_mtl reads gradi'),
    (
      lambda: mtl.value_and_feature_norms(plain),
      ValueError,
      'pass an mtl.Staged',
    ),
    (
      lambda: make(microbatch_size=4, route='jacobian'),
      ValueError,
      "accumulate='updates'",
    ),
    (
      lambda: make('cons_mtl', layout=Layout(make_mesh())),
      ValueError,
      'layout: cons_mtl takes second',
    ),
    (
      lambda: make_train_step(
        mtl.ntkmtl_sr(16), optax.sgd(1e-3), STAGED, tasks='samples'
      ),
      ValueError,
      'ntkmtl_sr reads gradients at the features of all',
    ),
    (lambda: mtl.sam(build('ntkmtl_sr')), TypeError, 'sam: ntkmtl_sr reads'),
    (
      lambda: mtl.flat_regions(build('cons_mtl')),
      TypeError,
      'flat_regions: cons_mtl reads',
    ),
    (
      lambda: mtl.select([build('cons_mtl'), build('mgda')], 0),
      ValueError,
      'cons_mtl moves heads',
    ),
    (
      lambda: mtl.select([build('ntkmtl_sr'), build('ntkmtl_sr', chunks=2)], 0),
      ValueError,
      r'into \[2, 4\] chunks',
    ),
    (
      lambda: build('ntkmtl_sr').update(
        mtl.value_and_task_grads(plain, labels=LABELS)(PARAMS, BATCH)[1],
        build('ntkmtl_sr').init(PARAMS),
      ),
      TypeError,
      'feature_norms=norms',
    ),
    (
      lambda: build('ntkmtl_sr').update(
        mtl.value_and_task_grads(plain, labels=LABELS)(PARAMS, BATCH)[1],
        build('ntkmtl_sr').init(PARAMS),
        feature_norms=jnp.ones((T, 2)),
      ),
      ValueError,
      r'feature_norms has shape \(3, 2\)',
    ),
    (
      lambda: build('cons_mtl').update(
        mtl.value_and_task_grads(plain, labels=LABELS)(PARAMS, BATCH)[1],
        build('cons_mtl').init(PARAMS),
      ),
      TypeError,
      'alignment_fn=mtl.alignment_fn',
    ),
  ],
)
def test_refusals(call, error, words):
  with pytest.raises(error, match=words):
    call()


@pytest.mark.parametrize('name', NAMES)
def test_parts_of_a_batch_average_updates(name):
  """Each part's own weights; every other row belongs to the same part."""
  method = build(name)
  state, _ = run(method, steps=1, microbatch_size=8, accumulate='updates')
  ends = [run(method, steps=1, batch=BATCH[i::2])[0] for i in range(2)]
  mean = sum(end.params['trunk']['w'] for end in ends) / 2
  np.testing.assert_allclose(state.params['trunk']['w'], mean, rtol=1e-5)


@pytest.mark.parametrize('name', NAMES)
def test_injected_numbers_are_as_constants(name):
  numbers = {'power': 0.75} if name == 'ntkmtl_sr' else {'strength': 0.5}
  _, plain_metrics = run(build(name, **numbers), steps=2)
  injected = mtl.inject_hyperparams(mtl.get_method(name))
  _, metrics = run(injected(num_tasks=T, labels=LABELS, **numbers), steps=2)
  np.testing.assert_allclose(
    metrics['weights'], plain_metrics['weights'], rtol=1e-4
  )


def test_select_takes_one_that_reads_features():
  chosen = mtl.select([build('mgda'), build('ntkmtl_sr')], 1)
  _, found = run(chosen, steps=2)
  _, expected = run(build('ntkmtl_sr'), steps=2)
  np.testing.assert_allclose(found['weights'], expected['weights'], rtol=1e-5)

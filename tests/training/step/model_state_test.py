"""What is averaged of a model's state, and what of the metrics."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax.training import make_train_step

T, SIZE = 2, 4
W = jnp.ones(3)
X = jnp.arange(24.0).reshape(8, 3) / 24


def start():
  return {
    'count': jnp.array(0),
    'seen': jnp.array(False),
    'half': jnp.zeros((), jnp.bfloat16),
    'mean': jnp.zeros(()),
    'key': jax.random.key(1),
    'raw': jax.random.PRNGKey(2),
  }


def after(state, x):
  return {
    'count': state['count'] + 1,
    'seen': ~state['seen'],
    'half': state['half'] + 1,
    'mean': jnp.mean(x),
    'key': jax.random.split(state['key'])[0],
    'raw': jax.random.split(state['raw'])[0],
  }


def loss(t, w, z, x):
  return jnp.mean((x @ (w * z) - t) ** 2)


def sequence(t):
  def fun(w, x, state, key):
    del key
    return loss(t, w, 1.0, x), (after(state, x), {'hits': jnp.sum(x > 0.5)})

  return fun


def plain(w, x, state, key):
  del key
  losses = jnp.stack([loss(t, w, 1.0, x) for t in range(T)])
  return losses, (after(state, x), {'hits': jnp.sum(x > 0.5)})


def head(t):
  def fun(w, z, x, state, key):
    del state, key
    return loss(t, w, z, x), {'hits': jnp.sum(x > 0.5)}

  return fun


STAGED = mtl.Staged(
  lambda w, x, state, key: (w, after(state, x)), [head(t) for t in range(T)]
)
FORMS = {
  'plain': plain,
  'staged': STAGED,
  'sequence': [sequence(t) for t in range(T)],
}


def run(fun, batch, steps=1, model_state=None, **options):
  init, step, _ = make_train_step(
    mtl.mgda(T), optax.sgd(0.1), fun, has_state=True, **options
  )
  state = init(
    W,
    key=jax.random.key(0),
    model_state=start() if model_state is None else model_state,
  )
  for _ in range(steps):
    state, metrics = step(state, batch)
  return state.model_state, metrics


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize(
  'options',
  [
    {},
    {'every': 2},
    {'microbatch_size': SIZE},
    {'microbatch_size': SIZE, 'accumulate': 'updates'},
  ],
)
def test_only_what_is_floating_is_averaged(form, options):
  batch = [X, X + 1] if form == 'sequence' else X
  found, metrics = run(FORMS[form], batch, steps=2, **options)
  want = after(after(start(), X), X + 0.5 * (form == 'sequence'))
  for name, value in want.items():
    assert found[name].dtype == value.dtype, name
    assert found[name].shape == value.shape, name
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
      found[name], value = map(jax.random.key_data, (found[name], value))
    np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)
  hits = np.array([jnp.sum(x > 0.5) for x in (X, X + 1)], float)
  if form != 'sequence':
    hits = hits[:1].repeat(1 if form == 'plain' else T)
  parts = 2 if 'microbatch_size' in options else 1
  np.testing.assert_allclose(np.ravel(metrics['hits']), hits / parts)


@pytest.mark.parametrize('accumulate', ['gradients', 'updates'])
def test_whole_numbers_among_metrics_are_not_cut(accumulate):
  """Three hits in one part and four in the other are three and a half."""

  def fun(w, x, state, key):
    losses, _ = plain(w, x, start(), key)
    return losses, (state, {'hits': jnp.sum(x[:, 0] > 0)})

  x = X.at[:, 0].set(jnp.array([1, 1, 1, 1, -1, 1, 1, 1]))
  _, metrics = run(
    fun, x, model_state={}, microbatch_size=4, accumulate=accumulate
  )
  np.testing.assert_allclose(metrics['hits'], 3.5)


def with_metrics(*metrics):
  return mtl.Staged(
    lambda w, x, state, key: (w, state),
    [
      lambda w, z, x, state, key, t=t, m=m: (loss(t, w, z, x), m(z))
      for t, m in enumerate(metrics)
    ],
  )


def test_metrics_are_stacked_where_alike_and_named_where_not():
  staged = with_metrics(
    lambda z: {'acc': z[0], 'auc': z[1], 'map': z},
    lambda z: {'acc': z[1] + 1, 'map': z[:2]},
  )
  for options in ({}, {'every': 2}, {'microbatch_size': SIZE}):
    _, metrics = run(staged, X, model_state={}, **options)
    assert set(metrics) == {
      *('acc', 'auc/0', 'map/0', 'map/1', 'losses', 'weights', 'cosines')
    }
    np.testing.assert_allclose(metrics['acc'], [1, 2])
    np.testing.assert_allclose(metrics['auc/0'], 1)
    assert metrics['map/0'].shape == (3,)
    assert metrics['map/1'].shape == (2,)


def test_metrics_of_a_sequence_with_different_names():
  funs = [
    lambda w, x, state, key, t=t: (loss(t, w, 1.0, x), (state, {f'm{t}': w[0]}))
    for t in range(T)
  ]
  _, metrics = run(funs, [X] * T, model_state={})
  assert {'m0/0', 'm1/1'} < set(metrics)


@pytest.mark.parametrize(
  'fun, message',
  [
    (
      lambda s: {**s, 'count': s['count'] + 0.5},
      r"model_state: 'count' came in as int32\[\].*returned float32\[\]",
    ),
    (
      lambda s: {**s, 'mean': jnp.zeros(2)},
      r"model_state: 'mean' came in as float32\[\].*float32\[2\]",
    ),
    (
      lambda s: {k: v for k, v in s.items() if k != 'mean'},
      r"model_state: the loss returned no 'mean'",
    ),
    (
      lambda s: {**s, 'new': s['mean']},
      r"model_state: the loss returned 'new', which did not come in",
    ),
    (
      lambda s: {**s, 'half': jnp.float32(0)},
      r"model_state: 'half' came in as bfloat16",
    ),
  ],
)
@pytest.mark.parametrize('form', FORMS)
def test_a_state_keeps_its_form(form, fun, message):
  def of_plain(w, x, state, key):
    losses, (_, metrics) = plain(w, x, state, key)
    return losses, (fun(state), metrics)

  def of_sequence(w, x, state, key):
    return loss(0, w, 1.0, x), (fun(state), {})

  losses = {
    'plain': of_plain,
    'staged': mtl.Staged(
      lambda w, x, state, key: (w, fun(state)), STAGED.heads
    ),
    'sequence': [sequence(0), of_sequence],
  }[form]
  batch = [X] * T if form == 'sequence' else X
  with pytest.raises(ValueError, match=message):
    run(losses, batch)


def test_what_the_auxiliary_output_must_be():
  def fun(aux):
    return lambda w, x, state, key: (plain(w, x, start(), key)[0], aux(state))

  for aux, message in (
    (lambda s: s, r'pair \(model_state, metrics\)'),
    (lambda s: (s, [1.0]), 'the metrics must be a dictionary'),
    (lambda s: (s, {'losses': W}), "'losses', which is what the step calls"),
  ):
    with pytest.raises(ValueError, match=message):
      run(fun(aux), X)
  clash = with_metrics(
    lambda z: {'a': z[0], 'a/0': z[0]}, lambda z: {'a/0': z[0]}
  )
  with pytest.raises(ValueError, match="metrics: 'a/0' names two"):
    run(clash, X, model_state={})


@pytest.mark.parametrize('accumulate', ['gradients', 'updates'])
def test_what_differs_between_parts_is_that_of_the_first(accumulate):
  """Part ``i`` has the examples ``i, i + 2, ...`` of the batch."""

  def fun(w, x, state, key):
    losses, _ = plain(w, x, start(), key)
    first = jnp.asarray(1000 * x[0, 0], jnp.int32)
    return losses, ({'first': first, 'flag': first < 100}, {})

  zero = {'first': jnp.array(0, jnp.int32), 'flag': jnp.array(False)}
  x = X.at[:, 0].set(jnp.arange(8.0) / 8)
  found, _ = run(
    fun, x, model_state=zero, microbatch_size=SIZE, accumulate=accumulate
  )
  assert found['first'] == 0 and found['flag']
  found, _ = run(
    fun, x[::-1], model_state=zero, microbatch_size=SIZE, accumulate=accumulate
  )
  assert found['first'] == 875 and not found['flag']


def test_what_differs_between_tasks_is_that_of_the_first():
  def task(t):
    def fun(w, x, state, key):
      del state, key
      return loss(t, w, 1.0, x), ({'task': jnp.array(t + 5, jnp.int32)}, {})

    return fun

  zero = {'task': jnp.array(0, jnp.int32)}
  found, _ = run([task(0), task(1)], [X, X], model_state=zero)
  assert found['task'] == 5

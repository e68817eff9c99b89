"""What losses may return, what they are given, and what parameters may be."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax.training import make_train_step

W = jnp.array([1.0, 2.0])


def losses_of(output, **options):
  return lambda: mtl.value_and_task_grads(lambda w: output(w), **options)(W)


def staged_of(output):
  return lambda: mtl.value_and_task_grads(
    mtl.Staged(lambda w: w, [lambda w, z: output(z)])
  )(W)


def sequence_of(output):
  return lambda: mtl.value_and_task_grads([lambda w, b: output(w)])(W, [0])


PAIR = lambda w: [jnp.sum(w), jnp.sum(w**2)]


@pytest.mark.parametrize(
  'call, error, message',
  [
    (losses_of(PAIR), ValueError, r'got a list of 2. .*jnp\.stack'),
    (
      losses_of(lambda w: tuple(PAIR(w))),
      ValueError,
      r'tuple of 2.*stack',
    ),
    (losses_of(lambda w: {'a': w[0]}), ValueError, r'a dict of 1.*jnp\.stack'),
    (losses_of(lambda w: None), ValueError, r'got None'),
    (losses_of(lambda w: (w, {'n': 1})), ValueError, r'pass has_aux=True'),
    (losses_of(lambda w: w, has_aux=True), TypeError, r'must return a pair'),
    (losses_of(jnp.sum), ValueError, r'shape \(T,\).*got shape \(\)'),
    (losses_of(lambda w: w[None]), ValueError, r'got shape \(1, 2\)'),
    (losses_of(lambda w: w[:0]), ValueError, r'T at least 1; got shape \(0,\)'),
    (losses_of(lambda w: jnp.arange(2)), TypeError, r'floating-point.*int32'),
    (losses_of(lambda w: w + 1j), TypeError, r'must be real; got complex64'),
    (staged_of(PAIR), ValueError, r'loss of task 0 .* a scalar; got a list'),
    (
      staged_of(lambda z: z),
      ValueError,
      r'loss of task 0.*mean over',
    ),
    (staged_of(lambda z: (z[0], {})), ValueError, r'task 0.*has_aux=True'),
    (staged_of(lambda z: jnp.int32(1)), TypeError, r'task 0 .*got int32'),
    (sequence_of(lambda w: w[0] * 1j), TypeError, r'task 0 must be real'),
    (sequence_of(PAIR), ValueError, r'loss of task 0 must be a scalar'),
    (
      lambda: mtl.value_and_gramian(lambda w: PAIR(w), layerwise=True)(W),
      ValueError,
      r'jnp\.stack',
    ),
    (
      lambda: mtl.value_and_sample_gramian(lambda w, x: PAIR(w))(W, W),
      ValueError,
      r'jnp\.stack',
    ),
    (
      lambda: mtl.value_and_task_grads(jnp.cos)({'a': W, 'n': jnp.arange(3)}),
      TypeError,
      r"params: 'n' is int32",
    ),
    (
      lambda: mtl.value_and_task_grads(jnp.cos)({'a': W, 'f': jnp.cos}),
      TypeError,
      r"params: 'f' is ",
    ),
    (lambda: mtl.value_and_task_grads(jnp.cos)(), TypeError, r'argnums=0: '),
  ],
)
def test_one_sentence_each(call, error, message):
  with pytest.raises(error, match=message):
    call()


def test_a_list_that_is_a_pair_is_one_for_has_aux():
  grad_fn = mtl.value_and_task_grads(lambda w: [w**2, 'kept'], has_aux=True)
  (losses, aux), _ = grad_fn(W)
  np.testing.assert_array_equal(losses, [1.0, 4.0])
  assert aux == 'kept'


X = jax.random.normal(jax.random.key(0), (6, 2))
LINEAR = lambda w, x, power, scale: jnp.mean(scale * (x @ w) ** power)
KEYWORD_FORMS = {
  'plain': lambda w, x, *, power, scale: jnp.stack(
    [LINEAR(w, x, power, scale), LINEAR(w, x, power + 1, scale)]
  ),
  'staged': mtl.Staged(
    lambda w, x, *, power, scale: w,
    [
      lambda w, z, x, *, power, scale, t=t: LINEAR(z, x, power + t, scale)
      for t in range(2)
    ],
  ),
  'sequence': [
    lambda w, x, *, power, scale, t=t: LINEAR(w, x, power + t, scale)
    for t in range(2)
  ],
}


@pytest.mark.parametrize('form', KEYWORD_FORMS)
def test_keyword_arguments_go_to_the_losses(form):
  fun, plain = KEYWORD_FORMS[form], KEYWORD_FORMS['plain']
  batch = [X] * 2 if form == 'sequence' else X
  given = {'power': 2, 'scale': jnp.float32(3.0)}
  want = jax.jacrev(plain)(W, X, **given)
  losses, grads = mtl.value_and_task_grads(fun)(W, batch, **given)
  np.testing.assert_allclose(losses, plain(W, X, **given), rtol=1e-6)
  np.testing.assert_allclose(grads, want, rtol=1e-5)
  for layerwise in (False, form != 'sequence'):
    _, gramian = mtl.value_and_gramian(fun, layerwise=layerwise)(
      W, batch, **given
    )
    np.testing.assert_allclose(gramian, want @ want.T, rtol=1e-5)
  if form == 'sequence':
    return
  _, rows = mtl.value_and_sample_grads(fun)(W, X, **given)
  np.testing.assert_allclose(jnp.mean(rows, axis=0), want, rtol=1e-5)
  _, gramian = mtl.value_and_sample_gramian(fun)(W, X, **given)
  np.testing.assert_allclose(
    jnp.mean(gramian, axis=(0, 2)), want @ want.T, rtol=1e-5
  )


def masked_forms(num_tasks=3):
  """A trunk that hands on a mask, counts and a key."""

  def trunk(params, x):
    return {
      'z': jnp.tanh(x @ params['trunk']),
      'mask': x[:, 0] > 0,
      'count': jnp.arange(len(x)),
      'key': jax.random.key(3),
    }

  def head(t, params, found, x):
    noise = jax.random.normal(found['key'], found['count'].shape)
    out = found['z'] @ params['heads'][t] + noise
    return jnp.mean(jnp.where(found['mask'], out - found['count'], 0) ** 2)

  heads = [
    lambda params, z, x, t=t: head(t, params, z, x) for t in range(num_tasks)
  ]

  def plain(params, x):
    z = trunk(params, x)
    return jnp.stack([h(params, z, x) for h in heads])

  return mtl.Staged(trunk, heads), plain


PARAMS = {
  'trunk': jax.random.normal(jax.random.key(1), (2, 4)),
  'heads': [jnp.ones(4) * (t + 1) for t in range(3)],
}
LABELS = {'trunk': 'shared', 'heads': [0, 1, 2]}


@pytest.mark.parametrize('mode', ['unroll', 'vmap', 'map'])
def test_a_mask_among_the_features(mode):
  staged, plain = masked_forms()
  found, want = (
    mtl.value_and_task_grads(fun, labels=LABELS, mode=mode)(PARAMS, X)
    for fun in (staged, plain)
  )
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  'options',
  [
    {'route': 'jacobian'},
    {'route': 'gramian'},
    {'route': 'layerwise'},
    {'route': 'gramian', 'chunk_size': 1},
    {'every': 2},
    {'microbatch_size': 6},
    {'microbatch_size': 6, 'accumulate': 'updates'},
  ],
)
def test_a_mask_among_the_features_by_every_route(options):
  staged, plain = masked_forms()

  def params_of(fun, **options):
    method = mtl.cagrad(3, labels=LABELS)
    init, step, _ = make_train_step(method, optax.sgd(0.1), fun, **options)
    return step(init(PARAMS, key=jax.random.key(0)), X)[0].params

  found, want = params_of(staged, **options), params_of(plain, route='jacobian')
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_features_route_takes_those_that_have_gradients():
  staged, _ = masked_forms()
  method = mtl.mgda(3, labels=LABELS)
  init, step, _ = make_train_step(
    method, optax.sgd(0.1), staged, route='features'
  )
  state, _ = step(init(PARAMS, key=jax.random.key(0)), X)
  features = staged.trunk(PARAMS, X)
  rows = [
    jax.grad(lambda z, h=h: h(PARAMS, features | {'z': z}, X))(features['z'])
    for h in staged.heads
  ]
  rows = jnp.stack(rows).reshape(3, -1)
  np.testing.assert_allclose(
    mtl.get_stats(state)['gramian'], rows @ rows.T, rtol=1e-4
  )


def test_features_without_any_gradient():
  staged = mtl.Staged(
    lambda w, x: x > 0,
    [lambda w, z, x, t=t: jnp.where(z, x @ w, t)[0, 0] for t in range(2)],
  )
  x = jnp.eye(2)
  for mode in ('unroll', 'vmap', 'map'):
    _, grads = mtl.value_and_task_grads(staged, mode=mode)(W, x)
    np.testing.assert_allclose(grads, [[1.0, 0.0]] * 2)
  init, step, _ = make_train_step(
    mtl.mgda(2), optax.sgd(0.1), staged, route='features'
  )
  with pytest.raises(ValueError, match='no floating-point features'):
    step(init(W, key=jax.random.key(0)), x)


def test_a_whole_module_is_refused():
  nnx = pytest.importorskip('flax.nnx')
  net = nnx.Linear(2, 1, rngs=nnx.Rngs(0))

  def task_losses(net, x):
    return jnp.mean(net(x)) * jnp.arange(1.0, 3.0)

  message = r'a whole nnx.Module \(Linear\).*nnx.split.*copy=True'
  init, _, _ = make_train_step(mtl.mgda(2), optax.sgd(0.1), task_losses)
  calls = [
    lambda tree: mtl.value_and_task_grads(task_losses)(tree, X),
    lambda tree: mtl.value_and_gramian(task_losses)(tree, X),
    lambda tree: mtl.value_and_sample_grads(task_losses)(tree, X),
    lambda tree: mtl.value_and_sample_gramian(task_losses)(tree, X),
    lambda tree: init(tree, key=jax.random.key(0)),
    lambda tree: init(W, key=jax.random.key(0), model_state=tree),
    lambda tree: mtl.mgda(2).init(tree),
    lambda tree: mtl.graddrop(2).init(tree),
    lambda tree: mtl.sam(mtl.mgda(2)).init(tree),
  ]
  for call in calls:
    with pytest.raises(TypeError, match=message):
      call(net)
    with pytest.raises(TypeError, match=r"at 'net' a whole nnx.Module"):
      call({'net': net, 'w': W})


def test_the_way_that_a_module_works():
  """Batch statistics and dropout move on from step to step."""
  nnx = pytest.importorskip('flax.nnx')

  class Net(nnx.Module):
    def __init__(self, rngs):
      self.linear = nnx.Linear(2, 4, rngs=rngs)
      self.norm = nnx.BatchNorm(4, rngs=rngs)
      self.drop = nnx.Dropout(0.5, rngs=rngs)
      self.heads = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
      return self.heads(self.drop(self.norm(self.linear(x))))

  graphdef, params, rest = nnx.split(Net(nnx.Rngs(0)), nnx.Param, ...)

  def task_losses(params, x, rest, key):
    del key
    net = nnx.merge(graphdef, params, rest, copy=True)
    losses = jnp.mean(net(x) ** 2, axis=0)
    return losses, (nnx.split(net, nnx.Param, ...)[2], {})

  init, step, _ = make_train_step(
    mtl.mgda(2), optax.sgd(0.0), task_losses, has_state=True
  )
  state = init(params, key=jax.random.key(0), model_state=rest)
  seen = []
  for _ in range(3):
    state, metrics = step(state, X)
    seen.append(np.asarray(metrics['losses']))
  assert not np.array_equal(seen[0], seen[1])  # another mask
  mean = state.model_state['norm']['mean'][...]
  assert bool(jnp.all(mean != 0))
  assert int(state.model_state['drop']['rngs']['count'][...]) == 3

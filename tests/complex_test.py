"""A complex parameter is two real ones: every method has a complex twin."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from battery import LABELS, LOSSES, METHODS, weights_of

import mtljax as mtl
from mtljax import diagnostics
from mtljax.training import make_train_step

EVERY = pytest.mark.parametrize('m', METHODS, ids=lambda m: m.name)
SHARPNESS = {
  'sam': lambda m: mtl.sam(m, rho=0.1),
  'adaptive': lambda m: mtl.sam(m, rho=0.5, ascent='adaptive'),
  'samo': lambda m: mtl.samo(m, rho=0.1),
  'flat': lambda m: mtl.flat_regions(m, rho_shared=0.1),
  'penalty': lambda m: mtl.gradient_norm_penalty(m, rho=0.1, alpha=0.5),
}


def twin(tree):
  """Complex leaves in two real columns."""
  return jax.tree.map(
    lambda x: (
      jnp.stack([x.real, x.imag], -1) if jnp.iscomplexobj(x) else jnp.asarray(x)
    ),
    tree,
  )


def grads_twin(tree):
  """The same of gradients: `jax.grad` gives the conjugate."""
  return twin(jax.tree.map(jnp.conj, tree))


def draw(key, shape):
  a, b = jax.random.normal(key, (2, *shape))
  return a + 1j * b


def make_params():
  keys = jax.random.split(jax.random.key(5), 5)
  return {
    'trunk': {
      'w': draw(keys[0], (3, 4)),
      'b': jax.random.normal(keys[1], (4,)),
    },
    'heads_0': draw(keys[2], (2,)),
    'heads_1': jax.random.normal(keys[3], (2, 2)),
    'fused': draw(keys[4], (2, 3)),
  }


def make_grads(seed):
  """Gradients of two tasks, of real and of complex leaves."""
  params = make_params()
  labels = jax.tree.broadcast(LABELS, params)
  keys = iter(jax.random.split(jax.random.key(seed), 8))

  def one(p, label):
    shape = (2, *p.shape) if label == 'shared' else p.shape
    value = draw(next(keys), shape)
    return value if jnp.iscomplexobj(p) else value.real

  return jax.tree.map(one, params, labels)


@EVERY
def test_update_and_weights(m):
  tx = m(2, labels=LABELS, max_norm=1.5)
  params = make_params()
  one, other = tx.init(params), tx.init(twin(params))
  for step in range(3):
    grads = make_grads(step)
    losses = LOSSES + 0.1 * step
    update, one = tx.update(grads, one, params, losses=losses)
    real, other = tx.update(twin(grads), other, twin(params), losses=losses)
    chex.assert_trees_all_equal_shapes_and_dtypes(update, params)
    chex.assert_trees_all_close(twin(update), real, rtol=1e-4, atol=1e-5)
  if weights_of(one) is not None:
    assert weights_of(one).dtype == jnp.float32
    np.testing.assert_allclose(
      weights_of(one), weights_of(other), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize('by', ['l2', 'loss', 'loss+'])
def test_normalized_rows(by):
  tx = mtl.normalize_tasks(2, normalize=by, labels=LABELS)
  grads = make_grads(0)
  got = tx.update(grads, tx.init(None), losses=LOSSES)[0]
  want = tx.update(twin(grads), tx.init(None), losses=LOSSES)[0]
  chex.assert_trees_all_close(twin(got), want, rtol=1e-5)


def test_gramian_and_kin():
  grads, other = make_grads(0), make_grads(1)
  for fun in (
    lambda a, b: mtl.gramian(a, labels=LABELS),
    lambda a, b: mtl.cross_gramian(a, b, labels=LABELS),
    lambda a, b: diagnostics.sign_conflicts(a, labels=LABELS),
  ):
    got = fun(grads, other)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, fun(twin(grads), twin(other)), rtol=1e-5)


def complex_losses(params, batch):
  """Of complex parameters, that are not the same seen from their conjugate."""
  z = batch @ params['w'] + params['b'][None]
  return jnp.stack(
    [
      jnp.mean(jnp.abs(z - (1 + 2j)) ** 2),
      jnp.mean(jnp.tanh(z.real + 0.3 * z.imag) ** 2 + jnp.abs(z) ** 2),
    ]
  )


def real_losses(params, batch):
  w = jax.lax.complex(params['w'][..., 0], params['w'][..., 1])
  return complex_losses({'w': w, 'b': params['b']}, batch)


def problem():
  keys = jax.random.split(jax.random.key(1), 3)
  params = {'w': draw(keys[0], (3, 2)), 'b': jnp.array([0.3, -0.2])}
  return params, draw(keys[1], (5, 3))


def train(method, route='auto', optimizer=None, steps=3, **kwargs):
  """The parameters after some steps, of both, in real columns."""
  params, batch = problem()
  out = []
  for loss, p in ((complex_losses, params), (real_losses, twin(params))):
    init, step, _ = make_train_step(
      method, optimizer or optax.sgd(0.05), loss, route=route, **kwargs
    )
    state = init(p, key=jax.random.key(0))
    for _ in range(steps):
      state, metrics = step(state, batch)
    out.append((twin(state.params), metrics))
  return out


@pytest.mark.parametrize('route', ['jacobian', 'gramian', 'layerwise'])
@pytest.mark.parametrize('name', ['mgda', 'cagrad', 'nash_mtl'])
def test_train_step_descends(name, route):
  (got, metrics), (want, _) = train(getattr(mtl, name)(2), route)
  chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-5)
  assert metrics['cosines'].dtype == jnp.float32
  start = complex_losses(*problem())
  assert float(jnp.sum(metrics['losses'])) < float(jnp.sum(start))


@pytest.mark.parametrize('route', ['losses', 'jacobian'])
def test_losses_route(route):
  (got, _), (want, _) = train(mtl.uncertainty(2), route)
  chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', SHARPNESS)
def test_sharpness(name):
  (got, _), (want, _) = train(SHARPNESS[name](mtl.cagrad(2)))
  chex.assert_trees_all_close(got, want, rtol=1e-3, atol=1e-4)


def test_an_optimizer_a_task():
  method = mtl.per_task_optimizer(optax.sgd(0.05, momentum=0.9), 2)
  (got, _), (want, _) = train(method, optimizer=optax.identity())
  chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-5)


def test_diagnostics():
  params, batch = problem()
  pair = (complex_losses, params), (real_losses, twin(params))
  for fun in (
    lambda f, p: diagnostics.task_sharpness(f, p, batch, radii=[0.1, 0.5]),
    lambda f, p: diagnostics.flat_gradient_norm(f, p, batch, rho=0.1),
    lambda f, p: (
      diagnostics.hessian_eigenvalues(
        lambda q: jnp.sum(f(q, batch)), p, num=3, key=jax.random.key(0)
      ).values
    ),
    lambda f, p: mtl.value_and_gramian(f)(p, batch)[1],
    lambda f, p: mtl.value_and_gramian(f, layerwise=True)(p, batch)[1],
  ):
    got, want = (fun(*x) for x in pair)
    assert not jnp.iscomplexobj(got)
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=1e-5)


def test_eigenvectors_are_directions_of_the_parameters():
  params, batch = problem()
  fun = lambda p: jnp.sum(complex_losses(p, batch))
  found = diagnostics.hessian_eigenvalues(
    fun, params, num=1, key=jax.random.key(0)
  )
  v = jax.tree.map(lambda x: x[0], found.vectors)
  assert v['w'].dtype == jnp.complex64
  at = lambda r: fun(jax.tree.map(lambda p, d: p + r * d, params, v))
  second = jax.grad(jax.grad(at))(0.0)
  np.testing.assert_allclose(second, found.values[0], rtol=1e-3)


def test_value_and_task_grads_are_those_of_jax():
  params, batch = problem()
  _, grads = mtl.value_and_task_grads(complex_losses)(params, batch)
  for t in range(2):
    want = jax.grad(lambda p, t=t: complex_losses(p, batch)[t])(params)
    got = jax.tree.map(lambda x, t=t: x[t], grads)
    chex.assert_trees_all_close(got, want, rtol=1e-5)

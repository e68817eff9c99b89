import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import mtljax as mtl
from mtljax.diagnostics import flat_gradient_norm, task_sharpness

RADII = (0.01, 0.05)
BATCHES = {'sequence': [toy.BATCH] * toy.T}


def _steps(t, rho, norms):
  """The perturbation of task t by hand: on the trunk and on its head."""
  grads = jax.grad(lambda p: toy.plain(p, toy.BATCH)[t])(toy.PARAMS)
  square = lambda tree: sum(jnp.sum(x**2) for x in jax.tree.leaves(tree))
  shared, own = square(grads['trunk']), square(grads['heads'][t])
  if norms == 'joint':
    shared = own = shared + own
  heads = [jnp.zeros_like(h) for h in grads['heads']]
  heads[t] = rho * grads['heads'][t] / jnp.sqrt(own)
  trunk = jax.tree.map(lambda g: rho * g / jnp.sqrt(shared), grads['trunk'])
  return {'trunk': trunk, 'heads': heads}


def _moved(t, rho, norms):
  return jax.tree.map(jnp.add, toy.PARAMS, _steps(t, rho, norms))


@pytest.mark.parametrize(
  ('form', 'norms', 'mode'),
  [
    ('plain', 'separate', 'map'),
    ('staged', 'joint', 'unroll'),
    ('sequence', 'separate', 'vmap'),
  ],
)
def test_ascent_is_the_rise_at_the_perturbed_point(form, norms, mode):
  batch = BATCHES.get(form, toy.BATCH)
  got = jax.jit(
    lambda p: task_sharpness(
      toy.FORMS[form],
      p,
      batch,
      labels=toy.LABELS,
      radii=RADII,
      norms=norms,
      mode=mode,
    )
  )(toy.PARAMS)
  losses = jax.jit(toy.plain)
  clean = losses(toy.PARAMS, toy.BATCH)
  expected = [
    [
      (losses(_moved(t, rho, norms), toy.BATCH) - clean)[t]
      for t in range(toy.T)
    ]
    for rho in RADII
  ]
  assert got.shape == (2, toy.T)
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=3e-6)


SCALES = jnp.array([1.0, 100.0])


def _bowls(params):
  """Quadratic losses with their minimum at zero."""
  own = jnp.sum(params['heads'] ** 2, axis=1)
  return SCALES / 2 * (jnp.sum(params['trunk'] ** 2) + own)


BOTTOM = {'trunk': jnp.zeros(3), 'heads': jnp.zeros((2, 4))}
BOWL_LABELS = {'trunk': 'shared', 'heads': 'stacked'}


@pytest.mark.parametrize(('norms', 'squares'), [('separate', 2), ('joint', 1)])
def test_random_directions_have_the_length_asked_for(norms, squares):
  got = task_sharpness(
    _bowls,
    BOTTOM,
    labels=BOWL_LABELS,
    radii=jnp.array([0.1, 0.2]),
    direction='random',
    norms=norms,
    key=jax.random.key(0),
    num_samples=3,
    mode='vmap',
  )
  expected = squares / 2 * jnp.outer(jnp.array([0.01, 0.04]), SCALES)
  np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_random_samples_differ_and_are_averaged():
  def slope(w):
    return jnp.stack([w[0], w[0]])

  draw = jax.jit(
    lambda key: task_sharpness(
      slope,
      jnp.zeros(2),
      radii=[1.0],
      direction='random',
      key=key,
      num_samples=400,
      mode='vmap',
    )
  )
  got = draw(jax.random.key(0))
  assert got[0, 0] != got[0, 1]
  assert jnp.all(jnp.abs(got) < 0.2)  # the deviation is 0.035
  assert not jnp.array_equal(got, draw(jax.random.key(1)))


def test_at_a_minimum_ascent_sees_no_direction():
  got = task_sharpness(_bowls, BOTTOM, labels=BOWL_LABELS)
  np.testing.assert_array_equal(got, jnp.zeros((2, 2)))
  flat = flat_gradient_norm(_bowls, BOTTOM, labels=BOWL_LABELS)
  np.testing.assert_array_equal(flat, jnp.zeros(2))


def test_flat_gradient_tends_to_the_gradient_of_the_norms(x64):
  params = jax.tree.map(lambda x: x.astype(jnp.float64), toy.PARAMS)
  batch = toy.BATCH.astype(jnp.float64)

  def lengths(trunk, t):
    def loss(trunk, own):
      heads = [own if i == t else h for i, h in enumerate(params['heads'])]
      return toy.plain({'trunk': trunk, 'heads': heads}, batch)[t]

    grads = jax.grad(loss, (0, 1))(trunk, params['heads'][t])
    shared = sum(jnp.sum(x**2) for x in jax.tree.leaves(grads[0]))
    return jnp.sqrt(shared) + jnp.sqrt(jnp.sum(grads[1] ** 2))

  expected = []
  for t in range(toy.T):
    grads = jax.grad(lengths)(params['trunk'], t)
    square = sum(jnp.sum(x**2) for x in jax.tree.leaves(grads))
    expected.append(jnp.sqrt(square))
  norms = jax.jit(
    lambda rho: flat_gradient_norm(
      toy.STAGED, params, batch, labels=toy.LABELS, rho=rho
    )
  )
  for rho in (1e-2, 1e-4):
    np.testing.assert_allclose(norms(rho) / rho, expected, rtol=30 * rho)


def test_has_aux_and_a_task_that_is_not_finite():
  funs = [lambda w, x: (w[0] ** 2, x), lambda w, x: (jnp.nan * w[1], x)]
  got = task_sharpness(funs, jnp.ones(2), [0, 0], radii=[0.5], has_aux=True)
  np.testing.assert_allclose(got, [[1.25, jnp.nan]])


def test_wrong_arguments_are_named():
  loss = lambda w: w
  with pytest.raises(ValueError, match="direction='ascend'.*'ascent'"):
    task_sharpness(loss, jnp.ones(2), direction='ascend')
  with pytest.raises(ValueError, match='radii=-0.1'):
    task_sharpness(loss, jnp.ones(2), radii=[-0.1])
  with pytest.raises(ValueError, match='key=None'):
    task_sharpness(loss, jnp.ones(2), direction='random')
  for radii in [], 0.05:
    with pytest.raises(ValueError, match='radii must be a list'):
      task_sharpness(loss, jnp.ones(2), radii=radii)
  with pytest.raises(ValueError, match='rho=-1'):
    flat_gradient_norm(loss, jnp.ones(2), rho=-1)
  with pytest.raises(ValueError, match="norms='both'"):
    flat_gradient_norm(loss, jnp.ones(2), norms='both')


def test_the_flat_method_perturbs_alike():
  """The same point as `flat_regions` takes its gradients at."""
  losses, grads = mtl.value_and_task_grads(toy.plain, labels=toy.LABELS)(
    toy.PARAMS, toy.BATCH
  )
  seen = []

  def spy(params, t):
    seen.append(params)
    return mtl.task_grad_fn(toy.plain, toy.BATCH)(params, t)

  method = mtl.flat_regions(
    mtl.sum_losses(toy.T, labels=toy.LABELS), rho_shared=0.05
  )
  method.update(
    grads,
    method.init(toy.PARAMS),
    toy.PARAMS,
    losses=losses,
    task_grad_fn=spy,
  )
  expected = jnp.stack(
    [toy.plain(p, toy.BATCH)[t] - losses[t] for t, p in enumerate(seen)]
  )
  got = task_sharpness(
    toy.plain, toy.PARAMS, toy.BATCH, labels=toy.LABELS, radii=[0.05]
  )
  np.testing.assert_allclose(got[0], expected, rtol=1e-4, atol=1e-6)

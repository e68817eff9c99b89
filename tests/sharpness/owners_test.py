"""A leaf that a task owns and another may read: the sum, as by plain routes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax.training import make_train_step

T, B, D = 3, 8, 5
KEYS = jax.random.split(jax.random.key(0), 5)
PARAMS = {
  'trunk': jax.random.normal(KEYS[0], (D, 6)),
  'heads': [jax.random.normal(k, (6,)) for k in KEYS[1:4]],
}
STACKED = {'trunk': PARAMS['trunk'], 'heads': jnp.stack(PARAMS['heads'])}
LABELS = {'trunk': 'shared', 'heads': [0, 1, 2]}
STACKED_LABELS = {'trunk': 'shared', 'heads': 'stacked'}
SIDES = {'apart': (PARAMS, LABELS), 'stacked': (STACKED, STACKED_LABELS)}
X = jax.random.normal(KEYS[4], (B, D))
WEIGHTS = jnp.array([1.0, 3.0, 0.5])
RHO = 0.3


def trunk(params, x):
  return jnp.tanh(x @ params['trunk'])


def head(t, tangled, params, z, x):
  """Task 1 reads the head of task 0, through a factor that may be a mask."""
  out = z @ params['heads'][t]
  if t == 1 and tangled:
    out = out - z @ (params['heads'][0] * X[0, 0])
  return jnp.mean((out - 1) ** 2)


def forms(tangled=True):
  heads = [functools.partial(head, t, tangled) for t in range(T)]

  def loss(t, params, x):
    return heads[t](params, trunk(params, x), x)

  return {
    'plain': lambda p, x: jnp.stack([h(p, trunk(p, x), x) for h in heads]),
    'staged': mtl.Staged(trunk, heads),
    'sequence': [functools.partial(loss, t) for t in range(T)],
  }


def batch(form):
  return [X] * T if form == 'sequence' else X


def losses_of(params, tangled=True):
  return forms(tangled)['plain'](params, X)


def method(labels):
  return mtl.fixed(
    T, weights=list(map(float, WEIGHTS)), labels=labels, weight_heads=True
  )


def weighed(of_tasks, params):
  """The gradients ``(T, ...)`` of the tasks' losses, as a method weighs them.

  Of an owned leaf it is the sum over the tasks, times the weight of the owner.
  """
  heads = jax.tree.map(lambda g: jnp.sum(g, axis=0), of_tasks['heads'])
  if isinstance(params['heads'], list):
    heads = [w * g for w, g in zip(WEIGHTS, heads, strict=True)]
  else:
    heads = WEIGHTS[:, None] * heads
  whole = jnp.einsum('t,t...->...', WEIGHTS, of_tasks['trunk'])
  return {'trunk': whole, 'heads': heads}


def moved(gradient):
  """A step of length RHO along a list of gradients."""
  norm = optax.tree.norm(gradient)
  return [RHO * g / norm for g in gradient]


def gradients_at(points):
  """Task t's gradient at its point."""
  found = [
    jax.grad(lambda p, t=t: losses_of(p)[t])(point)
    for t, point in enumerate(points)
  ]
  return jax.tree.map(lambda *x: jnp.stack(x), *found)


def sam_points(params):
  summed = jax.grad(lambda p: jnp.sum(losses_of(p)))(params)
  leaves, treedef = jax.tree.flatten(summed)
  step = jax.tree.unflatten(treedef, moved(leaves))
  return [jax.tree.map(jnp.add, params, step)] * T


def own_points(params, trunk_moves):
  """Each task's trunk moved as said, and its head along its gradient."""
  summed = jax.grad(lambda p: jnp.sum(losses_of(p)))(params)['heads']
  points = []
  for t in range(T):
    (step,) = moved([summed[t]])
    if isinstance(params['heads'], list):
      heads = [h + step if s == t else h for s, h in enumerate(params['heads'])]
    else:
      heads = params['heads'].at[t].add(step)
    points.append({'trunk': params['trunk'] + trunk_moves[t], 'heads': heads})
  return points


def flat_points(params):
  rows = jax.jacrev(losses_of)(params)['trunk']
  return own_points(params, [moved([row])[0] for row in rows])


def samo_points(params):
  rows = jax.jacrev(losses_of)(params)['trunk']
  return own_points(params, [moved([jnp.mean(rows, axis=0)])[0]] * T)


WRAPPERS = {
  'sam': (lambda m: mtl.sam(m, rho=RHO), sam_points),
  'samo': (lambda m: mtl.samo(m, rho=RHO, beta=0.0), samo_points),
  'flat_regions': (lambda m: mtl.flat_regions(m, rho_shared=RHO), flat_points),
  'flat_regions, two calls': (
    lambda m: mtl.flat_regions(m, rho_shared=RHO, aggregation='second'),
    None,
  ),
  'in a loop': (
    lambda m: mtl.flat_regions(m, rho_shared=RHO, mode='map'),
    flat_points,
  ),
  'gradient_norm': (
    lambda m: mtl.gradient_norm_penalty(m, rho=RHO, alpha=1.0),
    flat_points,
  ),
}
KNOWN = {k: v for k, v in WRAPPERS.items() if v[1]}


def optax_face(wrap, params, labels, form, tangled=True, **options):
  fun = forms(tangled)[form]
  tx = wrap(method(labels))
  losses, grads = mtl.value_and_task_grads(fun, labels=labels)(
    params, batch(form)
  )
  return tx.update(
    grads,
    tx.init(params),
    params,
    losses=losses,
    task_grad_fn=mtl.task_grad_fn(fun, batch(form)),
    **options,
  )[0]


def train_step(wrap, params, labels, form, **options):
  init, step, _ = make_train_step(
    wrap(method(labels)), optax.sgd(1.0), forms()[form], **options
  )
  state, _ = step(init(params, key=jax.random.key(0)), batch(form))
  return jax.tree.map(lambda a, b: a - b, params, state.params)


def close(a, b, rtol=1e-4):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-5)


@pytest.mark.parametrize('side', SIDES)
@pytest.mark.parametrize('name', KNOWN)
def test_the_optax_face(name, side):
  params, labels = SIDES[side]
  wrap, points = WRAPPERS[name]
  want = weighed(gradients_at(points(params)), params)
  for form in ('plain', 'staged', 'sequence'):
    close(optax_face(wrap, params, labels, form), want)


@pytest.mark.parametrize('side', SIDES)
@pytest.mark.parametrize('name', KNOWN)
def test_the_train_step(name, side):
  params, labels = SIDES[side]
  wrap, points = WRAPPERS[name]
  want = weighed(gradients_at(points(params)), params)
  close(train_step(wrap, params, labels, 'staged'), want)


def test_a_task_that_does_not_move_is_not_counted_twice():
  """Loss 0 stands still and reads nothing; of its head, task 1's part moves."""
  params = {'trunk': jnp.array([1.0, 2.0]), 'head': jnp.array([0.5, -1.0])}
  labels = {'trunk': 'shared', 'head': 0}
  factor = jnp.array(2.0)

  def fun(p, x):
    other = jnp.sum(jnp.sin(p['trunk'] * (p['head'] * x)))
    return jnp.stack([0.0 * x * jnp.sum(p['head']), other])

  tx = mtl.flat_regions(
    mtl.sum_losses(2, labels=labels), rho_shared=RHO, perturb_heads=False
  )
  losses, grads = mtl.value_and_task_grads(fun, labels=labels)(params, factor)
  found, _ = tx.update(
    grads,
    tx.init(params),
    params,
    losses=losses,
    task_grad_fn=mtl.task_grad_fn(fun, factor),
  )
  (step,) = moved([grads['trunk'][1]])
  there = {**params, 'trunk': params['trunk'] + step}
  want = jax.grad(lambda p: fun(p, factor)[1])(there)['head']
  np.testing.assert_allclose(found['head'], want, rtol=1e-5)


@pytest.mark.parametrize('name', WRAPPERS)
def test_a_task_alone_keeps_its_own(name):
  """Nobody else reads the heads: each has its task's gradient, to the bit."""
  if name == 'flat_regions, two calls':
    wrap = lambda m: mtl.flat_regions(mtl.mgda(T, labels=LABELS))
  else:
    wrap = WRAPPERS[name][0]
  clean = optax_face(wrap, PARAMS, LABELS, 'staged', tangled=False)
  mask = jnp.array([True, True, False])
  absent = optax_face(
    wrap, PARAMS, LABELS, 'staged', tangled=False, task_mask=mask
  )
  assert not np.any(absent['heads'][2])
  if name not in ('sam', 'samo'):  # whose norms are over all tasks
    for t in range(2):
      scale = clean['heads'][t] / absent['heads'][t]
      np.testing.assert_allclose(scale, scale[0], rtol=1e-4)

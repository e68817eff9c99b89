"""A leaf that a task owns and another reads: refused, or one definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax.training import Layout, make_mesh, make_train_step

T, B, D = 2, 8, 5
KEYS = jax.random.split(jax.random.key(0), 4)
PARAMS = {
  'trunk': jax.random.normal(KEYS[0], (D, 6)),
  'heads': [jax.random.normal(k, (6,)) for k in KEYS[1:3]],
}
STACKED = {'trunk': PARAMS['trunk'], 'heads': jnp.stack(PARAMS['heads'])}
LABELS = {'trunk': 'shared', 'heads': [0, 1]}
STACKED_LABELS = {'trunk': 'shared', 'heads': 'stacked'}
X = jax.random.normal(KEYS[3], (B, D))
WEIGHTS = jnp.array([1.0, 3.0])


def trunk(params, x):
  return jnp.tanh(x @ params['trunk'])


def read(head, z, t):
  return head


def cut(head, z, t):
  return jax.lax.stop_gradient(head)


def forms(other=read):
  """Task 1's loss reads the head of task 0, by ``other``."""

  def head(t, params, z, x):
    out = z @ params['heads'][t]
    if t == 1:
      out = out - z @ other(params['heads'][0], z, t)
    return jnp.mean((out - 1) ** 2)

  heads = [functools.partial(head, t) for t in range(T)]

  def plain(params, x):
    return jnp.stack([h(params, trunk(params, x), x) for h in heads])

  def loss(t, params, x):
    return heads[t](params, trunk(params, x), x)

  return {
    'plain': plain,
    'staged': mtl.Staged(trunk, heads),
    'sequence': [functools.partial(loss, t) for t in range(T)],
  }


def masked_forms():
  """As well, through a factor that may be a mask, of which nothing is known."""

  def other(head, z, t):
    return head * X[0, 0]

  return forms(other)


def in_a_loop(params, x):
  """The same, by one operation for all tasks."""
  z = trunk(params, x)
  heads = jnp.stack(list(params['heads']))
  others = jnp.stack([jnp.zeros(6), params['heads'][0] * X[0, 0]])
  return jax.lax.map(
    lambda h: jnp.mean((z @ h[0] - z @ h[1] - 1) ** 2), (heads, others)
  )


def batch(form):
  return [X] * T if form == 'sequence' else X


@pytest.mark.parametrize('form', ['plain', 'staged', 'sequence'])
@pytest.mark.parametrize('params', ['apart', 'stacked'])
def test_what_is_proven_is_refused(form, params):
  params, labels = {
    'apart': (PARAMS, LABELS),
    'stacked': (STACKED, STACKED_LABELS),
  }[params]
  message = "labels: 'heads.*task 0.*the loss of task 1 depends.*stop_gradient"
  for transform in (
    mtl.value_and_task_grads,
    mtl.value_and_gramian,
    functools.partial(mtl.value_and_gramian, layerwise=form != 'sequence'),
  ):
    with pytest.raises(ValueError, match=message):
      transform(forms()[form], labels=labels)(params, batch(form))
  for route in ('jacobian', 'gramian', 'losses'):
    with pytest.raises(ValueError, match=message):
      step_of(forms()[form], params, labels, batch(form), route=route)


@pytest.mark.parametrize('form', ['plain', 'staged', 'sequence'])
def test_what_is_cut_is_each_tasks_own(form):
  _, grads = mtl.value_and_task_grads(forms(cut)[form], labels=LABELS)(
    PARAMS, batch(form)
  )
  full = jax.jacrev(forms(cut)['plain'])(PARAMS, X)
  for t in range(T):
    np.testing.assert_allclose(
      grads['heads'][t], full['heads'][t][t], rtol=1e-5
    )


def test_a_trunk_that_reads_a_head():
  def attending(params, x):
    return jnp.tanh(x @ params['trunk']) * jnp.tanh(params['heads'][1])[None]

  heads = [lambda p, z, x, t=t: jnp.mean(z + t) for t in range(T)]
  grad_fn = mtl.value_and_task_grads(
    mtl.Staged(attending, heads), labels=LABELS
  )
  with pytest.raises(ValueError, match=r"'heads/1'.*loss of task 0 depends"):
    grad_fn(PARAMS, X)
  only = mtl.value_and_task_grads(
    mtl.Staged(attending, heads[:1]),
    labels={'trunk': 'shared', 'heads': ['shared', 0]},
  )
  assert jnp.any(only(PARAMS, X)[1]['heads'][1] != 0)


def step_of(fun, params, labels, data, every=1, steps=1, **options):
  method = mtl.fixed(
    T, weights=list(map(float, WEIGHTS)), labels=labels, weight_heads=True
  )
  init, step, _ = make_train_step(
    method, optax.sgd(1.0), fun, every=every, **options
  )
  state = init(params, key=jax.random.key(0))
  for _ in range(steps):
    before = jax.tree.map(np.array, state.params)
    state, _ = step(state, data)
  return jax.tree.map(lambda a, b: a - b, before, state.params)


def expected(fun, params, stacked=False):
  """The sum over tasks, times the weight of the owner."""
  full = jax.tree.map(
    lambda g: jnp.einsum('t,t...->...', WEIGHTS, g),
    jax.jacrev(fun)(params, X)['trunk'],
  )
  whole = jax.grad(lambda p: jnp.sum(fun(p, X)))(params)['heads']
  own = (
    whole * WEIGHTS[:, None]
    if stacked
    else [g * w for g, w in zip(whole, WEIGHTS, strict=True)]
  )
  return {'trunk': full, 'heads': own}


def close(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


ROUTES = {
  'jacobian': {'route': 'jacobian'},
  'gramian': {'route': 'gramian'},
  'layerwise': {'route': 'layerwise'},
  'features': {'route': 'features'},
  'losses': {'route': 'losses'},
  'held': {'route': 'losses', 'every': 2},
  'parts': {'microbatch_size': 4},
  'updates': {'microbatch_size': 4, 'accumulate': 'updates'},
  'layout': {'layout': Layout(make_mesh())},
}


CASES = [
  (form, route)
  for form in ('plain', 'staged', 'sequence', 'loop')
  for route in ROUTES
  if (form, route) != ('sequence', 'layerwise')
  and (form == 'staged' or route != 'features')
]


@pytest.mark.parametrize('form, route', CASES)
def test_what_is_not_known_is_the_same_by_every_route(form, route):
  fun = {**masked_forms(), 'loop': in_a_loop}[form]
  want = expected(masked_forms()['plain'], PARAMS)
  close(step_of(fun, PARAMS, LABELS, batch(form), **ROUTES[route]), want)


@pytest.mark.parametrize('form', ['plain', 'staged', 'sequence', 'loop'])
def test_rows_of_a_stacked_leaf_too(form):
  fun = {**masked_forms(), 'loop': in_a_loop}[form]
  want = expected(masked_forms()['plain'], STACKED, stacked=True)
  for route in ('jacobian', 'gramian', 'losses'):
    found = step_of(fun, STACKED, STACKED_LABELS, batch(form), route=route)
    close(found, want)


@pytest.mark.parametrize('form', ['plain', 'staged', 'sequence', 'loop'])
def test_the_optax_face_agrees(form):
  fun = {**masked_forms(), 'loop': in_a_loop}[form]
  method = mtl.fixed(
    T, weights=list(map(float, WEIGHTS)), labels=LABELS, weight_heads=True
  )
  losses, grads = mtl.value_and_task_grads(fun, labels=LABELS)(
    PARAMS, batch(form)
  )
  found = method.update(grads, method.init(PARAMS), PARAMS, losses=losses)[0]
  close(found, expected(masked_forms()['plain'], PARAMS))


def test_a_method_with_a_gramian():
  """Weights of the shared leaves are none of the heads' matter."""
  for form, fun in {**masked_forms(), 'loop': in_a_loop}.items():
    found = []
    for route in ('jacobian', 'gramian', 'layerwise'):
      if form == 'sequence' and route == 'layerwise':
        continue
      init, step, _ = make_train_step(
        mtl.fairgrad(T, labels=LABELS, weight_heads=True),
        optax.sgd(1.0),
        fun,
        route=route,
      )
      state, _ = step(init(PARAMS, key=jax.random.key(0)), batch(form))
      found.append(jax.tree.map(lambda a, b: a - b, PARAMS, state.params))
    for other in found[1:]:
      close(other, found[0])


def test_owners_that_do_not_exist():
  grad_fn = mtl.value_and_task_grads(
    forms(cut)['plain'], labels={'trunk': 'shared', 'heads': [0, 2]}
  )
  with pytest.raises(ValueError, match="labels: 'heads/1' is labelled 2"):
    grad_fn(PARAMS, X)
  grad_fn = mtl.value_and_task_grads(
    forms(cut)['plain'], labels={'trunk': 'stacked', 'heads': [0, 1]}
  )
  with pytest.raises(ValueError, match="labels: 'trunk' is labelled 'stacked'"):
    grad_fn(PARAMS, X)

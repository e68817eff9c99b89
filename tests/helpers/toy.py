"""A small problem of three tasks in every form of loss, and how to train it."""

import jax
import jax.numpy as jnp
import optax
from jax.extend import core

import mtljax as mtl
from mtljax.training import make_train_step

T = 3
KEYS = jax.random.split(jax.random.key(0), 8)
PARAMS = {
  'trunk': {'w': jax.random.normal(KEYS[0], (4, 6)), 'b': jnp.ones(6)},
  'heads': [jax.random.normal(KEYS[1 + t], (6,)) for t in range(T)],
}
LABELS = {'trunk': 'shared', 'heads': [0, 1, 2]}
BATCH = jax.random.normal(KEYS[5], (16, 4))


def trunk(params, x):
  return jnp.tanh(x @ params['trunk']['w'] + params['trunk']['b'][None])


HEADS = [
  lambda params, z, x, t=t: (
    10.0**t * jnp.mean((z @ params['heads'][t] - x[:, t]) ** 2)
  )
  for t in range(T)
]
STAGED = mtl.Staged(trunk, HEADS)


def plain(params, x):
  z = trunk(params, x)
  return jnp.stack([head(params, z, x) for head in HEADS])


SEQUENCE = [
  lambda params, x, t=t: HEADS[t](params, trunk(params, x), x) for t in range(T)
]
FORMS = {'plain': plain, 'staged': STAGED, 'sequence': SEQUENCE}


def run(method, fun=STAGED, steps=4, batch=BATCH, params=PARAMS, **options):
  """Parameters and metrics after some steps."""
  train = make_train_step(method, optax.sgd(1e-3), fun, **options)
  params = jax.tree.map(jnp.array, params)  # the step donates its state
  state = train.init(params, key=jax.random.key(1))
  for _ in range(steps):
    state, metrics = train.step(state, batch)
  return state, metrics


def as_optax(method, steps=4):
  """The same by hand, on the optax face."""
  tx = optax.chain(method, optax.sgd(1e-3))
  params, state = PARAMS, tx.init(PARAMS)
  grad_fn = mtl.value_and_task_grads(plain, labels=LABELS)
  for _ in range(steps):
    losses, grads = grad_fn(params, BATCH)
    updates, state = tx.update(
      grads,
      state,
      params,
      losses=losses,
      task_grad_fn=mtl.task_grad_fn(plain, BATCH),
    )
    params = optax.apply_updates(params, updates)
  return params, mtl.get_weights(state)


def deep_stack(num_tasks, depth, width):
  """Parameters, labels and loss of wide layers, which take all the memory."""
  params = {
    'layers': [jnp.eye(width)] * depth,
    'heads': [jnp.ones(width)] * num_tasks,
  }
  labels = {'layers': 'shared', 'heads': list(range(num_tasks))}

  def deep(params, x):
    for w in params['layers']:
      x = jnp.tanh(x @ w)
    return x

  heads = [
    lambda p, z, x, t=t: jnp.mean((z @ p['heads'][t] - t) ** 2)
    for t in range(num_tasks)
  ]
  return params, labels, mtl.Staged(deep, heads)


GRAMIAN_METHODS = {
  'mgda': mtl.mgda(T, labels=LABELS),
  'cagrad': mtl.cagrad(T, labels=LABELS, scale=3.0),
  'imtl_g': mtl.imtl_g(T, labels=LABELS),
  'nash_mtl': mtl.nash_mtl(T, labels=LABELS),
  'fairgrad': mtl.fairgrad(T, labels=LABELS, weight_heads=True),
}
LOSS_METHODS = {
  'sum_losses': mtl.sum_losses(T, labels=LABELS, max_norm=1.0),
  'uncertainty': mtl.uncertainty(T, labels=LABELS),
  'fixed': mtl.fixed(T, weights=[1.0, 0.5, 0.0], labels=LABELS),
  'mean': mtl.mean(T, labels=LABELS),
}
RANDOM_METHODS = {
  'rlw': mtl.rlw(T, labels=LABELS),
  'pcgrad': mtl.pcgrad(T, labels=LABELS),
}


def products(jaxpr):
  """Matrix products outside of conditionals, and in each of their branches."""
  outside, branches = 0, []
  for eqn in jaxpr.eqns:
    outside += eqn.primitive.name == 'dot_general'
    found = [products(sub) for sub in core.jaxprs_in_params(eqn.params)]
    if eqn.primitive.name == 'cond':
      branches += [count + sum(inside) for count, inside in found]
    else:
      outside += sum(count for count, _ in found)
      branches += sum((inside for _, inside in found), [])
  return outside, branches

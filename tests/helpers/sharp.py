"""A small network with heads, and the paper's phase two written out."""

import jax
import jax.numpy as jnp
import optax

import mtljax as mtl

T = 3
KEYS = jax.random.split(jax.random.key(0), 8)
PARAMS = {
  'trunk': {'w': jax.random.normal(KEYS[0], (4, 6)), 'b': jnp.ones(6)},
  'heads': [jax.random.normal(KEYS[1 + t], (6,)) for t in range(T)],
}
LABELS = {'trunk': 'shared', 'heads': [0, 1, 2]}
X = jax.random.normal(KEYS[5], (16, 4))


def trunk(params, x):
  bias = params['trunk']['b'][None]
  return jnp.tanh(x @ params['trunk']['w'] + bias.astype(x.dtype))


HEADS = [
  lambda params, z, x, t=t: jnp.mean(
    (jnp.sin(z @ params['heads'][t]) - x[:, t]) ** 2
  )
  for t in range(T)
]
STAGED = mtl.Staged(trunk, HEADS)


def losses_of(params, x):
  z = trunk(params, x)
  return jnp.stack([h(params, z, x) for h in HEADS])


def update_of(method, params=PARAMS, x=X, **options):
  grad_fn = mtl.value_and_task_grads(STAGED, labels=method.labels)
  losses, grads = grad_fn(params, x)
  return method.update(
    grads,
    method.init(params),
    params,
    losses=losses,
    task_grad_fn=mtl.task_grad_fn(STAGED, x),
    **options,
  )


def task_gradient(params, t, x=X):
  return jax.grad(lambda p: losses_of(p, x)[t])(params)


def unit(tree):
  norm = optax.tree.norm(tree)
  return jax.tree.map(lambda g: g / norm, tree)


def sam_gradient(t, rho_shared, rho_task, params=PARAMS, x=X):
  """The paper's phase two, written out: two norms, the head moves too."""
  g = task_gradient(params, t, x)
  moved = {
    'trunk': jax.tree.map(
      lambda p, e: p + rho_shared * e, params['trunk'], unit(g['trunk'])
    ),
    'heads': list(params['heads']),
  }
  moved['heads'][t] = params['heads'][t] + rho_task * unit(g['heads'][t])
  return task_gradient(moved, t, x)


LINEAR = [
  mtl.sum_losses(T, labels=LABELS),
  mtl.mean(T, labels=LABELS),
  mtl.fixed(T, weights=[1.0, 0.2, 3.0], labels=LABELS),
  mtl.fixed(T, weights=[1.0, 0.2, 3.0], labels=LABELS, weight_heads=False),
  mtl.rlw(T, labels=LABELS),
]
NONLINEAR = [
  mtl.mgda(T, labels=LABELS),
  mtl.pcgrad(T, labels=LABELS),
  mtl.cagrad(T, labels=LABELS),
  mtl.imtl_g(T, labels=LABELS),
  mtl.nash_mtl(T, labels=LABELS),
  mtl.fairgrad(T, labels=LABELS),
]


def by_name(m):
  return m.info.name


def direct(method, rho_shared, rho_task):
  """The method applied to the SAM gradients themselves."""
  sams = [sam_gradient(t, rho_shared, rho_task) for t in range(T)]
  grads = {
    'trunk': jax.tree.map(lambda *g: jnp.stack(g), *[s['trunk'] for s in sams]),
    'heads': [s['heads'][t] for t, s in enumerate(sams)],
  }
  losses = losses_of(PARAMS, X)
  return method.update(grads, method.init(PARAMS), PARAMS, losses=losses)[0]

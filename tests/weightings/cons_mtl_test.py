"""ConsMTL, against Hessians that are formed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax.training import make_train_step

T = 3
LABELS = {'trunk': 'shared', 'heads': [0, 1, 2]}
RNG = np.random.default_rng(0)
PARAMS = {
  'trunk': RNG.normal(size=(4, 2)),
  'heads': [
    {'w': RNG.normal(size=(2, 3)), 'v': RNG.normal(size=3)} for _ in range(T)
  ],
}
LABELS = {'trunk': 'shared', 'heads': [{'w': t, 'v': t} for t in range(T)]}
BATCH = RNG.normal(size=(3, 4))
OUTPUTS = RNG.normal(size=(3, T))


def head_loss(head, z, t):
  out = jnp.tanh(z @ head['w']) @ head['v']
  return (t + 1.0) * jnp.mean((out - OUTPUTS[:, t]) ** 2)


STAGED = mtl.Staged(
  lambda params, x: jnp.tanh(x @ params['trunk']),
  [
    lambda params, z, x, t=t: head_loss(params['heads'][t], z, t)
    for t in range(T)
  ],
)


def flat(tree):
  return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def explicit_pulls(weights):
  """Row by row of the mixed second derivatives, a vector a head."""
  z = np.tanh(BATCH @ PARAMS['trunk'])
  slopes = [
    np.ravel(jax.grad(lambda z, t=t: head_loss(PARAMS['heads'][t], z, t))(z))
    for t in range(T)
  ]
  together = sum(w * s for w, s in zip(weights, slopes, strict=True))
  found = []
  for t in range(T):
    head, leaves = PARAMS['heads'][t], {}
    for name in head:

      def loss(leaf, z, t=t, head=head, name=name):
        return head_loss({**head, name: leaf}, z, t)

      mixed = jax.jacfwd(jax.grad(loss), argnums=1)(jnp.asarray(head[name]), z)
      mixed = np.reshape(mixed, (head[name].size, -1))
      leaves[name] = np.zeros(head[name].size)
      for i in range(head[name].size):
        for j in range(z.size):
          leaves[name][i] += mixed[i, j] * together[j]
    found.append({k: v.reshape(head[k].shape) for k, v in leaves.items()})
  return found


def test_pulls_are_those_of_the_mixed_hessian(x64):
  weights = np.array([0.7, 0.2, 1.5])
  fn = mtl.alignment_fn(STAGED, PARAMS, BATCH, labels=LABELS)
  found = jax.jit(fn)(jnp.asarray(weights))
  assert not np.any(found['trunk'])
  for ours, right in zip(found['heads'], explicit_pulls(weights), strict=True):
    np.testing.assert_allclose(flat(ours), flat(right), rtol=1e-10)


@pytest.mark.parametrize('strength, max_ratio', [(1.0, 0.1), (0.01, None)])
def test_a_step_is_the_authors_formula(strength, max_ratio, x64):
  options = {'strength': strength, 'max_ratio': max_ratio}
  method = mtl.cons_mtl(T, labels=LABELS, **options)
  made = make_train_step(method, optax.sgd(1.0), STAGED)
  state = made.init(PARAMS, key=jax.random.key(0))
  state, metrics = made.step(state, BATCH)
  update = jax.tree.map(lambda a, b: a - b, PARAMS, state.params)

  _, grads = mtl.value_and_task_grads(STAGED, labels=LABELS)(PARAMS, BATCH)
  rows = np.reshape(grads['trunk'], (T, -1))
  weights = np.asarray(metrics['weights'])
  np.testing.assert_allclose(rows @ rows.T @ weights, weights**-0.5, rtol=1e-6)
  np.testing.assert_allclose(flat(update['trunk']), weights @ rows, rtol=1e-9)
  clipped = 0
  for t, pull in enumerate(explicit_pulls(weights)):
    own, extra = flat(grads['heads'][t]), strength * flat(pull)
    bound = np.inf if max_ratio is None else max_ratio * np.linalg.norm(own)
    if np.linalg.norm(extra) > bound:
      extra, clipped = extra * bound / np.linalg.norm(extra), clipped + 1
    np.testing.assert_allclose(flat(update['heads'][t]), own - extra, rtol=1e-8)
  assert (clipped > 0) == (max_ratio is not None)


def test_optax_face_and_every_k_agree_with_the_step(x64):
  params = jax.tree.map(jnp.asarray, PARAMS)
  tx = mtl.every_k(mtl.cons_mtl(T, labels=LABELS), 2)
  made = make_train_step(tx, optax.sgd(1e-2), STAGED)
  state = made.init(params, key=jax.random.key(0))
  grad_fn = mtl.value_and_task_grads(STAGED, labels=LABELS)

  @jax.jit
  def update(params, own):
    losses, grads = grad_fn(params, BATCH)
    pulls_fn = mtl.alignment_fn(STAGED, params, BATCH, labels=LABELS)
    return tx.update(grads, own, losses=losses, alignment_fn=pulls_fn)

  own = tx.init(params)
  for _ in range(2):
    state, metrics = made.step(state, BATCH)
    updates, own = update(params, own)
    params = jax.tree.map(lambda p, u: p - 1e-2 * u, params, updates)
  np.testing.assert_allclose(
    metrics['weights'], mtl.get_weights(own), rtol=1e-4
  )
  np.testing.assert_allclose(flat(state.params), flat(params), rtol=1e-4)


def test_stacked_heads_are_as_heads_apart(x64):
  weights = jnp.array([0.7, 0.0, 1.5])
  apart = mtl.alignment_fn(STAGED, PARAMS, BATCH, labels=LABELS)(weights)
  params = {
    'trunk': PARAMS['trunk'],
    'heads': jax.tree.map(lambda *x: jnp.stack(x), *PARAMS['heads']),
  }
  fused = mtl.Staged(
    STAGED.trunk,
    [
      lambda params, z, x, t=t: head_loss(
        jax.tree.map(lambda p: p[t], params['heads']), z, t
      )
      for t in range(T)
    ],
  )
  labels = {'trunk': 'shared', 'heads': 'stacked'}
  found = mtl.alignment_fn(fused, params, BATCH, labels=labels)(weights)
  for t in range(T):
    mine = jax.tree.map(lambda p, t=t: p[t], found['heads'])
    np.testing.assert_allclose(flat(mine), flat(apart['heads'][t]), rtol=1e-10)
  assert not np.any(flat(apart['heads'][1]))  # of weight 0

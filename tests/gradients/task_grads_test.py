import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax as mtl
from mtljax.gradients import _pullback

T = 3
PARAMS = {
  'trunk': {
    'w': jax.random.normal(jax.random.key(0), (4, 5)),
    'b': jnp.ones(5),
  },
  'heads': [jax.random.normal(jax.random.key(t), (5,)) for t in range(1, T)],
  'fused': jax.random.normal(jax.random.key(9), (T, 5)),
}
LABELS = {'trunk': 'shared', 'heads': [0, 1], 'fused': 'stacked'}
X = jax.random.normal(jax.random.key(7), (6, 4))


def trunk(params, x):
  return jnp.tanh(x @ params['trunk']['w'] + params['trunk']['b'][None])


def head(t):
  def loss(params, z, x):
    del x
    out = z @ params['fused'][t]
    if t < 2:
      out = out + jnp.sin(z @ params['heads'][t])
    return jnp.mean((out - t) ** 2)

  return loss


HEADS = [head(t) for t in range(T)]
STAGED = mtl.Staged(trunk, HEADS)


def plain(params, x):
  z = trunk(params, x)
  return jnp.stack([h(params, z, x) for h in HEADS])


SEQUENCE = [
  lambda params, x, t=t: HEADS[t](params, trunk(params, x), x) for t in range(T)
]


def reference(params, x):
  """Losses, and gradients as the labels lay them out, from jax.jacrev."""
  losses = plain(params, x)
  full = jax.jacrev(plain)(params, x)
  return losses, {
    'trunk': full['trunk'],
    'heads': [full['heads'][t][t] for t in range(T - 1)],
    'fused': jnp.stack([full['fused'][t, t] for t in range(T)]),
  }


@pytest.mark.parametrize('mode', ['unroll', 'vmap', 'map'])
@pytest.mark.parametrize('form', ['plain', 'staged', 'sequence'])
@pytest.mark.parametrize('jit', [False, True])
def test_every_form_agrees_with_jacrev(form, mode, jit):
  fun = {'plain': plain, 'staged': STAGED, 'sequence': SEQUENCE}[form]
  batch = [X] * T if form == 'sequence' else X
  grad_fn = mtl.value_and_task_grads(fun, labels=LABELS, mode=mode)
  if jit:
    grad_fn = jax.jit(grad_fn)
  losses, grads = grad_fn(PARAMS, batch)
  expected_losses, expected = reference(PARAMS, X)
  np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
  chex.assert_trees_all_close(grads, expected, rtol=1e-4, atol=1e-6)


def test_float64_agreement(x64):
  params = jax.tree.map(lambda x: x.astype(jnp.float64), PARAMS)
  x = X.astype(jnp.float64)
  expected = reference(params, x)
  for fun, batch in ((plain, x), (STAGED, x), (SEQUENCE, [x] * T)):
    out = mtl.value_and_task_grads(fun, labels=LABELS)(params, batch)
    chex.assert_trees_all_close(out, expected, rtol=1e-12, atol=1e-14)


def test_everything_shared_by_default():
  _, grads = mtl.value_and_task_grads(plain)(PARAMS, X)
  chex.assert_trees_all_close(grads, jax.jacrev(plain)(PARAMS, X), atol=1e-6)


def test_each_task_has_its_own_batch():
  batches = [X + t for t in range(T)]
  losses, grads = mtl.value_and_task_grads(SEQUENCE, labels=LABELS)(
    PARAMS, batches
  )
  for t in range(T):
    expected_losses, expected = reference(PARAMS, batches[t])
    np.testing.assert_allclose(losses[t], expected_losses[t], rtol=1e-5)
    np.testing.assert_allclose(
      grads['trunk']['w'][t], expected['trunk']['w'][t], atol=1e-5
    )


@pytest.mark.parametrize('form', ['plain', 'staged', 'sequence'])
def test_combined_and_own_are_weighted_sums(form):
  fun = {'plain': plain, 'staged': STAGED, 'sequence': SEQUENCE}[form]
  args = ([X] * T,) if form == 'sequence' else (X,)
  weights = jnp.array([0.3, 2.0, 0.0])
  pullback = _pullback.make_pullback(
    fun, PARAMS, args, labels=LABELS, has_aux=False
  )
  _, expected = reference(PARAMS, X)
  shared = jax.tree.leaves(expected['trunk'])
  chex.assert_trees_all_close(
    pullback.combined(weights),
    [jnp.einsum('t,t...->...', weights, g) for g in shared],
    atol=1e-5,
  )
  owned = jax.tree.leaves(
    [
      expected['fused'] * weights[:, None],
      [g * weights[t] for t, g in enumerate(expected['heads'])],
    ]
  )
  chex.assert_trees_all_close(pullback.own(weights), owned, atol=1e-5)


def test_trunk_that_reads_a_tasks_parameters():
  """Attention that belongs to a task, inside the trunk, gets its gradient."""

  def attending(params, x):
    z = x * params['shared']
    return [z * params['attention'][t] for t in range(2)]

  heads = [lambda p, z, x, t=t: jnp.sum(z[t] ** 2) for t in range(2)]
  staged = mtl.Staged(attending, heads)
  params = {'shared': jnp.array(2.0), 'attention': [jnp.array(1.0)] * 2}
  labels = {'shared': 'shared', 'attention': [0, 1]}

  def flat(params, x):
    z = attending(params, x)
    return jnp.stack([h(params, z, x) for h in heads])

  x = jnp.arange(3.0)
  chex.assert_trees_all_close(
    mtl.value_and_task_grads(staged, labels=labels)(params, x),
    mtl.value_and_task_grads(flat, labels=labels)(params, x),
  )


def test_heads_may_read_shared_parameters():
  def tied(params, z, x):
    return jnp.sum((z @ params['w'].T - x) ** 2)

  staged = mtl.Staged(lambda p, x: x @ p['w'], [tied, tied])
  params = {'w': PARAMS['trunk']['w']}

  def flat(params, x):
    z = x @ params['w']
    return jnp.stack([tied(params, z, x)] * 2)

  chex.assert_trees_all_close(
    mtl.value_and_task_grads(staged)(params, X)[1],
    mtl.value_and_task_grads(flat)(params, X)[1],
    rtol=1e-5,
  )


def test_aux_and_argnums():
  def fun(scale, params, x):
    losses = plain(params, x) * scale
    return losses, {'scale': scale}

  (losses, aux), grads = mtl.value_and_task_grads(
    fun, labels=LABELS, argnums=1, has_aux=True
  )(2.0, PARAMS, X)
  assert aux == {'scale': 2.0}
  expected = jax.tree.map(lambda g: 2 * g, reference(PARAMS, X)[1])
  chex.assert_trees_all_close(grads, expected, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(losses, 2 * plain(PARAMS, X), rtol=1e-6)


def test_staged_aux():
  staged = mtl.Staged(
    lambda p, x: (trunk(p, x), 'state'),
    [lambda p, z, x, h=h: (h(p, z, x), jnp.max(z)) for h in HEADS],
  )
  (_, aux), _ = mtl.value_and_task_grads(staged, labels=LABELS, has_aux=True)(
    PARAMS, X
  )
  assert aux[0] == 'state'
  assert len(aux[1]) == T


def test_gramian_and_its_labels():
  _, gramian = mtl.value_and_gramian(STAGED, labels=LABELS)(PARAMS, X)
  grads = reference(PARAMS, X)[1]
  np.testing.assert_allclose(
    gramian, mtl.gramian(grads, labels=LABELS), rtol=1e-4, atol=1e-6
  )
  marks = mtl.match_params(PARAMS, 'trunk/b')
  _, gramian = mtl.value_and_gramian(
    plain, labels=LABELS, gramian_labels=marks
  )(PARAMS, X)
  bias = grads['trunk']['b']
  np.testing.assert_allclose(gramian, bias @ bias.T, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('form', ['plain', 'staged', 'sequence'])
def test_task_grad_fn(form):
  fun = {'plain': plain, 'staged': STAGED, 'sequence': SEQUENCE}[form]
  args = ([X] * T,) if form == 'sequence' else (X,)
  grad_fn = mtl.task_grad_fn(fun, *args)
  for t in range(T):
    loss, grads = grad_fn(PARAMS, t)
    expected = jax.value_and_grad(lambda p, t=t: plain(p, X)[t])(PARAMS)
    chex.assert_trees_all_close((loss, grads), expected, rtol=1e-4, atol=1e-6)


def test_only_the_asked_head_is_evaluated():
  def fails(params, z, x):
    raise AssertionError('evaluated')

  grad_fn = mtl.task_grad_fn(mtl.Staged(trunk, [HEADS[0], fails]), X)
  assert jnp.isfinite(grad_fn(PARAMS, 0)[0])


def test_heads_are_differentiated_once():
  """Matrix products of the staged program do not grow with T squared."""

  def flops(num_tasks):
    w = jnp.ones((8, 8))
    staged = mtl.Staged(
      lambda p, x: x * p['s'][None],
      [
        lambda p, z, x, t=t: jnp.sum(jnp.tanh(z @ p['h'][t]))
        for t in range(num_tasks)
      ],
    )
    params = {'s': jnp.ones(8), 'h': [w] * num_tasks}
    labels = {'s': 'shared', 'h': list(range(num_tasks))}
    fun = jax.jit(mtl.value_and_task_grads(staged, labels=labels))
    text = fun.lower(params, jnp.ones((8, 8))).compile().as_text()
    return text.count(' dot(')

  assert flops(6) == 2 * flops(3)


@pytest.mark.parametrize(
  'call, message',
  [
    (lambda: mtl.value_and_task_grads(plain, mode='loop'), "mode='loop'"),
    (
      lambda: mtl.value_and_task_grads(lambda p: jnp.sum(p))(jnp.ones(3)),
      r'shape \(T,\)',
    ),
    (
      lambda: mtl.value_and_task_grads(
        mtl.Staged(lambda p: p, [lambda p, z: z])
      )(jnp.ones(3)),
      'loss of task 0 must be a scalar',
    ),
    (
      lambda: mtl.value_and_task_grads(SEQUENCE, labels=LABELS)(PARAMS, [X]),
      '3 losses needs as many batches',
    ),
    (
      lambda: mtl.value_and_task_grads(STAGED, argnums=1),
      'argnums=1',
    ),
  ],
)
def test_bad_input(call, message):
  with pytest.raises(ValueError, match=message):
    call()


def test_bad_staged():
  with pytest.raises(TypeError, match='heads='):
    mtl.Staged(trunk, [])
  with pytest.raises(TypeError, match='trunk='):
    mtl.Staged('trunk', HEADS)

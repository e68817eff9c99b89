"""The exact routes on every model of the package, and what they hold."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

import mtljax as mtl
from mtljax import models
from mtljax.training import make_train_step

MODELS = {
  'multi_lenet': (models.multi_lenet, (4, 16, 16, 1)),
  'multi_mlp': (
    functools.partial(models.multi_mlp, ('a', 'b'), hidden_sizes=(32, 32)),
    (4, 16),
  ),
  'resnet_batch': (
    functools.partial(models.resnet, stages=(1, 1), width=4),
    (4, 8, 8, 2),
  ),
  'resnet_group': (
    functools.partial(
      models.resnet, stages=(1, 1), width=4, norm='group', stem='large'
    ),
    (4, 32, 32, 2),
  ),
  'segnet': (
    functools.partial(models.segnet, widths=(4, 4), num_convs=(1, 1)),
    (2, 8, 8, 2),
  ),
}
ROUTES = (
  {'route': 'gramian', 'mode': 'vmap'},
  {'route': 'layerwise', 'mode': 'unroll'},
  {'route': 'layerwise', 'mode': 'vmap'},
)


def build(name, dtype):
  make, shape = MODELS[name]
  model = make()
  x = jax.random.normal(jax.random.key(0), shape, dtype)
  params, model_state = jax.jit(model.init)(jax.random.key(1), x)
  params, model_state = jax.tree.map(
    lambda p: p.astype(dtype), (params, model_state)
  )
  labels = mtl.label_params(
    params, shared=model.shared, tasks=model.task_patterns
  )

  def loss(output, x, t):
    del x
    return 10.0**t * jnp.mean(jnp.cos(output * (t + 1)) + output**2), {}

  losses = [functools.partial(loss, t=t) for t in range(model.num_tasks)]
  staged = models.staged_loss(model, losses, lambda x: x)

  def change(**options):
    """What one step changes, as one vector."""
    train = make_train_step(
      mtl.fairgrad(model.num_tasks, labels=labels),
      optax.sgd(1.0),
      staged,
      has_state=True,
      **options,
    )
    state = train.init(params, key=jax.random.key(2), model_state=model_state)
    state, _ = train.step(state, x)
    leaves = zip(
      jax.tree.leaves(params), jax.tree.leaves(state.params), strict=True
    )
    return np.concatenate([np.ravel(b - a) for a, b in leaves])

  return change


@pytest.mark.parametrize('name', MODELS)
def test_exact_routes_agree_in_float64(name, x64):
  change = build(name, jnp.float64)
  expected = change(route='jacobian')
  for options in ROUTES:
    error = np.linalg.norm(change(**options) - expected)
    assert error <= 1e-10 * np.linalg.norm(expected), options


@pytest.mark.parametrize(
  'name',
  ['multi_lenet', pytest.param('resnet_batch', marks=pytest.mark.slow)],
)
def test_exact_routes_agree_in_float32(name):
  """To 1e-4 of the update's length."""
  change = build(name, jnp.float32)
  expected = change(route='jacobian')
  for options in ROUTES:
    error = np.linalg.norm(change(**options) - expected)
    assert error <= 1e-4 * np.linalg.norm(expected), options


def compiled_step(num_tasks=8, depth=6, width=512, batch=64, **options):
  """A deep stack of dense layers, and its widest activation and leaf."""
  params, labels, loss = toy.deep_stack(num_tasks, depth, width)
  plain = options.get('route') == 'losses'
  method = mtl.sum_losses if plain else mtl.cagrad
  train = make_train_step(
    method(num_tasks, labels=labels),
    optax.sgd(0.1),
    loss,
    **options,
  )
  state = train.init(params, key=jax.random.key(0))
  step = train.step.lower(state, jnp.ones((batch, width))).compile()
  return step, num_tasks * 4 * batch * width, num_tasks * 4 * width**2


def temporary(**options):
  step, *sizes = compiled_step(**options)
  return step.memory_analysis().temp_size_in_bytes, *sizes


@pytest.mark.parametrize(
  ('route', 'copies'), [('layerwise', 1), ('gramian', 3)]
)
def test_memory_of_the_gramian_routes(route, copies):
  """A plain step, 2 T widest activations and T largest leaves.

  Where leaves are formed, XLA on CPU transposes each to multiply it, and keeps
  the transposed one for its loop.
  """
  plain, *_ = temporary(route='losses')
  found, activation, leaf = temporary(route=route, mode='vmap')
  assert found <= 1.3 * plain + 2 * activation + copies * leaf
  jacobian, *_ = temporary(route='jacobian')
  assert found < 0.6 * jacobian


def test_small_leaves_take_no_second_pass():
  """What their gradients take is nothing beside the activations."""
  flops = {}
  for route in ('jacobian', 'layerwise'):
    step, *_ = compiled_step(width=8, batch=1024, route=route, mode='unroll')
    flops[route] = step.cost_analysis()['flops']
  assert flops['layerwise'] <= 1.02 * flops['jacobian']


def test_blocks_trade_passes_for_memory():
  for route, share in (('gramian', 0.8), ('layerwise', 0.6)):
    whole, *_ = temporary(route=route, mode='vmap')
    blocks, *_ = temporary(route=route, mode='vmap', chunk_size=2)
    assert blocks < share * whole, (route, blocks, whole)


@pytest.mark.parametrize('route', ['jacobian', 'gramian', 'layerwise'])
def test_nothing_in_a_step_waits_for_the_host(route):
  step, *_ = compiled_step(route=route, width=16)
  text = step.as_text().lower()
  for word in ('callback', 'infeed', 'outfeed', 'host_transfer'):
    assert word not in text


def test_bfloat16_models_have_float32_gramians():
  """Half the precision in the network, all of it in what decides."""
  labels = {'w': 'shared', 'heads': [0, 1]}
  keys = jax.random.split(jax.random.key(0), 4)
  params = {
    'w': jax.random.normal(keys[0], (6, 16)),
    'heads': list(jax.random.normal(keys[1], (2, 16))),
  }
  half = lambda x: x.astype(jnp.bfloat16)

  def head(p, z, x, t):
    out = (z @ half(p['heads'][t])).astype(jnp.float32)
    return 100.0**t * jnp.mean((out - x[:, t]) ** 2)

  loss = mtl.Staged(
    lambda p, x: jnp.tanh(half(x) @ half(p['w'])),
    [functools.partial(head, t=t) for t in range(2)],
  )
  x = jax.random.normal(keys[2], (64, 6))
  found = []
  for route in ('jacobian', 'gramian', 'layerwise'):
    train = make_train_step(
      mtl.cagrad(2, labels=labels), optax.sgd(0.1), loss, route=route
    )
    state = train.init(params, key=keys[3])
    state, metrics = train.step(state, x)
    gramian = mtl.get_stats(state)['gramian']
    assert gramian.dtype == metrics['weights'].dtype == jnp.float32
    assert state.params['w'].dtype == jnp.float32
    found.append(gramian)
  # Rows are rounded to bfloat16 where they are formed, 1 part in 256.
  np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
  np.testing.assert_allclose(found[2], found[0], rtol=1e-2)

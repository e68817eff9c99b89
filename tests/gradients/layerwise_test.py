"""Layer by layer the Gramian is the same, whatever the layers are."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax as mtl
from mtljax.gradients import _gramian, _kernels, _passes, _program, _pullback

T = 3


class Conv(nn.Module):
  options: dict

  @nn.compact
  def __call__(self, x):
    x = nn.Conv(4, (3, 2), **self.options)(x)
    x = nn.relu(nn.GroupNorm(2)(x))
    return nn.Dense(5)(x.reshape(len(x), -1))


class Words(nn.Module):
  @nn.compact
  def __call__(self, ids):
    x = nn.Embed(7, 6)(ids)
    x = nn.LayerNorm()(x)
    x = nn.MultiHeadDotProductAttention(2)(x, x)
    x = nn.Embed(11, 6)(ids + 4) + x
    return nn.LayerNorm()(x).mean(1)


class Batch(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.BatchNorm(use_running_average=False)(nn.Dense(6)(x))
    return nn.Dense(4)(jnp.tanh(x))


class Scan(nn.Module):
  @nn.compact
  def __call__(self, x):
    step = nn.scan(
      lambda dense, x, _: (jnp.tanh(dense(x)), None),
      variable_broadcast='params',
      split_rngs={'params': False},
      length=3,
    )
    return step(nn.Dense(5), nn.Dense(5)(x), None)[0]


class Remat(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.remat(nn.Dense)(4)(jnp.tanh(nn.Dense(5)(x)))


IMAGE = jax.ShapeDtypeStruct((4, 9, 8, 3), jnp.float64)
ROWS = jax.ShapeDtypeStruct((4, 6), jnp.float64)
CONVS = {
  'conv': {},
  'conv_stride': {'strides': (2, 3), 'padding': 'VALID'},
  'conv_dilated': {
    'kernel_dilation': 2,
    'input_dilation': 2,
    'padding': ((1, 2), (0, 1)),
  },
  'conv_padded': {'padding': ((2, 0), (1, 3))},
  'conv_circular': {'padding': 'CIRCULAR'},
}
MODULES = {name: (Conv(options), IMAGE) for name, options in CONVS.items()}
MODULES |= {
  'words': (Words(), jax.ShapeDtypeStruct((3, 5), jnp.int32)),
  'batch_norm': (Batch(), ROWS),
  'scan': (Scan(), ROWS),
  'remat': (Remat(), ROWS),
}


def ids(x):
  """Rows of the table that there are and that there are not."""
  return jnp.arange(x.shape[0]) * 3 - 1


def plain_functions():
  """Uses of parameters that no module makes, as ``trunk(params, x)``."""
  return {
    'tied': lambda p, x: jnp.tanh(x @ p['w']) @ p['w'].T,
    'square': lambda p, x: x @ (p['w'] @ p['w']),
    'twice_in_one': lambda p, x: (
      x * (p['b'] * p['b'])[None] + x @ (jnp.outer(p['b'], p['b']))
    ),
    'transposed': lambda p, x: (p['w'].T @ x.T).T + p['b'][None],
    'contracted_twice': lambda p, x: jnp.einsum(
      'bij,ij->b', x[:, :, None] * x[:, None], p['w']
    ),
    'sliced': lambda p, x: x[:, :2] @ p['w'][:2] + jnp.exp(p['b'][None, 1:2]),
    'gathered': lambda p, x: x @ p['w'][:, np.array([0, 2, 2])],
    'padded': lambda p, x: x @ jnp.pad(p['w'], ((0, 0), (1, 2))),
    'jitted': jax.jit(lambda p, x: jax.jit(jnp.dot)(x, p['w'])),
    'branch': lambda p, x: jax.lax.cond(
      x[0, 0] > 0, lambda w: x @ w, lambda w: x @ w.T, p['w']
    ),
    'batched': lambda p, x: jax.vmap(jnp.outer, (1, 0))(x, p['w']),
    'unused': lambda p, x: x * p['b'][None],
    'clipped_ids': lambda p, x: jnp.take(p['w'], ids(x), axis=0, mode='clip'),
    'dropped_ids': lambda p, x: (
      p['w'].at[ids(x)].get(mode='fill', fill_value=0.5)
    ),
    'integer': lambda p, x: x * (p['b'] > 0)[None] * p['w'][:1],
    'identity': lambda p, x: p['w'],
    'output_and_layer': lambda p, x: {'z': x @ p['w'], 'w': p['w']},
    'scales': lambda p, x: [x @ p['w'], jnp.sin(x @ p['w'] + p['b'][None])],
    'cast': lambda p, x: x.astype(jnp.float32) @ p['w'].astype(jnp.float32),
    'vector': lambda p, x: x @ p['b'],
  }


def heads(num_tasks=T):
  """Losses of a tree of features, of no symmetry."""

  def head(params, features, x, t):
    del params, x
    parts = [
      jnp.mean(jnp.cos(z * (t + 1.0)) + t * z**2)
      for z in jax.tree.leaves(features)
    ]
    return jnp.asarray(sum(parts), jnp.result_type(float))

  return [functools.partial(head, t=t) for t in range(num_tasks)]


def both(loss, params, x, *, labels=None, dtype=jnp.float64):
  """The pass layer by layer and the Gramian from rows."""
  cast = lambda p: p.astype(dtype) if p.dtype.kind == 'f' else p
  params = jax.tree.map(cast, params)
  passes = _passes.make_passes('vmap')

  def compute(params, x):
    pull = functools.partial(
      _pullback.make_pullback,
      loss,
      params,
      (x,),
      labels=labels,
      has_aux=False,
    )
    watched, rows = pull(watch=True), pull().rows(passes)
    marked = [True] * len(rows)
    gramian, combined = _gramian.gramian_and_combine(watched, passes, marked)
    weights = jnp.arange(1.0, gramian.shape[0] + 1)
    return {
      'gramian': (gramian, mtl.gramian(rows)),
      'combined': (combined(weights), pull().combined(weights)),
    }

  return jax.jit(compute)(params, x)


def check(found, rtol=1e-10):
  for got, expected in found.values():
    for a, b in zip(
      jax.tree.leaves(got), jax.tree.leaves(expected), strict=True
    ):
      size = float(jnp.max(jnp.abs(b))) if b.size else 0.0
      np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * size)


def draw(shape, key=0):
  if shape.dtype == jnp.int32:
    return jax.random.randint(jax.random.key(key), shape.shape, 0, 7)
  return jax.random.normal(jax.random.key(key), shape.shape, shape.dtype)


@pytest.fixture
def all_by_kernel(monkeypatch):
  """Takes every layer that can be by its inner products, cheap or not."""
  monkeypatch.setattr(_kernels, 'is_cheaper', lambda layer, num_tasks: True)


@pytest.mark.parametrize('name', MODULES)
def test_modules(name, x64, all_by_kernel):
  module, shape = MODULES[name]
  x = draw(shape)
  variables = jax.jit(module.init)(jax.random.key(1), x)
  params = variables.pop('params')
  params = jax.tree.map(
    lambda p: p + 0.1 * jnp.cos(jnp.arange(p.size)).reshape(p.shape), params
  )

  def trunk(params, x):
    out = module.apply(
      {'params': params, **variables}, x, mutable=list(variables)
    )
    return out[0]

  check(both(mtl.Staged(trunk, heads()), params, x))


@pytest.mark.parametrize('name', plain_functions())
def test_plain_functions(name, x64, all_by_kernel):
  params = {'w': draw(jax.ShapeDtypeStruct((6, 6), jnp.float64), 1)}
  params['b'] = draw(jax.ShapeDtypeStruct((6,), jnp.float64), 2)
  trunk = plain_functions()[name]
  rtol = 1e-5 if name == 'cast' else 1e-10
  check(both(mtl.Staged(trunk, heads()), params, draw(ROWS)), rtol)


def test_leaves_that_heads_read_too(x64, all_by_kernel):
  params = {'w': draw(jax.ShapeDtypeStruct((6, 6), jnp.float64), 1)}
  loss = mtl.Staged(
    lambda p, x: x @ p['w'],
    [lambda p, z, x, t=t: jnp.mean((z @ p['w'] - t) ** 2) for t in range(T)],
  )
  check(both(loss, params, draw(ROWS)))


def test_the_plain_form(x64, all_by_kernel):
  params = {'w': draw(jax.ShapeDtypeStruct((6, 6), jnp.float64), 1)}

  def losses(p, x):
    z = jnp.tanh(x @ p['w'])
    return jnp.stack([jnp.mean(jnp.cos(z * t)) for t in range(1, T + 1)])

  check(both(losses, params, draw(ROWS)))


def test_half_precision_adds_up_in_float32(all_by_kernel):
  """Signals and inputs in bfloat16, the Gramian of the same rows in float32."""
  params = {'w': jax.random.normal(jax.random.key(0), (6, 8))}
  x = jax.random.normal(jax.random.key(1), (512, 6))
  half = lambda x: x.astype(jnp.bfloat16)
  loss = mtl.Staged(
    lambda p, x: half(x) @ half(p['w']),
    [
      lambda p, z, x, t=t: jnp.mean(jnp.cos(z.astype(jnp.float32) * (t + 1)))
      for t in range(T)
    ],
  )
  got = mtl.value_and_gramian(loss, layerwise=True)(params, x)[1]
  assert got.dtype == jnp.float32

  def signals(t):
    z = half(x) @ half(params['w'])
    return jax.grad(lambda z: loss.heads[t](None, z, None))(z)

  wide = lambda x: np.asarray(x.astype(jnp.float32), np.float64)
  rows = np.stack([wide(half(x)).T @ wide(signals(t)) for t in range(T)])
  rows = rows.reshape(T, -1)
  np.testing.assert_allclose(got, rows @ rows.T, rtol=1e-5)


def layers_of(module, shape, num_tasks=T):
  """The layer of each parameter that is used once, by its path."""
  x = jax.ShapeDtypeStruct(shape.shape, jnp.float32)
  params = jax.eval_shape(module.init, jax.random.key(0), x)['params']
  leaves, treedef = jax.tree.flatten(params)
  program, _ = _program.trace(
    lambda leaves, x: (
      module.apply({'params': jax.tree.unflatten(treedef, leaves)}, x),
      None,
    ),
    leaves,
    x,
    kinds=_kernels.READERS,
  )
  names = [
    jax.tree_util.keystr(path, simple=True, separator='/')
    for path, _ in jax.tree_util.tree_leaves_with_path(params)
  ]
  return {
    name: None if use is None else _kernels.as_layer(use)
    for name, use in zip(names, program.uses, strict=True)
  }


def test_choice_by_counted_operations():
  """A wide layer by inner products, a narrow one and many places by rows."""
  wide = nn.Sequential([nn.Dense(512), nn.Dense(512)])
  layer = layers_of(wide, jax.ShapeDtypeStruct((16, 512), jnp.float32))
  kernel = layer['layers_1/kernel']
  n, size, t = 16, 512, 8
  assert kernel[:4] == (n, size, size, size * size)
  assert layer['layers_1/bias'] is None
  assert _kernels.is_cheaper(kernel, t)
  # n^2 (in + T out) + T^2 n out against T n in out + T^2 in out
  assert not _kernels.is_cheaper(kernel._replace(num_positions=1024), t)
  narrow = layers_of(nn.Dense(2), jax.ShapeDtypeStruct((64, 3), jnp.float32))
  assert not _kernels.is_cheaper(narrow['kernel'], t)
  image = jax.ShapeDtypeStruct((8, 16, 16, 3), jnp.float32)
  conv = layers_of(nn.Conv(4, (3, 3)), image)['kernel']
  assert conv[:4] == (8 * 16 * 16, 27, 4, 108)
  assert not _kernels.is_cheaper(conv, t)


def test_no_weight_gradient_is_formed():
  """The program of the Gramian has no product of a weight's shape."""
  width, batch = 64, 4
  params = [jnp.eye(width)] * 3
  loss = mtl.Staged(
    lambda p, x: functools.reduce(lambda x, w: jnp.tanh(x @ w), p, x),
    heads(),
  )

  def shapes(layerwise):
    fun = lambda p, x: mtl.value_and_gramian(loss, layerwise=layerwise)(p, x)[1]
    compiled = jax.jit(fun).lower(params, jnp.ones((batch, width))).compile()
    return [
      line
      for line in compiled.as_text().splitlines()
      if f' = f32[{width},{width}]' in line and ' dot(' in line
    ]

  assert len(shapes(False)) == 3 * T
  assert not shapes(True)


@pytest.mark.parametrize('layerwise', [False, True])
@pytest.mark.parametrize('mode', ['unroll', 'vmap'])
def test_blocks_of_tasks_make_the_same_gramian(layerwise, mode):
  num_tasks = 5
  loss = mtl.Staged(lambda p, x: jnp.tanh(x @ p), heads(num_tasks))
  w = jax.random.normal(jax.random.key(0), (6, 6))
  x = jax.random.normal(jax.random.key(1), (4, 6))
  gramian = lambda **options: mtl.value_and_gramian(loss, **options)(w, x)[1]
  got = gramian(chunk_size=2, layerwise=layerwise, mode=mode)
  np.testing.assert_allclose(got, gramian(), rtol=1e-4, atol=1e-6)


def test_marked_leaves_only():
  params = {'a': jnp.eye(6), 'b': jnp.eye(6)}
  loss = mtl.Staged(
    lambda p, x: jnp.tanh(x @ p['a']) @ p['b'],
    [lambda p, z, x, t=t: jnp.mean(jnp.cos(z * (t + 1))) for t in range(T)],
  )
  x = jax.random.normal(jax.random.key(1), (4, 6))
  options = {'gramian_labels': {'a': False, 'b': True}}
  got = mtl.value_and_gramian(loss, layerwise=True, **options)(params, x)[1]
  expected = mtl.value_and_gramian(loss, **options)(params, x)[1]
  np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_a_sequence_of_losses_is_refused():
  with pytest.raises(ValueError, match='one forward pass for all tasks'):
    mtl.value_and_gramian([lambda p, x: p], layerwise=True)

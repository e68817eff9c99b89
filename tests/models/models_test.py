import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax as mtl
from mtljax import models

X = jax.random.uniform(jax.random.key(7), (2, 16, 18, 1))
KEY = jax.random.key(0)


def _small_resnet(**kwargs):
  settings = {'stages': (1,), 'width': 4, 'features': 6}
  return models.resnet(**(settings | kwargs))


BUILD = {
  'lenet': models.multi_lenet,
  'mlp': functools.partial(
    models.multi_mlp, hidden_sizes=(6, 4), head_sizes=(3,)
  ),
  'resnet_batch': _small_resnet,
  'resnet_stages': lambda **kw: _small_resnet(
    norm='group', stages=(1, 2), **kw
  ),
  'resnet_large_stem': lambda **kw: _small_resnet(
    norm='group', stem='large', features=0, **kw
  ),
}


def _paths(params):
  leaves = jax.tree_util.tree_flatten_with_path(params)[0]
  return ['/'.join(entry.key for entry in path) for path, _ in leaves]


def _init(model, x=X):
  return jax.jit(model.init)(KEY, x)


@pytest.mark.parametrize('name', BUILD)
def test_shapes_and_owners(name):
  model = BUILD[name](tasks=('a', 'b', 'c'), num_classes=5)
  params, model_state = jax.eval_shape(model.init, KEY, X)
  logits = jax.eval_shape(model.apply, params, model_state, X)
  assert [y.shape for y in logits] == [(2, 5)] * 3
  assert set(model_state) == (
    {'batch_stats'} if name == 'resnet_batch' else set()
  )
  assert set(params) == {'trunk', 'heads_0', 'heads_1', 'heads_2'}
  patterns = [model.shared, *model.task_patterns]
  for path in _paths(params):
    assert sum(bool(re.fullmatch(p, path)) for p in patterns) == 1


def test_multi_mlp_of_several_outputs():
  model = models.multi_mlp(('a', 'b'), (3, 1), hidden_sizes=(5,))
  params, model_state = _init(model, jnp.ones((2, 4)))
  assert sorted(map(len, (params['trunk'], params['heads_1']))) == [1, 1]
  assert params['trunk']['fc1']['kernel'].shape == (4, 5)
  logits = jax.jit(model.apply)(params, model_state, jnp.ones((2, 4)))
  assert [y.shape for y in logits] == [(2, 3), (2, 1)]
  hidden = jax.nn.relu(
    jnp.ones((2, 4)) @ params['trunk']['fc1']['kernel']
    + params['trunk']['fc1']['bias'][None]
  )
  out = params['heads_0']['out']
  np.testing.assert_allclose(
    logits[0], hidden @ out['kernel'] + out['bias'][None], rtol=1e-5, atol=1e-6
  )


def test_a_head_reads_only_its_own_parameters():
  model = models.multi_lenet()
  params, model_state = _init(model)

  def output(params, t):
    features, _ = model.apply_trunk(params, model_state, X, train=False)
    return jnp.sum(model.apply_head(t, params, features) ** 2)

  grads = jax.jit(jax.grad(output), static_argnums=1)(params, 1)
  assert all(not g.any() for g in jax.tree.leaves(grads['heads_0']))
  assert all(g.any() for g in jax.tree.leaves(grads['heads_1']))
  assert all(g.any() for g in jax.tree.leaves(grads['trunk']))


@pytest.mark.parametrize('name', ['lenet', 'resnet_batch'])
def test_convolution_implementations_agree(name, x64):
  """Parameters are float32, sums float64."""
  x = X.astype(jnp.float64)
  params, model_state = _init(BUILD[name](), x)

  def run(impl):
    model = BUILD[name](conv_impl=impl)

    def fun(params):
      features, _ = model.apply_trunk(params, model_state, x, train=True)
      return jnp.sum(jnp.sin(features)), features

    return jax.jit(jax.grad(fun, has_aux=True))(params)

  check = lambda g, w: np.testing.assert_allclose(g, w, atol=1e-5)
  jax.tree.map(check, run('auto'), run('lax'))


def test_multi_lenet_has_the_published_size():
  model = models.multi_lenet()
  params, _ = model.init(KEY, jax.ShapeDtypeStruct((1, 36, 36, 1), jnp.float32))
  count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
  assert params['trunk']['fc']['kernel'].shape == (720, 50)
  assert count(params['trunk']) == 41_330
  assert count(params['heads_0']) == count(params['heads_1']) == 3_060


def test_resnet18_has_the_published_size():
  model = models.resnet18()
  x = jax.ShapeDtypeStruct((1, 36, 36, 1), jnp.float32)
  shapes, _ = jax.eval_shape(lambda key: model.init(key, x), KEY)
  count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
  # 11,689,512 of the ImageNet network, less two input channels of the stem,
  # with 100 units instead of 1000 in the last layer.
  published = 11_689_512 - 2 * 7 * 7 * 64 - 900 * 513
  assert count(shapes['trunk']) == published
  assert count(shapes['heads_0']) == 1_010


def test_segnet_has_the_published_size():
  """The encoder is VGG-16's convolutions, the decoder their mirror image."""
  model = models.segnet(
    widths=(64, 128, 256, 512, 512), num_convs=(2, 2, 3, 3, 3)
  )
  x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  shapes, _ = jax.eval_shape(lambda key: model.init(key, x), KEY)
  kernels = {
    path: leaf.size
    for path, leaf in zip(
      _paths(shapes['trunk']), jax.tree.leaves(shapes['trunk']), strict=True
    )
    if path.endswith('kernel')
  }
  halves = [
    sum(n for path, n in kernels.items() if path.startswith(half))
    for half in ('encoder', 'decoder')
  ]
  # VGG-16 has 14,714,688 in its convolutions, 4,224 of them biases. The decoder
  # has one of 64 -> 64 where the encoder has one of 3 -> 64.
  encoder = 14_714_688 - 4_224
  assert halves == [encoder, encoder + 9 * (64 - 3) * 64]
  assert len(kernels) == 26


def _segnet(**kwargs):
  return models.segnet(**({'widths': (4, 6), 'num_convs': (1, 2)} | kwargs))


IMAGE = jax.random.uniform(jax.random.key(8), (2, 8, 12, 3))


@pytest.mark.parametrize('norm', ['batch', 'group'])
def test_segnet_shapes_and_owners(norm):
  model = _segnet(norm=norm)
  params, model_state = jax.eval_shape(model.init, KEY, IMAGE)
  outputs = jax.eval_shape(model.apply, params, model_state, IMAGE)
  assert [y.shape for y in outputs] == [(2, 8, 12, n) for n in (13, 1, 3)]
  assert set(model_state) == ({'batch_stats'} if norm == 'batch' else set())
  patterns = [model.shared, *model.task_patterns]
  for path in _paths(params):
    assert sum(bool(re.fullmatch(p, path)) for p in patterns) == 1
  features, _ = jax.eval_shape(
    functools.partial(model.apply_trunk, train=True),
    params,
    model_state,
    IMAGE,
  )
  assert features.shape == (2, 8, 12, 4)


def test_segnet_staged_equals_plain(x64):
  """And `lax` what the backend and shapes choose."""

  def task_grads(impl, staged):
    model = _segnet(conv_impl=impl, widths=(4,), num_convs=(1,))
    square = lambda output, batch: (jnp.mean(output**2), {})
    x = IMAGE.astype(jnp.float64)
    params, model_state = _init(model, x)
    # The maxima that float32 cannot tell apart decide where entries go.
    params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
    labels = mtl.label_params(
      params, shared=model.shared, tasks=model.task_patterns
    )
    loss = models.staged_loss(model, [square] * 3, lambda batch: batch)
    if staged:
      grad_fn = mtl.value_and_task_grads(loss, labels=labels, has_aux=True)
      (losses, _), grads = jax.jit(grad_fn)(params, x, model_state, None)
      return losses, grads

    def plain(params):
      features, _ = loss.trunk(params, x, model_state, None)
      return jnp.stack(
        [h(params, features, x, model_state, None)[0] for h in loss.heads]
      )

    return jax.jit(mtl.value_and_task_grads(plain, labels=labels))(params)

  got = task_grads('auto', True)
  check = lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-7, atol=1e-9)
  jax.tree.map(check, got, task_grads('lax', False))


def test_segnet_puts_maxima_where_they_were():
  """Whatever XLA computes twice, with another rounding, on the way."""
  features = []
  for impl in ('lax', 'im2col'):
    model = _segnet(conv_impl=impl)
    params, model_state = _init(model, IMAGE)
    apply = jax.jit(functools.partial(model.apply_trunk, train=True))
    features.append(apply(params, model_state, IMAGE)[0])
  np.testing.assert_allclose(*features, rtol=0, atol=1e-4)


def test_segnet_in_bfloat16():
  """Parameters and images in bfloat16 give outputs in it, near to float32's."""
  model = _segnet(norm='group', widths=(4,), num_convs=(1,))
  params, state = _init(model, IMAGE)
  to = lambda dtype, tree: jax.tree.map(lambda p: p.astype(dtype), tree)
  params = to(jnp.float32, to(jnp.bfloat16, params))
  apply = jax.jit(model.apply)
  half = apply(to(jnp.bfloat16, params), state, IMAGE.astype(jnp.bfloat16))
  for got, want in zip(half, apply(params, state, IMAGE), strict=True):
    assert got.dtype == jnp.bfloat16
    off = np.abs(got.astype(np.float32) - want)
    assert np.mean(off) < 0.02 * np.std(want) + 0.02


def test_init_does_not_depend_on_values_and_differs_between_heads():
  model = models.multi_lenet()
  a, _ = model.init(KEY, X)
  b, _ = model.init(KEY, jax.ShapeDtypeStruct(X.shape, X.dtype))
  jax.tree.map(np.testing.assert_array_equal, a, b)
  wide = np.asarray(X, np.float64)  # a data set's; JAX has it in float32
  jax.tree.map(np.testing.assert_array_equal, a, model.init(KEY, wide)[0])
  one, two = (a[f'heads_{t}']['fc1']['kernel'] for t in (0, 1))
  assert not np.allclose(one, two)


def test_batch_statistics_move_in_training_only():
  model = _small_resnet()
  params, model_state = _init(model)
  _, same = model.apply_trunk(params, model_state, X, train=False)
  assert same is model_state
  train = jax.jit(lambda p, s, x: model.apply_trunk(p, s, x, train=True))
  _, new = train(params, model_state, X)
  assert jax.tree.structure(new) == jax.tree.structure(model_state)
  mean = new['batch_stats']['stem_norm']['mean']
  kernel = params['trunk']['stem']['kernel']
  stem = models.layers.conv2d(X, kernel, padding='SAME', impl='lax')
  np.testing.assert_allclose(mean, 0.1 * stem.mean((0, 1, 2)), atol=1e-6)


def test_dropout_needs_a_key_only_in_training():
  model = models.multi_lenet(dropout_rate=0.5)
  params, state = _init(model)
  clean = models.multi_lenet().apply(params, state, X)
  for got, want in zip(model.apply(params, state, X), clean, strict=True):
    np.testing.assert_array_equal(got, want)
  with pytest.raises(ValueError, match='key=None, but trunk draws'):
    model.apply_trunk(params, state, X, train=True)
  features, _ = model.apply_trunk(params, state, X, train=True, key=KEY)
  with pytest.raises(ValueError, match=r'key=None, but heads\[1\] draws'):
    model.apply_head(1, params, features, train=True)
  a = model.apply_head(1, params, features, train=True, key=KEY)
  b = model.apply_head(1, params, features, train=True, key=KEY)
  c = model.apply_head(1, params, features, train=True, key=jax.random.key(1))
  np.testing.assert_array_equal(a, b)
  assert not np.allclose(a, c)


def test_trunk_dropout_removes_whole_channels():
  trunk = models.MultiLeNetTrunk(dropout_rate=0.5)
  variables = trunk.init(KEY, X)
  _, seen = trunk.apply(
    variables,
    X,
    train=True,
    rngs={'dropout': KEY},
    capture_intermediates=lambda module, _: isinstance(module, nn.Dropout),
  )
  dropped = seen['intermediates']['Dropout_0']['__call__'][0] == 0
  per_channel = dropped.mean((1, 2))
  assert set(np.unique(per_channel)) == {0.0, 1.0}


def test_vmap_over_models():
  model = models.multi_lenet()
  keys = jax.random.split(KEY, 2)
  params, state = jax.jit(jax.vmap(model.init, (0, None)))(keys, X)
  run = jax.jit(model.apply)
  stacked = jax.jit(jax.vmap(model.apply, (0, 0, None)))(params, state, X)
  for i in range(2):
    one, one_state = jax.tree.map(lambda p: p[i], (params, state))  # noqa: B023
    for got, want in zip(stacked, run(one, one_state, X), strict=True):
      np.testing.assert_allclose(got[i], want, atol=1e-5)


def test_learns_two_tasks():
  """Gradient descent on both heads drives both losses down."""
  model = models.multi_lenet(num_classes=2)
  x = jax.random.uniform(KEY, (16, 16, 16, 1))
  targets = jax.random.bernoulli(jax.random.key(3), 0.5, (16, 2)).astype(int)
  params, state = _init(model, x)

  def losses(params):
    logits = jnp.stack(model.apply(params, state, x), axis=1)
    picked = jnp.take_along_axis(
      jax.nn.log_softmax(logits), targets[..., None], axis=-1
    )
    return -picked.mean((0, 2))

  @jax.jit
  def step(params):
    grads = jax.grad(lambda p: losses(p).sum())(params)
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)

  before = losses(params)
  for _ in range(60):
    params = step(params)
  assert (losses(params) < 0.9 * before).all()


@pytest.mark.parametrize(
  ('build', 'kwargs', 'message'),
  [
    (models.multi_lenet, {'conv_impl': 'laxx'}, r"Did you mean 'lax'\?"),
    (models.multi_lenet, {'num_classes': 0}, 'num_classes=0'),
    (models.multi_lenet, {'dropout_rate': 1.0}, 'dropout_rate=1.0'),
    (models.multi_lenet, {'tasks': ()}, 'tasks=\\(\\) is empty'),
    (models.multi_lenet, {'tasks': ('a', 'a')}, 'repeats a name'),
    (models.multi_lenet, {'tasks': 'left'}, 'is a string'),
    (models.multi_mlp, {'tasks': 'left'}, 'is a string'),
    (
      models.multi_mlp,
      {'tasks': ('a',), 'num_classes': (1, 2)},
      'one for each',
    ),
    (
      models.multi_mlp,
      {'tasks': ('a',), 'hidden_sizes': ()},
      'nothing to share',
    ),
    (
      models.multi_mlp,
      {'tasks': ('a',), 'hidden_sizes': (0,)},
      'hidden_sizes=0',
    ),
    (models.multi_mlp, {'tasks': ('a',), 'head_sizes': (0,)}, 'head_sizes=0'),
    (
      models.multi_mlp,
      {'tasks': ('a',), 'dropout_rate': 1.0},
      'dropout_rate=1.0',
    ),
    (models.resnet, {'norm': 'groups'}, r"Did you mean 'group'\?"),
    (models.resnet, {'stem': 'tiny'}, "'large', 'small'"),
    (models.resnet, {'stages': ()}, 'stages=\\(\\)'),
    (models.resnet, {'stages': (2, 0)}, 'stages=\\(2, 0\\)'),
    (models.resnet18, {'norm': 'layer'}, "norm='layer' is not one of"),
    (models.resnet18, {'width': 0}, 'width=0'),
    (models.segnet, {'tasks': 'depth'}, 'is a string'),
    (models.segnet, {'num_outputs': (1, 2)}, 'each of the 3 tasks'),
    (models.segnet, {'num_outputs': (1, 2, 0)}, 'num_outputs=0'),
    (models.segnet, {'widths': ()}, 'at least one'),
    (models.segnet, {'widths': (4,)}, 'one number for each stage'),
    (models.segnet, {'num_convs': (1, 0, 1)}, 'num_convs=0'),
    (models.segnet, {'norm': 'groups'}, r"Did you mean 'group'\?"),
    (models.segnet, {'conv_impl': 'laxx'}, r"Did you mean 'lax'\?"),
  ],
)
def test_arguments_are_checked(build, kwargs, message):
  with pytest.raises(ValueError, match=message):
    build(**kwargs)


def test_container_checks_its_parts():
  trunk, head = models.MultiLeNetTrunk(), models.MultiLeNetHead()
  with pytest.raises(ValueError, match='heads has 1 modules for 2 tasks'):
    models.MultiTaskModel(trunk, (head,), ('a', 'b'))
  with pytest.raises(ValueError, match='at least 16 x 16'):
    models.multi_lenet().init(KEY, jnp.zeros((1, 15, 16, 1)))
  with pytest.raises(ValueError, match='multiples of 8'):
    models.segnet().init(KEY, jnp.zeros((1, 16, 12, 3)))

"""Networks of dense prediction: sizes, identities, gradients by every route."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax as mtl
from mtljax import models
from mtljax.models import layers

KEY = jax.random.key(0)
PAPER = {'widths': (64, 128, 256, 512, 512), 'num_convs': (2, 2, 3, 3, 3)}
#: The three log-variances of uncertainty weighting, in the counts of mtan's
#: code; here they are the weighting's.
LOG_SIGMAS = 3


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def shapes_of(model, side=64, channels=3):
  x = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
  return jax.eval_shape(lambda key: model.init(key, x), KEY)[0]


def counts(model, side=64):
  """Of all parameters, and of those of each convention's Gramian."""
  shapes = shapes_of(model, side)
  return count(shapes), [
    model.sharings(shapes, name).num_gramian for name in model.conventions
  ]


def test_resnets_have_the_published_sizes():
  for depth, size in ((18, 11_176_512), (50, 23_508_032)):
    shapes = shapes_of(models.deeplab_v3(depth=depth))
    assert count(shapes['trunk']) == size


def test_deeplab_heads_have_the_published_sizes():
  model = models.deeplab_v3(tuple('abcd'), (13, 1, 3, 7))
  shapes = shapes_of(model)
  sizes = [count(shapes[f'heads_{t}']) for t in range(4)]
  assert sizes == [16_128_781, 16_125_697, 16_126_211, 16_127_239]
  assert counts(models.deeplab_v3()) == (71_888_721, [23_508_032])


def test_the_skip_of_v3_plus_adds_its_convolutions():
  plain, plus = (
    shapes_of(make(depth=50))['heads_0']
    for make in (models.deeplab_v3, models.deeplab_v3_plus)
  )
  unit = lambda cin, cout, size: cin * cout * size**2 + 2 * cout
  more = unit(256, 48, 1) + unit(256, 256, 3) + 9 * 48 * 256
  assert count(plus) - count(plain) == more


@pytest.mark.parametrize(
  ('changes', 'size'),
  [
    ({}, 25_055_188),
    ({'widths': (64, 128, 256, 512, 1024)}, 43_934_164),
    ({'num_convs': (4, 4, 6, 6, 6)}, 50_807_764),
  ],
  ids=['standard', 'wide', 'deep'],
)
def test_segnets_of_mtan_have_the_published_sizes(changes, size):
  model = models.segnet(definition='mtan', **(PAPER | changes))
  whole, (shared,) = counts(model)
  assert whole + LOG_SIGMAS == size
  if not changes:
    assert shared == 24_943_296
    heads = [count(shapes_of(model)[f'heads_{t}']) for t in range(3)]
    assert heads == [37_773, 36_993, 37_123]


def test_mtan_has_the_published_sizes():
  whole, shared = counts(models.mtan_segnet(**PAPER))
  assert whole + LOG_SIGMAS == 44_229_076
  # Its encoder and decoder; with what tasks tie; without prediction layers.
  assert shared[0] == 3_913_728 + 10_809_408 + 3_947_520 + 6_272_640
  assert shared[1] == shared[0] + 6_272_640 + 3_947_520
  assert shared[2] == shared[1] + 5_506_944 + 3_446_784 == 44_117_184
  whole, shared = counts(models.mtan_resnet())
  assert whole == 92_347_921
  assert shared == [23_508_032, 31_439_424, 31_439_424 + 12_527_808]


def test_streams_have_the_published_sizes():
  libmtl = {'definition': 'libmtl'}
  assert counts(models.cross_stitch(**libmtl)) == (118_904_821, [70_524_132])
  assert counts(models.ltb(**libmtl)) == (118_904_839, [70_524_150])
  # Without the units and scores that nothing reads, of 9 numbers each.
  assert counts(models.cross_stitch()) == (118_904_812, [70_524_123])
  assert counts(models.ltb()) == (118_904_821, [70_524_132])


def test_celeba_has_the_published_size():
  assert counts(models.celeba_cnn()) == (5_197_160, [5_176_640])
  assert 5_197_160 == 5_176_640 + 40 * 513


SMALL = {'depth': 18, 'width': 2, 'head_features': 4, 'norm': 'group'}
TASKS = {'tasks': ('a', 'b'), 'num_outputs': (2, 1)}
MODELS = {
  'deeplab_v3': models.deeplab_v3(**TASKS, **SMALL),
  'deeplab_v3_plus': models.deeplab_v3_plus(**TASKS, **SMALL | {'depth': 50}),
  'segnet_of_mtan': models.segnet(
    **TASKS, widths=(2, 4), num_convs=(2, 2), definition='mtan'
  ),
  'mtan_segnet': models.mtan_segnet(**TASKS, widths=(2, 4), num_convs=(2, 2)),
  'mtan_resnet': models.mtan_resnet(**TASKS, **SMALL),
  'cross_stitch': models.cross_stitch(**TASKS, **SMALL),
  'ltb': models.ltb(**TASKS, **SMALL),
  'celeba_cnn': models.celeba_cnn(('a', 'b'), width=2),
  'vit': models.vit(features=4, depth=1, num_heads=2, hidden=6, num_classes=2),
  'text_encoder': models.text_encoder(
    ('a', 'b'), features=4, depth=1, num_heads=2, hidden=6, vocabulary=9
  ),
}
IMAGE = jax.random.uniform(jax.random.key(8), (2, 16, 16, 3))
TOKENS = jnp.array([[3, 1, 8, 0, 0], [2, 2, 7, 4, 5]])


@functools.cache
def start(name):
  """Parameters, state and an example in float64."""
  x = TOKENS if name == 'text_encoder' else IMAGE
  found = jax.jit(MODELS[name].init)(KEY, x)
  wide = lambda a: a.astype(jnp.float64) if a.dtype == jnp.float32 else a
  return (*jax.tree.map(wide, found), wide(x))


def loss_of(model):
  one = lambda t: lambda y, x: (jnp.mean(jnp.cos(y * (t + 1)) + y**2), {})
  return models.staged_loss(
    model, [one(t) for t in range(model.num_tasks)], lambda x: x
  )


@pytest.mark.parametrize('name', MODELS)
def test_every_route_equals_the_jacobian(name, x64):
  """Of each convention; trunk by trunk, and layer by layer."""
  model = MODELS[name]
  params, state, x = start(name)
  loss = loss_of(model)
  args = params, x, state, KEY
  grad_fn = mtl.value_and_task_grads(loss, has_aux=True)
  rows = jax.jit(grad_fn)(*args)[1]
  for convention in model.conventions:
    found = model.sharings(params, convention)
    over = found.gramian_labels
    if over is None:
      over = jax.tree.map(lambda label: label == 'shared', found.labels)
    picked = jax.tree.map(
      lambda g, use: g.reshape(2, -1) if use else jnp.zeros((2, 0)), rows, over
    )
    matrix = np.concatenate(jax.tree.leaves(picked), axis=1)
    want = matrix @ matrix.T
    assert np.all(np.diag(want) > 0)
    for layerwise in (False, True):
      gramian_fn = mtl.value_and_gramian(
        loss,
        labels=found.labels,
        gramian_labels=found.gramian_labels,
        has_aux=True,
        layerwise=layerwise,
      )
      got = jax.jit(gramian_fn)(*args)[1]
      scale = np.sqrt(np.outer(np.diag(want), np.diag(want)))
      assert np.max(np.abs(got - want) / scale) < 1e-10, (convention, layerwise)


@pytest.mark.parametrize('name', MODELS)
def test_outputs_have_the_size_of_the_image(name):
  model = MODELS[name]
  x = TOKENS if name == 'text_encoder' else IMAGE
  variables = jax.eval_shape(lambda: model.init(KEY, x))
  found = [y.shape for y in jax.eval_shape(model.apply, *variables, x)]
  dense = {(2, 16, 16, 2), (2, 16, 16, 1)}
  assert set(found) <= dense | {(2, 2), (2, 1)}
  assert len(found) == 2


def test_cross_stitch_with_identity_units_is_independent_networks():
  model = MODELS['cross_stitch']
  params, state = jax.jit(model.init)(KEY, IMAGE)
  eye = jnp.broadcast_to(jnp.eye(2), params['trunk']['units'].shape)
  identity = params | {'trunk': params['trunk'] | {'units': eye}}
  together = jax.jit(model.apply)(identity, state, IMAGE)
  mixed = jax.jit(model.apply)(params, state, IMAGE)
  for t, outputs in enumerate(TASKS['num_outputs']):
    alone = models.deeplab_v3(('a',), (outputs,), **SMALL)
    own = {
      name.removeprefix(f'task{t}_'): x
      for name, x in params['trunk'].items()
      if name.startswith(f'task{t}_')
    }
    mine = {'trunk': own, 'heads_0': params[f'heads_{t}']['prediction']}
    want = jax.jit(alone.apply)(mine, {}, IMAGE)[0]
    np.testing.assert_allclose(together[t], want, rtol=1e-5, atol=1e-6)
    assert not np.allclose(mixed[t], want, rtol=1e-3)


def opened(params):
  """Parameters whose attention lets everything through."""
  params = jax.tree.map(lambda x: x, params)
  for head in (params[f'heads_{t}'] for t in range(2)):
    for name, attention in head.items():
      if 'attention' in name:
        last = attention['norm1']
        last['scale'] = jnp.zeros_like(last['scale'])
        last['bias'] = jnp.full_like(last['bias'], 50.0)
  return params


@pytest.mark.parametrize('name', ['mtan_segnet', 'mtan_resnet'])
def test_mtan_that_lets_everything_through_shares_its_trunk(name):
  model = MODELS[name]
  params, state = jax.jit(model.init)(KEY, IMAGE)
  got = jax.jit(model.apply)(opened(params), state, IMAGE)
  closed = jax.jit(model.apply)(params, state, IMAGE)
  plain = {
    'mtan_segnet': MODELS['segnet_of_mtan'],
    'mtan_resnet': MODELS['deeplab_v3'],
  }[name]
  heads = {f'heads_{t}': params[f'heads_{t}']['prediction'] for t in range(2)}
  kept = {k: x for k, x in state.items() if k == 'batch_stats'}
  if name == 'mtan_resnet':
    kept = {}
  want = jax.jit(plain.apply)({'trunk': params['trunk'], **heads}, kept, IMAGE)
  for a, b, c in zip(got, want, closed, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert not np.allclose(c, b, rtol=1e-3)


def test_unpooling_puts_back_maxima_and_zeros():
  x = jax.random.normal(KEY, (2, 6, 8, 3))
  back = layers.max_unpool_2x2(*layers.max_pool_2x2_with_indices(x))
  windows = x.reshape(2, 3, 2, 4, 2, 3)
  most = windows == windows.max(axis=(2, 4), keepdims=True)
  np.testing.assert_array_equal(
    back, jnp.where(most, windows, 0).reshape(x.shape)
  )


def test_branches_are_sums_then_choices():
  """Of libmtl: a sum in the warm-up, whose end the counted steps bring."""
  settings = SMALL | {'steps_per_epoch': 2, 'warmup_epochs': 1}
  state = None
  outputs = {}
  for definition in ('paper', 'libmtl'):
    model = models.ltb(**TASKS, **settings, definition=definition)
    params, state = jax.jit(model.init)(KEY, IMAGE)
    run = jax.jit(functools.partial(model.apply_trunk, train=True))
    seen = []
    for i in range(6):
      key = jax.random.key(i)
      features, state = run(params, state, IMAGE, key=key)
      assert state['schedule']['step'] == i + 1
      seen.append(features[0])
    np.testing.assert_allclose(seen[0], seen[1], rtol=1e-6)
    later = [np.allclose(seen[0], x, rtol=1e-3) for x in seen[2:]]
    assert not all(later)
    outputs[definition] = seen
    # Evaluation takes the most probable source and counts nothing.
    _, same = model.apply_trunk(params, state, IMAGE, train=False)
    assert same is state
  with pytest.raises(ValueError, match='key=None, but trunk draws'):
    model.apply_trunk(params, state, IMAGE, train=True)


def test_branches_read_the_source_of_the_best_score():
  """In evaluation; a task that reads itself all along is a net of its own."""
  model = MODELS['ltb']
  params, state = jax.jit(model.init)(KEY, IMAGE)
  own = jnp.broadcast_to(10 * jnp.eye(2), params['trunk']['branches'].shape)
  params = params | {'trunk': params['trunk'] | {'branches': own}}
  got = jax.jit(model.apply)(params, state, IMAGE)
  for t, outputs in enumerate(TASKS['num_outputs']):
    alone = models.deeplab_v3(('a',), (outputs,), **SMALL)
    trunk = {
      name.removeprefix(f'task{t}_'): x
      for name, x in params['trunk'].items()
      if name.startswith(f'task{t}_')
    }
    mine = {'trunk': trunk, 'heads_0': params[f'heads_{t}']['prediction']}
    want = jax.jit(alone.apply)(mine, {}, IMAGE)[0]
    np.testing.assert_allclose(got[t], want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('align_corners', [False, True])
def test_resizing_is_linear_between_pixels(align_corners):
  """Of a linear image: the coordinates at which each new pixel lies."""
  x = jnp.broadcast_to(jnp.arange(5.0)[None, None, :, None], (1, 3, 5, 2))
  got = models.resize_bilinear(x, 6, 10, align_corners=align_corners)
  assert got.shape == (1, 6, 10, 2)
  if align_corners:
    want = np.linspace(0, 4, 10)
  else:
    want = np.clip((np.arange(10) + 0.5) / 2 - 0.5, 0, 4)
    resized = jax.image.resize(x, (1, 6, 10, 2), 'bilinear')
    np.testing.assert_allclose(got, resized, atol=1e-6)
  np.testing.assert_allclose(got[0, 2, :, 1], want, atol=1e-6)


def test_texts_of_nothing_and_what_is_behind_them_do_not_count():
  model = MODELS['text_encoder']
  params, state = jax.jit(model.init)(KEY, TOKENS)
  run = jax.jit(model.apply)
  short = run(params, state, TOKENS[:, :3])[0][0]
  np.testing.assert_allclose(
    short, run(params, state, TOKENS)[0][0], rtol=1e-5, atol=1e-6
  )
  features, _ = model.apply_trunk(
    params, state, jnp.zeros((1, 4), int), train=False
  )
  np.testing.assert_array_equal(features, jnp.zeros((1, 4)))


@pytest.mark.parametrize(
  ('build', 'kwargs', 'message'),
  [
    (models.deeplab_v3, {'tasks': 'depth'}, 'is a string'),
    (models.deeplab_v3, {'depth': 34}, r'depth=34 must be one of \[18, 50\]'),
    (models.deeplab_v3, {'num_outputs': (1, 2)}, 'each of the 3 tasks'),
    (models.deeplab_v3_plus, {'head_features': 0}, 'head_features=0'),
    (models.mtan_resnet, {'norm': 'groups'}, r"Did you mean 'group'\?"),
    (models.mtan_segnet, {'widths': (4,)}, 'one number for each stage'),
    (models.segnet, {'definition': 'mtam'}, r"Did you mean 'mtan'\?"),
    (models.cross_stitch, {'definition': 'libmt'}, r"Did you mean 'libmtl'\?"),
    (models.cross_stitch, {'own': 1.5}, 'own=1.5'),
    (models.ltb, {'temperature': 0.0}, 'temperature=0'),
    (models.ltb, {'steps_per_epoch': 0}, 'steps_per_epoch=0'),
    (models.celeba_cnn, {'width': 0}, 'width=0'),
    (models.vit, {'features': 10, 'num_heads': 4}, 'a multiple of num_heads=4'),
    (models.text_encoder, {'tasks': ('a',), 'vocabulary': 1}, 'vocabulary=1'),
  ],
)
def test_arguments_are_checked(build, kwargs, message):
  with pytest.raises(ValueError, match=message):
    build(**kwargs)

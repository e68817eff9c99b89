"""Networks of dense prediction: sizes, identities, gradients by every route."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_nets import (
  KEY,
  MODELS,
  SEGNET,
  TASKS,
  TEN,
  count,
  counts,
  quick_jit,
  shapes_of,
  start,
)

import mtljax as mtl
from mtljax import models
from mtljax.models import layers

PAPER = {'widths': (64, 128, 256, 512, 512), 'num_convs': (2, 2, 3, 3, 3)}
#: The three log-variances of uncertainty weighting, in the counts of mtan's
#: code; here they are the weighting's.
LOG_SIGMAS = 3


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


def loss_of(model):
  one = lambda t: lambda y, x: (jnp.mean(jnp.cos(y * (t + 1)) + y**2), {})
  return models.staged_loss(
    model, [one(t) for t in range(model.num_tasks)], lambda x: x
  )


LARGE = (
  'deeplab_v3',
  'deeplab_v3_plus',
  'mtan_resnet',
  'mtan_segnet',
  'cross_stitch',
  'ltb',
  'mmoe_resnet',
  'cgc_resnet',
  'ple_resnet',
  'ple_resnet_of_libmtl',
  'dselect_k_resnet',
)


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=pytest.mark.slow if name in LARGE else ())
    for name in MODELS
  ],
)
def test_every_route_equals_the_jacobian(name, x64):
  """By each convention; from rows, and layer by layer."""
  model = MODELS[name]
  params, state, x = start(name, jnp.float64)
  loss = loss_of(model)
  found = {c: model.sharings(params, c) for c in model.conventions}

  @quick_jit
  def compute(*args):
    grad_fn = mtl.value_and_task_grads(loss, has_aux=True)
    gramians = {
      (c, layerwise): mtl.value_and_gramian(
        loss,
        labels=by.labels,
        gramian_labels=by.gramian_labels,
        has_aux=True,
        layerwise=layerwise,
      )(*args)[1]
      for c, by in found.items()
      for layerwise in (False, True)
    }
    return grad_fn(*args)[1], gramians

  rows, gramians = compute(params, x, state, KEY)
  for (convention, layerwise), got in gramians.items():
    by = found[convention]
    over = by.gramian_labels
    if over is None:
      over = jax.tree.map(lambda label: label == 'shared', by.labels)
    picked = [
      g.reshape(2, -1)
      for g, use in zip(*map(jax.tree.leaves, (rows, over)), strict=True)
      if use
    ]
    matrix = np.concatenate(picked, axis=1)
    assert matrix.shape[1] == by.num_gramian
    want = matrix @ matrix.T
    assert np.all(np.diag(want) > 0)
    scale = np.sqrt(np.outer(np.diag(want), np.diag(want)))
    assert np.max(np.abs(got - want) / scale) < 1e-10, (convention, layerwise)


@pytest.mark.parametrize('name', MODELS)
def test_outputs_have_the_size_of_the_image(name):
  model = MODELS[name]
  *variables, x = start(name)
  found = [y.shape for y in jax.eval_shape(model.apply, *variables, x)]
  dense = {(2, 16, 16, 2), (2, 16, 16, 1)}
  assert set(found) <= dense | {(2, 2), (2, 1)}
  assert len(found) == 2


def alone(params, t):
  """The network of a task by itself, and its parameters out of streams'."""
  outputs = TASKS['num_outputs'][t]
  own = {
    name.removeprefix(f'task{t}_'): x
    for name, x in params['trunk'].items()
    if name.startswith(f'task{t}_')
  }
  mine = {'trunk': own, 'heads_0': params[f'heads_{t}']['prediction']}
  return models.deeplab_v3(('a',), (outputs,), **TEN), mine


def assert_independent(outputs, params, x):
  for t, got in enumerate(outputs):
    model, mine = alone(params, t)
    want = quick_jit(model.apply)(mine, {}, x)[0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def with_trunk(params, **changes):
  return params | {'trunk': params['trunk'] | changes}


def test_cross_stitch_with_identity_units_is_independent_networks():
  params, state, x = start('cross_stitch')
  eye = jnp.broadcast_to(jnp.eye(2), params['trunk']['units'].shape)
  run = quick_jit(MODELS['cross_stitch'].apply)
  together = run(with_trunk(params, units=eye), state, x)
  assert_independent(together, params, x)
  mixed = run(with_trunk(params, units=0.5 + 0 * eye), state, x)
  assert not np.allclose(mixed[0], together[0], rtol=1e-3)


def test_cross_stitched_segnets_have_the_published_size():
  published = counts(models.cross_stitch_segnet(**PAPER, definition='mtan'))
  assert published[0] + LOG_SIGMAS == 74_941_807
  assert published[1] == [3 * 24_943_296 + (4 + 5) * 3]
  # The paper's units are 3 x 3 instead of 3.
  own = counts(models.cross_stitch_segnet(**PAPER))
  assert own == (74_941_858, [published[1][0] + (4 + 5) * 6])


def test_cross_stitched_segnets_with_identity_units_are_independent():
  params, state, x = start('cross_stitch_segnet')
  units = params['trunk']['units']
  assert units.shape == (3, 2, 2)
  run = quick_jit(MODELS['cross_stitch_segnet'].apply)
  eye = jnp.broadcast_to(jnp.eye(2), units.shape)
  together = run(with_trunk(params, units=eye), state, x)
  for t, got in enumerate(together):
    model = models.segnet(
      ('a',), (TASKS['num_outputs'][t],), **SEGNET, definition='mtan'
    )
    own = {
      kind: {
        name.removeprefix(f'task{t}_'): x
        for name, x in values.items()
        if name.startswith(f'task{t}_')
      }
      for kind, values in (
        ('trunk', params['trunk']),
        ('batch_stats', state['batch_stats']),
      )
    }
    head = params[f'heads_{t}']['prediction']
    mine = {'trunk': own['trunk'], 'heads_0': head}
    want = quick_jit(model.apply)(mine, {'batch_stats': own['batch_stats']}, x)[
      0
    ]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)

  # A unit of MTAN's is one row for all tasks.
  rows = jax.random.normal(KEY, (3, 2))
  mtan = models.cross_stitch_segnet(**TASKS, **SEGNET, definition='mtan')
  got = quick_jit(mtan.apply)(with_trunk(params, units=rows), state, x)
  each = jnp.repeat(rows[:, None], 2, 1)
  want = run(with_trunk(params, units=each), state, x)
  for a, b, c in zip(got, want, together, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert not np.allclose(a, c, rtol=1e-3)


def test_branches_read_the_source_of_the_best_score():
  """In evaluation; a task that reads itself all along is a net of its own."""
  params, state, x = start('ltb')
  own = jnp.broadcast_to(jnp.eye(2), params['trunk']['branches'].shape)
  run = quick_jit(MODELS['ltb'].apply)
  assert_independent(run(with_trunk(params, branches=own), state, x), params, x)


def test_units_begin_near_the_identity():
  for own, definition in ((0.9, 'paper'), (1, 'libmtl')):
    trunk = models.CrossStitchTrunk(
      3, depth=10, width=1, definition=definition, norm='group'
    )
    x = jnp.zeros((1, 8, 8, 1))
    units = quick_jit(trunk.init)(KEY, x)['params']['units'][0]
    other = 1 if definition == 'libmtl' else 0.05
    want = np.full((3, 3), other) + (own - other) * np.eye(3)
    np.testing.assert_allclose(units, want, rtol=1e-6)


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


@pytest.mark.parametrize(
  ('name', 'plain'),
  [('mtan_segnet', 'segnet_of_mtan'), ('mtan_resnet', 'deeplab_v3')],
)
def test_mtan_that_lets_everything_through_shares_its_trunk(name, plain):
  params, state, x = start(name)
  run = quick_jit(MODELS[name].apply)
  got, masked = run(opened(params), state, x), run(params, state, x)
  heads = {f'heads_{t}': params[f'heads_{t}']['prediction'] for t in range(2)}
  kept = {k: x for k, x in state.items() if k == 'batch_stats'}
  want = quick_jit(MODELS[plain].apply)(
    {'trunk': params['trunk'], **heads}, kept, x
  )
  for a, b, c in zip(got, want, masked, strict=True):
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


def test_branches_are_warmed_up_then_drawn():
  """The end of the warm-up is counted in the state."""
  params, state, x = start('ltb')
  state = state | {'schedule': {'step': jnp.int32(0)}}
  model = models.ltb(**TASKS, **TEN, steps_per_epoch=2, warmup_epochs=1)
  run = quick_jit(functools.partial(model.apply_trunk, train=True))
  seen = []
  for i in range(6):
    features, state = run(params, state, x, key=jax.random.key(i))
    assert state['schedule']['step'] == i + 1
    seen.append(features[0])
  np.testing.assert_array_equal(seen[0], seen[1])
  assert not all(np.allclose(seen[0], x, rtol=1e-3) for x in seen[2:])
  # Evaluation counts nothing, and draws nothing.
  _, same = jax.eval_shape(
    functools.partial(model.apply_trunk, train=False), params, state, x
  )
  assert same == jax.eval_shape(lambda: state)
  with pytest.raises(ValueError, match='key=None, but trunk draws'):
    jax.eval_shape(run, params, state, x)


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
  params, state, x = start('text_encoder')
  model = MODELS['text_encoder']
  run = quick_jit(functools.partial(model.apply_trunk, train=False))
  whole, short = (run(params, state, x[:1, :n])[0] for n in (5, 3))
  np.testing.assert_allclose(short, whole, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(
    run(params, state, 0 * x[:1])[0], jnp.zeros((1, 4))
  )


@pytest.mark.parametrize(
  ('build', 'kwargs', 'message'),
  [
    (models.deeplab_v3, {'tasks': 'depth'}, 'is a string'),
    (
      models.deeplab_v3,
      {'depth': 34},
      r'depth=34 must be one of \[10, 18, 50\]',
    ),
    (models.deeplab_v3, {'num_outputs': (1, 2)}, 'each of the 3 tasks'),
    (models.deeplab_v3_plus, {'head_features': 0}, 'head_features=0'),
    (models.mmoe_resnet, {'num_experts': 0}, 'num_experts=0'),
    (models.cgc_resnet, {'num_own': -1}, 'num_own=-1'),
    (models.ple_resnet, {'definition': 'mtan'}, "definition='mtan'"),
    (models.dselect_k_resnet, {'num_selected': 0}, 'num_selected=0'),
    (models.mtan_resnet, {'depth': 10}, 'two blocks or more'),
    (models.mtan_resnet, {'norm': 'groups'}, r"Did you mean 'group'\?"),
    (models.mtan_segnet, {'widths': (4,)}, 'one number for each stage'),
    (models.segnet, {'definition': 'mtam'}, r"Did you mean 'mtan'\?"),
    (models.cross_stitch, {'definition': 'libmt'}, r"Did you mean 'libmtl'\?"),
    (models.cross_stitch, {'own': 1.5}, 'own=1.5'),
    (models.cross_stitch_segnet, {'definition': 'mta'}, "mean 'mtan'"),
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

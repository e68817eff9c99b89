"""Convolutions inside loops."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend import core

import mtljax as mtl
from mtljax.training import make_train_step

NCHW = ('NCHW', 'OIHW', 'NCHW')
NHWC = ('NHWC', 'HWIO', 'NHWC')


@pytest.fixture
def x64():
  with jax.enable_x64(True):
    yield


@pytest.fixture(autouse=True)
def on_cpu():
  if jax.default_backend() != 'cpu':
    pytest.skip('other backends need no such thing')


def convolution(form=NHWC, **options):
  def conv(x, kernel):
    return jax.lax.conv_general_dilated(
      x, kernel, dimension_numbers=form, **options
    )

  return conv


def equations(jaxpr, inside=''):
  """Every equation and the outermost loop or conditional that it is in."""
  for eqn in jaxpr.eqns:
    yield eqn, inside
    name = eqn.primitive.name
    outer = inside or (name if name in ('scan', 'while', 'cond') else '')
    for sub in core.jaxprs_in_params(eqn.params):
      yield from equations(sub, outer)


def convolutions(fun, *args):
  """The dimension numbers of the convolutions of a trace, and their loops."""
  return [
    (tuple(eqn.params['dimension_numbers']), inside)
    for eqn, inside in equations(jax.make_jaxpr(fun)(*args).jaxpr)
    if eqn.primitive.name == 'conv_general_dilated'
  ]


LAST = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))

CASES = {
  'same': (NHWC, (5, 6, 6, 3), (3, 3, 3, 4), dict(padding='SAME')),
  'strided': (
    NHWC,
    (2, 9, 7, 3),
    (3, 2, 3, 4),
    dict(padding=[(1, 2), (0, 1)], window_strides=(2, 3)),
  ),
  'dilated': (
    NHWC,
    (2, 5, 6, 2),
    (2, 3, 2, 3),
    dict(padding=[(0, 1), (2, 0)], lhs_dilation=(2, 1), rhs_dilation=(1, 2)),
  ),
  'channels first': (NCHW, (2, 3, 6, 5), (4, 3, 3, 3), dict(padding='SAME')),
  'groups': (
    NHWC,
    (2, 5, 6, 4),
    (3, 2, 2, 6),
    dict(padding='SAME', feature_group_count=2),
  ),
  'depthwise, strided': (
    NCHW,
    (2, 3, 7, 6),
    (6, 1, 3, 3),
    dict(padding='VALID', feature_group_count=3, window_strides=(2, 1)),
  ),
  'groups of the batch': (
    NHWC,
    (4, 5, 6, 3),
    (2, 2, 3, 4),
    dict(padding='SAME', batch_group_count=2),
  ),
  'one axis': (
    ('NWC', 'WIO', 'NWC'),
    (2, 8, 3),
    (3, 3, 4),
    dict(padding='SAME', window_strides=(2,)),
  ),
  'three axes': (
    ('NDHWC', 'DHWIO', 'NDHWC'),
    (2, 4, 3, 5, 2),
    (2, 1, 3, 2, 3),
    dict(padding='VALID'),
  ),
}


@pytest.mark.parametrize('case', CASES)
def test_gradients_are_those_of_the_function(case, x64):
  form, image, window, options = CASES[case]
  options = {'window_strides': (1,) * (len(image) - 2)} | options
  conv = convolution(form, **options)
  x = jax.random.normal(jax.random.key(0), image)
  kernel = jax.random.normal(jax.random.key(1), window)
  loss = lambda x, kernel: jnp.sum(jnp.sin(conv(jnp.tanh(x), kernel)))
  both = jax.value_and_grad(loss, (0, 1))
  found = jax.jit(mtl.canonical_convolutions(both))(x, kernel)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12),
    found,
    both(x, kernel),
  )
  ndim = len(image)
  last = (0, ndim - 1, *range(1, ndim - 1))
  last = (last, (ndim - 1, ndim - 2, *range(ndim - 2)), last)
  before = [numbers for numbers, _ in convolutions(both, x, kernel)]
  after = convolutions(mtl.canonical_convolutions(both), x, kernel)
  assert any(numbers != last for numbers in before)
  assert len(after) == len(before)
  assert all(numbers == last for numbers, _ in after)


def test_trees_keys_and_nested_calls_pass_through():
  conv = jax.jit(convolution(NCHW, window_strides=(1, 1), padding='SAME'))

  @jax.jit
  def fun(tree, key):
    y = conv(tree['x'], tree['kernel'])
    return {'y': jax.nn.relu(y), 'key': jax.random.fold_in(key, 1), 'n': 3}

  tree = {'x': jnp.ones((1, 2, 4, 4)), 'kernel': jnp.ones((3, 2, 3, 3))}
  found = mtl.canonical_convolutions(fun)(tree, jax.random.key(0))
  wanted = fun(tree, jax.random.key(0))
  np.testing.assert_allclose(found['y'], wanted['y'], rtol=1e-6)
  assert found['key'] == wanted['key'] and found['n'] == 3


def test_precision_and_dtype_stay():
  conv = convolution(
    NCHW,
    window_strides=(1, 1),
    padding='SAME',
    precision='highest',
    preferred_element_type=jnp.float32,
  )
  args = (
    jnp.ones((1, 2, 4, 4), jnp.bfloat16),
    jnp.ones((3, 2, 3, 3), jnp.bfloat16),
  )
  trace = jax.make_jaxpr(mtl.canonical_convolutions(conv))(*args)
  (eqn,) = [
    eqn
    for eqn, _ in equations(trace.jaxpr)
    if eqn.primitive.name == 'conv_general_dilated'
  ]
  assert eqn.params['precision'] == (jax.lax.Precision.HIGHEST,) * 2
  assert trace.out_avals[0].dtype == jnp.float32


def test_loops_of_its_own_stay():
  x, kernel = jnp.ones((1, 4, 4, 4)), jnp.ones((2, 4, 3, 3))
  conv = convolution(NCHW, window_strides=(1, 1), padding='SAME')
  loop = lambda x, kernel: jax.lax.map(lambda x: conv(x, kernel), x[None])
  before = convolutions(loop, x, kernel)
  assert convolutions(mtl.canonical_convolutions(loop), x, kernel) == before


def test_other_backends_get_the_function(monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  fun = lambda x: x
  assert mtl.canonical_convolutions(fun) is fun


@pytest.mark.parametrize(
  'options',
  [
    {'route': 'jacobian', 'every': 3},
    {'route': 'layerwise', 'every': 3},
    {'route': 'jacobian', 'mode': 'map'},
    {'route': 'gramian', 'mode': 'unroll', 'chunk_size': 1},
    {'microbatch_size': 2},
    {'microbatch_size': 2, 'accumulate': 'updates'},
  ],
  ids=str,
)
def test_loops_of_the_train_step_are_channels_last(options):
  conv = convolution(window_strides=(1, 1), padding='SAME')
  params = {
    'trunk': [jnp.ones((3, 3, 3, 16)), jnp.ones((3, 3, 16, 16))],
    'heads': [jnp.ones(16), jnp.ones(16)],
  }

  def trunk(params, x):
    for kernel in params['trunk']:
      x = jnp.tanh(conv(x, kernel))
    return jnp.mean(x, (1, 2))

  def head(t):
    return lambda params, z, x: jnp.mean((z @ params['heads'][t] - t) ** 2)

  step = make_train_step(
    mtl.upgrad(2, labels={'trunk': ['shared'] * 2, 'heads': [0, 1]}),
    optax.sgd(0.1),
    mtl.Staged(trunk, [head(0), head(1)]),
    **options,
  )
  state = step.init(params, key=jax.random.key(0))
  found = convolutions(step.step, state, jnp.ones((4, 8, 8, 3)))
  inside = {numbers for numbers, loop in found if loop}
  assert inside == {LAST}, inside

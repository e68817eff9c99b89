"""Forecasts of a step: routes, work, memory, and what keeps parameters out."""

import itertools

import jax
import jax.numpy as jnp
import optax
import pytest

import mtljax as mtl
from benchmarks import forecast
from mtljax.training import estimate, make_train_step

X = jax.ShapeDtypeStruct((4, 8), jnp.float32)


def array(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def losses(z):
  return jnp.stack([jnp.mean(z), jnp.mean(z**2)])


# What becomes of w: a function of the data and w, its shape, the form, why.
CONSTRUCTS = {
  'dense': (lambda x, w: x @ w, (8, 64), 'signals', ''),
  'bias': (lambda x, w: x + w[None], (8,), 'rows', 'enters add'),
  'scale': (lambda x, w: x * w[None], (8,), 'rows', 'enters mul'),
  'function of a weight': (
    lambda x, w: x @ jnp.tanh(w),
    (8, 64),
    'rows',
    'enters tanh',
  ),
  'twice': (
    lambda x, w: (x @ w) @ w,
    (8, 8),
    'rows',
    'is used more than once: dot_general, dot_general',
  ),
  'conditional': (
    lambda x, w: jax.lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: x - x @ w),
    (8, 8),
    'rows',
    'enters cond',
  ),
  'custom derivative': (
    lambda x, w: x * jax.nn.relu(w)[None],
    (8,),
    'rows',
    'enters custom_jvp_call',
  ),
  'not read': (lambda x, w: x, (8,), 'rows', 'is not read'),
  'loop': (
    lambda x, w: jax.lax.scan(lambda z, v: (z * v[None], None), x, w)[0],
    (3, 8),
    'slices',
    'inside scan',
  ),
  'few weights': (
    lambda x, w: jnp.tile(x, (64, 1)) @ w,
    (8, 2),
    'rows',
    'gradients are less work than signals of its dot_general',
  ),
}


@pytest.mark.parametrize('name', CONSTRUCTS)
def test_what_keeps_a_parameter_out_is_named(name):
  fun, shape, form, why = CONSTRUCTS[name]
  params = {'net': {'w': array(*shape)}, 'first': array(8, 8)}
  loss = lambda p, x: losses(fun(x @ p['first'], p['net']['w']))
  found = estimate(mtl.mgda(2), loss, params, X)
  leaf = found.leaves[1]
  assert (leaf.name, leaf.form, leaf.why) == ('net/w', form, why)
  assert not why or f'net/w {why}' in str(found)


def test_heads_that_read_a_shared_leaf_are_named():
  loss = mtl.Staged(
    lambda p, x: x @ p['w'],
    [lambda p, z, x: jnp.mean(z @ p['w'])] * 2,
  )
  found = estimate(mtl.mgda(2), loss, {'w': array(8, 8)}, X)
  assert found.leaves[0].why == 'is read by the heads too'


def test_a_method_of_gradients_says_its_route():
  found = estimate(mtl.graddrop(2), lambda p, x: losses(x @ p), array(8, 8), X)
  assert (found.route, found.bound) == ('jacobian', True)
  assert 'auto takes jacobian, to which it is bound' in str(found)
  assert "route='jacobian'" in found.row('gramian').refused
  assert not found.leaves
  assert found.row('jacobian').passes == 2


def test_routes_and_passes():
  loss = lambda p, x: losses(x @ p)
  found = estimate(mtl.cagrad(2), loss, array(8, 8), X)
  assert (found.route, found.bound) == ('layerwise', False)
  assert 'staged' in found.row('features').refused
  assert 'Gramian' in found.row('losses').refused
  # All is kept, so that no pass comes after the T.
  passes = {row.route: row.passes for row in found.rows if not row.refused}
  assert passes == {'auto': 2, 'jacobian': 2, 'gramian': 3, 'layerwise': 2}
  assert estimate(mtl.uncertainty(2), loss, array(8, 8), X).route == 'losses'
  sequence = [lambda p, x: jnp.mean(x @ p)] * 2
  found = estimate(mtl.cagrad(2), sequence, array(8, 8), [X, X])
  assert found.route == 'jacobian' and 'sequence' in str(found)
  with pytest.raises(ValueError, match="route='auto', mode='other'"):
    found.row('auto', 'other')


def test_multiplications():
  """A dense layer and two tasks, of which no head has products."""
  loss = lambda p, x: losses(x @ p)
  found = estimate(mtl.cagrad(2), loss, array(8, 16), X, mode='unroll')
  forward = 2 * 4 * 8 * 16
  gramian = 2 * 2 * 2 * 8 * 16
  row = found.row('jacobian', 'unroll')
  assert forward * 3 <= row.flops <= forward * 3 + 2 * gramian + 1000


def test_nothing_is_allocated_or_compiled():
  """Sizes that no machine holds."""
  loss = lambda p, x: losses(x @ p)
  found = estimate(mtl.cagrad(2), loss, array(10**6, 10**6), array(4, 10**6))
  assert found.argument_bytes > 4e12
  assert found.row('jacobian').bytes > 8e12 > found.row('layerwise').bytes


# Forecast bytes by compiled ones, of the small cases of `benchmarks.forecast`.
# Within 25 %, of which these are quick to compile.
QUICK = {
  ('mlp_8', 'jacobian'),
  ('mlp_8', 'auto'),
  ('lstm', 'jacobian'),
  ('recommender', 'jacobian'),
  ('pinn', 'auto'),
  ('encoder_scan', 'jacobian'),
}
CLOSE = [
  pytest.param(*way, marks=() if way in QUICK else pytest.mark.slow)
  for way in itertools.product(forecast.NAMES, forecast.ROUTES)
]


@pytest.mark.parametrize(('name', 'route'), CLOSE)
def test_memory_is_that_of_the_compiled_program(name, route):
  case = forecast.make_case(name, quick=True)
  params, model_state, labels = case.init()
  method = mtl.cagrad(case.num_tasks, labels=labels)
  found = estimate(
    method,
    case.loss,
    params,
    case.batch,
    has_state=True,
    model_state=model_state,
  )
  mode = 'unroll' if route == 'jacobian' else 'auto'  # as its row
  compiled = forecast.compiled_bytes(case, method, route, mode)
  assert abs(found.row(route).bytes / compiled - 1) <= 0.25


def test_arguments_are_those_of_the_compiled_program():
  loss = lambda p, x: losses(x @ p)
  found = estimate(mtl.cagrad(2), loss, array(8, 16), X)
  train = make_train_step(mtl.cagrad(2), optax.sgd(0.1), loss)
  state = train.init(jnp.zeros((8, 16)), key=jax.random.key(0))
  compiled = train.step.lower(state, X).compile().memory_analysis()
  size = compiled.argument_size_in_bytes
  assert abs(found.argument_bytes - size) <= 64


def sample_loss(params, batch):
  x, y = batch
  x = jnp.tanh(x @ params['first'])
  return jnp.mean((x @ params['last'] - y) ** 2)


SAMPLES = ((64, 128), (64, 8))
LAYERS = {'first': (128, 256), 'last': (256, 8)}


def of_samples(method, batch=SAMPLES):
  params = {name: array(*shape) for name, shape in LAYERS.items()}
  given = tuple(array(*shape) for shape in batch)
  return estimate(method, sample_loss, params, given, tasks='samples')


def test_samples_as_tasks():
  found = of_samples(mtl.upgrad(64))
  assert (found.route, found.num_tasks) == ('layerwise', 64)
  passes = {row.route: row.passes for row in found.rows if not row.refused}
  assert passes == {'auto': 2, 'jacobian': 1, 'gramian': 2, 'layerwise': 2}
  assert [(leaf.name, leaf.form) for leaf in found.leaves] == [
    ('first', 'signals'),
    ('last', 'signals'),
  ]
  forward = 2 * 64 * (128 * 256 + 256 * 8)
  gradients = forward + 2 * 64 * (128 * 256 + 2 * 256 * 8)
  products = 2 * 64 * 64 * (128 * 256 + 256 * 8)
  row = found.row('jacobian')
  assert gradients + products <= row.flops
  # All samples' gradients, and their weighted sum.
  assert row.bytes >= 4 * 64 * (128 * 256 + 256 * 8)
  assert found.row('layerwise').bytes < row.bytes / 3


@pytest.mark.parametrize('route', ['jacobian', 'layerwise'])
def test_memory_of_samples_is_that_of_the_compiled_program(route):
  key = jax.random.key(0)
  params = {k: jax.random.normal(key, shape) for k, shape in LAYERS.items()}
  batch = tuple(jnp.ones(shape) for shape in SAMPLES)
  train = make_train_step(
    mtl.mgda(64),
    optax.sgd(0.1),
    sample_loss,
    tasks='samples',
    route=route,
  )
  state = train.init(params, key=key)
  compiled = train.step.lower(state, batch).compile().memory_analysis()
  found = of_samples(mtl.mgda(64)).row(route)
  assert abs(found.bytes / compiled.temp_size_in_bytes - 1) <= 0.25


def test_samples_that_are_no_tasks_are_refused():
  with pytest.raises(ValueError, match='num_tasks=8'):
    of_samples(mtl.mgda(8))
  with pytest.raises(ValueError, match="tasks='samples': modo reads"):
    of_samples(mtl.modo(64))
  with pytest.raises(ValueError, match="tasks='both'"):
    estimate(mtl.mgda(2), sample_loss, array(2), X, tasks='both')


def test_averages_of_tasks_have_a_pass_each():
  def five(w, x):
    return jnp.stack([jnp.mean((x @ w - t) ** 2) for t in range(5)])

  found = estimate(mtl.cagrad(5, subset=2), five, array(8, 4), X)
  assert found.route == 'gramian'
  assert 'averages' in found.why
  assert [found.row(x).passes for x in ('auto', 'gramian', 'jacobian')] == [
    3,
    3,
    5,
  ]
  other = estimate(mtl.cagrad(5), five, array(8, 4), X)
  assert other.row('gramian').passes == 6

"""Sharded training: the same numbers, and no more traffic than is said."""

import math
import pathlib

import eight_devices
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fake_mesh import FakeMesh
from jax.sharding import PartitionSpec as P

import mtljax as mtl
from mtljax import data
from mtljax.training import Layout, ShardedBatches, make_mesh, make_train_step

T = 4
SHAPES = [[32, 64], [64, 128], [128, T], [T]]


@pytest.fixture(scope='module')
def facts():
  """Of the programs compiled for eight devices; equality is checked there."""
  return eight_devices.facts_of(
    pathlib.Path(__file__).with_name('sharding_main.py')
  )


def shapes_of(collectives, kind):
  return [shape for name, shapes in collectives if name == kind
          for shape in shapes]  # fmt: skip


def test_gramian_of_split_gradients_is_one_all_reduce(facts):
  (kind, shapes), *others = facts['gramian alone']
  assert kind == 'all-reduce'
  assert not others
  assert all(shape == [T, T] for shape in shapes)


@pytest.mark.parametrize('route', ['jacobian', 'gramian'])
def test_fsdp_gathers_each_parameter_once_and_no_gradient(facts, route):
  found = facts[f'{route} fsdp']['collectives']
  gathered = shapes_of(found, 'all-gather')
  # The bias does not divide: it is whole everywhere.
  assert sorted(gathered) == sorted(SHAPES[:3])
  assert not shapes_of(found, 'all-to-all')
  reduced = sum(map(math.prod, shapes_of(found, 'all-reduce')))
  small = 5 * T * T + T
  sums = T + (route == 'gramian')  # the last is the weighted gradient
  assert reduced <= sums * facts['size'] + small


def test_data_parallel_gathers_the_update_alone(facts):
  found = facts['jacobian data']['collectives']
  assert sorted(shapes_of(found, 'all-gather')) == sorted(SHAPES[:3])
  assert not shapes_of(facts['gramian data']['collectives'], 'all-gather')


def test_tasks_are_pulled_back_apart(facts):
  found = facts['jacobian task']['collectives']
  # Each device sums the gradients of half of the tasks, and these change hands.
  summed = sum(map(math.prod, shapes_of(found, 'all-reduce')))
  small = facts['size'] // 50  # losses, heads' sums, T x T
  assert 0 <= summed - T // 2 * facts['size'] <= small
  moved = sum(map(math.prod, shapes_of(found, 'all-to-all')))
  assert 0 < moved <= T // 2 * facts['size'] / 4 + small
  assert not [s for s in shapes_of(found, 'all-gather') if len(s) > 2]
  # The forward pass and the heads are done twice, half of the pullbacks not.
  assert facts['jacobian task']['flops'] < 1.3 * facts['jacobian fsdp']['flops']


def test_tracked_gradients_stay_split(facts):
  gathered = shapes_of(facts['moco']['collectives'], 'all-gather')
  assert sorted(gathered) == sorted(SHAPES[:3])


def test_memory_of_a_device_shrinks_with_the_mesh(facts):
  eight, two, one = facts['memory']
  assert eight < two < one
  # XLA's CPU backend has no reduce-scatter: sums are whole for a moment. What
  # lasts is not.
  eight, one = facts['arguments']
  assert eight < 0.2 * one


def specs(layout, shape, **params):
  params = params or {'w': shape}
  tree = {k: jax.ShapeDtypeStruct(v, jnp.float32) for k, v in params.items()}
  found = layout._param_specs(tree), layout._row_specs(tree)
  return tuple(dict(zip(sorted(tree), x, strict=True)) for x in found)


@pytest.mark.parametrize(
  ('kind', 'mesh', 'shape', 'param', 'row'),
  [
    ('data', {'data': 4}, (8, 6), P(), P('data', None)),
    ('fsdp', {'data': 4}, (8, 16), P(None, 'data'), P(None, 'data')),
    ('fsdp', {'data': 4}, (16, 18), P('data', None), P('data', None)),
    ('fsdp', {'data': 4}, (7, 9), P(None, None), P(None, None)),
    ('fsdp', {'data': 4}, (2,), P(None), P(None)),
    ('fsdp', {'data': 4}, (), P(), P()),
    ('tensor', {'model': 4}, (3, 8), P(None, 'model'), P(None, 'model')),
    ('tensor', {'model': 4}, (3, 6), P(), P(None, None)),
    (
      'tensor',
      {'data': 2, 'model': 4},
      (6, 8),
      P(None, 'model'),
      P('data', 'model'),
    ),
    (
      'fsdp',
      {'data': 4, 'task': 2},
      (4, 16),
      P(None, 'data'),
      P('task', 'data'),
    ),
    (
      'data',
      {'data': 2, 'task': 2},
      (3, 8),
      P(),
      P(None, ('data', 'task')),
    ),
  ],
)
def test_specs(kind, mesh, shape, param, row):
  layout = Layout(FakeMesh(**mesh), kind=kind, min_size=4)
  params, rows = specs(layout, shape)
  assert params['w'] == param
  assert rows['w'] == row


def test_rules_come_before_the_kind():
  layout = Layout(
    FakeMesh(data=2, model=2),
    kind='fsdp',
    min_size=0,
    rules={'w': P('model'), '.*': P()},
  )
  params, rows = specs(layout, None, w=(4, 4), v=(4, 4))
  assert params == {'w': P('model'), 'v': P()}
  assert rows['w'] == P('model', 'data')


def test_state_follows_its_parameters():
  layout = Layout(FakeMesh(data=2), kind='fsdp', min_size=0)
  params = {'a': {'w': jnp.ones((4, 2))}, 'w': jnp.ones(6)}
  tree = (
    optax.adam(1e-3).init(params),
    {'tracked': jax.tree.map(lambda x: jnp.stack([x] * 3), params)},
    jax.random.key(0),
    jnp.ones(3),
  )
  layout_spec = lambda params, tree: _specs_of(layout, params, tree)
  (adam, _), method, key, weights = layout_spec(params, tree)
  expected = {'a': {'w': P('data', None)}, 'w': P('data')}
  assert adam.mu == adam.nu == expected
  assert adam.count == key == weights == P()
  assert method['tracked'] == {
    'a': {'w': P(None, 'data', None)},
    'w': P(None, 'data'),
  }


def test_what_is_tracked_lies_as_the_gradients_not_the_parameters():
  layout = Layout(FakeMesh(data=2), kind='data', min_size=0)
  params = {'w': jnp.ones((4, 2))}
  tree = {
    'tracked': {'w': jnp.ones((3, 4, 2))},
    'same': {'w': jnp.ones((4, 2))},
  }
  found = _specs_of(layout, params, tree)
  assert found['tracked']['w'] == P(None, 'data', None)
  assert found['same']['w'] == P()


@pytest.mark.parametrize(('min_size', 'split'), [(8, True), (9, False)])
def test_the_smallest_that_is_split(min_size, split):
  """From `min_size` elements on; what has no path is told by its shape."""
  fsdp = Layout(FakeMesh(data=2), kind='fsdp', min_size=min_size)
  params, rows = specs(fsdp, (4, 2))
  expected = P('data', None) if split else P(None, None)
  assert params['w'] == rows['w'] == expected
  tensor = Layout(FakeMesh(model=2), kind='tensor', min_size=min_size)
  tree = [jnp.ones((3, 4, 2))]
  found = _specs_of(tensor, {'w': jnp.ones((4, 2))}, tree)
  assert found == [P(None, None, 'model') if split else P()]


def _specs_of(layout, params, tree):
  from unittest import mock

  from mtljax.training.step import sharding

  with mock.patch.object(sharding, 'NamedSharding', lambda mesh, spec: spec):
    return layout.state(tree, params)


def loss(params, batch):
  return jnp.stack([jnp.sum(params * batch)] * 3)


def build(layout, loss_fn=loss, **options):
  return make_train_step(
    mtl.weightings.mgda(),
    optax.sgd(0.1),
    loss_fn,
    num_tasks=3,
    layout=layout,
    **options,
  )


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: make_mesh(task=0), 'task=0'),
    (lambda: make_mesh(data=3), 'data=3.*product is 3.*1 devices'),
    (lambda: make_mesh(model=2), 'model=2.*does not divide the 1'),
    (lambda: Layout(make_mesh(), kind='dp'), "kind='dp'"),
    (lambda: Layout(make_mesh(), min_size=-1), 'min_size=-1'),
    (
      lambda: Layout(jax.make_mesh((1,), ('data',))),
      r"lacks \['task', 'model'\]",
    ),
    (
      lambda: Layout(FakeMesh(data=4)).batch({'x': np.ones((6, 2))}),
      "'x' has 6 examples.*data=4",
    ),
    (lambda: build(Layout(FakeMesh(task=2)), mode='vmap'), '3 tasks.*task=2'),
    (lambda: build(Layout(FakeMesh(task=3))), "mode='unroll'.*task=3"),
    (
      lambda: build(Layout(FakeMesh(task=3)), [loss] * 3, mode='vmap'),
      'sequence.*task=3',
    ),
    (
      lambda: specs(Layout(make_mesh(), rules={'q': P()}), (4,)),
      "rules='q' matches no parameter",
    ),
    (
      lambda: specs(Layout(make_mesh(), rules={'w': P(None, None)}), (4,)),
      'has 2 entries',
    ),
    (
      lambda: specs(Layout(FakeMesh(data=4), rules={'w': P('data')}), (6,)),
      "'data' is 4 devices.*axis of 6",
    ),
  ],
)
def test_errors_name_the_numbers(call, message):
  with pytest.raises(ValueError, match=message):
    call()


def test_processes_read_the_rows_of_one_order():
  arrays = {'x': np.arange(20)}
  make = lambda rows: data.make_train_iterator(
    arrays, batch_size=6, seed=3, rows=rows
  )
  whole, low, high = make(None), make(slice(0, 2)), make(slice(2, 6))
  for _ in range(5):
    parts = [next(low)['x'], next(high)['x']]
    np.testing.assert_array_equal(next(whole)['x'], np.concatenate(parts))
  assert whole.get_state() == low.get_state() == high.get_state()


def test_sharded_batches_resume():
  layout = Layout(make_mesh())
  assert layout.local_rows(6) == slice(0, 6)
  make = lambda: ShardedBatches(
    data.make_train_iterator({'x': np.arange(20)}, batch_size=6, seed=3),
    layout,
    6,
  )
  first = make()
  next(first)
  saved = first.get_state()
  expected = next(first)['x']
  assert expected.sharding.is_equivalent_to(layout.batch(expected), 1)
  again = make()
  again.set_state(saved)
  np.testing.assert_array_equal(next(again)['x'], expected)

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import data


@pytest.fixture
def arrays():
  rng = np.random.default_rng(0)
  return {
    'image': rng.integers(0, 256, (10, 4, 4, 1), np.uint8),
    'label': np.arange(10, dtype=np.int32),
  }


def in_memory(arrays, **kwargs):
  return data.make_train_iterator(arrays, **kwargs)


def streamed(arrays, **kwargs):
  source = [
    {name: array[i] for name, array in arrays.items()} for i in range(10)
  ]
  return data.make_streaming_iterator(source, **kwargs)


@pytest.fixture(params=[in_memory, streamed])
def make(request):
  return request.param


def labels(batches):
  return np.concatenate([batch['label'] for batch in batches])


def test_load_arrays_equals_the_data_source(built, data_dir, sizes):
  loaded = data.load_arrays(split='validation', data_dir=data_dir, **sizes)
  source = built.as_data_source(split='validation')
  assert {name: array.dtype for name, array in loaded.items()} == {
    'image': np.uint8,
    'left': np.int32,
    'right': np.int32,
  }
  assert loaded['image'].shape == (60, 36, 36, 1)
  for i in range(len(source)):
    for name in ('image', 'left', 'right'):
      np.testing.assert_array_equal(loaded[name][i], source[i][name])


def test_load_part_of_a_split(built, data_dir, sizes):
  part = data.load_arrays(split='test[:7]', data_dir=data_dir, **sizes)
  assert part['image'].shape == (7, 36, 36, 1)


def test_unknown_split_lists_the_splits(tmp_path):
  with pytest.raises(ValueError, match="'valid'.*train, validation, test"):
    data.load_arrays(split='valid', data_dir=tmp_path)


def test_unknown_source_lists_the_sources(tmp_path):
  with pytest.raises(ValueError, match='fashion_and_mnist.*mean .mnist'):
    data.load_arrays('mnst', split='train', data_dir=tmp_path)


def test_each_epoch_holds_each_example_once_in_its_own_order(arrays, make):
  seen = labels(make(arrays, batch_size=5, seed=0, num_epochs=3)).reshape(3, 10)
  np.testing.assert_array_equal(
    np.sort(seen), np.broadcast_to(np.arange(10), (3, 10))
  )
  assert len({tuple(epoch) for epoch in seen} | {tuple(range(10))}) == 4


def test_rows_of_a_batch_stay_together(arrays, make):
  for batch in make(arrays, batch_size=4, seed=0, num_epochs=1):
    np.testing.assert_array_equal(
      batch['image'], arrays['image'][batch['label']]
    )
    assert batch['image'].dtype == np.uint8
    assert batch['label'].dtype == np.int32


def test_epochs_join_and_the_last_incomplete_batch_is_dropped(arrays, make):
  batches = list(make(arrays, batch_size=4, seed=0, num_epochs=2))
  assert [len(batch['label']) for batch in batches] == [4] * 5
  batches = list(make(arrays, batch_size=4, seed=0, num_epochs=1))
  assert [len(batch['label']) for batch in batches] == [4] * 2
  assert len(set(labels(batches))) == 8


def test_seed_decides_the_order(arrays, make):
  one = labels(make(arrays, batch_size=10, seed=1, num_epochs=1))
  same = labels(make(arrays, batch_size=10, seed=1, num_epochs=1))
  other = labels(make(arrays, batch_size=10, seed=2, num_epochs=1))
  np.testing.assert_array_equal(one, same)
  assert np.any(one != other)


def test_streaming_yields_the_batches_of_the_arrays(arrays):
  arguments = {'batch_size': 4, 'seed': 7, 'num_epochs': 3}
  np.testing.assert_array_equal(
    labels(in_memory(arrays, **arguments)),
    labels(streamed(arrays, **arguments)),
  )


@pytest.mark.parametrize('steps', [0, 1, 7])
def test_resumes_exactly_from_a_json_state(arrays, make, steps):
  batches = make(arrays, batch_size=3, seed=0)
  for _ in range(steps):
    next(batches)
  state = json.loads(json.dumps(batches.get_state()))
  expected = [next(batches)['label'] for _ in range(10)]

  fresh = make(arrays, batch_size=3, seed=0)
  fresh.set_state(state)
  resumed = [next(fresh)['label'] for _ in range(10)]
  np.testing.assert_array_equal(resumed, expected)

  batches.set_state(state)
  np.testing.assert_array_equal(next(batches)['label'], expected[0])


def test_state_of_another_order_is_refused(arrays, make):
  state = make(arrays, batch_size=3, seed=0).get_state()
  with pytest.raises(ValueError, match='seed=0.*seed=1'):
    make(arrays, batch_size=3, seed=1).set_state(state)
  with pytest.raises(ValueError, match='batch_size=3.*batch_size=2'):
    make(arrays, batch_size=2, seed=0).set_state(state)
  with pytest.raises(ValueError, match='num_epochs=None.*num_epochs=2'):
    make(arrays, batch_size=3, seed=0, num_epochs=2).set_state(state)
  for size in (9, 11):
    with pytest.raises(ValueError, match=f'num_examples={size}.*=10'):
      make(arrays, batch_size=3, seed=0).set_state(
        {**state, 'num_examples': size}
      )


@pytest.mark.parametrize('batch_size', [0, 11])
def test_batch_size_out_of_range(arrays, make, batch_size):
  with pytest.raises(ValueError, match=f'batch_size={batch_size}'):
    make(arrays, batch_size=batch_size, seed=0, num_epochs=1)


def test_no_epochs_are_refused(arrays, make):
  with pytest.raises(ValueError, match='num_epochs=0'):
    make(arrays, batch_size=2, seed=0, num_epochs=0)


def test_unequal_arrays_are_refused():
  with pytest.raises(ValueError, match=r"'x': 3, 'y': 4"):
    in_memory({'x': np.zeros(3), 'y': np.zeros(4)}, batch_size=1, seed=0)


def test_streaming_transform_and_scalars():
  source = [{'n': i, 'x': i / 2, 'b': i > 2} for i in range(6)]
  batches = data.make_streaming_iterator(
    source,
    batch_size=6,
    seed=0,
    num_epochs=1,
    transform=lambda row: {**row, 'n': row['n'] * 10},
  )
  batch = next(batches)
  assert {k: v.dtype for k, v in batch.items()} == {
    'n': np.int32,
    'x': np.float32,
    'b': np.bool_,
  }
  np.testing.assert_allclose(batch['n'], batch['x'] * 20)


def test_streams_a_tfds_source(built):
  source = built.as_data_source(split='train')
  batches = data.make_streaming_iterator(
    source, batch_size=100, seed=0, num_epochs=1
  )
  seen = list(batches)
  assert [batch['image'].shape for batch in seen] == [(100, 36, 36, 1)] * 3
  assert sorted(np.concatenate([b['left_index'] for b in seen])) == sorted(
    source[i]['left_index'] for i in range(300)
  )


@pytest.mark.parametrize(('batch_size', 'count'), [(5, 2), (4, 3), (16, 1)])
def test_eval_batches_hold_all_in_order(arrays, batch_size, count):
  batches = list(data.eval_batches(arrays, batch_size))
  assert len(batches) == count
  for batch in batches:
    assert {len(array) for array in batch.values()} == {batch_size}
  mask = np.concatenate([batch['mask'] for batch in batches])
  for name, array in arrays.items():
    rows = np.concatenate([batch[name] for batch in batches])
    np.testing.assert_array_equal(rows[mask], array)
    assert rows.dtype == array.dtype
    assert not rows[~mask].any()


def test_eval_batches_refuses_a_second_mask(arrays):
  with pytest.raises(ValueError, match='mask'):
    data.eval_batches({**arrays, 'mask': arrays['label']}, 2)
  with pytest.raises(ValueError, match='batch_size=0'):
    data.eval_batches(arrays, 0)


def test_normalized_train_images_have_unit_moments():
  images = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 3), np.uint8)
  images[..., 1] //= 3
  mean, std = data.channel_moments(images)
  np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)), rtol=1e-12)
  np.testing.assert_allclose(std, (images / 255).std((0, 1, 2)), rtol=1e-12)
  normalized = jax.jit(lambda x: data.normalize_images(x, mean=mean, std=std))(
    images
  )
  assert normalized.dtype == jnp.float32
  np.testing.assert_allclose(normalized.mean((0, 1, 2)), 0, atol=1e-5)
  np.testing.assert_allclose(normalized.std((0, 1, 2)), 1, atol=1e-5)


def test_constant_channel_can_be_divided_by():
  mean, std = data.channel_moments(np.full((2, 3, 3, 1), 255, np.uint8))
  assert (mean, std) == ((1.0,), (1.0,))


def test_augmented_batches_hang_on_seed_and_place_and_go_on(arrays):
  def augment(key, example):
    return {**example, 'noise': jax.random.normal(key)}

  make = lambda **options: data.make_train_iterator(
    arrays, batch_size=4, seed=3, augment=augment, **options
  )
  batches = make()
  first = [next(batches) for _ in range(3)]
  state = json.loads(json.dumps(batches.get_state()))
  rest = [next(batches) for _ in range(4)]
  noise = np.concatenate([batch['noise'] for batch in first + rest])
  assert len(set(noise.tolist())) == 28  # none twice, not in later epochs
  again = make()
  again.set_state(state)
  for batch in rest:
    np.testing.assert_array_equal(next(again)['noise'], batch['noise'])
  plain = data.make_train_iterator(arrays, batch_size=4, seed=3)
  np.testing.assert_array_equal(
    labels(first), labels([next(plain)] + [next(plain) for _ in range(2)])
  )
  part = make(rows=slice(1, 3))
  np.testing.assert_array_equal(next(part)['noise'], first[0]['noise'][1:3])
  with pytest.raises(ValueError, match='augmented'):
    again.set_state(plain.get_state())

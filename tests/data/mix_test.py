"""Several data sets in one iterator: rates, masks, orders, resuming."""

import dataclasses
import json

import chex
import jax
import numpy as np
import pytest

from mtljax import data

A = data.Source(
  arrays={'x': np.arange(10), 'image': np.ones((10, 2, 3), np.uint8)},
  tasks=('s', 't'),
  batch_size=5,
)
B = data.Source(
  arrays={'y': 100 + np.arange(12)}, tasks=('u',), batch_size=4, rate=0.4
)
TASKS = ('s', 'u', 't')


def make(a=A, b=B, tasks=TASKS, seed=3):
  return data.make_mixed_iterator({'a': a, 'b': b}, tasks=tasks, seed=seed)


def take(batches, count):
  return [next(batches) for _ in range(count)]


def test_rates_are_kept_and_tasks_are_in_the_order_of_the_losses():
  steps = take(make(), 25)
  masks = np.stack([step.task_mask for step in steps])
  assert masks[0].all()
  np.testing.assert_array_equal(masks[:, [0, 2]], True)
  assert masks[:, 1].sum() == 10
  counts = np.cumsum(masks[:, 1])
  assert np.all(np.abs(counts - 0.4 * np.arange(1, 26)) < 1)
  for step in steps:
    assert step.batch['b']['y'].any() == step.task_mask[1]


def test_every_example_once_in_an_epoch_of_its_own():
  steps = take(make(), 25)
  present = [s.batch['b']['y'] for s in steps if s.task_mask[1]]
  for start in range(0, 9, 3):
    epoch = np.concatenate(present[start : start + 3])
    np.testing.assert_array_equal(np.sort(epoch), 100 + np.arange(12))
  orders = [tuple(np.concatenate(present[i : i + 3])) for i in (0, 3, 6)]
  assert len(set(orders)) == 3
  for start in range(0, 24, 2):
    rows = [s.batch['a']['x'] for s in steps[start : start + 2]]
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(10))


def test_all_steps_have_one_form():
  steps = take(make(), 10)
  assert len({step.task_mask[1] for step in steps}) == 2
  for step in steps[1:]:
    chex.assert_trees_all_equal_shapes_and_dtypes(step, steps[0])


@pytest.mark.parametrize('at', [0, 1, 2, 3, 7])
def test_it_resumes_exactly(at):
  whole = make()
  take(whole, at)
  state = json.loads(json.dumps(whole.get_state()))
  expected = take(whole, 12)
  resumed = make()
  take(resumed, 5)
  resumed.set_state(state)
  for a, b in zip(take(resumed, 12), expected, strict=True):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_seed_is_an_order_and_sources_have_orders_of_their_own():
  same = {'x': np.arange(12)}
  a = dataclasses.replace(A, arrays=same, batch_size=4)
  b = dataclasses.replace(B, arrays=same, rate=1.0)
  first, other = (take(make(a, b, seed=seed), 3) for seed in (0, 1))
  rows = lambda steps, name: np.concatenate([s.batch[name]['x'] for s in steps])
  assert not np.array_equal(rows(first, 'a'), rows(first, 'b'))
  assert not np.array_equal(rows(first, 'a'), rows(other, 'a'))
  np.testing.assert_array_equal(
    rows(first, 'a'), rows(take(make(a, b, seed=0), 3), 'a')
  )


def test_states_of_other_mixes_are_refused():
  state = make().get_state()
  for other in (make(seed=4), make(b=dataclasses.replace(B, rate=0.5))):
    with pytest.raises(ValueError, match='build it with the same arguments'):
      other.set_state(state)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'tasks': ('s', 't')}, 'are not those of the sources'),
    ({'tasks': ('s', 't', 'u', 'v')}, 'are not those of the sources'),
    ({'b': dataclasses.replace(B, tasks=('t',))}, "sources 'a' and 'b'"),
    ({'b': dataclasses.replace(B, rate=0.0)}, 'b: rate'),
    ({'b': dataclasses.replace(B, rate=1.5)}, 'b: rate'),
    ({'a': dataclasses.replace(A, rate=0.5)}, 'steps would have no task'),
    ({'b': dataclasses.replace(B, batch_size=13)}, 'batch_size=13'),
    ({'seed': -1}, 'seed'),
  ],
)
def test_errors_by_name(changes, message):
  with pytest.raises(ValueError, match=message):
    make(**changes)

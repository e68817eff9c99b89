"""Batches of as many rows of every group, which resume exactly."""

import json

import numpy as np
import pytest

from mtljax import data

GROUPS = np.array([0] * 9 + [3] * 4 + [1] * 6)
ARRAYS = {'x': np.arange(19), 'y': 10 * np.arange(19)}


def make(batch_size=6, seed=0, groups=GROUPS):
  return data.make_balanced_iterator(
    ARRAYS, groups, batch_size=batch_size, seed=seed
  )


def test_each_group_has_its_share_and_its_own_epochs():
  batches = make()
  found = [next(batches) for _ in range(9)]
  for batch in found:
    np.testing.assert_array_equal(GROUPS[batch['x']], [0, 0, 1, 1, 3, 3])
    np.testing.assert_array_equal(batch['y'], 10 * batch['x'])
  drawn = np.concatenate([batch['x'] for batch in found])
  counts = np.bincount(drawn)
  # 18 draws each: 2 epochs of 9 rows, 3 of 6; of 4 rows 4.5.
  assert set(counts[:9]) == {2} and set(counts[13:]) == {3}
  assert sorted(counts[9:13]) == [4, 4, 5, 5]


def test_the_order_is_of_the_seed_and_of_the_group():
  first = np.stack([next(make())['x'] for _ in range(2)])
  np.testing.assert_array_equal(first[0], first[1])
  assert (next(make(seed=1))['x'] != first[0]).any()
  alike = make(batch_size=4, groups=np.arange(19) % 2)
  pairs = [next(alike)['x'].reshape(2, 2) // 2 for _ in range(4)]
  assert any((a != b).any() for a, b in pairs)


def test_a_saved_state_goes_on_exactly():
  batches = make()
  for _ in range(5):
    next(batches)
  state = json.loads(json.dumps(batches.get_state()))
  wanted = [next(batches) for _ in range(4)]
  again = make()
  again.set_state(state)
  for batch in wanted:
    np.testing.assert_array_equal(next(again)['x'], batch['x'])
  with pytest.raises(ValueError, match=r"has the groups \['0', '1', '3'\]"):
    make(groups=np.where(GROUPS == 3, 1, GROUPS)).set_state(state)
  with pytest.raises(ValueError, match='saved state has seed'):
    make(seed=4).set_state(state)


@pytest.mark.parametrize(
  ('options', 'said'),
  [
    ({'batch_size': 7}, 'batch_size=7 must be a multiple of the 3 groups'),
    ({'batch_size': 0}, 'batch_size=0 must be a multiple of the 3 groups'),
    ({'batch_size': 15}, 'takes 5 rows of each group, and group 3 has 4'),
    ({'groups': GROUPS[:-1]}, r"shape \(18,\), and 'x' 19 rows"),
  ],
)
def test_groups_without_like_shares_are_refused(options, said):
  with pytest.raises(ValueError, match=said):
    make(**options)

"""Rows of several tasks, drawn for splits."""

import numpy as np
import pytest

from experiments.lab.owned import by_size, draw_rows, task_rows


def test_rows_are_drawn_once():
  owner = np.array([0, 1, 0, 1, 1, 0, 1])
  counts = {'train': np.array([2, 1]), 'test': np.array([1, 3])}
  drawn = draw_rows(owner, counts, 0)
  parts = [np.r_[drawn['train'][t], drawn['test'][t]] for t in range(2)]
  assert [len(x) for x in drawn['train']] == [2, 1]
  assert sorted(parts[0]) == [0, 2, 5] and sorted(parts[1]) == [1, 3, 4, 6]
  with pytest.raises(ValueError, match='4 rows of task 0, which has 3'):
    draw_rows(owner, {'train': np.array([4, 1])}, 0)


def test_deviations_are_those_of_the_tasks():
  labels = np.array([1, 5, 3, 5, 8], np.float32)
  owner = np.array([0, 1, 0, 1, 1])
  found = task_rows(('a', 'b'), owner, labels[:, None], labels)
  np.testing.assert_allclose(found.deviation, [1, np.sqrt(2)])
  assert by_size(owner, 3).tolist() == [1, 0, 2]

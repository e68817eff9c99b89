"""Means of what steps measured, in the numbers' own precision."""

import json

import numpy as np
import pytest

from mtljax.training.loop._window import Window

TASKS = ('a', 'b')


def window_of(rows, state=None):
  window = Window(TASKS, state)
  for i, row in enumerate(rows):
    window.add(i, {'losses': row}, 1)
  return window


def test_means_are_added_up_in_float64():
  """In float32 the ones would be lost beside 2**24."""
  rows = np.array([[2**24, 1], [1, 1], [1, 1], [1, 4]], np.float32)
  line = window_of(rows).means()
  assert line['loss/a'] == np.float32((2**24 + 3) / 4) != 2**22
  assert line['loss/b'] == np.float32(1.75)


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
@pytest.mark.parametrize('cut', [0, 2])
def test_a_window_goes_on_in_the_dtype_that_it_had(dtype, cut):
  rows = (np.arange(1, 9).reshape(4, 2) / 3).astype(dtype)
  saved = json.loads(json.dumps(window_of(rows[:cut]).get_state()))
  found = window_of(rows[cut:], saved).means()
  wide = np.float64 if dtype is np.float64 else np.float32
  for i, name in enumerate(('loss/a', 'loss/b')):
    mean = rows[:, i].astype(np.float64).mean()
    assert found[name].dtype == wide
    assert found[name] == wide(mean)
  assert (cut == 0) == (not saved)

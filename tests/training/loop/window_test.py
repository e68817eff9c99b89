"""Means of what steps measured, in the numbers' own precision."""

import json

import numpy as np
import pytest

from mtljax.training import NonFiniteLossError
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


def masked_window(masks, state=None):
  window = Window(TASKS, state)
  for i, mask in enumerate(masks):
    mask = np.array(mask, np.float32)
    metrics = {
      'losses': np.where(mask > 0, i + np.array([1, 10]), np.nan),
      'present': mask,
      'cosines': np.full((2, 2), 0.1 * (i + 1)),
      'rate': np.float32(i),
    }
    window.add(i, metrics, 1)
  return window


@pytest.mark.parametrize('cut', [0, 2])
def test_means_of_a_task_are_over_the_steps_that_it_is_in(cut):
  masks = [(1, 1), (1, 0), (0, 1)]
  saved = json.loads(json.dumps(masked_window(masks[:cut]).get_state()))
  window = masked_window(masks, saved)
  if cut:  # noted twice, once by each window
    window = masked_window(masks[:0], saved)
    window.add(
      2,
      {
        'losses': np.array([np.nan, 12.0]),
        'present': np.array([0, 1], np.float32),
        'cosines': np.full((2, 2), 0.1 * 3),
        'rate': np.float32(2),
      },
      1,
    )
  line = window.means()
  np.testing.assert_allclose(line['loss/a'], (1 + 2) / 2)
  np.testing.assert_allclose(line['loss/b'], (10 + 12) / 2)
  np.testing.assert_allclose(line['present/a'], 2 / 3, rtol=1e-6)
  np.testing.assert_allclose(line['cosine/a,b'], 0.1)
  np.testing.assert_allclose(line['rate'], 1)


def test_nothing_is_said_of_a_task_that_is_in_none_of_the_steps():
  line = masked_window([(1, 0), (1, 0)]).means()
  assert 'loss/b' not in line and 'cosine/a,b' not in line
  assert line['present/b'] == 0
  assert line['loss/a'] == 1.5


def test_a_loss_of_a_task_that_is_there_has_to_be_finite():
  window = Window(TASKS)
  window.add(
    7, {'losses': np.array([np.nan, 1]), 'present': np.array([1, 1])}, 1
  )
  with pytest.raises(NonFiniteLossError, match="'a' is nan at step 7"):
    window.fetch()

"""Colours of labels and predictions."""

import numpy as np

from experiments.lab import paint
from experiments.suites import Data


def test_what_has_no_label_is_black_and_nothing_else_is():
  labels = np.array([[[-1, 0, 12]]])
  colors = paint.classes(labels)
  assert colors.dtype == np.uint8 and not colors[0, 0, 0].any()
  assert len({tuple(x) for x in colors[0, 0]}) == 3
  normals = np.array([[[[0, 0, 0], [0, 0, 1.0], [3.0, 0, 0]]]])
  np.testing.assert_array_equal(
    paint.directions(normals)[0, 0],
    [[0, 0, 0], [128, 128, 255], [255, 128, 128]],
  )


def test_predictions_have_the_colours_of_the_range_of_the_truth():
  truth = np.array([[[0.0, 2.0, 4.0]], [[0.0, 0.0, 0.0]]])
  made = np.array([[[4.0, 2.0, 9.0]], [[1.0, 2.0, np.nan]]])
  shown = paint.numbers(truth, truth)[0, 0]
  assert not shown[0].any() and not paint.numbers(truth, truth)[1].any()
  guess = paint.numbers(made, truth, whole=True)[0, 0]
  np.testing.assert_array_equal(guess, [shown[2], shown[1], shown[2]])


def test_pictures_of_a_perfect_network_are_the_truth():
  rng = np.random.default_rng(0)
  splits = {
    'test': {
      'image': rng.integers(0, 256, (3, 200, 400, 3), np.uint8),
      'segmentation': rng.integers(0, 5, (3, 200, 400)),
      'depth': rng.uniform(1, 9, (3, 200, 400)),
      'normals': rng.normal(size=(3, 200, 400, 3)),
    }
  }

  def predict(batch):
    return {
      'segmentation': np.eye(5)[batch['segmentation']],
      'depth': batch['depth'][..., None],
      'normals': 2 * batch['normals'],
    }

  found = paint.dense(Data(splits, lambda batch: batch['image']), predict)
  assert found['given/image'].shape == (2, 67, 134, 3)
  for name in ('segmentation', 'depth', 'normals'):
    np.testing.assert_array_equal(found[f'made/{name}'], found[f'given/{name}'])

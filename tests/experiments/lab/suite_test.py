"""Suites: their face, what is refused, and a small one from end to end."""

import numpy as np

from experiments.suites import pool_images


def test_pooling_is_the_mean_of_squares():
  images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4, 1)
  found = pool_images(images, 2)
  assert found.shape == (2, 2, 2, 1)
  assert found[0, 0, 0, 0] == round((0 + 1 + 4 + 5) / 4)
  assert pool_images(images, 1) is images

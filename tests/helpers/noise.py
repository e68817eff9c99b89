"""Batches of noise with the iterator protocol of grain."""

import numpy as np


class Batches:
  """Noise made from seed and position, of shape (8, 3)."""

  def __init__(self, seed):
    self.seed, self.position = seed, 0

  def __iter__(self):
    return self

  def __next__(self):
    self.position += 1
    rng = np.random.default_rng((self.seed, self.position))
    return rng.normal(size=(8, 3)).astype(np.float32)

  def get_state(self):
    return self.position

  def set_state(self, position):
    self.position = position

"""Strict numerics for every test, and golden data."""

import pathlib

import jax
import numpy as np
import pytest

jax.config.update('jax_numpy_rank_promotion', 'raise')

GOLDEN = pathlib.Path(__file__).parent / 'golden'


@pytest.fixture(scope='session', autouse=True)
def _absl_flags_parsed():
  """Grain reads absl flags, which pytest never parses."""
  from absl import flags

  flags.FLAGS.mark_as_parsed()


@pytest.fixture
def x64():
  """Run a test in float64."""
  with jax.enable_x64(True):
    yield


@pytest.fixture(scope='session')
def golden():
  """Outputs of TorchJD 0.18 in float64 (see tests/golden/README.md)."""
  with np.load(GOLDEN / 'torchjd_0_18.npz') as data:
    return {key: data[key] for key in data.files}


@pytest.fixture(scope='session')
def zoo():
  """The zoo of Jacobians, ``tests/helpers/zoo.py``."""
  import zoo

  return zoo

"""Strict numerics for every test, programs quick to compile, golden data."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import smoke

jax.config.update('jax_numpy_rank_promotion', 'raise')

# Most of the time goes into compiling programs that run once. Whoever sets
# XLA_FLAGS, if to nothing, has the tests run with those.
QUICK_TO_COMPILE = (
  '--xla_backend_optimization_level=0',
  '--xla_llvm_disable_expensive_passes=true',
  '--xla_cpu_use_fusion_emitters=false',  # unknown to jaxlib 0.12
  '--xla_cpu_parallel_codegen_split_count=1',
)
GOLDEN = pathlib.Path(__file__).parent / 'golden'


def pytest_configure():
  """Sets XLA's flags before its first use, here and for the workers."""
  if 'XLA_FLAGS' in os.environ:
    return
  flags = QUICK_TO_COMPILE
  if not _are_known(flags):
    flags = [flag for flag in flags if _are_known([flag])]
  os.environ['XLA_FLAGS'] = ' '.join(flags)


def _are_known(flags):
  """XLA ends the process on a flag that it does not know."""
  env = {**os.environ, 'XLA_FLAGS': ' '.join(flags)}
  command = [sys.executable, '-c', 'import jax; jax.devices()']
  return not subprocess.run(command, env=env, capture_output=True).returncode


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
  """Marks the tests of the list in helpers/smoke.py."""
  for item in items:
    if smoke.is_smoke(item.path, item.name):
      item.add_marker('smoke')


def pytest_ignore_collect(collection_path, config):
  """With ``-m smoke``, files without such a test are not even imported."""
  if config.getoption('markexpr') != 'smoke':
    return None
  if not collection_path.name.endswith('_test.py'):
    return None
  return None if smoke.holds_any(collection_path) else True


@pytest.fixture(scope='module', autouse=True)
def _programs_end_with_their_module():
  """Each compiled program maps memory, of which a process may have so many."""
  yield
  jax.clear_caches()


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

"""Gives the tests here the zoo of Jacobians."""

import importlib.util
import pathlib

import pytest


@pytest.fixture(scope='session')
def zoo():
  """The module ``tests/helpers/zoo.py``."""
  path = pathlib.Path(__file__).parents[1] / 'helpers' / 'zoo.py'
  spec = importlib.util.spec_from_file_location('zoo', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module

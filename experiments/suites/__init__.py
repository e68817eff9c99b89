"""What runs are trained on: one file a suite, found by its name.

A file of this folder defines ``SUITE``, a `Suite`: its tasks, data and
networks. Every study that fits it runs on it by ``--suite <file name>``, and
``python -m experiments.compare --suite <file name>`` compares methods on it.
"""

from __future__ import annotations

import importlib
import pathlib

from experiments.lab.binary import binary_task
from experiments.lab.experts import experts
from experiments.lab.mixed import MixedData, SourcePart, mix
from experiments.lab.options import DataOptions
from experiments.lab.suite import (
  SPLITS,
  Data,
  Network,
  Published,
  Suite,
  Widths,
  first_rows,
  mlp,
  names,
  pool_images,
  rows_apart,
)
from experiments.lab.task import Measure, Task
from mtljax import _validate

__all__ = [
  'SPLITS',
  'Data',
  'DataOptions',
  'Measure',
  'MixedData',
  'Network',
  'Published',
  'SourcePart',
  'Suite',
  'Task',
  'Widths',
  'available',
  'binary_task',
  'experts',
  'find',
  'first_rows',
  'mix',
  'mlp',
  'names',
  'pool_images',
  'rows_apart',
]


def available() -> tuple[str, ...]:
  """The names of the suites of this folder."""
  files = pathlib.Path(__file__).parent.glob('*.py')
  return tuple(sorted(f.stem for f in files if not f.stem.startswith('_')))


def find(name: str, option: str = '--suite') -> Suite:
  """The suite of a name.

  Args:
    name: of a file of this folder; or, with a dot, of a module that can be
      imported and defines ``SUITE``.
    option: what an error speaks of.

  Raises:
    ValueError: there is none; the message lists those that are.
  """
  if '.' in name:
    try:
      module = importlib.import_module(name)
    except ImportError as error:
      raise ValueError(f'{option}={name!r} cannot be imported: {error}.') from (
        error
      )
  else:
    _validate.one_of(option, name, available())
    module = importlib.import_module(f'experiments.suites.{name}')
  found = getattr(module, 'SUITE', None)
  if not isinstance(found, Suite):
    raise ValueError(f'{option}={name!r} defines no SUITE.')
  return found


def peek(name: str) -> Suite | None:
  """The suite of a name, for presets; None where `find` will say why not."""
  try:
    return find(name)
  except ValueError:
    return None


def find_with(name: str, network: str) -> Suite:
  """The suite of a name, with the tasks that are trained by default.

  Args:
    name: as of `find`, of the option ``--suite``.
    network: that it must have.

  Raises:
    ValueError: there is none of the name, or it has no such network.
  """
  suite = find(name)
  suite.network(network, option=f'the network that --suite {suite.name} lacks')
  return suite.with_tasks(suite.default_tasks)

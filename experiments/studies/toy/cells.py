"""The cells of the toy study: their names, files, and what they hold."""

from __future__ import annotations

import pathlib
from typing import Any, NamedTuple

import numpy as np

from experiments.report import files
from experiments.report.results import ReportError, config_notes, read_config

RATES = (10.0, 5.0, 1.0, 0.5, 0.1, 0.05, 0.01, 0.005, 0.001)


class ToyCell(NamedTuple):
  """An optimizer and a method; '' for the optimizers that take none."""

  optimizer: str
  method: str

  @property
  def name(self) -> str:
    """As its file is called."""
    return '.'.join(filter(None, self))


class ReadCells(NamedTuple):
  """What the study wrote.

  Attributes:
    config: content of ``config.json``.
    numbers: of each cell, by learning rate; None where it did not arrive.
    points: of each cell the trajectories, see `toy.run_cell`.
    notes: sentences on what is missing.
  """

  config: dict[str, Any]
  numbers: dict[ToyCell, dict[float, int | None]]
  points: dict[ToyCell, np.ndarray]
  notes: list[str]


def path_of(directory: pathlib.Path, cell: ToyCell) -> pathlib.Path:
  """The file of a cell."""
  return directory / 'runs' / f'{cell.name}.npz'


def is_run(directory: pathlib.Path, cell: ToyCell) -> bool:
  """Whether the file of a cell is there and whole."""
  try:
    files.read_arrays(path_of(directory, cell), name=cell.name)
  except (OSError, ValueError):
    return False
  return True


def read_cells(directory: pathlib.Path) -> ReadCells:
  """Reads what the study wrote; `ReportError` where that is nothing."""
  config = read_config(directory)
  numbers, points, notes = {}, {}, config_notes(config)
  for name in config['cells']:
    optimizer, _, method = name.partition('.')
    cell = ToyCell(optimizer, method)
    path = path_of(directory, cell)
    try:
      data = files.read_arrays(path, name=name)
      numbers[cell] = {
        rate: int(row.max()) if (row >= 0).all() else None
        for rate, row in zip(
          config['learning_rates'], data['iterations'], strict=True
        )
      }
      points[cell] = data['points']
    except FileNotFoundError:
      notes.append(f'{name} has not been run.')
    except (OSError, ValueError, KeyError, TypeError) as error:
      numbers.pop(cell, None)
      notes.append(
        f'{path.relative_to(directory)} is damaged ({error}) and was left out; '
        'the same command runs it again.'
      )
  if not numbers:
    raise ReportError(f'{directory} holds no results of the toy study.')
  return ReadCells(config, numbers, points, notes)

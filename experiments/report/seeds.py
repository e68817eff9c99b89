"""Studies in which all of a seed is one computation, kept in one file."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.report import files
from experiments.report.results import ReportError, config_notes, read_config

#: By part and seed, arrays by name.
Seeds = dict[str, dict[int, dict[str, np.ndarray]]]


def path_of(directory: pathlib.Path, part: str, seed: int) -> pathlib.Path:
  """The file of a part of the study and a seed."""
  return directory / 'runs' / part / f'seed_{seed}.npz'


def read_seeds(
  directory: pathlib.Path,
  wanted: Sequence[tuple[str, int]],
  notes: list[str],
) -> Seeds:
  """What has been computed; ``notes`` gets what is not there, and why.

  Args:
    directory: the study's folder.
    wanted: parts and seeds.
    notes: sentences.
  """
  found: Seeds = {}
  for part, seed in wanted:
    path = path_of(directory, part, seed)
    place = path.relative_to(directory)
    try:
      arrays = files.read_arrays(path, name=path.stem)
    except FileNotFoundError:
      notes.append(f'{place} has not been run.')
    except (OSError, ValueError) as error:
      notes.append(
        f'{place} is damaged ({error}) and was left out; the same command runs '
        'it again.'
      )
    else:
      found.setdefault(part, {})[seed] = arrays
  return found


def read_study(
  directory: pathlib.Path, option: str, what: str
) -> tuple[Any, list[str], Seeds]:
  """The configuration of such a study, notes on it, and what is there.

  Args:
    directory: the study's folder.
    option: that names the parts.
    what: the study is of.

  Raises:
    ReportError: nothing has been computed.
  """
  config = read_config(directory)
  notes = config_notes(config)
  wanted = [(x, k) for k in range(config['seeds']) for x in config[option]]
  found = read_seeds(directory, wanted, notes)
  if not found:
    raise ReportError(f'{directory} holds no results of the study of {what}.')
  return config, notes, found

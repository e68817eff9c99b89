"""Studies in which all of a seed is one computation, kept in one file."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from experiments.report import files

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

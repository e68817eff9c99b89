"""What lies in the folder of a run that no run put there, or not whole."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

from mtljax import _files

# Weights & Biases links to its newest run; nothing of ours is below.
_OTHERS = 'wandb'


def find_link(folder: pathlib.Path) -> pathlib.Path | None:
  """A link in a folder, at any depth, or None; below a link is not looked."""
  links = (path for path in _entries(folder) if path.is_symlink())
  return min(links, default=None)


def remove_leftovers(folder: pathlib.Path) -> None:
  """Removes what kills left of files that were being replaced.

  Only where who has the folder writes alone: a report that is written at the
  same time has its files at the top.
  """
  own = {'config.json', 'metrics.jsonl'}
  for path in list(_entries(folder)):
    match = _files.TEMPORARY.fullmatch(path.name)
    if match and (path.parent != folder or match['name'] in own):
      with contextlib.suppress(OSError):
        path.unlink()


def _entries(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  for parent, folders, files in os.walk(folder):
    for name in (*folders, *files):
      yield pathlib.Path(parent, name)
    folders[:] = [name for name in folders if name != _OTHERS]

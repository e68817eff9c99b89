"""The floors of a suite, taken once for a study and not at every start."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from experiments.lab import identity
from experiments.lab.suite import Suite
from experiments.report import files

CONFIG = 'config.json'


def kept(
  out: pathlib.Path, suite: Suite, digests: Mapping[str, str]
) -> Mapping[str, Any] | None:
  """The floors that the folder of a study has of the same data and code.

  Args:
    out: the folder.
    suite: with the tasks that are trained.
    digests: of the splits of its data.

  Returns:
    What ``config.json`` says, which `open_study` checks as a whole; None: they
    have to be taken.
  """
  try:
    config = files.read_json(out / CONFIG)
    before = config['identity']
    now = identity.identity({suite.name: dict(digests)})
    same = config['suite'] == suite.name
    same &= tuple(config['tasks']) == suite.task_names
    if same and all(before[key] == now[key] for key in now):
      return config['floors']
  except (OSError, ValueError, KeyError, TypeError):
    pass  # none, or damaged, which is said when the folder is opened
  return None

"""From the folder of an experiment to a page: python -m experiments.report.

`write_report` finds what makes the page by the name in ``config.json``.
"""

from __future__ import annotations

import importlib
import importlib.util
import pathlib
from types import ModuleType
from typing import Any

import rich.console

STUDIES = 'experiments.studies'


def reporter_of(name: str) -> ModuleType:
  """The module that makes the reports of an experiment.

  Args:
    name: of the experiment, as ``config.json`` has it.

  Returns:
    The module ``report`` of a study, whose folder has the name of the
    experiment without ``_study``; that of comparisons for all else. It has
    ``write_report(directory)`` and ``print_tables(summary, console)``.
  """
  folder = str(name).removesuffix('_study')
  if folder.isidentifier():
    place = f'{STUDIES}.{folder}'
    if importlib.util.find_spec(place) is not None:
      return importlib.import_module(f'{place}.report')
  return importlib.import_module('experiments.report.comparison')


def write_report(
  directory: pathlib.Path, console: rich.console.Console
) -> dict[str, Any]:
  """Writes ``summary.json`` and ``report.html``, and prints the tables.

  Args:
    directory: folder that an experiment wrote; it need not be finished.
    console: where the tables go.

  Returns:
    The content of ``summary.json``.

  Raises:
    ReportError: the folder holds no results.
  """
  from experiments.report.results import read_config

  reporter = reporter_of(read_config(directory).get('experiment', ''))
  summary = reporter.write_report(directory)
  reporter.print_tables(summary, console)
  return summary

"""Makes the report of an experiment from its files.

``python -m experiments.report DIR`` reads ``config.json`` and what the runs
left under DIR, and writes ``summary.json`` and ``report.html``, one page
without outside parts. It works on an experiment that is still running or was
stopped. The same files give the same bytes.
"""

from __future__ import annotations

import pathlib
import sys
from typing import Annotated

import tyro

from experiments.report import write_report
from experiments.report.console import make_console, said
from experiments.report.results import ReportError
from mtljax.training.disk._lock import held_by_other


def main(
  directory: Annotated[
    pathlib.Path, tyro.conf.Positional, tyro.conf.arg(metavar='DIR')
  ],
) -> None:
  """Make the report of a finished or partly finished experiment again.

  Writes summary.json and report.html into the folder and prints the table.

  Args:
    directory: Folder that the experiment wrote (it holds config.json).
  """
  console = make_console()
  try:
    summary = write_report(directory, console)
    for run in summary['failures']:
      console.print(
        f'{run["method"]}, seed {run["seed"]}: {run["reason"]}', markup=False
      )
    for note in summary['notes']:
      console.print(note, markup=False)
    if holder := held_by_other(directory):
      console.print(
        f'In use by {holder}: the report is of what was there just now.',
        markup=False,
      )
    console.print(str(directory / 'report.html'), markup=False, soft_wrap=True)
  except ReportError as error:
    sys.exit(f'error: {error}')
  except OSError as error:
    if error.filename is None:  # the output, of which `said` speaks
      raise
    sys.exit(
      f'error: {error.filename} cannot be written or read ({error.strerror}): '
      'give a folder that you may write to, on a disk with free space.'
    )


if __name__ == '__main__':
  with said('stopped by Ctrl-C; the same command makes the report'):
    tyro.cli(main, prog='python -m experiments.report')

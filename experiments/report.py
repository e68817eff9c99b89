"""Makes the report of an experiment from its files.

``python -m experiments.report DIR`` reads ``config.json``, ``results.csv``
and ``runs/<method>/seed_<k>/metrics.jsonl`` under DIR and writes
``summary.json`` and ``report.html``, one page without outside parts. It works
on an experiment that is still running or was stopped. The same files give the
same bytes.
"""

from __future__ import annotations

import json
import pathlib
import sys
import time
from typing import Annotated, Any

import rich.box
import rich.console
import rich.table
import rich.text
import tyro

from experiments import (
  _conflict_figures,
  _conflict_report,
  _conflict_runs,
  _flat_report,
  _invariance_report,
  _optimizer_report,
  _robustness_report,
  _toy_report,
)
from experiments._page import render_template
from experiments._plots import Section, sections
from experiments._results import (
  ReportError,
  Results,
  read_config,
  read_results,
)
from experiments._summary import REFERENCE, summarize_results
from experiments._table import main_columns, metric_columns
from mtljax import _files

_TEMPLATE = '_report_template.html.j2'

#: Studies whose reports are of claims, by the name in ``config.json``.
STUDIES = {
  'conflict_study': _conflict_report,
  'flat_regions': _flat_report,
  'invariance': _invariance_report,
  'optimizer_study': _optimizer_report,
  'robustness_study': _robustness_report,
  'toy': _toy_report,
}

#: Columns that fit no narrow terminal, and the width that fits them all.
LESS_TELLING = ('runs', 'Δm metrics %', 'mean rank', 's/run')
WIDE = 124


def write_report(directory: str | pathlib.Path) -> dict[str, Any]:
  """Writes ``summary.json`` and ``report.html`` of an experiment.

  Args:
    directory: folder that the experiment wrote.

  Returns:
    The content of ``summary.json``: ``metrics`` (names, tasks, directions),
    ``baseline``, ``methods`` (mean, standard error and n of every test metric,
    ``delta_m_metrics``, ``delta_m_tasks``, ``mean_rank``, cost), ``failures``
    and ``notes``.

  Raises:
    ReportError: the folder holds no results.
  """
  directory = pathlib.Path(directory)
  results = read_results(directory)
  conflict = _conflict_runs.read_settings(directory, results)
  summary = summarize_results(results)
  text = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False)
  page = _render_page(
    results,
    summary,
    sections(results, summary) + _conflict_figures.comparison(conflict),
  )
  _files.replace_text(directory / 'summary.json', text + '\n')
  _files.replace_text(directory / 'report.html', page)
  return summary


def make_console() -> rich.console.Console:
  """A console; wide enough for the whole table where nobody is looking."""
  console = rich.console.Console()
  return console if console.is_terminal else rich.console.Console(width=WIDE)


def print_table(summary: dict[str, Any], console: rich.console.Console) -> None:
  """Prints the table, without its less telling columns where it is narrow."""
  console.print(render_table(summary, compact=console.width < WIDE))
  if console.width < WIDE:
    console.print('Some columns are left out; the report has them all.')


def print_end(
  directory: pathlib.Path, start: float, console: rich.console.Console
) -> None:
  """Says how long a study took since ``start``, and where its report is."""
  console.print(
    f'{time.perf_counter() - start:.0f} s; report: {directory / "report.html"}',
    markup=False,
    soft_wrap=True,
  )


def render_table(
  summary: dict[str, Any], *, compact: bool = False
) -> rich.table.Table:
  """The main table of the report, for a terminal.

  Args:
    summary: what `write_report` returns.
    compact: leave out the columns named in `LESS_TELLING`.

  Returns:
    The table; print it with a ``rich.console.Console``.
  """
  table = rich.table.Table(
    title=_title(summary),
    title_justify='left',
    box=rich.box.SIMPLE_HEAD,
    pad_edge=False,
    collapse_padding=True,
  )
  columns = [
    column
    for column in main_columns(summary)
    if not (compact and column.title in LESS_TELLING)
  ]
  for index, column in enumerate(columns):
    table.add_column(
      rich.text.Text(column.title),
      justify='right' if index else 'left',
      no_wrap=index == 0,
      overflow='fold',
    )
  for row in zip(*(column.cells for column in columns), strict=True):
    table.add_row(
      *(
        rich.text.Text(cell.text, style='bold green' if cell.best else '')
        for cell in row
      )
    )
  return table


def _title(summary: dict[str, Any]) -> str:
  data = summary['data']
  return summary['experiment'] + (f' on {data}' if data else '')


def _reading(summary: dict[str, Any]) -> list[str]:
  """How to read the table, in sentences."""
  chosen = [metric for metric in summary['metrics'] if metric['in_delta_m']]
  lines = [
    'Each number is the mean over finished runs ± its standard error over '
    'seeds. The star and bold type mark the best mean of the multi-task '
    'methods; differences under about two standard errors are noise.'
  ]
  if any(len(entry['seeds']) == 1 for entry in summary['methods'].values()):
    lines.append(
      'A method with a single run has no standard error (-): nothing can be '
      'said about its spread.'
    )
  if chosen:
    arrows = ', '.join(
      f'{metric["name"]} ({"higher" if metric["higher_is_better"] else "lower"}'
      ' is better)'
      for metric in chosen
    )
    lines.append(f'Δm and mean rank are taken over: {arrows}.')
  if summary['baseline'] is not None:
    lines.append(
      'Δm is the average relative drop in percent against the mean of the '
      'single-task runs; lower is better, and below zero is better than '
      'single-task training. "Δm metrics" weighs every metric alike, "Δm '
      'tasks" every task. Its standard error takes the baseline as exact.'
    )
  if any(entry['time_ratio'] for entry in summary['methods'].values()):
    lines.append(
      f'"time ÷ {REFERENCE}" is the time of a training step relative to '
      f'{REFERENCE}.'
    )
  ranked = [
    name
    for name, entry in summary['methods'].items()
    if entry['mean_rank'] is not None
  ]
  if ranked:
    lines.append(
      f'The mean rank is among the {len(ranked)} methods that have one; it '
      'cannot be compared with other lists.'
    )
  return lines


def _render_page(
  results: Results, summary: dict[str, Any], pictures: list[Section]
) -> str:
  total = len(results.runs)
  finished = total - len(summary['failures'])
  return render_template(
    _TEMPLATE,
    title=_title(summary),
    lead=(
      f'{finished} of {total} runs finished. Tasks: '
      f'{", ".join(summary["tasks"])}.'
    ),
    finished=finished > 0,
    main=main_columns(summary),
    metrics=metric_columns(summary),
    reading=_reading(summary),
    sections=pictures,
    summary=summary,
    config=json.dumps(results.config, indent=2, ensure_ascii=False),
  )


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
    study = STUDIES.get(read_config(directory).get('experiment', ''))
    if study is not None:
      summary = study.write_report(directory)
      study.print_tables(summary, console)
    else:
      summary = write_report(directory)
      print_table(summary, console)
  except ReportError as error:
    sys.exit(f'error: {error}')
  except OSError as error:
    sys.exit(
      f'error: {error.filename} cannot be written or read ({error.strerror}): '
      'give a folder that you may write to, on a disk with free space.'
    )
  for run in summary['failures']:
    console.print(
      f'{run["method"]}, seed {run["seed"]}: {run["reason"]}', markup=False
    )
  for note in summary['notes']:
    console.print(note, markup=False)
  console.print(str(directory / 'report.html'), markup=False, soft_wrap=True)


if __name__ == '__main__':
  tyro.cli(main, prog='python -m experiments.report')

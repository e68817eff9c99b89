"""The report of a comparison of methods: one table, curves, what failed."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import rich.console
import rich.table

from experiments.report import beside, pictures, tuning
from experiments.report import conflict as conflicts
from experiments.report.console import WIDE
from experiments.report.page import render_template
from experiments.report.plots import Section, sections
from experiments.report.results import (
  Results,
  read_results,
)
from experiments.report.summary import REFERENCE, summarize_results
from experiments.report.tables import (
  Column,
  fitting,
  main_columns,
  metric_columns,
  render_columns,
)
from mtljax import _files

_TEMPLATE = 'comparison.html.j2'

#: Columns that fit no narrow terminal.
LESS_TELLING = ('runs', 'Δm metrics %', 'mean rank', 's/run')


def write_report(directory: str | pathlib.Path) -> dict[str, Any]:
  """Writes ``summary.json`` and ``report.html`` of an experiment.

  Args:
    directory: folder that the experiment wrote.

  Returns:
    The content of ``summary.json``: ``metrics`` (names, tasks, directions),
    ``baseline``, ``methods`` (mean, standard error and n of every test metric,
    ``delta_m_metrics``, ``delta_m_tasks``, ``mean_rank``, cost), ``failures``
    and ``notes``; ``beside``, floors and published rows, or None; and
    ``tuning``, what was chosen of the trials, or None.

  Raises:
    ReportError: the folder holds no results.
  """
  directory = pathlib.Path(directory)
  results = read_results(directory)
  settings = conflicts.read_settings(directory, results)
  drawn = pictures.sections(directory, results)
  summary = summarize_results(results)
  summary['beside'] = beside.compare(results.config, summary)
  summary['tuning'] = tuning.read(directory, summary['notes'])
  text = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False)
  page = _render_page(
    results,
    summary,
    [
      *sections(results, summary),
      *drawn,
      *conflicts.comparison(settings),
    ],
  )
  _files.replace_text(directory / 'summary.json', text + '\n')
  _files.replace_text(directory / 'report.html', page)
  return summary


def print_tables(
  summary: dict[str, Any], console: rich.console.Console
) -> None:
  """Prints the tables, none wider than the console.

  Where it is narrow, less telling columns are left out, and what still does not
  fit goes on in further tables; of that beside floors there is the first.
  """
  left_out = console.width < WIDE
  columns = _main_columns(summary, compact=left_out)
  title = _title(summary)
  for part in fitting(columns, console.width):
    console.print(render_columns(title, part, width=console.width))
    title = 'The same runs, further columns'
  if summary['beside']:
    parts = fitting(beside.columns(summary), console.width)
    title = 'Beside floors and papers'
    console.print(render_columns(title, parts[0], width=console.width))
    left_out |= len(parts) > 1
  if left_out:
    console.print('Some columns are left out; the report has them all.')


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
  return render_columns(_title(summary), _main_columns(summary, compact))


def _main_columns(summary: dict[str, Any], compact: bool) -> list[Column]:
  return [
    column
    for column in main_columns(summary)
    if not (compact and column.title in LESS_TELLING)
  ]


def _title(summary: dict[str, Any]) -> str:
  data = summary['data']
  return summary['experiment'] + (f' on {data}' if data else '')


def _reading(summary: dict[str, Any], last_epochs: int = 0) -> list[str]:
  """How to read the table, in sentences."""
  chosen = [metric for metric in summary['metrics'] if metric['in_delta_m']]
  lines = [
    'Each number is the mean over finished runs ± its standard error over '
    'seeds. The star and bold type mark the best mean of the multi-task '
    'methods; differences under about two standard errors are noise.'
  ]
  if last_epochs:
    lines.append(
      f'The number of a run is the mean over the last {last_epochs} epochs of '
      'what its network reaches on test; no state is selected.'
    )
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


def _held_out(results: Results) -> list[str]:
  """Which methods were not trained on all training data, if any."""
  found = {
    run.method: int(run.values['val_examples'])
    for run in results.runs
    if 'val_examples' in run.values
  }
  if not found:
    return []
  count = max(found.values())
  return [
    f'Not trained on all training data: {", ".join(found)}. Their weights were '
    f'learned on batches of {count} training examples held out for that '
    f'(--val-share {results.config["val_share"]}), a second batch a step; they '
    'made as many steps as the other methods, which were trained on all.'
  ]


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
    reading=[
      *_reading(summary, results.config.get('last_epochs', 0)),
      tuning.in_words(results.config, summary['tuning']),
      *_held_out(results),
    ],
    tuned=tuning.columns(summary['tuning']) if summary['tuning'] else None,
    beside=beside.columns(summary) if summary['beside'] else None,
    sections=pictures,
    summary=summary,
    config=json.dumps(results.config, indent=2, ensure_ascii=False),
  )

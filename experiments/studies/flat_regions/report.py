"""The report of the study: verdicts, tables, pictures; and its summary."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import rich.console

from experiments.report import conflict as conflicts
from experiments.report import files, tuning
from experiments.report import verdicts as verdicts_
from experiments.report.conflict import read_settings
from experiments.report.results import (
  Results,
  data_of,
  read_results,
  read_rows,
)
from experiments.report.statistics import RESAMPLES
from experiments.report.tables import columns_of
from experiments.studies.flat_regions import claims, figures
from experiments.studies.flat_regions import tables as grid_tables
from experiments.studies.flat_regions.rows import PERCENT, Rows


def write_report(directory: pathlib.Path) -> dict[str, Any]:
  """Writes ``summary.json`` and ``report.html`` of the study.

  Args:
    directory: folder that the study wrote; it need not be finished.

  Returns:
    The content of ``summary.json``: ``variants`` (a list of cells each, with
    means, standard errors and paired differences), ``verdicts``, ``failures``
    and ``notes``.

  Raises:
    ReportError: the folder holds no results.
  """
  results = read_results(directory)
  conflict = read_settings(directory, results)
  config = results.config
  rows = Rows(
    read_rows(directory, []),
    _read_costs(directory / 'cost.json', results.notes),
    config['min_seeds'],
    config.get('score', 'accuracy'),
  )
  verdicts = claims.verdicts(rows)
  tables = grid_tables.make_tables(rows, results.tasks)
  tuned = tuning.read(directory, results.notes)
  summary = {
    'experiment': 'flat_regions',
    'tuning': tuned,
    'preset': config['preset'],
    'score': rows.metric,
    'tasks': results.tasks,
    'variants': {
      table.variant: [_line(rows, line) for line in table.lines]
      for table in tables
    },
    'failures': results.failures,
    'notes': results.notes,
  }
  return verdicts_.write_claims(
    directory,
    summary,
    verdicts,
    title=f'flat_regions on {data_of(config)}',
    lead=f'{results.finished} Preset: {config["preset"]}.',
    how=_how(results, rows),
    tables=[*tables, *_tuned(tuned)],
    sections=[
      *figures.sections(directory, results, rows),
      *conflicts.comparison(conflict),
    ],
    config=config,
  )


def _tuned(found: Mapping[str, Any] | None) -> list[dict[str, Any]]:
  """The learning rates that were chosen, where there was a choice."""
  if found is None:
    return []
  return [
    {
      'title': 'Learning rates',
      'text': 'The rate of each cell, in units of --learning-rate: of those '
      'tried, with a seed that no run above has, the one with the best state '
      'on validation.',
      'columns': tuning.columns(found),
    }
  ]


def print_tables(
  summary: Mapping[str, Any], console: rich.console.Console
) -> None:
  """Prints the accuracies of the main variant, and the verdicts."""
  metric = summary['score']
  name = PERCENT[metric]
  rows = []
  for line in summary['variants'].get('main', []):
    found = line['metrics'][metric]
    error = found['standard_error']
    cells = [
      line['cell'],
      f'{found["mean"]:.2f} ± ' + ('-' if error is None else f'{error:.2f}'),
    ]
    for control in grid_tables.CONTROLS:
      found = line['differences'].get(control)
      cells.append(_difference(found) if found else '-')
    rows.append(cells)
  titles = ('cell', name, *grid_tables.CONTROLS.values())
  verdicts_.print_columns(
    f'{name} %, mean over tasks and seeds',
    columns_of(titles, rows),
    console,
    left=2,
  )
  verdicts_.print_verdicts(summary['verdicts'], console)


def _difference(found: Mapping[str, Any]) -> str:
  if found['low'] is None:
    return f'{found["mean"]:+.2f}'
  return f'{found["mean"]:+.2f} [{found["low"]:+.2f}, {found["high"]:+.2f}]'


def _how(results: Results, rows: Rows) -> list[str]:
  """How the numbers are to be read, in sentences."""
  config = results.config
  lines = []
  if config['preset'] == 'quick':
    lines.append(
      'This is the quick preset: a small network, few examples, and a '
      'short training. Its verdicts are about this size only; the paper trains '
      'a ResNet-18 on 120,000 pairs for 200 epochs (--preset paper).'
    )
  lines += [
    f'Every cell is trained with {config["seeds"]} seeds. Runs of one seed '
    'share initialisation and order of the data, so differences are paired. '
    f'The state with the best mean validation {rows.metric_name} is measured '
    'on test, once.',
    'An interval is the wider of two: the percentile bootstrap over seeds '
    f"({RESAMPLES:,} resamples) and Student's t, both of 95 %. With three "
    'seeds a bootstrap is nearly meaningless (it can only return means of '
    'three numbers), which is why it does not decide alone.',
    'A comparison is decided where its whole interval lies on one side of the '
    f'threshold and there are at least {config["min_seeds"]} seeds. A claim '
    'holds if all its comparisons are decided as claimed, does not hold if one '
    'is decided the other way, and is undecided at this size otherwise. '
    'Nothing is corrected for the number of comparisons.',
    '"2x" is A for twice the epochs: about the compute of F-A. "matched" is A '
    'with its shared update scaled, at every step, to the length of that of '
    'F-A from the same gradients; "direct_matched" is direct scaled likewise. '
    'Under Adam a constant factor does nothing, so this removes how the length '
    'of the update changes, not its mean. "sam" is A on the gradients at one '
    'perturbed point (G-SAM); for a single task it is F-STL. F-mean has no '
    'direct form: for a linear A it is the same update.',
    'Labels are removed or flipped in training only; validation and test keep '
    'theirs.',
  ]
  if config['out_of_data'] == 'rotated':
    lines.append(
      'The entropies "out of data" are of the test pairs turned by a quarter, '
      'a stand-in for a second data set.'
    )
  if config['out_of_data'] == 'shuffled':
    lines.append(
      'The entropies "out of data" are of the test rows with every column '
      "shuffled apart: the columns are as they were, the rows are nobody's."
    )
  if rows.metric_name != 'accuracy':
    lines.append(
      f'Where the paper speaks of accuracy, these verdicts are about the '
      f'{rows.metric_name} in points; its figures do not refer to that.'
    )
  return lines


def _line(rows: Rows, line: grid_tables.Line) -> dict[str, Any]:
  _, base, form, ascent, rho = line.key
  names = [name for name, _, _ in grid_tables.shown(rows)]
  found = {name: grid_tables.over_seeds(line, name) for name in names}
  return {
    'cell': line.name,
    'base': base,
    'form': form,
    'ascent': ascent,
    'rho': rho,
    'seeds': sorted(line.rows),
    'metrics': {
      name: {
        'mean': x.mean,
        'standard_error': verdicts_.finite(x.standard_error),
        'n': x.n,
      }
      for name, x in found.items()
      if x is not None
    },
    'differences': {
      control: verdicts_.plain_interval(x)
      for control, x in grid_tables.differences(rows, line).items()
    },
  }


def _read_costs(path: pathlib.Path, notes: list[str]) -> dict[str, Any]:
  try:
    return dict(files.read_json(path))
  except FileNotFoundError:
    return {}
  except (OSError, ValueError, TypeError) as error:
    notes.append(
      f'{path.name} is damaged ({error}) and was left out; the same command '
      'measures it again.'
    )
    return {}

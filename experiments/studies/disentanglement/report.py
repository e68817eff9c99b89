"""The report of the study of rankings."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import rich.console

from experiments.report import files
from experiments.report import verdicts as verdicts_
from experiments.report.results import (
  Results,
  Run,
  read_results,
)
from experiments.report.statistics import Interval
from experiments.report.tables import MISSING, Cell, Column, columns_of
from experiments.studies.disentanglement.claims import (
  MARGIN,
  NAME,
  OTHERS,
  READING,
  RankedMethod,
  claims,
  similarities,
)
from experiments.studies.disentanglement.readings import MEASURES, read_means
from mtljax.metrics import delta_m

SINGLE = 'single_'


def write_report(directory: pathlib.Path) -> dict[str, Any]:
  """Writes ``summary.json`` and ``report.html`` of the study.

  Args:
    directory: folder that the study wrote; it need not be finished.

  Returns:
    The content of ``summary.json``: ``entries`` (delta-m and what was measured
    in training, by backbone, method and level), ``identifiers`` (the ranking
    similarity of each measure), ``verdicts``, ``failures`` and ``notes``.

  Raises:
    ReportError: the folder holds no results.
  """
  results = read_results(directory)
  config = results.config
  table = read_table(directory, results)
  shared = config['num_shared']
  largest = max(shared, key=lambda name: shared[name])
  entries = [
    {
      'backbone': backbone,
      'method': entry.method,
      'level': entry.level,
      'delta_m': verdicts_.plain_values([x['delta_m'] for x in runs.values()]),
    }
    | {
      name: float(np.mean([x[name] for x in runs.values()]))
      for name in (READING, *OTHERS)
    }
    for backbone, found in table.items()
    for entry, runs in found.items()
  ]
  identifiers = [
    {'measure': name}
    | {
      kind: verdicts_.plain_values(similarities(table, name, kind).values())
      for kind in ('kendall', 'spearman')
    }
    for name in MEASURES
  ]
  summary = {
    'experiment': NAME,
    'preset': config['preset'],
    'tasks': results.tasks,
    'entries': entries,
    'identifiers': identifiers,
    'failures': results.failures,
    'notes': results.notes,
  }
  tables = [
    {
      'title': f'Methods on {backbone}',
      'text': f'{shared[backbone]:,} shared parameters. Lower delta-m is '
      'better; the rest are means over training.',
      'columns': _entry_columns(entries, backbone),
    }
    for backbone in table
  ]
  if table:
    tables.append(
      {
        'title': 'Measures by how they rank the methods',
        'text': 'Similarity to the ranking by delta-m on test, mean over '
        'backbones: 1 for the same order. Intervals are of 95 % each.',
        'columns': _identifier_columns(identifiers),
      }
    )
  return verdicts_.write_claims(
    directory,
    summary,
    claims(table, config['min_seeds'], largest),
    title='rankings of methods',
    lead=f'{results.finished} Suite: {config["suite"]}. '
    f'Preset: {config["preset"]}.',
    how=_how(config),
    tables=tables,
    sections=[],
    config=config,
  )


def read_table(
  directory: pathlib.Path, results: Results
) -> dict[str, dict[RankedMethod, dict[int, dict[str, float]]]]:
  """The finished runs; `results.notes` says what is left out."""
  config = results.config
  columns = [f'test/{name}' for name in config['delta_m_metrics']]
  higher = [config['higher_is_better'][x] for x in config['delta_m_metrics']]
  done: dict[str, dict[str, list[Run]]] = {}
  for run in results.runs:
    backbone, _, rest = run.method.partition('.')
    if not run.problem and backbone in config['num_shared']:
      done.setdefault(backbone, {}).setdefault(rest, []).append(run)
  table = {}
  for backbone, found in done.items():
    base = _baseline(found, columns)
    if base is None:
      results.notes.append(
        f'{backbone} is left out: delta-m is against each task alone, and not '
        'all of these have finished.'
      )
      continue
    entries: dict[RankedMethod, dict[int, dict[str, float]]] = {}
    for rest, runs in found.items():
      level, _, method = rest.partition('.')
      if level.startswith(SINGLE):
        continue
      for run in runs:
        means = _means(directory, run, results)
        if means is None:
          continue
        score = delta_m([run.values[x] for x in columns], base, higher)
        means['delta_m'] = float(score)
        entries.setdefault(RankedMethod(method, level), {})[int(run.seed)] = (
          means
        )
    if entries:
      table[backbone] = entries
  return table


def _baseline(
  found: Mapping[str, list[Run]], columns: list[str]
) -> list[float] | None:
  """Of each metric, the mean over seeds of its task alone."""
  base = []
  for column in columns:
    task = column.rpartition('/')[2]
    alone = [
      run.values[column]
      for rest, runs in found.items()
      if rest.partition('.')[0] == f'{SINGLE}{task}'
      for run in runs
    ]
    if not alone:
      return None
    base.append(float(np.mean(alone)))
  return base


def _means(
  directory: pathlib.Path, run: Run, results: Results
) -> dict[str, float] | None:
  try:
    return read_means(run.probe(directory))
  except (OSError, ValueError) as error:
    results.notes.append(
      f'{run.method}, seed {run.seed} was left out: {files.PROBE}: {error}.'
    )
    return None


def _entry_columns(
  entries: list[dict[str, Any]], backbone: str
) -> list[Column]:
  rows = [x for x in entries if x['backbone'] == backbone]
  rows.sort(key=lambda x: x['delta_m']['mean'])
  return columns_of(
    ('method', 'gradients at', 'seeds', 'delta-m', 'interval', 'FD', *OTHERS),
    [
      (
        x['method'],
        x['level'],
        str(x['delta_m']['n']),
        f'{x["delta_m"]["mean"]:+.2f}',
        _span(x['delta_m']),
        *(f'{x[name]:.3f}' for name in (READING, *OTHERS)),
      )
      for x in rows
    ],
  )


def _identifier_columns(rows: list[dict[str, Any]]) -> list[Column]:
  found = [Column('measure', [Cell(x['measure']) for x in rows])]
  for kind in ('kendall', 'spearman'):
    known = [x[kind] for x in rows]
    found += [
      Column(
        kind, [Cell(f'{x["mean"]:+.2f}' if x else MISSING) for x in known]
      ),
      Column('interval', [Cell(_span(x) if x else MISSING) for x in known]),
    ]
  return found


def _span(found: Mapping[str, Any]) -> str:
  nan = float('nan')
  low, high = (nan if found[x] is None else found[x] for x in ('low', 'high'))
  return verdicts_.span(Interval(0.0, nan, low, high, (nan, nan), found['n']))


def _how(config: Mapping[str, Any]) -> list[str]:
  """How the numbers are to be read, in sentences."""
  return [
    'Delta-m is the mean over metrics of the drop in percent against each task '
    'alone on the same backbone, mean over seeds, at the state that is best on '
    'validation.',
    'No formula of Feature Disentanglement and Ranking Similarity is public: '
    f'both are reconstructions. RA2 is decided by the reading {READING} and '
    "Kendall's tau-b, chosen before the runs; the table of measures has the "
    'other readings.',
    f'RA1: {MARGIN:g} point of delta-m is what a method that keeps its score '
    'may lose.',
    "Intervals of the claims are the wider of bootstrap and Student's t over "
    'seeds, at the level of Bonferroni for all numbers that the three claims '
    'compare; those only shown are of 95 % each.',
    'RA3: a ranking of one seed and the mean of the others are not '
    'independent between seeds; the interval is somewhat too narrow.',
  ]


def print_tables(
  summary: Mapping[str, Any], console: rich.console.Console
) -> None:
  """Prints the methods of each backbone, the measures and the verdicts."""
  entries = summary['entries']
  for backbone in dict.fromkeys(x['backbone'] for x in entries):
    verdicts_.print_columns(
      f'methods on {backbone}', _entry_columns(entries, backbone), console, 2
    )
  if entries:
    columns = _identifier_columns(summary['identifiers'])
    verdicts_.print_columns('measures', columns, console)
  verdicts_.print_verdicts(summary['verdicts'], console)

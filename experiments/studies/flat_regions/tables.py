"""The tables of the study, from its rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.report import verdicts
from experiments.report.statistics import Interval, interval
from experiments.report.tables import MISSING, Cell, Column
from experiments.studies.flat_regions.rows import Rows, paired, score
from mtljax import metrics

# Name of the metric, heading, format.
METRICS = (
  ('test/ece', 'ECE', '{:.3f}'),
  ('test/brier', 'Brier', '{:.3f}'),
  ('train/sharpness_0.05', 'sharpness 0.05', '{:.3g}'),
  ('train/grad_norm', 'gradient norm', '{:.3g}'),
  ('train/conflict', 'conflict rate', '{:.3f}'),
  ('steps_per_second', 'steps/s', '{:.1f}'),
)


def shown(rows: Rows) -> tuple[tuple[str, str, str], ...]:
  """The metric that runs are compared by, then the others."""
  return ((rows.metric, f'{rows.metric_name} %', '{:.2f}'), *METRICS)


CONTROLS = {'plain': 'Δ to A', '2x': 'Δ to A, 2x'}
TITLES = {
  'main': 'All forms, clean labels',
  'sweep': 'Radii',
}


class Line(NamedTuple):
  """One cell of the grid.

  Attributes:
    name: as in ``results.csv``.
    key: variant, base, form, ascent, rho.
    rows: its rows by seed.
  """

  name: str
  key: tuple[str, str, str, str, float]
  rows: Mapping[int, Mapping[str, Any]]


class Table(NamedTuple):
  """The cells of one variant.

  Attributes:
    variant: its name.
    title: heading.
    text: what is shown.
    lines: the cells.
    columns: the columns, a row a cell.
  """

  variant: str
  title: str
  text: str
  lines: list[Line]
  columns: list[Column]


def make_tables(rows: Rows, tasks: Sequence[str]) -> list[Table]:
  """One table a variant; scores and differences in percentage points."""
  tables = []
  for variant in dict.fromkeys(key[0] for key in rows.found):
    lines = [
      Line(next(iter(cell.values()))['method'], key, cell)
      for key, cell in rows.found.items()
      if key[0] == variant
    ]
    kind, _, fraction = variant.rpartition('_')
    title = TITLES.get(variant, f'{kind.replace("_", "-")}, {fraction}')
    text = (
      'Mean over seeds ± standard error. Δ: paired difference in '
      f'{rows.metric_name}, with its interval.'
    )
    columns = _columns(rows, lines, tasks)
    tables.append(Table(variant, title, text, lines, columns))
  return tables


def differences(rows: Rows, line: Line) -> dict[str, Interval]:
  """The score minus that of each control of the same method, over seeds."""
  variant, base, form = line.key[:3]
  home = 'main' if variant == 'sweep' else variant
  found = {}
  for control in CONTROLS:
    if form == control or (form == 'plain' and control == '2x'):
      continue
    if variant == 'sweep':
      other = rows.seeds(home, base, control)
      values = {
        seed: score(row, rows.metric) - score(other[seed], rows.metric)
        for seed, row in line.rows.items()
        if seed in other
      }
    else:
      values = paired(rows, variant, base, (form, control))
    if values:
      found[control] = interval(list(values.values()))
  return found


def over_seeds(line: Line, name: str) -> metrics.Summary | None:
  """Mean and standard error of a metric; None where it was not measured."""
  values = [score(row, name) for row in line.rows.values()]
  values = [value for value in values if math.isfinite(value)]
  return metrics.summarize(values) if values else None


def _columns(
  rows: Rows, lines: Sequence[Line], tasks: Sequence[str]
) -> list[Column]:
  columns = [
    Column('cell', [Cell(line.name) for line in lines]),
    Column('runs', [Cell(str(len(line.rows))) for line in lines]),
  ]
  per_task = [
    (f'{rows.metric}/{task}', f'{task} %', '{:.2f}') for task in tasks
  ]
  for name, title, form in (*per_task, *shown(rows)):
    columns.append(Column(title, [_cell(line, name, form) for line in lines]))
    if name == rows.metric:
      found = [differences(rows, line) for line in lines]
      for control, heading in CONTROLS.items():
        cells = [
          Cell(
            f'{d[control].mean:+.2f} {verdicts.span(d[control])}'
            if control in d
            else MISSING
          )
          for d in found
        ]
        columns.append(Column(heading, cells))
  return [c for c in columns if any(x.text != MISSING for x in c.cells)]


def _cell(line: Line, name: str, form: str) -> Cell:
  found = over_seeds(line, name)
  if found is None:
    return Cell(MISSING)
  error = found.standard_error
  after = form.format(error) if math.isfinite(error) else MISSING
  return Cell(f'{form.format(found.mean)} ± {after}')

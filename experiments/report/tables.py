"""The table of the report: the same cells for the terminal and the page."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import rich.box
import rich.table
import rich.text

from experiments.report.summary import REFERENCE

MISSING = '-'
#: The unit of what is kept as a fraction and shown in percent.
SHARE = '%'
MAX_METRICS = 6
#: Characters beside a column, or half of them before and after the table.
GAP = 2
_WHOLE = {'break_long_words': False, 'break_on_hyphens': False}


class Cell(NamedTuple):
  """What one cell shows.

  Attributes:
    text: the text.
    best: whether it is the best mean of its column.
  """

  text: str
  best: bool = False


class Column(NamedTuple):
  """One column.

  Attributes:
    title: its heading.
    cells: a cell a method.
  """

  title: str
  cells: list[Cell]


def columns_of(
  titles: Sequence[str], rows: Sequence[Sequence[str]]
) -> list[Column]:
  """Columns of plain texts, given row by row."""
  return [
    Column(title, [Cell(row[i]) for row in rows])
    for i, title in enumerate(titles)
  ]


def render_columns(
  title: str,
  columns: Sequence[Column],
  *,
  left: int = 1,
  width: int | None = None,
) -> rich.table.Table:
  """A table for the terminal.

  Args:
    title: shown above.
    columns: what is shown; the best cells stand out.
    left: how many columns are set to the left, and never wrapped.
    width: of the terminal; where headings in one line do not fit, words of
      some are in several, and cells stay whole. None: it is wide.

  Returns:
    The table; print it with a ``rich.console.Console``.
  """
  table = rich.table.Table(
    title=title,
    title_justify='left',
    box=rich.box.SIMPLE_HEAD,
    pad_edge=False,
    collapse_padding=True,
  )
  titles = [column.title for column in columns]
  if width is not None:
    titles = _headings(columns, width)
  for i, heading in enumerate(titles):
    table.add_column(
      rich.text.Text(heading),
      justify='left' if i < left else 'right',
      no_wrap=i < left,
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


def _headings(columns: Sequence[Column], width: int) -> list[str]:
  """In several lines where that is needed, and saves most."""
  spare = [len(column.title) - _least(column) for column in columns]
  titles = [column.title for column in columns]
  sizes = [len(title) for title in titles]
  for i in sorted(range(len(columns)), key=lambda i: -spare[i]):
    if _total(columns, sizes) <= width or spare[i] <= 0:
      break
    sizes[i] = _least(columns[i])
    titles[i] = '\n'.join(textwrap.wrap(titles[i], sizes[i], **_WHOLE))
  return titles


def fitting(columns: Sequence[Column], width: int) -> list[list[Column]]:
  """The columns in tables that a terminal shows unbroken.

  Args:
    columns: the first of them begins every table.
    width: of the terminal.

  Returns:
    One table if all fit; a column that fits nowhere has a table of its own.
  """
  first, *others = columns
  tables = [[first]]
  for column in others:
    wider = [*tables[-1], column]
    if len(wider) > 2 and _total(wider, map(_least, wider)) > width:
      tables.append([first])
    tables[-1].append(column)
  return tables


def _least(column: Column) -> int:
  """The longest word of its heading, or cell."""
  return max(len(x) for x in ['-', *column.title.split(), *_texts(column)])


def _texts(column: Column) -> list[str]:
  return [cell.text for cell in column.cells]


def _total(columns: Sequence[Column], headings: Iterable[int]) -> int:
  """Characters in a line of a table whose headings are so wide."""
  sizes = [
    max(heading, *map(len, _texts(column)), 1)
    for column, heading in zip(columns, headings, strict=True)
  ]
  return sum(sizes) + GAP * len(sizes)


def main_columns(summary: dict[str, Any]) -> list[Column]:
  """The columns that compare the methods.

  With more than six metrics in delta-m, each kind of metric is averaged over
  the tasks that have it, unless their units differ.

  Args:
    summary: what `write_report` returns.

  Returns:
    The columns; a row is a method, in the order of ``summary['methods']``.
  """
  entries = summary['methods'].values()
  columns = [
    Column('method', [Cell(method) for method in summary['methods']]),
    Column('runs', [Cell(str(len(entry['seeds']))) for entry in entries]),
  ]
  chosen = [metric for metric in summary['metrics'] if metric['in_delta_m']]
  if len(chosen) <= MAX_METRICS:
    columns += [_metric_column(summary, metric) for metric in chosen]
  else:
    kinds = {metric['kind']: metric['higher_is_better'] for metric in chosen}
    for kind, higher in kinds.items():
      own = [metric for metric in chosen if metric['kind'] == kind]
      if len(own) == 1:
        columns.append(_metric_column(summary, own[0]))
        continue
      if len({metric['unit'] for metric in own}) > 1:
        continue
      columns.append(_average_column(summary, kind, own, higher))
  columns += [
    _column(summary, 'Δm metrics %', lambda e: e['delta_m_metrics'], _signed),
    _column(summary, 'Δm tasks %', lambda e: e['delta_m_tasks'], _signed),
    _column(summary, 'mean rank', lambda e: _bare(e['mean_rank']), _rank),
  ]
  return columns + _cost_columns(summary)


def metric_columns(summary: dict[str, Any]) -> list[Column]:
  """Every test metric.

  Args:
    summary: what `write_report` returns.

  Returns:
    The columns, the methods' names first.
  """
  return [
    Column('method', [Cell(method) for method in summary['methods']]),
    *(_metric_column(summary, metric) for metric in summary['metrics']),
  ]


def _cost_columns(summary: dict[str, Any]) -> list[Column]:
  def text(key: str, form: str) -> list[Cell]:
    values = [_bare(entry[key]) for entry in summary['methods'].values()]
    return [Cell(form.format(v['mean']) if v else MISSING) for v in values]

  return [
    Column('s/run', text('wall_time', '{:.1f}')),
    Column('steps/s', text('steps_per_second', '{:.1f}')),
    Column(f'time ÷ {REFERENCE}', text('time_ratio', '{:.2f}x')),
  ]


def _metric_column(summary: dict[str, Any], metric: dict[str, Any]) -> Column:
  name, unit = metric['name'], metric['unit']
  return _column(
    summary,
    name.replace('/', ' ') + (f' {unit}' if unit else ''),
    lambda entry: entry['metrics'].get(name),
    _percent if unit == SHARE else _plain,
    metric['higher_is_better'],
  )


def _average_column(
  summary: dict[str, Any], kind: str, own: list[dict[str, Any]], higher: bool
) -> Column:
  names = [metric['name'] for metric in own]

  def average(entry: dict[str, Any]) -> dict[str, Any] | None:
    values = [entry['metrics'].get(name) for name in names]
    if not all(values):
      return None
    return _bare(sum(value['mean'] for value in values) / len(values))

  percent = own[0]['unit'] == SHARE
  title = f'{kind}, mean of {len(names)}' + (' %' if percent else '')
  form = '{:.2f}' if percent else '{:.4g}'
  return _column(
    summary,
    title,
    average,
    lambda v: form.format(v['mean'] * (100 if percent else 1)),
    higher,
  )


def _column(
  summary: dict[str, Any],
  title: str,
  read: Callable[[dict[str, Any]], dict[str, Any] | None],
  form: Callable[[dict[str, Any]], str],
  higher_is_better: bool | None = False,
) -> Column:
  """Cells with the best multi-task mean marked, where there is a choice."""
  entries = list(summary['methods'].values())
  found = [read(entry) for entry in entries]
  rivals = [
    value['mean']
    for value, entry in zip(found, entries, strict=True)
    if value and entry['single_task'] is None
  ]
  best = None
  if len(rivals) > 1 and higher_is_better is not None:
    best = max(rivals) if higher_is_better else min(rivals)
  return Column(
    title,
    [
      Cell(
        form(value) if value else MISSING,
        bool(value) and value['mean'] == best and entry['single_task'] is None,
      )
      for value, entry in zip(found, entries, strict=True)
    ],
  )


def _bare(value: Any) -> dict[str, Any] | None:
  """A number without a standard error, in the form of the others."""
  if value is None or isinstance(value, dict):
    return value
  return {'mean': value, 'standard_error': None, 'n': 1}


def _with_error(mean: str, error: float | None, form: str) -> str:
  return f'{mean} ± {MISSING if error is None else form.format(error)}'


def _percent(value: dict[str, Any]) -> str:
  error = value['standard_error']
  return _with_error(
    f'{100 * value["mean"]:.2f}',
    None if error is None else 100 * error,
    '{:.2f}',
  )


def _plain(value: dict[str, Any]) -> str:
  return _with_error(f'{value["mean"]:.4g}', value['standard_error'], '{:.2g}')


def _signed(value: dict[str, Any]) -> str:
  return _with_error(f'{value["mean"]:+.2f}', value['standard_error'], '{:.2f}')


def _rank(value: dict[str, Any]) -> str:
  return f'{value["mean"]:.2f}'

"""The report of the toy study: Table A3, the verdict on E1, trajectories."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import rich.console

from experiments.report import tables as table
from experiments.report import verdicts as verdicts_
from experiments.studies.toy import figures
from experiments.studies.toy.cells import RATES, ReadCells, ToyCell, read_cells

PAPER_ITERATIONS = 100_000
NEVER = (None,) * len(RATES)
#: Table A3 of Elich et al.; None where not all starts arrive.
PAPER: dict[tuple[str, str], tuple[int | None, ...]] = {
  ('gd', 'mean'): (None, 103, *NEVER[2:]),
  ('gd', 'pcgrad'): NEVER,
  ('gd', 'cagrad'): (644, None, 213, 621, 8069, 5732, 20418, 34405, None),
  ('adam', 'mean'): (26, 37, 22, 58, 709, 2135, 9015, 16005, None),
  ('adam', 'pcgrad'): (
    *(25, 4960, 56, 15741, 34175, 41438),
    *NEVER[6:],
  ),
  ('adam', 'cagrad'): (27, 30, 32, 106, 802, 7109, 11239, 14323, 57700),
}
STABLE_RATE = 0.1  # below it rounding decides when Adam arrives
TOLERANCE = 0.05
NONE = 0.5  # a count below it is zero


def write_report(directory: pathlib.Path) -> dict[str, Any]:
  """Writes ``summary.json`` and ``report.html`` of the study.

  Args:
    directory: folder that the study wrote; it need not be finished.

  Returns:
    The content of ``summary.json``: ``cells`` (``optimizer``, ``method``,
    ``iterations`` and ``paper`` by learning rate), ``verdicts``, ``failures``
    and ``notes``.

  Raises:
    ReportError: the folder holds no results.
  """
  read = read_cells(directory)
  verdicts = [verdict(read)]
  lines = [
    {
      'optimizer': cell.optimizer,
      'method': cell.method,
      'iterations': {f'{rate:g}': n for rate, n in numbers.items()},
      'paper': _paper(cell, numbers),
    }
    for cell, numbers in read.numbers.items()
  ]
  summary = {
    'experiment': 'toy',
    'dtype': read.config['dtype'],
    'cells': lines,
    'failures': [],
    'notes': read.notes,
  }
  tables = [
    {'title': title, 'text': text, 'columns': _columns(kept)}
    for title, text, kept in (
      (
        'Iterations to the minimum: Table A3',
        'Of the slowest of three starts; - where one does not arrive.',
        [line for line in lines if line['paper']],
      ),
      (
        'Iterations to the minimum: other optimizers',
        'Momentum is 0.9. AdaTask (an Adam a task) and MTL-IO (momentum a '
        'task) sum the steps of the tasks, so that MTL-IO is momentum on the '
        'mean at twice the learning rate.',
        [line for line in lines if not line['paper']],
      ),
    )
    if kept
  ]
  return verdicts_.write_claims(
    directory,
    summary,
    verdicts,
    title='toy',
    lead=(
      f'Two tasks, two parameters, {read.config["iterations"]:,} iterations '
      f'from three starts, in {read.config["dtype"]}.'
    ),
    how=[
      'A run has arrived when the mean of the losses is within 0.1 of its '
      'minimum. The paper does not state its criterion; with this one the '
      'stable cells agree.',
      'The logarithms make valleys with steep walls, in which a run is '
      'chaotic: another order of a sum decides when gradient descent, or Adam '
      'at a learning rate below 0.1, leaves them. Only the claims that survive '
      'this are judged; the other numbers are shown.',
    ],
    tables=tables,
    sections=[figures.trajectories(read.config, read.points)],
    config=read.config,
  )


def print_tables(
  summary: Mapping[str, Any], console: rich.console.Console
) -> None:
  """Prints the iterations, the paper's below ours, and the verdict."""
  columns = _columns(summary['cells'])
  verdicts_.print_columns('iterations to the minimum', columns, console, left=3)
  verdicts_.print_verdicts(summary['verdicts'], console)


def verdict(read: ReadCells) -> verdicts_.Verdict:
  """What became of E1."""
  return verdicts_.verdict(
    'E1',
    'With Adam the mean of the losses arrives in 22 to 58 iterations at '
    'learning rates from 10 to 0.5; PCGrad with gradient descent never '
    'arrives; at a learning rate of 0.001 only CAGrad with Adam does.',
    f'the mean and CAGrad with Adam, at {STABLE_RATE} and more, are within '
    f'{TOLERANCE:.0%} of the published numbers, and the other two are so.',
    _measured(read),
    min_seeds=1,
  )


def _measured(read: ReadCells) -> list[verdicts_.Measured]:
  """The numbers of E1; none where a part of Table A3 was not run."""
  found = {tuple(cell): numbers for cell, numbers in read.numbers.items()}
  whole = read.config['iterations'] >= PAPER_ITERATIONS and all(
    rate in found.get(cell, {}) for cell in PAPER for rate in RATES
  )
  if not whole:
    return []
  off = []
  for method in ('mean', 'cagrad'):
    published = dict(zip(RATES, PAPER['adam', method], strict=True))
    for rate in (rate for rate in RATES if rate >= STABLE_RATE):
      ours = found['adam', method][rate]
      off.append(np.inf if ours is None else abs(ours / published[rate] - 1))
  quick = [found['adam', 'mean'][rate] for rate in RATES if rate >= 0.5]
  slow = {cell: numbers[RATES[-1]] for cell, numbers in found.items()}
  others = [slow[cell] for cell in PAPER if cell != ('adam', 'cagrad')]

  def count(values):
    return sum(value is not None for value in values)

  shown = []
  if np.isfinite(max(off)):
    label = 'largest difference from the paper there, %'
    shown.append(verdicts_.exact(label, 100 * max(off), None))
  return [
    verdicts_.exact(
      f'cells of mean and CAGrad with Adam at {STABLE_RATE} and more, of '
      f'{len(off)}, further from the paper than {TOLERANCE:.0%}',
      sum(value > TOLERANCE for value in off),
      'below',
      NONE,
    ),
    *shown,
    verdicts_.exact(
      'learning rates from 10 to 0.5 at which the mean with Adam takes over '
      '61 iterations, or never arrives',
      sum(n is None or n > 61 for n in quick),
      'below',
      NONE,
    ),
    verdicts_.exact(
      'learning rates at which PCGrad with gradient descent arrives',
      count(found['gd', 'pcgrad'].values()),
      'below',
      NONE,
    ),
    verdicts_.exact(
      'at 0.001, CAGrad with Adam arrives',
      count([slow['adam', 'cagrad']]),
      'above',
      NONE,
    ),
    verdicts_.exact(
      'at 0.001, others of Table A3 that arrive', count(others), 'below', NONE
    ),
  ]


def _paper(
  cell: ToyCell, numbers: Mapping[float, Any]
) -> dict[str, int | None]:
  """The published numbers at our learning rates, empty where there are none."""
  if tuple(cell) not in PAPER:
    return {}
  published = dict(zip(RATES, PAPER[cell.optimizer, cell.method], strict=True))
  return {f'{x:g}': published[x] for x in numbers if x in published}


def _columns(lines: list[dict[str, Any]]) -> list[table.Column]:
  rows = []
  for line in lines:
    head = [line['optimizer'], line['method'] or table.MISSING]
    rates = list(line['iterations'])
    rows.append([*head, 'ours', *_texts(line['iterations'], rates)])
    if line['paper']:
      rows.append([*head, 'paper', *_texts(line['paper'], rates)])
  titles = ['optimizer', 'method', '', *rates]
  return [
    table.Column(title, [table.Cell(row[i]) for row in rows])
    for i, title in enumerate(titles)
  ]


def _texts(numbers: Mapping[str, int | None], rates: list[str]) -> list[str]:
  found = [numbers.get(rate) for rate in rates]
  return [table.MISSING if n is None else f'{n:,}' for n in found]

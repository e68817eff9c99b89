"""The report of the optimizer study: verdicts, tables, pictures."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import rich.console
import rich.text

from experiments.report import verdicts as verdicts_
from experiments.report.results import FINISHED, data_of
from experiments.report.statistics import interval
from experiments.report.tables import MISSING, Cell, Column
from experiments.studies.optimizer import claims, figures
from experiments.studies.optimizer.claims import SIDES, Grid
from experiments.studies.optimizer.grid import LINEAR, OPTIMIZERS
from experiments.studies.optimizer.runs import ReadStudy, read_runs

NAME = 'optimizer_study'
#: The column that an optimizer with the tasks' gradients apart belongs to.
COLUMN_OF = {own: side for side, both in SIDES.items() for own in both}


def write_report(directory: pathlib.Path) -> dict[str, Any]:
  """Writes ``summary.json`` and ``report.html`` of the study.

  Args:
    directory: folder that the study wrote; it need not be finished.

  Returns:
    The content of ``summary.json``: ``baselines``, ``selected`` (delta-m by
    method, optimizer and ratio), ``loss_scales`` (how far they are apart),
    ``fronts``, ``shares``, ``diverged``, ``verdicts``, ``failures`` and
    ``notes``.

  Raises:
    ReportError: the single-task runs are not there.
  """
  read = read_runs(directory)
  config = read.config
  grid = Grid(read.selected, [x.higher_is_better for x in read.baselines])
  verdicts = claims.claims(
    grid,
    num_rates=min(map(len, _rates(config))),
    min_rates=config.get('min_rates', claims.MIN_RATES),
    min_seeds=config['min_seeds'],
  )
  selected = [_selected(x) for x in read.selected]
  scales = [
    {
      'ratio': ratio,
      **{
        name: x if math.isfinite(x) else None
        for name, x in zip(
          ('start', 'end'), grid.loss_scales(ratio), strict=True
        )
      },
    }
    for ratio in grid.ratios
  ]
  fronts = [_front(grid, front) for front in claims.fronts(grid)]
  shares = [
    {'ratio': ratio, 'optimizers': list(names), 'shares': found}
    for names in (tuple(SIDES), tuple(OPTIMIZERS))
    for ratio in grid.ratios
    if (found := claims.shares(grid, ratio, names))
  ]
  summary = {
    'experiment': NAME,
    'preset': config['preset'],
    'tasks': config['tasks'],
    'baselines': [x._asdict() for x in read.baselines],
    'selected': selected,
    'loss_scales': scales,
    'fronts': fronts,
    'shares': shares,
    'diverged': _diverged(read),
    'failures': [],
    'notes': read.notes + _notes(read),
  }
  diverged = sum(run.status != FINISHED for run in read.runs)
  return verdicts_.write_claims(
    directory,
    summary,
    verdicts,
    title=f'{NAME} on {data_of(config)}',
    lead=(
      f'{len(read.runs):,} runs in {read.seconds:,.0f} s of training, '
      f'{diverged:,} of which diverged. Preset: {config["preset"]}.'
    ),
    how=_how(config),
    tables=[
      *(_best_table(selected, ratio) for ratio in grid.ratios),
      _scales_table(scales),
      _front_table(fronts),
      _share_table(shares),
      _baseline_table(read),
      _diverged_table(summary['diverged']),
    ],
    sections=figures.sections(read, grid),
    config=config,
  )


def _rates(config: Mapping[str, Any]) -> tuple[list[float], list[float]]:
  """Those of Adam and signSGD, and those of SGD."""
  rates = config['learning_rates']
  return rates, config.get('sgd_rates') or rates


def _selected(cell: Any) -> dict[str, Any]:
  """A method and an optimizer, as ``summary.json`` has it."""
  drops = np.array([run.test for run in cell.runs.values()])
  several = len(drops) > 1
  return {
    'optimizer': cell.optimizer,
    'method': cell.method,
    'ratio': cell.ratio,
    'learning_rate': cell.rate,
    'at_edge': cell.at_edge,
    'delta_m': float(drops.mean()),
    'sd': float(drops.std(ddof=1)) if several else None,
    'scores': np.mean(
      [run.scores for run in cell.runs.values()], axis=0
    ).tolist(),
    'seeds': len(drops),
  }


def _front(grid: Grid, front: Any) -> dict[str, Any]:
  """Counts of a side, and the share unbeaten of a seed with its interval."""
  per_seed = [
    float(
      np.mean(
        list(claims.unbeaten(grid, front.side, front.ratio, seed).values())
      )
    )
    for seed in grid.seeds()
  ]
  found = interval(per_seed)
  return front._asdict() | {'share': verdicts_.plain_interval(found)}


def _diverged(read: ReadStudy) -> list[dict[str, Any]]:
  """How many runs diverged, by optimizer and learning rate."""
  counts: dict[tuple[str, float], list[bool]] = {}
  for run in read.runs:
    bad = run.status != FINISHED
    counts.setdefault((run.optimizer, run.rate), []).append(bad)
  return [
    {
      'optimizer': optimizer,
      'learning_rate': rate,
      'runs': len(x),
      'diverged': sum(x),
    }
    for (optimizer, rate), x in counts.items()
  ]


def _notes(read: ReadStudy) -> list[str]:
  edge = [
    f'{x.optimizer} {x.method} at ratio {x.ratio:g} ({x.rate:g})'.replace(
      '  ', ' '
    )
    for x in read.selected
    if x.at_edge
  ]
  if not edge:
    return []
  return [
    'The learning rate selected is the smallest or largest tried, and a better '
    f'one may be outside: {", ".join(edge)}.'
  ]


def _how(config: Mapping[str, Any]) -> list[str]:
  """How the numbers are to be read, in sentences."""
  rates, linear = _rates(config)
  number = f'{len(rates)}'
  if len(linear) != len(rates):
    number += f' ({len(linear)} of {" and ".join(LINEAR)})'
  measures = config['delta_m_metrics']
  # With one measure a task the name is enough.
  kinds = dict.fromkeys(name.partition('/')[0] for name in measures)
  each = len(measures) == len(kinds) * len(config['tasks'])
  over = (
    f"the tasks' {', '.join(kinds)}"
    if each or not measures
    else ', '.join(measures)
  )
  return [
    f'Every method is trained with every optimizer at {number} learning rates '
    f'and with {config["seeds"]} seeds; the network is '
    f'{config["model"]}. A run counts at the epoch, and a method '
    'and an optimizer at the learning rate, of the lowest delta-m on '
    'validation data; numbers are of the test data there.',
    f'Delta-m is the average relative drop in percent of {over} against that '
    'of single-task runs with Adam, whose epochs and learning rates are '
    'selected by the first measure of the task; lower is better. The last '
    "task's loss is multiplied by the ratio in training; scores are not.",
    'A number of a verdict is one a seed. An interval is the wider of the '
    "percentile bootstrap over seeds and Student's t, both of 95 %. Runs of a "
    'seed share initial parameters and batches. The rules were set before any '
    'run.',
  ]


def _best_table(selected: list[dict[str, Any]], ratio: float) -> dict[str, Any]:
  """Delta-m of methods and optimizers at a ratio, as in Tables A4 to A7."""
  return {
    'title': f'Test Δm % at ratio {ratio:g}, and the learning rate selected',
    'text': (
      'Mean ± standard deviation over seeds; the star marks the best of a '
      'column. ! marks a learning rate at the edge of those tried.'
    ),
    'columns': _best_columns(selected, ratio),
  }


def _best_columns(selected: list[dict[str, Any]], ratio: float) -> list[Column]:
  lines: dict[str, dict[str, Any]] = {}
  for x in (x for x in selected if x['ratio'] == ratio):
    column = COLUMN_OF.get(x['optimizer'], x['optimizer'])
    lines.setdefault(x['method'] or x['optimizer'], {})[column] = x
  columns = [Column('method', [Cell(name) for name in lines])]
  for optimizer in OPTIMIZERS:
    there = [x[optimizer]['delta_m'] for x in lines.values() if optimizer in x]
    if there:
      columns.append(
        Column(
          optimizer,
          [_drop(x.get(optimizer), min(there)) for x in lines.values()],
        )
      )
  return columns


def _drop(line: Mapping[str, Any] | None, best: float) -> Cell:
  if line is None:
    return Cell(MISSING)
  sd = '' if line['sd'] is None else f' ± {line["sd"]:.2f}'
  edge = '!' if line['at_edge'] else ''
  text = f'{line["delta_m"]:.2f}{sd} ({line["learning_rate"]:g}{edge})'
  return Cell(text, line['delta_m'] == best)


def _scales_table(scales: list[dict[str, Any]]) -> dict[str, Any]:
  def cells(name):
    return [
      Cell(MISSING if x[name] is None else f'{x[name]:.3g}') for x in scales
    ]

  return {
    'title': 'How far the losses are apart',
    'text': (
      'The largest task loss over the smallest, on validation data, the last '
      'multiplied by the ratio: before the first step, and where Adam on the '
      'sum ends (geometric means over seeds).'
    ),
    'columns': [
      Column('ratio', [Cell(f'{x["ratio"]:g}') for x in scales]),
      Column('at the start', cells('start')),
      Column('at the end', cells('end')),
    ],
  }


def _front_table(fronts: list[dict[str, Any]]) -> dict[str, Any]:
  def share(x):
    found = x['share']
    text = f'{found["mean"]:.2f}'
    if found['low'] is not None:
      text += f' [{found["low"]:.2f}, {found["high"]:.2f}]'
    return text

  def volume(found):
    return Cell(MISSING if found is None else f'{found:.4f}')

  return {
    'title': 'Pareto-optimal runs',
    'text': (
      'Of the runs at their selected learning rates, by test scores. Adam '
      'counts with AdaTask, SGD and momentum with MTL-IO. Optimal: no run of '
      'either dominates it. Unbeaten: none of the other does. The share is '
      'that of unbeaten runs within a seed. The hypervolume is that of the '
      'scores, from 0; there is none where less is better of one.'
    ),
    'columns': [
      Column('ratio', [Cell(f'{x["ratio"]:g}') for x in fronts]),
      Column('optimizer', [Cell(x['side']) for x in fronts]),
      Column('runs', [Cell(str(x['runs'])) for x in fronts]),
      Column('optimal', [Cell(str(x['optimal'])) for x in fronts]),
      Column('unbeaten', [Cell(str(x['unbeaten'])) for x in fronts]),
      Column('share unbeaten', [Cell(share(x)) for x in fronts]),
      Column('hypervolume', [volume(x['hypervolume']) for x in fronts]),
    ],
  }


def _share_table(shares: list[dict[str, Any]]) -> dict[str, Any]:
  names = list(shares[0]['shares']) if shares else []
  return {
    'title': 'Variance of Δm explained',
    'text': (
      'Shares of the sum of squares over methods, optimizers and seeds, at '
      'the selected learning rates: of the means of optimizers, of the means '
      'of methods, of what both do together, and of the seeds within a pair.'
    ),
    'columns': [
      Column('ratio', [Cell(f'{x["ratio"]:g}') for x in shares]),
      Column('optimizers', [Cell(', '.join(x['optimizers'])) for x in shares]),
      *(
        Column(name, [Cell(f'{x["shares"][name]:.3f}') for x in shares])
        for name in names
      ),
    ],
  }


def _baseline_table(read: ReadStudy) -> dict[str, Any]:
  lines = read.baselines
  return {
    'title': 'Single tasks',
    'text': 'Means over seeds, with Adam.',
    'columns': [
      Column('measure', [Cell(x.measure) for x in lines]),
      Column('learning rate', [Cell(f'{x.rate:g}') for x in lines]),
      Column('validation', [Cell(f'{x.validation:.4f}') for x in lines]),
      Column('test', [Cell(f'{x.test:.4f}') for x in lines]),
      Column('seeds', [Cell(str(x.seeds)) for x in lines]),
    ],
  }


def _diverged_table(diverged: list[dict[str, Any]]) -> dict[str, Any]:
  rates = list(dict.fromkeys(x['learning_rate'] for x in diverged))
  names = list(dict.fromkeys(x['optimizer'] for x in diverged))
  found = {(x['optimizer'], x['learning_rate']): x for x in diverged}

  def text(name, rate):
    x = found.get((name, rate))
    return MISSING if x is None else f'{x["diverged"]}/{x["runs"]}'

  return {
    'title': 'Runs that diverged',
    'text': (
      'By optimizer and learning rate, of all methods, ratios and seeds. What '
      'they reached before counts.'
    ),
    'columns': [
      Column('optimizer', [Cell(name) for name in names]),
      *(
        Column(f'{rate:g}', [Cell(text(name, rate)) for name in names])
        for rate in rates
      ),
    ],
  }


def print_tables(
  summary: Mapping[str, Any], console: rich.console.Console
) -> None:
  """Prints the best of each method and optimizer, and the verdicts."""
  for ratio in sorted({x['ratio'] for x in summary['selected']}):
    columns = _best_columns(summary['selected'], ratio)
    verdicts_.print_columns(
      f'test Δm % at ratio {ratio:g} (learning rate)',
      columns,
      console,
      left=len(columns),
    )
  verdicts_.print_verdicts(summary['verdicts'], console)

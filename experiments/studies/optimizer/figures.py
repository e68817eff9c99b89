"""Pictures of the optimizer study."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.report.plots import Section, Style, picture, style_of
from experiments.studies.optimizer import claims
from experiments.studies.optimizer.claims import SIDES, Grid
from experiments.studies.optimizer.grid import OPTIMIZERS
from experiments.studies.optimizer.runs import ReadStudy
from mtljax.diagnostics import plots


def sections(read: ReadStudy, grid: Grid) -> list[Section]:
  """All pictures, each where there is something to show."""
  found = [_rates(read), _fronts(read, grid), _gap(grid), _shares(grid)]
  return [section for section in found if section.panels]


def _dash(style: Style) -> Any:
  return (0, style.dash) if style.dash else 'solid'


def _rates(read: ReadStudy) -> Section:
  """Delta-m over the learning rate, a picture an optimizer and ratio."""
  names = list(dict.fromkeys(run.method or run.optimizer for run in read.runs))
  style = {name: style_of(i) for i, name in enumerate(names)}
  drops: dict[tuple[str, float], dict[str, dict[float, list[float]]]] = {}
  for run in read.runs:
    side = next(
      (side for side, both in SIDES.items() if run.optimizer in both),
      run.optimizer,
    )
    lines = drops.setdefault((side, run.ratio), {})
    by_rate = lines.setdefault(run.method or run.optimizer, {})
    by_rate.setdefault(run.rate, []).append(run.test)

  def plot(lines, axes):
    for name, by_rate in lines.items():
      rates = sorted(by_rate)
      means = [np.mean(by_rate[rate]) for rate in rates]
      axes.plot(
        rates,
        means,
        color=style[name].color,
        linestyle=_dash(style[name]),
        marker='o',
        markersize=2.5,
      )
    axes.set(xscale='log', xlabel='learning rate', ylabel='test Δm %')
    axes.grid(visible=True)

  order = {name: i for i, name in enumerate(OPTIMIZERS)}
  keys = sorted(drops, key=lambda key: (key[1], order[key[0]]))
  panels = [
    picture(
      f'{optimizer}, ratio {ratio:g}',
      lambda axes, key=(optimizer, ratio): plot(drops[key], axes),
      ident=f'rates{i}-',
    )
    for i, (optimizer, ratio) in enumerate(keys)
  ]
  text = (
    'Mean over seeds, each at its best epoch on validation; no point where a '
    'seed had no epoch with finite numbers.'
  )
  return Section('Δm over the learning rate', text, list(style.items()), panels)


def _fronts(read: ReadStudy, grid: Grid) -> Section:
  """The selected runs by what they lack in two tasks, and their front."""
  tasks = [x.task for x in read.baselines]
  # The first measures of the first and of the last task.
  first, last = 0, tasks.index(tasks[-1])
  more = [read.baselines[i].higher_is_better for i in (first, last)]
  names = [
    f'{"1 - " if higher else ""}{"{}, {}".format(*x.measure.split("/", 1))}'
    for x, higher in zip(
      (read.baselines[first], read.baselines[last]), more, strict=True
    )
  ]

  def lacking(scores):
    """What is wanted little of."""
    pair = scores[first], scores[last]
    return [
      1 - x if higher else x for x, higher in zip(pair, more, strict=True)
    ]

  def plot(ratio, axes):
    cells = [x for x in grid.selected if x.ratio == ratio]
    by_optimizer: dict[str, list[list[float]]] = {}
    for cell in cells:
      rows = by_optimizer.setdefault(cell.optimizer, [])
      rows += [lacking(run.scores) for run in cell.runs.values()]
    plots.pareto_front(
      {name: np.array(rows) for name, rows in by_optimizer.items()},
      names,
      axes=axes,
    )
    axes.grid(visible=True)

  panels = []
  if last > first:
    panels = [
      picture(
        f'ratio {ratio:g}',
        lambda axes, ratio=ratio: plot(ratio, axes),
        ident=f'front{i}-',
        size=(4.2, 3.6),
      )
      for i, ratio in enumerate(grid.ratios)
    ]
  text = (
    'Every run at its selected learning rate, on test data; those on the front '
    'of all are filled.'
  )
  return Section('Pareto fronts', text, [], panels)


def _gap(grid: Grid) -> Section:
  """Gap between the optimizers and spread of the methods, over the ratio."""
  style = {'gap, SGD less Adam': style_of(0), 'spread of methods': style_of(1)}
  panels: list[str] = []
  seeds = grid.seeds()
  if len(grid.methods(*SIDES)) > 1 and seeds:
    measures = (claims.gap, claims.spread)
    values = np.array(
      [
        [[fun(grid, ratio, seed) for seed in seeds] for ratio in grid.ratios]
        for fun in measures
      ]
    )

    def plot(axes):
      for own, look in zip(values, style.values(), strict=True):
        error = None
        if len(seeds) > 1:
          error = own.std(1, ddof=1) / np.sqrt(len(seeds))
        axes.errorbar(
          grid.ratios,
          own.mean(1),
          error,
          color=look.color,
          marker='o',
          markersize=3,
          capsize=2,
        )
      axes.set(xscale='log', xlabel='ratio of the losses', ylabel='Δm %')
      axes.grid(visible=True)

    panels.append(picture('Adam, and SGD with momentum', plot, ident='gap0-'))
  text = 'Mean over seeds; bars are standard errors.'
  return Section('Optimizer against method', text, list(style.items()), panels)


def _shares(grid: Grid) -> Section:
  """Stacked shares of the variance, a picture a set of optimizers."""
  parts = ('optimizer', 'method', 'both together', 'seed')
  style = {name: style_of(i) for i, name in enumerate(parts)}

  def plot(found, axes):
    bottom = np.zeros(len(found))
    for name in parts:
      height = np.array([shares[name] for shares in found.values()])
      axes.bar(
        [f'{ratio:g}' for ratio in found],
        height,
        bottom=bottom,
        color=style[name].color,
        width=0.6,
      )
      bottom += height
    axes.set(
      ylim=(0, 1), xlabel='ratio of the losses', ylabel='share of squares'
    )

  panels = []
  for title, names in (
    ('Adam and SGD', tuple(SIDES)),
    ('Adam, signSGD and SGD', tuple(OPTIMIZERS)),
  ):
    found = {
      ratio: shares
      for ratio in grid.ratios
      if (shares := claims.shares(grid, ratio, names))
    }
    if found:
      panels.append(
        picture(
          title,
          lambda axes, found=found: plot(found, axes),
          ident=f'share{len(panels)}-',
        )
      )
  text = 'What explains the variance of test Δm at the selected learning rates.'
  return Section('Variance of Δm', text, list(style.items()), panels)

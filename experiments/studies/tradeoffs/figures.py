"""The curves, a picture for each pair of tasks, and all three at once."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.report.plots import Section, picture, style_of
from experiments.studies.tradeoffs.claims import GRID, NETWORKS
from mtljax.diagnostics import plots

SIZE = 4.2, 3.2
MOST_TASKS = 4


def sections(
  curves: Mapping[str, Mapping[int, np.ndarray]], tasks: Sequence[str]
) -> list[Section]:
  """The curves of runs, and of one network, beside the grid."""
  if len(tasks) > MOST_TASKS:
    return []
  found = []
  for title, names in (
    ('A run a preference', [x for x in curves if x not in NETWORKS]),
    ('One network', [x for x in curves if x in (GRID, *NETWORKS)]),
  ):
    means = {
      name: np.mean(list(curves[name].values()), axis=0)
      for name in names
      if curves[name]
    }
    if not means:
      continue
    legend = [(name, style_of(i)) for i, name in enumerate(means)]
    panels = [
      _pair(means, pair, tasks, title)
      for pair in itertools.combinations(range(len(tasks)), 2)
    ]
    if len(tasks) == 3:
      panels.append(_space(means, tasks, title))
    text = 'Test losses, means over seeds; lower and further left is better.'
    found.append(Section(title, text, legend, panels))
  return found


def _pair(means, pair, tasks, title):
  a, b = pair

  def plot(axes):
    for i, points in enumerate(means.values()):
      style = style_of(i)
      order = np.argsort(points[:, a], kind='stable')
      axes.plot(
        points[order, a],
        points[order, b],
        color=style.color,
        linestyle=(0, style.dash) if style.dash else 'solid',
        marker='o',
        markersize=3,
      )
    axes.set_xlabel(f'loss of {tasks[a]}')
    axes.set_ylabel(f'loss of {tasks[b]}')

  ident = f'{title.replace(" ", "-").lower()}-{a}-{b}-'
  return picture(f'{title}: {tasks[a]}, {tasks[b]}', plot, ident=ident)


def _space(means, tasks, title):
  ident = f'{title.replace(" ", "-").lower()}-all-'
  return picture(
    f'{title}: all',
    lambda axes: plots.pareto_front_3d(means, tasks, axes=axes),
    ident=ident,
    size=SIZE,
    projection='3d',
  )

"""Where the runs of the toy study went, drawn and moving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.report.plots import Place, Section, picture, style_of
from experiments.studies.toy import problem
from mtljax.diagnostics.plots import COLORS

RATE = 0.1
EDGE = 11.0
# Of a film: its seconds, and how often a position is given in them.
SECONDS, FRAMES = 10, 60


def trajectories(
  config: Mapping[str, Any], points: Mapping[Sequence[str], np.ndarray]
) -> Section:
  """Where the three starts went at one learning rate, a picture a cell."""
  rates = config['learning_rates']
  rate = config['picture_rate']
  if rate is None:
    rate = RATE if RATE in rates else min(rates)
  column = rates.index(rate)
  runs = {
    cell: [run[np.isfinite(run).all(1)] for run in found[column]]
    for cell, found in points.items()
  }
  longest = max(run[-1, 0] for found in runs.values() for run in found)
  side = np.linspace(-EDGE, EDGE, 67)
  grid = np.stack(np.meshgrid(side, side, indexing='ij'), axis=-1)
  every = jax.vmap(jax.vmap(problem.losses))(grid.astype(np.float32))
  heights = np.asarray(every).mean(-1)
  front = problem.pareto_front()

  def plot(cell, axes):
    axes.contour(
      side, side, heights.T, levels=10, colors=COLORS[-1], linewidths=0.5
    )
    axes.plot(*front.T, color=COLORS[3], linewidth=3, solid_capstyle='round')
    axes.plot(*problem.MEAN_OPTIMUM, '*', color=COLORS[4], markersize=9)
    for i, run in enumerate(runs[cell]):
      color = style_of(i).color
      axes.plot(run[:, 1], run[:, 2], color=color, linewidth=1)
      axes.plot(*run[0, 1:], 's', color=color, markersize=5)
      for power in range(1, 6):
        if run[-1, 0] >= 10**power:
          at = last_before(run, 10**power)
          axes.plot(*at, 'o', color=color, markersize=1 + power)
    axes.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), xlabel='x1', ylabel='x2')

  panels = [
    picture(
      ' '.join(filter(None, cell)),
      lambda axes, cell=cell: plot(cell, axes),
      ident=f'toy{i}-',
      size=(3.6, 3.4),
      overlay=lambda place, cell=cell: ''.join(
        mover(run, longest, style_of(i).color, place)
        for i, run in enumerate(runs[cell])
      ),
    )
    for i, cell in enumerate(runs)
  ]
  text = (
    f'Learning rate {rate:g}. Squares are the starts; dots, growing, the '
    'points after 10, 100, 1,000, ... iterations, where the run lasted so '
    'long. Lines of equal mean loss; the thick line is the Pareto front, the '
    'star the minimum of the mean. The rings run along, all by one clock that '
    f'shows the logarithm of the iteration: {longest:,.0f} iterations in '
    f'{SECONDS} s; one that leaves the picture waits at its edge.'
  )
  legend = [
    (f'from ({x:g}, {y:g})', style_of(i))
    for i, (x, y) in enumerate(problem.STARTS)
  ]
  return Section('Trajectories', text, legend, panels)


def last_before(run: np.ndarray, iteration: float) -> np.ndarray:
  """The last point kept of a run in its first iterations."""
  at = np.searchsorted(run[:, 0], iteration, side='right') - 1
  return run[at, 1:]


def mover(run: np.ndarray, longest: float, color: str, place: Place) -> str:
  """A ring that goes along a trajectory for ever, as an SVG element.

  Args:
    run: iteration, x1 and x2 of the points kept, shape ``(N, 3)``.
    longest: the iteration that the film ends with; a run that ends before it
      stays where it is.
    color: of the ring.
    place: from points to places in the picture.
  """
  clock = np.expm1(np.linspace(0, np.log1p(longest), FRAMES))
  # A float's rounding must not miss the iteration that it stands for.
  points = np.stack([last_before(run, x + 1e-6 * (1 + x)) for x in clock])
  places = place(np.clip(points, -EDGE, EDGE))
  moves = ''.join(
    f'<animate attributeName="{name}" dur="{SECONDS}s" '
    f'repeatCount="indefinite" values="{_values(places[:, axis])}"/>'
    for axis, name in enumerate(('cx', 'cy'))
  )
  return (
    f'<circle class="mover" r="4" fill="none" stroke="{color}" '
    f'stroke-width="2">{moves}</circle>'
  )


def _values(places: np.ndarray) -> str:
  return ';'.join(f'{x:.1f}' for x in places)

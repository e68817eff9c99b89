"""Methods on the two-task toy problem as one picture that moves.

  python docs/draw_moving.py moving.svg
  python docs/draw_moving.py moving.svg mean mgda famo

One panel a method, three starts each, all by one clock. What moves is CSS
inside of the SVG: a reader who asked for less motion, and paper, get the
whole trajectories and their ends.
"""

from __future__ import annotations

import io
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence

import draw_toy
import matplotlib as mpl
import numpy as np
from matplotlib import figure
from matplotlib.axes import Axes

from mtljax.diagnostics.plots import COLORS

METHODS = (
  *('mean', 'uncertainty', 'famo', 'graddrop'),
  *('mgda', 'pcgrad', 'cagrad', 'nash_mtl'),
)
COLUMNS = 4
PANEL = 1.9  # inches
SECONDS = 10
#: Places of a trajectory that are drawn and timed, its start included.
FRAMES = 101
REST = 0.1  # share of the film in which all stand at their ends
TIMES = 6  # the film is shown; then all stand at their ends
POINTS_PER_INCH = 72
#: What of the way is left at its end: at 0, the dashes of a dot would begin at
#: the start, and the dot be seen there.
END = 0.002

#: A trail is a dash that grows to the whole path; a dot is a dash of no length
#: with round ends, whose place is where the trail ends.
STYLE = f"""\
.toy-run {{ fill: none; stroke-dashoffset: {END} }}
.toy-run path {{ stroke-linecap: inherit }}
.toy-trail {{ stroke-width: 1.2; stroke-dasharray: 1 1 }}
.toy-dot {{ stroke-width: 6; stroke-linecap: round;
  stroke-dasharray: 0 1 .0001 1.9999 }}
@media screen and (prefers-reduced-motion: no-preference) {{
  .toy-run {{ animation-duration: {SECONDS}s;
    animation-timing-function: steps(2);
    animation-iteration-count: {TIMES} }}
}}
"""


def path_of(places: np.ndarray) -> str:
  """The places as an SVG path, to a tenth of a point."""
  return 'M' + 'L'.join(f'{x:.1f} {y:.1f}' for x, y in places)


def offsets(places: np.ndarray) -> np.ndarray:
  """What of the way is left at each place, from 1 to `END`, as it is drawn."""
  lengths = np.linalg.norm(np.diff(places.round(1), axis=0), axis=1)
  gone = np.concatenate([[0], np.cumsum(lengths)])
  return np.maximum(1 - gone / max(gone[-1], 1e-9), END)


def keyframes(name: str, places: np.ndarray) -> str:
  """CSS that takes a run along its path by the clock of all."""
  left = offsets(places)
  clock = np.linspace(0, 100 * (1 - REST), len(places))
  shown = ''.join(
    f'{at:.4g}%{{stroke-dashoffset:{value:.4f}}}'
    for at, value in zip([*clock, 100], [*left, left[-1]], strict=True)
  )
  return f'@keyframes {name}{{{shown}}}'


def run_of(name: str, places: np.ndarray, color: str) -> str:
  """A trail and the dot at its end, as SVG elements."""
  path = f'<path id="{name}" pathLength="1" d="{path_of(places)}"/>'
  uses = ''.join(
    f'<use class="toy-{part}" href="#{name}"/>' for part in ('trail', 'dot')
  )
  style = f'animation-name:{name}'
  return (
    f'<g class="toy-run" stroke="{color}" style="{style}">'
    f'<defs>{path}</defs>{uses}</g>'
  )


def places_of(axes: Axes, points: np.ndarray) -> np.ndarray:
  """Points of the axes as places in the picture, after it was drawn.

  What leaves the panel waits at its edge.
  """
  kept = np.linspace(0, len(points) - 1, FRAMES).round().astype(int)
  inside = np.clip(points[kept], -draw_toy.EDGE, draw_toy.EDGE)
  pixels = axes.transData.transform(inside) / axes.figure.dpi
  height = axes.figure.get_figheight()
  return POINTS_PER_INCH * (pixels * (1, -1) + (0, height))


def render(trajectories: Mapping[str, np.ndarray]) -> str:
  """The picture, an SVG that stands alone or inside a page.

  Args:
    trajectories: points by method, each ``(3, N, 2)``.

  Returns:
    The text of the SVG.
  """
  rows = -(-len(trajectories) // COLUMNS)
  columns = min(COLUMNS, len(trajectories))
  ground = draw_toy.landscape()
  with mpl.rc_context(draw_toy.STYLE):
    fig = figure.Figure(
      figsize=(PANEL * columns, (PANEL + 0.2) * rows), layout='constrained'
    )
    panels = list(fig.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
      axes.set_axis_off()
    for axes, name in zip(panels, trajectories, strict=False):
      draw_toy.draw_ground(axes, ground, size=0.7)
      axes.set(title=name)
    buffer = io.StringIO()
    fig.savefig(buffer, format='svg', metadata={'Date': None})
  moving, frames = [], []
  for axes, (name, runs) in zip(panels, trajectories.items(), strict=False):
    for i, points in enumerate(runs):
      places, ident = places_of(axes, points), f'toy-{name}-{i}'
      moving.append(run_of(ident, places, COLORS[i]))
      frames.append(keyframes(ident, places))
  said = 'Trajectories on the toy problem: ' + ', '.join(trajectories)
  svg = re.sub(r'(?s)^.*?(?=<svg)', '', buffer.getvalue())
  svg = re.sub(r'(?<= d=")[^"]*', lambda found: _shorten(found[0]), svg)
  svg = re.sub(r'(?s)\s*<metadata>.*?</metadata>|\s*<!--.*?-->', '', svg)
  svg = svg.replace('*{', '.toy-moving *{')  # not of the page around it
  head = f'<svg class="toy-moving" role="img" aria-label="{said}" '
  svg = svg.replace('<svg ', head, 1)
  style = f'<style>\n{STYLE}{chr(10).join(frames)}\n</style>'
  return svg.replace('</svg>', f'{style}{"".join(moving)}</svg>')


def _shorten(path: str) -> str:
  """A tenth of a point is finer than a screen shows."""
  return re.sub(r'\d+\.\d+', lambda found: f'{float(found[0]):.1f}', path)


def main(argv: Sequence[str]) -> None:
  """The command line: the file, and the methods."""
  path, *names = argv
  runs = {x: draw_toy.run(x).points for x in names or METHODS}
  pathlib.Path(path).write_text(render(runs))


if __name__ == '__main__':
  main(sys.argv[1:])

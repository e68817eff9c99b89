"""Curves as small SVG pictures that sit inside the page of the report."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import (
  FuncFormatter,
  LogLocator,
  MaxNLocator,
  NullLocator,
)

from experiments.report import svg
from experiments.report.results import Results, Series
from experiments.report.svg import Curve, Style
from mtljax.diagnostics.plots import COLORS

Series3 = tuple[np.ndarray, np.ndarray, np.ndarray]

#: From points of the axes, shape ``(N, 2)``, to those of the picture.
Place = Callable[[np.ndarray], np.ndarray]

POINTS = 150
MAX_PAIRS = 6
DASHES = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2))
_STYLE = {
  'axes.edgecolor': svg.INK,
  'axes.labelcolor': svg.INK,
  'axes.prop_cycle': mpl.cycler(color=COLORS),
  'axes.spines.right': False,
  'axes.spines.top': False,
  'axes.titlesize': 10,
  'font.family': 'DejaVu Sans',
  'font.size': 9,
  'grid.color': svg.GRID,
  'grid.linewidth': 0.6,
  'lines.linewidth': 1.4,
  'lines.scale_dashes': False,
  'svg.fonttype': 'none',
  'svg.hashsalt': 'mtljax',
  'text.color': svg.INK,
  'xtick.color': svg.INK,
  'ytick.color': svg.INK,
}

#: Lines in a picture above which each is labelled at its end, and above which
#: there is no room for that.
MANY, MOST = 4, 13
LINE_HEIGHT = 0.075  # of a label, in heights of the axes


class Section(NamedTuple):
  """Pictures that share a legend.

  Attributes:
    title: heading.
    text: one sentence on what is shown.
    legend: label and style of each line.
    panels: SVG elements.
  """

  title: str
  text: str
  legend: list[tuple[str, Style]]
  panels: list[str]


def style_of(index: int) -> Style:
  """The look of the n-th line.

  Args:
    index: number of the line, from 0.

  Returns:
    The `Style`; colours repeat with other dashes.
  """
  dash = DASHES[index // len(COLORS) % len(DASHES)]
  return Style(COLORS[index % len(COLORS)], dash)


def average(series: Sequence[Series], points: int = POINTS) -> Series3:
  """Mean and standard error over seeds, in at most ``points`` windows.

  Steps are gathered into windows of consecutive logged steps; a seed's values
  are averaged within a window, then the seeds are. Values that are not finite
  are left out.

  Args:
    series: steps and values of each seed; seeds may end at different steps.
    points: the largest number of windows.

  Returns:
    Steps, means and standard errors (NaN where fewer than two seeds are).
  """
  steps = np.unique(np.concatenate([steps for steps, _ in series]))
  count = min(points, steps.size)
  window = np.arange(steps.size) * count // max(steps.size, 1)
  sums, seen = np.zeros((2, len(series), count))
  for row, (own_steps, values) in enumerate(series):
    kept = np.isfinite(values)
    place = window[np.searchsorted(steps, own_steps[kept])]
    np.add.at(sums[row], place, values[kept])
    np.add.at(seen[row], place, 1)
  there = seen > 0
  means = np.divide(sums, seen, out=np.zeros_like(sums), where=there)
  n = there.sum(0)
  mean = means.sum(0) / np.maximum(n, 1)
  spread = (np.where(there, means - mean, 0) ** 2).sum(0)
  error = np.sqrt(spread / np.maximum(n - 1, 1) / np.maximum(n, 1))
  center = np.bincount(window, steps, count) / np.bincount(
    window, minlength=count
  )
  kept = n > 0
  error = np.where(n > 1, error, np.nan)
  return center[kept], mean[kept], error[kept]


def draw(
  title: str,
  curves: Sequence[Curve],
  *,
  ident: str,
  log: bool = False,
  limits: tuple[float, float] | None = None,
  line: float | None = None,
  xlabel: str = 'step',
) -> str:
  """One picture as an SVG element for inside an HTML page.

  It has no fixed colours of text and axes, no address, no date, and ids that
  begin with ``ident``, so that the same data give the same bytes.

  Args:
    title: shown above, and read aloud.
    curves: the lines.
    ident: a prefix no other picture of the page has.
    log: whether the y axis is logarithmic.
    limits: of the y axis; None fits the data.
    line: height of a thin reference line.
    xlabel: of the x axis.

  Returns:
    The element.
  """
  labelled = MANY < len(curves) <= MOST and any(c.label for c in curves)
  with mpl.rc_context(_STYLE):
    size = (5.6, 3.2) if labelled else (4.2, 2.7)
    figure = Figure(figsize=size, layout='constrained')
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    axes.set_title(_fit(title))
    axes.set_xlabel(xlabel)
    axes.grid(visible=True)
    if line is not None:
      axes.axhline(line, color=svg.INK, linewidth=0.8)
    for i, curve in enumerate(curves):
      dash = (0, curve.style.dash) if curve.style.dash else 'solid'
      axes.plot(
        curve.steps,
        curve.mean,
        color=curve.style.color,
        linestyle=dash,
        marker='o' if np.isfinite(curve.mean).sum() == 1 else '',
        markersize=4,
        gid=f'line{i}',
      )
      if np.isfinite(curve.error).any():
        axes.fill_between(
          curve.steps,
          curve.mean - curve.error,
          curve.mean + curve.error,
          color=curve.style.color,
          alpha=0.18,
          linewidth=0,
          gid=f'band{i}',
        )
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f'{v:g}'))
    steps = {float(x) for curve in curves for x in curve.steps}
    if len(steps) == 1:
      axes.set_xticks(list(steps))
    if log:
      _set_log(axes, curves)
    if limits is not None:
      axes.set_ylim(*limits)
    if labelled:
      _label_ends(axes, curves)
    return svg.with_data(
      svg.embed(figure, title, ident), curves, ident, svg.places(axes, xlabel)
    )


def _label_ends(axes: Any, curves: Sequence[Curve]) -> None:
  """Writes the label of each line beside its end, none over another."""
  ends = []
  for i, curve in enumerate(curves):
    there = np.flatnonzero(np.isfinite(curve.mean))
    if curve.label and there.size:
      x, y = curve.steps[there[-1]], curve.mean[there[-1]]
      place = axes.transAxes.inverted().transform(
        axes.transData.transform((x, y))
      )
      ends.append((float(np.clip(place[1], 0, 1)), (x, y), i))
  ends.sort(key=lambda end: end[0])
  heights = spread([height for height, _, _ in ends], LINE_HEIGHT)
  for height, (_, point, i) in zip(heights, ends, strict=True):
    curve = curves[i]
    label = axes.annotate(
      curve.label.replace('$', r'\$'),
      point,
      xytext=(1.03, height),
      textcoords='axes fraction',
      color=curve.style.color,
      fontsize=7,
      va='center',
      annotation_clip=False,
      gid=f'label{i}',
      arrowprops={'arrowstyle': '-', 'lw': 0.5, 'color': curve.style.color},
    )
    label.arrow_patch.set_gid(f'arrow{i}')


def spread(heights: Sequence[float], apart: float) -> list[float]:
  """Heights as near the given ones as they can be, so far apart.

  Args:
    heights: ascending, in [0, 1].
    apart: the least distance of neighbours.

  Returns:
    Ascending heights; the middle of all stays, as far as [0, 1] has room.
  """
  found = np.array(heights, float)
  for _ in range(100):
    gap = np.diff(found) - apart
    short = np.minimum(gap, 0)
    if not short.any():
      break
    found[:-1] += short / 2
    found[1:] -= short / 2
  if found.size:
    found += max(0, -found[0])
    found -= max(0, min(found[-1] - 1, found[0]))
  return found.tolist()


def _fit(title: str) -> str:
  """A title in lines that fit a picture, without mathematics."""
  lines = textwrap.wrap(
    title, 46, break_long_words=False, break_on_hyphens=False
  )
  return '\n'.join(lines).replace('$', r'\$')


def picture(
  title: str,
  plot: Callable[[Any], object],
  *,
  ident: str,
  size: tuple[float, float] = (4.2, 2.7),
  projection: str | None = None,
  overlay: Callable[[Place], str] | None = None,
) -> str:
  """Any one plot as an SVG element for inside an HTML page, as `draw` makes.

  Args:
    title: shown above, and read aloud.
    plot: draws on the axes that it is called with.
    ident: a prefix no other picture of the page has.
    size: width and height in inches.
    projection: of the axes, ``'3d'`` for three dimensions.
    overlay: elements that are drawn over the plot, what moves for example, from
      a function that places points of the axes in the picture.

  Returns:
    The element.
  """
  with mpl.rc_context(_STYLE):
    figure = Figure(figsize=size, layout='constrained')
    FigureCanvasSVG(figure)
    axes = figure.add_subplot(projection=projection)
    plot(axes)
    axes.set_title(_fit(title))
    element = svg.embed(figure, title, ident)
    if overlay is None:
      return element

    def place(points: np.ndarray) -> np.ndarray:
      inches = axes.transData.transform(points) / figure.dpi
      return svg.POINTS_PER_INCH * (inches * (1, -1) + (0, size[1]))

    return element.removesuffix('</svg>') + overlay(place) + '</svg>'


def sections(results: Results, summary: dict[str, Any]) -> list[Section]:
  """All pictures of the report.

  Args:
    results: what the experiment wrote.
    summary: its summary.

  Returns:
    Training loss, validation metric, gradient cosines and task weights, each
    where there is something to show.
  """
  gathered = _gather(results)
  methods = [method for method in results.methods if method in gathered]
  style = {method: style_of(i) for i, method in enumerate(methods)}
  several = [m for m in methods if not summary['methods'][m]['single_task']]
  kinds = {metric['kind'] for metric in summary['metrics']} - {'loss'}
  kind = min(kinds, default='loss')

  def by_method(
    name: str, title: str, text: str, keys: list[tuple[str, str]], **options
  ) -> Section | None:
    panels, used = [], {}
    for key, heading in keys:
      own = [m for m in methods if key in gathered[m]]
      curves = [Curve(style[m], *gathered[m][key], m) for m in own]
      if curves:
        used.update(dict.fromkeys(own))
        ident = f'{name}{len(panels)}-'
        panels.append(draw(heading, curves, ident=ident, **options))
    legend = [(m, style[m]) for m in methods if m in used]
    return Section(title, text, legend, panels) if panels else None

  band = 'Mean over seeds; the band is one standard error.'
  found = [
    by_method(
      'loss',
      'Training loss',
      f'{band} Averaged within windows of steps.',
      [(f'train/loss/{task}', f'loss {task}') for task in results.tasks],
      log=True,
    ),
    by_method(
      'validation',
      f'Validation {kind}',
      band,
      [
        (f'validation/{kind}/{task}', f'{kind} {task}')
        for task in results.tasks
      ],
    ),
    by_method(
      'cosine',
      'Cosine between task gradients',
      f'{band} Below zero the tasks conflict.',
      _cosine_keys(gathered, several),
      limits=(-1.05, 1.05),
      line=0.0,
    ),
    _weights(gathered, several, results.tasks, band),
  ]
  return [section for section in found if section]


def _gather(results: Results) -> dict[str, dict[str, Series3]]:
  """Averaged curves by method and name."""
  series: dict[str, dict[str, list[Series]]] = {}
  for run in results.runs:
    curves = {n: c for n, c in run.curves.items() if np.isfinite(c[1]).any()}
    # Measured at evaluations, for every method alike; else by the methods that
    # compute it anyway, while training.
    for part in ('train', 'validation'):
      pairs = [c for n, c in curves.items() if n.startswith(f'{part}/cosine/')]
      if len(pairs) > MAX_PAIRS:
        curves[f'{part}/cosine'] = _mean_of(pairs)
    for name, curve in curves.items():
      series.setdefault(run.method, {}).setdefault(name, []).append(curve)
  return {
    method: {name: average(seeds) for name, seeds in curves.items()}
    for method, curves in series.items()
  }


def _mean_of(series: Sequence[Series]) -> Series:
  """The mean of several curves of one run."""
  steps, mean, _ = average(series, points=10**9)
  return steps, mean


def _cosine_keys(
  gathered: dict[str, dict[str, Series3]], methods: list[str]
) -> list[tuple[str, str]]:
  found = dict.fromkeys(name for m in methods for name in gathered[m])
  for part in ('validation', 'train'):
    if f'{part}/cosine' in found:
      return [(f'{part}/cosine', 'mean over all pairs')]
    names = [name for name in found if name.startswith(f'{part}/cosine/')]
    if names:
      return [(n, n.rpartition('/')[2].replace(',', ', ')) for n in names]
  return []


def _weights(
  gathered: dict[str, dict[str, Series3]],
  methods: list[str],
  tasks: list[str],
  band: str,
) -> Section | None:
  style = {task: style_of(i) for i, task in enumerate(tasks)}
  panels = []
  for method in methods:
    curves = [
      Curve(style[task], *gathered[method][f'train/weight/{task}'], task)
      for task in tasks
      if f'train/weight/{task}' in gathered[method]
    ]
    if curves:
      panels.append(draw(method, curves, ident=f'weight{len(panels)}-'))
  if not panels:
    return None
  text = f'{band} How the weights are normalised differs between methods.'
  return Section('Task weights', text, list(style.items()), panels)


def _set_log(axes: Any, curves: Sequence[Curve]) -> None:
  """A logarithmic y axis where the values call for one."""
  values = np.concatenate([curve.mean for curve in curves])
  if values.min() <= 0 or values.max() < 5 * values.min():
    return
  axes.set_yscale('log', nonpositive='clip')
  axes.set_ylim(values.min() / 1.1, values.max() * 1.1)
  axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
  axes.yaxis.set_minor_locator(NullLocator())
  axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f'{v:g}'))

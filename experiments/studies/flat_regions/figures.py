"""The pictures of the study: conflict, radii, surfaces, calibration."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.report import files
from experiments.report.plots import (
  Curve,
  Section,
  average,
  draw,
  picture,
  style_of,
)
from experiments.report.results import Results, Run
from experiments.studies.flat_regions.rows import Rows, score
from mtljax.diagnostics import plots

FORMS = {'plain': 'A', 'flat': 'F-A', 'sam': 'G-SAM + A'}
SQUARE = (3.6, 3.4)


def sections(
  directory: pathlib.Path, results: Results, rows: Rows
) -> list[Section]:
  """All pictures for which there are data.

  Args:
    directory: the study's folder.
    results: what `read_results` found there.
    rows: the finished rows.

  Returns:
    Curves of the conflict rate and of the gradients' lengths, the sweep of
    radii, loss surfaces, reliability diagrams and histograms of the entropy.
  """
  bases = rows.bases('main', 'plain')
  shown = 'cagrad' if 'cagrad' in bases else next(iter(bases), '')
  found = [
    _curves(
      results,
      rows,
      'conflict/' + ','.join(results.tasks),
      'Conflict rate',
      'Share of fixed training batches in which the loss gradients have a '
      'negative product, after each epoch. Mean over seeds; the band is one '
      'standard error.',
      limits=(0.0, 1.0),
    ),
    _curves(
      results,
      rows,
      f'grad_norm/{results.tasks[0]}',
      f'Length of the gradient of {results.tasks[0]}',
      'On the shared parameters, over the same batches.',
      log=True,
    ),
    _sweep(rows),
    _surfaces(directory, rows, shown),
    _reliability(directory, results, rows, shown),
    _entropy(directory, results, rows, shown),
  ]
  return [section for section in found if section]


def _names(rows: Rows, base: str) -> dict[str, str]:
  """Cell names of the main forms of a method, by form."""
  return {
    form: next(iter(cell.values()))['method']
    for form in FORMS
    if (cell := rows.seeds('main', base, form))
  }


def _curves(
  results: Results,
  rows: Rows,
  metric: str,
  title: str,
  text: str,
  **options: Any,
) -> Section | None:
  runs: dict[str, list[Run]] = {}
  for run in results.runs:
    runs.setdefault(run.method, []).append(run)
  panels, key = [], f'validation/{metric}'
  style = {form: style_of(i) for i, form in enumerate(FORMS)}
  for base in rows.bases('main', 'plain'):
    curves = []
    for form, name in _names(rows, base).items():
      series = [run.curves[key] for run in runs[name] if key in run.curves]
      if series:
        curves.append(Curve(style[form], *average(series)))
    if curves:
      ident = f'{metric.partition("/")[0]}{len(panels)}-'
      panels.append(draw(base, curves, ident=ident, **options))
  legend = [(FORMS[form], style[form]) for form in FORMS]
  return Section(title, text, legend, panels) if panels else None


def _sweep(rows: Rows) -> Section | None:
  panels = []
  ascents = ('plain', 'adaptive')
  style = {ascent: style_of(i) for i, ascent in enumerate(ascents)}
  controls = {'plain': style_of(2), '2x': style_of(3)}
  for base in dict.fromkeys(key[1] for key in rows.found if key[0] == 'sweep'):

    def plot(axes: Any, base: str = base) -> None:
      for ascent in ascents:
        radii = sorted(rows.radii(base, ascent))
        cells = [
          _scores(rows, 'sweep', base, 'flat', ascent=ascent, rho=rho)
          for rho in radii
        ]
        positive = [(r, c) for r, c in zip(radii, cells, strict=True) if r > 0]
        axes.errorbar(
          [r for r, _ in positive],
          [c.mean() for _, c in positive],
          [_error(c) for _, c in positive],
          color=style[ascent].color,
          capsize=2,
        )
      for form, look in controls.items():
        values = _scores(rows, 'main', base, form)
        if values.size:
          axes.axhline(
            values.mean(),
            color=look.color,
            linewidth=0.9,
            linestyle='dashed',
          )
      axes.set(
        xscale='log', xlabel='radius', ylabel=f'test {rows.metric_name} %'
      )
      axes.grid(visible=True)

    panels.append(picture(base, plot, ident=f'sweep{len(panels)}-'))
  if not panels:
    return None
  legend = [*style.items(), ('A', controls['plain']), ('A, 2x', controls['2x'])]
  return Section(
    'Radii',
    f'Test {rows.metric_name} of F-A by radius, mean over tasks and seeds ± '
    'standard error; dashed: A and A for twice the epochs.',
    legend,
    panels,
  )


def _scores(rows: Rows, *cell: str, **where: Any) -> np.ndarray:
  found = rows.seeds(*cell, **where).values()
  return np.array([score(row, rows.metric) for row in found])


def _error(values: np.ndarray) -> float:
  if values.size < 2:
    return 0.0
  return float(values.std(ddof=1) / np.sqrt(values.size))


def _artifacts(
  directory: pathlib.Path, rows: Rows, base: str
) -> dict[str, list[Mapping[str, np.ndarray]]]:
  """The arrays kept of a method's main forms, by form, in order of seeds."""
  found: dict[str, list[Mapping[str, np.ndarray]]] = {}
  for form, name in _names(rows, base).items():
    for seed in sorted(rows.seeds('main', base, form)):
      path = directory / 'runs' / name / f'seed_{seed}' / files.ARTIFACTS
      # What is damaged is named among the notes on the runs.
      with contextlib.suppress(OSError, ValueError):
        arrays = files.read_arrays(path, name=f'{name}/{seed}')
        found.setdefault(form, []).append(arrays)
  return found


def _surfaces(directory: pathlib.Path, rows: Rows, base: str) -> Section | None:
  panels = []
  for form, kept in _artifacts(directory, rows, base).items():
    if 'surface' not in kept[0]:
      continue
    axis, losses = kept[0]['surface_axis'], kept[0]['surface']

    def plot(axes: Any, axis=axis, losses=losses) -> None:
      plots.loss_contour(axis, axis, losses, axes=axes)

    ident = f'surface{len(panels)}-'
    panels.append(picture(FORMS[form], plot, ident=ident, size=SQUARE))
  text = (
    f'{base}, one seed: mean training loss on a plane of two filter-normalised '
    'directions through the selected state, the same draws for every form.'
  )
  return Section('Loss surfaces', text, [], panels) if panels else None


def _reliability(
  directory: pathlib.Path, results: Results, rows: Rows, base: str
) -> Section | None:
  panels = []
  artifacts = _artifacts(directory, rows, base)
  for task in results.tasks:
    for form, kept in artifacts.items():
      count = sum(x[f'count/{task}'] for x in kept)
      confidence, accuracy = (
        _weighted(kept, f'{name}/{task}', f'count/{task}')
        for name in ('confidence', 'accuracy')
      )

      def plot(axes: Any, bins=(confidence, accuracy, count)) -> None:
        plots.reliability_diagram(bins, axes=axes)

      title = f'{FORMS[form]}, {task}'
      ident = f'reliability{len(panels)}-'
      panels.append(picture(title, plot, ident=ident, size=SQUARE))
  text = f'{base}, all seeds together: accuracy by confidence on test.'
  return Section('Calibration', text, [], panels) if panels else None


def _weighted(
  kept: Sequence[Mapping[str, np.ndarray]], name: str, count: str
) -> np.ndarray:
  """Means over seeds of bins, by how many examples each has there."""
  total = sum(np.nan_to_num(x[name]) * x[count] for x in kept)
  return total / np.maximum(sum(x[count] for x in kept), 1)


def _entropy(
  directory: pathlib.Path, results: Results, rows: Rows, base: str
) -> Section | None:
  panels = []
  artifacts = _artifacts(directory, rows, base)
  for task in results.tasks:
    for form, kept in artifacts.items():
      edges = kept[0]['entropy_edges']
      histograms = {}
      for label, name in (('test', 'test'), ('out of data', 'other')):
        count = sum(x[f'entropy_{name}/{task}'] for x in kept)
        density = count / np.maximum(count.sum(), 1) / np.diff(edges)
        histograms[label] = (edges, density)

      def plot(axes: Any, histograms=histograms) -> None:
        plots.entropy_histogram(histograms, axes=axes)

      title = f'{FORMS[form]}, {task}'
      panels.append(picture(title, plot, ident=f'entropy{len(panels)}-'))
  text = (
    f'{base}, all seeds together: entropy of the predictions on test and on '
    'pairs that the network was not trained for.'
  )
  return Section('Predictive entropy', text, [], panels) if panels else None

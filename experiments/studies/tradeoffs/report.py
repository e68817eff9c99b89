"""The report of the study of trade-offs: curves, volumes, verdicts."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rich.console

import mtljax as mtl
from experiments.report import verdicts as verdicts_
from experiments.report.results import Results, Run, read_results
from experiments.report.tables import Column, columns_of
from experiments.studies.tradeoffs import figures
from experiments.studies.tradeoffs.claims import (
  CURVES,
  GRID,
  NAME,
  NETWORKS,
  claims,
  ends_of,
  follows,
  gains,
  normalize,
  volumes,
)
from mtljax.diagnostics import r2


def write_report(directory: pathlib.Path) -> dict[str, Any]:
  """Writes ``summary.json`` and ``report.html`` of the study.

  Args:
    directory: folder that the study wrote; it need not be finished.

  Returns:
    The content of ``summary.json``: ``curves`` (a row a curve: hypervolume, its
    difference from the grid's, R2, the rank correlation with the preferences
    and the time to train, each with its interval), ``verdicts``, ``failures``
    and ``notes``.

  Raises:
    ReportError: the folder holds no results.
  """
  results = read_results(directory)
  config = results.config
  grid = np.asarray(config['grid'], float)
  rays = np.asarray(mtl.pareto.ray(grid))
  found = read_curves(results, len(grid))
  rows = _rows(results, found, rays)
  summary = {
    'experiment': NAME,
    'preset': config['preset'],
    'suite': config['suite'],
    'tasks': results.tasks,
    'curves': rows,
    'failures': results.failures,
    'notes': results.notes,
  }
  return verdicts_.write_claims(
    directory,
    summary,
    claims(found, rays, config['min_seeds']),
    title='curves of trade-offs',
    lead=f'{results.finished} Preset: {config["preset"]}.',
    how=_how(config, len(grid)),
    tables=[
      {
        'title': f'Curves on {config["suite"]}',
        'text': 'Hypervolume (more is better) and R2 (less is better) of test '
        "losses in units of the grid's, the rank correlation of the losses "
        'with what was asked for, and seconds to train all points; means over '
        'seeds with intervals of 95 %.',
        'columns': _columns(rows),
      }
    ],
    sections=figures.sections(found, results.tasks),
    config=config,
  )


def read_curves(
  results: Results, size: int
) -> dict[str, dict[int, np.ndarray]]:
  """Test losses by curve and seed, shape ``(K, T)``; only whole curves.

  Args:
    results: the runs.
    size: K.
  """
  parts: dict[str, dict[int, dict[int, list[float]]]] = {}
  for run in results.runs:
    if run.problem:
      continue
    curve = run.method.partition('.')[0]
    points = parts.setdefault(curve, {}).setdefault(int(run.seed), {})
    points.update(_points(run, results.tasks, size))
  return {
    curve: {
      seed: np.array([points[k] for k in range(size)])
      for seed, points in sorted(seeds.items())
      if len(points) == size
    }
    for curve in CURVES
    if (seeds := parts.get(curve))
  }


def _points(
  run: Run, tasks: Sequence[str], size: int
) -> dict[int, list[float]]:
  """The losses of a run by the number of the preference."""
  curve, _, place = run.method.partition('.')
  if curve in NETWORKS:
    ends = {k: f'@{k}' for k in range(size)}
  else:
    ends = {int(place): ''}
  found = {
    k: [run.values.get(f'test/loss/{task}{end}') for task in tasks]
    for k, end in ends.items()
  }
  return {
    k: [float(x) for x in losses if x is not None]
    for k, losses in found.items()
    if all(x is not None and np.isfinite(x) for x in losses)
  }


def _seconds(results: Results, curve: str) -> dict[int, float]:
  """Of each seed, the time to train all points of a curve."""
  found: dict[int, float] = {}
  for run in results.runs:
    if run.method.partition('.')[0] == curve and not run.problem:
      seconds = run.values.get('wall_time')
      if seconds is not None:
        seed = int(run.seed)
        found[seed] = found.get(seed, 0.0) + float(seconds)
  return found


def _rows(
  results: Results,
  found: Mapping[str, Mapping[int, np.ndarray]],
  rays: np.ndarray,
) -> list[dict[str, Any]]:
  volume, ends = volumes(found), ends_of(found)
  rows = []
  for curve, seeds in found.items():
    numbers: dict[str, Mapping[int, float]] = {
      'hypervolume': volume.get(curve, {}),
      'gain': {} if curve == GRID else gains(volume, curve),
      'r2': {},
      'follows': {seed: follows(x, rays) for seed, x in seeds.items()},
      'seconds': _seconds(results, curve),
    }
    if ends is not None:
      ideal = normalize(_ideal(found), ends)
      parts = None if rays.shape[1] == 2 else 20
      numbers['r2'] = {
        seed: r2(normalize(x, ends), ideal, parts=parts)
        for seed, x in seeds.items()
      }
    rows.append(
      {'curve': curve}
      | {
        name: verdicts_.plain_values(x.values()) for name, x in numbers.items()
      }
    )
  return rows


def _ideal(found: Mapping[str, Mapping[int, np.ndarray]]) -> np.ndarray:
  """Losses of 0, or the least of each task where some are below."""
  points = [x for seeds in found.values() for x in seeds.values()]
  return np.minimum(np.concatenate(points).min(0), 0)


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
  def text(found, form):
    if found is None:
      return '-'
    mean = form.format(found['mean'])
    if found['low'] is None:
      return mean
    low, high = (form.format(found[x]) for x in ('low', 'high'))
    return f'{mean} [{low}, {high}]'

  forms = {
    'hypervolume': '{:.3f}',
    'gain': '{:+.3f}',
    'r2': '{:.3f}',
    'follows': '{:.2f}',
    'seconds': '{:.0f}',
  }
  names = ('curve', 'hypervolume', 'less the grid', 'R2', 'follows', 'seconds')
  return columns_of(
    names,
    [
      (x['curve'], *(text(x[name], form) for name, form in forms.items()))
      for x in rows
    ],
  )


def _how(config: Mapping[str, Any], size: int) -> list[str]:
  """How the numbers are to be read, in sentences."""
  return [
    f'{size} preferences. A run of the grid takes {config["steps"]} steps of '
    'one backward pass; methods on the Gramian, T + 1 passes a step, take so '
    'many fewer; one network that reads the preference takes as many steps as '
    'all runs of the grid. So a curve costs the same number of backward '
    'passes, whatever draws it; forward passes and solvers are not counted.',
    'Points are test losses of the last state; no state, learning rate or '
    'number of a method is selected, and each method has the defaults of its '
    "paper. Losses are measured in units of the grid's range over all seeds, "
    'and the hypervolume is taken up to 1.1 of it; the ideal of R2 is a loss '
    'of 0.',
    'A preference p weights the losses of the grid; the methods that take the '
    'place of the losses instead get its ray, the place where all p L are '
    'equal. That is another point of the curve than the grid ends at: '
    'volumes compare what is covered, and the rank correlation whether a '
    'preference says where.',
    "Intervals of the claims are the wider of bootstrap and Student's t over "
    'seeds, at the level of Bonferroni for all numbers that the three claims '
    'compare; those of the table are of 95 % each.',
  ]


def print_tables(
  summary: Mapping[str, Any], console: rich.console.Console
) -> None:
  """Prints the curves' scores, and the verdicts."""
  title = f'curves on {summary["suite"]}'
  verdicts_.print_columns(title, _columns(summary['curves']), console)
  verdicts_.print_verdicts(summary['verdicts'], console)

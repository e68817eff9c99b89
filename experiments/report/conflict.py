"""What ``--diagnose conflict`` left of the runs of an experiment, drawn."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.report.plots import (
  Curve,
  Section,
  Style,
  average,
  draw,
  style_of,
)
from experiments.report.results import PROBE, Results, Series
from mtljax import diagnostics
from mtljax.training.disk import _json

#: Kinds of pairs, and what is measured of each.
KINDS = diagnostics.GradientConflict._fields
MEASURES = diagnostics.PairConflict._fields

HEADINGS = {
  'cosine': 'Cosine',
  'magnitude': 'Magnitude similarity',
  'sign_ratio': 'Share of coordinates of opposite sign',
  'product': 'Scalar product',
}
TITLES = {
  'tasks': 'tasks on a sample',
  'samples': 'samples in a task',
  'mean_tasks': 'tasks on the batch',
  'mean_samples': 'samples, mean over tasks',
}


class Stats(NamedTuple):
  """Of all pairs of an epoch: mean, deviation, percentiles, their number."""

  mean: float
  sd: float
  low: float
  high: float
  n: int


#: By ``kind/measure``, then epoch: values of all pairs.
Pairs = dict[str, dict[int, np.ndarray]]


def stats(values: np.ndarray) -> Stats:
  """Mean, standard deviation and the percentiles 2.5 and 97.5."""
  low, high = np.percentile(values, [2.5, 97.5])
  return Stats(
    float(values.mean()),
    float(values.std()),
    float(low),
    float(high),
    values.size,
  )


def read_pairs(path: pathlib.Path) -> Pairs:
  """What a run measured; values that are not finite are left out.

  Raises:
    ValueError: a line is not what a run wrote.
  """
  found: dict[str, dict[int, list[np.ndarray]]] = {}
  lines = path.read_bytes().splitlines()
  for number, line in enumerate(lines, start=1):
    try:
      record = _json.loads(line)
      epoch = math.ceil(record['epoch'])
      arrays = {
        f'{kind}/{measure}': np.asarray(
          record[f'{kind}/{measure}'], np.float64
        ).ravel()
        for kind in KINDS
        for measure in MEASURES
      }
    except (ValueError, KeyError, TypeError, OverflowError) as error:
      raise ValueError(f'line {number} is damaged') from error
    for name, values in arrays.items():
      found.setdefault(name, {}).setdefault(epoch, []).append(
        values[np.isfinite(values)]
      )
  joined = {
    name: {epoch: np.concatenate(x) for epoch, x in by_epoch.items()}
    for name, by_epoch in found.items()
  }
  return {
    name: {epoch: x for epoch, x in by_epoch.items() if x.size}
    for name, by_epoch in joined.items()
  }


class SettingPairs(NamedTuple):
  """The finished runs of a network on a data set, by seed."""

  name: str
  runs: dict[int, Pairs]

  def values(self, seed: int, name: str) -> np.ndarray:
    """All pairs of a run."""
    return np.concatenate(list(self.runs[seed][name].values()))

  @property
  def source(self) -> str:
    """The data set."""
    return self.name.rpartition('.')[0]

  def per_epoch(self, name: str, sign: int = 0) -> dict[int, Stats]:
    """Over the pairs of all seeds, or over those of one sign, 1 or -1."""
    found = {}
    for epoch in sorted({e for run in self.runs.values() for e in run[name]}):
      values = np.concatenate(
        [run[name][epoch] for run in self.runs.values() if epoch in run[name]]
      )
      if sign:
        values = values[np.sign(values) == sign]
      if values.size:
        found[epoch] = stats(values)
    return found


def read_settings(
  directory: pathlib.Path, results: Results
) -> list[SettingPairs]:
  """The finished runs that measured conflict, by method.

  One whose measurements are damaged is left out, and ``results.notes`` says so.
  """
  settings: dict[str, SettingPairs] = {}
  for run in results.runs:
    if run.problem or PROBE in run.damaged:
      continue
    path = run.probe(directory)
    if not path.is_file():
      continue
    try:
      pairs = read_pairs(path)
    except (OSError, ValueError) as error:
      results.notes.append(
        f'{path.relative_to(directory)} was left out: {error}.'
      )
      continue
    setting = settings.setdefault(run.method, SettingPairs(run.method, {}))
    setting.runs[int(run.seed)] = pairs
  return list(settings.values())


def sections(settings: Sequence[SettingPairs]) -> list[Section]:
  """Each measure over the epochs, then the cosines by sign."""
  tasks, samples = style_of(0), style_of(1)
  whole = [
    _section(
      settings,
      measure,
      heading,
      'Mean over the pairs of an epoch, of all seeds; the band is one standard '
      'deviation. Averaged: tasks on the whole batch, and samples of the mean '
      'over tasks.',
      [('tasks', tasks, 0), ('samples', samples, 0)],
    )
    for measure, heading in HEADINGS.items()
  ]
  dashed = [Style(style.color, (5, 2)) for style in (tasks, samples)]
  by_sign = _section(
    settings,
    'cosine',
    'Cosine, positive and negative pairs apart',
    'As above, over the pairs of one sign.',
    [
      ('tasks, positive', tasks, 1),
      ('samples, positive', samples, 1),
      ('tasks, negative', dashed[0], -1),
      ('samples, negative', dashed[1], -1),
    ],
  )
  return [section for section in (*whole, by_sign) if section.panels]


def _section(
  settings: Sequence[SettingPairs],
  measure: str,
  heading: str,
  text: str,
  lines: Sequence[tuple[str, Style, int]],
) -> Section:
  """Panels of the single pairs and of the averaged ones of each setting.

  ``lines`` are a label that begins with the kind of pairs, a style, and the
  sign of the pairs taken, 0 for all.
  """
  panels = []
  for setting in settings:
    for prefix, title in (
      ('', setting.name),
      ('mean_', f'{setting.name}, averaged'),
    ):
      curves = []
      for label, style, sign in lines:
        kind = f'{prefix}{label.partition(",")[0]}'
        found = setting.per_epoch(f'{kind}/{measure}', sign)
        if found:
          epochs, mean, sd = np.array(
            [(e, x.mean, x.sd) for e, x in found.items()]
          ).T
          curves.append(Curve(style, epochs, mean, sd))
      if curves:
        ident = f'{measure}{len(lines)}{len(panels)}-'
        panels.append(draw(title, curves, ident=ident, xlabel='epoch'))
  legend = [(label, style) for label, style, _ in lines]
  return Section(heading, text, legend, panels)


def comparison(settings: Sequence[SettingPairs]) -> list[Section]:
  """The measures of methods that were trained side by side, if any was."""
  style = {x.name: style_of(i) for i, x in enumerate(settings)}
  panels = []
  for measure, heading in HEADINGS.items():
    for kind in ('tasks', 'samples'):
      name = f'{kind}/{measure}'
      curves = [
        Curve(style[x.name], *average(found), x.name)
        for x in settings
        if (
          found := [_means(run, name) for run in x.runs.values() if run[name]]
        )
      ]
      if curves:
        title = f'{heading}, {TITLES[kind]}'
        ident = f'conflict{len(panels)}-'
        panels.append(draw(title, curves, ident=ident, xlabel='epoch'))
  text = (
    'Of gradients on the shared parameters, mean over the pairs of an epoch '
    'and over seeds; the band is one standard error over seeds.'
  )
  title = 'Conflict between tasks and between samples'
  return [Section(title, text, list(style.items()), panels)] if panels else []


def _means(run: Pairs, name: str) -> Series:
  """The mean over the pairs of each epoch."""
  return (
    np.array(list(run[name])),
    np.array([values.mean() for values in run[name].values()]),
  )

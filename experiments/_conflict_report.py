"""The report of the study of conflict: verdicts, tables, pictures."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import rich.console
import rich.text

from experiments import _verdicts
from experiments._conflict import KINDS, MEASURES
from experiments._plots import Curve, Section, draw, style_of
from experiments._results import PROBE, read_results
from experiments._table import Cell, Column

NAME = 'conflict_study'
# How much the ratio of magnitude similarities may move over the training.
DRIFT = 0.1
TITLES = {
  'tasks': 'tasks on a sample',
  'samples': 'samples in a task',
  'mean_tasks': 'tasks on the batch',
  'mean_samples': 'samples, mean over tasks',
}
HEADINGS = {
  'cosine': 'Cosine',
  'magnitude': 'Magnitude similarity',
  'sign_ratio': 'Share of coordinates of opposite sign',
  'product': 'Scalar product',
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
  """What a run measured; values that are not finite are left out."""
  found: dict[str, dict[int, list[np.ndarray]]] = {}
  for line in path.read_text(encoding='utf-8').splitlines():
    record = json.loads(line)
    epoch = math.ceil(record['epoch'])
    for kind in KINDS:
      for measure in MEASURES:
        name = f'{kind}/{measure}'
        values = np.asarray(record[name], np.float64).ravel()
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


class Setting(NamedTuple):
  """The finished runs of a network on a data set, by seed."""

  name: str
  runs: dict[int, Pairs]

  def values(self, seed: int, name: str) -> np.ndarray:
    """All pairs of a run."""
    return np.concatenate(list(self.runs[seed][name].values()))

  def per_epoch(self, name: str) -> dict[int, Stats]:
    """Over the pairs of all seeds."""
    epochs = sorted({e for run in self.runs.values() for e in run[name]})
    return {
      epoch: stats(
        np.concatenate(
          [run[name][epoch] for run in self.runs.values() if epoch in run[name]]
        )
      )
      for epoch in epochs
    }


def inside(setting: Setting, seed: int) -> float:
  """Share of tasks' cosines within the middle 95 % of the samples'."""
  tasks = setting.values(seed, 'tasks/cosine')
  found = stats(setting.values(seed, 'samples/cosine'))
  return float(np.mean((tasks >= found.low) & (tasks <= found.high)))


def lower_by(setting: Setting, seed: int) -> float:
  """Mean cosine of tasks less that of samples, in deviations of samples."""
  tasks = setting.values(seed, 'tasks/cosine')
  samples = setting.values(seed, 'samples/cosine')
  return float((tasks.mean() - samples.mean()) / samples.std())


def magnitude_gap(setting: Setting, seed: int) -> float:
  """Mean magnitude similarity of tasks less that of samples."""
  return float(
    setting.values(seed, 'tasks/magnitude').mean()
    - setting.values(seed, 'samples/magnitude').mean()
  )


def magnitude_drift(setting: Setting, seed: int) -> float | None:
  """How far the line through the epochs' ratios of both means rises."""
  run = setting.runs[seed]
  tasks, samples = run['tasks/magnitude'], run['samples/magnitude']
  epochs = sorted(tasks.keys() & samples.keys())
  if len(epochs) < 2:
    return None
  ratios = [tasks[e].mean() / samples[e].mean() for e in epochs]
  slope = np.polyfit(epochs, ratios, 1)[0]
  return float(slope * (epochs[-1] - epochs[0]))


def spread_ratio(
  heads: Setting, shared: Setting, seed: int, kind: str
) -> float:
  """Logarithm of the variance of cosines with larger heads by that without."""
  name = f'{kind}/cosine'
  return float(
    np.log(heads.values(seed, name).var() / shared.values(seed, name).var())
  )


def claims(settings: list[Setting], min_seeds: int) -> list[_verdicts.Verdict]:
  """The verdicts on E7, E8 and E9."""
  return [
    _angle(settings, min_seeds),
    _magnitude(settings, min_seeds),
    _heads(settings, min_seeds),
  ]


def _angle(settings: list[Setting], min_seeds: int) -> _verdicts.Verdict:
  seeds = _common(settings)
  measured = _verdicts.measure(
    'cosine of tasks less that of samples, in deviations of samples, mean over '
    'settings',
    {s: float(np.mean([lower_by(x, s) for x in settings])) for s in seeds},
    'above',
  )
  for setting in settings:
    measured += _verdicts.measure(
      f'{setting.name}: the same',
      {s: lower_by(setting, s) for s in setting.runs},
      None,
    )
    measured += _verdicts.measure(
      f"{setting.name}: share within the samples' middle 95 %",
      {s: inside(setting, s) for s in setting.runs},
      None,
    )
    measured += _verdicts.measure(
      f'{setting.name}: share of pairs in conflict, tasks less samples',
      {
        s: float(
          np.mean(setting.values(s, 'tasks/cosine') < 0)
          - np.mean(setting.values(s, 'samples/cosine') < 0)
        )
        for s in setting.runs
      },
      None,
    )
  return _verdicts.verdict(
    'E7',
    'Conflict in angle is not special to multi-task learning: cosines between '
    'tasks are not systematically lower than those between samples of a task.',
    'the mean over settings is higher; it does not hold where it is lower, '
    'and equal means are undecided.',
    measured,
    min_seeds=min_seeds,
  )


def _magnitude(settings: list[Setting], min_seeds: int) -> _verdicts.Verdict:
  measured = []
  for setting in settings:
    measured += _verdicts.measure(
      f'{setting.name}: magnitude similarity, tasks less samples',
      {s: magnitude_gap(setting, s) for s in setting.runs},
      'below',
    )
    drift = {s: magnitude_drift(setting, s) for s in setting.runs}
    known = {s: x for s, x in drift.items() if x is not None}
    label = f'{setting.name}: change of their ratio over the training'
    measured += _verdicts.measure(label, known, 'below', DRIFT)
    measured += _verdicts.measure(label, known, 'above', -DRIFT)
  return _verdicts.verdict(
    'E8',
    'Gradients of two tasks on a sample differ more in magnitude than those of '
    'two samples in a task, in every setting and about equally throughout '
    'training.',
    'the mean is lower in every setting, and the line through the ratios of '
    f'the epochs moves by less than {DRIFT}.',
    measured,
    min_seeds=min_seeds,
  )


def _heads(settings: list[Setting], min_seeds: int) -> _verdicts.Verdict:
  by_name = {setting.name: setting for setting in settings}
  measured = []
  for name, shared in by_name.items():
    source, _, shape = name.rpartition('.')
    heads = by_name.get(f'{source}.head_heavy')
    if shape != 'shared_heavy' or heads is None:
      continue
    seeds = _common([shared, heads])
    for kind, wanted in (('tasks', 'below'), ('samples', None)):
      measured += _verdicts.measure(
        f'{source}, {TITLES[kind]}: log of the ratio of variances',
        {s: spread_ratio(heads, shared, s, kind) for s in seeds},
        wanted,
      )
  return _verdicts.verdict(
    'E9',
    'With more parameters in the heads, on the same trunk, cosines between '
    'tasks vary less.',
    'their variance over the training is lower with larger heads, on every '
    'data set.',
    measured,
    min_seeds=min_seeds,
  )


def _common(settings: Iterable[Setting]) -> list[int]:
  """Seeds that all settings have."""
  seeds = [set(setting.runs) for setting in settings]
  return sorted(set.intersection(*seeds)) if seeds else []


def write_report(directory: pathlib.Path) -> dict[str, Any]:
  """Writes ``summary.json`` and ``report.html`` of the study.

  Args:
    directory: folder that the study wrote; it need not be finished.

  Returns:
    The content of ``summary.json``: ``epochs`` (mean, standard deviation and
    percentiles by setting, kind, measure and epoch), ``verdicts``,
    ``failures`` and ``notes``.

  Raises:
    ReportError: the folder holds no results.
  """
  results = read_results(directory)
  config = results.config
  settings: dict[str, Setting] = {}
  for run in results.runs:
    path = directory / 'runs' / run.method / f'seed_{run.seed}' / PROBE
    if not run.problem and path.is_file():
      setting = settings.setdefault(run.method, Setting(run.method, {}))
      setting.runs[int(run.seed)] = read_pairs(path)
  found = list(settings.values())
  verdicts = claims(found, config['min_seeds'])
  epochs = [
    {'setting': x.name, 'pairs': kind, 'measure': measure, 'epoch': epoch}
    | line._asdict()
    for x in found
    for measure in HEADINGS
    for kind in KINDS
    for epoch, line in x.per_epoch(f'{kind}/{measure}').items()
  ]
  summary = {
    'experiment': NAME,
    'preset': config['preset'],
    'tasks': results.tasks,
    'epochs': epochs,
    'failures': results.failures,
    'notes': results.notes,
  }
  return _verdicts.write_claims(
    directory,
    summary,
    verdicts,
    title=f'{NAME} on {config["data"]["source"]}',
    lead=f'{results.finished} Preset: {config["preset"]}.',
    how=_how(config),
    tables=[_table(epochs, measure) for measure in HEADINGS],
    sections=sections(found),
    config=config,
  )


def _table(epochs: list[dict[str, Any]], measure: str) -> dict[str, Any]:
  """Every epoch of a measure."""
  lines = [line for line in epochs if line['measure'] == measure]
  columns = [
    Column('setting', [Cell(x['setting']) for x in lines]),
    Column('pairs', [Cell(TITLES[x['pairs']]) for x in lines]),
    Column('epoch', [Cell(str(x['epoch'])) for x in lines]),
  ]
  names = {
    'mean': 'mean',
    'sd': 'deviation',
    'low': '2.5 %',
    'high': '97.5 %',
  }
  columns += [
    Column(heading, [Cell(f'{x[name]:.3g}') for x in lines])
    for name, heading in names.items()
  ]
  columns.append(Column('n', [Cell(str(x['n'])) for x in lines]))
  return {
    'title': f'{HEADINGS[measure]} by epoch',
    'text': 'Over the pairs of all steps measured and of all seeds.',
    'columns': columns,
  }


def sections(settings: list[Setting]) -> list[Section]:
  """Each measure over the epochs, between tasks and between samples."""
  found = []
  legend = [('tasks', style_of(0)), ('samples', style_of(1))]
  for measure, heading in HEADINGS.items():
    panels = []
    for setting in settings:
      for title, kinds in (
        (setting.name, ('tasks', 'samples')),
        (f'{setting.name}, averaged', ('mean_tasks', 'mean_samples')),
      ):
        curves = []
        for kind, (_, style) in zip(kinds, legend, strict=True):
          line = setting.per_epoch(f'{kind}/{measure}')
          if line:
            epochs, mean, sd = np.array(
              [(e, x.mean, x.sd) for e, x in line.items()]
            ).T
            curves.append(Curve(style, epochs, mean, sd))
        if curves:
          ident = f'{measure}{len(panels)}-'
          panels.append(draw(title, curves, ident=ident, xlabel='epoch'))
    if panels:
      text = (
        'Mean over the pairs of an epoch, of all seeds; the band is one '
        'standard deviation. Averaged: tasks on the whole batch, and samples '
        'of the mean over tasks.'
      )
      found.append(Section(heading, text, legend, panels))
  return found


def _how(config: Mapping[str, Any]) -> list[str]:
  """How the numbers are to be read, in sentences."""
  return [
    f'Every setting is trained with {config["seeds"]} seeds by Adam on the sum '
    f'of the losses. Every {config["diagnose_every"]} steps the gradients on '
    f'the shared parameters of {config["diagnose_samples"]} samples are '
    'compared: of two tasks on one sample, and of two samples in one task.',
    'A number of a verdict is one a seed, of all pairs of its run; pairs and '
    'steps within a run are no repetitions. An interval is the wider of the '
    "percentile bootstrap over seeds and Student's t, both of 95 %. The seeds "
    'share the images.',
    f'That the ratio of E8 may move by {DRIFT} is a choice of this study: the '
    'paper gives no bound. It has larger networks and data; here the digits '
    'are the only ones.',
  ]


def print_tables(
  summary: Mapping[str, Any], console: rich.console.Console
) -> None:
  """Prints the last epoch of the single pairs, and the verdicts."""
  lines = [x for x in summary['epochs'] if not x['pairs'].startswith('mean')]
  last = max((x['epoch'] for x in lines), default=0)
  table = _verdicts.plain_table(
    f'epoch {last}, mean ± deviation', 'setting', 'pairs', *HEADINGS
  )
  rows: dict[tuple[str, str], list[str]] = {}
  for x in lines:
    if x['epoch'] == last:
      rows.setdefault((x['setting'], x['pairs']), []).append(
        f'{x["mean"]:.3g} ± {x["sd"]:.2g}'
      )
  for (setting, pairs), cells in rows.items():
    table.add_row(
      *(rich.text.Text(x) for x in (setting, TITLES[pairs], *cells))
    )
  console.print(table)
  _verdicts.print_verdicts(summary['verdicts'], console)

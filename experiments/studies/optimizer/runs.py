"""What the optimizer study has trained: runs, and those selected of them."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.report.results import (
  FINISHED,
  ReportError,
  config_notes,
  read_config,
)
from experiments.studies.optimizer.grid import (
  OPTIMIZERS,
  SINGLE,
  SPLITS,
  Group,
  Part,
)
from mtljax.metrics import delta_m


class GridRun(NamedTuple):
  """One training, at the epoch of its best validation delta-m.

  Attributes:
    optimizer: its name.
    method: its name; '' for the optimizers that take none.
    ratio: what the last task's loss was multiplied by.
    seed: its seed.
    rate: the learning rate.
    epoch: the best one, from 1; None where no epoch ended in finite numbers.
    validation: delta-m, NaN likewise.
    test: delta-m, NaN likewise.
    scores: each measure on test data, NaN likewise.
    status: ``'ok'``, or when it diverged.
    start: how many times the smallest of the losses, the last one multiplied,
      the largest is before the first step, on validation data; NaN: unknown.
    end: the same at the best epoch.
  """

  optimizer: str
  method: str
  ratio: float
  seed: int
  rate: float
  epoch: int | None
  validation: float
  test: float
  scores: tuple[float, ...]
  status: str
  start: float = math.nan
  end: float = math.nan


class Baseline(NamedTuple):
  """A measure of a task alone, at the learning rate of the best validation.

  What is best is decided by the first measure of the task.

  Attributes:
    task: its name.
    measure: ``'<metric>/<task>'``.
    higher_is_better: its direction.
    rate: the learning rate.
    validation: mean over seeds, at each seed's best epoch.
    test: likewise.
    seeds: how many.
  """

  task: str
  measure: str
  higher_is_better: bool
  rate: float
  validation: float
  test: float
  seeds: int


class Selected(NamedTuple):
  """A method and an optimizer at the learning rate selected for them.

  Attributes:
    optimizer: its name.
    method: its name, or ''.
    ratio: of the losses.
    rate: the learning rate of the lowest mean validation delta-m.
    at_edge: whether that is the smallest or largest tried.
    runs: by seed.
  """

  optimizer: str
  method: str
  ratio: float
  rate: float
  at_edge: bool
  runs: dict[int, GridRun]

  @property
  def name(self) -> str:
    """As the tables call it."""
    return self.method or self.optimizer


class ReadStudy(NamedTuple):
  """What the study wrote.

  Attributes:
    config: content of ``config.json``.
    baselines: one a measure, in the order of the scores of a run.
    runs: all of them.
    selected: one a method, optimizer and ratio.
    seconds: of training, in all.
    notes: sentences on what is missing.
  """

  config: dict[str, Any]
  baselines: list[Baseline]
  runs: list[GridRun]
  selected: list[Selected]
  seconds: float
  notes: list[str]


def read_runs(directory: pathlib.Path) -> ReadStudy:
  """Reads what the study wrote; `ReportError` where that is not enough."""
  config = read_config(directory)
  notes = config_notes(config)
  alone = [
    _read_group(directory, config, Group('adam', f'{SINGLE}{task}'), notes)
    for task in config['tasks']
  ]
  if not all(alone):
    raise ReportError(
      f'{directory} has no finished single-task runs yet, which delta-m is '
      'measured against; run the study first.'
    )
  measures = _measures(config)
  baselines = [
    baseline
    for task, found in zip(config['tasks'], alone, strict=True)
    for baseline in _baselines(task, measures[task], found)
  ]
  seconds = sum(float(x['seconds']) for found in alone for x in found.values())
  runs = []
  for optimizer in dict.fromkeys(config['optimizers']):
    methods = config['methods'] if optimizer in OPTIMIZERS else ['']
    for method in dict.fromkeys(methods):
      group = Group(optimizer, method)
      for part, arrays in _read_group(directory, config, group, notes).items():
        runs += _runs(part, arrays, baselines)
        seconds += float(arrays['seconds'])
  return ReadStudy(
    config, baselines, runs, _select(runs, notes), seconds, notes
  )


def _read_group(
  directory: pathlib.Path,
  config: Mapping[str, Any],
  group: Group,
  notes: list[str],
) -> dict[Part, dict[str, np.ndarray]]:
  """The files of a group that are there."""
  found, missing = {}, 0
  ratios = [1.0] if group.is_baseline else dict.fromkeys(config['ratios'])
  for ratio in ratios:
    for seed in range(config['seeds']):
      part = Part(group, float(ratio), seed)
      arrays = part.read(directory)
      if arrays is None:
        missing += 1
      else:
        found[part] = arrays
  if missing:
    notes.append(
      f'{group.name}: {missing} of {missing + len(found)} files are not there '
      'yet; the same command trains them.'
    )
  return found


def _measures(config: Mapping[str, Any]) -> dict[str, dict[str, bool]]:
  """Of each task its measures, and whether higher is better."""
  found: dict[str, dict[str, bool]] = {task: {} for task in config['tasks']}
  for name in config['delta_m_metrics']:
    task = name.partition('/')[2]
    found[task][name] = config['higher_is_better'][name]
  return found


def _baselines(
  task: str, measures: Mapping[str, bool], parts: Mapping[Part, Any]
) -> list[Baseline]:
  """A task alone: the best epoch of a run, then the best learning rate."""
  sign = 1 if next(iter(measures.values())) else -1
  best = []
  for arrays in parts.values():
    # Shape (R, E). What is not finite is never the best.
    score = sign * arrays['validation/score'][..., 0]
    score = np.where(arrays['finite'] & np.isfinite(score), score, -np.inf)
    epoch = score.argmax(1)[:, None, None]
    at_best = [
      np.take_along_axis(arrays[f'{split}/score'], epoch, 1)[:, 0]
      for split in SPLITS
    ]
    at_best[0][~np.isfinite(score).any(1)] = -sign * np.inf
    best.append(at_best)
  validation, test = np.mean(best, axis=0)  # (R, N) each
  chosen = int((sign * validation[:, 0]).argmax())
  rate = float(next(iter(parts.values()))['rates'][chosen])
  if not np.isfinite(validation[chosen, 0]):
    raise ReportError(f'{SINGLE}{task} diverged at every learning rate.')
  found = [
    Baseline(task, *measure, rate, float(own), float(other), len(best))
    for measure, own, other in zip(
      measures.items(), validation[chosen], test[chosen], strict=True
    )
  ]
  for x in found:
    if min(x.validation, x.test) <= 0:
      raise ReportError(
        f'{SINGLE}{task} reaches {x.validation:g} in {x.measure} on validation '
        f'data and {x.test:g} on test data, and delta-m is a share of what it '
        'reaches: train longer, or on more examples.'
      )
  return found


def _runs(
  part: Part, arrays: Mapping[str, np.ndarray], baselines: list[Baseline]
) -> list[GridRun]:
  """The runs of a file, a learning rate each."""
  drops = {
    split: delta_m(
      arrays[f'{split}/score'],
      [getattr(baseline, split) for baseline in baselines],
      [baseline.higher_is_better for baseline in baselines],
    )
    for split in SPLITS
  }
  found, nan = [], math.nan
  start = nan
  if 'start/loss' in arrays:  # older versions did not measure it
    start = _largest_over_smallest(arrays['start/loss'][0], part.ratio)
  for i, rate in enumerate(arrays['rates']):
    # A run that was not finite once is over.
    finite = np.logical_and.accumulate(arrays['finite'][i])
    drop = drops['validation'][i]
    usable = np.where(finite & np.isfinite(drop), drop, np.inf)
    status = FINISHED
    if not finite.all():
      status = f'diverged in epoch {int(np.argmin(finite)) + 1}'
    e = int(usable.argmin())
    there = bool(np.isfinite(usable[e]))
    found.append(
      GridRun(
        *part.group,
        part.ratio,
        part.seed,
        float(rate),
        e + 1 if there else None,
        float(drops['validation'][i, e]) if there else nan,
        float(drops['test'][i, e]) if there else nan,
        tuple(float(x) if there else nan for x in arrays['test/score'][i, e]),
        status,
        start,
        _largest_over_smallest(arrays['validation/loss'][i, e], part.ratio)
        if there
        else nan,
      )
    )
  return found


def _largest_over_smallest(losses: np.ndarray, ratio: float) -> float:
  """How many times the smallest loss the largest is, the last multiplied."""
  losses = np.array(losses, np.float64)
  losses[-1] *= ratio
  return float(losses.max() / losses.min()) if losses.min() > 0 else math.nan


def _select(runs: list[GridRun], notes: list[str]) -> list[Selected]:
  """The learning rate of each method, optimizer and ratio."""
  cells: dict[tuple[str, str, float], dict[float, list[GridRun]]] = {}
  for run in runs:
    by_rate = cells.setdefault((run.optimizer, run.method, run.ratio), {})
    by_rate.setdefault(run.rate, []).append(run)
  found = []
  for (optimizer, method, ratio), by_rate in cells.items():
    # A learning rate with a seed that never was finite is not selected.
    means = {
      rate: float(np.mean([run.validation for run in own]))
      for rate, own in by_rate.items()
    }
    usable = {rate: x for rate, x in means.items() if np.isfinite(x)}
    if not usable:
      notes.append(
        f'{Group(optimizer, method).name} at ratio {ratio:g} diverged with '
        'some seed at every learning rate.'
      )
      continue
    rate = min(usable, key=usable.__getitem__)
    edge = rate in (min(by_rate), max(by_rate))
    own = {run.seed: run for run in by_rate[rate]}
    found.append(Selected(optimizer, method, ratio, rate, edge, own))
  return found


def rows(read: ReadStudy) -> list[dict[str, Any]]:
  """``results.csv``: every run, with whether its learning rate is selected."""
  chosen = {(x.optimizer, x.method, x.ratio): x.rate for x in read.selected}
  return [
    {
      'optimizer': run.optimizer,
      'method': run.method,
      'ratio': run.ratio,
      'learning_rate': run.rate,
      'seed': run.seed,
      'best_epoch': run.epoch,
      'validation/delta_m': run.validation,
      'test/delta_m': run.test,
      **{
        f'test/{baseline.measure}': score
        for baseline, score in zip(read.baselines, run.scores, strict=True)
      },
      'selected': run.rate
      == chosen.get((run.optimizer, run.method, run.ratio)),
      'status': run.status,
    }
    for run in read.runs
  ]

"""What ``--diagnose conflict`` left of the runs of an experiment."""

from __future__ import annotations

import math
import pathlib
from typing import NamedTuple

import numpy as np

from experiments._conflict import KINDS, MEASURES
from experiments._results import PROBE, Results
from mtljax.training import _json

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


class Setting(NamedTuple):
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


def read_settings(directory: pathlib.Path, results: Results) -> list[Setting]:
  """The finished runs that measured conflict, by method.

  One whose measurements are damaged is left out, and ``results.notes`` says so.
  """
  settings: dict[str, Setting] = {}
  for run in results.runs:
    path = directory / 'runs' / run.method / f'seed_{run.seed}' / PROBE
    if run.problem or PROBE in run.damaged or not path.is_file():
      continue
    try:
      pairs = read_pairs(path)
    except (OSError, ValueError) as error:
      results.notes.append(
        f'{path.relative_to(directory)} was left out: {error}.'
      )
      continue
    setting = settings.setdefault(run.method, Setting(run.method, {}))
    setting.runs[int(run.seed)] = pairs
  return list(settings.values())

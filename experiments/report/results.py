"""Reads the folder of an experiment, also one that is not finished."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.report import files as run_files
from experiments.report.files import PROBE
from mtljax.training.disk import _json

__all__ = ['FINISHED', 'PROBE']

FINISHED = 'ok'

Series = tuple[np.ndarray, np.ndarray]


class ReportError(Exception):
  """A folder that no report can be made of; the text says why."""


class StoredConfig(dict):
  """An object in ``config.json``; what is missing in it is a `ReportError`."""

  def __init__(self, values: dict[str, Any], path: pathlib.Path):
    super().__init__(values)
    self._path = path

  def __missing__(self, key: str) -> Any:
    raise ReportError(
      f'{self._path} has no "{key}": another version of the study wrote it, or '
      'it was changed by hand; run the study again in another folder.'
    )


@dataclasses.dataclass(frozen=True)
class Run:
  """One method trained with one seed.

  Attributes:
    method: name of the method.
    seed: the seed, as written in the files.
    problem: why the run has no usable result; empty if it has.
    values: the numbers of its row in ``results.csv``, by column.
    curves: steps and values by name: ``train/loss/left``,
      ``validation/accuracy/left``.
    damaged: names of its files that are not as it left them.
  """

  method: str
  seed: str
  problem: str
  values: dict[str, float]
  curves: dict[str, Series]
  damaged: frozenset[str] = frozenset()

  def probe(self, directory: pathlib.Path) -> pathlib.Path:
    """The file of what it measured inside training; it need not be there.

    Raises:
      ValueError: it is not as the run left it.
    """
    if PROBE in self.damaged:
      raise ValueError(f'{PROBE} is not as the run left it')
    return directory / 'runs' / self.method / f'seed_{self.seed}' / PROBE


@dataclasses.dataclass(frozen=True)
class Results:
  """All that an experiment has written.

  Attributes:
    config: content of ``config.json``.
    tasks: the tasks in their order.
    runs: the runs, in the order of the methods in ``config``.
    notes: sentences about files that were missing or damaged.
  """

  config: dict[str, Any]
  tasks: list[str]
  runs: list[Run]
  notes: list[str]

  @property
  def methods(self) -> list[str]:
    """The methods that have a run, in order."""
    return list(dict.fromkeys(run.method for run in self.runs))

  @property
  def failures(self) -> list[dict[str, Any]]:
    """The runs without a result, as ``summary.json`` lists them."""
    return [
      {'method': run.method, 'seed': run.seed, 'reason': run.problem}
      for run in self.runs
      if run.problem
    ]

  @property
  def finished(self) -> str:
    """How many of the runs have a result, as a sentence."""
    total = len(self.runs)
    return f'{total - len(self.failures)} of {total} runs finished.'


def data_of(config: Mapping[str, Any]) -> str:
  """The suite of an experiment, and its source where one was chosen."""
  source = config['data']['source']
  return f'{config["suite"]} ({source})' if source else config['suite']


def read_results(directory: pathlib.Path) -> Results:
  """Reads ``config.json``, ``results.csv`` and ``runs/*/seed_*/metrics.jsonl``.

  Args:
    directory: folder of the experiment.

  Returns:
    The `Results`.

  Raises:
    ReportError: there is no folder, no readable ``config.json`` or no run.
  """
  config = read_config(directory)
  notes = config_notes(config)
  rows = _read_rows(directory, notes)
  logs = {
    (path.parent.parent.name, path.parent.name.removeprefix('seed_')): path
    for path in sorted(directory.glob('runs/*/seed_*/metrics.jsonl'))
  }
  runs = []
  for method, seed in dict.fromkeys([*rows, *logs]):
    problem, values = rows.get(
      (method, seed), ('not finished: no row in results.csv', {})
    )
    curves = {}
    folder = directory / 'runs' / method / f'seed_{seed}'
    damaged = _damaged(folder, method, seed, directory, notes)
    if (method, seed) in logs and run_files.METRICS not in damaged:
      path = logs[method, seed]
      curves = _read_curves(path, str(path.relative_to(directory)), notes)
    elif not problem and run_files.METRICS not in damaged:
      notes.append(
        f'runs/{method}/seed_{seed}/metrics.jsonl is missing: this run has '
        'no curves.'
      )
    runs.append(Run(method, seed, problem, values, curves, damaged))
  if not rows and not any(run.curves for run in runs):
    raise ReportError(
      f'{directory} holds no results: results.csv has no row and no '
      'runs/<method>/seed_<k>/metrics.jsonl was found; run the experiment '
      'first.'
    )
  order = [str(method) for method in config.get('methods', [])]
  runs.sort(key=lambda run: _rank(run, order))
  return Results(config, [str(task) for task in config['tasks']], runs, notes)


def _rank(run: Run, order: list[str]) -> tuple[int, str, int, str]:
  place = order.index(run.method) if run.method in order else len(order)
  number = int(run.seed) if run.seed.isdigit() else -1
  return place, run.method if place == len(order) else '', number, run.seed


def read_config(directory: pathlib.Path) -> dict[str, Any]:
  """The content of ``config.json``; `ReportError` where it cannot be used."""
  path = directory / 'config.json'
  if not directory.is_dir():
    raise ReportError(f'{directory} is not a folder.')
  if not path.is_file():
    raise ReportError(
      f'{path} does not exist; give the folder that an experiment wrote.'
    )
  try:
    config = _json.read(
      path, object_hook=lambda values: StoredConfig(values, path)
    )
  except ValueError as error:
    raise ReportError(f'{path} is not valid JSON: {error}.') from error
  if not isinstance(config, dict) or not isinstance(config.get('tasks'), list):
    raise ReportError(f'{path} must be an object with a list "tasks".')
  for key, kind, text in (
    ('methods', list, 'list'),
    ('experiment', str, 'text'),
  ):
    if not isinstance(config.get(key, kind()), kind):
      raise ReportError(f'{path}: "{key}" must be a {text}.')
  return config


def config_notes(config: dict[str, Any]) -> list[str]:
  """What has to be known of the configuration, in sentences."""
  notes = []
  try:
    _json.unseal(config)
  except ValueError:
    notes.append(
      'config.json was changed since the experiment wrote it: what it says of '
      'the runs may not be how they were made.'
    )
  history = config.get('history')
  for entry in history if isinstance(history, list) else []:
    changed = entry.get('changed') if isinstance(entry, dict) else None
    for name, values in (changed or {}).items():
      if isinstance(values, list) and len(values) == 2:
        notes.append(
          f'The experiment was gone on with after a change of {name}: '
          f'{values[0]}, then {values[1]}.'
        )
  return notes


def read_rows(
  directory: pathlib.Path, notes: list[str]
) -> list[dict[str, Any]]:
  """The rows of ``results.csv``, or of the runs where that is damaged."""
  why = 'is missing'
  try:
    return run_files.read_table(directory / run_files.TABLE)
  except FileNotFoundError:
    pass
  except (OSError, ValueError) as error:
    why = f'is damaged ({error})'
  rows = []
  for path in sorted(directory.glob(f'runs/*/seed_*/{run_files.RESULT}')):
    method = path.parent.parent.name
    seed = path.parent.name.removeprefix('seed_')
    try:
      rows.append(run_files.read_result(path.parent, method, seed)[0])
    except (OSError, ValueError):
      continue  # `_damaged` says so
  if rows:
    notes.append(
      f'results.csv {why}: its rows are taken from the result.json of each run.'
    )
  elif why == 'is missing':
    notes.append('results.csv is missing: no run has finished yet.')
  else:
    notes.append(f'results.csv {why} and was left out.')
  return rows


def _read_rows(
  directory: pathlib.Path, notes: list[str]
) -> dict[tuple[str, str], tuple[str, dict[str, float]]]:
  """Problem and numbers of each run; a repeated run's last row counts."""
  rows = {}
  for row in read_rows(directory, notes):
    method, seed = row.pop('method', None), row.pop('seed', None)
    if not method or seed in (None, ''):
      notes.append('results.csv has a row without method or seed: left out.')
      continue
    status = row.pop('status', None)
    problem = '' if status == FINISHED else status or 'its row is cut short'
    values = {}
    for name, text in row.items():
      number = _number(text)
      if number is not None:
        values[name] = number
    diverged = [
      name.removeprefix('test/')
      for name, value in values.items()
      if name.startswith('test/') and not math.isfinite(value)
    ]
    if diverged and not problem:
      problem = f'not a finite number: {", ".join(diverged)}'
    rows[method, str(seed)] = problem, values
  return rows


def _damaged(
  folder: pathlib.Path,
  method: str,
  seed: str,
  directory: pathlib.Path,
  notes: list[str],
) -> frozenset[str]:
  """The files of a run that are not as it left them, and a note on each."""
  try:
    shown = folder.relative_to(directory)
    _, files = run_files.read_result(folder, method, seed)
  except FileNotFoundError:
    return frozenset()  # not finished, or of an older version
  except (OSError, ValueError) as error:
    notes.append(
      f'{shown / run_files.RESULT} is damaged ({error}); the same command as '
      'before makes it again.'
    )
    return frozenset()
  damaged = frozenset(run_files.changed(folder, files))
  notes += [
    f'{shown / name} is not as its run left it: what it holds was left out.'
    for name in sorted(damaged)
  ]
  return damaged


def _read_curves(
  path: pathlib.Path, shown: str, notes: list[str]
) -> dict[str, Series]:
  points: dict[str, dict[float, float]] = {}
  damaged = []
  with path.open(encoding='utf-8', errors='replace') as file:
    for number, line in enumerate(file, 1):
      if not line.strip():
        continue
      try:
        record = _json.loads(line)
      except ValueError:
        record = None
      step = _number(record.get('step')) if isinstance(record, dict) else None
      if not isinstance(record, dict) or step is None:
        damaged.append(number)
        continue
      part = record.get('split') if record.get('kind') == 'eval' else 'train'
      for name, value in record.items():
        value = _number(value)
        if value is not None and '/' in name:
          # A resumed run logs some steps again: the last one counts.
          points.setdefault(f'{part}/{name}', {})[step] = value
  if damaged:
    listed = ', '.join(map(str, damaged[:5])) + ', ...' * (len(damaged) > 5)
    notes.append(
      f'{shown}: line {listed} is cut short or damaged and was left out.'
    )
  return {
    name: (np.array(list(series)), np.array(list(series.values())))
    for name, series in points.items()
  }


def _number(value: object) -> float | None:
  if isinstance(value, bool) or not isinstance(value, str | int | float):
    return None
  try:
    return float(value)
  except (ValueError, OverflowError):
    return None

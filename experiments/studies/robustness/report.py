"""The report of the study of robustness: verdict, tables, heat maps."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import rich.console

from experiments.report import conflict as conflicts
from experiments.report import verdicts as verdicts_
from experiments.report.conflict import read_settings
from experiments.report.plots import Section, picture
from experiments.report.results import data_of, read_results
from experiments.report.statistics import interval
from experiments.report.tables import MISSING, Cell, Column, columns_of
from experiments.studies.robustness.claims import (
  REFIT,
  ZERO_SHOT,
  Deltas,
  Kept,
  Key,
  Runs,
  Score,
  change,
  claims,
  deltas,
  multi,
  read_runs,
  scores_of,
)

NAME = 'robustness_study'


def write_report(directory: pathlib.Path) -> dict[str, Any]:
  """Writes ``summary.json`` and ``report.html`` of the study.

  Args:
    directory: folder that the study wrote; it need not be finished.

  Returns:
    The content of ``summary.json``: ``deltas`` and ``zero_shot_deltas`` (mean
    and interval by network, method and task), ``scores`` (of the tasks, mean
    over seeds, and by pair), ``pairs``, ``verdicts``, ``failures`` and
    ``notes``.

  Raises:
    ReportError: the folder holds no results.
  """
  results = read_results(directory)
  config = results.config
  pairs = [[c, s] for c in config['corruptions'] for s in config['severities']]
  runs, notes = read_runs(directory, results, len(pairs))
  units = scores_of(config)
  conflict = read_settings(directory, results)
  found = deltas(runs, REFIT, units)
  zero_shot = deltas(runs, ZERO_SHOT, units)
  verdicts = claims(found, config['min_seeds'])
  scores = [_score(key, by_seed) for key, by_seed in runs.items()]
  summary = {
    'experiment': NAME,
    'preset': config['preset'],
    'tasks': results.tasks,
    'pairs': pairs,
    'scores': scores,
    'deltas': _plain(found),
    'zero_shot_deltas': _plain(zero_shot),
    'failures': results.failures,
    'notes': results.notes + notes,
  }
  return verdicts_.write_claims(
    directory,
    summary,
    verdicts,
    title=f'{NAME} on {data_of(config)}',
    lead=f'{results.finished} Preset: {config["preset"]}.',
    how=_how(config, units),
    tables=[
      _table(
        'Heads fitted again: delta_t',
        f'In hundredths; below 0 more of the clean {_called(units)} is left '
        'than in the network of the task alone. Mean over seeds and its '
        'interval.',
        _delta_columns(found, results.tasks),
      ),
      _table(
        f'Heads fitted again: {_called(units, unit=True)}',
        'Clean: as trained, on clean test images. Corrupted: mean over '
        'corruptions and severities. Mean over seeds ± standard error.',
        _score_columns(scores, units, REFIT),
      ),
      _table(
        'Zero-shot, no part of E10',
        'The heads as they were trained on clean images: how the whole network '
        'stands corruption, not what its features hold. delta_t in '
        f'hundredths, {_called(units, unit=True)}.',
        [
          *_score_columns(scores, units, ZERO_SHOT),
          *_delta_columns(
            {key: zero_shot.get(key, {}) for key in runs}, results.tasks
          )[2:],
        ],
      ),
    ],
    sections=[
      *_sections(runs, config, units),
      *conflicts.comparison(conflict),
    ],
    config=config,
  )


def _plain(found: Deltas) -> list[dict[str, Any]]:
  return [
    key._asdict() | verdicts_.plain_interval(interval(list(values.values())))
    for key, values in found.items()
    if values
  ]


def _called(units: Mapping[str, Score], *, unit: bool = False) -> str:
  """What tasks are scored by, in a word."""
  names = dict.fromkeys(
    f'{x.name} {x.unit}'.rstrip() if unit else x.name for x in units.values()
  )
  return ', '.join(names) if unit or len(names) == 1 else 'score'


def _score(key: Key, by_seed: Mapping[int, Kept]) -> dict[str, Any]:
  """Scores of one network, method and task."""
  entry: dict[str, Any] = key._asdict()
  runs = list(by_seed.values())
  for name, values in (
    ('clean', [x.clean for x in runs]),
    (REFIT, [float(x.refit.mean()) for x in runs]),
    (ZERO_SHOT, [float(x.zero_shot.mean()) for x in runs]),
  ):
    known = interval(values)
    entry[name] = {'mean': known.mean, 'error': verdicts_.finite(known.error)}
  for kind in (REFIT, ZERO_SHOT):
    entry[f'{kind}_by_pair'] = np.mean(
      [getattr(x, kind) for x in runs], 0
    ).tolist()
  return entry | {'n': len(runs)}


def _table(title: str, text: str, columns: list[Column]) -> dict[str, Any]:
  return {'title': title, 'text': text, 'columns': columns}


def _lines(keys: Iterable[Key]) -> list[tuple[str, str]]:
  """A row a network and method."""
  return list(dict.fromkeys((key.model, key.method) for key in keys))


def _first(lines: Sequence[tuple[str, str]]) -> list[Column]:
  return [
    Column('network', [Cell(model) for model, _ in lines]),
    Column('method', [Cell(method) for _, method in lines]),
  ]


def _delta_columns(found: Deltas, tasks: Sequence[str]) -> list[Column]:
  lines = _lines(found)
  return _first(lines) + [
    Column(
      f'δ {task}',
      [Cell(delta_text(found.get(Key(*line, task), {}))) for line in lines],
    )
    for task in tasks
  ]


def delta_text(values: Mapping[int, float]) -> str:
  """A delta and its interval, in hundredths."""
  if not values:
    return MISSING
  known = interval([100 * x for x in values.values()])
  return f'{known.mean:+.2f} {verdicts_.span(known)}'


def _score_columns(
  scores: Sequence[Mapping[str, Any]], units: Mapping[str, Score], kind: str
) -> list[Column]:
  by_key = {Key(x['model'], x['method'], x['task']): x for x in scores}
  lines = _lines(by_key)

  def text(line, task, name):
    entry = by_key.get(Key(*line, task))
    if entry is None:
      return MISSING
    mean, error = entry[name]['mean'], entry[name]['error']
    percent = units[task].unit == '%'
    factor, form = (100, '.2f') if percent else (1, '.4g')
    return f'{factor * mean:{form}}' + (
      '' if error is None else f' ± {factor * error:{form}}'
    )

  return _first(lines) + [
    Column(
      f'{task}, {heading}', [Cell(text(line, task, name)) for line in lines]
    )
    for task in units
    for name, heading in (('clean', 'clean'), (kind, 'corrupted'))
  ]


def _sections(
  runs: Runs, config: Mapping[str, Any], units: Mapping[str, Score]
) -> list[Section]:
  """Heat maps of what fitted heads make of corruption, then of zero-shot."""
  shape = len(config['corruptions']), len(config['severities'])
  found = []
  for kind, title, remark in (
    (REFIT, 'delta_t by corruption and severity', 'Heads fitted again.'),
    (ZERO_SHOT, 'Zero-shot, by corruption and severity', 'No part of E10.'),
  ):
    maps = {
      key: 100 * values.reshape(shape)
      for key in multi(runs)
      if (values := change(runs, key, kind, units)) is not None
    }
    if maps:
      limit = max(float(np.abs(x).max()) for x in maps.values()) or 1.0
      text = (
        f'{remark} Hundredths of the clean {_called(units)} lost beyond the '
        'network of the task alone, mean over seeds; below 0 (blue) the '
        'multi-task '
        'network keeps more. All maps have one scale.'
      )
      panels = [
        heat_map(', '.join(key), x, config, limit, ident=f'{kind}{i}-')
        for i, (key, x) in enumerate(maps.items())
      ]
      found.append(Section(title, text, [], panels))
  return found


def heat_map(
  title: str,
  values: np.ndarray,
  config: Mapping[str, Any],
  limit: float,
  *,
  ident: str,
) -> str:
  """One picture: a row a corruption, a column a severity."""

  def plot(axes: Any) -> None:
    drawn = axes.pcolormesh(
      values,
      cmap=mpl.colormaps['RdBu_r'].resampled(15),
      vmin=-limit,
      vmax=limit,
    )
    rows, columns = values.shape
    axes.set_yticks(np.arange(rows) + 0.5, config['corruptions'])
    axes.set_xticks(np.arange(columns) + 0.5, map(str, config['severities']))
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.set_xlabel('severity')
    axes.figure.colorbar(drawn, ax=axes)

  return picture(
    title,
    plot,
    ident=ident,
    size=(4.2, 1.2 + 0.19 * len(config['corruptions'])),
  )


def _how(config: Mapping[str, Any], units: Mapping[str, Score]) -> list[str]:
  """How the numbers are to be read, in sentences."""
  return [
    'Networks are trained on clean images, and the state with the best '
    f'validation {_called(units)} is kept. Its trunk is frozen, and its heads '
    'go on '
    f'training on the training images, {config["draws"]} times each, under a '
    'random corruption and severity; the last state of the heads is taken.',
    'delta_t is the mean over corruptions and severities of the share of the '
    f'clean {_called(units)} that the single-task network keeps, less that of '
    'the multi-task network of the same seed (where lower is better the sign '
    'is turned). It says nothing about which is the better network. The clean '
    f'{_called(units)} is that before the heads are fitted again.',
    'An interval is the wider of the percentile bootstrap over seeds and '
    "Student's t, both of 95 %. All runs see the same corrupted images, whose "
    'choice no interval knows of.',
    f'Severities are those of the scale "{config["scale"]}"; images are '
    'rounded to 8 bits.',
  ]


def print_tables(
  summary: Mapping[str, Any], console: rich.console.Console
) -> None:
  """Prints the deltas and the verdict; the zero-shot table is on the page."""
  tasks = summary['tasks']
  cells = {
    Key(x['model'], x['method'], x['task']): _entry_text(x)
    for x in summary['deltas']
  }
  rows = [
    (*line, *(cells.get(Key(*line, task), MISSING) for task in tasks))
    for line in _lines(cells)
  ]
  titles = ('network', 'method', *(f'δ {task}' for task in tasks))
  verdicts_.print_columns(
    'delta_t in hundredths, heads fitted again',
    columns_of(titles, rows),
    console,
    left=len(titles),
  )
  verdicts_.print_verdicts(summary['verdicts'], console)


def _entry_text(entry: Mapping[str, Any]) -> str:
  low, high = entry['low'], entry['high']
  shown = '' if low is None else f' [{100 * low:+.2f}, {100 * high:+.2f}]'
  return f'{100 * entry["mean"]:+.2f}{shown}'

"""The report of the study of conflict: verdicts, tables, pictures."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import rich.console

from experiments.lab.diagnose import KINDS
from experiments.report import conflict as conflicts
from experiments.report import verdicts as verdicts_
from experiments.report.conflict import (
  HEADINGS,
  TITLES,
  SettingPairs,
  read_settings,
)
from experiments.report.results import read_results
from experiments.report.tables import MISSING, Cell, Column, columns_of
from experiments.studies.conflict.claims import DRIFT, claims, outcomes

NAME = 'conflict_study'
SIGNS = {1: 'positive', -1: 'negative'}


def write_report(directory: pathlib.Path) -> dict[str, Any]:
  """Writes ``summary.json`` and ``report.html`` of the study.

  Args:
    directory: folder that the study wrote; it need not be finished.

  Returns:
    The content of ``summary.json``: ``epochs`` (mean, standard deviation and
    percentiles by setting, kind, measure and epoch), ``signs`` (the same of
    positive and of negative cosines, and their share), ``verdicts``,
    ``outcomes`` (of each data set and setting alone), ``failures`` and
    ``notes``.

  Raises:
    ReportError: the folder holds no results.
  """
  results = read_results(directory)
  config = results.config
  found = read_settings(directory, results)
  verdicts = claims(found, config['min_seeds'])
  epochs = [
    {'setting': x.name, 'pairs': kind, 'measure': measure, 'epoch': epoch}
    | line._asdict()
    for x in found
    for measure in HEADINGS
    for kind in KINDS
    for epoch, line in x.per_epoch(f'{kind}/{measure}').items()
  ]
  signs = _signs(found)
  parts = outcomes(found, config['min_seeds'])
  summary = {
    'experiment': NAME,
    'preset': config['preset'],
    'tasks': results.tasks,
    'epochs': epochs,
    'signs': signs,
    'outcomes': parts,
    'failures': results.failures,
    'notes': results.notes,
  }
  return verdicts_.write_claims(
    directory,
    summary,
    verdicts,
    title=f'{NAME} on {", ".join(config["suite"])}',
    lead=f'{results.finished} Preset: {config["preset"]}.',
    how=_how(config),
    tables=[
      _outcomes_table(parts),
      *(_table(epochs, measure) for measure in HEADINGS),
      _signs_table(signs),
    ],
    sections=conflicts.sections(found),
    config=config,
  )


def _signs(settings: Sequence[SettingPairs]) -> list[dict[str, Any]]:
  """Every epoch's positive and negative cosines apart."""
  found = []
  for setting in settings:
    for kind in KINDS:
      name = f'{kind}/cosine'
      total = {e: line.n for e, line in setting.per_epoch(name).items()}
      for sign, word in SIGNS.items():
        found += [
          {'setting': setting.name, 'pairs': kind, 'sign': word}
          | {'epoch': epoch, 'share': line.n / total[epoch]}
          | line._asdict()
          for epoch, line in setting.per_epoch(name, sign).items()
        ]
  return found


def _first_columns(lines: Sequence[Mapping[str, Any]]) -> list[Column]:
  return [
    Column('setting', [Cell(x['setting']) for x in lines]),
    Column('pairs', [Cell(TITLES[x['pairs']]) for x in lines]),
    Column('epoch', [Cell(str(x['epoch'])) for x in lines]),
  ]


def _stats_columns(lines: Sequence[Mapping[str, Any]]) -> list[Column]:
  names = {
    'mean': 'mean',
    'sd': 'deviation',
    'low': '2.5 %',
    'high': '97.5 %',
  }
  columns = [
    Column(heading, [Cell(f'{x[name]:.3g}') for x in lines])
    for name, heading in names.items()
  ]
  return [*columns, Column('n', [Cell(str(x['n'])) for x in lines])]


def _table(epochs: list[dict[str, Any]], measure: str) -> dict[str, Any]:
  """Every epoch of a measure."""
  lines = [line for line in epochs if line['measure'] == measure]
  return {
    'title': f'{HEADINGS[measure]} by epoch',
    'text': 'Over the pairs of all steps measured and of all seeds.',
    'columns': [*_first_columns(lines), *_stats_columns(lines)],
  }


def _signs_table(lines: list[dict[str, Any]]) -> dict[str, Any]:
  """Positive and negative cosines."""
  return {
    'title': 'Cosine by sign and epoch',
    'text': 'A cosine of 0, that of a gradient of 0 say, has neither sign.',
    'columns': [
      *_first_columns(lines),
      Column('sign', [Cell(x['sign']) for x in lines]),
      Column('share', [Cell(f'{x["share"]:.3f}') for x in lines]),
      *_stats_columns(lines),
    ],
  }


def _outcomes_table(parts: list[dict[str, str | None]]) -> dict[str, Any]:
  """The claims on parts of the data."""
  names = [name for name in (parts[0] if parts else {}) if name != 'part']
  return {
    'title': 'Verdicts by data set and setting',
    'text': 'The same rules on a part of the settings. The verdicts above are '
    'those on all of them; these are not corrected for their number.',
    'columns': [
      Column('part', [Cell(str(x['part'])) for x in parts]),
      *(Column(n, [Cell(x[n] or MISSING) for x in parts]) for n in names),
    ],
  }


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
    'share the data.',
    f'That the ratio of E8 may move by {DRIFT} is a choice of this study: the '
    'paper gives no bound. The strict reading of E7 was chosen after numbers '
    'on the digits had been seen, and before those on other data. The paper '
    'has larger networks and data.',
  ]


def print_tables(
  summary: Mapping[str, Any], console: rich.console.Console
) -> None:
  """Prints the last epoch of the single pairs, and the verdicts."""
  lines = [x for x in summary['epochs'] if not x['pairs'].startswith('mean')]
  last = max((x['epoch'] for x in lines), default=0)
  rows: dict[tuple[str, str], list[str]] = {}
  for x in lines:
    if x['epoch'] == last:
      rows.setdefault((x['setting'], x['pairs']), []).append(
        f'{x["mean"]:.3g} ± {x["sd"]:.2g}'
      )
  verdicts_.print_columns(
    f'epoch {last}, mean ± deviation',
    columns_of(
      ('setting', 'pairs', *HEADINGS),
      [(name, TITLES[pairs], *cells) for (name, pairs), cells in rows.items()],
    ),
    console,
    left=2 + len(HEADINGS),
  )
  verdicts_.print_verdicts(summary['verdicts'], console)
  parts = summary['outcomes']
  names = list(parts[0]) if parts else []
  verdicts_.print_columns(
    'the claims on parts of the data',
    columns_of(names, [[part[x] or MISSING for x in names] for part in parts]),
    console,
    left=len(names),
  )

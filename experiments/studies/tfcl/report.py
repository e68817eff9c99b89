"""The report of the study of linear tasks in groups."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rich.console

from experiments.report import verdicts as verdicts_
from experiments.report.results import ReportError, config_notes, read_config
from experiments.report.seeds import read_seeds
from experiments.report.statistics import interval
from experiments.report.tables import Column, columns_of
from experiments.studies.tfcl.claims import NAME, claims
from experiments.studies.tfcl.fits import WEAKEST
from experiments.studies.tfcl.problems import CARRIERS

#: What was chosen on validation, of each method.
CHOSEN = ('strength', 'ridge')
#: By problem, method and seed.
Choices = dict[tuple[str, str, int], dict[str, float]]


def read_errors(
  directory: pathlib.Path, wanted: Sequence[tuple[str, int]], notes: list[str]
) -> tuple[dict[str, dict[str, dict[int, np.ndarray]]], Choices]:
  """Errors of tasks and what was chosen; ``notes`` says what is not there."""
  errors: dict[str, dict[str, dict[int, np.ndarray]]] = {}
  choices: Choices = {}
  for problem, runs in read_seeds(directory, wanted, notes).items():
    for seed, found in runs.items():
      for name, value in found.items():
        method, _, chosen = name.partition('.')
        if chosen:
          place = choices.setdefault((problem, method, seed), {})
          place[chosen] = float(value)
        else:
          errors.setdefault(problem, {}).setdefault(name, {})[seed] = value
  return errors, choices


def write_report(directory: pathlib.Path) -> dict[str, Any]:
  """Writes ``summary.json`` and ``report.html`` of the study.

  Args:
    directory: folder that the study wrote; it need not be finished.

  Returns:
    The content of ``summary.json``: ``errors`` (by problem and method, in
    percent), ``verdicts`` and ``notes``.

  Raises:
    ReportError: the folder holds no results.
  """
  config = read_config(directory)
  notes = config_notes(config)
  wanted = [(p, s) for p in config['problems'] for s in range(config['seeds'])]
  errors, choices = read_errors(directory, wanted, notes)
  if not errors:
    raise ReportError(f'{directory} holds no results of the study of TFCL.')
  lines = [
    {
      'problem': problem,
      'method': method,
      'error': verdicts_.plain_interval(
        interval([100 * float(np.mean(x)) for x in runs.values()])
      ),
      **{
        name: float(
          np.median([choices[problem, method, seed][name] for seed in runs])
        )
        for name in CHOSEN
      },
    }
    for problem, found in errors.items()
    for method, runs in found.items()
  ]
  summary = {
    'experiment': NAME,
    'errors': lines,
    'failures': [],
    'notes': notes,
  }
  return verdicts_.write_claims(
    directory,
    summary,
    claims(errors, config['min_seeds']),
    title='linear tasks in groups',
    lead=f'{config["num_train"]} examples a task, {config["seeds"]} seeds.',
    how=[
      'An error is the share of the variance of a task that its fit leaves, in '
      'percent, mean over tasks: exact from the true weights where they are '
      'known, else on flights that nothing was fitted to or chosen by.',
      'The strength of each method is that of the least validation loss, of '
      f'ten from {WEAKEST:g} to {config["strongest"]:g}. That of alone and '
      'pooled is their ridge; of the others the ridge is chosen with it, of '
      f'{", ".join(f"{x:g}" for x in config["ridges"])}.',
      "Intervals are the wider of bootstrap and Student's t over seeds, those "
      'of the claims at the level of Bonferroni for the three compared.',
    ],
    tables=[
      {
        'title': f'Errors on {problem}',
        'text': 'Percent, with intervals of 95 % over seeds, and the median '
        'strength and ridge.',
        'columns': _columns([x for x in lines if x['problem'] == problem]),
      }
      for problem in errors
    ]
    + _by_carrier(errors.get(CARRIERS, {}), config),
    sections=[],
    config=config,
  )


def _columns(lines: Sequence[Mapping[str, Any]]) -> list[Column]:
  def ends(found):
    if found['low'] is None:
      return '-'
    return f'[{found["low"]:.2f}, {found["high"]:.2f}]'

  return columns_of(
    ('method', 'seeds', 'error', 'interval', *CHOSEN),
    [
      (
        x['method'],
        str(x['error']['n']),
        f'{x["error"]["mean"]:.2f}',
        ends(x['error']),
        *(f'{x[name]:.2g}' for name in CHOSEN),
      )
      for x in lines
    ],
  )


def _by_carrier(
  errors: Mapping[str, Mapping[int, np.ndarray]], config: Mapping[str, Any]
) -> list[dict[str, Any]]:
  if not errors:
    return []
  means = [100 * np.mean(list(runs.values()), 0) for runs in errors.values()]
  return [
    {
      'title': 'Errors by carrier',
      'text': 'Percent, means over seeds; those with the most flights first.',
      'columns': columns_of(
        ('carrier', *errors),
        [
          (name, *(f'{x[task]:.1f}' for x in means))
          for task, name in enumerate(config['carriers'])
        ],
      ),
    }
  ]


def print_tables(
  summary: Mapping[str, Any], console: rich.console.Console
) -> None:
  """Prints the errors on each problem, and the verdicts."""
  verdicts_.print_by_problem(
    'errors on {}', summary['errors'], _columns, console
  )
  verdicts_.print_verdicts(summary['verdicts'], console)

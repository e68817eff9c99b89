"""The report of the study of merging: delta-m, choices, verdicts."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rich.console

from experiments.report import verdicts as verdicts_
from experiments.report.seeds import Seeds, read_study
from experiments.report.tables import MISSING, Column, columns_of
from experiments.studies.merging.claims import (
  ADAMERGING,
  ALONE,
  ARITHMETIC,
  ARMS,
  NAME,
  TIES,
  claims,
)
from mtljax.metrics import delta_m

#: Test metrics by start, arm and seed.
Metrics = dict[str, dict[str, dict[int, np.ndarray]]]


def write_report(directory: pathlib.Path) -> dict[str, Any]:
  """Writes ``summary.json`` and ``report.html`` of the study.

  Args:
    directory: folder that the study wrote; it need not be finished.

  Returns:
    The content of ``summary.json``: ``arms`` (by start and arm delta-m and the
    metrics, each with its interval), ``chosen`` (by start what merging chose),
    ``verdicts``, ``failures`` and ``notes``.

  Raises:
    ReportError: the folder holds no results.
  """
  config, notes, found = read_study(directory, 'starts', 'merging')
  if ADAMERGING not in config['merged']:
    notes.append(
      'AdaMerging is left out: it descends on the entropy of classes, and not '
      'every task has classes.'
    )
  columns = config['delta_m_metrics']
  metrics, failures = read_metrics(found)
  scores = read_scores(metrics, config, notes)
  arms = [
    {
      'start': start,
      'arm': arm,
      'delta_m': verdicts_.plain_values(
        scores.get(start, {}).get(arm, {}).values()
      ),
      'metrics': {
        name: verdicts_.plain_values([float(x[i]) for x in runs.values()])
        for i, name in enumerate(columns)
      },
    }
    for start, by_arm in metrics.items()
    for arm, runs in by_arm.items()
  ]
  chosen = read_chosen(found)
  summary = {
    'experiment': NAME,
    'preset': config['preset'],
    'suite': config['suite'],
    'tasks': config['tasks'],
    'units': config.get('units', {}),
    'arms': arms,
    'chosen': chosen,
    'failures': failures,
    'notes': notes,
  }
  wanted = config['seeds'] * len(config['starts'])
  done = sum(len(runs) for runs in found.values())
  return verdicts_.write_claims(
    directory,
    summary,
    claims(scores, config['merged'], config['min_seeds']),
    title='merging',
    lead=f'{done} of {wanted} starts finished. Suite: {config["suite"]}. '
    f'Preset: {config["preset"]}.',
    how=_how(config),
    tables=[
      {
        'title': f'From the {start} start',
        'text': 'Delta-m against each task alone (percent, lower is better) '
        'and metrics on test, means over seeds; the interval is of delta-m, '
        '95 %.',
        'columns': _arm_columns(arms, start, config.get('units', {})),
      }
      for start in metrics
    ]
    + [
      {
        'title': 'What merging chose',
        'text': 'Means over seeds: the scales that are best on validation, the '
        'coefficients of AdaMerging by task and the entropy before and after '
        'it, and the cosine of task vectors, a mean over pairs of tasks.',
        'columns': _chosen_columns(chosen),
      }
    ],
    sections=[],
    config=config,
  )


def read_metrics(found: Seeds) -> tuple[Metrics, list[dict[str, Any]]]:
  """Test metrics of what is finite, and what is not."""
  metrics: Metrics = {}
  failures = []
  for start, runs in found.items():
    for arm in ARMS:
      for seed, arrays in sorted(runs.items()):
        if f'test/{arm}' not in arrays:
          continue
        values = arrays[f'test/{arm}']
        if np.isfinite(values).all():
          by_arm = metrics.setdefault(start, {})
          by_arm.setdefault(arm, {})[seed] = values
        else:
          failures.append(
            {
              'method': f'{start}.{arm}',
              'seed': str(seed),
              'reason': 'a test metric is not a finite number',
            }
          )
  return metrics, failures


def read_scores(
  metrics: Metrics, config: Mapping[str, Any], notes: list[str]
) -> dict[str, dict[str, dict[int, float]]]:
  """Delta-m by start, arm and seed, against the mean of each task alone."""
  higher = [config['higher_is_better'][x] for x in config['delta_m_metrics']]
  scores: dict[str, dict[str, dict[int, float]]] = {}
  for start, by_arm in metrics.items():
    alone = by_arm.get(ALONE)
    base = np.mean(list(alone.values()), axis=0) if alone else None
    if base is None or not (base > 0).all():
      notes.append(
        f'{start} has no delta-m: the metrics of each task alone are not there '
        'or not positive.'
      )
      continue
    scores[start] = {
      arm: {seed: float(delta_m(x, base, higher)) for seed, x in runs.items()}
      for arm, runs in by_arm.items()
    }
  return scores


def read_chosen(found: Seeds) -> list[dict[str, Any]]:
  """What merging chose from each start, means over seeds."""
  rows = []
  for start, runs in found.items():

    def mean(name, runs=runs):
      values = [x[f'chosen/{name}'] for x in runs.values()]
      return np.mean(values, axis=0)

    cosines = mean('cosines')
    row: dict[str, Any] = {
      'start': start,
      ARITHMETIC: float(mean(ARITHMETIC)),
      TIES: float(mean(TIES)),
      'cosine': verdicts_.finite(
        float(np.mean(cosines[np.triu_indices(len(cosines), 1)]))
      ),
    }
    if all('chosen/coefficients' in x for x in runs.values()):
      entropies = mean('entropies')
      row |= {
        'coefficients': [
          verdicts_.finite(float(x)) for x in mean('coefficients')
        ],
        'entropies': [verdicts_.finite(float(x)) for x in entropies[[0, -1]]],
      }
    rows.append(row)
  return rows


def _arm_columns(
  arms: Sequence[Mapping[str, Any]], start: str, units: Mapping[str, str]
) -> list[Column]:
  def value(name, found):
    share = units.get(name) == '%'
    return f'{100 * found["mean"]:.2f}' if share else f'{found["mean"]:.4g}'

  def score(found):
    if found is None:
      return MISSING, MISSING
    if found['low'] is None:
      return f'{found["mean"]:+.2f}', MISSING
    ends = f'[{found["low"]:+.2f}, {found["high"]:+.2f}]'
    return f'{found["mean"]:+.2f}', ends

  names = list(arms[0]['metrics'])
  return columns_of(
    ('network', 'delta-m', 'interval', *names),
    [
      (
        x['arm'],
        *score(x['delta_m']),
        *(value(name, x['metrics'][name]) for name in names),
      )
      for x in arms
      if x['start'] == start
    ],
  )


def _chosen_columns(chosen: Sequence[Mapping[str, Any]]) -> list[Column]:
  def several(found):
    if found is None:
      return MISSING
    return ', '.join(MISSING if x is None else f'{x:.2f}' for x in found)

  return columns_of(
    (
      'start',
      f'scale of {ARITHMETIC}',
      f'scale of {TIES}',
      'coefficients',
      'entropy',
      'cosine',
    ),
    [
      (
        x['start'],
        f'{x[ARITHMETIC]:.2f}',
        f'{x[TIES]:.2f}',
        several(x.get('coefficients')),
        several(x.get('entropies')),
        several([x['cosine']]),
      )
      for x in chosen
    ],
  )


def _how(config: Mapping[str, Any]) -> list[str]:
  """How the numbers are to be read, in sentences."""
  count, steps = len(config['tasks']), config['steps']
  return [
    f'All networks of a seed begin at one, which the pretrained start has '
    f'trained for {config["start_steps"]} steps on the sum of the losses and '
    f"the random start has not. Each task's network takes {steps} steps on its "
    f'loss alone, the joint one {count * steps}: as many as all of them '
    'together, and the tasks alone stay as many networks. Not counted: the '
    f'{config["merge_steps"]} steps of AdaMerging, on inputs of the validation '
    'split without labels, and the passes over it that choose scales.',
    'Delta-m is the mean over metrics of the drop in percent against each '
    "task's network from the same start, mean over seeds. Last states count; "
    'none is selected.',
    'arithmetic and ties have the scale that is best on validation, of twenty '
    'from 0.1 to 2; ties keeps a fifth of each task vector, fixed has the '
    "scale 0.3 of task arithmetic's authors, mean that of 1 / T. adamerging "
    'has a coefficient a task and leaf, begins at 0.3, and takes the '
    "authors' Adam at 1e-3. start is where all began.",
    "Intervals of the claims are the wider of bootstrap and Student's t over "
    'seeds, at the level of Bonferroni for all numbers that the three claims '
    'compare; those of tables are of 95 % each.',
  ]


def print_tables(
  summary: Mapping[str, Any], console: rich.console.Console
) -> None:
  """Prints delta-m from each start, and the verdicts."""
  arms = summary['arms']
  for start in dict.fromkeys(x['start'] for x in arms):
    columns = _arm_columns(arms, start, summary['units'])
    verdicts_.print_columns(f'from the {start} start', columns, console)
  verdicts_.print_verdicts(summary['verdicts'], console)

"""The report of the study of groupings: correlations, worths, verdicts."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rich.console
import scipy.stats

from experiments.report import verdicts as verdicts_
from experiments.report.seeds import read_study
from experiments.report.tables import MISSING, Column, columns_of
from experiments.studies.grouping import groupings
from experiments.studies.grouping.affinities import chosen_grouping
from experiments.studies.grouping.claims import (
  ANY,
  BEST,
  NAME,
  PAIRS,
  SCORES,
  SHARE,
  TOGETHER,
  claims,
)

#: Of each seed, names to numbers.
Values = dict[str, dict[int, float]]
ARRAYS = ('validation', 'test', *(f'affinity/{x}' for x in SCORES))


def write_report(directory: pathlib.Path) -> dict[str, Any]:
  """Writes ``summary.json`` and ``report.html`` of the study.

  Args:
    directory: folder that the study wrote; it need not be finished.

  Returns:
    The content of ``summary.json``: ``numbers`` (by problem rank correlations
    and what groupings are worth, each with its interval), ``pairs`` (by problem
    means of gains and affinities over seeds), ``verdicts``, ``failures`` and
    ``notes``.

  Raises:
    ReportError: the folder holds no results.
  """
  config, notes, found = read_study(directory, 'problems', 'groups')
  numbers: dict[str, Values] = {}
  pairs, failures = {}, []
  for name, runs in found.items():
    facts = config['suites'][name]
    gains = read_gains(name, runs, facts, failures)
    if gains:
      affinity = {
        x: {seed: runs[seed][f'affinity/{x}'] for seed in gains} for x in SCORES
      }
      numbers[name] = read_numbers(gains, affinity, config['groups'])
      pairs[name] = _means(gains, affinity, facts['tasks'])
  shown = {
    name: {x: verdicts_.plain_values(y.values()) for x, y in values.items()}
    for name, values in numbers.items()
  }
  summary = {
    'experiment': NAME,
    'preset': config['preset'],
    'numbers': shown,
    'pairs': pairs,
    'failures': failures,
    'notes': notes,
  }
  wanted = config['seeds'] * len(config['problems'])
  done = sum(len(runs) for runs in found.values())
  return verdicts_.write_claims(
    directory,
    summary,
    claims(numbers, config['min_seeds']),
    title='groups of tasks',
    lead=f'{done} of {wanted} problems and seeds finished. '
    f'Preset: {config["preset"]}.',
    how=_how(config),
    tables=[_number_table(shown)]
    + [_pair_table(name, rows) for name, rows in pairs.items()],
    sections=[],
    config=config,
  )


def read_gains(
  name: str,
  runs: Mapping[int, Mapping[str, np.ndarray]],
  facts: Mapping[str, Any],
  failures: list[dict[str, Any]],
) -> dict[int, dict[str, np.ndarray]]:
  """Gains on validation and test, by seed; ``failures`` gets what has none."""
  higher = np.array(facts['higher_is_better'])
  inside = groupings.masks(len(higher)) > 0
  found = {}
  for seed, arrays in sorted(runs.items()):
    try:
      finite = all(
        np.isfinite(
          arrays[x][inside] if x in ('validation', 'test') else arrays[x]
        ).all()
        for x in ARRAYS
      )
      if not finite:
        raise ValueError('a metric or an affinity is not a finite number')
      found[seed] = {
        split: groupings.relative_gains(arrays[split], higher)
        for split in ('validation', 'test')
      }
    except ValueError as error:
      failures.append({'method': name, 'seed': str(seed), 'reason': str(error)})
  return found


def read_numbers(
  gains: Mapping[int, Mapping[str, np.ndarray]],
  affinity: Mapping[str, Mapping[int, np.ndarray]],
  most: int,
) -> Values:
  """What the claims compare, by name and seed.

  Args:
    gains: by seed, of ``validation`` and ``test``, ``(2**T - 1, T)``.
    affinity: by score and seed, ``(T, T)``.
    most: groups of a grouping.
  """
  num_tasks = next(iter(gains.values()))['test'].shape[1]
  every = groupings.groupings(num_tasks, most)
  pairs = {k: groupings.pair_gains(x['test']) for k, x in gains.items()}
  numbers: Values = {f'correlation/{x}': {} for x in SCORES}
  numbers['ceiling'] = {}
  for seed, found in gains.items():
    worth = lambda grouping, of=found: groupings.worth(of['test'], grouping)
    chosen = {x: chosen_grouping(affinity[x][seed], most) for x in SCORES}
    known = groupings.pair_gains(found['validation'])
    chosen[PAIRS] = chosen_grouping(known, most)
    chosen[TOGETHER] = (2**num_tasks - 1,)
    chosen[BEST] = max(
      every, key=lambda x, of=found: groupings.worth(of['validation'], x)
    )
    for name, grouping in chosen.items():
      numbers.setdefault(f'worth/{name}', {})[seed] = worth(grouping)
    numbers.setdefault(f'worth/{ANY}', {})[seed] = float(
      np.mean([worth(x) for x in every])
    )
    for score in SCORES:
      _keep(
        numbers[f'correlation/{score}'],
        seed,
        affinity[score][seed],
        pairs[seed],
      )
    others = [x for k, x in pairs.items() if k != seed]
    if others:
      _keep(numbers['ceiling'], seed, np.mean(others, axis=0), pairs[seed])
  return numbers


def _keep(
  found: dict[int, float], seed: int, a: np.ndarray, b: np.ndarray
) -> None:
  """Spearman's correlation over ordered pairs, where both have an order."""
  x, y = map(groupings.off_diagonal, (a, b))
  if np.ptp(x) > 0 and np.ptp(y) > 0:
    found[seed] = float(scipy.stats.spearmanr(x, y).statistic)


def _means(gains, affinity, tasks: Sequence[str]) -> list[dict[str, Any]]:
  """A row for each ordered pair: means over seeds."""
  gain = np.mean(
    [groupings.pair_gains(x['test']) for x in gains.values()], axis=0
  )
  mean = {x: np.mean(list(y.values()), axis=0) for x, y in affinity.items()}
  return [
    {'from': a, 'to': b, 'gain': float(gain[s, t])}
    | {x: float(mean[x][s, t]) for x in SCORES}
    for s, a in enumerate(tasks)
    for t, b in enumerate(tasks)
    if s != t
  ]


def _number_table(shown: Mapping[str, Any]) -> dict[str, Any]:
  return {
    'title': 'Problems',
    'text': 'Rank correlations with gains of pairs, and what tasks gain, in '
    'percent of their metric alone, in the grouping that each chooses; means '
    'over seeds with intervals of 95 %.',
    'columns': _number_columns(shown),
  }


def _number_columns(shown: Mapping[str, Any]) -> list[Column]:
  def text(found):
    if found is None:
      return MISSING
    if found['low'] is None:
      return f'{found["mean"]:+.2f}'
    return f'{found["mean"]:+.2f} [{found["low"]:+.2f}, {found["high"]:+.2f}]'

  names = dict.fromkeys(x for found in shown.values() for x in found)
  return columns_of(
    ('number', *shown),
    [(x, *(text(found.get(x)) for found in shown.values())) for x in names],
  )


def _pair_table(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  return {
    'title': f'Pairs of {name}',
    'text': 'What the second task gains from the first, in percent of its '
    'metric alone, and the affinities; means over seeds.',
    'columns': columns_of(
      ('from', 'to', 'gain', *SCORES),
      [
        (
          x['from'],
          x['to'],
          f'{x["gain"]:+.2f}',
          *(f'{x[score]:+.2e}' for score in SCORES),
        )
        for x in sorted(rows, key=lambda x: -x['gain'])
      ],
    ),
  }


def _how(config: Mapping[str, Any]) -> list[str]:
  """How the numbers are to be read, in sentences."""
  return [
    'Every group of tasks is trained from the same parameters on the same '
    f'batches for {config["steps"]} steps. A gain is the change of the score '
    'of a task on test in percent of that of its network alone, of the same '
    'seed; last states count.',
    'Affinities are means over the training of all tasks together, every '
    f'{config["probe_every"]} steps on the batch trained on next. lookahead '
    'is what a step on one task takes from the loss of another; proximal what '
    'it adds to the own step of the other, heads included; cosine that of '
    'gradients on shared parameters.',
    f'Groupings have at most {config["groups"]} groups. Each score chooses by '
    'exact search the one with the most mean affinity inside of its groups; '
    'pairs chooses so by measured gains of pairs on validation. best is the '
    'grouping with the most gain on validation, of all; its worth, like that '
    'of the others, is on test. random is the mean of all groupings, together '
    'that with all tasks in one; every task alone would be worth 0.',
    'ceiling is how the mean gains of all other seeds rank the pairs of a '
    'seed: no score of the tasks can be expected to do better. '
    f'GR4 asks for {SHARE:g} of the way from random to best.',
    "Intervals of the claims are the wider of bootstrap and Student's t over "
    'seeds, at the level of Bonferroni for all numbers that the four claims '
    'compare; those only shown and those of tables are of 95 % each.',
  ]


def print_tables(
  summary: Mapping[str, Any], console: rich.console.Console
) -> None:
  """Prints the numbers of each problem, and the verdicts."""
  verdicts_.print_columns(
    'problems', _number_columns(summary['numbers']), console
  )
  verdicts_.print_verdicts(summary['verdicts'], console)

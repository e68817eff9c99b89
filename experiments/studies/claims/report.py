"""The report of the study of single claims."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import rich.console

from experiments.report import files
from experiments.report import verdicts as verdicts_
from experiments.report.results import Results, read_results
from experiments.report.tables import Column, columns_of
from experiments.studies.claims.claims import claims
from experiments.studies.claims.measures import ScoredRun, mean_score
from experiments.studies.claims.rules import (
  COSTS,
  FIRST_STEP,
  NAME,
  QUADRATICS,
  TRAIN_LOSS,
)

PROBED = ('losses', 'norms', 'weights')


def write_report(directory: pathlib.Path) -> dict[str, Any]:
  """Writes ``summary.json`` and ``report.html`` of the study.

  Args:
    directory: folder that the study wrote; it need not be finished.

  Returns:
    The content of ``summary.json``: ``scores`` (by problem and arm),
    ``verdicts``, ``failures`` and ``notes``.

  Raises:
    ReportError: the folder holds no results.
  """
  results = read_results(directory)
  config = results.config
  table = read_table(directory, results)
  points, costs = read_points(results)
  scores = [
    {
      'problem': problem,
      'arm': arm,
      'score': verdicts_.plain_values([mean_score(x) for x in rows.values()]),
      'least': verdicts_.plain_values(
        [float(x.scores.min()) for x in rows.values()]
      ),
    }
    for problem, found in table.items()
    for arm, rows in found.items()
  ]
  summary = {
    'experiment': NAME,
    'preset': config['preset'],
    'scores': scores,
    'failures': results.failures,
    'notes': results.notes,
  }
  first = -(-FIRST_STEP // config['probe_every'])
  return verdicts_.write_claims(
    directory,
    summary,
    claims(table, points, costs, config['min_seeds'], first),
    title='claims on methods',
    lead=f'{results.finished} Preset: {config["preset"]}.',
    how=_how(config),
    tables=[
      {
        'title': f'Scores on {problem}',
        'text': 'On test, in percent, with intervals of 95 % over seeds: mean '
        'over tasks, and the least of them.',
        'columns': _columns([x for x in scores if x['problem'] == problem]),
      }
      for problem in table
    ],
    sections=[],
    config=config,
  )


def read_table(
  directory: pathlib.Path, results: Results
) -> dict[str, dict[str, dict[int, ScoredRun]]]:
  """The finished runs on suites; `results.notes` says what is left out."""
  table: dict[str, dict[str, dict[int, ScoredRun]]] = {}
  for run in results.runs:
    problem, _, arm = run.method.rpartition('.')
    facts = results.config['suites'].get(problem)
    if run.problem or facts is None:
      continue
    tasks, factors = facts['tasks'], np.array(facts['factors'])
    column = lambda form, tasks=tasks, run=run: np.array(
      [run.values[form.format(task)] for task in tasks]
    )
    try:
      row = ScoredRun(
        scores=100
        * np.array([run.values[f'test/{x}'] for x in facts['scores']]),
        validation=run.values['validation/score'],
        train=factors * column(TRAIN_LOSS + '/{}'),
        test=factors * column('test/loss/{}'),
        probes=_read_probes(run.probe(directory)),
      )
    except (KeyError, ValueError, OSError) as error:
      results.notes.append(
        f'runs/{run.method}/seed_{run.seed} is left out: {error}.'
      )
      continue
    table.setdefault(problem, {}).setdefault(arm, {})[int(run.seed)] = row
  return table


def _read_probes(path: pathlib.Path) -> dict[str, np.ndarray] | None:
  """What was measured inside training; None where nothing was."""
  if not path.exists():
    return None
  values = files.read_probe(path, PROBED)
  return {name: values[:, i] for i, name in enumerate(PROBED)}


def read_points(results: Results):
  """What quadratics ended with, by arm and seed, and operations of steps."""
  points: dict[str, dict[int, dict[str, float]]] = {}
  costs: dict[tuple[str, int], float] = {}
  for run in results.runs:
    problem, _, arm = run.method.rpartition('.')
    if run.problem:
      continue
    if problem == COSTS:
      name, _, count = arm.rpartition('_')
      costs[name, int(count)] = run.values['operations']
    elif problem == QUADRATICS:
      row = {x: run.values[f'test/{x}'] for x in ('stationarity', 'gap')}
      points.setdefault(arm, {})[int(run.seed)] = row
  return points, costs


def _columns(scores: list[Mapping[str, Any]]) -> list[Column]:
  def ends(found):
    if found['low'] is None:
      return '-'
    return f'[{found["low"]:.2f}, {found["high"]:.2f}]'

  return columns_of(
    ('arm', 'seeds', 'score', 'interval', 'least', 'its interval'),
    [
      (
        x['arm'],
        str(x['score']['n']),
        f'{x["score"]["mean"]:.2f}',
        ends(x['score']),
        f'{x["least"]["mean"]:.2f}',
        ends(x['least']),
      )
      for x in scores
    ],
  )


def _how(config: Mapping[str, Any]) -> list[str]:
  """How the numbers are to be read, in sentences."""
  return [
    f'A run is {config["steps"]} steps of Adam from '
    f'{config["learning_rate"]:g} to zero along a cosine, and its last state '
    'counts. Of a seed all arms '
    'begin at the same parameters and see the same batches; differences are '
    'taken seed by seed.',
    'A score is the share of the variance explained, or the accuracy or area '
    'under the curve, so scales of losses are not in it.',
    'All arms have one learning rate; only the sum is trained at three, for '
    'B2.',
    "Intervals of the claims are the wider of bootstrap and Student's t over "
    'seeds, at the level of Bonferroni for all numbers that the claims '
    'compare; those only shown likewise.',
    'Claims that are algebra are tests, not rows here; see the page.',
  ]


def print_tables(
  summary: Mapping[str, Any], console: rich.console.Console
) -> None:
  """Prints the scores on each problem, and the verdicts."""
  verdicts_.print_by_problem(
    'scores on {}', summary['scores'], _columns, console
  )
  verdicts_.print_verdicts(summary['verdicts'], console)

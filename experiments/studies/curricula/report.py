"""The report of the study of curricula."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import rich.console

from experiments.report import verdicts as verdicts_
from experiments.report.results import Results, read_results
from experiments.report.tables import Column, columns_of
from experiments.studies.curricula.claims import (
  BOTH,
  NAME,
  RANDOM,
  claims,
  gains,
)

#: Of a problem's tasks, and in words.
SCORES = {'accuracy': 'accuracy', 'explained': 'explained variance'}
COSTS = ('cost', 'optimum', 'z', 'gap')


def write_report(directory: pathlib.Path) -> dict[str, Any]:
  """Writes ``summary.json`` and ``report.html`` of the study.

  Args:
    directory: folder that the study wrote; it need not be finished.

  Returns:
    The content of ``summary.json``: ``score``, ``arms`` (the score by problem
    and arm, and the points more than random orders), ``verdicts``, ``failures``
    and ``notes``.

  Raises:
    ReportError: the folder holds no results.
  """
  results = read_results(directory)
  config = results.config
  score, scores, orders = read_scores(results)
  arms = [
    {
      'problem': problem,
      'arm': arm,
      'score': verdicts_.plain_values(runs.values()),
      'gain': verdicts_.plain_values(
        gains({problem: scores[problem]}, arm, RANDOM).values()
      ),
    }
    for problem, found in scores.items()
    for arm, runs in found.items()
  ]
  summary = {
    'experiment': NAME,
    'preset': config['preset'],
    'score': score,
    'arms': arms,
    'failures': results.failures,
    'notes': results.notes,
  }
  return verdicts_.write_claims(
    directory,
    summary,
    claims(scores, orders, config['min_seeds'], score),
    title='curricula',
    lead=f'{results.finished} Preset: {config["preset"]}.',
    how=_how(config),
    tables=[
      {
        'title': f'{score.capitalize()} on {problem}',
        'text': 'Mean over tasks on test, in percent, and points more than '
        'random orders, with intervals of 95 % over seeds.',
        'columns': _columns([x for x in arms if x['problem'] == problem]),
      }
      for problem in scores
    ],
    sections=[],
    config=config,
  )


def read_scores(results: Results):
  """The score in words, by problem, arm and seed, and what orders cost."""
  score = 'accuracy'
  scores: dict[str, dict[str, dict[int, float]]] = {}
  orders: dict[str, dict[int, dict[str, float]]] = {}
  for run in results.runs:
    problem, _, arm = run.method.partition('.')
    names = [x for x in SCORES if f'test/{x}' in run.values]
    if run.problem or not names:
      continue
    score = SCORES[names[0]]
    found = scores.setdefault(problem, {}).setdefault(arm, {})
    found[int(run.seed)] = run.values[f'test/{names[0]}']
    if arm == BOTH and all(x in run.values for x in COSTS):
      costs = {x: run.values[x] for x in COSTS}
      orders.setdefault(problem, {})[int(run.seed)] = costs
  return score, scores, orders


def _columns(arms: Sequence[Mapping[str, Any]]) -> list[Column]:
  def text(found, form, factor=1.0):
    return '-' if found is None else form.format(factor * found['mean'])

  def ends(found):
    if found is None or found['low'] is None:
      return '-'
    return f'[{found["low"]:+.2f}, {found["high"]:+.2f}]'

  return columns_of(
    ('arm', 'seeds', 'score', 'more than random', 'interval'),
    [
      (
        x['arm'],
        str(x['score']['n']),
        text(x['score'], '{:.2f}', 100.0),
        text(x['gain'], '{:+.2f}'),
        ends(x['gain']),
      )
      for x in arms
    ],
  )


def _how(config: Mapping[str, Any]) -> list[str]:
  """How the numbers are to be read, in sentences."""
  return [
    'Of a seed all arms begin at one base model, trained for '
    f'{config["base_steps"]} steps on batches of all tasks, and take as many '
    'steps; a batch is of one task but in the arm mixed, which is plain '
    'training.',
    'A task is embedded by the mean features of its instances in the base '
    'model; an instance is as difficult as its logit is on the wrong side, or '
    'as its squared error is large. '
    f'Where instances are ordered, the share {config["drop"]:g} of the most '
    'difficult of a task is left out. These are readings of ours: the paper '
    'has embeddings of sentences, and neither constants nor code are public.',
    'The arm reversed has unlike tasks side by side, and instances from '
    'difficult to easy.',
    "Intervals of the claims are the wider of bootstrap and Student's t over "
    'seeds, at the level of Bonferroni for all numbers that the three claims '
    'compare; those only shown are of 95 % each.',
  ]


def print_tables(
  summary: Mapping[str, Any], console: rich.console.Console
) -> None:
  """Prints the scores on each problem, and the verdicts."""
  verdicts_.print_by_problem(
    summary['score'] + ' on {}', summary['arms'], _columns, console
  )
  verdicts_.print_verdicts(summary['verdicts'], console)

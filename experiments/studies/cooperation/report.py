"""The report of the study of sub-models that cooperate."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import rich.console

from experiments.report import verdicts as verdicts_
from experiments.report.results import Results, read_results
from experiments.report.tables import Column, columns_of
from experiments.studies.cooperation.claims import (
  COMPARED,
  JOINT,
  MOVED_TIMES,
  MOVES,
  NAME,
  NOISES,
  Found,
  claims,
  differences,
)


def write_report(directory: pathlib.Path) -> dict[str, Any]:
  """Writes ``summary.json`` and ``report.html`` of the study.

  Args:
    directory: folder that the study wrote; it need not be finished.

  Returns:
    The content of ``summary.json``: ``arms`` (by problem and arm the accuracy,
    the points more than joint training, and the changes of the loss),
    ``verdicts``, ``failures`` and ``notes``.

  Raises:
    ReportError: the folder holds no results.
  """
  results = read_results(directory)
  config = results.config
  runs = read_runs(results)
  arms = [
    {
      'problem': problem,
      'arm': arm,
      'accuracy': verdicts_.plain_values(
        [100 * x.accuracy for x in seeds.values()]
      ),
      'gain': verdicts_.plain_values(
        differences(runs, [problem], arm, JOINT, 'accuracy').values()
      ),
      **{
        name: verdicts_.plain_values([getattr(x, name) for x in seeds.values()])
        for name in ('loss', 'params_change', 'features_change')
      },
    }
    for problem, found in runs.items()
    for arm, seeds in found.items()
  ]
  summary = {
    'experiment': NAME,
    'preset': config['preset'],
    'arms': arms,
    'failures': results.failures,
    'notes': results.notes,
  }
  return verdicts_.write_claims(
    directory,
    summary,
    claims(runs, config['bounds'], config['min_seeds']),
    title='cooperation',
    lead=f'{results.finished} Preset: {config["preset"]}.',
    how=_how(config),
    tables=[
      {
        'title': f'Arms on {problem}',
        'text': 'Mean over both tasks on test: accuracy in percent, points '
        'more than joint training with intervals of 95 % over seeds, the loss, '
        'and how much it rises when the other sub-model is moved.',
        'columns': _columns([x for x in arms if x['problem'] == problem]),
      }
      for problem in runs
    ],
    sections=[],
    config=config,
  )


def read_runs(results: Results) -> dict[str, dict[str, dict[int, Found]]]:
  """What runs ended with, by problem, arm and seed."""
  runs: dict[str, dict[str, dict[int, Found]]] = {}
  for run in results.runs:
    problem, _, arm = run.method.partition('.')
    if run.problem or not all(x in run.values for x in Found._fields):
      continue
    found = Found(*(run.values[x] for x in Found._fields))
    runs.setdefault(problem, {}).setdefault(arm, {})[int(run.seed)] = found
  return runs


def _columns(arms: Sequence[Mapping[str, Any]]) -> list[Column]:
  def text(found, form):
    return '-' if found is None else form.format(found['mean'])

  def ends(found):
    if found is None or found['low'] is None:
      return '-'
    return f'[{found["low"]:+.2f}, {found["high"]:+.2f}]'

  heads = ('arm', 'seeds', 'accuracy', 'more than joint', 'interval', 'loss')
  return columns_of(
    (*heads, 'by parameters', 'by features'),
    [
      (
        x['arm'],
        str(x['accuracy']['n']),
        text(x['accuracy'], '{:.2f}'),
        text(x['gain'], '{:+.2f}'),
        ends(x['gain']),
        text(x['loss'], '{:.3f}'),
        text(x['params_change'], '{:+.4f}'),
        text(x['features_change'], '{:+.4f}'),
      )
      for x in arms
    ],
  )


def _how(config: Mapping[str, Any]) -> list[str]:
  """How the numbers are to be read, in sentences."""
  return [
    'All arms of a seed begin at the same parameters and see the same batches '
    f'for {config["passes"]} passes, and their last state is measured. Each '
    'sub-model is updated once a batch in all of them.',
    'joint descends the sum of the losses through all features; the others '
    'descend the own loss of a sub-model, for which the features of the other '
    'are constants: in turn, both at once (together), or without them (apart).',
    f'uniform moves the features of the other by noise, {NOISES} a step, the '
    'loss of which is averaged, ascent by a step along the normalised '
    'gradient. Bounds are relative: to the root mean square of the features, '
    f'or their norm. The first {100 * config["warmup"]:g} % of the steps are '
    'without. These are readings of ours: neither the loops nor the constants '
    'of the paper are public.',
    'by parameters and by features: mean rise of the loss by uniform noise on '
    f'the parameters of the other sub-model, within {MOVES["params"]:g} of the '
    'root mean square of each array, or on its features, within '
    f'{MOVES["features"]:g}; drawn {MOVED_TIMES} times.',
    "Intervals of the claims are the wider of bootstrap and Student's t over "
    f'seeds, at the level of Bonferroni for all {COMPARED} numbers that the '
    'three claims compare; those only shown are of 95 % each.',
  ]


def print_tables(
  summary: Mapping[str, Any], console: rich.console.Console
) -> None:
  """Prints the arms on each problem, and the verdicts."""
  verdicts_.print_by_problem('arms on {}', summary['arms'], _columns, console)
  verdicts_.print_verdicts(summary['verdicts'], console)

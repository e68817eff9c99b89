"""The claims T3 to T6, and the rules by which they are decided."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from experiments.report import verdicts
from experiments.report.statistics import corrected
from experiments.studies.tfcl.problems import CARRIERS, RARE

NAME = 'tfcl'
#: By problem, method and seed: the errors of the tasks, ``(T,)``.
Errors = Mapping[str, Mapping[str, Mapping[int, np.ndarray]]]
#: Numbers that T3 and T4 compare, and T5 and T6.
COMPARED = 3


def claims(errors: Errors, min_seeds: int) -> list[verdicts.Verdict]:
  """The verdicts on T3 and T4, and where flights were fitted on T5 and T6."""
  real = CARRIERS in errors
  drawn = _drawn(errors, min_seeds) if set(errors) != {CARRIERS} else []
  return drawn + (_real(errors, min_seeds) if real else [])


def _drawn(errors: Errors, min_seeds: int) -> list[verdicts.Verdict]:
  return [
    verdicts.verdict(
      'T3',
      'Where groups of tasks would harm each other, TFCL has a lower error '
      'than a penalty on the trace norm or on the norms of features.',
      'on groups both differences of the error, mean over tasks, are below 0, '
      'each method at the strength that is best on validation. Controls: '
      'one_group, where there is nothing to keep apart, and tasks alone.',
      _less(errors, 'groups', 'tfcl', 'trace', 'below')
      + _less(errors, 'groups', 'tfcl', 'l21', 'below')
      + _less(errors, 'groups', 'tfcl', 'alone')
      + _less(errors, 'one_group', 'tfcl', 'trace')
      + _less(errors, 'one_group', 'tfcl', 'l21')
      + _less(errors, 'one_group', 'tfcl', 'pooled'),
      min_seeds=min_seeds,
    ),
    verdicts.verdict(
      'T4',
      'With parts of all tasks and of single ones TFCL stands tasks that have '
      'nothing in common with the rest.',
      'on hard the error of the extension, mean over tasks, is lower than '
      'without.',
      _less(errors, 'hard', 'tfcl_extended', 'tfcl', 'below')
      + _less(errors, 'hard', 'tfcl_extended', 'alone')
      + _less(errors, 'hard', 'tfcl_extended', 'trace')
      + _less(errors, 'groups', 'tfcl_extended', 'tfcl'),
      min_seeds=min_seeds,
    ),
  ]


def _real(errors: Errors, min_seeds: int) -> list[verdicts.Verdict]:
  return [
    verdicts.verdict(
      'T5',
      'On flights, a task a carrier, TFCL has a lower error than a penalty on '
      'the trace norm or on the norms of features.',
      'on carriers both differences of the error, mean over tasks, are below '
      '0, each method at the strength and ridge that are best on validation. '
      'Controls: tasks alone, and one vector for all.',
      _less(errors, CARRIERS, 'tfcl', 'trace', 'below')
      + _less(errors, CARRIERS, 'tfcl', 'l21', 'below')
      + _less(errors, CARRIERS, 'tfcl', 'alone')
      + _less(errors, CARRIERS, 'tfcl', 'pooled'),
      min_seeds=min_seeds,
    ),
    verdicts.verdict(
      'T6',
      'On flights, with carriers that have few of them, parts of all tasks and '
      'of single ones make TFCL better.',
      'on carriers the error of the extension, mean over tasks, is lower than '
      f'without. Shown besides: over the {RARE} carriers with the fewest '
      'flights.',
      _less(errors, CARRIERS, 'tfcl_extended', 'tfcl', 'below')
      + _less(errors, CARRIERS, 'tfcl_extended', 'alone')
      + _less(errors, CARRIERS, 'tfcl_extended', 'trace')
      + _less(errors, CARRIERS, 'tfcl_extended', 'pooled')
      + _less(errors, CARRIERS, 'tfcl_extended', 'tfcl', last=RARE),
      min_seeds=min_seeds,
    ),
  ]


def _less(errors, problem, method, other, wanted=None, last=0):
  """Over all tasks, or the last so many."""
  found = errors.get(problem, {})
  ours, theirs = found.get(method, {}), found.get(other, {})
  where = f'the last {last} tasks of {problem}' if last else problem
  values = {
    seed: 100 * float(np.mean(ours[seed][-last:] - theirs[seed][-last:]))
    for seed in sorted(ours.keys() & theirs.keys())
  }
  return verdicts.measure(
    f'{where}: points of error, {method} less {other}',
    values,
    wanted,
    0.0,
    corrected(COMPARED),
  )

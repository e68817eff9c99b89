"""The claims T3 to T8, and the rules by which they are decided."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from experiments.report import verdicts
from experiments.report.statistics import corrected
from experiments.studies.tfcl.problems import CARRIERS, RARE, SCHOOLS

NAME = 'tfcl'
#: By problem, method and seed: the errors of the tasks, ``(T,)``.
Errors = Mapping[str, Mapping[str, Mapping[int, np.ndarray]]]
#: Numbers that T3 and T4 compare, T5 and T6, and T7 and T8.
COMPARED = 3
#: The claims on each real problem.
ON_REAL = {CARRIERS: ('T5', 'T6'), SCHOOLS: ('T7', 'T8')}


def claims(errors: Errors, min_seeds: int) -> list[verdicts.Verdict]:
  """The verdicts on T3 and T4, and on T5 to T8 where real tasks were fitted."""
  real = [problem for problem in ON_REAL if problem in errors]
  only_real = bool(errors) and set(errors) <= set(ON_REAL)
  found = [] if only_real else _drawn(errors, min_seeds)
  for problem in real:
    found += _real(errors, problem, ON_REAL[problem], min_seeds)
  return found


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


def _real(
  errors: Errors, problem: str, names: tuple[str, str], min_seeds: int
) -> list[verdicts.Verdict]:
  return [
    verdicts.verdict(
      names[0],
      f'On real tasks, {problem}, TFCL has a lower error than a penalty on the '
      'trace norm or on the norms of features.',
      f'on {problem} both differences of the error, mean over tasks, are below '
      '0, each method at the strength and ridge that are best on validation. '
      'Controls: tasks alone, and one vector for all.',
      _less(errors, problem, 'tfcl', 'trace', 'below')
      + _less(errors, problem, 'tfcl', 'l21', 'below')
      + _less(errors, problem, 'tfcl', 'alone')
      + _less(errors, problem, 'tfcl', 'pooled'),
      min_seeds=min_seeds,
    ),
    verdicts.verdict(
      names[1],
      f'On real tasks, {problem}, parts of all tasks and of single ones make '
      'TFCL better.',
      f'on {problem} the error of the extension, mean over tasks, is lower '
      f'than without. Shown besides: over the {RARE} tasks with the fewest '
      'rows.',
      _less(errors, problem, 'tfcl_extended', 'tfcl', 'below')
      + _less(errors, problem, 'tfcl_extended', 'alone')
      + _less(errors, problem, 'tfcl_extended', 'trace')
      + _less(errors, problem, 'tfcl_extended', 'pooled')
      + _less(errors, problem, 'tfcl_extended', 'tfcl', last=RARE),
      min_seeds=min_seeds,
    ),
  ]


def _less(errors, problem, method, other, wanted=None, last=0):
  """Over all tasks, or the last so many; 0 is all."""
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

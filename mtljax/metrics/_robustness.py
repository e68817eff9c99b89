"""How much more a multi-task model loses on corrupted data than single ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def robustness_delta(
  metric: ArrayLike,
  clean: ArrayLike,
  baseline: ArrayLike,
  baseline_clean: ArrayLike,
  *,
  higher_is_better: bool,
) -> float:
  r"""Loss of a task's metric on corrupted data, against single-task training.

  .. math:: \delta_t = \frac{1}{|C||S|} \sum_{c,s} (-1)^{p} \left[
      \frac{M_{c,s}}{M} - \frac{B_{c,s}}{B} \right]

  over corruptions c and severities s, with :math:`p = 1` where a higher value
  is better. Below zero, the multi-task model keeps more of its own clean
  metric than the single-task one does; it may still be the worse of the two.
  It is computed on the host in float64.

  ================================== ========================================
  input                              result
  ================================== ========================================
  the same shares of both are kept   0
  a corrupted metric is NaN          NaN
  a clean metric is not positive     ValueError
  ================================== ========================================

  Args:
    metric: the multi-task model's metric of one task, a value for each
      corruption and severity, shape ``(C, S)`` or any other.
    clean: its metric on clean data, a positive number.
    baseline: the single-task model's, in the shape of ``metric``.
    baseline_clean: its metric on clean data, a positive number.
    higher_is_better: of the metric.

  Returns:
    The mean difference of ratios; 0.01 is one percent of the clean metric.

  Raises:
    ValueError: shapes differ or are empty, or a clean metric is not a positive
      finite number.

  Example:
    The multi-task model falls from 0.8 to 0.6, the single-task one from 0.9 to
    0.63:

    >>> delta = robustness_delta(
    ...   [0.6], 0.8, [0.63], 0.9, higher_is_better=True
    ... )
    >>> round(delta, 4)
    -0.05

  References:
    Elich et al., `Examining Common Paradigms in Multi-Task Learning
    <https://arxiv.org/abs/2311.04698>`_, 2023, appendix.
  """
  metric = np.asarray(metric, np.float64)
  baseline = np.asarray(baseline, np.float64)
  if metric.shape != baseline.shape or not metric.size:
    raise ValueError(
      f'metric and baseline of shapes {metric.shape} and {baseline.shape} must '
      'have a value each for the same corruptions and severities.'
    )
  ratios = []
  for name, values, reference in (
    ('clean', metric, clean),
    ('baseline_clean', baseline, baseline_clean),
  ):
    number = np.asarray(reference, np.float64)
    if number.ndim or not np.isfinite(number) or number <= 0:
      raise ValueError(f'{name}={reference!r} must be positive and finite.')
    ratios.append(values / number)
  sign = -1.0 if higher_is_better else 1.0
  return float(sign * np.mean(ratios[0] - ratios[1]))

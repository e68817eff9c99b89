"""Mean and standard error over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Summary(NamedTuple):
  """What repeated runs say about one number.

  Attributes:
    mean: the mean.
    standard_error: the standard error of the mean; NaN for a single value.
    n: how many values.
  """

  mean: float
  standard_error: float
  n: int


def summarize(values: Iterable[float]) -> Summary:
  r"""Mean, standard error and count of repeated measurements.

  The standard error is that of the mean, from the sample deviation:

  .. math:: \mathrm{se} = \frac{1}{\sqrt n}
      \sqrt{\frac{1}{n - 1} \sum_i (x_i - \bar x)^2}

  ================= =====================================
  input             result
  ================= =====================================
  one value         standard error NaN
  equal values      standard error 0
  a NaN or infinity mean and standard error not finite
  no value          ValueError
  ================= =====================================

  Args:
    values: one number a run.

  Returns:
    The `Summary`.

  Raises:
    ValueError: there is no value.

  Example:
    >>> result = summarize([1.0, 2.0, 3.0])
    >>> result.mean, round(result.standard_error, 4), result.n
    (2.0, 0.5774, 3)
  """
  array = np.asarray(list(values), np.float64)
  if array.ndim != 1 or array.size == 0:
    raise ValueError(
      f'values must be one or more numbers, got shape {array.shape}.'
    )
  n = array.size
  if not np.all(np.isfinite(array)):
    return Summary(float(np.sum(array) / n), math.nan, n)
  error = float(np.std(array, ddof=1)) / math.sqrt(n) if n > 1 else math.nan
  return Summary(float(np.mean(array)), error, n)

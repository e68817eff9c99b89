"""Jacobians of every kind that a solver meets, as float64 numpy arrays."""

import numpy as np


def _hull_through_zero(rng, rows, columns):
  jacobian = rng.normal(size=(rows, columns))
  weights = rng.uniform(0.5, 1.5, rows)
  jacobian[-1] = -(weights[:-1] @ jacobian[:-1]) / weights[-1]
  return jacobian


def jacobians() -> dict[str, np.ndarray]:
  """Name to Jacobian ``(T, P)``, ``T`` at most 10."""
  rng = np.random.default_rng(0)
  out = {}
  for rows in (1, 2, 3, 5, 10):
    out[f'normal_{rows}'] = rng.normal(size=(rows, 20))
  out['more_rows_than_columns'] = rng.normal(size=(10, 7))
  for rows in (2, 5, 10):
    jacobian = rng.normal(size=(rows, 20))
    conflict = jacobian - 0.9 * jacobian.mean(0)
    out[f'conflict_{rows}'] = conflict
    out[f'conflict_scales_{rows}'] = (
      conflict * rng.permutation(np.logspace(-3, 3, rows))[:, None]
    )
    out[f'aligned_{rows}'] = np.abs(jacobian)
    out[f'scales_{rows}'] = jacobian * np.logspace(-10, 10, rows)[:, None]
  out['orthogonal'] = np.diag([1e-4, 1.0, 2.0, 30.0])
  out['one_short_row'] = rng.normal(size=(3, 9)) * [[1.0], [1e-9], [1.0]]
  out['equal_rows'] = rng.normal(size=(3, 9))[[0, 0, 1]]
  out['all_equal'] = rng.normal(size=(1, 9))[[0, 0, 0, 0]]
  return out


def degenerate() -> dict[str, np.ndarray]:
  """Name to Jacobian whose hull holds 0, or that has a row of zeros."""
  rng = np.random.default_rng(1)
  row = rng.normal(size=12)
  out = {
    'zero_row': rng.normal(size=(3, 8)) * [[1.0], [0.0], [1.0]],
    'zero_rows': rng.normal(size=(4, 8)) * [[0.0], [1.0], [0.0], [1.0]],
    'all_zero': np.zeros((3, 5)),
    'antiparallel': np.stack([row, -row]),
    'antiparallel_lengths': np.stack([row, -1e3 * row]),
    'antiparallel_and_one': np.stack([row, -2 * row, rng.normal(size=12)]),
    'rank_one': rng.normal(size=(3, 1)) * row,
    'rank_three': rng.normal(size=(10, 3)) @ rng.normal(size=(3, 12)),
    'underflow': np.stack([row, 1e-25 * row]),
  }
  for rows in (3, 10):
    out[f'stationary_{rows}'] = _hull_through_zero(rng, rows, 30)
  return out


def conditioned(rng, rows, condition):
  """Unit rows whose Gramian has about this condition number."""
  columns = rows + 16
  basis = np.linalg.qr(rng.normal(size=(rows, rows)))[0]
  frame = np.linalg.qr(rng.normal(size=(columns, rows)))[0].T
  spectrum = np.logspace(0, -0.5 * np.log10(condition), rows)
  jacobian = (basis * spectrum) @ frame
  return jacobian / np.linalg.norm(jacobian, axis=1, keepdims=True)


def many_tasks() -> dict[str, np.ndarray]:
  """Name to Jacobian with up to 64 tasks or a known condition number."""
  rng = np.random.default_rng(2)
  out = {}
  for rows in (40, 64):
    jacobian = rng.normal(size=(rows, 2 * rows))
    conflict = jacobian - 0.9 * jacobian.mean(0)
    lengths = rng.permutation(np.logspace(-10, 10, rows))[:, None]
    out[f'normal_{rows}'] = jacobian
    out[f'conflict_{rows}'] = conflict
    out[f'conflict_scales_{rows}'] = conflict * lengths
  for condition in (1e2, 1e3, 1e4, 1e6):
    for rows in (3, 10, 40):
      name = f'condition_{condition:.0e}_{rows}'
      out[name] = conditioned(rng, rows, condition)
      lengths = rng.permutation(np.logspace(-3, 3, rows))[:, None]
      out[f'{name}_scales'] = out[name] * lengths
  return out


def in_lanes(fun, gramians, *args, masks=None, dtype=np.float64, size=10):
  """Results of ``fun(gramians, *args, masks)``, compiled for one shape only.

  Args:
    fun: batched over the gramians and the masks.
    gramians: arrays of shape ``(T, T)``, ``T <= size``. They are padded with
      NaN, which is masked.
    *args: passed on.
    masks: one for each Gramian, or None for all tasks.
    dtype: of the Gramians.
    size: the number of rows after padding.

  Returns:
    One tuple for each Gramian: weights without the padding, as float64, and
    the residual.
  """
  lanes = 32
  out = []
  for first in range(0, len(gramians), lanes):
    chunk = gramians[first : first + lanes]
    big = np.full((lanes, size, size), np.nan)
    keep = np.zeros((lanes, size), bool)
    for i, gramian in enumerate(chunk):
      rows = len(gramian)
      big[i, :rows, :rows] = gramian
      keep[i, :rows] = True if masks is None else masks[first + i]
    weights, residuals = fun(big.astype(dtype), *args, keep)
    assert weights.dtype == dtype
    weights = np.asarray(weights, np.float64)
    for i, gramian in enumerate(chunk):
      rows = len(gramian)
      assert not weights[i, rows:].any()
      out.append((weights[i, :rows], float(residuals[i])))
  return out


def gramians_of(cases):
  """The Gramians of a dictionary of Jacobians."""
  return [jacobian @ jacobian.T for jacobian in cases.values()]

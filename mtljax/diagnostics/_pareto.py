"""Which of many solutions are worth having: Pareto sets and their volume."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mtljax import pareto


def non_dominated(
  points: ArrayLike, others: ArrayLike | None = None
) -> np.ndarray:
  r"""Marks the points that no other point dominates; lower is better.

  Point q dominates p if it is nowhere worse and somewhere better:

  .. math:: q \prec p \iff q_m \le p_m \; \forall m \text{ and }
     q_m < p_m \; \exists m

  Negate a column where higher is better. It is computed on the host, in N
  steps of memory N M.

  ==================== ====================================================
  input                result
  ==================== ====================================================
  equal points         none dominates the other: all are kept, or none
  a NaN in a point     not kept, and dominates nothing
  infinities           compared as numbers
  no points            an empty mask
  ==================== ====================================================

  Args:
    points: a row a solution and a column an objective, shape ``(N, M)``.
    others: who may dominate, shape ``(K, M)``; None: the points themselves.
      With the runs of another optimizer this counts those of one optimizer
      that the other does not beat.

  Returns:
    Bools, shape ``(N,)``.

  Raises:
    ValueError: the shapes do not fit.

  Example:
    >>> from mtljax.diagnostics import non_dominated
    >>> non_dominated([[1.0, 3.0], [2.0, 2.0], [2.0, 3.0]])
    array([ True,  True, False])

  References:
    Miettinen, `Nonlinear Multiobjective Optimization
    <https://doi.org/10.1007/978-1-4615-5563-6>`_, 1998, section 2.2.
  """
  points = _points('points', points)
  others = points if others is None else _points('others', others)
  if others.shape[1] != points.shape[1]:
    raise ValueError(
      f'others must have the {points.shape[1]} objectives of points, got '
      f'shape {others.shape}.'
    )
  kept = np.empty(len(points), bool)
  for i, point in enumerate(points):
    worse = np.all(others <= point, axis=1) & np.any(others < point, axis=1)
    kept[i] = not worse.any() and not np.isnan(point).any()
  return kept


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
  r"""The volume that the points dominate, up to a reference; higher is better.

  .. math:: \Lambda \Big( \bigcup_n [p_n, r] \Big)

  with :math:`\Lambda` the Lebesgue measure and all objectives minimised. It
  only compares sets under one reference, and its unit is the product of the
  objectives': put them on like scales first. Two objectives are swept exactly
  in float64; three or more need the package ``moocore``.

  ========================== ==============================================
  input                      result
  ========================== ==============================================
  no points                  0
  not below the reference    in some objective: such a point adds nothing
  an infinitely good point   infinite
  a NaN                      ValueError
  ========================== ==============================================

  Args:
    points: a row a solution and a column an objective, shape ``(N, M)``.
    reference: the worst corner, shape ``(M,)``, finite.

  Returns:
    The volume.

  Raises:
    ValueError: the shapes do not fit, a point is NaN, or the reference is not
      finite.
    ImportError: there are more than two objectives and moocore is not
      installed.

  Example:
    >>> from mtljax.diagnostics import hypervolume
    >>> hypervolume([[1.0, 3.0], [2.0, 2.0], [3.0, 3.0]], [4.0, 4.0])
    5.0

  References:
    Zitzler and Thiele, `Multiobjective Optimization Using Evolutionary
    Algorithms <https://doi.org/10.1007/BFb0056872>`_, 1998; in more than two
    dimensions the algorithms of `moocore
    <https://multi-objective.github.io/moocore/python/>`_.
  """
  points = _points('points', points)
  reference = np.asarray(reference, np.float64)
  if reference.shape != points.shape[1:]:
    raise ValueError(
      f'reference must have the {points.shape[1]} objectives of points, got '
      f'shape {reference.shape}.'
    )
  if not np.all(np.isfinite(reference)):
    raise ValueError(f'reference={reference} must be finite.')
  if np.isnan(points).any():
    raise ValueError(
      'points must not be NaN: leave out the runs that have failed.'
    )
  points = points[np.all(points < reference, axis=1)]
  if not len(points):
    return 0.0
  if np.isinf(points).any():
    return float('inf')
  if points.shape[1] == 1:
    return float(np.max(reference - points))
  if points.shape[1] > 2:
    found = _moocore('hypervolume of more than two objectives')
    return float(found.hypervolume(points, ref=reference))
  front = points[non_dominated(points)]
  x, y = front[np.lexsort((front[:, 1], front[:, 0]))].T
  above = np.concatenate([reference[1:], y[:-1]])
  return float(np.sum((reference[0] - x) * (above - y)))


def r2(
  points: ArrayLike, ideal: ArrayLike, *, parts: int | None = None
) -> float:
  r"""How near the points come to an ideal, over all weights; lower is better.

  .. math:: \int_\Delta \min_n \max_m w_m (p_{nm} - z_m) \, dw

  with the weights evenly over the simplex and all objectives minimised: a set
  is good that has a good point for everybody. Unlike the `hypervolume` it
  needs no worst corner, and dominated points change nothing.

  ========================== ==============================================
  input                      result
  ========================== ==============================================
  no points                  infinite
  a point at the ideal       0
  a NaN                      ValueError
  ========================== ==============================================

  Args:
    points: a row a solution and a column an objective, shape ``(N, M)``, none
      better than the ideal.
    ideal: z, shape ``(M,)``, finite.
    parts: None: the integral, for two objectives, by the package ``moocore``;
      or n: the mean over the weights that are multiples of 1 / n.

  Returns:
    The indicator.

  Raises:
    ValueError: the shapes do not fit, a point is NaN or better than the ideal,
      or there are not two objectives and no ``parts``.
    ImportError: moocore is needed and not installed.

  Example:
    >>> from mtljax.diagnostics import r2
    >>> round(r2([[1.0, 2.0], [2.0, 1.0]], [0.0, 0.0], parts=4), 3)
    0.9

  References:
    Hansen and Jaszkiewicz, Evaluating the Quality of Approximations to the
    Non-dominated Set, 1998; exactly, Schäpermeier and Kerschke, `R2 v2
    <https://arxiv.org/abs/2407.01504>`_, 2024
  """
  points = _points('points', points)
  ideal = np.asarray(ideal, np.float64)
  if ideal.shape != points.shape[1:] or not np.all(np.isfinite(ideal)):
    raise ValueError(
      f'ideal={ideal} must have the {points.shape[1]} objectives of points, '
      'each finite.'
    )
  if np.isnan(points).any() or np.any(points < ideal):
    raise ValueError(
      'points must not be NaN, nor better than the ideal: leave out the runs '
      'that have failed, and lower ideal.'
    )
  if not len(points):
    return float('inf')
  if parts is not None:
    # Those with objectives of weight 0 as well: all multiples.
    weights = pareto.grid(points.shape[1], parts)
    scores = np.max(weights[:, None] * (points - ideal)[None], axis=2)
    return float(np.mean(np.min(scores, axis=1)))
  if points.shape[1] != 2:
    raise ValueError(
      f'parts=None is for two objectives, points have {points.shape[1]}: give '
      'a number, 20 say.'
    )
  return float(_moocore('r2').r2_exact(points, ref=ideal))


def _moocore(what: str) -> Any:
  try:
    import moocore  # pyrefly: ignore[missing-import]
  except ImportError as error:
    raise ImportError(
      f"{what} needs moocore: pip install 'mtljax[experiments]'"
    ) from error
  return moocore


def _points(name: str, points: ArrayLike) -> np.ndarray:
  array = np.asarray(points, np.float64)
  if array.ndim != 2 or array.shape[1] == 0:
    raise ValueError(
      f'{name} must have a row a solution and a column an objective, got shape '
      f'{array.shape}.'
    )
  return array

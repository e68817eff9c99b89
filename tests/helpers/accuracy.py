"""Float32 weightings on float32 Gramians against exact ones in float64."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import zoo

import mtljax as mtl
from mtljax import weightings

SIZE = 64

METHODS: dict[str, Any] = {
  'mgda': weightings.mgda(),
  'cagrad': weightings.cagrad(c=0.4),
  'nash_mtl': weightings.nash_mtl(),
  'fairgrad(1)': weightings.fairgrad(alpha=1.0),
  'fairgrad(2)': weightings.fairgrad(alpha=2.0),
  'upgrad': weightings.upgrad(),
  'dual_proj': weightings.dual_proj(),
  'conic_grad': weightings.conic_grad(),
  'imtl_g': weightings.imtl_g(),
  'aligned_mtl': weightings.aligned_mtl(),
  'conflict_free': weightings.conflict_free(),
  'pcd': weightings.pcd(),
  'pivrg': weightings.pivrg(scores=np.ones(SIZE)),
}


class Case(NamedTuple):
  """A float32 Jacobian with one float32 and one float64 Gramian."""

  name: str
  jacobian: np.ndarray  # (T, P), float64 values that float32 holds
  single: np.ndarray  # (T, T), added up in float32
  double: np.ndarray
  condition: float  # of the row-normalised Gramian
  raw_condition: float  # of the Gramian


class Result(NamedTuple):
  """What a method made of a case."""

  case: Case
  error: float  # of the update, relative to the exact one's longest term
  relative: float  # relative to the exact update
  residual: float  # in float32
  exact_residual: float
  finite: bool


def _condition(gramian):
  values = np.linalg.eigvalsh(gramian)
  return float(values[-1] / max(values[0], 1e-300))


def bound(condition: float) -> float:
  """1e-4 up to a condition number of 1e3; beyond, ten times its rounding."""
  if condition <= 1e3:
    return 1e-4
  return 10 * float(np.finfo(np.float32).eps) * condition


def allowed(name: str, case: 'Case') -> float:
  """The bound of a method: Aligned-MTL's is that of the raw spectrum."""
  return bound(case.raw_condition if name == 'aligned_mtl' else case.condition)


def cases() -> list[Case]:
  """The zoo, and rows of a given condition number, up to 64 tasks."""
  out = []
  for name, jacobian in {**zoo.jacobians(), **zoo.many_tasks()}.items():
    narrow = jacobian.astype(np.float32)
    wide = narrow.astype(np.float64)
    double = wide @ wide.T
    norms = np.sqrt(np.diagonal(double))
    condition = _condition(double / norms[:, None] / norms)
    out.append(
      Case(
        name,
        wide,
        narrow @ narrow.T,
        double,
        condition,
        _condition(double / norms.max() ** 2),
      )
    )
  return out


def _solve(weighting, gramians, dtype):
  """Weights and residuals of all Gramians, by one program."""
  lanes = len(gramians)
  stack = np.zeros((lanes, SIZE, SIZE), dtype)
  masks = np.zeros((lanes, SIZE), bool)
  for lane, gramian in enumerate(gramians):
    rows = len(gramian)
    stack[lane, :rows, :rows] = gramian
    masks[lane, :rows] = True
  state = weighting.init(SIZE)

  def one(gramian, mask):
    losses = jnp.ones(SIZE, gramian.dtype)
    stats = mtl.TaskStats(losses=losses, gramian=gramian, mask=mask)
    weights, new = weighting.update(stats, state)
    return weights, getattr(new, 'residual', jnp.zeros((), jnp.float32))

  weights, residuals = jax.jit(jax.vmap(one))(stack, masks)
  assert weights.dtype == dtype
  return np.asarray(weights, np.float64), np.asarray(residuals, np.float64)


def measure(weighting: Any, given: list[Case]) -> list[Result]:
  """Runs a weighting on every case in both precisions; needs x64."""
  weights, residuals = _solve(weighting, [c.single for c in given], np.float32)
  exact, off = _solve(weighting, [c.double for c in given], np.float64)
  out = []
  for i, case in enumerate(given):
    rows = len(case.jacobian)
    w, e = weights[i, :rows], exact[i, :rows]
    terms = np.linalg.norm(case.jacobian, axis=1) * np.abs(e)
    miss = float(np.linalg.norm((w - e) @ case.jacobian))
    length = float(np.linalg.norm(e @ case.jacobian))
    out.append(
      Result(
        case,
        miss / max(float(terms.max()), 1e-300),
        miss / max(length, 1e-300),
        float(residuals[i]),
        float(off[i]),
        bool(np.all(np.isfinite(w))),
      )
    )
  return out

"""The solvers alone, and qpax beside them: ``python -m benchmarks.qp``.

For each number of tasks and family of Gramians, in float32: the error against
the same solver in float64 (whose residual is checked), the worst residual, the
iterations, and the time of one jitted call. The error is that of the update,
relative to the length of the combination's longest term, so it does not depend
on the lengths of the rows. Where ``qpax`` can be imported it solves MGDA's
problem and the projection too: as posed, and in this package's variables.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mtljax import solvers
from mtljax.solvers import _newton, _qp, _simplex

Solver = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


def families(num_tasks: int, seeds: int) -> dict[str, np.ndarray]:
  """Jacobians ``(seeds, T, P)`` with rows of like and of unlike lengths."""
  rng = np.random.default_rng(num_tasks)
  rows = rng.normal(size=(seeds, num_tasks, 2 * num_tasks + 20))
  conflict = rows - 0.5 * rows.mean(1, keepdims=True)
  lengths = np.logspace(-4, 4, num_tasks)
  lengths = np.stack([rng.permutation(lengths) for _ in range(seeds)])
  return {'even': conflict, '1e8': conflict * lengths[..., None]}


def upgrad(gramian: jax.Array) -> tuple[jax.Array, jax.Array]:
  """One projection for every task, summed."""
  eye = jnp.eye(gramian.shape[0], dtype=gramian.dtype) / gramian.shape[0]
  v, off = jax.vmap(lambda u: solvers.dual_cone(gramian, u))(eye)
  return jnp.sum(v, 0), jnp.max(off)


SOLVERS: dict[str, Solver] = {
  'min_norm (MGDA)': solvers.min_norm_simplex,
  'ball (CAGrad .4)': lambda g: solvers.ball_max_min(g, 0.4),
  'dual cone x T (UPGrad)': upgrad,
  'newton (Nash)': solvers.fair_newton,
  'newton (FairGrad 2)': lambda g: solvers.fair_newton(g, 2.0),
}


def _iterations(name: str, gramian: jax.Array) -> jax.Array:
  """Newton systems solved: Cholesky factorisations of ``T x T``."""
  unit, norms = solvers.row_normalize(gramian)
  used = norms > 0
  a = _simplex.inverse_norms(norms, used)
  if name.startswith('min_norm'):
    return _simplex.min_norm_point(unit, a, used)[2]
  if name.startswith('ball'):
    share = norms / jnp.max(norms) / norms.shape[0]
    slope = _qp.dot(unit, share)
    slope = slope / jnp.sqrt(_qp.dot(share, slope)) / 1.4
    radius = jnp.asarray(0.4 / 1.4, unit.dtype)
    return _simplex._largest_level(unit, a, slope, radius, used).inner
  if name.startswith('dual'):
    each = jax.vmap(lambda q: _qp.pivoted_qp(unit, q, used)[3])
    return jnp.max(each(unit))
  alpha = 1.0 if 'Nash' in name else 2.0
  logs = jnp.log(norms)
  start = jnp.exp((1 - alpha) / (1 + alpha) * (logs - jnp.mean(logs)))
  return _newton._solve(unit, start, 1 / alpha, used, 100).iterations


def _qpax_solvers() -> dict[str, Solver]:
  """MGDA's problem and one projection, by qpax."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      import qpax  # pyrefly: ignore[missing-import]
  except ImportError:
    return {}

  def min_norm(gramian, a):
    size = gramian.shape[0]
    zero, eye = jnp.zeros(size, gramian.dtype), jnp.eye(size)
    one = jnp.ones(1, gramian.dtype)
    out = qpax.solve_qp(gramian, zero, a[None], one, -eye, zero)
    return out[0], out[4]

  def raw(gramian):
    return min_norm(gramian, jnp.ones(gramian.shape[0], gramian.dtype))

  def unit(gramian):
    cosines, norms = solvers.row_normalize(gramian)
    a = jnp.min(norms) / norms
    y, converged = min_norm(cosines, a)
    return y * a, converged

  def dual_cone(gramian):
    size = gramian.shape[0]
    cosines, norms = solvers.row_normalize(gramian)
    eye, zero = jnp.eye(size), jnp.zeros(size, gramian.dtype)
    none = jnp.zeros((0, size), gramian.dtype)
    matrix = _qp.ridged(cosines, norms > 0)

    def one(q, n):
      out = qpax.solve_qp(matrix, q * n, none, zero[:0], -eye, zero)
      return out[0] / norms, out[4]

    x, converged = jax.vmap(one)(cosines, norms / size)
    return 1 / size + jnp.sum(x, 0), jnp.min(converged)

  return {
    'min_norm (MGDA), qpax raw': raw,
    'min_norm (MGDA), qpax': unit,
    'dual cone x T (UPGrad), qpax': dual_cone,
  }


def _error(jacobian: np.ndarray, w: np.ndarray, exact: np.ndarray) -> float:
  """Distance of the updates, relative to the exact one's longest term."""
  terms = np.linalg.norm(jacobian, axis=1) * np.abs(exact)
  off = np.linalg.norm((w - exact) @ jacobian)
  return float(off / terms.max())


def _median_ms(calls: dict[str, Callable[[], object]], repeats: int):
  """Median times in ms; the calls take turns, so that load hits all alike."""
  times: dict[str, list[float]] = {name: [] for name in calls}
  for call in calls.values():
    jax.block_until_ready(call())
  for _ in range(repeats):
    for name, call in calls.items():
      start = time.perf_counter()
      jax.block_until_ready(call())
      times[name].append(1e3 * (time.perf_counter() - start))
  return {name: statistics.median(t) for name, t in times.items()}


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--tasks', type=int, nargs='*', default=[2, 3, 8, 10, 40])
  parser.add_argument('--seeds', type=int, default=10)
  parser.add_argument('--repeats', type=int, default=30)
  args = parser.parse_args()
  others = _qpax_solvers()
  everything = {**SOLVERS, **others}
  print(
    '| T | rows | solver | worst error | worst residual | iterations '
    '(median, max) | ms |\n|---|---|---|---|---|---|---|'
  )
  for num_tasks in args.tasks:
    jitted = {name: jax.jit(fun) for name, fun in everything.items()}
    counts = {
      name: jax.jit(lambda g, name=name: _iterations(name, g))
      for name in SOLVERS
    }
    for family, jacobians in families(num_tasks, args.seeds).items():
      gramians = jacobians @ jacobians.swapaxes(1, 2)
      singles = [jnp.asarray(g, jnp.float32) for g in gramians]
      times = _median_ms(
        {n: lambda f=f, g=singles[0]: f(g) for n, f in jitted.items()},
        args.repeats,
      )
      exact = {}
      with jax.enable_x64(True):
        for name in SOLVERS:
          out = [jitted[name](jnp.asarray(g)) for g in gramians]
          assert max(float(r) for _, r in out) < 1e-6, name
          exact[name] = [np.asarray(w) for w, _ in out]
      for name, fun in jitted.items():
        base = name.partition(',')[0]
        errors, residuals = [], []
        for jacobian, gramian, reference in zip(
          jacobians, singles, exact[base], strict=True
        ):
          w, residual = fun(gramian)
          w = np.asarray(w, np.float64)
          if base.startswith('min_norm') and name != base:
            w = w / w.sum()
          errors.append(_error(jacobian, w, reference))
          residuals.append(float(residual))
        if name in counts:
          its = [int(counts[name](g)) for g in singles]
          done = f'{statistics.median(its):.0f}, {max(its)}'
          off = f'{max(residuals):.0e}'
        else:
          done, off = '', f'{int(sum(residuals))}/{len(residuals)} converged'
        worst = np.max(errors)  # NaN if one is
        print(
          f'| {num_tasks} | {family} | {name} | {worst:.0e} | {off} | {done} '
          f'| {times[name]:.3f} |',
          flush=True,
        )


if __name__ == '__main__':
  main()

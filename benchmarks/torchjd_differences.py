"""Distances to TorchJD: ``python -m benchmarks.torchjd_differences``.

Reads ``tests/golden/torchjd_0_18.npz``, outputs of TorchJD 0.18 in float64 on
small Jacobians, and needs no TorchJD. Prints the tables of ``docs/torchjd.md``.

The first table has the largest difference of the update in each kind of
Jacobian, ours in float64, relative to the longer of the two updates. The
second has the distance to the exact solution, of theirs and of ours in both
precisions, relative to the exact update. What is shorter than a millionth of
the longest gradient counts as that long, so that nothing is divided by 0. The
third has the largest ``|w_t^(1/alpha) (G w)_t - 1|``, where a solution exists:
the equation that Nash-MTL (alpha 1) and FairGrad solve.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import mtljax as mtl
from mtljax import weightings

GOLDEN = pathlib.Path(__file__).parents[1] / 'tests/golden/torchjd_0_18.npz'

# Gradients that are linearly dependent (or one); of unlike lengths, zero among
# them; and the others.
KINDS = {
  'dependent': (
    'rank',
    'stationary',
    'dup',
    'antiparallel',
    'single',
    'normal_T10_P7',
  ),
  'uneven': ('mags', 'confmags', 'nearzero', 'zerorow', 'tiny'),
  'even': ('normal', 'conflict', 'aligned', 'ortho', 'torchjd', 'large'),
}
FLOOR = 1e-6  # of the longest gradient
COLUMNS = ('even', 'uneven', 'dependent')


def _aligned_mean() -> mtl.Weighting:
  """Aligned-MTL as TorchJD has it: divided by the number of tasks."""
  inner = weightings.aligned_mtl()

  def update_fn(stats, state):
    weights, state = inner.update(stats, state)
    return weights / jnp.sum(stats.mask), state

  return inner._replace(update=update_fn)


FACTORIES: dict[str, Callable[[], mtl.Weighting]] = {
  'MGDA': weightings.mgda,
  'MGDA(epsilon=1e-9,max_iters=20000)': weightings.mgda,
  'UPGrad': weightings.upgrad,
  'UPGrad(reg_eps=1e-8)': weightings.upgrad,
  'DualProj': weightings.dual_proj,
  'DualProj(reg_eps=1e-8)': weightings.dual_proj,
  'CAGrad(c=0.2)': lambda: weightings.cagrad(c=0.2),
  'CAGrad(c=0.5)': lambda: weightings.cagrad(c=0.5),
  'CAGrad(c=1)': lambda: weightings.cagrad(c=1.0),
  'NashMTL(max_norm=0)': weightings.nash_mtl,
  'FairGrad(alpha=0.5)': lambda: weightings.fairgrad(alpha=0.5),
  'FairGrad(alpha=1)': lambda: weightings.fairgrad(alpha=1.0),
  'FairGrad(alpha=2)': lambda: weightings.fairgrad(alpha=2.0),
  'IMTLG': weightings.imtl_g,
  'AlignedMTL': _aligned_mean,
  'ConFIG': weightings.conflict_free,
  'PCD': weightings.pcd,
  'Krum(n_byzantine=0)': lambda: weightings.krum(num_byzantine=0),
}
# TorchJD's names, and the exact solution of the same problem.
EXACT = {
  'MGDA': 'MGDA.exact',
  'MGDA(epsilon=1e-9,max_iters=20000)': 'MGDA.exact',
  'UPGrad': 'UPGrad.exact',
  'UPGrad(reg_eps=1e-8)': 'UPGrad.exact',
  'DualProj': 'DualProj.exact',
  'DualProj(reg_eps=1e-8)': 'DualProj.exact',
  'NashMTL(max_norm=0)': 'NashMTL.exact',
  'FairGrad(alpha=1)': 'NashMTL.exact',
}

# And the alpha of those that solve an equation.
ALPHA = {
  'NashMTL(max_norm=0)': 1.0,
  'FairGrad(alpha=0.5)': 0.5,
  'FairGrad(alpha=1)': 1.0,
  'FairGrad(alpha=2)': 2.0,
}

Arrays = dict[str, np.ndarray]


class Row(NamedTuple):
  """The differences of one aggregator: a name of a case to a number."""

  name: str
  off: dict[str, float]


def read(path: pathlib.Path = GOLDEN) -> Arrays:
  """The golden arrays."""
  with np.load(path) as data:
    return {key: data[key] for key in data.files}


def jacobians(golden: Arrays) -> Arrays:
  """Name of a case to its Jacobian."""
  return {
    key[:-2]: value
    for key, value in golden.items()
    if key.endswith('/J') and np.any(value)
  }


def kind_of(case: str) -> str:
  """The kind of Jacobian that a case is."""
  return next(k for k, starts in KINDS.items() if case.startswith(starts))


def weights_of(
  factory: Callable[[], mtl.Weighting], cases: Arrays, dtype: type
) -> Arrays:
  """The weights from Gramians of ``dtype``, at most 10 tasks in one batch."""
  out = {}
  for low, high in ((0, 10), (10, 40)):
    part = {c: j for c, j in cases.items() if low < len(j) <= high}
    gramians = np.zeros((len(part), high, high), dtype)
    masks = np.zeros((len(part), high), bool)
    for i, jacobian in enumerate(part.values()):
      rows = len(jacobian)
      cast = jacobian.astype(dtype)
      gramians[i, :rows, :rows] = cast @ cast.T
      masks[i, :rows] = True

    def one(gramian, mask, size=high):
      weighting = factory()
      stats = mtl.TaskStats(gramian=gramian, mask=mask)
      return weighting.update(stats, weighting.init(size))[0]

    weights = np.asarray(jax.jit(jax.vmap(one))(gramians, masks), np.float64)
    for (case, jacobian), w in zip(part.items(), weights, strict=True):
      out[case] = w[: len(jacobian)]
  return out


def updates(
  factory: Callable[[], mtl.Weighting], cases: Arrays, dtype: type
) -> Arrays:
  """The updates: weighted sums in float64, so that the weights are judged."""
  weights = weights_of(factory, cases, dtype)
  return {case: w @ cases[case] for case, w in weights.items()}


def difference(found, other, jacobian, *scales) -> float:
  """The distance, relative to the longest of the ``scales``."""
  floor = FLOOR * np.linalg.norm(jacobian, axis=1).max()
  sizes = [np.linalg.norm(vector) for vector in scales]
  return float(np.linalg.norm(found - other) / max(*sizes, floor))


def to_torchjd(name: str, golden: Arrays) -> Row:
  """Our distance to TorchJD, where its own output is stable."""
  unstable = set(golden['__unstable__'].tolist())
  cases = {
    case: jacobian
    for case, jacobian in jacobians(golden).items()
    if f'{case}/{name}' in golden and f'{case}/{name}' not in unstable
  }
  with jax.enable_x64(True):
    found = updates(FACTORIES[name], cases, np.float64)
  off = {}
  for case, jacobian in cases.items():
    theirs = golden[f'{case}/{name}']
    off[case] = difference(found[case], theirs, jacobian, found[case], theirs)
  return Row(name, off)


def to_exact(name: str, golden: Arrays) -> tuple[Row, Row, Row]:
  """Distances to the exact solution: theirs, ours in float64 and float32."""
  cases = {
    case: jacobian
    for case, jacobian in jacobians(golden).items()
    if f'{case}/{EXACT[name]}' in golden and f'{case}/{name}' in golden
  }
  with jax.enable_x64(True):
    double = updates(FACTORIES[name], cases, np.float64)
  single = updates(FACTORIES[name], cases, np.float32)
  theirs = {case: golden[f'{case}/{name}'] for case in cases}

  def row(label, found):
    off = {}
    for case, jacobian in cases.items():
      exact = golden[f'{case}/{EXACT[name]}']
      off[case] = difference(found[case], exact, jacobian, exact)
    return Row(label, off)

  return (
    row(f'TorchJD {name}', theirs),
    row('here, float64', double),
    row('here, float32', single),
  )


def residuals(name: str, golden: Arrays) -> tuple[Row, Row, Row]:
  """How far the equation is from holding, where it has a solution."""
  cases = {
    case: jacobian
    for case, jacobian in jacobians(golden).items()
    if f'{case}/NashMTL.exact' in golden and f'{case}/{name}:w' in golden
  }
  with jax.enable_x64(True):
    double = weights_of(FACTORIES[name], cases, np.float64)
  single = weights_of(FACTORIES[name], cases, np.float32)
  theirs = {case: golden[f'{case}/{name}:w'] for case in cases}

  def row(label, weights):
    off = {}
    for case, jacobian in cases.items():
      w = np.maximum(weights[case], 0)
      gains = jacobian @ (w @ jacobian)
      off[case] = float(np.max(np.abs(w ** (1 / ALPHA[name]) * gains - 1)))
    return Row(label, off)

  return (
    row(f'TorchJD {name}', theirs),
    row('here, float64', double),
    row('here, float32', single),
  )


def _kind_columns(row: Row, show: Callable[[dict[str, float]], str]) -> str:
  columns = [
    show({c: v for c, v in row.off.items() if kind_of(c) == kind})
    for kind in COLUMNS
  ]
  return ' | '.join(columns)


def _largest(off: dict[str, float]) -> str:
  if not off:
    return ''
  case = max(off, key=lambda c: off[c])
  return f'{off[case]:.0e} ({case.removesuffix("_s0")}), {len(off)}'


def _median_and_largest(off: dict[str, float]) -> str:
  if not off:
    return ''
  values = list(off.values())
  return f'{np.median(values):.0e}, {max(values):.0e}'


def main() -> None:
  """Prints the tables."""
  golden = read()
  kinds = ' | '.join(COLUMNS)
  lines = '|---' * (len(COLUMNS) + 1) + '|'
  print(f'| TorchJD | {kinds} |\n{lines}', flush=True)
  for name in FACTORIES:
    row = to_torchjd(name, golden)
    print(f'| {name} | {_kind_columns(row, _largest)} |', flush=True)
  for title, names, compare in (
    ('off the exact solution', EXACT, to_exact),
    ('residual', ALPHA, residuals),
  ):
    print(f'\n| {title} | {kinds} |\n{lines}', flush=True)
    for name in names:
      for row in compare(name, golden):
        columns = _kind_columns(row, _median_and_largest)
        print(f'| {row.name} | {columns} |', flush=True)


if __name__ == '__main__':
  main()

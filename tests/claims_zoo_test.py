"""What the methods claim, on a zoo of Jacobians: one batch a method.

Methods that read the losses alone do not see the Jacobian, so they are left to
`claims_test.py`. Errors are relative to the longest term of the update,
``max_t |w_t| ||g_t||``: rounding is of that size. At stationary points they are
relative to the update for orthogonal gradients of the same lengths, since
weights that grow without bound (Nash-MTL's, FairGrad's) would hide an update.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from battery import METHODS, method, weights_of

SHRINK = np.float32(1e-4)
# Weights that rest on the square roots of small eigenvalues, on a solver's
# steps or on powers of a nearly singular Gramian are off by more than rounding:
# FairGrad's by 1.4e-4 (`python -m benchmarks.solvers --accuracy`), each of two.
LOOSE = {
  'aligned_mtl': 2e-2,
  'conic_grad': 1e-3,
  'conic_grad c': 1e-3,
  'epo': 1e-3,
  'fairgrad': 5e-4,
  'pivrg scores': 5e-4,
  'sdmgrad': 1e-3,
}
# Equal distances tie; the combinations of the scaled gradients that are 0 are
# many, and the gradients as they are give each another update.
UNDETERMINED = {
  'krum num_byzantine num_selected': ('strong_rank_two',),
  'mgda normalize': ('rank_one', 'rank_three', 'strong_rank_two'),
}
EXTRA = [
  method(
    'cagrad', 'equivariant non_conflicting strongly_stationary linear', c=1.0
  )
]


def variant(m):
  """Its name, and those of its options."""
  return ' '.join([m.name, *m.kwargs])


def _combining_to_zero(rng, rows, columns, free=0):
  """Rows that a positive combination takes to 0, and ``free`` others."""
  jacobian = rng.normal(size=(rows + free, columns))
  w = rng.uniform(0.5, 1.5, rows)
  jacobian[rows - 1] = -(w[:-1] @ jacobian[: rows - 1]) / w[-1]
  return jacobian


def strongly_stationary() -> dict[str, np.ndarray]:
  """Every row has a positive weight in a combination that is 0."""
  rng = np.random.default_rng(4)
  degenerate = zoo.degenerate()
  out = {k: degenerate[k] for k in ('antiparallel', 'antiparallel_lengths')}
  for rows in (2, 3, 5, 10):
    jacobian = _combining_to_zero(rng, rows, 20)
    out[f'strong_{rows}'] = jacobian
    lengths = rng.permutation(np.logspace(-2, 2, rows))[:, None]
    out[f'strong_scales_{rows}'] = jacobian * lengths
  out['strong_rank_two'] = np.stack(
    [[np.cos(x), np.sin(x)] for x in np.linspace(0, 2 * np.pi, 6)[:-1]]
  )
  return out


def weakly_stationary() -> dict[str, np.ndarray]:
  """Some rows combine to 0, and at least one takes no part in it."""
  rng = np.random.default_rng(5)
  out = {}
  for rows in (2, 4):
    jacobian = _combining_to_zero(rng, rows, 20, free=rows)
    out[f'weak_{rows}'] = jacobian
    lengths = rng.permutation(np.logspace(-1, 1, 2 * rows))[:, None]
    out[f'weak_scales_{rows}'] = jacobian * lengths
  return out


def cases() -> dict[str, np.ndarray]:
  """The whole zoo, without rows whose norms square to 0 in float32."""
  out = zoo.jacobians() | zoo.degenerate()
  del out['underflow']
  return out | strongly_stationary() | weakly_stationary()


def many_tasks() -> dict[str, np.ndarray]:
  """Up to 64 tasks, of lengths alike and from 1e-10 to 1e10."""
  rng = np.random.default_rng(8)
  out = {}
  for rows in (40, 64):
    jacobian = rng.normal(size=(rows, 2 * rows))
    conflict = jacobian - 0.9 * jacobian.mean(0)
    lengths = rng.permutation(np.logspace(-10, 10, rows))[:, None]
    out[f'conflict_{rows}'] = conflict
    out[f'conflict_scales_{rows}'] = conflict * lengths
    out[f'strong_{rows}'] = _combining_to_zero(rng, rows, 2 * rows)
  return out


STRONG, WEAK = strongly_stationary(), weakly_stationary()


def padded(jacobians):
  """One array of them, and which rows are tasks."""
  size = max(len(jacobian) for jacobian in jacobians)
  columns = max(jacobian.shape[1] for jacobian in jacobians)
  out = np.zeros((len(jacobians), size, columns), np.float32)
  masks = np.zeros((len(jacobians), size), bool)
  for i, jacobian in enumerate(jacobians):
    rows, width = jacobian.shape
    out[i, :rows, :width] = jacobian
    masks[i, :rows] = True
  return out, masks


def updates_of(m, jacobians, masks, losses):
  """The updates, and the length of their longest terms, as float64."""
  tx = m(jacobians.shape[1])

  def one(jacobian, mask, losses):
    params = jnp.zeros(jacobian.shape[1])
    out, state = tx.update(
      jacobian, tx.init(params), params, losses=losses, task_mask=mask
    )
    return out, weights_of(state)

  run = jax.jit(jax.vmap(one))
  out, weights = run(jacobians, masks, losses)
  out = np.asarray(out, np.float64)
  if weights is None:
    return out, np.linalg.norm(out, axis=-1)
  norms = np.linalg.norm(jacobians.astype(np.float64), axis=-1)
  terms = np.abs(np.asarray(weights, np.float64)) * norms
  return out, np.max(terms, axis=-1)


def norms_of(vectors):
  return np.linalg.norm(vectors, axis=-1)


def errors_of(m, cases):
  """For each claim, name of a case to how far it is from holding."""
  jacobians, masks = padded(list(cases.values()))
  lengths = norms_of(jacobians)
  count, size = lengths.shape
  losses = np.linspace(0.5, 3, size, dtype=np.float32)
  losses = np.tile(losses, (count, 1))
  rng = np.random.default_rng(6)
  orders = np.tile(np.arange(size), (count, 1))
  for order, mask in zip(orders, masks, strict=True):
    order[mask] = rng.permutation(mask.sum())
  orthogonal = np.zeros_like(jacobians)
  orthogonal[:, range(size), range(size)] = lengths
  forms = [
    (jacobians, losses),
    (
      np.take_along_axis(jacobians, orders[..., None], axis=1),
      np.take_along_axis(losses, orders, axis=1),
    ),
    (SHRINK * jacobians, losses),
    (jacobians / SHRINK, losses),
    (orthogonal, losses),
  ]
  out, terms = updates_of(
    m,
    np.concatenate([form[0] for form in forms]),
    np.concatenate([masks] * len(forms)),
    np.concatenate([form[1] for form in forms]),
  )
  assert np.all(np.isfinite(out))
  out, permuted, shrunk, stretched, usual = out.reshape(
    -1, *jacobians[:, 0].shape
  )
  # What the update is like when gradients of these lengths do not conflict.
  usual = norms_of(usual)
  sizes = np.maximum(terms[:count], 0.01 * usual)
  gains = np.einsum('ntp,np->nt', jacobians.astype(np.float64), out)
  rises = np.max(-gains / np.where(lengths > 0, lengths, 1), axis=-1)
  linear = np.maximum(
    norms_of(shrunk / SHRINK - out), norms_of(stretched * SHRINK - out)
  )

  def named(errors, sizes, only=cases):
    errors = errors / np.where(sizes > 0, sizes, 1)
    left_out = UNDETERMINED.get(variant(m), ())
    return {
      name: error
      for name, error in zip(cases, errors, strict=True)
      if name in only and name not in left_out
    }

  strong = {k for k in cases if k in STRONG or k.startswith('strong_')}
  return {
    'equivariant': named(norms_of(permuted - out), sizes),
    'linear': named(linear, sizes),
    'non_conflicting': named(rises, sizes),
    'strongly_stationary': named(norms_of(out), usual, strong),
    'stationary': named(norms_of(out), usual, strong | set(WEAK)),
  }


def holding(errors, tolerance):
  """The claims that hold in every case, and the worst case of each."""
  worst = {}
  for claim, off in errors.items():
    name = max(off, key=off.get)
    worst[claim] = (name, float(off[name]))
  return {c for c, (_, off) in worst.items() if off <= tolerance}, worst


def reads_gradients(m):
  tx = m(3)
  if 'hypergradient' in tx.needs:
    return False
  reads = tx.weighting is None or any('gramian' in need for need in tx.needs)
  return reads and not m.warms_up


# One variant a method for each set of claims.
CHOSEN = {
  (m.name, m.claims): m for m in reversed(METHODS + EXTRA) if reads_gradients(m)
}
CHOSEN = list(CHOSEN.values())[::-1]


@pytest.mark.parametrize('m', CHOSEN, ids=lambda m: m.name)
def test_claims_are_those_declared(m):
  """Each declared claim holds everywhere, and no other one does."""
  errors = errors_of(m, cases())
  found, worst = holding(errors, LOOSE.get(variant(m), 1e-4))
  assert found == m.claims, worst


MANY = {m.name: m for m in CHOSEN[::-1] if 'non_conflicting' in m.claims}


@pytest.mark.parametrize('m', MANY.values(), ids=lambda m: m.name)
def test_claims_hold_for_many_tasks(m):
  # At stationary points 64 terms cancel that are longer than their mean.
  found, worst = holding(errors_of(m, many_tasks()), 3e-3)
  assert m.claims <= found, worst

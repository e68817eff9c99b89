"""Whole updates against TorchJD's, clipping included, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax as mtl

METHODS = {
  'Mean': (lambda t, pref: mtl.mean(t), 1e-12),
  'Sum': (lambda t, pref: mtl.sum_losses(t), 1e-12),
  'Constant(pref)': (lambda t, pref: mtl.fixed(t, weights=pref), 1e-12),
  'NashMTL': (lambda t, pref: mtl.nash_mtl(t), 1e-5),
  'NashMTL(max_norm=0)': (lambda t, pref: mtl.nash_mtl(t, max_norm=None), 1e-5),
  'MGDA.exact': (lambda t, pref: mtl.mgda(t), 1e-5),
  'CAGrad(c=0.5)': (lambda t, pref: mtl.cagrad(t, c=0.5), 1e-3),
  'IMTLG': (lambda t, pref: mtl.imtl_g(t), 1e-6),
  'FairGrad(alpha=2)': (lambda t, pref: mtl.fairgrad(t, alpha=2.0), 1e-5),
}


def solved(golden, case):
  """Whether TorchJD's own solver converged: w_t (G w)_t = 1."""
  jacobian, weights = (
    golden[f'{case}/J'],
    golden[f'{case}/NashMTL(max_norm=0):w'],
  )
  return np.allclose(weights * (jacobian @ jacobian.T @ weights), 1, atol=1e-4)


@pytest.mark.parametrize('name', METHODS)
def test_update_is_torchjds(name, golden, x64):
  factory, tolerance = METHODS[name]
  unstable = set(golden['__unstable__'].tolist())
  cases = [
    key.split('/')[0]
    for key in golden
    if key.endswith(f'/{name}') and key.startswith(('normal', 'conflict'))
  ]
  checked = 0
  for case in cases:
    jacobian = golden[f'{case}/J']
    if f'{case}/{name}' in unstable or not 2 <= len(jacobian) <= 5:
      continue
    if name.startswith('NashMTL') and not solved(golden, case):
      continue
    tx = factory(len(jacobian), golden[f'{case}/pref'])
    out, _ = tx.update(jnp.asarray(jacobian), tx.init(None))
    scale = np.linalg.norm(golden[f'{case}/{name}'])
    np.testing.assert_allclose(
      out, golden[f'{case}/{name}'], atol=tolerance * scale, err_msg=case
    )
    checked += 1
  assert checked >= 5


@pytest.mark.parametrize(
  'name, every',
  [
    ('NashMTL', 1),
    ('NashMTL(max_norm=0)', 1),
    ('NashMTL(update_weights_every=2)', 2),
  ],
)
def test_nash_mtl_over_steps(name, every, golden, x64):
  """Its solver starts where it ended; ours needs no start."""
  clip = None if 'max_norm=0' in name else 1.0
  checked = 0
  for case, num_tasks in (('seq_T2_P10', 2), ('seq_T3_P20', 3)):
    tx = mtl.nash_mtl(num_tasks, max_norm=clip)
    tx = tx if every == 1 else mtl.every_k(tx, every)
    update = jax.jit(tx.update)
    state = tx.init(None)
    for k in range(4):
      jacobian = golden[f'{case}/J{k}']
      weights = golden[f'{case}/{name}@{k}:w']
      utilities = weights * (jacobian @ (jacobian.T @ weights))
      if k % every == 0 and np.ptp(utilities) > 1e-4:
        break  # its solver failed, and it kept the old weights
      out, state = update(jnp.asarray(jacobian), state)
      np.testing.assert_allclose(
        out, golden[f'{case}/{name}@{k}'], rtol=1e-4, atol=1e-5, err_msg=case
      )
      checked += 1
  assert checked >= 6


FORTY = {
  'MGDA.exact': (mtl.mgda, 1e-8),
  'UPGrad.exact': (mtl.upgrad, 1e-7),
  'DualProj.exact': (mtl.dual_proj, 1e-7),
  'NashMTL.exact': (lambda t: mtl.nash_mtl(t, max_norm=None), 1e-8),
  'CAGrad(c=0.5)': (lambda t: mtl.cagrad(t, c=0.5), 1e-3),
  'FairGrad(alpha=2)': (mtl.fairgrad, 1e-6),
  'IMTLG': (mtl.imtl_g, 1e-9),
  'AlignedMTL': (
    lambda t: mtl.aligned_mtl(t, preference=[1 / t] * t),
    1e-9,
  ),
  'ConFIG': (mtl.conflict_free, 1e-9),
  'PCD': (mtl.pcd, 1e-8),
}


@pytest.mark.parametrize('name', FORTY)
def test_forty_tasks(name, golden, x64):
  factory, tolerance = FORTY[name]
  jacobian = golden['large_T40_P100/J']
  expected = golden[f'large_T40_P100/{name}']
  tx = factory(len(jacobian))
  update = jax.jit(tx.update)
  out, _ = update(jnp.asarray(jacobian), tx.init(None))
  assert np.linalg.norm(out - expected) < tolerance * np.linalg.norm(expected)

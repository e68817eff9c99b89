"""Whole updates against TorchJD's, clipping included, in float64."""

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

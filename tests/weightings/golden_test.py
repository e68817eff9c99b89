"""Agreement with TorchJD 0.18 where it is stable and defined alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import weightings
from mtljax._types import TaskStats
from mtljax.weightings import _pcgrad

SIZE = 10


def cases_of(golden, key, leave_out=()):
  """Cases that have a stable value of ``key``: name, Jacobian and value."""
  unstable = set(golden['__unstable__'].tolist())
  return [
    (name[:-2], jacobian, golden[f'{name[:-2]}/{key}'])
    for name, jacobian in golden.items()
    if name.endswith('/J')
    and len(jacobian) <= SIZE
    and f'{name[:-2]}/{key}' in golden
    and f'{name[:-2]}/{key}' not in unstable
    and not name.startswith(tuple(leave_out))
  ]


def weights_fn(factory):
  """Batched weights; the hyper-parameter is traced, to compile once."""

  def one(gramian, mask, value):
    weighting = factory(value)
    stats = TaskStats(gramian=gramian, mask=mask)
    return weighting.update(stats, weighting.init(SIZE))[0]

  return jax.jit(jax.vmap(one, in_axes=(0, 0, None)))


CAGRAD = weights_fn(lambda c: weightings.cagrad(c=c))
FAIRGRAD = weights_fn(lambda alpha: weightings.fairgrad(alpha=alpha))
IMTL_G = weights_fn(lambda _: weightings.imtl_g())
NASH_MTL = weights_fn(lambda _: weightings.nash_mtl())


def updates_of(fun, cases, value=0.0):
  """The updates, all solved in one batch of padded Gramians."""
  gramians = np.full((64, SIZE, SIZE), np.nan)
  masks = np.zeros((64, SIZE), bool)
  for i, (_, jacobian, _) in enumerate(cases):
    rows = len(jacobian)
    gramians[i, :rows, :rows] = jacobian @ jacobian.T
    masks[i, :rows] = True
  weights = np.asarray(fun(gramians, masks, value))
  return [
    w[: len(jacobian)] @ jacobian
    for w, (_, jacobian, _) in zip(weights, cases, strict=False)
  ]


@pytest.mark.parametrize('c', [0, 0.2, 0.5, 1])
def test_cagrad(golden, x64, c):
  cases = [
    case
    for case in cases_of(golden, f'CAGrad(c={c})', ('tiny', 'antiparallel'))
    # TorchJD gives a zero vector near stationary points, and for short rows.
    if np.linalg.norm(case[2]) > 0
  ]
  assert len(cases) > 20
  found = updates_of(CAGRAD, cases, float(c))
  for (name, jacobian, expected), update in zip(cases, found, strict=True):
    mean = np.linalg.norm(jacobian.mean(0))
    off = np.linalg.norm(update - expected)
    # The other solver stops at 1e-4.
    assert off < 1e-3 * mean, (name, off / mean)


def test_imtl_g(golden, x64):
  # Rank-deficient: pinv of the Gramian or of the unit Gramian is a choice; the
  # former also drops a short row.
  cases = cases_of(
    golden,
    'IMTLG',
    ('rank', 'stationary', 'normal_T10_P7', 'antiparallel', 'nearzero'),
  )
  assert len(cases) > 30
  found = updates_of(IMTL_G, cases)
  for (name, jacobian, expected), update in zip(cases, found, strict=True):
    scale = np.linalg.norm(jacobian, axis=1).max()
    tol = 1e-4 if name.startswith('mags') else 1e-9
    off = np.linalg.norm(update - expected)
    size = max(np.linalg.norm(expected), 1e-12 * scale)
    assert off <= tol * size, (name, off / size)


@pytest.mark.parametrize('options', ['', ',optim_niter=200'])
def test_nash_mtl(golden, x64, options):
  cases = cases_of(golden, f'NashMTL(max_norm=0{options})')
  exact = {name for name, _, _ in cases_of(golden, 'NashMTL.exact')}
  # Where its solver converged: the update then has norm sqrt(T).
  cases = [
    (name, jacobian, value)
    for name, jacobian, value in cases
    if name in exact
    and abs(np.linalg.norm(value) / np.sqrt(len(jacobian)) - 1) < 1e-7
  ]
  assert len(cases) > 10
  found = updates_of(NASH_MTL, cases)
  for (name, _, expected), update in zip(cases, found, strict=True):
    np.testing.assert_allclose(
      update, expected, rtol=1e-5, atol=1e-5, err_msg=name
    )


@pytest.mark.parametrize('alpha', [0.5, 1, 2])
def test_fairgrad(golden, x64, alpha):
  key = f'FairGrad(alpha={alpha})'
  cases = []
  for name, jacobian, value in cases_of(golden, key):
    w = golden[f'{name}/{key}:w']
    with np.errstate(divide='ignore', invalid='ignore'):
      off = (jacobian @ (w @ jacobian)) * w ** (1 / alpha) - 1
    # Where its solver converged.
    if np.max(np.abs(off)) < 1e-7:
      cases.append((name, jacobian, value))
  assert len(cases) > 15
  found = updates_of(FAIRGRAD, cases, float(alpha))
  for (name, _, expected), update in zip(cases, found, strict=True):
    off = np.linalg.norm(update - expected) / np.linalg.norm(expected)
    assert off < 1e-6, (name, off)


def _orders(kind, size):
  order = np.arange(size) if kind == 'identity' else np.arange(size)[::-1]
  return jnp.asarray(np.broadcast_to(order, (size, size)))


@pytest.mark.parametrize('kind', ['identity', 'reversed'])
def test_pcgrad_in_a_given_order(golden, x64, kind):
  cases = cases_of(golden, f'PCGrad@{kind}')
  assert len(cases) > 40
  weights = jax.jit(_pcgrad._weights)
  for name, jacobian, expected in cases:
    rows = len(jacobian)
    gramian = np.full((SIZE, SIZE), np.nan)
    gramian[:rows, :rows] = jacobian @ jacobian.T
    w = weights(gramian, np.arange(SIZE) < rows, _orders(kind, SIZE))[:rows]
    scale = np.linalg.norm(jacobian, axis=1).max()
    np.testing.assert_allclose(
      np.asarray(w) @ jacobian, expected, atol=1e-9 * scale, err_msg=name
    )


def test_pcgrad_averages_over_its_orders(golden, x64):
  name = 'conflict_T5_P20_s0'
  jacobian = golden[f'{name}/J']
  weighting = weightings.pcgrad()
  stats = TaskStats(gramian=jnp.asarray(jacobian @ jacobian.T))

  def step(state, _):
    weights, state = weighting.update(stats, state)
    return state, weights

  _, weights = jax.jit(lambda s: jax.lax.scan(step, s, length=4000))(
    weighting.init(5)
  )
  expected = golden[f'{name}/PCGrad@expected:w']
  error = np.std(weights, axis=0) / np.sqrt(4000)
  assert np.all(error > 0)
  assert np.all(np.abs(np.mean(weights, axis=0) - expected) < 5 * error)

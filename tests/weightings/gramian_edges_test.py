"""Masks, bad input and scales of the Gramian methods beyond the solvers'."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax as mtl
from mtljax import weightings
from mtljax._types import TaskStats

SIZE = 10
LANES = 32
SCORES = np.linspace(0.5, 2.0, SIZE)
LOSSES = np.linspace(0.3, 3.0, SIZE) ** 2
METHODS = {
  'aligned_mtl': lambda: weightings.aligned_mtl(),
  'aligned_median': lambda: weightings.aligned_mtl(scale_mode='median'),
  'conflict_free': lambda: weightings.conflict_free(),
  'dual_proj': lambda: weightings.dual_proj(),
  'emtl': lambda: mtl.contrib.weightings.emtl(),
  'emtl_soft': lambda: mtl.contrib.weightings.emtl(form='soft'),
  'gradnorm': lambda: weightings.gradnorm(),
  'gradvac': lambda: weightings.gradvac(),
  'imtl': lambda: weightings.imtl(),
  'krum': lambda: weightings.krum(num_byzantine=1, num_selected=2),
  'pcd': lambda: weightings.pcd(),
  'pivrg': lambda: weightings.pivrg(scores=SCORES, window=1),
  'slw': lambda: weightings.slw(),
  'upgrad': lambda: weightings.upgrad(),
}
ALL = pytest.mark.parametrize('name', METHODS)


def second_weights(name):
  """The weights of the second of two steps, for a batch."""

  def one(gramian, mask):
    weighting = METHODS[name]()
    stats = TaskStats(
      gramian=gramian, losses=jnp.asarray(LOSSES, gramian.dtype), mask=mask
    )
    state = weighting.init(SIZE)
    if name == 'gradvac':  # so that the order does not matter
      state = state._replace(targets=jnp.full((SIZE, SIZE), -1.0))
    _, state = weighting.update(stats, state)
    weights, state = weighting.update(stats, state)
    return weights, getattr(state, 'residual', jnp.zeros(()))

  return jax.jit(jax.vmap(one))


BATCHED = {name: second_weights(name) for name in METHODS}


def run(name, jacobians, rows=None, dtype=np.float64):
  """Weights of many Jacobians, each padded with rows of NaN that are absent.

  Args:
    name: the method.
    jacobians: of up to `SIZE` rows.
    rows: where the rows of each stand among the tasks; None: first.
    dtype: of the Gramians, which are computed in float64.
  """
  gramians = np.full((LANES, SIZE, SIZE), np.nan)
  masks = np.zeros((LANES, SIZE), bool)
  places = rows or [np.arange(len(j)) for j in jacobians]
  with np.errstate(invalid='ignore', over='ignore'):
    for i, (place, jacobian) in enumerate(zip(places, jacobians, strict=True)):
      gramians[i][np.ix_(place, place)] = jacobian @ jacobian.T
      masks[i, place] = True
    weights, residuals = BATCHED[name](gramians.astype(dtype), masks)
  weights = np.asarray(weights, np.float64)
  assert np.all(weights[~masks] == 0)
  out = [w[place] for w, place in zip(weights, places, strict=False)]
  return out, np.asarray(residuals)


def jacobian_of(seed, rows=5):
  jacobian = np.random.default_rng(seed).normal(size=(rows, 12))
  return jacobian - 0.5 * jacobian.mean(0)


@ALL
def test_absent_tasks_give_the_smaller_problem(name, x64):
  """A problem of 3 tasks is the same padded, among absent tasks, or alone."""
  place = np.array([0, 4, 7])
  jacobian = jacobian_of(1, 3)
  (among,), _ = run(name, [jacobian], [place])
  weighting = METHODS[name]()
  if name == 'pivrg':
    weighting = weightings.pivrg(scores=SCORES[place], window=1)
  stats = TaskStats(
    gramian=jnp.asarray(jacobian @ jacobian.T), losses=LOSSES[place]
  )
  if name == 'krum':
    weighting = weightings.krum(num_byzantine=0, num_selected=2)
  state = weighting.init(3)
  if name == 'gradvac':
    state = state._replace(targets=jnp.full((3, 3), -1.0))
  _, state = weighting.update(stats, state)
  alone, state = weighting.update(stats, state)
  np.testing.assert_allclose(among, alone, rtol=1e-8, atol=1e-12)
  assert np.any(alone)


@ALL
def test_bad_input_is_not_swallowed(name, x64):
  lanes = []
  for bad in (np.nan, np.inf, -np.inf):
    jacobian = jacobian_of(2)
    jacobian[1, 0] = bad
    lanes.append(jacobian)
  for weights in run(name, lanes)[0]:
    assert np.all(np.isnan(weights))


@ALL
def test_degenerate_input_is_finite(name, zoo, x64):
  for cases in (zoo.degenerate(), zoo.jacobians()):
    keep = {k: j for k, j in cases.items() if len(j) <= SIZE}
    for dtype in (np.float64, np.float32):
      weights, residuals = run(name, list(keep.values()), dtype=dtype)
      assert np.all(np.isfinite(residuals))
      for case, w in zip(keep, weights, strict=True):
        assert np.all(np.isfinite(w)), (case, dtype)


@ALL
def test_a_zero_row(name, x64):
  jacobian = jacobian_of(3)
  jacobian[2] = 0
  rest = np.delete(np.arange(5), 2)
  both = run(name, [jacobian, jacobian[rest]], [np.arange(5), rest])[0]
  weights, smaller = both
  others = weights[rest]
  if name in ('upgrad', 'dual_proj'):
    np.testing.assert_allclose(weights[2], 0.2)
    np.testing.assert_allclose(others, 0.8 * smaller, rtol=1e-8)
  elif name == 'gradvac':
    assert weights[2] == 1
    np.testing.assert_allclose(others, smaller, rtol=1e-8)
  elif name == 'pivrg':  # it counts among the factors
    assert weights[2] == 0
    ratio = others / smaller
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-8)
  elif name in ('gradnorm', 'krum'):
    assert np.all(weights >= 0)
  else:
    np.testing.assert_allclose(weights[2], 0, atol=1e-12)
    np.testing.assert_allclose(others, smaller, rtol=1e-8)


@pytest.mark.parametrize(
  'name',
  ['conflict_free', 'dual_proj', 'emtl', 'pcd', 'pivrg', 'slw', 'upgrad'],
)
def test_float32_is_accurate_at_any_scale(name, x64):
  """Rows from 1e-8 to 1e8 long: right relative to every one of them."""
  # Its fixed point in float32 resolves ratios of lengths up to 1e6.
  top = 3 if name == 'pivrg' else 8
  scales = np.logspace(-top, top, 5)[:, None]
  rng = np.random.default_rng(0)
  jacobians = [jacobian_of(seed) * rng.permutation(scales) for seed in range(8)]
  if name == 'pcd':  # its eps is no part of this
    jacobians = [1e6 * j for j in jacobians]
  exact, _ = run(name, jacobians)
  found, _ = run(name, jacobians, dtype=np.float32)
  for right, w, jacobian in zip(exact, found, jacobians, strict=True):
    norms = np.linalg.norm(jacobian, axis=1)
    parts = np.abs(right) * norms
    np.testing.assert_allclose(
      w * norms, right * norms, rtol=1e-4, atol=1e-4 * parts.min() + 1e-30
    )


@pytest.mark.parametrize('name', ['dual_proj', 'pivrg', 'upgrad'])
def test_harms_no_task(name, zoo, x64):
  cases = {k: j for k, j in zoo.jacobians().items() if len(j) <= SIZE}
  weights, _ = run(name, list(cases.values()))
  for w, (case, jacobian) in zip(weights, cases.items(), strict=True):
    parts = w[:, None] * jacobian
    size = np.max(np.linalg.norm(parts, axis=1))
    norms = np.linalg.norm(jacobian, axis=1)
    assert np.all(jacobian @ parts.sum(0) >= -1e-10 * size * norms), case


@ALL
def test_facts_and_state(name):
  weighting = METHODS[name]()
  assert name.startswith(weighting.info.name.split('_')[0])
  assert 'https://' in weighting.info.paper
  signed = {'aligned_mtl', 'aligned_median', 'conflict_free', 'imtl'}
  assert weighting.info.signed == (name in signed)
  heads = {'slw', 'emtl', 'emtl_soft', 'gradnorm'}
  assert weighting.info.weight_heads == (name in heads)
  with pytest.raises(ValueError, match='gramian'):
    weighting.update(TaskStats(), weighting.init(SIZE))
  stats = TaskStats(gramian=jnp.eye(SIZE), losses=jnp.ones(SIZE))
  state = weighting.init(SIZE)
  _, new = weighting.update(stats, state)
  assert jax.tree.structure(state) == jax.tree.structure(new)
  assert [(x.shape, x.dtype) for x in jax.tree.leaves(state)] == [
    (x.shape, x.dtype) for x in jax.tree.leaves(new)
  ]

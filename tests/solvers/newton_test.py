import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.solvers import fair_newton

newtons = jax.jit(jax.vmap(fair_newton, in_axes=(0, None, 0)))


def _off(jacobian, w, alpha):
  return np.max(np.abs((jacobian @ (w @ jacobian)) * w ** (1 / alpha) - 1))


@pytest.mark.parametrize('alpha', [0.5, 1.0, 2.0, 5.0])
def test_solves_the_equation(zoo, x64, alpha):
  cases = zoo.jacobians()
  found = zoo.in_lanes(newtons, zoo.gramians_of(cases), alpha)
  for (name, jacobian), (w, residual) in zip(cases.items(), found, strict=True):
    assert np.all(w > 0), name
    if alpha == 1 or not ('scales' in name or 'short' in name):
      assert residual < 1e-9, (name, residual)
      assert _off(jacobian, w, alpha) < 2e-9, name
    elif 'conflict' in name:
      # Rows of 1e-3 to 1e3: the long ones' pulls cancel.
      assert residual < 1e-5, (name, residual)


def test_float32_nash_solves_the_equation(zoo):
  cases = zoo.jacobians()
  found = zoo.in_lanes(newtons, zoo.gramians_of(cases), 1.0, dtype=np.float32)
  for (name, jacobian), (w, residual) in zip(cases.items(), found, strict=True):
    assert residual < 3e-3, (name, residual)
    assert _off(jacobian, w, 1.0) < 1e-2, name


@pytest.mark.parametrize('alpha', [0.5, 1.0, 2.0, 10.0])
def test_orthogonal_rows_have_a_closed_form(zoo, x64, alpha):
  norms = np.logspace(-10, 10, 7)
  ((w, residual),) = zoo.in_lanes(newtons, [np.diag(norms**2)], alpha)
  assert residual < 1e-12
  np.testing.assert_allclose(w, norms ** (-2 * alpha / (alpha + 1)), rtol=1e-10)


def test_two_tasks_have_a_closed_form(zoo, x64):
  rng = np.random.default_rng(0)
  jacobians = rng.normal(size=(20, 2, 5)) * [[1e-4], [1e3]]
  found = zoo.in_lanes(newtons, [j @ j.T for j in jacobians], 1.0)
  for (a, b), (w, _) in zip(jacobians, found, strict=True):
    na, nb = np.linalg.norm(a), np.linalg.norm(b)
    root = np.sqrt(1 + a @ b / na / nb)
    np.testing.assert_allclose(w, [1 / na / root, 1 / nb / root], rtol=1e-9)


def test_agrees_with_the_reference(golden, zoo, x64):
  names = [
    key.split('/')[0]
    for key in golden
    if key.endswith('/NashMTL.exact:w') and len(golden[key]) <= 10
  ]
  assert len(names) > 30
  gramians = [golden[f'{n}/J'] @ golden[f'{n}/J'].T for n in names]
  for name, (w, _) in zip(
    names, zoo.in_lanes(newtons, gramians, 1.0), strict=True
  ):
    np.testing.assert_allclose(
      w, golden[f'{name}/NashMTL.exact:w'], rtol=1e-8, err_msg=name
    )


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('alpha', [1.0, 2.0])
def test_stationary_points_are_finite_and_reported(zoo, x64, dtype, alpha):
  cases = {
    name: jacobian
    for name, jacobian in zoo.degenerate().items()
    if name.startswith(('stationary', 'antiparallel', 'rank_one'))
  }
  assert len(cases) == 6
  found = zoo.in_lanes(
    newtons, zoo.gramians_of(cases), dtype(alpha), dtype=dtype
  )
  for (name, jacobian), (w, residual) in zip(cases.items(), found, strict=True):
    assert np.all(np.isfinite(w)) and np.all(w > 0), name
    assert 0.1 < residual < 100, (name, residual)
    if alpha == 1:
      length = np.linalg.norm(w @ jacobian)
      assert length < 1.1 * np.sqrt(len(jacobian)), (name, length)


def test_zero_rows_masks_and_nan(zoo, x64):
  jacobian = np.random.default_rng(2).normal(size=(4, 9))
  with_zero = jacobian * [[1.0], [0.0], [1.0], [1.0]]
  bad = jacobian @ jacobian.T
  bad[1, 1] = np.nan
  mask = np.array([True, False, True, True])
  rest = jacobian[mask]
  every = np.ones(4, bool)
  (zero, _), (masked, _), (small, _), (none, rn), (nan, rb) = zoo.in_lanes(
    newtons,
    [with_zero @ with_zero.T, bad, rest @ rest.T, bad, bad],
    2.0,
    masks=[every, mask, np.ones(3, bool), np.zeros(4, bool), every],
  )
  for w in (zero, masked):
    assert w[1] == 0
    np.testing.assert_allclose(w[mask], small, rtol=1e-10)
  assert np.all(none == 0) and rn == 0
  assert np.all(np.isnan(nan)) and np.isnan(rb)


@pytest.mark.parametrize('size', [1, 64])
def test_sizes(size):
  jacobian = np.random.default_rng(size).normal(size=(size, size + 40))
  gramian = jnp.asarray(jacobian @ jacobian.T, jnp.float32)
  w, residual = jax.jit(fair_newton)(gramian, 2.0)
  assert residual < 1e-4
  assert _off(jacobian, np.asarray(w, np.float64), 2.0) < 1e-4

"""The hypergradient by hand, and against autodiff through the step ahead."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import BATCH, FORMS, PARAMS, T, plain

import mtljax as mtl

RATE = 0.05
VAL = BATCH[::-1] * 1.3
WEIGHTS = jnp.array([0.2, 0.5, 0.3])
DRAW = np.random.default_rng(0)
SIZE = 4


def quadratics(tasks):
  """Matrices and middles of convex losses."""
  roots = DRAW.normal(size=(tasks, SIZE, SIZE))
  return roots @ roots.transpose(0, 2, 1), DRAW.normal(size=(tasks, SIZE))


def quadratic_losses(params, data):
  matrices, middles = data
  off = params[None] - middles
  return 0.5 * jnp.einsum('ti,tij,tj->t', off, matrices, off)


TRAIN, HELD = quadratics(T), quadratics(T)
POINT = DRAW.normal(size=SIZE)


def by_hand(weights, primary):
  """Rows, one a primary task, in numpy."""
  grads = np.einsum('tij,tj->ti', TRAIN[0], POINT[None] - TRAIN[1])
  ahead = POINT - RATE * weights @ grads
  after = np.einsum('tij,tj->ti', HELD[0], ahead[None] - HELD[1])
  return np.stack([-RATE * grads @ after[p] for p in primary])


@pytest.mark.parametrize('how', ['exact', 'finite_difference'])
@pytest.mark.parametrize('primary', [None, (2, 0)])
def test_quadratic_by_hand(x64, how, primary):
  weights = np.array([0.2, 0.5, 0.3])
  expected = by_hand(weights, primary or range(T))
  for separate in (False, True):
    found = mtl.hypergradient(
      quadratic_losses,
      inner_learning_rate=RATE,
      primary=primary,
      separate=separate,
      hypergradient=how,
    )(jnp.asarray(POINT), jnp.asarray(weights), (TRAIN,), (HELD,))
    assert found.dtype == jnp.float64
    # Of a quadratic the central difference is exact but for rounding.
    np.testing.assert_allclose(
      found, expected if separate else expected.sum(0), rtol=1e-9, atol=1e-12
    )


def through_the_step(weights, primary):
  """Autodiff through the step ahead, second derivatives and all."""
  step = jax.grad(lambda p: weights @ plain(p, BATCH))(PARAMS)
  ahead = jax.tree.map(lambda p, g: p - 1e-3 * g, PARAMS, step)
  return plain(ahead, VAL)[jnp.array(primary)].sum()


@pytest.mark.parametrize('form', FORMS)
def test_forms_agree_with_autodiff_through_the_step(form):
  given = ([BATCH] * T, [VAL] * T) if form == 'sequence' else (BATCH, VAL)
  expected = jax.grad(through_the_step)(WEIGHTS, (0, 2))
  for how, rtol in [('exact', 1e-4), ('finite_difference', 2e-3)]:
    found = mtl.hypergradient(
      FORMS[form],
      inner_learning_rate=1e-3,
      primary=[0, 2],
      hypergradient=how,
    )(PARAMS, WEIGHTS, given[:1], given[1:])
    size = float(jnp.max(jnp.abs(expected)))
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * size)


def test_complex_parameters():
  def losses(w, x):
    return jnp.stack([jnp.abs(w[0] - x) ** 2, jnp.abs(w[1] + x * w[0]) ** 2])

  w, x, y = jnp.array([1 + 2j, 0.5j]), 0.3 + 0.1j, -1 + 0.5j
  weights = jnp.array([0.7, 0.4])

  def after(weights):
    step = jax.grad(lambda w: weights @ losses(w, x))(w)
    return losses(w - 0.1 * step.conj(), y).sum()

  found = mtl.hypergradient(losses, inner_learning_rate=0.1)(
    w, weights, (x,), (y,)
  )
  np.testing.assert_allclose(found, jax.grad(after)(weights), rtol=1e-5)


def test_no_slope_at_the_best_point():
  fn = mtl.hypergradient(
    lambda w, x: jnp.stack([(w - 1.0) ** 2, (w - x) ** 2]),
    inner_learning_rate=0.0,
    primary=[0],
    hypergradient='finite_difference',
  )
  found = fn(jnp.array(1.0), jnp.ones(2), (0.0,), (0.0,))
  np.testing.assert_array_equal(found, [0.0, 0.0])


@pytest.mark.parametrize(
  'options, weights, words',
  [
    ({'inner_learning_rate': -1.0}, 3, 'inner_learning_rate=-1.0'),
    ({'hypergradient': 'finite'}, 3, "hypergradient='finite'.*Did you mean"),
    ({'primary': []}, 3, r'primary=\[\] must name at least one'),
    ({'primary': [1, 1]}, 3, r'primary=\[1, 1\].*each once'),
    ({'primary': [3]}, 3, r'primary=\(3,\) must be .*below num_tasks=3'),
    ({'primary': [0.5]}, 3, r'primary\[0\]=0.5'),
    ({}, (1, 3), r'weights has shape \(1, 3\)'),
  ],
)
def test_bad_arguments(options, weights, words):
  with pytest.raises(ValueError, match=words):
    mtl.hypergradient(plain, **{'inner_learning_rate': 0.1, **options})(
      PARAMS, jnp.ones(weights), (BATCH,), (VAL,)
    )


def test_primary_is_a_list():
  with pytest.raises(TypeError, match='primary=2 must be a list'):
    mtl.hypergradient(plain, inner_learning_rate=0.1, primary=2)

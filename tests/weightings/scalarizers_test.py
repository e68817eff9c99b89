"""COSMOS and PBI: gradients of their objectives, and the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax._types import TaskStats
from mtljax.weightings import cosmos, fixed, pbi

LOSSES = np.array([0.3, 1.0, 2.0, 5.0])
PREFERENCE = np.array([0.1, 0.4, 0.0, 0.5])
REFERENCE = np.array([0.1, -0.2, 0.5, 0.0])


def weights_of(weighting, losses=LOSSES, mask=None):
  losses = jnp.asarray(losses)
  stats = TaskStats(losses=losses, mask=mask)
  return np.asarray(weighting.update(stats, weighting.init(len(losses)))[0])


def cosmos_by_the_formula(losses, preference, lambda_):
  cosine = losses @ preference
  cosine /= np.linalg.norm(losses) * np.linalg.norm(preference)
  return losses @ preference - lambda_ * cosine


def pbi_by_the_formula(losses, preference, theta, reference):
  wanted = preference / np.linalg.norm(preference)
  along = (losses - reference) @ wanted
  return along + theta * np.linalg.norm(losses - reference - along * wanted)


def slopes(objective, at):
  """Central differences in float64."""
  steps = 1e-6 * np.eye(len(at))
  return np.array(
    [(objective(at + s) - objective(at - s)) / 2e-6 for s in steps]
  )


@pytest.mark.parametrize('lambda_', [0.0, 0.7, 8.0])
def test_cosmos_is_the_gradient_of_its_objective(lambda_, x64):
  weighting = cosmos(cosine_weight=lambda_, preference=PREFERENCE)
  objective = lambda x: cosmos_by_the_formula(x, PREFERENCE, lambda_)
  np.testing.assert_allclose(
    weights_of(weighting), slopes(objective, LOSSES), rtol=1e-7, atol=1e-8
  )
  equal = lambda x: cosmos_by_the_formula(x, np.full(4, 0.25), lambda_)
  np.testing.assert_allclose(
    weights_of(cosmos(cosine_weight=lambda_)), slopes(equal, LOSSES), atol=1e-8
  )


@pytest.mark.parametrize('theta', [0.0, 0.7, 5.0])
def test_pbi_is_the_gradient_of_its_objective(theta, x64):
  weighting = pbi(penalty=theta, preference=PREFERENCE, reference=REFERENCE)
  objective = lambda x: pbi_by_the_formula(x, PREFERENCE, theta, REFERENCE)
  np.testing.assert_allclose(
    weights_of(weighting), slopes(objective, LOSSES), rtol=1e-7, atol=1e-8
  )


@pytest.mark.parametrize('case', ['scal_T2', 'scal_T3'])
def test_agree_with_torchjd(golden, x64, case):
  given = {name: golden[f'{case}/{name}'] for name in ('weights', 'reference')}
  preference, reference = given['weights'], given['reference']
  pairs = {
    'COSMOS(lambda_=1,weights)': cosmos(
      cosine_weight=1.0, preference=preference
    ),
    'PBI(theta=5,weights)': pbi(preference=preference),
    'PBI(theta=5,weights,reference)': pbi(
      preference=preference, reference=reference
    ),
  }
  for name, weighting in pairs.items():
    np.testing.assert_allclose(
      weights_of(weighting, golden[f'{case}/values']),
      golden[f'{case}/{name}:grad'],
      rtol=1e-9 if name.startswith('COSMOS') else 1e-6,  # its 1e-12
      err_msg=name,
    )


def test_without_a_penalty_they_are_fixed_weights():
  preference = [0.2, 0.0, 0.5, 1.0]
  plain = weights_of(fixed(weights=preference))
  np.testing.assert_array_equal(
    weights_of(cosmos(cosine_weight=0.0, preference=preference)), plain
  )
  np.testing.assert_allclose(
    weights_of(pbi(penalty=0.0, preference=preference)),
    plain / np.linalg.norm(plain),
    rtol=1e-6,
  )


@pytest.mark.parametrize('factor', [1e-20, 0.3, 7.0, 1e20])
def test_losses_in_the_preferred_ratio(factor):
  preference = np.array([0.37, 1.1, 0.05], np.float32)
  losses = np.float32(factor) * preference
  np.testing.assert_allclose(
    weights_of(pbi(preference=preference), losses),
    preference / np.linalg.norm(preference),
    rtol=1e-6,
  )
  pull = weights_of(cosmos(cosine_weight=1.0, preference=preference), losses)
  pull = (pull - preference) * factor
  np.testing.assert_allclose(pull, 0, atol=1e-6 * max(1.0, factor))


def test_a_large_and_a_small_scale_change_nothing_but_the_pull():
  for factor in (1e-25, 1e25):
    losses = np.float32(factor) * LOSSES.astype(np.float32)
    np.testing.assert_allclose(
      weights_of(pbi(), losses), weights_of(pbi()), rtol=1e-5
    )
    assert np.all(np.isfinite(weights_of(cosmos(), losses)))


def test_no_loss_at_all():
  np.testing.assert_allclose(weights_of(cosmos(), np.zeros(4)), 0.25)
  np.testing.assert_allclose(weights_of(pbi(), np.zeros(4)), 0.5)
  equal = pbi(reference=LOSSES.astype(np.float32))
  np.testing.assert_allclose(weights_of(equal, LOSSES), 0.5, rtol=1e-6)


@pytest.mark.parametrize('make', [cosmos, pbi])
def test_absent_tasks_leave_the_smaller_problem(make, x64):
  mask = np.array([True, False, True, True])
  poisoned = np.where(mask, LOSSES, np.nan)
  weights = weights_of(make(preference=PREFERENCE), poisoned, mask)
  small = make(preference=PREFERENCE[mask])
  np.testing.assert_allclose(
    weights[mask], weights_of(small, LOSSES[mask]), rtol=1e-12
  )
  assert weights[1] == 0
  weights = weights_of(make(), poisoned, mask)
  np.testing.assert_allclose(
    weights[mask], weights_of(make(), LOSSES[mask]), rtol=1e-12
  )
  assert np.all(weights_of(make(), LOSSES, np.zeros(4, bool)) == 0)


@pytest.mark.parametrize('make', [cosmos, pbi])
def test_one_bad_loss_is_seen_in_all(make):
  assert np.all(np.isnan(weights_of(make(), [1.0, np.inf, 2.0])))
  assert np.all(np.isnan(weights_of(make(), [1.0, np.nan, 2.0])))


@pytest.mark.parametrize('make', [cosmos, pbi])
def test_the_preference_may_be_drawn_at_every_step(make):
  @jax.jit
  def step(key):
    preference = jax.random.dirichlet(key, jnp.ones(3))
    weighting = make(preference=preference)
    stats = TaskStats(losses=jnp.array([1.0, 2.0, 0.5]))
    return weighting.update(stats, weighting.init(3))[0], preference

  weights, preference = step(jax.random.key(0))
  np.testing.assert_allclose(
    weights,
    weights_of(make(preference=preference), [1.0, 2.0, 0.5]),
    rtol=1e-5,
  )


@pytest.mark.parametrize('make', [cosmos, pbi])
def test_refuses(make):
  with pytest.raises(ValueError, match='preference='):
    make(preference=[0.0, 0.0])
  with pytest.raises(ValueError, match='num_tasks=3'):
    make(preference=[1.0, 1.0]).init(3)

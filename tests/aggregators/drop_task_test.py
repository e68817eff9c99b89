"""``nonfinite='drop_task'`` beside a mask, owned leaves and a second batch."""

import jax.numpy as jnp
import numpy as np
import pytest

import mtljax as mtl

T = 4
LABELS = {'trunk': 'shared', 'heads': [0, 1, 2, 3], 'fused': 'stacked'}


def make_grads():
  return {
    'trunk': jnp.eye(T, 5) + 0.1,
    'heads': [jnp.full(2, 1.0 + t) for t in range(T)],
    'fused': jnp.ones((T, 3)),
  }


def update(grads, losses=None, mask=None, make=mtl.mean, **extra):
  tx = make(T, labels=LABELS, nonfinite='drop_task')
  losses = jnp.ones(T) if losses is None else losses
  out, state = tx.update(
    grads, tx.init(None), losses=losses, task_mask=mask, **extra
  )
  return out, mtl.get_weights(state)


def bad(place, t):
  """Gradients and losses of which one task's are not finite at one place."""
  grads, losses = make_grads(), jnp.ones(T)
  if place == 'losses':
    losses = losses.at[t].set(jnp.inf)
  elif place == 'heads':
    grads['heads'][t] = grads['heads'][t].at[1].set(jnp.nan)
  else:
    grads[place] = grads[place].at[t, 2].set(jnp.nan)
  return grads, losses


@pytest.mark.parametrize('place', ['trunk', 'heads', 'fused', 'losses'])
@pytest.mark.parametrize('mask', [None, jnp.array([True, True, True, False])])
def test_bad_and_absent_tasks_are_left_out_alike(place, mask):
  out, weights = update(*bad(place, 1), mask=mask)
  present = np.array([1, 0, 1, 1 if mask is None else 0], bool)
  expected, _ = update(make_grads(), mask=jnp.asarray(present))
  np.testing.assert_allclose(weights, present / present.sum(), rtol=1e-6)
  np.testing.assert_array_equal(out['trunk'], expected['trunk'])
  for t in range(T):
    assert jnp.any(out['heads'][t] != 0) == present[t]
    assert jnp.any(out['fused'][t] != 0) == present[t]


def test_a_bad_gradient_of_the_other_batch_drops_its_task():
  """It is seen nowhere but in the row and column of the cross-Gramian."""
  cross = jnp.eye(T) + 0.1
  cross = cross.at[2].set(jnp.nan).at[:, 2].set(jnp.nan)
  out, weights = update(make_grads(), make=mtl.modo, cross_gramian=cross)
  assert weights[2] == 0
  assert jnp.isfinite(weights).all() and jnp.sum(weights) > 0.5
  assert jnp.isfinite(out['trunk']).all()

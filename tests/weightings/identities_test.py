"""Methods of other names that are ones here: NTKMTL, DiBS-MTL, PSMGD."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import weightings
from mtljax._types import TaskStats

RNG = np.random.default_rng(0)
JACOBIANS = [
  RNG.normal(size=(tasks, 9)) * 10.0 ** RNG.uniform(-2, 2, size=(tasks, 1))
  for tasks in (2, 3, 7)
]


def slw_update(jacobian):
  weighting = weightings.slw()
  stats = TaskStats(gramian=jnp.asarray(jacobian @ jacobian.T))
  weights, _ = weighting.update(stats, weighting.init(len(jacobian)))
  return np.asarray(weights) @ jacobian


@pytest.mark.parametrize('jacobian', JACOBIANS, ids=len)
def test_ntkmtl_of_one_sample_is_slw(jacobian, x64):
  squares = np.sum(jacobian**2, axis=1)
  trace = squares.sum()  # of the task-wise kernels, one row each
  theirs = np.sqrt(trace / squares) @ jacobian
  ratio = np.sqrt(trace) * np.mean(1 / np.sqrt(squares))
  np.testing.assert_allclose(theirs, ratio * slw_update(jacobian), rtol=1e-9)


@pytest.mark.parametrize('jacobian', JACOBIANS, ids=len)
@pytest.mark.parametrize('radius', [0.1, 10.0])
def test_one_step_of_dibs_mtl_has_the_direction_of_slw(jacobian, radius, x64):
  unit = jacobian / np.linalg.norm(jacobian, axis=1, keepdims=True)
  # From 0 the distance to every preferred point is the radius.
  theirs = 0.01 * np.sum(radius * unit, axis=0)
  theirs = theirs / max(1.0, np.linalg.norm(theirs))
  ours = slw_update(jacobian)
  cosine = theirs @ ours / np.linalg.norm(theirs) / np.linalg.norm(ours)
  np.testing.assert_allclose(cosine, 1, rtol=1e-12)


def shortest_of_two(jacobian):
  """MGDA's weights in closed form."""
  first, second = jacobian
  share = (second - first) @ second / np.sum((first - second) ** 2)
  share = np.clip(share, 0, 1)
  return np.array([share, 1 - share])


def test_psmgd_is_mgda_every_few_steps_with_an_average(x64):
  weighting = weightings.every_k(
    weightings.cr_mogm(weightings.mgda(), decay=0.1), 8
  )
  state, held = weighting.init(2), None
  update = jax.jit(weighting.update)
  for step in range(30):
    jacobian = RNG.normal(size=(2, 5)) + 0.2
    stats = TaskStats(gramian=jnp.asarray(jacobian @ jacobian.T))
    weights, state = update(stats, state)
    if step % 8 == 0:
      new = shortest_of_two(jacobian)
      held = new if held is None else 0.9 * new + 0.1 * held
    np.testing.assert_allclose(weights, held, rtol=1e-9, atol=1e-12)

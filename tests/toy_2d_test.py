"""The published picture of the two-task toy problem."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from experiments.studies.toy import problem as toy_2d

# Start, losses, gradient of the first, of the second; the first times 0.1.
REFERENCE = [
  (
    (-8.5, 7.5),
    (0.655236, 7.900798),
    (-0.028540, 0.000725),
    (-0.073992, 0.008739),
  ),
  ((0.0, 0.0), (0.0, 0.0), (0.0, 1.085638), (0.0, 10.856381)),
  (
    (9.0, 9.0),
    (0.794395, 6.691495),
    (0.007141, 0.000196),
    (0.249938, 0.001652),
  ),
  (
    (-7.5, -0.5),
    (0.038881, -4.754484),
    (-0.071026, -0.070940),
    (-0.024492, 9.160757),
  ),
  (
    (9.0, -1.0),
    (-0.883106, 2.814293),
    (0.018485, 0.757920),
    (1.478775, -2.330037),
  ),
  (
    (-8.5, -5.0),
    (0.405992, -19.421502),
    (-0.305850, 0.000448),
    (-0.295984, 0.320931),
  ),
]


@pytest.mark.parametrize('start, losses, first, second', REFERENCE)
def test_losses_and_gradients(start, losses, first, second, x64):
  grad_fn = mtl.value_and_task_grads(lambda p: toy_2d.losses(p, scale=0.1))
  found, grads = grad_fn(jnp.array(start))
  np.testing.assert_allclose(found, losses, atol=6e-7)
  np.testing.assert_allclose(grads, [first, second], atol=6e-7)


def ends(method, steps, learning_rate):
  """Where Adam goes from the three starts."""
  grad_fn = mtl.value_and_task_grads(toy_2d.losses)
  tx = optax.chain(method, optax.adam(learning_rate))

  def step(carry, _):
    point, state = carry
    losses, grads = grad_fn(point)
    updates, state = tx.update(grads, state, point, losses=losses)
    return (optax.apply_updates(point, updates), state), None

  def run(start):
    (point, _), _ = jax.lax.scan(step, (start, tx.init(start)), length=steps)
    return point

  return np.asarray(jax.jit(jax.vmap(run))(jnp.array(toy_2d.STARTS)))


FULL = pytest.param(100_000, 1e-3, marks=pytest.mark.slow, id='published')


def lengths(steps, rate):
  """As published, and fewer steps at a higher rate."""
  short = pytest.param(steps, rate, id='short')
  return pytest.mark.parametrize('steps, rate', [FULL, short])


@lengths(30_000, 3e-3)  # at 1e-2 rounding decides whether Adam leaves a valley
def test_mean_is_stuck_from_two_of_three_starts(steps, rate, x64):
  points = ends(mtl.mean(2), steps, rate)
  np.testing.assert_allclose(points[1], toy_2d.MEAN_OPTIMUM, atol=0.01)
  assert np.all(points[[0, 2], 1] > 0)  # still in the valleys above
  if steps == 100_000:
    np.testing.assert_allclose(points[0], (-5.06, 2.17), atol=0.05)
    np.testing.assert_allclose(points[2], (5.05, 2.34), atol=0.05)


@lengths(15_000, 1e-2)
def test_cagrad_reaches_the_optimum_of_the_mean_from_all(steps, rate, x64):
  points = ends(mtl.cagrad(2, c=0.5, rescale='c'), steps, rate)
  # On the shorter way rounding moves the last approach by up to 0.2.
  atol = 0.01 if steps == 100_000 else 0.4
  np.testing.assert_allclose(points, [toy_2d.MEAN_OPTIMUM] * 3, atol=atol)


@lengths(15_000, 1e-2)
@pytest.mark.parametrize('name', ['pcgrad', 'mgda'])
def test_others_end_on_the_pareto_front(name, steps, rate, x64):
  """Between the minima of the tasks, and not all at the mean's optimum."""
  points = ends(getattr(mtl, name)(2), steps, rate)
  assert np.all(np.abs(points[:, 0]) < 7.1)
  # x2 on the front is -8.3551 at x1 = 0 and -8.4345 at its ends.
  assert np.all((points[:, 1] > -8.45) & (points[:, 1] < -8.34))
  assert np.max(np.abs(points[:, 0])) > 1

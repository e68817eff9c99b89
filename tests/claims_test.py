"""The common battery: degenerate input, absent tasks, declared claims."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from battery import (
  ALL,
  FIRST,
  LOSSES,
  VARIANTS,
  claiming,
  rows,
)

import mtljax as mtl


@VARIANTS
def test_one_task(m):
  gradient = jnp.array([[3.0, -4.0]])
  out, weights = rows(m(1), gradient)
  if m.has_weights:
    assert weights.shape == (1,)
    assert weights[0] > 0
  np.testing.assert_allclose(
    out / np.linalg.norm(out), gradient[0] / 5, rtol=1e-5
  )


@VARIANTS
@pytest.mark.parametrize('num_tasks', [2, 3, 10])
def test_degenerate_inputs_stay_finite(m, num_tasks):
  rng = np.random.default_rng(num_tasks)
  normal = rng.normal(size=(num_tasks, 6)).astype(np.float32)
  zero_row = normal.copy()
  zero_row[0] = 0
  scales = np.logspace(-10, 10, num_tasks, dtype=np.float32)[:, None]
  antiparallel = normal.copy()
  antiparallel[1] = -antiparallel[0]
  cases = {
    'zeros': np.zeros_like(normal),
    'identical': np.repeat(normal[:1], num_tasks, axis=0),
    'rank one': normal[:, :1] * normal[:1],
    'zero row': zero_row,
    'row scales': normal * scales,
    'tiny': normal * np.float32(1e-15),
    'huge': normal * np.float32(1e15),
    'antiparallel': antiparallel,
  }
  tx = m(num_tasks)
  update = jax.jit(lambda j: rows(tx, j))
  for name, jacobian in cases.items():
    out, weights = update(jnp.asarray(jacobian))
    assert weights is None or np.all(np.isfinite(weights)), name
    assert np.all(np.isfinite(out)), name
  assert not np.any(update(jnp.zeros((num_tasks, 6)))[0])


@VARIANTS
def test_masked_task_is_the_smaller_problem(m):
  """The others' weights are those of the problem without the task."""
  jacobian = jax.random.normal(jax.random.key(5), (3, 6))
  mask = jnp.array([True, False, True])
  poisoned = jacobian.at[1].set(jnp.nan)
  losses = jnp.array([0.5, jnp.nan, 2.0])
  params = jnp.zeros(jacobian.shape[1])
  if m.name == 'rlw':  # draws other numbers for another T
    tx = m(3)
    out, state = tx.update(
      poisoned, tx.init(params), losses=losses, task_mask=mask
    )
    weights = mtl.get_weights(state)
    assert weights[1] == 0
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)
    assert np.all(np.isfinite(out))
    return
  kwargs = {
    k: [v[0], v[2]] if k in m.per_task else v for k, v in m.kwargs.items()
  }
  kwargs.update((k, f(2)) for k, f in m.by_size.items())
  big, small = m(3), m.build(2, **kwargs)
  out, state = big.update(
    poisoned, big.init(params), losses=losses, task_mask=mask
  )
  expected, small_state = small.update(
    jacobian[mask], small.init(params), losses=losses[mask]
  )
  np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
  if not m.has_weights:
    return
  weights = mtl.get_weights(state)
  assert weights[1] == 0
  np.testing.assert_allclose(
    weights[mask], mtl.get_weights(small_state), rtol=1e-4, atol=1e-5
  )


@ALL
def test_all_tasks_masked(m):
  tx = m(2)
  grads = jnp.full((2, 3), jnp.nan)
  out, state = tx.update(
    grads, tx.init(jnp.zeros(3)), losses=LOSSES, task_mask=jnp.zeros(2, bool)
  )
  assert not np.any(out)
  assert not m.has_weights or not np.any(mtl.get_weights(state))


@ALL
def test_nonfinite_propagates_or_drops(m):
  grads = jnp.array([[1.0, jnp.nan], [0.5, 2.0]])
  losses = jnp.array([jnp.inf, 1.0])
  tx = m(2)
  out, state = tx.update(grads, tx.init(jnp.zeros(2)), losses=losses)
  assert np.any(np.isnan(out))
  if tx.needs and m.has_weights:
    assert np.all(np.isnan(mtl.get_weights(state)))
  tx = m(2, nonfinite='drop_task')
  out, state = tx.update(grads, tx.init(jnp.zeros(2)), losses=losses)
  assert not m.has_weights or mtl.get_weights(state)[0] == 0
  assert np.all(np.isfinite(out))


@claiming('equivariant')
def test_permutation_equivariant(m):
  jacobian = jax.random.normal(jax.random.key(2), (4, 9))
  losses = jnp.array([0.3, 1.0, 2.0, 5.0])
  order = jnp.array([2, 0, 3, 1])
  out, weights = rows(m(4), jacobian, losses)
  permuted, permuted_weights = rows(m(4), jacobian[order], losses[order])
  np.testing.assert_allclose(permuted, out, rtol=1e-3, atol=1e-4)
  if m.has_weights:
    np.testing.assert_allclose(
      permuted_weights, weights[order], rtol=1e-3, atol=1e-4
    )


@claiming('non_conflicting')
@pytest.mark.parametrize('seed', range(5))
def test_non_conflicting(m, seed):
  rng = np.random.default_rng(seed)
  jacobian = rng.normal(size=(4, 7)).astype(np.float32)
  jacobian -= 0.5 * jacobian.mean(0)
  jacobian *= np.logspace(-2, 2, 4, dtype=np.float32)[:, None]
  out, _ = rows(m(4), jacobian)
  norms = np.linalg.norm(jacobian, axis=1) * np.linalg.norm(out)
  assert np.min(jacobian @ np.asarray(out) / norms) > -2e-3


@claiming('stationary')
def test_zero_at_stationary_points(m):
  rng = np.random.default_rng(0)
  jacobian = rng.normal(size=(3, 8)).astype(np.float32)
  jacobian[2] = -(0.3 * jacobian[0] + 0.7 * jacobian[1])
  out, _ = rows(m(3), jacobian)
  assert np.linalg.norm(out) < 1e-3 * np.linalg.norm(jacobian)


@claiming('linear')
@pytest.mark.parametrize('scale', [1e-4, 1e4])
def test_linear_under_scaling(m, scale):
  jacobian = jax.random.normal(jax.random.key(4), (3, 6))
  out, _ = rows(m(3), jacobian)
  scaled, _ = rows(m(3), jacobian * scale)
  np.testing.assert_allclose(scaled / scale, out, rtol=1e-3, atol=1e-4)


@VARIANTS
def test_declared_invariance_to_loss_scale(m):
  """The declared class holds, and no stronger one does."""
  if m.warms_up:
    return
  jacobian = jax.random.normal(jax.random.key(6), (4, 30))
  losses = jnp.array([0.3, 1.0, 2.0, 5.0])
  scale = jnp.array([10.0, 0.1, 3.0, 0.7])
  tx = m(4, max_norm=None)
  steps = 3 if 'losses' in tx.needs else 1
  out, _ = rows(tx, jacobian, losses, steps)
  scaled, _ = rows(tx, jacobian * scale[:, None], losses * scale, steps)
  cosine = out @ scaled / (np.linalg.norm(out) * np.linalg.norm(scaled))
  ratio = np.linalg.norm(scaled) / np.linalg.norm(out)
  same_direction = abs(cosine - 1) < 1e-4
  same_length = abs(ratio - 1) < 1e-3
  found = 'none'
  if same_direction:
    found = 'full' if same_length else 'direction'
  assert tx.invariance == found


@ALL
def test_converges_on_two_quadratics(m):
  """Ends on the segment between the two minima, or near it."""
  a, b = jnp.array([1.0, 0.0]), jnp.array([-1.0, 0.5])

  def task_losses(x):
    return jnp.stack([jnp.sum((x - a) ** 2), jnp.sum((x - b) ** 2)])

  grad_fn = mtl.value_and_task_grads(task_losses)
  tx = optax.chain(
    m(2, key=1), optax.adam(optax.cosine_decay_schedule(0.05, 300))
  )

  def step(carry, _):
    x, state = carry
    losses, grads = grad_fn(x)
    updates, state = tx.update(grads, state, x, losses=losses)
    return (optax.apply_updates(x, updates), state), losses

  x0 = jnp.array([0.3, 3.0])
  (x, _), _ = jax.lax.scan(step, (x0, tx.init(x0)), length=300)
  t = jnp.clip((x - b) @ (a - b) / jnp.sum((a - b) ** 2), 0, 1)
  distance = jnp.linalg.norm(x - (b + t * (a - b)))
  assert distance < 0.1 * jnp.linalg.norm(x0)


def cagrad_of_orthogonal(lengths, c=0.4):
  """The largest level ``s`` with ``d_t >= s / a_t`` in the ball."""
  center = lengths / len(lengths)
  radius = c * np.linalg.norm(center)
  low, high = 0.0, 1e3
  for _ in range(200):
    level = (low + high) / 2
    lift = np.maximum(level / lengths - center, 0)
    low, high = (low, level) if np.sum(lift**2) > radius**2 else (level, high)
  return center + np.maximum(low / lengths - center, 0)


# The update for orthogonal gradients of these lengths, in their directions, up
# to a factor.
ORTHOGONAL = {
  'sum_losses': lambda a: a,
  'mgda': lambda a: (1 / a) / np.sum(1 / a**2),
  'pcgrad': lambda a: a,
  'cagrad': cagrad_of_orthogonal,
  'imtl_g': lambda a: np.ones(len(a)) / np.sum(1 / a),
  'nash_mtl': lambda a: np.ones(len(a)),
  'fairgrad': lambda a: a ** (-1 / 3),
  'aligned_mtl': lambda a: np.min(a) * np.ones(len(a)),
  'conflict_free': lambda a: np.sum(a) * np.ones(len(a)),
  'upgrad': lambda a: a,
  'dual_proj': lambda a: a,
  'uw_o': lambda a: np.ones(len(a)),
  'db_mtl': lambda a: np.ones(len(a)),
  'slw': lambda a: np.ones(len(a)) / np.sum(1 / a),
}


@pytest.mark.parametrize('name', ORTHOGONAL)
def test_change_under_loss_scales_of_orthogonal_gradients(name):
  """Cosine and ratio of the updates before and after, in closed form."""
  rng = np.random.default_rng(7)
  jacobian = np.linalg.qr(rng.normal(size=(30, 4)))[0].T
  jacobian = jnp.asarray(jacobian, jnp.float32)
  losses = jnp.array([0.3, 1.0, 2.0, 5.0])
  scale = np.array([10.0, 0.1, 3.0, 0.7])
  before, after = ORTHOGONAL[name](np.ones(4)), ORTHOGONAL[name](scale)
  m = next(m for m in FIRST if m.name == name)
  tx = m(4, max_norm=None)
  out, _ = rows(tx, jacobian, losses)
  scaled, _ = rows(
    tx, jacobian * scale.astype(np.float32)[:, None], losses * scale
  )
  norm = np.linalg.norm
  np.testing.assert_allclose(
    [
      out @ scaled / (norm(out) * norm(scaled)),
      norm(scaled) / norm(out),
    ],
    [
      before @ after / (norm(before) * norm(after)),
      norm(after) / norm(before),
    ],
    rtol=1e-4,
  )

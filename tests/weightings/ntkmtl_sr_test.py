"""NTKMTL-SR, against kernels that are formed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import LABELS, STAGED, T, trunk

import mtljax as mtl
from mtljax import TaskStats, weightings
from mtljax.training import make_train_step

CHUNKS = 4


def in_float64():
  rng = np.random.default_rng(0)
  params = {
    'trunk': {'w': rng.normal(size=(4, 6)), 'b': np.ones(6)},
    'heads': [rng.normal(size=6) for _ in range(T)],
  }
  return jax.tree.map(jnp.asarray, (params, rng.normal(size=(8, 4))))


def explicit_eigenvalues(params, batch):
  """The largest of each task's kernel, from the Jacobian of its chunks."""
  features = trunk(params, batch)
  size = len(batch) // CHUNKS
  found = []
  for head in STAGED.heads:
    rows = []
    for c in range(CHUNKS):
      part = slice(c * size, (c + 1) * size)
      loss = lambda z, head=head, part=part: head(params, z[part], batch[part])
      rows.append(np.ravel(jax.grad(loss)(features)))
    jacobian = np.stack(rows)
    found.append(np.linalg.eigvalsh(jacobian @ jacobian.T)[-1])
  return np.array(found)


def test_norms_are_the_eigenvalues_of_the_kernels(x64):
  params, batch = in_float64()
  norms_fn = jax.jit(mtl.value_and_feature_norms(STAGED, chunks=CHUNKS))
  losses, norms = norms_fn(params, batch)
  np.testing.assert_allclose(
    CHUNKS**2 * jnp.max(norms, axis=1),
    explicit_eigenvalues(params, batch),
    rtol=1e-10,
  )
  expected = [h(params, trunk(params, batch), batch) for h in STAGED.heads]
  np.testing.assert_allclose(losses, expected, rtol=1e-12)


@pytest.mark.parametrize('power', [0.5, 0.75])
def test_a_step_descends_the_weighted_losses(power, x64):
  params, batch = in_float64()
  eigenvalues = explicit_eigenvalues(params, batch)
  weights = (eigenvalues.sum() / eigenvalues) ** power
  method = mtl.ntkmtl_sr(T, power=power, labels=LABELS)
  made = make_train_step(method, optax.sgd(1.0), STAGED)
  assert made.route == 'losses'
  state = made.init(params, key=jax.random.key(0))
  state, metrics = made.step(state, batch)
  np.testing.assert_allclose(metrics['weights'], weights, rtol=1e-10)

  def weighted(params):
    z = trunk(params, batch)
    return sum(
      w * head(params, z, batch)
      for w, head in zip(weights, STAGED.heads, strict=True)
    )

  expected = jax.tree.map(jnp.subtract, params, jax.grad(weighted)(params))
  for found, right in zip(
    jax.tree.leaves(state.params), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(found, right, rtol=1e-9, atol=1e-12)


def test_one_chunk_has_the_direction_of_slw(x64):
  jacobian = np.random.default_rng(1).normal(size=(5, 9)) * np.logspace(
    -2, 2, 5
  ).reshape(-1, 1)
  gramian = jnp.asarray(jacobian @ jacobian.T)
  rule, slw = weightings.ntkmtl_sr(chunks=1), weightings.slw()
  stats = TaskStats(feature_norms=jnp.diagonal(gramian)[:, None])
  found, _ = rule.update(stats, rule.init(5))
  other, _ = slw.update(TaskStats(gramian=gramian), slw.init(5))
  np.testing.assert_allclose(found / found[0], other / other[0], rtol=1e-10)


def test_loops_of_ones_own_agree_with_the_step():
  """As a rule, in a scan of a vmap, and on the optax face."""
  params, batch = in_float64()
  rule = weightings.ntkmtl_sr()
  norms_fn = mtl.value_and_feature_norms(STAGED)
  grad_fn = mtl.value_and_task_grads(STAGED, labels=LABELS)
  tx = mtl.ntkmtl_sr(T, labels=LABELS)

  @jax.jit
  @jax.vmap
  def go(scale):
    def step(params, _):
      _, norms = norms_fn(params, scale * batch)
      weights, _ = rule.update(TaskStats(feature_norms=norms), rule.init(T))
      losses, grads = grad_fn(params, scale * batch)
      update, state = tx.update(
        grads, tx.init(params), losses=losses, feature_norms=norms
      )
      params = jax.tree.map(lambda p, u: p - 1e-3 * u, params, update)
      return params, (weights, mtl.get_weights(state))

    return jax.lax.scan(step, params, length=2)

  ends, (by_rule, by_method) = go(jnp.array([1.0, 2.0]))
  np.testing.assert_array_equal(by_rule, by_method)
  made = make_train_step(tx, optax.sgd(1e-3), STAGED)
  state = made.init(params, key=jax.random.key(0))
  for i in range(2):
    state, metrics = made.step(state, batch)
    np.testing.assert_allclose(metrics['weights'], by_rule[0, i], rtol=1e-4)
  np.testing.assert_allclose(
    state.params['trunk']['w'], ends['trunk']['w'][0], rtol=1e-4, atol=1e-5
  )


def test_edge_cases():
  rule = weightings.ntkmtl_sr(chunks=2)

  def weights(norms, mask=None):
    stats = TaskStats(feature_norms=jnp.array(norms), mask=mask)
    return rule.update(stats, rule.init(len(norms)))[0]

  np.testing.assert_allclose(weights([[3.0, 5.0]]), [1])
  np.testing.assert_array_equal(weights([[0.0, 0.0]] * 2), [0, 0])
  two = weights([[1.0, 4.0], [9.0, 2.0]])
  np.testing.assert_allclose(two, [np.sqrt(13 / 4), np.sqrt(13 / 9)], rtol=1e-6)
  with_zero = weights([[1.0, 4.0], [0.0, 0.0], [9.0, 2.0]])
  np.testing.assert_allclose(with_zero, [two[0], 0, two[1]], rtol=1e-6)
  masked = weights(
    [[1.0, 4.0], [jnp.nan, 1.0], [9.0, 2.0]], jnp.array([True, False, True])
  )
  np.testing.assert_allclose(masked, [two[0], 0, two[1]], rtol=1e-6)
  assert np.isnan(weights([[1.0, 4.0], [jnp.inf, 2.0]])).all()
  tiny = weights([[1e-30, 1e-33], [1e30, 1.0]])
  np.testing.assert_allclose(tiny, [1e30, 1], rtol=1e-5)

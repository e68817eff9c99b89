import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.metrics import Accuracy, Mean


def _data(seed, shape=(12, 3)):
  rng = np.random.default_rng(seed)
  return (
    rng.normal(size=shape).astype(np.float32),
    rng.uniform(size=shape).astype(np.float32),
    rng.uniform(size=shape) > 0.3,
  )


@pytest.mark.parametrize('axis', [None, 0, (0, 1)])
def test_uneven_batches_merge_to_the_mean_of_all_data(axis):
  values, weights, mask = _data(0)
  parts = [slice(0, 5), slice(5, 6), slice(6, 12)]
  merged = Mean.empty((3,) if axis == 0 else ())
  for part in parts:
    merged = merged.merge(
      Mean.from_values(
        values[part], weights=weights[part], mask=mask[part], axis=axis
      )
    )
  kept = weights * mask
  expected = (values * kept).sum(axis) / kept.sum(axis)
  np.testing.assert_allclose(merged.compute(), expected, rtol=1e-5)


def test_merge_is_commutative_and_has_a_neutral_element():
  first, second = Mean.from_values(_data(1)[0]), Mean.from_values(_data(2)[0])
  assert first.merge(second).compute() == second.merge(first).compute()
  assert first.merge(Mean.empty()).compute() == first.compute()


def test_masked_entries_cannot_leak():
  values = jnp.array([1.0, jnp.nan, 3.0, jnp.inf])
  mask = jnp.array([True, False, True, False])
  weights = jnp.array([1.0, jnp.inf, 3.0, 1.0])
  got = Mean.from_values(values, weights=weights, mask=mask)
  assert got.compute() == 2.5


def test_no_data_is_nan_and_unmasked_nan_shows():
  assert jnp.isnan(Mean.empty().compute())
  assert jnp.isnan(Mean.from_values(jnp.ones(2), mask=jnp.zeros(2)).compute())
  assert jnp.isnan(Mean.from_values(jnp.array([1.0, jnp.nan])).compute())


def test_low_precision_and_integers_accumulate_in_float32():
  half = Mean.from_values(jnp.full(4096, 1.001, jnp.bfloat16))
  assert half.total.dtype == half.weight.dtype == jnp.float32
  assert half.weight == 4096  # bfloat16 would stop at 256
  assert Mean.from_values(jnp.array([1, 2])).compute() == 1.5


def test_float64_keeps_its_width(x64):
  values = jnp.array([1.0, 1.0 + 1e-12], jnp.float64)
  got = Mean.empty().merge(Mean.from_values(values)).compute()
  assert got.dtype == jnp.float64
  assert got == 1.0 + 5e-13


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.float64])
def test_scan_carries_a_metric(x64, dtype):
  values = jnp.asarray(_data(3)[0], dtype)

  def step(metric, row):
    return metric.merge(Mean.from_values(row)), None

  total, _ = jax.lax.scan(step, Mean.empty(), values)
  np.testing.assert_allclose(total.compute(), values.mean(), rtol=1e-6)


def test_jit_vmap_and_psum_agree():
  values, _, mask = _data(4)
  plain = Mean.from_values(values, mask=mask).compute()
  rows = jax.jit(jax.vmap(lambda v, m: Mean.from_values(v, mask=m)))(
    values, mask
  )
  summed = jax.tree.map(lambda x: x.sum(0), rows)
  np.testing.assert_allclose(summed.compute(), plain, rtol=1e-5)
  psummed = jax.vmap(
    lambda v, m: jax.lax.psum(Mean.from_values(v, mask=m), 'batch'),
    axis_name='batch',
  )(values, mask)
  np.testing.assert_allclose(psummed.compute()[0], plain, rtol=1e-5)


def test_accuracy_by_hand():
  logits = jnp.array(
    [[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [jnp.nan, 0.0], [0.0, 3.0]]
  )
  labels = jnp.array([1, 1, 0, 0, 1])
  # right, wrong, first of a tie, NaN is wrong, right
  metric = Accuracy.from_logits(logits, labels)
  assert metric.compute() == pytest.approx(3 / 5)
  mask = jnp.array([1, 0, 0, 0, 1])
  assert Accuracy.from_logits(logits, labels, mask=mask).compute() == 1
  assert Accuracy.from_logits(logits, labels + 7).compute() == 0


def test_accuracy_a_task_and_its_class_survive_transformations():
  logits = jnp.asarray(_data(5, (6, 2, 4))[0])
  labels = jnp.argmax(logits, -1).at[:3, 1].add(1)

  @jax.jit
  def count(logits, labels):
    return Accuracy.from_logits(logits, labels, axis=0)

  metric = Accuracy.empty((2,)).merge(count(logits, labels))
  assert isinstance(metric, Accuracy)
  np.testing.assert_allclose(metric.compute(), [1.0, 0.5])


def test_errors_name_the_argument():
  with pytest.raises(ValueError, match='weights must have the shape'):
    Mean.from_values(jnp.ones((2, 3)), weights=jnp.ones(3))
  with pytest.raises(ValueError, match='mask must have the shape'):
    Mean.from_values(jnp.ones(2), mask=jnp.ones(3))
  with pytest.raises(ValueError, match='labels must have the shape'):
    Accuracy.from_logits(jnp.ones((2, 3)), jnp.zeros(3, int))
  with pytest.raises(TypeError, match='labels must be integers'):
    Accuracy.from_logits(jnp.ones((2, 3)), jnp.zeros(2))
  with pytest.raises(TypeError, match='cannot merge Mean with Accuracy'):
    Mean.empty().merge(Accuracy.empty())
  with pytest.raises(ValueError, match='cannot merge metrics of shapes'):
    Mean.empty((2,)).merge(Mean.empty())

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.metrics import R2, Mean


def _pairs(seed=0, size=40, mean=150.0):
  rng = np.random.default_rng(seed)
  y = mean + 3 * rng.normal(size=size)
  guess = y + rng.normal(size=size)
  wanted = 1 - np.sum((y - guess) ** 2) / np.sum((y - y.mean()) ** 2)
  return guess.astype(np.float32), y.astype(np.float32), wanted


@pytest.mark.parametrize('mean', [0.0, 150.0, 10_000.0])
def test_uneven_batches_merge_to_all_data(mean):
  """A large mean costs no digits, which a sum of squares would."""
  guess, y, wanted = _pairs(mean=mean)
  total = R2.empty()
  for part in (slice(0, 1), slice(1, 25), slice(25, 40)):
    total = jax.jit(R2.merge)(total, R2.from_values(guess[part], y[part]))
  np.testing.assert_allclose(total.compute(), wanted, atol=2e-3)
  np.testing.assert_allclose(
    total.compute(), R2.from_values(guess, y).compute(), atol=2e-3
  )


def test_masked_entries_cannot_leak():
  guess, y, _ = _pairs()
  bad = np.concatenate([y, [np.nan, np.inf]])
  more = np.concatenate([guess, [0.0, np.nan]])
  mask = np.arange(42) < 40
  got = R2.from_values(more, bad, mask=mask).compute()
  np.testing.assert_allclose(got, R2.from_values(guess, y).compute(), rtol=1e-5)


def test_of_the_mean_it_is_zero_and_of_nothing_nan():
  _, y, _ = _pairs()
  assert abs(R2.from_values(np.full_like(y, y.mean()), y).compute()) < 1e-5
  assert R2.from_values(y, y).compute() == 1
  assert jnp.isnan(R2.empty().compute())
  assert jnp.isnan(R2.from_values(jnp.ones(3), jnp.ones(3)).compute())
  assert jnp.isnan(R2.from_values(y, np.full_like(y, np.nan)).compute())


def test_what_does_not_fit_is_refused():
  with pytest.raises(ValueError, match='must have one shape'):
    R2.from_values(jnp.ones((3, 1)), jnp.ones(3))
  with pytest.raises(TypeError, match='cannot merge R2 with Mean'):
    R2.empty().merge(Mean.empty())

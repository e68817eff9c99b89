import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import f1_score

from mtljax.metrics import F1, Mean


def _made(seed=0, size=90):
  rng = np.random.default_rng(seed)
  labels = rng.random(size) < 0.3
  logits = (rng.normal(size=size) + labels).astype(np.float32)
  return logits, labels.astype(np.int32)


def test_uneven_batches_merge_to_all_data():
  logits, labels = _made()
  wanted = f1_score(labels, logits > 0)
  total = F1.empty()
  for part in (slice(0, 1), slice(1, 50), slice(50, 90)):
    total = jax.jit(F1.merge)(total, F1.from_logits(logits[part], labels[part]))
  np.testing.assert_allclose(total.compute(), wanted, rtol=1e-6)
  assert 0.3 < wanted < 0.9


def test_masked_entries_cannot_leak():
  logits, labels = _made()
  mask = np.arange(90) < 60
  worse = np.where(mask, logits, np.nan)
  other = np.where(mask, labels, 1)
  np.testing.assert_allclose(
    F1.from_logits(worse, other, mask=mask).compute(),
    F1.from_logits(logits[:60], labels[:60]).compute(),
  )


def test_edges_of_the_table():
  ones, zeros = jnp.ones(3), jnp.zeros(3)
  assert jnp.isnan(F1.empty().compute())
  assert jnp.isnan(F1.from_logits(ones, ones, mask=zeros).compute())
  assert F1.from_logits(-ones, zeros).compute() == 0
  assert F1.from_logits(-ones, ones).compute() == 0
  assert F1.from_logits(ones, zeros).compute() == 0
  assert F1.from_logits(zeros, ones).compute() == 0
  assert F1.from_logits(jnp.full(3, jnp.nan), ones).compute() == 0
  assert F1.from_logits(ones, ones).compute() == 1


def test_what_does_not_fit_is_refused():
  with pytest.raises(ValueError, match='must have one shape'):
    F1.from_logits(jnp.ones((3, 1)), jnp.ones(3))
  with pytest.raises(TypeError, match='cannot merge F1 with Mean'):
    F1.empty().merge(Mean.empty())

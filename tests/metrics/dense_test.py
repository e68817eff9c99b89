"""The nine metrics of NYUv2 against numpy, whole and in parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import metrics

SHAPE = (5, 6, 7)


@pytest.fixture
def rng():
  return np.random.default_rng(0)


def merged(make, *arrays, **options):
  """Over three parts of different sizes, by a jitted function."""
  on_part = jax.jit(lambda *parts: make(*parts, **options))
  total = None
  for part in (slice(0, 1), slice(1, 4), slice(4, 5)):
    found = on_part(*(x[part] for x in arrays))
    if total is None:
      total = found
    else:
      total = {name: total[name].merge(x) for name, x in found.items()}
  return {name: float(x.compute()) for name, x in total.items()}


def test_segmentation(rng):
  logits = rng.normal(size=(*SHAPE, 5)).astype(np.float32)
  logits[..., 4] -= 100  # a class that is in no label and no guess
  labels = rng.integers(-1, 4, SHAPE)
  found = merged(metrics.segmentation_metrics, logits, labels)
  guess, seen = logits.argmax(-1), labels >= 0
  shares = []
  for c in range(4):
    is_label, is_guess = (labels == c) & seen, (guess == c) & seen
    shares.append((is_label & is_guess).sum() / (is_label | is_guess).sum())
  assert found['miou'] == pytest.approx(np.mean(shares), rel=1e-6)
  accuracy = (guess == labels)[seen].mean()
  assert found['pixel_accuracy'] == pytest.approx(accuracy, rel=1e-6)


def test_depth(rng):
  depth = rng.uniform(0.5, 10, SHAPE).astype(np.float32)
  depth[rng.uniform(size=SHAPE) < 0.3] = 0
  guess = rng.uniform(0.5, 10, SHAPE).astype(np.float32)
  found = merged(metrics.depth_metrics, guess, depth)
  error, seen = np.abs(guess - depth), depth > 0
  assert found['abs_err'] == pytest.approx(error[seen].mean(), rel=1e-5)
  relative = (error[seen] / depth[seen]).mean()
  assert found['rel_err'] == pytest.approx(relative, rel=1e-5)


@pytest.mark.parametrize('count', [210, 209])  # even and odd
def test_normals(rng, count):
  normals = rng.normal(size=(count, 3))
  normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
  guess = normals + rng.normal(size=(count, 3)) * rng.uniform(size=(count, 1))
  guess = guess * rng.uniform(0.1, 9, (count, 1))
  cosine = (guess * normals).sum(-1) / np.linalg.norm(guess, axis=-1)
  angle = np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))
  padded = np.concatenate([normals, np.zeros((9, 3))])  # ignored
  guess = np.concatenate([guess, np.ones((9, 3))])
  order = rng.permutation(len(guess))
  parts = [order[:40], order[40:41], order[41:]]
  total = None
  for part in parts:
    found = metrics.normals_metrics(
      guess[part].astype(np.float32), padded[part].astype(np.float32)
    )
    total = found if total is None else {
      name: total[name].merge(x) for name, x in found.items()
    }  # fmt: skip
  got = {name: float(x.compute()) for name, x in total.items()}
  assert list(got) == [
    'angle_mean', 'angle_median', 'within_11.25', 'within_22.5', 'within_30',
  ]  # fmt: skip
  assert got['angle_mean'] == pytest.approx(angle.mean(), rel=1e-5)
  bound = total['angle_median'].error_bound()
  assert bound == pytest.approx(0.005)
  assert abs(got['angle_median'] - np.median(angle)) <= bound + 1e-4
  for limit in (11.25, 22.5, 30):
    share = (angle < limit).mean()
    assert got[f'within_{limit:g}'] == pytest.approx(share, rel=1e-6)


def test_small_angles_are_not_rounded_to_zero():
  angle = 0.02
  guess = jnp.array([[np.sin(np.deg2rad(angle)), 0, 1]], jnp.float32)
  found = metrics.normals_metrics(guess, jnp.array([[0.0, 0.0, 1.0]]))
  assert float(found['angle_mean'].compute()) == pytest.approx(angle, rel=1e-3)


def test_a_normal_of_length_zero_is_at_right_angles():
  true = jnp.array([[0.0, 0.0, 1.0]])
  found = metrics.normals_metrics(jnp.zeros((1, 3)), true)
  assert float(found['angle_mean'].compute()) == 90


@pytest.mark.parametrize('even', [False, True])
def test_median_of_two_groups_far_apart(even):
  values = np.array([0.1] * 50 + [0.9] * (50 + (not even)), np.float32)
  found = metrics.Median.from_values(values, bins=100)
  assert float(found.compute()) == pytest.approx(np.median(values), abs=0.0051)


def test_masks_and_nothing():
  ones = jnp.ones((2, 3))
  mask = jnp.zeros((2, 3), bool)
  labels = jnp.zeros((2, 3), jnp.int32)
  for found in (
    metrics.segmentation_metrics(jnp.ones((2, 3, 4)), labels, mask=mask),
    metrics.depth_metrics(ones * jnp.nan, ones, mask=mask),
    metrics.normals_metrics(*jnp.ones((2, 2, 3, 3)), mask=mask),
  ):
    for name, metric in found.items():
      assert np.isnan(metric.compute()), name
  half = mask.at[0].set(True)
  depth = jnp.stack([ones[0], 5 * ones[0]])
  found = metrics.depth_metrics(2 * ones, depth, mask=half)
  assert float(found['abs_err'].compute()) == 1


def test_nan_is_never_right():
  logits = jnp.array([[jnp.nan, 1.0], [0.0, 1.0]])
  found = metrics.MeanIoU.from_logits(logits, jnp.array([1, 1]))
  assert float(found.compute()) == 0.5
  values = jnp.array([0.5, jnp.nan])
  assert np.isnan(metrics.Median.from_values(values).compute())
  kept = metrics.Median.from_values(values, mask=jnp.array([1, 0]))
  assert float(kept.compute()) == pytest.approx(0.5, abs=1e-4)


def test_what_does_not_fit_is_refused():
  with pytest.raises(ValueError, match='labels must have the shape of logits'):
    metrics.MeanIoU.from_logits(jnp.ones((2, 3)), jnp.zeros(3, jnp.int32))
  with pytest.raises(TypeError, match='labels must be integers'):
    metrics.MeanIoU.from_logits(jnp.ones((2, 3)), jnp.zeros(2))
  with pytest.raises(ValueError, match='three components'):
    metrics.normals_metrics(jnp.ones((2, 2)), jnp.ones((2, 2)))
  with pytest.raises(ValueError, match='predictions must have the shape'):
    metrics.depth_metrics(jnp.ones((2, 1)), jnp.ones(2))
  with pytest.raises(ValueError, match='high=0.0 must be above 0'):
    metrics.Median.from_values(jnp.ones(1), high=0.0)
  one, other = (
    metrics.Median.from_values(jnp.ones(1), high=high) for high in (1.0, 2.0)
  )
  with pytest.raises(ValueError, match='cannot merge medians'):
    one.merge(other)
  with pytest.raises(TypeError, match='cannot merge Median with MeanIoU'):
    one.merge(metrics.MeanIoU.empty(2))
  with pytest.raises(ValueError, match='2 and 3 classes'):
    metrics.MeanIoU.empty(2).merge(metrics.MeanIoU.empty(3))

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from scipy import spatial

import mtljax as mtl
from mtljax.diagnostics import feature_disentanglement, feature_saliency

PAIRED = ('cosine', 'jensen_shannon', 'jaccard')


def _saliency(seed, num_tasks=4, num_features=30):
  rng = np.random.default_rng(seed)
  return rng.gamma(0.5, size=(num_tasks, num_features))


def _reference(shares, measure, top_k):
  """Means over pairs of tasks, from scipy's distances."""
  found = []
  for one, other in itertools.combinations(shares, 2):
    if measure == 'cosine':
      found.append(spatial.distance.cosine(one, other))
    elif measure == 'jensen_shannon':
      found.append(spatial.distance.jensenshannon(one, other, base=2) ** 2)
    else:
      a, b = (set(np.argsort(-x)[:top_k]) for x in (one, other))
      found.append(1 - len(a & b) / len(a | b))
  return np.mean(found)


@pytest.mark.parametrize('measure', PAIRED)
@pytest.mark.parametrize('per', ['feature', 'task'])
def test_equals_the_definitions(per, measure, x64):
  saliency = _saliency(0)
  got = feature_disentanglement(saliency, per=per, measure=measure)
  shares = saliency / saliency.sum(int(per == 'task'), keepdims=True)
  np.testing.assert_allclose(got, _reference(shares, measure, 3), rtol=1e-12)


def test_entropy_of_the_features_over_tasks(x64):
  saliency = np.array([[1.0, 2.0, 0.0, 0.0], [1.0, 0.0, 0.0, 3.0]])
  got = feature_disentanglement(saliency, measure='entropy')
  # ln 2, 0 and 0 of the three features that are read.
  np.testing.assert_allclose(got, 2 / 3, rtol=1e-14)


@pytest.mark.parametrize('measure', [*PAIRED, 'entropy'])
def test_ends_of_the_scale(measure, x64):
  apart = np.kron(np.eye(3), np.ones(5)) * np.arange(1.0, 16.0)
  alike = np.tile(np.arange(1.0, 16.0), (3, 1))
  for values, expected in ((apart, 1.0), (alike, 0.0)):
    got = feature_disentanglement(values, measure=measure)
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_shares_of_a_feature_differ_from_those_of_a_task(x64):
  # Two thirds of task 0 lie on feature 0, but feature 0 is task 1's.
  saliency = np.array([[2.0, 1.0], [8.0, 1.0]])
  per_feature = np.array([[0.2, 0.5], [0.8, 0.5]])
  for per, rows in (('feature', per_feature), ('task', saliency)):
    cosine = rows[0] @ rows[1] / np.prod(np.linalg.norm(rows, axis=1))
    got = feature_disentanglement(saliency, per=per)
    np.testing.assert_allclose(got, 1 - cosine, rtol=1e-12)


@pytest.mark.parametrize('scale', [1e-30, 1e30])
def test_balanced_does_not_hang_on_a_losss_unit(scale):
  saliency = _saliency(1).astype(np.float32)
  scaled = saliency.copy()
  scaled[1] *= np.float32(scale)
  for measure in PAIRED:
    plain, same, per_task = (
      feature_disentanglement(x, measure=measure, **options)
      for x, options in (
        (saliency, {'balanced': True}),
        (scaled, {'balanced': True}),
        (scaled, {'per': 'task'}),
      )
    )
    np.testing.assert_allclose(same, plain, rtol=1e-4)
    other = feature_disentanglement(saliency, per='task', measure=measure)
    np.testing.assert_allclose(per_task, other, rtol=1e-4)
  assert (
    abs(feature_disentanglement(scaled) - feature_disentanglement(saliency))
    > 1e-2
  )


def test_what_is_not_read_is_not_counted(x64):
  saliency = _saliency(2, 3, 6)
  with_more = np.zeros((4, 9))
  with_more[:3, :6] = saliency
  for measure in PAIRED:
    got, expected = (
      feature_disentanglement(x, measure=measure, top_k=2)
      for x in (with_more, saliency)
    )
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize('measure', [*PAIRED, 'entropy'])
def test_nothing_to_compare_is_nan(measure):
  for saliency in (np.ones((1, 4)), np.zeros((3, 4))):
    assert np.isnan(feature_disentanglement(saliency, measure=measure))
  saliency = _saliency(3)
  saliency[0, 0] = np.nan
  assert np.isnan(feature_disentanglement(saliency, measure=measure))


def test_leading_axes_are_steps(x64):
  steps = np.stack([_saliency(s) for s in range(3)])
  for measure in (*PAIRED, 'entropy'):
    got = jax.jit(lambda x, m=measure: feature_disentanglement(x, measure=m))(
      steps
    )
    one = [feature_disentanglement(x, measure=measure) for x in steps]
    np.testing.assert_allclose(got, one, rtol=1e-12)


@pytest.mark.parametrize(
  ('options', 'match'),
  [
    ({'per': 'tasks'}, "per='tasks'.*Did you mean 'task'"),
    ({'measure': 'cos'}, "measure='cos'"),
    ({'measure': 'entropy', 'per': 'task'}, "use per='feature'"),
    ({'measure': 'jaccard', 'top_k': 31}, 'top_k=31'),
  ],
)
def test_options_are_refused(options, match):
  with pytest.raises(ValueError, match=match):
    feature_disentanglement(_saliency(0), **options)


def test_a_vector_is_refused():
  with pytest.raises(ValueError, match=r'\(\.\.\., T, C\), got \(3,\)'):
    feature_disentanglement(np.ones(3))


@pytest.mark.parametrize('kind', ['gradient', 'gradient_input'])
def test_saliency_is_the_mean_gradient_at_the_features(kind):
  got = jax.jit(
    lambda p, x: feature_saliency(
      toy.STAGED, p, x, labels=toy.LABELS, kind=kind
    )
  )(toy.PARAMS, toy.BATCH)
  z = toy.trunk(toy.PARAMS, toy.BATCH)
  for t, head in enumerate(toy.HEADS):
    grad = jax.grad(lambda z, h=head: h(toy.PARAMS, z, toy.BATCH))(z)
    expected = jnp.mean(
      jnp.abs(grad if kind == 'gradient' else z * grad), axis=0
    )
    np.testing.assert_allclose(got[t], expected, rtol=1e-5)


def test_saliency_of_images_at_several_scales_with_aux():
  def trunk(params, x):
    features = {
      'fine': x * params,
      'coarse': jnp.mean(x, axis=(1, 2)) * params,
      'indices': jnp.arange(2),
    }
    return features, 'aux'

  weights = jnp.array([1.0, -2.0, 4.0])
  heads = [
    lambda p, z, x: (jnp.mean(z['fine'] @ weights), None),
    lambda p, z, x: (jnp.mean(z['coarse'][:, 1]), None),
  ]
  x = jnp.ones((2, 4, 4, 3))
  got = feature_saliency(
    mtl.Staged(trunk, heads), jnp.array(1.0), x, has_aux=True
  )
  # Of means over 32 places, or 2 examples; coarse comes before fine.
  np.testing.assert_allclose(
    got,
    [[0, 0, 0, *np.abs(weights) / 32], [0, 0.5, 0, 0, 0, 0]],
    rtol=1e-6,
  )


def test_saliency_needs_the_staged_form():
  with pytest.raises(TypeError, match='must be a mtljax.Staged'):
    feature_saliency(toy.plain, toy.PARAMS, toy.BATCH)
  with pytest.raises(ValueError, match="kind='input'"):
    feature_saliency(toy.STAGED, toy.PARAMS, toy.BATCH, kind='input')

"""Merging by its definitions, entry by entry."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax import merging

T = 3
LABELS = {'heads': [0, 1, 2], 'rows': 'stacked', 'trunk': 'shared'}


def _tree(rng):
  draw = lambda *shape: jnp.asarray(rng.standard_normal(shape))
  return {
    'heads': [draw(2) for _ in range(T)],
    'rows': draw(T, 2),
    'trunk': {'a': draw(4, 3), 'b': draw(5)},
  }


@pytest.fixture
def given():
  with jax.enable_x64(True):
    rng = np.random.default_rng(0)
    yield _tree(rng), [_tree(rng) for _ in range(T)]


def _flat(tree):
  return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def _owned_are_right(found, models):
  for t in range(T):
    np.testing.assert_allclose(found['heads'][t], models[t]['heads'][t])
    np.testing.assert_allclose(found['rows'][t], models[t]['rows'][t])


def test_vectors_have_the_form_of_gradients(given):
  base, models = given
  vectors = merging.task_vectors(base, models, labels=LABELS)
  for t in range(T):
    wanted = models[t]['trunk']['a'] - base['trunk']['a']
    np.testing.assert_allclose(vectors['trunk']['a'][t], wanted)
  rows = np.stack([_flat(m['trunk']) - _flat(base['trunk']) for m in models])
  gramian = mtl.gramian(vectors, labels=LABELS)
  np.testing.assert_allclose(gramian, rows @ rows.T, rtol=1e-12)
  # Any method makes one update of them; the sum is task arithmetic.
  method = mtl.sum_losses(T, labels=LABELS)
  update, _ = method.update(vectors, method.init(base))
  found = merging.task_arithmetic(base, models, scale=1.0, labels=LABELS)
  for x, y in zip(
    jax.tree.leaves(jax.tree.map(jnp.add, base, update)),
    jax.tree.leaves(found),
    strict=True,
  ):
    np.testing.assert_allclose(x, y, rtol=1e-12)


@pytest.mark.parametrize('scale', [0.3, (0.5, 0.2, 0.0)])
def test_task_arithmetic(given, scale):
  base, models = given
  found = merging.task_arithmetic(base, models, scale=scale, labels=LABELS)
  weights = np.broadcast_to(scale, T)
  origin = _flat(base['trunk'])
  wanted = origin + sum(
    w * (_flat(m['trunk']) - origin)
    for w, m in zip(weights, models, strict=True)
  )
  np.testing.assert_allclose(_flat(found['trunk']), wanted, rtol=1e-12)
  _owned_are_right(found, models)


def _naive_ties(rows, density, scale):
  """The definition, parameter by parameter."""
  count = max(1, round(density * rows.shape[1]))
  kept = np.zeros_like(rows)
  for t, row in enumerate(rows):
    for i in np.argsort(-np.abs(row), kind='stable')[:count]:
      kept[t, i] = row[i]
  out = np.zeros(rows.shape[1])
  for i, column in enumerate(kept.T):
    sign = np.sign(column.sum())
    agree = [x for x in column if x != 0 and np.sign(x) == sign]
    out[i] = scale * np.mean(agree) if agree else 0
  return out


@pytest.mark.parametrize('density', [0.2, 0.55, 1.0])
def test_ties_by_its_definition(given, density):
  base, models = given
  found = merging.ties(base, models, density=density, scale=0.7, labels=LABELS)
  origin = _flat(base['trunk'])
  rows = np.stack([_flat(m['trunk']) - origin for m in models])
  wanted = origin + _naive_ties(rows, density, 0.7)
  np.testing.assert_allclose(_flat(found['trunk']), wanted, rtol=1e-12)
  _owned_are_right(found, models)


def test_the_share_is_of_all_leaves_of_a_task_together():
  vectors = {
    'a': jnp.array([[9.0, 8.0], [0.1, 2.0]]),
    'b': jnp.array([[1.0, 1.0], [0.5, 0.25]]),
  }
  found = merging.trim_vectors(vectors, 0.5)
  np.testing.assert_array_equal(found['a'], [[9, 8], [0, 2]])
  np.testing.assert_array_equal(found['b'], [[0, 0], [0.5, 0]])
  # Those that tie with the last one kept are kept too.
  found = merging.trim_vectors(vectors, 0.75)
  np.testing.assert_array_equal(found['b'], [[1, 1], [0.5, 0.25]])


def test_where_no_sign_leads():
  models = [jnp.array([1.0, 2.0, 0.0]), jnp.array([-1.0, 3.0, 0.0])]
  # The first entries add up to 0: the sign that leads elsewhere, plus, is it.
  np.testing.assert_allclose(
    merging.ties(jnp.zeros(3), models, density=1.0), [1, 2.5, 0]
  )
  models = [x.at[1].set(0) for x in models]
  np.testing.assert_array_equal(
    merging.ties(jnp.zeros(3), models, density=1.0), jnp.zeros(3)
  )
  bad = [models[0].at[0].set(jnp.nan), models[1]]
  assert np.isnan(merging.ties(jnp.zeros(3), bad, density=1.0)).any()


@pytest.mark.parametrize('by_leaf', [False, True])
def test_adamerging_finds_planted_coefficients(given, by_leaf):
  base, models = given
  planted = {'a': (0.1, 0.6, 0.3), 'b': (0.1, 0.6, 0.3)}
  if by_leaf:
    planted['b'] = (0.5, 0.0, 0.9)
  target = {
    name: merging.task_arithmetic(
      base['trunk'][name],
      [m['trunk'][name] for m in models],
      scale=planted[name],
    )
    for name in planted
  }

  def distance(params, batch):
    del batch
    gaps = jax.tree.map(jnp.subtract, params['trunk'], target)
    return optax.tree.norm(gaps, squared=True)

  found = merging.adamerging(
    base,
    models,
    distance,
    [None] * 300,
    by_leaf=by_leaf,
    optimizer=optax.adam(0.03),
    labels=LABELS,
  )
  got = found.coefficients
  for name, wanted in planted.items():
    of_leaf = got['trunk'][name] if by_leaf else got
    np.testing.assert_allclose(of_leaf, wanted, atol=2e-3)
  assert found.losses.shape == (300,)
  assert found.losses[-1] < 1e-3 * found.losses[0]
  _owned_are_right(found.params, models)


def test_coefficients_stay_in_the_unit_interval():
  pull = lambda w, batch: jnp.sum((w - 5.0) ** 2) + 0 * batch
  found = merging.adamerging(
    jnp.zeros(2),
    [jnp.ones(2), -jnp.ones(2)],
    pull,
    [0.0] * 50,
    optimizer=optax.sgd(1.0),
  )
  np.testing.assert_array_equal(found.coefficients, [1, 0])


def test_trimmed_vectors_are_those_of_ties():
  models = [jnp.array([4.0, 1.0]), jnp.array([1.0, -3.0])]
  found = merging.adamerging(
    jnp.zeros(2),
    models,
    lambda w, batch: jnp.sum(w) * 0,
    [0],
    density=0.5,
    initial=(1.0, 0.5),
  )
  np.testing.assert_array_equal(found.params, [4.0, -1.5])


def test_entropy():
  logits = jnp.array([[0.0, jnp.log(3.0)], [100.0, -100.0]])
  wanted = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75)) / 2
  np.testing.assert_allclose(merging.entropy(logits), wanted, rtol=1e-5)
  grad = jax.grad(merging.entropy)(logits)
  assert np.isfinite(grad).all()


def test_narrow_parameters_keep_their_dtype(given):
  base, models = jax.tree.map(lambda x: x.astype(jnp.bfloat16), given)
  for found in (
    merging.task_arithmetic(base, models, labels=LABELS),
    merging.ties(base, models, labels=LABELS),
  ):
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.bfloat16.dtype}


@pytest.mark.parametrize(
  ('call', 'error', 'said'),
  [
    (lambda: merging.task_vectors(jnp.ones(2), []), ValueError, 'one a task'),
    (
      lambda: merging.task_vectors({'a': jnp.ones(2)}, [{'a': jnp.ones(3)}]),
      ValueError,
      r"models\[0\]: 'a' has shape \(3,\), and \(2,\)",
    ),
    (
      lambda: merging.task_vectors({'a': jnp.ones(2)}, [{'b': jnp.ones(2)}]),
      ValueError,
      r'models\[0\] has the structure',
    ),
    (
      lambda: merging.task_vectors({'a': jnp.arange(2)}, [{'a': jnp.ones(2)}]),
      TypeError,
      "'a' is int32",
    ),
    (
      lambda: merging.task_arithmetic(
        jnp.ones(2), [jnp.ones(2)] * 2, scale=[1.0] * 3
      ),
      ValueError,
      r'scale has shape \(3,\)',
    ),
    (
      lambda: merging.ties(jnp.ones(2), [jnp.ones(2)], density=0),
      ValueError,
      'density',
    ),
    (
      lambda: merging.ties(jnp.ones(2) * 1j, [jnp.ones(2) * 1j]),
      TypeError,
      'task_arithmetic',
    ),
    (
      lambda: merging.adamerging(
        jnp.ones(2), [jnp.ones(2)], lambda w, _: jnp.sum(w), []
      ),
      ValueError,
      'batches is empty',
    ),
  ],
)
def test_bad_input_is_named(call, error, said):
  with pytest.raises(error, match=said):
    call()

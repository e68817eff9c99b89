"""Wrappers, cross-Gramians and normalised gradients on the optax face."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl

PARAMS = {
  'trunk': jnp.ones((3, 4)),
  'last': jnp.ones(4),
  'heads': [jnp.ones(2)] * 2,
}
LABELS = {'trunk': 'shared', 'last': 'shared', 'heads': [0, 1]}
LOSSES = jnp.array([1.0, 4.0])


def grads(seed):
  keys = jax.random.split(jax.random.key(seed), 2)
  return {
    'trunk': jax.random.normal(keys[0], (2, 3, 4)),
    'last': jax.random.normal(keys[1], (2, 4)),
    'heads': [jnp.full(2, 3.0), jnp.full(2, -1.0)],
  }


def weights_of(tx, steps=5, **extra):
  """The weights of every step."""
  state, found = tx.init(PARAMS), []
  update = jax.jit(tx.update)
  for i in range(steps):
    _, state = update(grads(i), state, PARAMS, losses=LOSSES, **extra)
    found.append(np.asarray(mtl.get_weights(state)))
  return np.stack(found), state


WRAPPERS = {
  'cr_mogm': lambda m: mtl.cr_mogm(m, decay=0.5),
  'every_k': lambda m: mtl.every_k(m, 2),
  'freeze_after': lambda m: mtl.freeze_after(m, 2),
}


def test_reading_gives_the_weights_that_were_used():
  """Those of the outermost wrapper: through a chain too."""
  plain, _ = weights_of(mtl.slw(2, labels=LABELS))
  assert np.all(np.abs(np.diff(plain, axis=0)) > 1e-3)
  average = [plain[0]]
  for new in plain[1:]:
    average.append(0.5 * average[-1] + 0.5 * new)
  expected = {
    'cr_mogm': average,
    'every_k': plain[[0, 0, 2, 2, 4]],
    'freeze_after': plain[[0, 1, 1, 1, 1]],
  }
  for name, wrap in WRAPPERS.items():
    tx = optax.chain(wrap(mtl.slw(2, labels=LABELS)), optax.adam(1e-3))
    found, state = weights_of(tx)
    np.testing.assert_allclose(found, expected[name], rtol=1e-5)
    held = optax.tree.get(state, 'held_weights')
    np.testing.assert_allclose(held, found[-1], rtol=1e-6)


def test_update_is_made_with_the_weights_that_are_read():
  tx = mtl.every_k(mtl.slw(2, labels=LABELS, scale=2.0), 2)
  state = tx.init(PARAMS)
  for i in range(2):
    out, state = tx.update(grads(i), state, PARAMS)
  expected = mtl.combine(grads(1), 2 * mtl.get_weights(state), labels=LABELS)
  np.testing.assert_allclose(out['trunk'], expected['trunk'], rtol=1e-5)


def test_reading_through_flat_regions():
  method = mtl.flat_regions(mtl.cr_mogm(mtl.slw(2), decay=0.5))
  w = jnp.array([1.0, 1.0])

  def task_losses(w):
    return jnp.stack([w[0] ** 2 + w[1], 2 * w[1] ** 2])

  state, found, losses_first = method.init(w), [], []
  for scale in (1.0, 3.0):
    losses, g = mtl.value_and_task_grads(task_losses)(scale * w)
    _, state = method.update(
      g, state, w, losses=losses, task_grad_fn=mtl.task_grad_fn(task_losses)
    )
    found.append(mtl.get_weights(state))
    plain = mtl.slw(2)
    losses_first.append(mtl.get_weights(plain.update(g, plain.init(w))[1]))
  expected = 0.5 * losses_first[0] + 0.5 * losses_first[1]
  np.testing.assert_allclose(found[1], expected, rtol=1e-5)
  assert not np.allclose(found[1], losses_first[1], atol=1e-3)


def test_options_are_kept():
  key = jax.random.key(7)
  marks = mtl.match_params(PARAMS, 'last')
  method = mtl.pcgrad(
    2,
    labels=LABELS,
    gramian_labels=marks,
    weight_heads=True,
    scale=0.5,
    max_norm=3.0,
    key=key,
    nonfinite='drop_task',
  )
  for wrap in WRAPPERS.values():
    tx = wrap(method)
    assert isinstance(tx, mtl.Aggregator)
    assert tx.conventions == method.conventions
    assert (tx.num_tasks, tx.labels, tx.gramian_labels) == (2, LABELS, marks)
    inner = tx.init(PARAMS).weighting_state.inner_state
    assert inner.rng_key == method.init(PARAMS).weighting_state.rng_key
  assert isinstance(mtl.every_k(mtl.weightings.mgda(), 2), mtl.Weighting)


def test_famo_observes_through_a_wrapper():
  plain, state = weights_of(mtl.famo(2, labels=LABELS))
  _, wrapped = weights_of(mtl.cr_mogm(mtl.famo(2, labels=LABELS), decay=0.0))
  logits = wrapped.weighting_state.inner_state.logits
  np.testing.assert_allclose(logits, state.weighting_state.logits, rtol=1e-6)
  del plain


def test_average_can_be_scheduled():
  decay = optax.linear_schedule(0.0, 1.0, 1)
  tx = mtl.inject_hyperparams(mtl.cr_mogm)(
    mtl.slw(2, labels=LABELS), decay=decay
  )
  found, _ = weights_of(tx, steps=3)
  plain, _ = weights_of(mtl.slw(2, labels=LABELS), steps=1)
  np.testing.assert_allclose(found, np.repeat(plain, 3, 0), rtol=1e-5)


@pytest.mark.parametrize(
  'call, error, message',
  [
    (
      lambda: mtl.every_k(mtl.flat_regions(mtl.mean(2)), 2),
      TypeError,
      'wrap the method inside',
    ),
    (
      lambda: mtl.cr_mogm(mtl.inject_hyperparams(mtl.cagrad)(2)),
      TypeError,
      'more than weights',
    ),
    (lambda: mtl.freeze_after(optax.adam(0.1), 2), TypeError, 'aggregator'),
    (lambda: mtl.sam(mtl.modo(2)), TypeError, 'sam: modo compares'),
    (
      lambda: mtl.flat_regions(mtl.every_k(mtl.sdmgrad(2), 2)),
      TypeError,
      r'flat_regions: every_k\(sdmgrad\) compares',
    ),
    (
      lambda: mtl.modo(2).update(jnp.eye(2), mtl.modo(2).init(None)),
      TypeError,
      r'cross_gramian=mtl.cross_gramian\(grads_1, grads_2\)',
    ),
    (
      lambda: mtl.modo(2).update(
        jnp.eye(2), mtl.modo(2).init(None), cross_gramian=jnp.eye(3)
      ),
      ValueError,
      r'cross_gramian has shape \(3, 3\)',
    ),
    (
      lambda: mtl.cross_gramian({'a': jnp.eye(2)}, {'b': jnp.eye(2)}),
      ValueError,
      'different tree structures',
    ),
    (
      lambda: mtl.cross_gramian({'a': jnp.eye(2)}, {'a': jnp.ones((2, 1))}),
      ValueError,
      r"'a' has shapes \(2, 2\) and \(2, 1\)",
    ),
    (
      lambda: mtl.normalize_tasks(2, normalize='l1'),
      ValueError,
      "normalize='l1'",
    ),
    (lambda: mtl.normalize_tasks(0), ValueError, 'num_tasks=0'),
    (
      lambda: mtl.normalize_tasks(2, normalize='loss').update(jnp.eye(2), None),
      TypeError,
      'losses=losses',
    ),
    (
      lambda: mtl.normalize_tasks(2).update(jnp.eye(3), None),
      ValueError,
      'num_tasks=2',
    ),
  ],
)
def test_bad_input(call, error, message):
  with pytest.raises(error, match=message):
    call()


def flat(tree):
  rows = [tree['trunk'].reshape(2, -1), tree['last']]
  return np.asarray(jnp.concatenate(rows, axis=1), np.float64)


def test_cross_gramian_of_shared_leaves():
  first, second = grads(0), grads(1)
  found = mtl.cross_gramian(first, second, labels=LABELS)
  np.testing.assert_allclose(found, flat(first) @ flat(second).T, rtol=1e-4)
  same = mtl.cross_gramian(first, first, labels=LABELS)
  np.testing.assert_array_equal(same, mtl.gramian(first, labels=LABELS))
  marks = mtl.match_params(first, 'last')
  narrow = mtl.cross_gramian(first, second, labels=LABELS, gramian_labels=marks)
  expected = np.asarray(first['last'] @ second['last'].T)
  np.testing.assert_allclose(narrow, expected, rtol=1e-4, atol=1e-6)


def test_cross_gramian_is_unbiased_and_the_gramian_is_not():
  mean = jax.random.normal(jax.random.key(0), (3, 4))
  noise = jax.random.normal(jax.random.key(1), (2, 4000, 3, 4))
  first, second = mean[None, None] + noise
  expected = mtl.gramian(mean)
  found = jax.vmap(mtl.cross_gramian)(first, second)
  error = np.std(found, axis=0) / np.sqrt(4000)
  assert np.all(np.abs(np.mean(found, axis=0) - expected) < 5 * error)
  one_batch = np.mean(jax.vmap(mtl.gramian)(first), axis=0)
  bias = one_batch - np.asarray(expected)
  np.testing.assert_allclose(bias, 4 * np.eye(3), atol=0.5)


def test_cross_gramian_adds_in_float32():
  low = jnp.full((2, 400), 20.0, jnp.float16)
  found = mtl.cross_gramian(low, low.astype(jnp.bfloat16))
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, 160000.0)


def test_bad_gradient_of_either_batch_drops_its_task():
  tx = mtl.modo(3, nonfinite='drop_task')
  first, second = (jax.random.normal(jax.random.key(i), (3, 5)) for i in (0, 1))
  bad = [first.at[1, 0].set(jnp.nan), second.at[1, 2].set(jnp.inf)]
  for cross in (
    mtl.cross_gramian(bad[0], second),
    mtl.cross_gramian(first, bad[1]),
  ):
    _, state = tx.update(first, tx.init(None), cross_gramian=cross)
    weights = mtl.get_weights(state)
    assert weights[1] == 0
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)


# normalize_tasks
@pytest.mark.parametrize('by', ['l2', 'loss', 'loss+'])
def test_normalize_tasks_divides_rows_and_leaves_heads(by):
  tx = mtl.normalize_tasks(2, normalize=by, labels=LABELS)
  g = grads(0)
  out, _ = tx.update(g, tx.init(PARAMS), PARAMS, losses=LOSSES, surprise=1)
  size = np.ones(2)
  if by != 'loss':
    size = size * np.linalg.norm(flat(g), axis=1)
  if by != 'l2':
    size = size * np.asarray(LOSSES)
  np.testing.assert_allclose(flat(out), flat(g) / size[:, None], rtol=1e-5)
  np.testing.assert_array_equal(out['heads'][1], g['heads'][1])


def test_normalize_tasks_on_extreme_rows():
  rows = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
  scales = np.array([1e-30, 1e30, 1.0, 0.0, 1e10], np.float32)
  tx = mtl.normalize_tasks(5)
  out, _ = tx.update(jnp.asarray(rows * scales[:, None]), None)
  norms = np.linalg.norm(out, axis=1)
  np.testing.assert_allclose(norms, [1, 1, 1, 0, 1], rtol=1e-5)
  bad = jnp.asarray(rows).at[2, 0].set(jnp.nan).at[4, 1].set(jnp.inf)
  out, _ = tx.update(bad, None)
  np.testing.assert_array_equal(
    np.isnan(out).any(1), [False, False, True, False, True]
  )


def test_normalize_tasks_and_losses_that_cannot_divide():
  tx = mtl.normalize_tasks(4, normalize='loss+')
  rows = jnp.ones((4, 3)).at[3].set(0.0)
  out, _ = tx.update(rows, None, losses=jnp.array([1.0, 0.0, -1.0, 0.0]))
  np.testing.assert_array_equal(np.isnan(out[:, 0]), [0, 1, 1, 0])
  assert not np.any(out[3])


def test_normalize_tasks_keeps_dtypes_and_stands_in_a_chain():
  tx = optax.chain(
    mtl.normalize_tasks(2, normalize='loss', labels=LABELS),
    mtl.uncertainty(2, labels=LABELS),
  )
  half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), grads(0))
  out, state = tx.update(half, tx.init(PARAMS), PARAMS, losses=LOSSES)
  assert {x.dtype for x in jax.tree.leaves(out)} == {jnp.dtype(jnp.bfloat16)}
  np.testing.assert_allclose(mtl.get_weights(state), 0.5)


def test_normalised_mean_is_slw_up_to_its_length():
  """The same rule, once on the gradients and once as weights."""
  g = grads(0)
  chain = optax.chain(
    mtl.normalize_tasks(2, labels=LABELS), mtl.mean(2, labels=LABELS)
  )
  out, _ = chain.update(g, chain.init(PARAMS), PARAMS)
  slw = mtl.slw(2, labels=LABELS)
  other, _ = slw.update(g, slw.init(PARAMS), PARAMS)
  a, b = out['trunk'].ravel(), other['trunk'].ravel()
  cosine = a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b)
  np.testing.assert_allclose(cosine, 1, rtol=1e-5)

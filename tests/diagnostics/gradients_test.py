import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from mtljax.diagnostics import gradient_conflict

S = 4


def rows_of(batch):
  """The tasks' gradients on the trunk, in float64, one by one."""
  stacked = jax.jit(jax.jacrev(toy.plain))(toy.PARAMS, batch)
  leaves = [
    np.asarray(x, np.float64) for x in jax.tree.leaves(stacked['trunk'])
  ]
  return np.concatenate([x.reshape(toy.T, -1) for x in leaves], axis=1)


def reference(rows):
  """The four measures by their definitions."""
  products = rows @ rows.T
  norms = np.sqrt(np.diag(products))
  lengths = np.outer(norms, norms)
  squares = norms[:, None] ** 2 + norms[None] ** 2
  signs = np.mean(rows[:, None] * rows[None] < 0, axis=-1)
  return products / lengths, 2 * lengths / squares, products, signs


def near(ours, theirs):
  scale = np.abs(theirs).max()
  np.testing.assert_allclose(ours, theirs, atol=1e-5 * scale)


def check(got, groups):
  """Against a list of gradients a group."""
  expected = [np.stack(x) for x in zip(*map(reference, groups), strict=True)]
  for ours, theirs in zip(got, expected, strict=True):
    near(ours, theirs)


@pytest.mark.parametrize('chunk_size', [None, 2, 1])
def test_equals_the_definitions(chunk_size):
  got = jax.jit(
    lambda p, x: gradient_conflict(
      toy.STAGED,
      p,
      x,
      labels=toy.LABELS,
      num_samples=S,
      chunk_size=chunk_size,
    )
  )(toy.PARAMS, toy.BATCH)
  rows = np.stack([rows_of(toy.BATCH[s : s + 1]) for s in range(S)])
  check(got.tasks, list(rows))
  check(got.samples, list(rows.swapaxes(0, 1)))
  whole = jax.tree.map(lambda x: x[None], got.mean_tasks)
  check(whole, [rows_of(toy.BATCH)])
  averaged = jax.tree.map(lambda x: x[None], got.mean_samples)
  check(averaged, [rows.mean(1)])
  assert np.any(got.samples.sign_ratio > 0.3)


@pytest.mark.parametrize(
  ('form', 'chunk_size'), [(toy.STAGED, None), (toy.plain, 2)]
)
def test_some_tasks_are_those_of_all(form, chunk_size):
  def conflict(tasks):
    return gradient_conflict(
      form,
      toy.PARAMS,
      toy.BATCH,
      labels=toy.LABELS,
      tasks=tasks,
      num_samples=S,
      chunk_size=chunk_size,
    )

  chosen = np.array([2, 0])
  whole, some = jax.jit(lambda t: (conflict(None), conflict(t)))(chosen)
  for ours, theirs in zip(some.tasks, whole.tasks, strict=True):
    near(ours, theirs[:, chosen][:, :, chosen])
  for ours, theirs in zip(some.samples, whole.samples, strict=True):
    near(ours, theirs[chosen])
  for ours, theirs in zip(some.mean_tasks, whole.mean_tasks, strict=True):
    near(ours, theirs[chosen][:, chosen])
  rows = [rows_of(toy.BATCH[s : s + 1])[chosen] for s in range(S)]
  averaged = jax.tree.map(lambda x: x[None], some.mean_samples)
  check(averaged, [np.stack(rows).mean(1)])


def losses(w, x):
  """Gradients x, -2 x and 0."""
  return jnp.stack([jnp.mean(x @ w), -2 * jnp.mean(x @ w), 0 * w[0]])


def test_edge_cases():
  conflict = jax.jit(
    lambda x: gradient_conflict(losses, jnp.ones(2), x, num_samples=3)
  )
  x = jnp.array([[1.0, 2.0], [2.0, 4.0], [1.0, -1.0]])
  got = conflict(x)
  assert np.all(np.asarray(got.tasks)[:, :, 2] == 0)  # beside a zero gradient
  np.testing.assert_allclose(got.tasks.cosine[:, 0, 1], -1, atol=1e-6)
  np.testing.assert_allclose(got.tasks.magnitude[:, 0, 1], 0.8, atol=1e-6)
  np.testing.assert_array_equal(got.tasks.sign_ratio[:, 0, 1], 1)
  np.testing.assert_array_equal(got.samples.sign_ratio[0, 2], [0.5, 0.5, 0])
  bad = conflict(x.at[1, 0].set(jnp.nan))
  for measure in bad.samples:
    assert np.isnan(measure[0, 1]).all()
    assert np.isfinite(measure[0, 0, 2])
  for measure in bad.tasks:
    assert np.isfinite(measure[0, 0, 1])
    assert np.isnan(measure[1, 0, 1])


def test_wrong_arguments_are_named():
  call = lambda **kw: gradient_conflict(
    losses, jnp.ones(2), jnp.ones((6, 2)), **kw
  )
  with pytest.raises(ValueError, match='num_samples=8 needs as many'):
    call()
  with pytest.raises(ValueError, match='chunk_size=4 must divide'):
    call(num_samples=6, chunk_size=4)
  for tasks in ([3], [-1], [], [[0, 1]], [0.5]):
    with pytest.raises(ValueError, match='must be some of the indices 0 to 2'):
      call(num_samples=6, tasks=tasks)
  with pytest.raises(ValueError, match='at least one shared'):
    call(num_samples=6, labels=0)

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import mtljax as mtl
from mtljax.diagnostics import sample_task_gramian

S = 4


def _rows():
  """The shared gradients of every sample and task, one by one."""
  rows = []
  jacobian = jax.jit(jax.jacrev(toy.plain))
  for s in range(S):
    stacked = jacobian(toy.PARAMS, toy.BATCH[s : s + 1])
    for t in range(toy.T):
      grads = jax.tree.map(lambda x, t=t: x[t], stacked)
      rows.append(
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(grads['trunk'])])
      )
  return np.array(rows, np.float64)


@pytest.mark.parametrize('chunk_size', [None, 2])
def test_blocks_are_the_products_of_single_gradients(chunk_size):
  got = jax.jit(
    lambda p, x: sample_task_gramian(
      toy.STAGED,
      p,
      x,
      labels=toy.LABELS,
      num_samples=S,
      chunk_size=chunk_size,
    )
  )(toy.PARAMS, toy.BATCH)
  assert got.shape == (S, toy.T, S, toy.T)
  rows = _rows()
  expected = rows @ rows.T
  lengths = np.sqrt(np.diag(expected))
  error = np.abs(got.reshape(expected.shape) - expected)
  assert np.all(error <= 1e-5 * np.outer(lengths, lengths))


def test_mean_over_samples_is_the_gramian_of_the_batch():
  batch = toy.BATCH[:S]
  got = sample_task_gramian(
    toy.SEQUENCE, toy.PARAMS, [batch] * 3, labels=toy.LABELS, num_samples=S
  )
  _, expected = mtl.value_and_gramian(toy.plain, labels=toy.LABELS)(
    toy.PARAMS, batch
  )
  np.testing.assert_allclose(got.mean((0, 2)), expected, rtol=1e-4, atol=1e-4)


def test_wrong_arguments_are_named():
  loss = lambda w, x: w * x[0]
  call = lambda **kw: sample_task_gramian(loss, jnp.ones(2), jnp.ones(6), **kw)
  with pytest.raises(ValueError, match='num_samples=8 needs as many'):
    call()
  with pytest.raises(ValueError, match='chunk_size=4 must divide'):
    call(num_samples=6, chunk_size=4)
  with pytest.raises(ValueError, match='at least one shared'):
    call(num_samples=6, labels=0)


def test_only_marked_parameters_count():
  def losses(params, x):
    z = jnp.mean(x * params['a']), jnp.mean(x * params['b'])
    return jnp.stack([3 * z[0] + z[1], z[1] - 3 * z[0]])

  params, x = {'a': jnp.ones(()), 'b': jnp.ones(())}, jnp.ones(2)
  marks = {'a': False, 'b': True}
  for chosen, expected in (
    (None, [[10, -8], [-8, 10]]),
    (marks, np.ones((2, 2))),
  ):
    found = sample_task_gramian(
      losses, params, x, gramian_labels=chosen, num_samples=2
    )
    for s in range(2):
      np.testing.assert_allclose(found[s, :, s], expected, rtol=1e-6)

"""Gradients of single samples, and their Gramian by each form."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import mtljax as mtl

S = 4


class Sentence(nn.Module):
  """Layers with one position a sample and with several."""

  @nn.compact
  def __call__(self, ids):
    x = nn.Embed(7, 6)(ids)
    x = nn.relu(nn.LayerNorm()(nn.Dense(8)(x)))
    x = nn.Conv(5, (2,))(x)
    return nn.Dense(4)(x.mean(1))


@pytest.fixture(scope='module')
def sentences():
  ids = jax.random.randint(jax.random.key(0), (S, 5), 0, 7)
  module = Sentence()
  params = jax.jit(module.init)(jax.random.key(1), ids)
  loss = mtl.Staged(
    module.apply,
    [lambda p, z, ids, t=t: jnp.mean(jnp.cos(z * (t + 1))) for t in range(2)],
  )
  return loss, params, ids


def rows_of(grads):
  """Shape (S, T, number of parameters)."""
  return np.concatenate(
    [np.reshape(g, (*g.shape[:2], -1)) for g in jax.tree.leaves(grads)], -1
  ).astype(np.float64)


def test_sample_grads_are_those_of_batches_of_one():
  fun = mtl.value_and_sample_grads(toy.STAGED, labels=toy.LABELS)
  one = mtl.value_and_task_grads(toy.STAGED, labels=toy.LABELS)
  # Some units are saturated, and what is left of their gradients in float32
  # differs by machine.
  with jax.enable_x64(True):
    params, batch = jax.tree.map(
      lambda x: x.astype(jnp.float64), (toy.PARAMS, toy.BATCH)
    )
    losses, grads = jax.jit(fun)(params, batch[:S])
    assert losses.shape == (S, toy.T)
    assert grads['heads'][0].shape == (S, *toy.PARAMS['heads'][0].shape)
    for s in (0, S - 1):
      loss, grad = one(params, batch[s : s + 1])
      np.testing.assert_allclose(losses[s], loss, rtol=1e-10)
      jax.tree.map(
        lambda a, b, s=s: np.testing.assert_allclose(a[s], b, rtol=1e-10),
        grads,
        grad,
      )


@pytest.mark.parametrize('chunk_size', [None, 2])
@pytest.mark.parametrize('layerwise', [False, True])
def test_gramian_is_that_of_the_rows(sentences, layerwise, chunk_size):
  loss, params, ids = sentences
  options = {'layerwise': layerwise, 'chunk_size': chunk_size}
  fun = jax.jit(mtl.value_and_sample_gramian(loss, **options))
  losses, gramian = fun(params, ids)
  expected, grads = jax.jit(mtl.value_and_sample_grads(loss))(params, ids)
  rows = rows_of(grads)
  assert gramian.shape == (S, 2, S, 2)
  np.testing.assert_allclose(losses, expected, rtol=1e-5)
  expected = np.einsum('stp,cup->stcu', rows, rows)
  size = np.max(np.abs(expected))
  np.testing.assert_allclose(gramian, expected, rtol=1e-4, atol=1e-5 * size)


def test_layers_by_inner_products_hold_no_rows():
  """Its memory does not grow with samples times parameters."""
  width, samples = 128, 32
  params = [jnp.eye(width)] * 4

  def trunk(params, x):
    for w in params:
      x = jnp.tanh(x @ w)
    return x

  heads = [lambda p, z, x, t=t: jnp.mean(z) * t for t in (1.0, 2.0)]

  def temporary(layerwise):
    fun = mtl.value_and_sample_gramian(
      mtl.Staged(trunk, heads), layerwise=layerwise
    )
    compiled = jax.jit(fun).lower(params, jnp.ones((samples, width))).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  rows = 4 * samples * 2 * 4 * width**2
  assert temporary(True) < 0.05 * rows
  assert temporary(True) < 0.2 * temporary(False)


def test_errors():
  loss = lambda w, x: jnp.stack([jnp.mean(x @ w)])
  fun = mtl.value_and_sample_gramian(loss, chunk_size=3)
  with pytest.raises(ValueError, match='chunk_size=3 must divide the 4'):
    fun(jnp.ones(2), jnp.ones((4, 2)))
  with pytest.raises(ValueError, match='all must have the same'):
    fun(jnp.ones(2), {'x': jnp.ones((4, 2)), 'y': jnp.ones(3)})
  with pytest.raises(ValueError, match='one forward pass for all tasks'):
    mtl.value_and_sample_gramian([loss], layerwise=True)
  with pytest.raises(ValueError, match='chunk_size=0'):
    mtl.value_and_sample_gramian(loss, chunk_size=0)

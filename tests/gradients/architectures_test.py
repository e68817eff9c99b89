"""Small architectures of every kind, layer by layer and by the jacobian."""

import jax
import jax.numpy as jnp
import nets
import nets_complex
import nets_layers
import nets_programs
import nets_tables
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax.gradients import _gramian, _kernels, _passes, _program, _pullback
from mtljax.training import make_train_step

NETS = {
  **nets_complex.NETS,
  **nets_layers.NETS,
  **nets_programs.NETS,
  **nets_tables.NETS,
}


@pytest.fixture
def all_by_kernel(monkeypatch):
  """Takes every layer that can be by its inner products, cheap or not."""
  monkeypatch.setattr(_kernels, 'is_cheaper', lambda *args: True)


def watch(net, params, x):
  """The pass layer by layer."""
  return _pullback.make_pullback(
    net.losses, params, (x,), labels=None, has_aux=False, watch=True
  )


def takes_part(net):
  """The names of the parameters that are read as layers."""
  leaves, treedef = jax.tree.flatten(net.params)
  program, _ = _program.trace(
    lambda leaves, x: net.losses(jax.tree.unflatten(treedef, leaves), x),
    leaves,
    net.x,
    kinds=_kernels.READERS,
  )
  return {
    name
    for name, use in zip(sorted(net.params), program.uses, strict=True)
    if use is not None and _kernels.as_layer(use) is not None
  }


@pytest.mark.parametrize('name', NETS)
def test_the_gramian_is_that_of_the_jacobian(name, x64, all_by_kernel):
  net = NETS[name]
  assert takes_part(net) == set(net.takes)
  weights = jnp.arange(1.0, nets.T + 1)
  passes = _passes.make_passes('unroll')

  @jax.jit
  def compute(params, x):
    watched = watch(net, params, x)
    marked = [True] * len(params)
    gramian, combined = _gramian.gramian_and_combine(watched, passes, marked)
    losses, pull = jax.vjp(lambda p: net.losses(p, x), params)
    rows = [pull(c)[0] for c in jnp.eye(nets.T)]
    rows = jax.tree.map(lambda *x: jnp.stack(x), *rows)
    return (watched.losses, losses), gramian, combined(weights), rows

  losses, gramian, combined, rows = compute(net.params, net.x)
  np.testing.assert_allclose(*losses, net.rtol)
  rows = nets.rows_of(rows)
  nets.assert_close(gramian, rows @ rows.T, net.rtol)
  combined = nets.rows_of([x[None] for x in combined])[0]
  nets.assert_close(combined, weights @ rows, net.rtol)


def test_there_are_more_than_sixty():
  assert len(NETS) >= 60


# One a family, of each what a sample's gradients may be.
SAMPLES = (
  'attention_to_memory',
  'bag_of_words',
  'bytes',
  'complex_cast',
  'conv_one_dimension',
  'dense',
  'fourier_layer',
  'lora',
  'lru',
  'moe',
  'real_weight_on_complex_data',
  'some_bytes',
  'tied',
  'tokens',
)


@pytest.mark.parametrize('name', SAMPLES)
def test_gramians_of_single_samples(name, x64, all_by_kernel):
  net = NETS[name]

  @jax.jit
  def compute(params, x):
    fun = mtl.value_and_sample_gramian(net.losses, layerwise=True)
    return fun(params, x)[1], mtl.value_and_sample_grads(net.losses)(params, x)

  gramian, (_, grads) = compute(net.params, net.x)
  rows = nets.rows_of(grads, 2)
  want = np.einsum('stp,cup->stcu', rows, rows)
  nets.assert_close(gramian, want, net.rtol)


STEPS = (
  'attention_to_memory',
  'bytes',
  'conv_transposed',
  'lora_beside',
  'pinn',
  'real_matrix_on_spectrum',
  's4_recurrence',
  'tied_tokens',
)


@pytest.mark.parametrize('name', STEPS)
def test_updates_by_both_routes(name, x64, all_by_kernel):
  net, changes = NETS[name], []
  for route in ('layerwise', 'jacobian'):
    params = jax.tree.map(jnp.asarray, net.params)
    train = make_train_step(
      mtl.cagrad(nets.T), optax.sgd(1.0), net.losses, route=route
    )
    state, _ = train.step(train.init(params, key=jax.random.key(0)), net.x)
    moved = jax.tree.map(lambda a, b: (a - b)[None], state.params, net.params)
    changes.append(nets.rows_of(moved))
  nets.assert_close(*changes, 1e-8)

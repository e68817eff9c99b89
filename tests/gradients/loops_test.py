"""Loops over layers: what is formed, what is chosen, and where it runs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax.gradients import _kernels, _passes, _pullback, _work
from mtljax.training import make_train_step

T, DEPTH, WIDTH, BATCH = 3, 4, 32, 2


class Layer(nn.Module):
  @nn.compact
  def __call__(self, x, _):
    return x + nn.Dense(x.shape[-1])(nn.relu(nn.Dense(7)(x))), None


class Deep(nn.Module):
  """Layers as a loop, whose parameters are stacked."""

  @nn.compact
  def __call__(self, x):
    layers = nn.scan(
      nn.remat(Layer, prevent_cse=False),
      variable_axes={'params': 0},
      split_rngs={'params': True},
      length=3,
    )
    return layers()(nn.Dense(5)(x), None)[0]


def heads():
  return [
    lambda p, z, x, t=t: jnp.mean(jnp.cos(z * (t + 1)) + t * z**2)
    for t in range(T)
  ]


def deep(p, x):
  return jax.lax.scan(lambda z, w: (jnp.tanh(z @ w), None), x, p)[0]


LOSS = mtl.Staged(deep, heads())


def weights(depth=DEPTH, width=WIDTH, key=0):
  w = jax.random.normal(jax.random.key(key), (depth, width, width))
  return w / width**0.5


def examples(batch=BATCH, width=WIDTH):
  return jax.random.normal(jax.random.key(7), (batch, width))


def layers_of(w, x, *, cheapest, mode='unroll', batch_size=None, **options):
  kept = []

  def compute(w, x):
    watched = _pullback.make_pullback(
      LOSS,
      w,
      (x,),
      labels=None,
      has_aux=False,
      watch=True,
      cheapest=cheapest,
    )
    passes = _passes.make_passes(mode, batch_size)
    kept.append(watched.layers(passes, **options))
    return watched.losses

  jax.eval_shape(compute, w, x)
  return kept[0]


def test_flax_layers_in_a_loop(x64):
  module = Deep()
  x = jax.random.normal(jax.random.key(0), (2, 6), jnp.float64)
  params = jax.jit(module.init)(jax.random.key(1), x)
  params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
  loss = mtl.Staged(module.apply, heads())
  gramians = [
    jax.jit(mtl.value_and_gramian(loss, layerwise=layerwise))(params, x)[1]
    for layerwise in (True, False)
  ]
  np.testing.assert_allclose(*gramians, rtol=1e-10)


def test_no_gradients_of_the_stack_are_held():
  fun = lambda w, x: mtl.value_and_gramian(LOSS, layerwise=True)(w, x)[1]
  compiled = jax.jit(fun).lower(weights(), examples()).compile()
  numbers = compiled.memory_analysis().temp_size_in_bytes / 4
  assert numbers < T * WIDTH**2  # not even of one slice, as K is cheaper
  text = compiled.as_text()
  assert f'[{T},{DEPTH},{WIDTH},{WIDTH}]' not in text
  assert f'[{DEPTH},{T},{WIDTH},{WIDTH}]' not in text


def test_gradients_of_one_slice_at_most_are_held(monkeypatch):
  monkeypatch.setattr(_kernels, 'is_cheaper', lambda *args: False)
  fun = lambda w, x: mtl.value_and_gramian(LOSS, layerwise=True)(w, x)[1]
  w, x = weights(12), examples()
  compiled = jax.jit(fun).lower(w, x).compile()
  numbers = compiled.memory_analysis().temp_size_in_bytes / 4
  assert numbers < 0.5 * T * w.size


def test_less_work_is_chosen():
  wide = layers_of(weights(), examples(), cheapest=True, loops=True)
  assert set(wide.sums) == {0} and not wide.keep
  many = weights(), examples(5000)
  assert set(layers_of(*many, cheapest=False, loops=True).sums) == {0}
  long = layers_of(*many, cheapest=True, loops=True)
  assert set(long.rows) == {0} and long.keep


@pytest.mark.parametrize(
  'options',
  [
    {'loops': False},
    {'loops': True, 'mode': 'map'},
    {'loops': True, 'batch_size': 2},
  ],
)
def test_tasks_apart_are_pulled_back(options):
  found = layers_of(weights(), examples(), cheapest=False, **options)
  assert set(found.rows) == {0} and not found.sums


def test_counted_work():
  def count(fun, *args):
    return _work.of_equations(jax.make_jaxpr(fun)(*args).jaxpr.eqns)

  w, x = weights(), examples()
  once = BATCH * WIDTH**2
  assert count(deep, w, x) == (DEPTH * once, 0)
  again = jax.checkpoint(lambda z, w: jnp.tanh(z @ w))
  loop = lambda w, x: jax.lax.scan(lambda z, w: (again(z, w), None), x, w)
  assert count(loop, w, x) == (DEPTH * once, DEPTH * once)
  branch = lambda w, x: jax.lax.cond(
    x[0, 0] > 0, lambda: x @ w[0] @ w[1], lambda: x @ w[0]
  )
  assert count(branch, w, x) == (2 * once, 0)
  conv = lambda x, k: jax.lax.conv_general_dilated(
    x, k, (1, 1), 'SAME', feature_group_count=2
  )
  image, kernel = jnp.ones((2, 4, 5, 5)), jnp.ones((6, 2, 3, 3))
  assert count(conv, image, kernel) == (2 * 6 * 25 * 2 * 9, 0)


def test_blocks_of_tasks():
  w, x = weights(), examples()
  whole = mtl.value_and_gramian(LOSS)(w, x)[1]
  blocks = mtl.value_and_gramian(LOSS, layerwise=True, chunk_size=2)
  np.testing.assert_allclose(jax.jit(blocks)(w, x)[1], whole, rtol=1e-4)


def test_a_sweep_over_more_members_than_tasks():
  x, members = examples(), 3 * T
  stacked = jnp.stack([weights(key=key) for key in range(members)])
  gramian = lambda layerwise: jax.jit(
    jax.vmap(
      lambda w: mtl.value_and_gramian(LOSS, layerwise=layerwise)(w, x)[1]
    )
  )
  np.testing.assert_allclose(
    gramian(True)(stacked), gramian(False)(stacked), rtol=1e-4
  )


def test_a_swept_step():
  """The weighted pass is swept too, and tells no products."""
  x, members = examples(), 3 * T
  stacked = jnp.stack([weights(key=key) for key in range(members)])
  moved = []
  for route in ('layerwise', 'jacobian'):
    train = make_train_step(mtl.cagrad(T), optax.sgd(1.0), LOSS, route=route)

    def one(w, train=train):
      state = train.init(w, key=jax.random.key(0))
      return train.step(state, x)[0].params

    moved.append(jax.jit(jax.vmap(one))(stacked) - stacked)
  np.testing.assert_allclose(*moved, rtol=1e-3, atol=1e-4)


def test_single_samples_and_two_batches():
  w, x = weights(), examples(4)
  samples = [
    jax.jit(mtl.value_and_sample_gramian(LOSS, layerwise=layerwise))(w, x)[1]
    for layerwise in (True, False)
  ]
  np.testing.assert_allclose(*samples, rtol=1e-4, atol=1e-7)

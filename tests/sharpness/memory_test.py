"""What phase two adds to the memory of the method around which it is."""

import jax
import jax.numpy as jnp

import mtljax as mtl

T, WIDTH, LAYERS = 6, 256, 4
LABELS = {'trunk': 'shared', 'heads': list(range(T))}
SHARED_BYTES = 4 * LAYERS * WIDTH**2


def trunk(params, x):
  for w in params['trunk']:
    x = jnp.tanh(x @ w)
  return x


LOSS = mtl.Staged(
  trunk,
  [lambda p, z, x, t=t: jnp.mean((z @ p['heads'][t]) ** 2) for t in range(T)],
)


def copies(method, mode):
  """Temporary memory of a step, in copies of the shared parameters."""

  def step(params, state, x):
    grad_fn = mtl.value_and_task_grads(LOSS, labels=LABELS, mode=mode)
    losses, grads = grad_fn(params, x)
    return method.update(
      grads,
      state,
      params,
      losses=losses,
      task_grad_fn=mtl.task_grad_fn(LOSS, x),
    )

  f32 = jnp.float32
  params = {
    'trunk': [jax.ShapeDtypeStruct((WIDTH, WIDTH), f32)] * LAYERS,
    'heads': [jax.ShapeDtypeStruct((WIDTH,), f32)] * T,
  }
  x = jax.ShapeDtypeStruct((16, WIDTH), f32)
  state = jax.eval_shape(method.init, params)
  compiled = jax.jit(step).lower(params, state, x).compile()
  return compiled.memory_analysis().temp_size_in_bytes / SHARED_BYTES


def test_phase_two_is_written_over_phase_one():
  rule = mtl.weightings.fixed(weights=[1.0] * T)
  m = mtl.aggregate(
    rule._replace(needs=frozenset({'gramian'})), T, labels=LABELS
  )
  plain = copies(m, 'map')
  assert plain > T
  assert copies(mtl.flat_regions(m, mode='map'), 'map') < plain + 2.5
  plain = copies(m, 'unroll')
  assert plain > T
  assert copies(mtl.flat_regions(m), 'unroll') < plain + 5

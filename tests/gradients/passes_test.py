import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax as mtl
from mtljax.gradients import _passes

MODES = [
  {'mode': 'unroll'},
  {'mode': 'unroll', 'batch_size': 2},
  {'mode': 'vmap'},
  {'mode': 'map'},
  {'mode': 'map', 'batch_size': 2},
  {'batch_size': 3},
]


@pytest.mark.parametrize('options', MODES, ids=str)
def test_every_mode_gives_the_same_rows(options):
  w = jax.random.normal(jax.random.key(0), (4, 3))
  x = jax.random.normal(jax.random.key(1), (6, 4))
  loss = mtl.Staged(
    lambda w, x: {'near': x @ w, 'far': jnp.tanh(x @ w)},
    [
      lambda w, z, x, t=t: jnp.mean(z['near'] ** 2 + t * z['far'])
      for t in range(5)
    ],
  )
  got = mtl.value_and_task_grads(loss, **options)(w, x)[1]

  def losses(w):
    z = loss.trunk(w, x)
    return jnp.stack([head(w, z, x) for head in loss.heads])

  np.testing.assert_allclose(got, jax.jacrev(losses)(w), rtol=1e-5, atol=1e-6)


def test_batches_of_tasks_bound_what_runs_together():
  """Two tasks at a time: no array of all tasks inside the loop."""
  fun = lambda x: jnp.sin(x) * 2
  passes = _passes.make_passes('map', 2)
  jaxpr = jax.make_jaxpr(lambda x: _passes.map_tasks(fun, x, 6, passes))(
    jnp.ones((6, 7))
  )
  assert 'f32[2,7] = sin' in str(jaxpr)


def test_auto_is_settled_by_the_pass_on_cpu():
  assert _passes.make_passes('auto') == ('unroll', None, True, True)
  assert _passes.make_passes('auto', 4) == ('unroll', 4, False, True)
  assert _passes.make_passes('unroll') == ('unroll', None, False, True)


def _mlp(w, x):
  return jnp.tanh(x @ w)


def _scanned(w, x):
  return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=3)[0]


def _convolved(w, x):
  x, kernel = x.reshape(-1, 1, 4, 4), w[:3, :3][None, None]
  for _ in range(9):
    x = jnp.tanh(jax.lax.conv(x, kernel, (1, 1), 'SAME'))
  return x


_SHAPE = (4, 1, 4, 4)  # of what it gives for four examples
PASSES = {
  # (function, examples, tasks that go together)
  'nothing is shared': (lambda w, x: x @ w, 512, None),
  'much is shared': (_mlp, 512, _passes.TOGETHER),
  'little is shared': (lambda w, x: jnp.tanh(x @ jnp.tile(w, 9)), 2, None),
  'a loop': (_scanned, 2, _passes.TOGETHER),
  'computed again': (jax.checkpoint(_mlp), 16, _passes.TOGETHER),
  'a loop without products': (
    lambda w, x: jax.lax.scan(lambda w, _: (-w, None), w, length=3)[0],
    16,
    None,
  ),
  'convolutions': (_convolved, 64, None),
}


@pytest.mark.parametrize('name', PASSES)
def test_what_goes_together_on_cpu(name):
  fun, examples, wanted = PASSES[name]
  out, pull = jax.vjp(fun, jnp.ones((16, 16)) / 16, jnp.ones((examples, 16)))
  found = _passes.settle(lambda c: pull(c)[0], out, _passes.IN_LINE)
  assert found == ('unroll', wanted, False, True)


def _convolutions_in(trunk, num_tasks, **options):
  """How often the program of a Gramian names a convolution."""
  params, x = jnp.ones((16, 16)) / 16, jnp.ones((4, 16))
  fun = mtl.value_and_gramian(
    mtl.Staged(
      trunk, [lambda w, z, x, t=t: jnp.sum(z**t) for t in range(num_tasks)]
    ),
    **options,
  )
  return str(jax.make_jaxpr(fun)(params, x)).count('conv_general_dilated[')


def test_convolutions_of_many_tasks_are_written_for_eight():
  few, more, many, most = (
    _convolutions_in(_convolved, n, layerwise=True)
    for n in (8, _passes.IN_LINE, 24, 40)
  )
  assert many == most <= few < more


@pytest.mark.parametrize('num_tasks', [17, 24])
def test_groups_in_a_loop_give_the_same_rows(num_tasks):
  pull = jax.vjp(_convolved, jnp.eye(16), jnp.ones((4, 16)))[1]
  fun = lambda c: pull(c)[0]
  c = jax.random.normal(jax.random.key(0), (num_tasks, *_SHAPE))
  rows = lambda passes: _passes.map_tasks(fun, c, num_tasks, passes)
  found = rows(_passes.make_passes('auto'))
  wanted = rows(_passes.make_passes('unroll'))
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_rows_that_are_not_kept_go_without_a_loop():
  few, many = (_convolutions_in(_convolved, n) for n in (_passes.IN_LINE, 20))
  assert many > few


def test_an_open_mode_takes_eight_tasks_at_a_time():
  """20 tasks: two programs of eight, one of four."""
  pull = jax.vjp(_mlp, jnp.eye(16), jnp.ones((512, 16)))[1]
  cotangents = jax.random.normal(jax.random.key(0), (20, 512, 16))

  def rows(passes):
    fun = lambda c: pull(c)[0]
    return lambda c: _passes.map_tasks(fun, c, 20, passes)

  found = rows(_passes.make_passes('auto'))
  wanted = rows(_passes.make_passes('unroll'))(cotangents)
  np.testing.assert_allclose(found(cotangents), wanted, rtol=1e-5, atol=1e-5)
  program = str(jax.make_jaxpr(found)(cotangents))
  assert 'f32[8,512,16] = mul' in program
  assert 'f32[4,512,16] = mul' in program
  assert 'f32[20,512,16] = mul' not in program


def test_auto_batches_on_accelerators(monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'tpu')
  assert _passes.make_passes('auto') == ('vmap', None, False, True)
  assert _passes.make_passes('auto', 4) == ('map', 4, False, True)


def test_errors():
  with pytest.raises(ValueError, match="mode='scan'"):
    _passes.make_passes('scan')
  with pytest.raises(ValueError, match='runs all tasks together'):
    _passes.make_passes('vmap', 2)
  with pytest.raises(ValueError, match='batch_size=0'):
    _passes.make_passes('unroll', 0)

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


def test_auto_unrolls_on_cpu():
  assert _passes.make_passes('auto') == ('unroll', None)


def test_auto_batches_on_accelerators(monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'tpu')
  assert _passes.make_passes('auto') == ('vmap', None)
  assert _passes.make_passes('auto', 4) == ('map', 4)


def test_errors():
  with pytest.raises(ValueError, match="mode='scan'"):
    _passes.make_passes('scan')
  with pytest.raises(ValueError, match='runs all tasks together'):
    _passes.make_passes('vmap', 2)
  with pytest.raises(ValueError, match='batch_size=0'):
    _passes.make_passes('unroll', 0)

"""Run in a process of its own: sharded against unsharded, on eight devices."""

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import mtljax as mtl

METHODS = (
  'rlw mgda pcgrad cagrad imtl_g nash_mtl fairgrad modo graddrop trimmed_mean '
  'excess_mtl moco db_mtl'
).split()
GRADS = {
  'w': jax.random.normal(jax.random.key(0), (3, 16, 8)),
  'b': jax.random.normal(jax.random.key(1), (3, 8)),
}
LOSSES = np.array([0.5, 1.0, 2.0])
PARAMS = {k: v[0] for k, v in GRADS.items()}
SPECS = {'w': P(None, 'data', 'model'), 'b': P(None, 'model')}
EXPECTED = {}


def update_of(tx, grads, state):
  halves = jax.tree.map(lambda g: 0.5 * g, grads)
  cross = mtl.cross_gramian(grads, halves)  # for those that read it
  return tx.update(grads, state, losses=LOSSES, cross_gramian=cross)[0]


def unsharded() -> None:
  for name in METHODS:
    tx = getattr(mtl, name)(3)
    EXPECTED[name] = update_of(tx, GRADS, tx.init(PARAMS))


def main(axis_type: AxisType) -> None:
  mesh = jax.make_mesh((4, 2), ('data', 'model'), axis_types=(axis_type,) * 2)
  with jax.set_mesh(mesh):
    sharded = {
      k: jax.device_put(v, NamedSharding(mesh, SPECS[k]))
      for k, v in GRADS.items()
    }
    for name in METHODS:
      tx = getattr(mtl, name)(3)
      state = tx.init({k: v[0] for k, v in sharded.items()})
      update = jax.jit(lambda g, s, tx=tx: update_of(tx, g, s))
      compiled = update.lower(sharded, state).compile()
      assert 'all-gather' not in compiled.as_text(), name
      out = update(sharded, state)
      expected = EXPECTED[name]
      for k in out:
        assert out[k].sharding.spec == P(*SPECS[k][1:]), (name, k)
        np.testing.assert_allclose(out[k], expected[k], rtol=1e-4, atol=1e-5)


if __name__ == '__main__':
  assert jax.device_count() == 8
  unsharded()
  main(AxisType.Auto)
  print('auto ok')
  main(AxisType.Explicit)
  print('explicit ok')

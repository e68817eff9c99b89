"""Run in a process of its own, with eight devices: see sharding_test.py.

Prints one JSON object: facts of the compiled programs, by case.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
from collectives import collectives
from jax.sharding import AxisType

import mtljax as mtl
from mtljax.training import Layout, ShardedBatches, make_mesh, make_train_step

T = 4
RNG = np.random.default_rng(0)


def normal(*shape):
  return RNG.normal(size=shape).astype(np.float32)


PARAMS = {
  'first': normal(32, 64) / 6,
  'second': normal(64, 128) / 8,
  'heads': normal(128, T) / 11,
  'bias': normal(T),
}
SIZE = sum(x.size for x in PARAMS.values())
BATCHES = [{'x': normal(16, 32), 'y': normal(16, T)} for _ in range(2)]
CASES = {
  'data': ({}, 'data'),
  'fsdp': ({}, 'fsdp'),
  'tensor': ({'model': 4}, 'tensor'),
  'task': ({'task': 2}, 'fsdp'),
}


def task_losses(params, batch):
  hidden = jnp.tanh(batch['x'] @ params['first'])
  hidden = jnp.tanh(hidden @ params['second'])
  out = hidden @ params['heads'] + params['bias'][None]
  return jnp.mean((out - batch['y']) ** 2, axis=0)


def make(method, layout, route, mode):
  train = make_train_step(
    method,
    optax.adam(1e-2),
    task_losses,
    num_tasks=T,
    route=route,
    mode=mode,
    layout=layout,
  )
  init = lambda: train.init(PARAMS, key=jax.random.key(0))
  return train.step, init() if layout is None else layout.make(init)


def memory(compiled):
  found = compiled.memory_analysis()
  arguments = found.argument_size_in_bytes
  return arguments + found.temp_size_in_bytes, arguments


def same(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5)


def in_place(state, layout):
  return all(
    x.sharding.is_equivalent_to(wanted, x.ndim)
    for x, wanted in zip(
      jax.tree.leaves(state), jax.tree.leaves(layout.state(state)), strict=True
    )
  )


def run(method, layout, route, mode):
  step, state = make(method, layout, route, mode)
  batches = iter(BATCHES)
  if layout is not None:
    assert in_place(state, layout)
    batches = ShardedBatches(batches, layout, 16)
  facts = {}
  for batch in batches:
    if not facts:
      compiled = step.lower(state, batch).compile()
      facts = {'collectives': collectives(compiled), 'memory': memory(compiled)}
      facts['flops'] = compiled.cost_analysis()['flops']
    state, metrics = step(state, batch)
    assert layout is None or in_place(state, layout)
  return (state.params, metrics['weights'], metrics['losses']), facts


def gramian_alone(layout):
  """The Gramian of gradients that lie as the parameters do."""
  shardings = layout.state({'rows': PARAMS}, PARAMS)['rows']
  grads = {
    k: jax.ShapeDtypeStruct(
      (T, *x.shape),
      x.dtype,
      sharding=jax.sharding.NamedSharding(
        layout.mesh, jax.sharding.PartitionSpec(None, *shardings[k].spec)
      ),
    )
    for k, x in PARAMS.items()
  }
  return collectives(jax.jit(mtl.gramian).lower(grads).compile())


def smaller_mesh(devices):
  return jax.make_mesh(
    (devices, 1, 1),
    ('data', 'task', 'model'),
    axis_types=(AxisType.Auto,) * 3,
    devices=jax.devices()[:devices],
  )


def main():
  facts = {'size': SIZE}
  for route in ('jacobian', 'gramian'):
    expected, _ = run(mtl.weightings.cagrad(), None, route, 'unroll')
    for name, (mesh, kind) in CASES.items():
      layout = Layout(make_mesh(**mesh), kind=kind, min_size=0)
      found, facts[f'{route} {name}'] = run(
        mtl.weightings.cagrad(), layout, route, 'vmap'
      )
      same(found, expected)
  fsdp = Layout(make_mesh(), kind='fsdp', min_size=0)
  facts['gramian alone'] = gramian_alone(fsdp)
  # A method with tracked gradients (T, ...) of every parameter in its state.
  found, facts['moco'] = run(mtl.moco(T), fsdp, 'jacobian', 'unroll')
  same(found, run(mtl.moco(T), None, 'jacobian', 'unroll')[0])
  sizes = [facts['jacobian fsdp']['memory']]
  for devices in (2, 1):
    layout = Layout(smaller_mesh(devices), kind='fsdp', min_size=0)
    step, state = make(mtl.weightings.cagrad(), layout, 'jacobian', 'vmap')
    compiled = step.lower(state, BATCHES[0]).compile()
    sizes.append(memory(compiled))
  facts['memory'] = [total for total, _ in sizes]
  facts['arguments'] = [sizes[0][1], sizes[2][1]]
  print(json.dumps(facts))


if __name__ == '__main__':
  assert jax.device_count() == 8
  main()

"""Run in a process of its own, with eight devices: see the test beside it.

Prints one JSON object: facts of the compiled programs, by case.
"""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from collectives import collectives, received

import mtljax as mtl
from mtljax.gradients import _kernels, _program, _traffic
from mtljax.training import Layout, make_mesh, make_train_step

T = 4
WIDTHS = {'a': (32, 256), 'b': (256, 256), 'c': (256, 96), 'd': (96, 96)}
RNG = np.random.default_rng(0)
PARAMS = {
  name: RNG.normal(size=shape) / math.sqrt(shape[0])
  for name, shape in {**WIDTHS, 'head': (96, T)}.items()
}
BATCH = RNG.normal(size=(64, 32))
MARKED = mtl.match_params(PARAMS, 'c')
# By name the mesh, the kind and the mode.
CASES = {
  'data': ({}, 'data', 'unroll'),
  'fsdp': ({}, 'fsdp', 'vmap'),
  'tensor': ({'model': 4}, 'tensor', 'unroll'),
  'task': ({'task': 2}, 'fsdp', 'vmap'),
}


def features(params, x):
  for name in WIDTHS:
    x = jnp.tanh(x @ params[name])
  return x


def task_losses(params, x):
  out = features(params, x) @ params['head']
  return jnp.mean((out - x[:, :T]) ** 2, axis=0)


STAGED = mtl.Staged(
  features,
  [
    lambda params, z, x, t=t: jnp.mean((z @ params['head'][:, t] - t) ** 2)
    for t in range(T)
  ],
)


def run(layout, batch=BATCH, loss=task_losses, method=None, **options):
  """The state after a step and its metrics, and the program's traffic."""
  train = make_train_step(
    mtl.imtl_g(T) if method is None else method,
    optax.sgd(0.1),
    loss,
    layout=layout,
    **options,
  )
  init = lambda: train.init(PARAMS, key=jax.random.key(0))
  state = init() if layout is None else layout.make(init)
  if layout is not None:
    batch = jax.device_put(batch, layout.batch(batch))
  compiled = train.step.lower(state, batch).compile()
  state, metrics = train.step(state, batch)
  facts = {
    'route': train.route,
    'bytes': received(compiled),
    'collectives': collectives(compiled),
    'memory': compiled.memory_analysis().temp_size_in_bytes,
  }
  return (state.params, metrics['weights'], metrics['losses']), facts


def counted(layout):
  """Bytes for rows of all leaves, and for the form that is taken of each."""
  leaves, treedef = jax.tree.flatten(PARAMS)
  leaves = [jnp.asarray(x) for x in leaves]
  program, _ = _program.trace(
    lambda leaves, x: (task_losses(treedef.unflatten(leaves), x), None),
    leaves,
    BATCH,
    kinds=_kernels.READERS,
  )
  place = layout.place(PARAMS, None)
  rows = taken = 0
  forms = {}
  for i, (name, leaf) in enumerate(zip(PARAMS, leaves, strict=True)):
    use, spread = program.uses[i], place.spread(i, leaf.ndim)
    layer = _kernels.as_layer(use)
    by_rows = _traffic.of_rows(leaf.nbytes, T, spread)
    by_signals = _traffic.of_signals(use, layer, leaf.nbytes, T, spread)
    less_work = _kernels.is_cheaper(layer, T)
    forms[name] = [less_work, place.pays(i, use, layer, leaf, T)]
    rows += by_rows
    taken += by_signals if all(forms[name]) else by_rows
  return {'rows': rows, 'taken': taken, 'forms': forms}


def same(found, expected):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12),
    found,
    expected,
  )


def main():
  facts = {}
  expected, _ = run(None, route='jacobian', mode='unroll')
  for name, (mesh, kind, mode) in CASES.items():
    layout = Layout(make_mesh(**mesh), kind=kind, min_size=0)
    facts[name] = counted(layout)
    for route in ('auto', 'jacobian'):
      found, facts[name][route] = run(layout, route=route, mode=mode)
      same(found, expected)
  fsdp = Layout(make_mesh(), kind='fsdp', min_size=0)
  # Of so many examples gradients are less.
  many = np.tile(BATCH, (16, 1))
  for route in ('auto', 'jacobian'):
    found, facts[f'many {route}'] = run(fsdp, many, route=route)
    same(found, expected)
  for title, options in {
    'staged': {'loss': STAGED},
    'narrow': {'method': mtl.imtl_g(T, gramian_labels=MARKED)},
    'modo': {'method': mtl.modo(T), 'route': 'layerwise'},
  }.items():
    batch = np.tile(BATCH, (3, 1)) if title == 'modo' else BATCH
    layouts = (None, fsdp)
    (alone, _), (found, facts[title]) = (
      run(x, batch, mode='unroll', **options) for x in layouts
    )
    same(found, alone)
  print(json.dumps(facts))


if __name__ == '__main__':
  assert jax.device_count() == 8
  jax.config.update('jax_enable_x64', True)
  main()

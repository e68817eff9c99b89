"""Gradients inside `jax.shard_map`, on eight devices; see shard_map_test."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

import mtljax as mtl

T, DEVICES = 3, 8
KEYS = jax.random.split(jax.random.key(0), 4)
PARAMS = {
  'trunk': {'w': jax.random.normal(KEYS[0], (4, 6)), 'b': jnp.ones(6)},
  'heads': [jax.random.normal(KEYS[1], (6,)) + t for t in range(T)],
}
LABELS = {'trunk': 'shared', 'heads': [0, 1, 2]}
X = jax.random.normal(KEYS[2], (4 * DEVICES, 4))


@functools.cache
def make_mesh():
  return jax.make_mesh(
    (DEVICES,), ('data',), axis_types=(jax.sharding.AxisType.Auto,)
  )


def forms(reduce):
  """The three forms of the losses; ``reduce`` acts on the loss of a device."""

  def trunk(params, x):
    return jnp.tanh(x @ params['trunk']['w'] + params['trunk']['b'][None])

  def head(t, params, z, x):
    return reduce(jnp.mean((z @ params['heads'][t] - x[:, t]) ** 2))

  heads = [functools.partial(head, t) for t in range(T)]

  def plain(params, x):
    z = trunk(params, x)
    return jnp.stack([h(params, z, x) for h in heads])

  def loss(t, params, x):
    return heads[t](params, trunk(params, x), x)

  return {
    'plain': plain,
    'staged': mtl.Staged(trunk, heads),
    'sequence': [functools.partial(loss, t) for t in range(T)],
  }


def mapped(fun, vma, out_specs):
  return jax.jit(
    jax.shard_map(
      fun,
      mesh=make_mesh(),
      in_specs=(P(), P('data')),
      out_specs=out_specs,
      check_vma=vma,
    )
  )


def close(got, want, what):
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=what)


def mean(x):
  return jax.tree.map(lambda x: jax.lax.pmean(x, 'data'), x)


def batch(form, x):
  return [x] * T if form == 'sequence' else x


def check_gradients(form, vma, mode, wanted):
  """What the page of sharp edges says, which is right by both settings."""
  loss = forms(lambda x: jax.lax.pmean(x, 'data'))[form]
  grad_fn = mtl.value_and_task_grads(loss, labels=LABELS, mode=mode)
  found = mapped(lambda p, x: mean(grad_fn(p, batch(form, x))), vma, P())
  close(found(PARAMS, X), wanted, f'{form} {mode} {vma}')


def check_as_jax(form, vma):
  """With the check the sum over the devices, without it each one's own."""
  local = forms(lambda x: x)
  grad_fn = mtl.value_and_task_grads(local[form], labels=LABELS)

  def one(p, x):
    return jax.grad(lambda p: local['plain'](p, x)[1])(p)['trunk']

  def ours(p, x):
    grads = grad_fn(p, batch(form, x))[1]['trunk']
    return jax.tree.map(lambda g: g[1], grads)

  found, wanted = (
    mapped(fun, vma, P() if vma else P('data'))(PARAMS, X)
    for fun in (ours, one)
  )
  close(found, wanted, f'{form} {vma} without a mean')


def check_gramian(form, vma, layerwise, wanted):
  """Of the whole batch's gradients with the check, else of each device's."""
  loss = forms(lambda x: jax.lax.pmean(x, 'data'))[form]
  fun = mtl.value_and_gramian(loss, labels=LABELS, layerwise=layerwise)
  found = mapped(
    lambda p, x: fun(p, batch(form, x))[1][None],
    vma,
    P(None if vma else 'data'),
  )(PARAMS, X)
  close(found, wanted, f'{form} {vma} {layerwise} gramian')


def main():
  grad_fn = mtl.value_and_task_grads(forms(lambda x: x)['plain'], labels=LABELS)
  gramian = lambda grads: mtl.gramian(grads, labels=LABELS)
  wanted = grad_fn(PARAMS, X)
  gramians = {
    True: gramian(wanted[1])[None],
    False: jnp.stack(
      [gramian(grad_fn(PARAMS, x)[1]) for x in X.reshape(DEVICES, -1, 4)]
    ),
  }
  for vma, form in itertools.product(
    (True, False), ('plain', 'staged', 'sequence')
  ):
    for mode in ('unroll', 'vmap', 'map'):
      check_gradients(form, vma, mode, wanted)
    check_as_jax(form, vma)
    check_gramian(form, vma, False, gramians[vma])
    if form != 'sequence':
      check_gramian(form, vma, True, gramians[vma])
  print('ok')


if __name__ == '__main__':
  main()

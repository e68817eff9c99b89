"""A task that owns nothing: no head, or one that others own."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax import _labels
from mtljax.training import make_train_step

PARAMS = {
  'trunk': jnp.array([0.5, -1.0, 2.0]),
  'head': jnp.array([1.0, 0.5, 2.0]),
}
SPEC = dict(shared='trunk')
X = jnp.array([1.0, 2.0, 3.0])


def task_losses(p, x):
  z = jnp.tanh(p['trunk'] * x)
  return jnp.stack([jnp.sum((z - 1) ** 2), jnp.vdot(z, p['head']) ** 2])


STAGED = mtl.Staged(
  lambda p, x: jnp.tanh(p['trunk'] * x),
  [
    lambda p, z, x: jnp.sum((z - 1) ** 2),
    lambda p, z, x: jnp.vdot(z, p['head']) ** 2,
  ],
)
SEQUENCE = [
  lambda p, x: task_losses(p, x)[0],
  lambda p, x: task_losses(p, x)[1],
]


@pytest.mark.parametrize('nothing', [None, ()])
def test_labels(nothing):
  labels = mtl.label_params(PARAMS, **SPEC, tasks=[nothing, 'head'])
  assert labels == {'trunk': 'shared', 'head': 1}
  assert _labels.flatten_labels(labels, PARAMS, 2) == [1, 'shared']


@pytest.mark.parametrize(
  'loss', [task_losses, STAGED, SEQUENCE], ids=['plain', 'staged', 'sequence']
)
@pytest.mark.parametrize('route', ['jacobian', 'gramian', 'layerwise'])
def test_routes(loss, route):
  if loss is SEQUENCE and route == 'layerwise':
    return  # one forward pass for all tasks is what it needs
  labels = mtl.label_params(PARAMS, **SPEC, tasks=[None, 'head'])
  method = mtl.cagrad(2, labels=labels)
  step = make_train_step(method, optax.sgd(1.0), loss, route=route)
  batch = [X, X] if loss is SEQUENCE else X
  state, _ = step.step(step.init(PARAMS, key=jax.random.key(0)), batch)
  jacobian = jax.jacrev(task_losses)(PARAMS, X)
  grads = {'trunk': jacobian['trunk'], 'head': jacobian['head'][1]}
  out, _ = method.update(grads, method.init(PARAMS), PARAMS)
  expected = jax.tree.map(lambda p, d: p - d, PARAMS, out)
  chex.assert_trees_all_close(state.params, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  'wrap',
  [
    lambda tx, labels: mtl.sam(tx),
    lambda tx, labels: mtl.flat_regions(tx),
    lambda tx, labels: mtl.per_task_optimizer(
      optax.adam(0.1), 2, labels=labels
    ),
    lambda tx, labels: mtl.graddrop(2, labels=labels),
  ],
  ids=['sam', 'flat_regions', 'per_task_optimizer', 'graddrop'],
)
def test_other_methods(wrap):
  labels = mtl.label_params(PARAMS, **SPEC, tasks=[None, 'head'])
  tx = wrap(mtl.uncertainty(2, labels=labels), labels)
  losses, grads = mtl.value_and_task_grads(STAGED, labels=labels)(PARAMS, X)
  out, _ = tx.update(
    grads,
    tx.init(PARAMS),
    PARAMS,
    losses=losses,
    task_grad_fn=mtl.task_grad_fn(STAGED, X),
  )
  chex.assert_trees_all_equal_shapes_and_dtypes(out, PARAMS)
  assert np.all(np.isfinite(out['head']))

"""`get_weights` and `get_stats` among the states of other people."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax.training import make_train_step


class Averages(NamedTuple):
  """Of an optimizer that has fields of our names."""

  weights: jax.Array
  gramian: jax.Array
  residual: jax.Array
  inner_state: Any


def averaging(inner):
  """It averages parameters, say: nothing of it is a task's."""

  def init(params):
    other = jnp.full(7, 5.0)
    return Averages(other, other, other, inner.init(params))

  def update(updates, state, params=None, **extra):
    updates, inner_state = inner.update(
      updates, state.inner_state, params, **extra
    )
    return updates, state._replace(inner_state=inner_state)

  return optax.GradientTransformationExtraArgs(init, update)


GRADS = jnp.array([[1.0, 0.0], [0.0, 2.0]])
EXPECTED = {'weights': [0.8, 0.2], 'gramian': [[1.0, 0.0], [0.0, 4.0]]}


@pytest.mark.parametrize(
  'tx',
  [
    optax.chain(averaging(optax.identity()), mtl.mgda(2)),
    averaging(mtl.mgda(2)),
    optax.chain(mtl.mgda(2), averaging(optax.sgd(0.1))),
    averaging(optax.chain(mtl.mgda(2), optax.sgd(0.1))),
  ],
  ids=['left', 'around', 'right', 'around a chain'],
)
def test_fields_of_the_same_names(tx):
  _, state = tx.update(GRADS, tx.init(jnp.zeros(2)), jnp.zeros(2))
  found = {'weights': mtl.get_weights(state), **mtl.get_stats(state)}
  for name, value in EXPECTED.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-5)
  assert found['residual'].shape == ()


def test_without_a_method_there_are_none():
  state = averaging(optax.sgd(0.1)).init(jnp.zeros(2))
  with pytest.raises(ValueError, match='no task weights'):
    mtl.get_weights(state)
  assert mtl.get_stats(state) == {}


def test_the_train_step_reports_those_of_the_method():
  optimizer = averaging(optax.sgd(0.1))
  init, step, _ = make_train_step(
    mtl.mgda(2), optimizer, lambda w, x: jnp.stack([x * w[0], 2 * x * w[1]])
  )
  state, metrics = step(
    init(jnp.ones(2), key=jax.random.key(0)), jnp.array(1.0)
  )
  np.testing.assert_allclose(metrics['weights'], [0.8, 0.2], rtol=1e-5)
  np.testing.assert_allclose(mtl.get_weights(state), [0.8, 0.2], rtol=1e-5)


def test_a_method_without_weights_hides_none_behind_it():
  """Of several methods, the first one that has weights."""
  tx = mtl.graddrop(2)
  _, bare = tx.update(GRADS, tx.init(jnp.zeros(2)))
  _, mean = mtl.mean(2).update(GRADS, mtl.mean(2).init(jnp.zeros(2)))
  np.testing.assert_allclose(mtl.get_weights((bare, mean)), [0.5, 0.5])

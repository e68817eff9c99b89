"""How every kind of step begins: its first state, and what is refused."""

import jax
import jax.numpy as jnp
import optax
import pytest

import mtljax as mtl
from mtljax.training import cooperative, forum, make_train_step, task_groups


def task_losses(w, x):
  return jnp.stack([(w - x) ** 2, (w + x) ** 2])


SGD = optax.sgd(0.1)
STEPS = {
  'train': lambda: make_train_step(mtl.cagrad(2), SGD, task_losses),
  'forum': lambda: forum.make_forum_step(SGD, task_losses, num_tasks=2),
  'groups': lambda: task_groups.make_group_step(SGD, task_losses, num_tasks=2),
  'cooperative': lambda: cooperative.make_cooperative_step(
    [lambda w, x: w * x] * 2, [lambda w, features, x: features[0]] * 2, SGD
  ),
}
EACH = pytest.mark.parametrize('name', STEPS)


def params_of(name):
  one = jnp.array(0.5)
  return (one, one) if name == 'cooperative' else one


@EACH
def test_a_number_is_no_key(name):
  with pytest.raises(TypeError, match='key=0 must be a random key'):
    STEPS[name]().init(params_of(name), key=0)


@EACH
def test_parameters_of_the_caller_stay_theirs(name):
  params = params_of(name)
  state = STEPS[name]().init(params, key=jax.random.key(0))
  for leaf in jax.tree.leaves(state.params):
    leaf.delete()
  assert jax.tree.leaves(params)[0] == 0.5

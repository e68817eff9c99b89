"""What is built from a method keeps what is known about it."""

import battery
import chex
import jax
import jax.numpy as jnp
import optax
import pytest

import mtljax as mtl
from mtljax import training
from mtljax._types import Aggregator

# What a wrapper says itself; everything else is the method's.
OWN = {
  'every_k': {'weighting', 'info'},
  'freeze_after': {'weighting', 'info'},
  'cr_mogm': {'weighting', 'info'},
  'inject': {'weighting', 'inner', 'needs'},
  'sam': {
    'weighting',
    'conventions',
    'key',
    'inner',
    'needs',
    'perturb',
  },
}
OWN['flat_regions'] = OWN['gradient_norm_penalty'] = OWN['sam']
OWN['samo'] = OWN['sam'] | {'update_from_sum'}
AROUND = {
  'every_k': lambda tx: mtl.every_k(tx, 2),
  'freeze_after': lambda tx: mtl.freeze_after(tx, 2),
  'cr_mogm': mtl.cr_mogm,
  'sam': mtl.sam,
  'flat_regions': mtl.flat_regions,
  'samo': mtl.samo,
  'gradient_norm_penalty': lambda tx: mtl.gradient_norm_penalty(tx, alpha=0.5),
}
OPTIONS = {
  'labels': battery.LABELS,
  'gramian_labels': {'shared': True, 'heads': [False, False]},
  'max_norm': 3.0,
  'key': 7,
}
P = {'w': jnp.array([1.0, 2.0, 3.0])}


def assert_facts(made, method, own):
  assert vars(made).keys() == vars(method).keys()
  assert own <= vars(made).keys()
  for name in vars(made).keys() - own:
    assert getattr(made, name) is getattr(method, name), name


@pytest.mark.parametrize('name', AROUND)
def test_wrappers_keep_the_facts_that_they_do_not_say(name):
  method = mtl.pcgrad(2, **OPTIONS)
  assert_facts(AROUND[name](method), method, OWN[name])


@pytest.mark.parametrize('name', ['pcgrad', 'graddrop', 'db_mtl'])
def test_injected_methods_keep_the_facts(name):
  options = dict(OPTIONS)
  if name != 'pcgrad':
    del options['gramian_labels'], options['max_norm']
  made = mtl.inject_hyperparams(getattr(mtl, name))(2, **options)
  method = made.inner
  assert isinstance(method, Aggregator)
  assert made.needs == method.needs | {'gradients'}
  assert_facts(made, method, OWN['inject'])


@pytest.mark.parametrize('name', ['every_k', 'freeze_after', 'cr_mogm'])
def test_wrappers_see_facts_that_were_replaced(name):
  method = mtl.mgda(2)
  info = mtl.MethodInfo(name='mine', paper='here', invariance='full')
  made = AROUND[name](method._replace(info=info))
  plain = AROUND[name](method).info
  assert made.info.name == plain.name.replace('mgda', 'mine')
  assert made.invariance == 'full'


def test_dropped_tasks_are_no_secret_of_an_injected_method():
  method = mtl.inject_hyperparams(mtl.cagrad)(2, nonfinite='drop_task')
  with pytest.raises(ValueError, match='drop_task'):
    mtl.sam(method)


def losses_fn(params, batch):
  del batch
  w = params['w']
  return jnp.stack([jnp.sum((w - 1) ** 2), jnp.sum(jnp.sin(w) + 2)])


@pytest.mark.parametrize(
  'name, options',
  [
    ('rlw', {}),
    ('uncertainty', {}),
    ('cagrad', {'c': 0.3}),
    ('cagrad', {'c': 0.3, 'nonfinite': 'drop_task'}),
  ],
)
def test_flat_regions_of_an_injected_method_are_those_of_the_method(
  name, options
):
  task_grad_fn = mtl.task_grad_fn(losses_fn, 0.0)
  losses, grads = mtl.value_and_task_grads(losses_fn)(P, 0.0)
  found = []
  factory = getattr(mtl, name)
  for make in (factory, mtl.inject_hyperparams(factory)):
    tx = mtl.flat_regions(make(2, **options))
    state = tx.init(P)
    update, _ = jax.jit(
      lambda state, tx=tx: tx.update(
        grads, state, P, losses=losses, task_grad_fn=task_grad_fn
      )
    )(state)
    found.append(update)
  chex.assert_trees_all_close(*found, rtol=1e-6)


def test_flat_regions_of_an_injected_method_drop_its_tasks():
  def broken(params, batch):
    return losses_fn(params, batch) * jnp.array([1.0, jnp.nan])

  losses, grads = mtl.value_and_task_grads(broken)(P, 0.0)
  for make in (mtl.cagrad, mtl.inject_hyperparams(mtl.cagrad)):
    tx = mtl.flat_regions(make(2, nonfinite='drop_task'))
    update, _ = tx.update(
      grads,
      tx.init(P),
      P,
      losses=losses,
      task_grad_fn=mtl.task_grad_fn(broken, 0.0),
    )
    chex.assert_tree_all_finite(update)


@pytest.mark.parametrize(
  'make',
  [mtl.mgda, mtl.sum_losses, lambda n: mtl.sam(mtl.mgda(n))],
  ids=['gramian', 'losses', 'wrapper'],
)
def test_another_update_is_the_one_that_a_step_takes(make):
  method = make(2)

  def doubled(updates, state, params=None, **extra):
    updates, state = method.update(updates, state, params, **extra)
    return jax.tree.map(lambda u: 2 * u, updates), state

  moved = []
  for tx in (method, method._replace(update=doubled)):
    made = training.make_train_step(tx, optax.sgd(0.1), losses_fn)
    state = made.init(P, key=jax.random.key(0))
    after, _ = made.step(state, 0.0)
    moved.append(jax.tree.map(lambda a, b: a - b, after.params, P))
  chex.assert_trees_all_close(
    moved[1], jax.tree.map(lambda x: 2 * x, moved[0]), rtol=1e-5
  )


def test_the_same_update_keeps_the_rule():
  method = mtl.mgda(2)
  same = method._replace(update=method.update)
  assert same.weighting is method.weighting

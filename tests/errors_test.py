"""Calls that are wrong, each of which ends in a sentence with the fix."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import mtljax as mtl
from mtljax.training import make_train_step

PARAMS = {
  'trunk': {'w': jnp.ones((4, 3))},
  'heads': [{'w': jnp.ones(3)}, {'w': jnp.ones(3)}],
}
BATCH = (jnp.ones((8, 4)), jnp.ones((8, 2)))
OWNERS = {'shared': 'trunk/.*', 'tasks': ['heads/0/.*', 'heads/1/.*']}
LABELS = mtl.label_params(PARAMS, **OWNERS)
METHOD = mtl.cagrad(num_tasks=2, labels=LABELS)
CHAIN = optax.chain(METHOD, optax.adam(1e-3))


def as_list(params, batch):
  x, y = batch
  z = jnp.tanh(x @ params['trunk']['w'])
  heads = enumerate(params['heads'])
  return [jnp.mean((z @ head['w'] - y[:, t]) ** 2) for t, head in heads]


def task_losses(params, batch):
  return jnp.stack(as_list(params, batch))


def grads_of(fun, *args, labels=LABELS):
  return mtl.value_and_task_grads(fun, labels=labels)(*args)


GRADS = grads_of(task_losses, PARAMS, BATCH)[1]


def updated(tx, *args, **kwargs):
  return tx.update(*args, **kwargs)


def stepped(
  method=METHOD, loss=task_losses, batch=BATCH, state=None, **options
):
  init, step, _ = make_train_step(method, optax.adam(1e-3), loss, **options)
  return step(
    init(PARAMS, key=jax.random.key(0)) if state is None else state, batch
  )


class Net(nnx.Module):
  def __init__(self):
    self.trunk = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    self.heads = nnx.List([nnx.Linear(3, 1, rngs=nnx.Rngs(0)) for _ in 'ab'])


def labels_of_a_module():
  net = Net()
  loss = lambda net, x: jnp.stack(
    [jnp.mean(h(net.trunk(x))) for h in net.heads]
  )
  grads_of(loss, net, BATCH[0], labels=mtl.label_params(net, **OWNERS))


# What is wrong, how it is called, and words of the sentence: the argument, its
# value, and the fix.
CALLS = {
  'order of the loss': (
    lambda: grads_of(
      lambda batch, params: task_losses(params, batch), PARAMS, BATCH
    ),
    ('the parameters first, then the batch', 'float32[4,3]', 'float32[8,2]'),
  ),
  'order of the gradient function': (
    lambda: grads_of(task_losses, BATCH, PARAMS),
    ('labels', "none for '0'", 'in the right order'),
  ),
  'order of update': (
    lambda: updated(CHAIN, PARAMS, CHAIN.init(PARAMS), GRADS),
    ('updates', '(4, 3)', 'update(grads, state, params)'),
  ),
  'order of update, the state first': (
    lambda: updated(CHAIN, CHAIN.init(PARAMS), GRADS, PARAMS),
    ('labels', 'in the right order'),
  ),
  'no labels in the method': (
    lambda: updated(mtl.cagrad(num_tasks=2), GRADS, mtl.cagrad(2).init(PARAMS)),
    ("'heads/0/w'", "label 'shared'", '(3,)', 'value_and_task_grads'),
  ),
  'no labels in the gradients': (
    lambda: updated(
      CHAIN,
      grads_of(task_losses, PARAMS, BATCH, labels=None)[1],
      CHAIN.init(PARAMS),
      PARAMS,
    ),
    ("'heads/0/w'", '(2, 3)', 'task 0 owns it', 'no task axis'),
  ),
  'losses as a list': (
    lambda: grads_of(as_list, PARAMS, BATCH),
    ('the task losses', 'a list of 2', 'jnp.stack'),
  ),
  'losses as a dict': (
    lambda: grads_of(
      lambda *args: dict(zip('ab', as_list(*args), strict=True)), PARAMS, BATCH
    ),
    ('the task losses', 'a dict of 2', 'jnp.stack'),
  ),
  'chain as method': (
    lambda: make_train_step(CHAIN, optax.adam(1e-3), task_losses),
    ('method is an optax chain', 'mtl.cagrad(num_tasks=2)', 'optimizer='),
  ),
  'wrong number of tasks': (
    lambda: stepped(mtl.cagrad(num_tasks=3, labels=LABELS)),
    ('num_tasks=3', 'the loss has 2'),
  ),
  'wrong number of tasks in update': (
    lambda: updated(
      mtl.cagrad(3), {'w': jnp.ones((2, 4))}, mtl.cagrad(3).init(PARAMS)
    ),
    ("'w'", '(2, 4)', 'num_tasks=3'),
  ),
  'float64 off': (
    lambda: make_train_step(METHOD, optax.adam(1e-3), task_losses).init(
      jax.tree.map(lambda x: np.asarray(x, np.float64), PARAMS),
      key=jax.random.key(0),
    ),
    ("'heads/0/w'", 'float64', 'jax_enable_x64', 'float32'),
  ),
  'labels of an nnx module': (
    labels_of_a_module,
    ('params is a whole nnx.Module (Net)', 'nnx.split(module, nnx.Param, ...)'),
  ),
  'batch of the wrong shape': (
    lambda: stepped(batch=(jnp.ones((8, 5)), BATCH[1])),
    ('float32[8,5]', 'trunk/w: float32[4,3]', 'these shapes'),
  ),
  'one loss': (
    lambda: grads_of(lambda *args: task_losses(*args).sum(), PARAMS, BATCH),
    ('the task losses', 'shape ()', 'jnp.stack'),
  ),
  'losses of the examples': (
    lambda: grads_of(
      lambda w: w[None] * jnp.ones((8, 2)), jnp.ones(2), labels=None
    ),
    ('the task losses', 'shape (8, 2)', 'means over the batch'),
  ),
  'optimizer forgotten': (
    lambda: make_train_step(METHOD, task_losses),
    ('optimizer is missing', 'optax.adam(1e-3)', 'task_losses', 'the order is'),
  ),
  'optimizer last': (
    lambda: make_train_step(METHOD, task_losses, optax.adam(1e-3)),
    ('optimizer=<function task_losses', 'optax.adam(1e-3)', 'the order is'),
  ),
  'a number for the key': (
    lambda: make_train_step(METHOD, optax.adam(1e-3), task_losses).init(
      PARAMS, key=0
    ),
    ('key=0', 'jax.random.key(0)'),
  ),
  'a loss with a key, and no has_state': (
    lambda: stepped(loss=lambda params, batch, key: task_losses(params, batch)),
    ('the parameters first, then the batch', 'float32[8,2]', 'has_state=True'),
  ),
  'metrics forgotten': (
    lambda: stepped(
      loss=lambda params, batch, model_state, key: (
        task_losses(params, batch),
        model_state,
      ),
      has_state=True,
    ),
    ('has_state=True', '(model_state, metrics)', 'a dict'),
  ),
  'parameters for the state': (
    lambda: stepped(state=PARAMS),
    ('state is a dict', 'init(params, key=key)'),
  ),
}


def sentence_of(error):
  """The last words of an error, without what jax notes of its own frames."""
  notes = getattr(error, '__notes__', [])
  return [str(error), *(x for x in notes if 'JAX_TRACEBACK' not in x)][-1]


@pytest.mark.parametrize('name', CALLS)
def test_a_wrong_call_ends_in_a_sentence_with_the_fix(name):
  call, words = CALLS[name]
  with pytest.raises((TypeError, ValueError)) as caught:
    call()
  said = sentence_of(caught.value)
  for word in words:
    assert word in said, said
  assert said[-1] in '.?'
  assert len(said) < 500


def test_a_long_tree_is_named_in_part():
  params = {f'w{i}': jnp.ones(2) for i in range(40)}
  with pytest.raises(ZeroDivisionError) as caught:
    grads_of(lambda params: 1 / 0, params, labels=None)
  note = sentence_of(caught.value)
  assert 'w0: float32[2]' in note
  assert 'and 34 more' in note

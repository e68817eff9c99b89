"""An absent task whose loss is NaN, where the tasks are apart."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax.training import make_train_step

T, BAD = 3, 1
PARAMS = {
  'trunk': jax.random.normal(jax.random.key(0), (4, 5)),
  'heads': [jnp.ones(5) * (t + 1) for t in range(T)],
}
LABELS = {'trunk': 'shared', 'heads': [0, 1, 2]}
X = jax.random.normal(jax.random.key(1), (6, 4))
MASK = jnp.arange(T) != BAD


def trunk(params, x):
  return jnp.tanh(x @ params['trunk'])


def head(t, bad, params, z, x):
  del x
  out = z @ params['heads'][t]
  return jnp.mean((out - t) ** 2) * (jnp.nan if t == bad else 1.0)


def loss(t, bad, params, x):
  return head(t, bad, params, trunk(params, x), x)


def forms(bad=None):
  return {
    'staged': mtl.Staged(
      trunk, [functools.partial(head, t, bad) for t in range(T)]
    ),
    'sequence': [functools.partial(loss, t, bad) for t in range(T)],
  }


def batch(form):
  return [X] * T if form == 'sequence' else X


def close(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('mode', ['unroll', 'vmap', 'map'])
@pytest.mark.parametrize('form', ['staged', 'sequence'])
@pytest.mark.parametrize('name', ['mgda', 'cagrad', 'mean', 'graddrop'])
def test_a_masked_task_is_as_if_it_were_well(form, mode, name):
  method = getattr(mtl, name)(T, labels=LABELS)

  def update(bad):
    grad_fn = mtl.value_and_task_grads(
      forms(bad)[form], labels=LABELS, mode=mode
    )
    losses, grads = grad_fn(PARAMS, batch(form))
    return method.update(
      grads, method.init(PARAMS), PARAMS, losses=losses, task_mask=MASK
    )[0]

  close(update(BAD), update(None))


@pytest.mark.parametrize('layerwise', [False, True])
@pytest.mark.parametrize('chunk_size', [None, 1])
def test_the_gramian_is_lost_in_its_row_alone(layerwise, chunk_size):
  found, want = (
    mtl.value_and_gramian(
      forms(bad)['staged'],
      labels=LABELS,
      layerwise=layerwise,
      chunk_size=chunk_size,
    )(PARAMS, X)[1]
    for bad in (BAD, None)
  )
  both = jnp.outer(MASK, MASK)
  close(jnp.where(both, found, 0), jnp.where(both, want, 0))
  assert bool(jnp.all(jnp.isnan(found[BAD])))


@pytest.mark.parametrize('form', ['staged', 'sequence'])
@pytest.mark.parametrize('microbatch_size', [None, 3])
def test_the_train_step_drops_it(form, microbatch_size):
  method = mtl.mgda(T, labels=LABELS, nonfinite='drop_task')
  init, step, _ = make_train_step(
    method, optax.sgd(0.1), forms(BAD)[form], microbatch_size=microbatch_size
  )
  state, _ = step(init(PARAMS, key=jax.random.key(0)), batch(form))
  plain = mtl.mgda(T, labels=LABELS)
  losses, grads = mtl.value_and_task_grads(forms()[form], labels=LABELS)(
    PARAMS, batch(form)
  )
  want, _ = plain.update(
    grads, plain.init(PARAMS), PARAMS, losses=losses, task_mask=MASK
  )
  close(state.params, jax.tree.map(lambda p, u: p - 0.1 * u, PARAMS, want))


def test_a_trunk_that_reads_each_tasks_own():
  """The NaN of one does not come to the parameters of another there."""

  def attending(params, x):
    z = jnp.tanh(x @ params['trunk'])
    return [z * h[None] for h in params['heads']]

  def staged(bad):
    def one(t, params, z, x):
      return jnp.mean((z[t] - t) ** 2) * (jnp.nan if t == bad else 1.0)

    return mtl.Staged(attending, [functools.partial(one, t) for t in range(T)])

  found, want = (
    mtl.value_and_task_grads(staged(bad), labels=LABELS)(PARAMS, X)[1]
    for bad in (BAD, None)
  )
  for t in (0, 2):
    close(found['heads'][t], want['heads'][t])
    close(found['trunk'][t], want['trunk'][t])

"""A rule sees the losses after the step, of its batch, in any wrapper."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import BATCH, LABELS, T, plain, run

import mtljax as mtl
from mtljax.training import make_train_step

SEEING = mtl.Weighting(
  lambda num_tasks, key=None: jnp.zeros(num_tasks),
  lambda stats, state: (jnp.ones(T), state),
  frozenset({'losses'}),
  observe=lambda losses, state: losses,
)
WRAPPERS = {
  'sam': mtl.sam,
  'samo': mtl.samo,
  'flat_regions': mtl.flat_regions,
  'flat_regions, two calls': lambda m: mtl.flat_regions(m, rescale='unit'),
  'gradient_norm': lambda m: mtl.gradient_norm_penalty(m, rho=0.1, alpha=0.5),
  'flat_regions of every_k': lambda m: mtl.flat_regions(mtl.every_k(m, 2)),
  'scheduled': lambda m: mtl.inject_hyperparams(
    lambda rho: mtl.flat_regions(m, rho_shared=rho)
  )(rho=0.1),
}


def seen(state):
  """The state of the rule."""
  is_ours = lambda x: hasattr(x, 'weighting_state')
  nodes = jax.tree.leaves(state.method_state, is_leaf=is_ours)
  (found,) = [x.weighting_state for x in nodes if is_ours(x)]
  return getattr(found, 'inner_state', found)


@pytest.mark.parametrize('name', WRAPPERS)
def test_the_losses_after_the_step(name):
  method = WRAPPERS[name](mtl.aggregate(SEEING, T, labels=LABELS))
  for steps in (1, 2):
    state, _ = run(method, steps=steps)
    np.testing.assert_allclose(
      seen(state), plain(state.params, BATCH), rtol=1e-4
    )


def test_under_micro_batches_those_of_the_whole_batch():
  method = mtl.flat_regions(mtl.aggregate(SEEING, T, labels=LABELS))
  state, _ = run(
    method, steps=2, microbatch_size=len(BATCH) // 2, accumulate='updates'
  )
  np.testing.assert_allclose(seen(state), plain(state.params, BATCH), rtol=1e-4)


def test_famo_of_radius_0_is_famo():
  plain_famo = mtl.famo(T, learning_rate=0.1, labels=LABELS)
  expected, _ = run(plain_famo, steps=4)
  found, _ = run(mtl.flat_regions(plain_famo, rho_shared=0.0), steps=4)
  np.testing.assert_allclose(
    seen(found).logits, seen(expected).logits, rtol=1e-4
  )
  assert jnp.any(seen(found).logits != 0)


def test_on_the_optax_face_those_of_the_next_call():
  def losses_of(w):
    return jnp.stack([w[0] ** 2 + 1, 2 * w[1] ** 2 + 1, jnp.sum(w)])

  tx = mtl.flat_regions(mtl.aggregate(SEEING, T))
  state = tx.init(jnp.zeros(2))
  steps = [([1.0, 2.0], [0.0, 0.0, 0.0]), ([0.5, 1.0], [1.25, 3.0, 1.5])]
  for point, after in steps:
    w = jnp.array(point)
    losses, grads = mtl.value_and_task_grads(losses_of)(w)
    _, state = tx.update(
      grads, state, w, losses=losses, task_grad_fn=mtl.task_grad_fn(losses_of)
    )
    np.testing.assert_allclose(state.loss_state.weighting_state, after)


@pytest.mark.parametrize('wrap', [mtl.sam, mtl.samo, mtl.flat_regions])
def test_a_schedule_inside_is_refused(wrap):
  inner = mtl.inject_hyperparams(mtl.famo)(T, learning_rate=0.1, labels=LABELS)
  with pytest.raises(TypeError, match='famo under mtl.inject_hyperparams'):
    make_train_step(wrap(inner), optax.sgd(0.1), plain)

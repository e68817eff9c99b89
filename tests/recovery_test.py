"""After one bad step every method goes on."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from battery import LABELS, LOSSES, METHODS, make_grads, make_params

import mtljax as mtl
from mtljax.training import make_train_step

BAD_STEP = 3
STEPS = 8
BAD = pytest.mark.parametrize('bad', [jnp.nan, jnp.inf], ids=['nan', 'inf'])
WHERE = [
  ('losses', jnp.nan),
  ('losses', jnp.inf),
  ('gradients', jnp.nan),
  ('gradients', jnp.inf),
]
EVERY = pytest.mark.parametrize('m', METHODS, ids=lambda m: m.name)
OPTIMIZERS = {
  'adatask': lambda: mtl.adatask(2, 0.1, labels=LABELS),
  'per_task_optimizer': lambda: mtl.per_task_optimizer(
    optax.rmsprop(0.1, momentum=0.9), 2, labels=LABELS
  ),
}


def inputs(step, where=None, bad=None):
  """Gradients and losses of a step, and one number that is not finite."""
  grads, losses = make_grads(step), LOSSES + 0.1 * step
  if where == 'losses':
    losses = losses.at[1].set(bad)
  if where == 'gradients':
    grads['trunk']['w'] = grads['trunk']['w'].at[1, 0].set(bad)
    grads['heads_1'] = grads['heads_1'].at[0, 0].set(bad)
    grads['fused'] = grads['fused'].at[1, 0].set(bad)
  return grads, losses


def train(
  tx, where=None, bad=None, bad_step=BAD_STEP, steps=STEPS, update=None
):
  """The updates, and the state, with a bad step or with none."""
  params = make_params()
  state = tx.init(params)
  update = update or jax.jit(tx.update)
  out = []
  for i in range(steps):
    at = (where, bad) if i == bad_step else (None, None)
    grads, losses = inputs(i, *at)
    updates, state = update(grads, state, params, losses=losses)
    out.append(updates)
  return out, state


def floats(tree):
  return [
    x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)
  ]


@EVERY
def test_goes_on(m):
  tx = m(2, labels=LABELS)
  update = jax.jit(tx.update)
  for where, bad in WHERE:
    updates, state = train(tx, where, bad, update=update)
    chex.assert_tree_all_finite((floats(state), updates[-1]))
    assert any(jnp.any(x != 0) for x in jax.tree.leaves(updates[-1]))
    if where == 'gradients':  # and the step itself is not made to look good
      leaves = jax.tree.leaves(updates[BAD_STEP])
      assert not all(bool(jnp.all(jnp.isfinite(x))) for x in leaves)


@EVERY
def test_the_first_step_may_be_the_bad_one(m):
  tx = m(2, labels=LABELS)
  updates, state = train(tx, 'gradients', jnp.nan, bad_step=0, steps=4)
  chex.assert_tree_all_finite((floats(state), updates[-1]))


@pytest.mark.parametrize(
  'name', 'uncertainty slaw go4align imtl_l gradnorm dwa famo stch'.split()
)
def test_as_if_the_bad_step_had_not_been(name):
  """A state of floats and of entries a task: nothing else has moved."""
  params, make = make_params(), getattr(mtl, name)
  kwargs = {'window': 2} if name == 'dwa' else {}
  if name == 'stch':
    kwargs = {'warmup_steps': 4}
  outs = []
  for steps in ([0, 1, 2, 'bad', 3, 4, 5], [0, 1, 2, 3, 4, 5]):
    tx = make(2, labels=LABELS, **kwargs)
    state = tx.init(params)
    for i in steps:
      at = (9, 'losses', jnp.nan) if i == 'bad' else (i,)
      grads, losses = inputs(*at)
      out, state = tx.update(grads, state, params, losses=losses)
    outs.append(out)
  if name == 'famo':  # it saw one change of the losses less
    chex.assert_trees_all_close(*outs, rtol=0.1)
  else:
    chex.assert_trees_all_close(*outs, rtol=1e-6)


@BAD
@pytest.mark.parametrize('name', OPTIMIZERS)
def test_only_the_bad_task_stands_still(name, bad):
  params, tx = make_params(), OPTIMIZERS[name]()
  state = tx.init(params)
  for i in range(3):
    _, state = tx.update(make_grads(i), state, params)
  grads, _ = inputs(3, 'gradients', bad)
  updates, after = tx.update(grads, state, params)
  assert not bool(jnp.all(jnp.isfinite(updates['trunk']['w'])))
  chex.assert_tree_all_finite(floats(after))
  _, good = tx.update(make_grads(3), state, params)
  row = lambda tree, t: jax.tree.map(lambda x: x[t], tree.shared)
  chex.assert_trees_all_equal(row(after, 0), row(good, 0))
  chex.assert_trees_all_equal(row(after, 1), row(state, 1))
  chex.assert_trees_all_equal(after.own[0], good.own[0])
  chex.assert_trees_all_equal(after.own[1], state.own[1])


def test_a_lifted_optimizer_stands_still_too():
  params = {'w': jnp.zeros(2)}
  tx = mtl.per_task(optax.trace(0.9), 2)
  state = tx.init(params)
  bad = {'w': jnp.array([[1.0, 2.0], [jnp.nan, 1.0]])}
  updates, state = tx.update(bad, state, params)
  assert bool(jnp.any(jnp.isnan(updates['w'][1])))
  good = {'w': jnp.ones((2, 2))}
  updates, _ = tx.update(good, state, params)
  np.testing.assert_allclose(updates['w'], [[1.9, 2.8], [1.0, 1.0]])


def loss(params, batch):
  return jnp.stack(
    [jnp.mean((params - batch) ** 2), jnp.mean((2 * params + batch) ** 2) + 1]
  )


@pytest.mark.parametrize('every', [1, 2])
@pytest.mark.parametrize('route', ['jacobian', 'gramian', 'layerwise'])
@pytest.mark.parametrize('name', ['nash_mtl', 'gradnorm', 'imtl'])
def test_train_step(name, route, every):
  method = getattr(mtl, name)(2)
  init, step, _ = make_train_step(
    method,
    optax.apply_if_finite(optax.sgd(0.1), 5),
    loss,
    route=route,
    every=every,
  )
  state = init(jnp.array([0.5, -0.3]), key=jax.random.key(0))
  for i in range(6):
    batch = jnp.array([jnp.nan if i == 2 else 1.0 + i, 0.3])
    before = state.params.copy()
    state, metrics = step(state, batch)
    assert bool(jnp.all(state.params == before)) == (i == 2), i
  chex.assert_tree_all_finite(floats(state))


GOOD = jnp.array([[1.0, 0.0], [0.0, 2.0]])
NAN = [jnp.nan, jnp.nan]


@pytest.mark.parametrize(
  ('steps', 'expected'),
  [
    # Due at the first step, the third and the fifth.
    ('good bad bad good', [[0.8, 0.2], NAN, NAN, [0.8, 0.2]]),
    # Without any to hold it is NaN until they are due, which is seen.
    ('bad good good bad good', [NAN, NAN, [0.8, 0.2], NAN, [0.8, 0.2]]),
  ],
)
def test_weights_of_every_k_that_were_due_at_the_bad_step(steps, expected):
  tx = mtl.every_k(mtl.mgda(2), 2)
  state = tx.init(jnp.zeros(2))
  for step, weights in zip(steps.split(), expected, strict=True):
    grads = GOOD if step == 'good' else GOOD.at[0, 0].set(jnp.nan)
    _, state = tx.update(grads, state)
    np.testing.assert_allclose(mtl.get_weights(state), weights, rtol=1e-5)


@pytest.mark.parametrize(
  ('steps', 'expected'),
  [('good bad good', [0.8, 0.2]), ('bad bad good', NAN)],
)
def test_weights_of_freeze_after_that_were_due_at_the_bad_step(steps, expected):
  """The ones before are held on; without any it is NaN, which is seen."""
  tx = mtl.freeze_after(mtl.mgda(2), 2)
  state = tx.init(jnp.zeros(2))
  for step in steps.split():
    grads = GOOD if step == 'good' else GOOD.at[0, 0].set(jnp.nan)
    _, state = tx.update(grads, state)
  np.testing.assert_allclose(mtl.get_weights(state), expected, rtol=1e-5)


def of_tasks(params, batch):
  """Two losses with a head each; what is bad comes with the batch."""
  z = jnp.sin(params['trunk']) * batch['x']
  losses = [
    1 + (1 + t) * jnp.sum((z * params['heads'][t] - 0.3) ** 2) for t in range(2)
  ]
  return jnp.stack(losses) + batch['shift']


HEADED = {
  'trunk': jnp.array([0.5, -1.0]),
  'heads': [jnp.array([0.7, 0.1]), jnp.array([-0.3, 0.9])],
}
OWNERS = {'trunk': 'shared', 'heads': [0, 1]}
SHARP = {
  'sam': mtl.sam,
  'samo': mtl.samo,
  'flat_regions': mtl.flat_regions,
  'flat_regions_direct': lambda m: mtl.flat_regions(m, aggregation='direct'),
  'flat_regions_second': lambda m: mtl.flat_regions(m, aggregation='second'),
  'flat_regions_each': lambda m: mtl.flat_regions(m, aggregation='each'),
  'gradient_norm': lambda m: mtl.gradient_norm_penalty(m, rho=0.1, alpha=0.5),
}
SHARPNESS = [
  ('sam', mtl.gradnorm),
  ('sam', mtl.moco),
  ('samo', mtl.gradnorm),
  ('flat_regions', mtl.gradnorm),
  ('flat_regions', mtl.moco),
  ('flat_regions', mtl.uncertainty),
  ('flat_regions_direct', mtl.gradnorm),
  ('flat_regions_second', mtl.nash_mtl),
  ('flat_regions_each', mtl.nash_mtl),
  ('gradient_norm', mtl.gradnorm),
]


@pytest.mark.parametrize(('wrap', 'inner'), SHARPNESS)
def test_sharpness(wrap, inner):
  """A loss that is not finite, or a gradient, by either of its two ways in."""
  tx = SHARP[wrap](inner(2, labels=OWNERS))
  grad_fn = mtl.value_and_task_grads(of_tasks, labels=OWNERS)

  @jax.jit
  def update(state, batch):
    losses, grads = grad_fn(HEADED, batch)
    return tx.update(
      grads,
      state,
      HEADED,
      losses=losses,
      task_grad_fn=mtl.task_grad_fn(of_tasks, batch),
    )

  clean = {'x': jnp.array([1.0, 0.4]), 'shift': jnp.zeros(2)}
  for where, bad in (
    ('x', jnp.nan),
    ('x', jnp.inf),
    ('shift', jnp.nan),
    ('shift', jnp.inf),
    ('x', 1e30),
  ):
    state = tx.init(HEADED)
    for i in range(5):
      batch = {**clean, 'x': clean['x'] * (1 + 0.1 * i)}
      if i == 2:
        batch[where] = batch[where].at[1].set(bad)
      updates, state = update(state, batch)
    chex.assert_tree_all_finite((floats(state), updates))
    assert any(jnp.any(x != 0) for x in jax.tree.leaves(updates))


def test_famo_does_not_observe_the_step_that_was_not_taken():
  tx = mtl.famo(2, learning_rate=0.1)
  state = tx.init(jnp.zeros(2))
  grads = jnp.eye(2)
  _, state = tx.update(grads, state, losses=jnp.array([1.0, 2.0]))
  _, state = tx.update(grads, state, losses=jnp.array([0.5, 2.0]))
  before = state.weighting_state.logits
  _, bad = tx.update(grads, state, losses=jnp.array([0.4, jnp.nan]))
  _, after = tx.update(grads, bad, losses=jnp.array([0.1, 2.0]))
  assert bool(
    jnp.any(bad.weighting_state.logits != before)
  )  # of the step before
  np.testing.assert_array_equal(
    after.weighting_state.logits, bad.weighting_state.logits
  )


def test_a_loss_below_its_bound_is_not_observed():
  weighting = mtl.weightings.famo(min_losses=[0.5, 0.0])
  stats = mtl.TaskStats(losses=jnp.array([1.0, 2.0]))
  _, state = weighting.update(stats, weighting.init(2))
  state = weighting.observe(jnp.array([0.1, 1.0]), state)
  chex.assert_tree_all_finite(state.logits)


@pytest.mark.parametrize(
  'masks', [([1, 0], [1, 1]), ([1, 1], [1, 0]), ([0, 1], [1, 0])]
)
def test_absent_tasks_are_not_observed(masks):
  """Of either call: the logits move as those of the tasks seen in both."""
  losses = jnp.array([[1.0, 2.0], [0.6, 1.9]])
  odd = jnp.where(jnp.array(masks, bool), losses, jnp.array([7.0, jnp.nan]))
  logits = []
  for values in (losses, odd):
    tx = mtl.famo(2, learning_rate=0.1)
    state = tx.init(jnp.zeros(2))
    for mask, row in zip(masks, values, strict=True):
      _, state = tx.update(
        jnp.eye(2), state, losses=row, task_mask=jnp.array(mask, bool)
      )
    logits.append(state.weighting_state.logits)
  np.testing.assert_array_equal(*logits)
  chex.assert_tree_all_finite(logits[0])

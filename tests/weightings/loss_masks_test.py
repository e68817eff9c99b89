"""What holds for every weighting of losses: masks, dtypes, bad arguments."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax._types import TaskStats
from mtljax.weightings._bmtl import bmtl
from mtljax.weightings._dwa import dwa
from mtljax.weightings._famo import famo
from mtljax.weightings._geometric import geometric
from mtljax.weightings._go4align import go4align
from mtljax.weightings._imtl_l import imtl_l
from mtljax.weightings._slaw import slaw
from mtljax.weightings._stch import stch
from mtljax.weightings._uncertainty import uncertainty
from mtljax.weightings._uw_o import uw_o, uw_so

METHODS = {
  'uw_o': uw_o,
  'uw_so': lambda: uw_so(temperature=2.0),
  'geometric': geometric,
  'dwa': lambda: dwa(window=2),
  'bmtl': bmtl,
  'bmtl normalized': lambda: bmtl(normalize=True),
  'stch': stch,
  'stch warm-up': lambda: stch(warmup_steps=4, nadir_steps=2),
  'famo': famo,
  'slaw': lambda: slaw(decay=0.75),
  'go4align': lambda: go4align(learning_rate=0.1),
  'imtl_l': imtl_l,
  'uncertainty': uncertainty,
}
EVERY = pytest.mark.parametrize('name', METHODS)
STEPS = 8
LOSSES = np.random.default_rng(0).uniform(0.2, 3.0, size=(STEPS, 4))
ABSENT = 1
PRESENT = np.array([True, False, True, True])


def scan(weighting, losses, masks, state):
  """All weights and the last state; the losses after a step are half."""

  def step(state, inputs):
    losses, mask = inputs
    stats = TaskStats(losses=losses, mask=mask)
    weights, state = weighting.update(stats, state)
    if weighting.observe is not None:
      after = losses * jnp.linspace(0.3, 0.6, losses.shape[0])
      state = weighting.observe(jnp.where(losses == 0, 0, after), state)
    return state, weights

  return jax.jit(lambda *args: jax.lax.scan(step, *args))(
    state, (jnp.asarray(losses), jnp.asarray(masks))
  )


@EVERY
def test_an_absent_task_leaves_the_smaller_problem(name, x64):
  weighting = METHODS[name]()
  poisoned = LOSSES.copy()
  poisoned[:, ABSENT] = np.where(np.arange(STEPS) % 2, np.nan, -1.0)
  masks = np.tile(PRESENT, (STEPS, 1))

  def run(losses, masks, num_tasks, after):
    state, rows = weighting.init(num_tasks), []
    update = jax.jit(weighting.update)
    for row, mask in zip(losses, masks, strict=True):
      stats = TaskStats(losses=jnp.asarray(row), mask=mask)
      weights, state = update(stats, state)
      rows.append(weights)
      if weighting.observe is not None:
        state = weighting.observe(jnp.asarray(row) * after, state)
    return np.stack(rows)

  after = np.array([0.5, np.nan, 0.9, 0.7])
  weights = run(poisoned, masks, 4, after)
  small = run(LOSSES[:, PRESENT], [None] * STEPS, 3, after[PRESENT])
  assert not np.any(weights[:, ABSENT])
  np.testing.assert_allclose(weights[:, PRESENT], small, rtol=1e-9)


@EVERY
def test_an_absent_task_keeps_its_state(name, x64):
  weighting = METHODS[name]()
  full = np.ones((STEPS, 4), bool)
  before, _ = scan(weighting, LOSSES, full, weighting.init(4))
  after, _ = scan(weighting, LOSSES, np.tile(PRESENT, (STEPS, 1)), before)
  if name == 'famo':  # what the last update was is no task's history
    fixed = {'log_losses': before.log_losses, 'present': before.present}
    after = after._replace(**fixed)
  if name == 'go4align':  # kept up to a constant: here, relative to no risk
    total = 0.1 * LOSSES.sum(0)
    expected = -2 * total + np.where(PRESENT, 0, total)
    np.testing.assert_allclose(
      after.log_shares, expected - expected.max(), rtol=1e-9, atol=1e-12
    )
    return
  leaves = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
  for old, new in leaves:
    np.testing.assert_array_equal(old[ABSENT], new[ABSENT])


@EVERY
def test_state_is_stable_in_float64(name, x64):
  weighting = METHODS[name]()
  state = weighting.init(4)
  new, weights = scan(weighting, LOSSES, np.ones((STEPS, 4), bool), state)
  chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
  assert weights.dtype == jnp.float64
  assert np.all(np.isfinite(weights)) and np.all(weights >= 0)


@EVERY
def test_float32_agrees_with_float64(name):
  masks = np.ones((STEPS, 4), bool)
  weighting = METHODS[name]()
  _, narrow = scan(weighting, LOSSES, masks, weighting.init(4))
  assert narrow.dtype == jnp.float32
  with jax.enable_x64(True):
    _, wide = scan(weighting, LOSSES, masks, weighting.init(4))
  np.testing.assert_allclose(narrow, wide, rtol=1e-4)


@EVERY
def test_all_tasks_absent(name):
  weighting = METHODS[name]()
  stats = TaskStats(losses=jnp.full(3, jnp.nan), mask=jnp.zeros(3, bool))
  weights, state = weighting.update(stats, weighting.init(3))
  assert not np.any(weights)
  assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(state))


@EVERY
def test_losses_are_required(name):
  weighting = METHODS[name]()
  with pytest.raises(ValueError, match='stats.losses, which is None'):
    weighting.update(TaskStats(), weighting.init(2))
  with pytest.raises(ValueError, match=r'shape \(\)'):
    weighting.update(TaskStats(losses=jnp.array(1.0)), weighting.init(2))


@pytest.mark.parametrize(
  'name', ['uw_o', 'uw_so', 'geometric', 'go4align', 'stch warm-up']
)
@pytest.mark.parametrize('bad', [0.0, -1.0])
def test_a_loss_without_a_logarithm_is_not_swallowed(name, bad):
  weighting = METHODS[name]()
  stats = TaskStats(losses=jnp.array([1.0, bad, 2.0]))
  weights, _ = weighting.update(stats, weighting.init(3))
  assert np.all(np.isnan(weights))


def test_a_window_without_a_ratio_is_not_swallowed():
  weighting = dwa(window=1)
  state, rows = weighting.init(2), []
  for loss in (0.0, 1.0, 1.0, 1.0):
    stats = TaskStats(losses=jnp.array([1.0, loss]))
    weights, state = weighting.update(stats, state)
    rows.append(weights)
  # The third step divides by the first window, the fourth no longer does.
  assert np.all(np.isnan(rows[2]))
  np.testing.assert_allclose(rows[3], 1)


@pytest.mark.parametrize(
  ('factory', 'kwargs', 'words'),
  [
    (uw_so, {'temperature': 0.0}, 'temperature=0.0 must be above 0'),
    (dwa, {'temperature': -1.0}, 'temperature=-1.0'),
    (dwa, {'window': 0}, 'window=0 must be an int of at least 1'),
    (bmtl, {'temperature': 0.0}, 'temperature=0.0'),
    (stch, {'temperature': 0.0}, 'temperature=0.0'),
    (stch, {'preference': [1.0, -0.1]}, 'preference=.* at least 0'),
    (stch, {'reference': [np.nan, 0.0]}, 'reference=.* finite'),
    (stch, {'nadir_steps': 2}, 'set warmup_steps'),
    (stch, {'warmup_steps': 0}, 'warmup_steps=0'),
    (stch, {'warmup_steps': 2, 'nadir_steps': 3}, 'nadir_steps=3'),
    (stch, {'warmup_steps': 2, 'preference': [1.0]}, 'preference'),
    (famo, {'learning_rate': -0.1}, 'learning_rate=-0.1'),
    (famo, {'weight_decay': -0.1}, 'weight_decay=-0.1'),
    (famo, {'min_losses': 1.0}, 'min_losses=1.0 must be a vector'),
    (slaw, {'decay': 1.1}, 'decay=1.1'),
    (slaw, {'eps': 0.0}, 'eps=0.0'),
    (go4align, {'num_groups': 0}, 'num_groups=0'),
    (go4align, {'learning_rate': -1.0}, 'learning_rate=-1.0'),
    (imtl_l, {'learning_rate': -1.0}, 'learning_rate=-1.0'),
  ],
)
def test_arguments_out_of_range(factory, kwargs, words):
  with pytest.raises(ValueError, match=words):
    factory(**kwargs)


@pytest.mark.parametrize(
  'weighting',
  [
    stch(preference=[1.0, 1.0]),
    stch(reference=[1.0, 1.0]),
    famo(min_losses=[0.0, 0.0]),
  ],
)
def test_vectors_have_one_entry_a_task(weighting):
  with pytest.raises(ValueError, match='num_tasks=3'):
    weighting.init(3)

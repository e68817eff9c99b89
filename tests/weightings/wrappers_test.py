"""Averaged, reused and frozen weights: the rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import weightings
from mtljax._types import MethodInfo, TaskStats, Weighting

# Weights that are the losses, and a state that counts the calls.
COUNTING = Weighting(
  lambda num_tasks, key=None: jnp.zeros((), jnp.int32),
  lambda stats, state: (stats.losses, state + 1),
  frozenset({'losses'}),
  observe=lambda losses, state: state + 100,
  info=MethodInfo(name='counting', paper=''),
)


def run(weighting, losses, masks=None):
  """The weights of every step, and the last state, in one scan."""
  losses = jnp.asarray(losses)
  if masks is not None:
    masks = jnp.asarray(masks)

  def step(state, inputs):
    losses, mask = inputs
    weights, state = weighting.update(
      TaskStats(losses=losses, mask=mask), state
    )
    return state, (weights, state.inner_state)

  state, (weights, calls) = jax.lax.scan(
    step, weighting.init(losses.shape[1]), (losses, masks)
  )
  return np.asarray(weights), state, np.asarray(calls)


STEPS = np.arange(14.0, dtype=np.float32).reshape(7, 2) + 1


def test_every_k_holds_and_does_not_run_in_between():
  weights, _, calls = run(weightings.every_k(COUNTING, 3), STEPS)
  np.testing.assert_array_equal(weights, STEPS[[0, 0, 0, 3, 3, 3, 6]])
  np.testing.assert_array_equal(calls, [1, 1, 1, 2, 2, 2, 3])


def test_freeze_after_runs_for_some_steps():
  weights, state, calls = run(weightings.freeze_after(COUNTING, 3), STEPS)
  np.testing.assert_array_equal(weights, STEPS[[0, 1, 2, 2, 2, 2, 2]])
  np.testing.assert_array_equal(calls, [1, 2, 3, 3, 3, 3, 3])
  assert state.count == 3


def test_cr_mogm_is_a_moving_average():
  weights, _, calls = run(weightings.cr_mogm(COUNTING, decay=0.8), STEPS)
  expected = [STEPS[0]]
  for new in STEPS[1:]:
    expected.append(0.8 * expected[-1] + 0.2 * new)
  np.testing.assert_allclose(weights, expected, rtol=1e-5)
  np.testing.assert_array_equal(calls, np.arange(1, 8))


@pytest.mark.parametrize(
  'name, inner, kwargs',
  [
    ('CRMOGM(UPGrad,alpha=0.5,init=uniform)', 'upgrad', {'decay': 0.5}),
    ('CRMOGM(UPGrad)', 'upgrad', {}),
    ('CRMOGM(MGDA)', 'mgda', {}),
  ],
)
def test_cr_mogm_is_torchjds(name, inner, kwargs, golden, x64):
  # Its UPGrad adds 1e-4 to the diagonal, its MGDA stops early.
  tolerance = 1e-3
  for case in ('seq_T2_P10', 'seq_T3_P20'):
    num_tasks = int(case[5])
    if 'uniform' in name:
      kwargs = {**kwargs, 'initial_weights': [1 / num_tasks] * num_tasks}
    weighting = weightings.cr_mogm(getattr(weightings, inner)(), **kwargs)
    state = weighting.init(num_tasks)
    for k in range(4):
      jacobian = golden[f'{case}/J{k}']
      stats = TaskStats(gramian=jnp.asarray(jacobian @ jacobian.T))
      weights, state = weighting.update(stats, state)
      np.testing.assert_allclose(
        weights, golden[f'{case}/{name}@{k}:w'], atol=tolerance
      )


def test_initial_weights_are_mixed_with_the_first():
  weighting = weightings.cr_mogm(
    COUNTING, decay=0.25, initial_weights=[4.0, 8.0]
  )
  weights, _, _ = run(weighting, STEPS)
  np.testing.assert_allclose(
    weights[0], 0.25 * np.array([4, 8]) + 0.75 * STEPS[0]
  )


MASKS = np.array([[1, 0], [1, 1], [0, 1], [1, 1]], bool)


def test_average_of_an_absent_task_stands_still():
  weights, state, _ = run(
    weightings.cr_mogm(COUNTING, decay=0.5), STEPS[:4], MASKS
  )
  # The second task's begins at step 1, the first one's pauses at step 2.
  first = [1.0, 2.0, 0.0, 0.5 * 2 + 0.5 * 7]
  second = [0.0, 4.0, 5.0, 6.5]
  np.testing.assert_allclose(weights, np.stack([first, second], 1))
  np.testing.assert_allclose(state.held_weights, weights[-1])


def test_held_weights_of_an_absent_task():
  masks = np.array([[1, 0], [1, 1], [0, 1], [1, 1]], bool)
  weights, state, _ = run(weightings.every_k(COUNTING, 2), STEPS[:4], masks)
  # Absent when computed: 0 until the next time; then the old one is kept.
  np.testing.assert_array_equal(weights, [[1, 0], [1, 0], [0, 6], [1, 6]])
  np.testing.assert_array_equal(state.held_weights, [1, 6])


def test_nan_is_seen():
  losses = STEPS.copy()
  losses[2, 0] = np.nan
  average, _, _ = run(weightings.cr_mogm(COUNTING, decay=0.5), losses)
  assert np.isnan(average[2, 0])
  # The average goes on from its value before.
  np.testing.assert_allclose(average[3, 0], 0.5 * 2 + 0.5 * 7)
  held, _, _ = run(weightings.every_k(COUNTING, 2), losses)
  np.testing.assert_array_equal(np.isnan(held[:, 0]), [0, 0, 1, 1, 0, 0, 0])
  frozen, _, _ = run(weightings.freeze_after(COUNTING, 3), losses)
  assert np.all(np.isnan(frozen[2:, 0]))


@pytest.mark.parametrize(
  'wrap',
  [
    weightings.cr_mogm,
    lambda w: weightings.every_k(w, 2),
    lambda w: weightings.freeze_after(w, 2),
  ],
)
def test_observe_and_facts_pass_through(wrap):
  weighting = wrap(COUNTING)
  state = weighting.observe(jnp.ones(2), weighting.init(2))
  assert state.inner_state == 100
  assert weighting.needs == COUNTING.needs
  assert wrap(weightings.mgda()).observe is None
  assert wrap(weightings.imtl_g()).info.signed
  assert wrap(weightings.pcgrad()).info.random
  assert wrap(weightings.nash_mtl()).info.weight_heads


def test_names_nest():
  weighting = weightings.every_k(weightings.cr_mogm(weightings.mgda()), 5)
  assert weighting.info.name == 'every_k(cr_mogm(mgda))'
  assert weighting.reuse.weighting.info.name == 'cr_mogm(mgda)'
  assert 'Zhou' in weighting.info.paper


def last_update(weighting, scales, jacobians, losses):
  """The update of the last step, tasks' losses scaled from the start on."""
  state = weighting.init(3)
  for jacobian, loss in zip(jacobians, losses, strict=True):
    scaled = jacobian * scales[:, None]
    stats = TaskStats(
      gramian=jnp.asarray(scaled @ scaled.T), losses=jnp.asarray(loss * scales)
    )
    weights, state = weighting.update(stats, state)
  return np.asarray(weights) @ scaled


def test_which_invariance_a_wrapper_keeps(x64):
  """The declared one, over steps whose gradients and losses differ."""
  rng = np.random.default_rng(0)
  jacobians = rng.normal(size=(4, 3, 8))
  losses = rng.uniform(0.5, 2, size=(4, 3))
  scales = np.array([10.0, 0.1, 3.0])
  methods = {
    'full': weightings.uw_o(),
    'direction': weightings.slw(),
    'none': weightings.mean(),
  }
  found = {}
  for wrapper, wrap in {
    'every_k': lambda w: weightings.every_k(w, 2),
    'freeze_after': lambda w: weightings.freeze_after(w, 2),
    'cr_mogm': weightings.cr_mogm,
    'from': lambda w: weightings.cr_mogm(w, initial_weights=[1.0] * 3),
  }.items():
    for name, method in methods.items():
      weighting = wrap(method)
      plain = last_update(weighting, np.ones(3), jacobians, losses)
      scaled = last_update(weighting, scales, jacobians, losses)
      cosine = plain @ scaled / np.linalg.norm(plain) / np.linalg.norm(scaled)
      ratio = np.linalg.norm(scaled) / np.linalg.norm(plain)
      kind = 'none'
      if abs(cosine - 1) < 1e-7:
        kind = 'full' if abs(ratio - 1) < 1e-6 else 'direction'
      found[wrapper, name] = kind
      assert weighting.info.invariance == kind, (wrapper, name)
  assert found['every_k', 'direction'] == 'direction'
  assert found['cr_mogm', 'full'] == 'full'
  assert found['cr_mogm', 'direction'] == 'none'
  assert found['from', 'full'] == 'none'


@pytest.mark.parametrize(
  'call, message',
  [
    (lambda: weightings.every_k(COUNTING, 0), 'k=0'),
    (lambda: weightings.every_k(COUNTING, 2.0), 'k=2.0'),
    (lambda: weightings.freeze_after(COUNTING, True), 'steps=True'),
    (lambda: weightings.cr_mogm(COUNTING, decay=1.5), 'decay=1.5'),
    (
      lambda: weightings.cr_mogm(COUNTING, initial_weights=[-1.0, 1.0]),
      'initial_weights',
    ),
    (
      lambda: weightings.cr_mogm(COUNTING, initial_weights=[1.0]).init(2),
      'num_tasks=2',
    ),
  ],
)
def test_bad_input(call, message):
  with pytest.raises(ValueError, match=message):
    call()

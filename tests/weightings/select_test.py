"""One of several rules, by an index that may be batched."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import weightings
from mtljax._types import MethodInfo, TaskStats, Weighting

# Weights that are the losses, a state that counts the calls, and a wish to see
# the losses after.
COUNTING = Weighting(
  lambda num_tasks, key=None: jnp.zeros((), jnp.int32),
  lambda stats, state: (stats.losses, state + 1),
  frozenset({'losses'}),
  observe=lambda losses, state: state + 100,
  info=MethodInfo(name='counting', paper=''),
)
RULES = [
  COUNTING,
  weightings.aligned_mtl(),
  weightings.rlw(),
  weightings.mgda(),
]
RULES[2] = RULES[2]._replace(
  info=MethodInfo(name='rlw', paper='', random=True, invariance='full')
)
GRAMIAN = jnp.array([[4.0, -1.0], [-1.0, 2.0]])
LOSSES = jnp.array([1.0, 3.0])
STATS = TaskStats(gramian=GRAMIAN, losses=LOSSES)


def run(index, stats=STATS):
  rule = weightings.select(RULES, index)
  state = rule.init(2, key=jax.random.key(3))
  weights, state = rule.update(stats, state)
  return weights, rule.observe(LOSSES, state)


def alone(rule, stats=STATS):
  weights, state = rule.update(stats, rule.init(2, key=jax.random.key(3)))
  if rule.observe is not None:
    state = rule.observe(LOSSES, state)
  return weights, state


@pytest.fixture(scope='module')
def batched():
  """All rules by one program with a batched index."""
  return jax.jit(jax.vmap(run))(jnp.arange(len(RULES)))


def data(tree):
  """Keys as numbers."""
  return [
    jax.random.key_data(x)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    else x
    for x in jax.tree.leaves(tree)
  ]


@pytest.mark.parametrize('i', range(len(RULES)))
def test_each_is_the_rule_alone(batched, i):
  weights, state = batched
  expected, own = alone(RULES[i])
  np.testing.assert_allclose(weights[i], expected, rtol=1e-5)
  found = jax.tree.map(lambda x: x[i], state)
  for a, b in zip(data(found.inner_states[i]), data(own), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5)
  np.testing.assert_allclose(found.residual, getattr(own, 'residual', 0.0))


def test_the_rules_not_chosen_keep_their_state(batched):
  _, state = batched
  np.testing.assert_array_equal(state.inner_states[0], [101, 0, 0, 0])


def test_one_index_runs_one_rule():
  def program(index):
    return jax.make_jaxpr(run)(index)

  branches = [
    eqn.params['branches']
    for eqn in program(jnp.int32(1)).eqns
    if eqn.primitive.name == 'cond'
  ]
  assert len(branches[0]) == len(RULES)
  batched = jax.make_jaxpr(jax.vmap(run))(jnp.arange(2))
  assert not [e for e in batched.eqns if e.primitive.name == 'cond']


def test_absent_tasks_and_numbers_that_are_not_finite():
  rule = weightings.select([COUNTING, weightings.mgda()], 1)
  mask = jnp.array([True, False])
  gramian = jnp.diag(jnp.array([4.0, 0.0]))
  stats = TaskStats(losses=LOSSES, gramian=gramian, mask=mask)
  weights, _ = rule.update(stats, rule.init(2))
  np.testing.assert_allclose(weights, alone(RULES[3], stats)[0], rtol=1e-5)
  assert weights[1] == 0
  # NaN of a rule that is not chosen stays with it.
  bad = TaskStats(gramian=GRAMIAN * jnp.nan, losses=LOSSES)
  weights, _ = run(0, bad)
  np.testing.assert_array_equal(weights, LOSSES)


def test_facts():
  rule = weightings.select(RULES, 0)
  assert rule.needs == {'losses', 'gramian'}
  assert rule.info.name == 'select(counting, aligned_mtl, rlw, mgda)'
  assert rule.info.random
  assert rule.info.invariance == 'none'
  assert not rule.info.weight_heads
  assert weightings.select([weightings.mgda()], 0).observe is None
  assert weightings.select([weightings.imtl_g()], 0).info.signed


def test_residual_through_a_wrapper_and_of_none():
  wrapped = weightings.cr_mogm(weightings.cagrad())
  state = weightings.select([COUNTING, wrapped], 1).init(2)
  assert state.residual.shape == ()
  assert weightings.select([COUNTING], 0).init(2).residual is None


@pytest.mark.parametrize(
  'rules, index, error, message',
  [
    (RULES, 4, ValueError, 'index=4'),
    (RULES, -1, ValueError, 'index=-1'),
    (RULES, 0.5, TypeError, 'index=0.5'),
    (RULES, jnp.arange(2), TypeError, 'scalar integer'),
    ([], 0, ValueError, 'empty'),
    ([COUNTING, 'mgda'], 0, TypeError, 'str is not a weighting'),
    (
      [weightings.mgda(), weightings.modo()],
      0,
      ValueError,
      'compare two batches',
    ),
    (
      [weightings.mgda(), weightings.nash_mtl()],
      0,
      ValueError,
      'mtl.select',
    ),
  ],
)
def test_bad_input(rules, index, error, message):
  with pytest.raises(error, match=message):
    weightings.select(rules, index)

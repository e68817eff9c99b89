"""Task groups: their clustering, their affinities, the steps in turn."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax import data, diagnostics
from mtljax.training import (
  Checkpointer,
  JsonlWriter,
  fit,
  make_train_step,
  task_groups,
)
from mtljax.training.step import _task_groups

T, D, B = 4, 3, 8
RNG = np.random.default_rng(0)
BATCH = {
  'x': RNG.normal(size=(B, D)).astype(np.float32),
  'y': RNG.normal(size=(B, T)).astype(np.float32),
}
PARAMS = {
  'trunk': RNG.normal(size=(D, 2)).astype(np.float32),
  'heads': {str(t): RNG.normal(size=2).astype(np.float32) for t in range(T)},
}
LABELS = {'trunk': 'shared', 'heads': {str(t): t for t in range(T)}}
TIE = 1e-4


def task_losses(params, batch):
  z = jnp.tanh(batch['x'] @ params['trunk'])
  found = [z @ params['heads'][str(t)] for t in range(T)]
  return jnp.mean((jnp.stack(found, axis=1) - batch['y']) ** 2, axis=0)


def messages(similarity, preference, damping, num_iterations):
  """The equations entry by entry; who each task belongs to, or None."""
  n = len(similarity)
  s = similarity.copy()
  own = np.median(s) if preference is None else preference
  spread = s.max() - s.min()
  for k in range(n):
    s[k, k] = own - TIE * spread * k / n
  r, a = np.zeros((n, n)), np.zeros((n, n))
  for _ in range(num_iterations):
    new = np.zeros((n, n))
    for i in range(n):
      for k in range(n):
        new[i, k] = s[i, k] - max(a[i, j] + s[i, j] for j in range(n) if j != k)
    r = damping * r + (1 - damping) * new
    for i in range(n):
      for k in range(n):
        others = [max(0, r[j, k]) for j in range(n) if j not in (i, k)]
        new[i, k] = sum(others) if i == k else min(0, r[k, k] + sum(others))
    a = damping * a + (1 - damping) * new
  exemplars = [k for k in range(n) if r[k, k] + a[k, k] > 0]
  if not exemplars:
    return None
  return [
    i if i in exemplars else max(exemplars, key=lambda k: s[i, k])
    for i in range(n)
  ]


def belongs(masks):
  """The exemplar of every task, which has to be in one group."""
  masks = np.asarray(masks)
  np.testing.assert_array_equal(masks.sum(0), 1)
  found = masks.argmax(0)
  np.testing.assert_array_equal(found[found], found)  # exemplars are members
  return found.tolist()


def similarities(seed, size):
  s = np.random.default_rng(seed).normal(size=(size, size))
  s = (s + s.T) / 2
  np.fill_diagonal(s, 1)
  return s


@pytest.mark.parametrize('size', [3, 6, 9])
@pytest.mark.parametrize(
  'options',
  [
    {},
    {'preference': -0.5},
    {'damping': 0.9, 'num_iterations': 60},
    {'num_iterations': 3},
  ],
  ids=str,
)
def test_groups_by_the_equations(x64, size, options):
  cluster = jax.jit(lambda s: task_groups.affinity_propagation(s, **options))
  settings = {'preference': None, 'damping': 0.5, 'num_iterations': 200}
  for seed in range(4):
    s = similarities(seed, size)
    wanted = messages(s, **settings | options)
    found = cluster(jnp.asarray(s))
    if wanted is None:
      assert not found.any()
    else:
      assert belongs(found) == wanted


PLANTED = np.array([0, 1, 0, 2, 1, 2, 0])


def planted(groups, noise=0.05):
  s = np.where(groups[:, None] == groups[None], 0.8, -0.2)
  s = s + noise * RNG.normal(size=s.shape)
  s = (s + s.T) / 2
  np.fill_diagonal(s, 1)
  return jnp.asarray(s, jnp.float32)


def same_partition(a, b):
  a, b = np.asarray(a), np.asarray(b)
  return bool(((a[:, None] == a) == (b[:, None] == b)).all())


def test_planted_groups_are_found():
  found = task_groups.affinity_propagation(planted(PLANTED))
  assert same_partition(belongs(found), PLANTED)


def test_the_preference_says_how_many():
  s = planted(PLANTED)
  count = lambda p: len(
    set(belongs(task_groups.affinity_propagation(s, preference=p)))
  )
  assert count(2.0) == len(PLANTED)
  assert count(-9.0) == 1
  each = np.where(np.arange(len(PLANTED)) == 4, 0.5, -3.0)
  found = task_groups.affinity_propagation(s, preference=each)
  assert 4 in belongs(found)


def test_ties_go_to_the_lower_index():
  s = jnp.array([[1.0, 0.5], [0.5, 1.0]])
  found = task_groups.affinity_propagation(s, preference=0.0)
  assert belongs(found) == [0, 0]
  assert belongs(task_groups.affinity_propagation(s)) == [0, 1]


def test_one_task_is_a_group_and_what_is_not_finite_is_none():
  assert task_groups.affinity_propagation(jnp.ones((1, 1))).all()
  s = planted(PLANTED).at[2, 3].set(jnp.nan)
  assert not task_groups.affinity_propagation(s).any()
  assert not task_groups.affinity_propagation(jnp.full((1, 1), jnp.nan)).any()


@pytest.mark.parametrize(
  'arguments, words',
  [
    ((np.zeros((2, 3)), {}), r'\(2, 3\) must be of \(T, T\)'),
    ((np.eye(2), {'damping': 1.0}), 'damping=1.0'),
    ((np.eye(2), {'preference': np.nan}), 'preference=nan'),
    ((np.eye(2), {'num_iterations': 0}), 'num_iterations=0'),
  ],
  ids=str,
)
def test_clustering_refuses(arguments, words):
  similarity, options = arguments
  with pytest.raises(ValueError, match=words):
    task_groups.affinity_propagation(similarity, **options)


def by_hand(affinity, members, before, after, decay):
  affinity = affinity.copy()
  share = lambda t: (1 - after[t] / before[t]) / len(members)
  for s in members:
    for t in range(len(before)):
      if before[t] <= 0 or (t in members and before[s] <= 0):
        continue
      value = share(t)
      if t == s and value < 0:
        continue
      if t in members and value * share(s) < 0:
        value = -max(value, share(s))
      affinity[s, t] = (1 - decay) * affinity[s, t] + decay * value
  return affinity


@pytest.mark.parametrize('members', [[2], [0, 3], [0, 1, 2, 3], []], ids=str)
def test_what_a_group_did_is_noted_of_its_members(x64, members):
  rng = np.random.default_rng(len(members))
  affinity = rng.normal(size=(T, T))
  before = np.array([1.0, 2.0, 0.5, 3.0])
  after = before * np.array([0.8, 1.1, 1.2, 0.7])
  for losses in (before, np.array([1.0, 2.0, 0.0, -1.0])):
    found = _task_groups.noted(
      jnp.asarray(affinity),
      jnp.isin(jnp.arange(T), jnp.asarray(members, int)),
      jnp.asarray(losses),
      jnp.asarray(after),
      0.25,
    )
    wanted = by_hand(affinity, members, losses, after, 0.25)
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_what_is_not_finite_is_not_noted():
  affinity = jnp.ones((2, 2))
  found = _task_groups.noted(
    affinity,
    jnp.array([True, True]),
    jnp.ones(2),
    jnp.array([jnp.nan, 0.5]),
    0.5,
  )
  np.testing.assert_array_equal(found, [[1, 1], [1, 0.625]])


def make(optimizer=None, **options):
  optimizer = optax.adam(0.1) if optimizer is None else optimizer
  return task_groups.make_group_step(
    optimizer, task_losses, **{'num_tasks': T, 'labels': LABELS} | options
  )


def train(program, steps=3, seed=0, params=PARAMS, batch=BATCH):
  state = program.init(params, key=jax.random.key(seed))
  found = []
  for _ in range(steps):
    state, metrics = program.step(state, batch)
    found.append(jax.tree.map(np.asarray, metrics))
  return state, found


def close(a, b, atol=1e-6):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol), a, b)


def test_one_group_is_a_step_on_the_sum():
  state, found = train(make(groups=[list(range(T))]))
  plain = make_train_step(
    mtl.sum_losses(T, labels=LABELS), optax.adam(0.1), task_losses
  )
  other, metrics = train(plain)
  close(state.params, other.params)
  close(state.opt_state, other.opt_state)
  close([m['losses'] for m in found], [m['losses'] for m in metrics])
  assert found[0]['num_groups'] == 1


def in_turn(groups, steps=1):
  """Each group's own Adam step, what others own and its moments as before."""
  params = jax.tree.map(jnp.asarray, PARAMS)
  tx = optax.adam(0.1)
  state = tx.init(params)
  first = []
  for _ in range(steps):
    first.append(task_losses(params, BATCH))
    for group in groups:
      fun = lambda p, g=group: sum(task_losses(p, BATCH)[t] for t in g)
      updates, new = tx.update(jax.grad(fun)(params), state, params)
      moved = optax.apply_updates(params, updates)
      still = [str(t) for t in range(T) if t not in group]
      for t in still:
        moved['heads'][t] = params['heads'][t]
        new[0].mu['heads'][t] = state[0].mu['heads'][t]
        new[0].nu['heads'][t] = state[0].nu['heads'][t]
      params, state = moved, new
  return params, state, first


@pytest.mark.parametrize(
  'groups', [[[0, 2], [1], [3]], [[3], [1], [0, 2]]], ids=str
)
def test_groups_step_in_turn_heads_included(groups):
  state, found = train(make(groups=groups, order='index'), 2)
  params, opt_state, first = in_turn(groups, 2)
  close(state.params, params, 1e-5)
  close(state.opt_state, opt_state, 1e-5)
  close([m['losses'] for m in found], first, 1e-5)
  assert state.opt_state[0].count == 2 * len(groups)
  assert found[0]['group'].tolist() == [
    next(i for i, group in enumerate(groups) if t in group) for t in range(T)
  ]


def test_the_order_is_drawn():
  groups = [[0, 1], [2, 3]]
  program = make(groups=groups, order='random')
  ends = [train(program, 1, seed)[0].params['trunk'] for seed in range(8)]
  wanted = [in_turn(g)[0]['trunk'] for g in (groups, groups[::-1])]
  assert not np.allclose(*wanted, atol=1e-3)
  which = [
    [bool(np.allclose(end, w, atol=1e-5)) for w in wanted] for end in ends
  ]
  assert all(sum(x) == 1 for x in which)
  assert len({tuple(x) for x in which}) == 2
  again = train(program, 1, 0)[0].params['trunk']
  np.testing.assert_array_equal(again, ends[0])


def test_the_first_group_is_measured_as_task_affinity_does():
  state, _ = train(make(optax.sgd(0.1), order='index', decay=0.5), 1)
  wanted = diagnostics.task_affinity(
    task_losses,
    jax.tree.map(jnp.asarray, PARAMS),
    BATCH,
    learning_rate=0.1,
    labels=LABELS,
    update_own=True,
  )
  np.testing.assert_allclose(
    state.method_state.affinity[0], 0.5 * wanted[0], atol=1e-6
  )


def pulled(w, goals):
  return 1 + jnp.sum((w[None] - goals) ** 2, axis=1)


GOALS = np.array([[1, 0.2], [-1, 0], [1, 0], [-1, 0.2]], np.float32)


def test_tasks_that_help_each_other_come_together():
  program = task_groups.make_group_step(
    optax.sgd(0.05), pulled, num_tasks=T, decay=0.1, warmup_steps=20
  )
  _, found = train(program, 22, params=np.zeros(2, np.float32), batch=GOALS)
  groups = [m['group'] for m in found]
  assert all(m['num_groups'] == T for m in found[:20])
  np.testing.assert_array_equal(groups[19], np.arange(T))
  for group in groups[20:]:
    assert same_partition(group, [0, 1, 0, 1])


def test_groups_stay_between_and_where_nothing_is_known():
  program = task_groups.make_group_step(
    optax.sgd(0.05), pulled, num_tasks=T, decay=0.1, warmup_steps=4, every=50
  )
  state, _ = train(program, 5, params=np.zeros(2, np.float32), batch=GOALS)
  formed = np.asarray(state.method_state.groups)
  # The affinities of another partition, and not a step at which groups form.
  other = jnp.asarray(np.kron(np.eye(2), np.ones((2, 2))), float)
  method = state.method_state._replace(affinity=other)
  state = state.__class__(**vars(state) | {'method_state': method})
  state, _ = program.step(state, GOALS)
  np.testing.assert_array_equal(state.method_state.groups, formed)
  # At rest no loss changes, so no task has an affinity to itself.
  still = task_groups.make_group_step(
    optax.sgd(0.0), pulled, num_tasks=T, warmup_steps=1
  )
  state, _ = train(still, 3, params=np.zeros(2, np.float32), batch=GOALS)
  np.testing.assert_array_equal(state.method_state.groups, np.eye(T))


def fitted(program, path, num_steps):
  rng = np.random.default_rng(1)
  arrays = {
    name: rng.normal(size=(4 * B, *x.shape[1:])).astype(np.float32)
    for name, x in BATCH.items()
  }
  writer = JsonlWriter(path / 'metrics.jsonl')
  with (
    contextlib.closing(writer),
    Checkpointer(path / 'saved') as checkpointer,
  ):
    return fit(
      program.step,
      program.init(PARAMS, key=jax.random.key(0)),
      data.make_train_iterator(arrays, batch_size=B, seed=0),
      num_steps=num_steps,
      task_names=tuple('abcd'),
      eval_every=2,
      checkpointer=checkpointer,
      writer=writer,
      progress=False,
    )


def test_a_resumed_run_is_the_run(tmp_path):
  program = make(decay=0.1, warmup_steps=3)
  for name in ('whole', 'cut'):
    (tmp_path / name).mkdir()
  whole = fitted(program, tmp_path / 'whole', 6)
  fitted(program, tmp_path / 'cut', 4)
  resumed = fitted(program, tmp_path / 'cut', 6)
  assert resumed.resumed_from == 4
  jax.tree.map(
    np.testing.assert_array_equal, resumed.state.params, whole.state.params
  )
  jax.tree.map(
    np.testing.assert_array_equal,
    resumed.state.method_state,
    whole.state.method_state,
  )
  assert 'num_groups' in (tmp_path / 'whole' / 'metrics.jsonl').read_text()


def test_one_trace():
  traces = []

  def counted(w, goals):
    traces.append(None)
    return pulled(w, goals)

  program = task_groups.make_group_step(
    optax.sgd(0.05), counted, num_tasks=T, warmup_steps=2
  )
  train(program, 1, params=np.zeros(2, np.float32), batch=GOALS)
  first = len(traces)
  assert first
  train(program, 4, params=np.zeros(2, np.float32), batch=GOALS)
  assert len(traces) == first


def test_what_a_step_refuses():
  program = make()
  state = program.init(PARAMS, key=jax.random.key(0))
  with pytest.raises(ValueError, match='batch is a MaskedBatch'):
    program.step(state, mtl.MaskedBatch(BATCH, jnp.ones(T, bool)))
  with pytest.raises(TypeError, match='state is a dict'):
    program.step({}, BATCH)
  with pytest.raises(ValueError, match='model_state is not empty'):
    program.init(PARAMS, key=jax.random.key(0), model_state={'mean': 0})


@pytest.mark.parametrize(
  'options, error, words',
  [
    ({'num_tasks': None}, ValueError, 'num_tasks=None.*pass num_tasks'),
    ({'groups': [[0, 1], [2]]}, ValueError, 'each of the 4 tasks in one'),
    ({'groups': [[0, 1], [1, 2, 3]]}, ValueError, 'each of the 4 tasks'),
    ({'groups': [[0, 1], [2, 4]]}, ValueError, r'groups\[1\]'),
    ({'groups': [0, 1, 2, 3]}, TypeError, r'groups\[0\]=0'),
    ({'groups': 4}, TypeError, 'groups=4 must be a list of lists'),
    ({'order': 'given'}, ValueError, "order='given'"),
    ({'decay': 0.0}, ValueError, 'decay=0.0'),
    ({'damping': 1.0}, ValueError, 'damping=1.0'),
    ({'num_iterations': 0}, ValueError, 'num_iterations=0'),
    ({'warmup_steps': 0}, ValueError, 'warmup_steps=0'),
    ({'every': 0}, ValueError, 'every=0'),
    ({'optimizer': 0.1}, TypeError, 'optimizer=0.1'),
  ],
  ids=str,
)
def test_arguments_that_are_not_valid(options, error, words):
  with pytest.raises(error, match=words):
    make(**options)

import itertools
import json

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.data import curricula


def by_brute_force(costs):
  """The least cost of all orders, in float64."""
  places = np.array(list(itertools.permutations(range(len(costs)))))
  return costs[places[:, :-1], places[:, 1:]].sum(1).min()


def random_costs(seed, num_tasks):
  return np.random.default_rng(seed).uniform(size=(num_tasks, num_tasks))


@pytest.mark.parametrize('num_tasks', [2, 3, 5, 7, 9])
def test_annealing_finds_the_optimum(num_tasks, x64):
  for seed in range(3):
    costs = random_costs(seed, num_tasks)  # not symmetric
    found = curricula.task_order(costs, jax.random.key(seed), num_steps=9000)
    assert sorted(found.order.tolist()) == list(range(num_tasks))
    np.testing.assert_allclose(found.cost, by_brute_force(costs), rtol=1e-12)
    path = curricula.path_cost(costs, found.order)
    np.testing.assert_allclose(path, found.cost, rtol=1e-12)


def test_a_hot_walk_is_no_annealing(x64):
  costs = random_costs(0, 9)
  hot, cold = (
    curricula.task_order(
      costs,
      jax.random.key(3),
      num_steps=200,
      num_chains=1,
      temperature=temperature,
      final=temperature / 20,
    )
    for temperature in (1e3, 1.0)
  )
  best = by_brute_force(costs)
  assert best <= cold.cost < hot.cost


@pytest.mark.parametrize('scale', [1e-20, 1e20])
def test_the_unit_of_costs_does_not_matter(scale):
  costs = random_costs(1, 8).astype(np.float32)
  plain, scaled = (
    curricula.task_order(x, jax.random.key(0)).order
    for x in (costs, np.float32(scale) * costs)
  )
  np.testing.assert_array_equal(plain, scaled)


def test_one_task_and_equal_costs():
  found = curricula.task_order(np.zeros((1, 1)), jax.random.key(0))
  assert found.order.tolist() == [0] and found.cost == 0
  found = curricula.task_order(np.ones((4, 4), int), jax.random.key(0))
  assert sorted(found.order.tolist()) == [0, 1, 2, 3] and found.cost == 3


def test_under_jit_and_vmap():
  costs = random_costs(2, 6).astype(np.float32)
  keys = jax.random.split(jax.random.key(0), 3)
  many = jax.jit(jax.vmap(lambda k: curricula.task_order(costs, k)))(keys)
  for key, order, cost in zip(keys, *many, strict=True):
    one = curricula.task_order(costs, key)
    np.testing.assert_array_equal(order, one.order)
    np.testing.assert_allclose(cost, one.cost, rtol=1e-6)


def test_costs_of_embeddings(x64):
  angles = np.array([0.0, 0.5, 2.0])
  embeddings = np.stack([np.cos(angles), np.sin(angles)], 1)
  embeddings *= np.array([1.0, 10.0, 0.1])[:, None]
  expected = 1 - np.cos(angles[:, None] - angles)
  got = curricula.task_costs(embeddings)
  np.testing.assert_allclose(got, expected, atol=1e-14)
  unlike = curricula.task_costs(embeddings, neighbors='unlike')
  np.testing.assert_allclose(unlike, -expected, atol=1e-14)
  # The far ones meet: 0 and 2 are the farthest, then 0.5 and 2.
  order = curricula.task_order(unlike, jax.random.key(0)).order.tolist()
  assert order in ([0, 2, 1], [1, 2, 0])
  embeddings[0] = 0
  np.testing.assert_allclose(
    curricula.task_costs(embeddings)[0], [0, 1, 1], atol=1e-14
  )


def test_margins_are_differences_of_cosines(x64):
  a, p, q = np.random.default_rng(0).normal(size=(3, 5, 4))

  def cosine(x, y):
    return (
      np.sum(x * y, 1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    )

  np.testing.assert_allclose(
    curricula.contrastive_margins(a, p, q), cosine(a, p) - cosine(a, q)
  )


def test_the_hardest_are_left_out():
  margins = np.array([0.0, 3.0, -1.0, 3.0, 2.0, -5.0, 1.0, 0.5, 0.2, 4.0])
  got = curricula.instance_order(margins, drop=0.2)
  assert got.tolist() == [9, 1, 3, 4, 6, 7, 8, 0]
  assert len(curricula.instance_order(margins, drop=0)) == 10
  assert curricula.instance_order(margins, drop=0.99).tolist() == [9]
  assert len(curricula.instance_order(np.zeros(100), drop=0.29)) == 71
  assert curricula.instance_order([]).tolist() == []


INSTANCES = [np.arange(7), np.arange(10, 14), np.arange(20, 26)]


def test_rounds_go_through_all_tasks():
  one = curricula.schedule([2, 0, 1], INSTANCES, batch_size=2)
  assert one.tasks.tolist() == [2, 2, 2, 0, 0, 0, 1, 1]
  assert one.indices[:4].tolist() == [[20, 21], [22, 23], [24, 25], [0, 1]]
  two = curricula.schedule([2, 0, 1], INSTANCES, batch_size=2, rounds=2)
  assert two.tasks.tolist() == [2, 2, 0, 0, 1, 2, 0, 1]
  # The same batches, each task's in its own order.
  for task in range(3):
    np.testing.assert_array_equal(
      one.indices[one.tasks == task], two.indices[two.tasks == task]
    )


ARRAYS = {'x': np.arange(30) * 10}


def test_batches_resume_exactly_from_json():
  found = curricula.schedule([2, 0, 1], INSTANCES, batch_size=2)
  batches = found.batches(ARRAYS, num_epochs=2)
  whole = list(found.batches(ARRAYS, num_epochs=2))
  assert len(whole) == 16
  for done in range(1, 16):
    next(batches)
    state = json.loads(json.dumps(batches.get_state()))
    other = found.batches(ARRAYS, num_epochs=2)
    other.set_state(state)
    rest = list(other)
    assert len(rest) == 16 - done
    for one, two in zip(rest, whole[done:], strict=True):
      np.testing.assert_array_equal(one['x'], two['x'])
      assert one['task'] == two['task']
  changed = curricula.schedule([2, 1, 0], INSTANCES, batch_size=2)
  with pytest.raises(ValueError, match='saved state has order='):
    changed.batches(ARRAYS, num_epochs=2).set_state(state)


def test_it_is_a_sampler_of_grain():
  found = curricula.schedule([1, 2, 0], INSTANCES, batch_size=2)

  def loader(sampler):
    return grain.DataLoader(
      data_source=[{'x': 10 * i} for i in range(30)],
      sampler=sampler,
      operations=[grain.transforms.Batch(2)],
      shard_options=grain.sharding.NoSharding(),
    )

  batches = iter(loader(found))
  first = [next(batches)['x'].tolist() for _ in range(3)]
  state = batches.get_state()
  rest = [x['x'].tolist() for x in batches]
  assert first + rest == (10 * found.indices).tolist()
  again = iter(loader(found))
  again.set_state(state)
  assert [x['x'].tolist() for x in again] == rest
  changed = curricula.schedule([0, 2, 1], INSTANCES, batch_size=2)
  with pytest.raises(ValueError, match='sampler'):
    iter(loader(changed)).set_state(state)
  with pytest.raises(IndexError, match='index=16'):
    found[16]


@pytest.mark.parametrize(
  ('call', 'match'),
  [
    (lambda: curricula.task_costs(np.ones(3)), r'\(T, D\), got \(3,\)'),
    (
      lambda: curricula.task_costs(np.eye(3), neighbors='near'),
      "neighbors='near'",
    ),
    (
      lambda: curricula.task_order(np.ones((2, 3)), jax.random.key(0)),
      r'\(T, T\), got \(2, 3\)',
    ),
    (
      lambda: curricula.task_order(np.full((2, 2), np.inf), jax.random.key(0)),
      'must be finite',
    ),
    (
      lambda: curricula.task_order(np.eye(2), jax.random.key(0), final=2.0),
      'final=2.0 must be above 0 and at most 1',
    ),
    (
      lambda: curricula.task_order(np.eye(2), jax.random.key(0), num_steps=0),
      'num_steps=0',
    ),
    (lambda: curricula.instance_order([1.0], drop=1.0), 'drop=1.0'),
    (lambda: curricula.instance_order([np.nan]), 'must not be NaN'),
    (lambda: curricula.instance_order(np.eye(2)), r'got \(2, 2\)'),
    (
      lambda: curricula.schedule([0, 0, 1], INSTANCES, batch_size=2),
      r'order=\[0, 0, 1\] must be a permutation of the 3 tasks',
    ),
    (
      lambda: curricula.schedule([0, 1, 2], INSTANCES, batch_size=5),
      r'instances\[1\] has 4 examples, batch_size=5',
    ),
    (
      lambda: curricula.schedule([0], [[4]], batch_size=1).batches(
        {'x': np.arange(4)}
      ),
      "'x' has 4 rows, the schedule needs 5",
    ),
    (
      lambda: curricula.schedule([0], [[0]], batch_size=1).batches(
        {'task': jnp.arange(4)}
      ),
      "called 'task'",
    ),
  ],
)
def test_what_does_not_fit_is_refused(call, match):
  with pytest.raises(ValueError, match=match):
    call()

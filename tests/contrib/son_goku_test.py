"""SON-GOKU against its description, in numpy and by brute force."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax as mtl
from mtljax.contrib._son_goku import color_tasks

RNG = np.random.default_rng(0)


def graph(size, share, seed):
  upper = np.triu(np.random.default_rng(seed).random((size, size)) < share, 1)
  return upper | upper.T


def by_hand(edges, tasks):
  """Welsh and Powell's colours of some tasks."""
  near = {t: {s for s in tasks if edges[t, s]} for t in tasks}
  colors = {}
  for t in sorted(tasks, key=lambda t: -len(near[t])):
    taken = {colors.get(s) for s in near[t]}
    colors[t] = next(c for c in itertools.count() if c not in taken)
  return [colors.get(t, -1) for t in range(len(edges))]


@pytest.mark.parametrize('share', [0.0, 0.2, 0.5, 0.9, 1.0])
def test_colors_are_the_greedy_ones_and_valid(share):
  color = jax.jit(color_tasks)
  for seed in range(8):
    edges = graph(9, share, seed)
    mask = np.random.default_rng(seed).random(9) < (1 if seed < 4 else 0.7)
    colors = np.asarray(color(edges, mask))
    assert list(colors) == by_hand(edges, np.flatnonzero(mask).tolist())
    inside = edges & mask & mask[:, None]
    same = colors[:, None] == colors
    assert not np.any(inside & same)
    assert colors.max() <= inside.sum(1).max()


def steps_by_hand(jacobians, decay, threshold, refresh, anneal):
  averages, edges, out = np.zeros(jacobians.shape[1:]), None, []
  for k, jacobian in enumerate(jacobians):
    averages = decay * averages + (1 - decay) * jacobian
    if k % refresh == 0:
      unit = averages / np.linalg.norm(averages, axis=1, keepdims=True)
      level = 1 - (min(k / anneal, 1) if anneal else 1) * (1 - threshold)
      edges = -(unit @ unit.T) > level
    colors = np.array(by_hand(edges, list(range(len(jacobian)))))
    active = colors == k % (colors.max() + 1)
    out.append(jacobian[active].sum(0))
  return np.stack(out)


@pytest.mark.parametrize('refresh, anneal', [(1, 0), (3, 0), (2, 8)])
def test_by_the_description(refresh, anneal, x64):
  jacobians = RNG.normal(size=(14, 6, 5))
  tx = mtl.contrib.son_goku(
    6, decay=0.7, threshold=0.1, refresh_steps=refresh, anneal_steps=anneal
  )

  def step(state, jacobian):
    update, state = tx.update(jacobian, state)
    return state, update

  _, found = jax.lax.scan(step, tx.init(jnp.zeros(5)), jnp.asarray(jacobians))
  expected = steps_by_hand(jacobians, 0.7, 0.1, refresh, anneal)
  np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_no_conflict_is_the_sum_and_heads_wait_with_their_task():
  labels = {'w': 'shared', 'a': 0, 'b': 1}
  tx = mtl.contrib.son_goku(2, labels=labels, anneal_steps=0)
  params = {'w': jnp.zeros(2), 'a': jnp.zeros(1), 'b': jnp.zeros(1)}
  grads = {
    'w': jnp.array([[1.0, 0.0], [1.0, 1.0]]),
    'a': jnp.ones(1),
    'b': jnp.ones(1),
  }
  update, _ = tx.update(grads, tx.init(params), params)
  np.testing.assert_array_equal(update['w'], [2.0, 1.0])
  grads['w'] = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
  update, state = tx.update(grads, tx.init(params), params)
  assert update['w'][0] == 1 and update['a'] == 1 and update['b'] == 0
  update, state = tx.update(grads, state, params)
  assert update['w'][0] == -1 and update['a'] == 0 and update['b'] == 1


def test_a_bad_gradient_leaves_no_trace():
  tx = mtl.contrib.son_goku(2, anneal_steps=0)
  start = tx.init(jnp.zeros(3))
  bad = jnp.array([[1.0, jnp.nan, 0.0], [1.0, 0.0, 0.0]])
  update, state = tx.update(bad, start)
  assert np.all(np.isnan(update))
  np.testing.assert_array_equal(
    state.method_state.averages[0], start.method_state.averages[0]
  )

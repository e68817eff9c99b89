"""GCond against its description, on the gradients themselves."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax as mtl

RNG = np.random.default_rng(0)
WEAK, MAIN, CRITICAL = 0.0, -0.5, -0.8


def cosine(a, b):
  return a @ b / np.sqrt((a @ a) * (b @ b))


def angle(c):
  if c <= CRITICAL:
    return math.pi
  if c <= MAIN:
    share = (MAIN - c) / (MAIN - CRITICAL)
    return math.pi / 2 * (1 + share**2)
  return math.pi / 2 * ((WEAK - c) / (WEAK - MAIN)) ** 2


def settle(rows, scores):
  rows = [row.copy() for row in rows]
  pairs = set(itertools.combinations(range(len(rows)), 2))
  while pairs:
    a, b = min(pairs, key=lambda p: cosine(rows[p[0]], rows[p[1]]))
    c = cosine(rows[a], rows[b])
    if c >= WEAK:
      break
    pairs.remove((a, b))
    w, l = (a, b) if scores[a] >= scores[b] else (b, a)
    old_w, old_l, dot = rows[w], rows[l], rows[w] @ rows[l]
    share = math.sin(min(angle(c), math.pi / 2))
    rows[l] = old_l - share * dot / (old_w @ old_w) * old_w
    rows[w] = old_w - math.sin(angle(c)) * dot / (old_l @ old_l) * old_l
  return sum(rows)


def by_hand(jacobians):
  num_tasks = jacobians.shape[1]
  norms, total, last, out = np.zeros(num_tasks), 0.0, None, []
  for jacobian in jacobians:
    lengths = np.linalg.norm(jacobian, axis=1)
    norms, total = 0.9 * norms + 0.1 * lengths, 0.9 * total + 0.1
    same = np.zeros(num_tasks)
    if last is not None:
      same = [cosine(a, b) for a, b in zip(jacobian, last, strict=True)]
    scores = 0.8 * np.array(same) + 0.2 * lengths / (norms / total)
    last = jacobian
    out.append(settle(jacobian, scores))
  return np.stack(out)


def steps_of(tx, jacobians, mask=None):
  def step(state, jacobian):
    update, state = tx.update(jacobian, state, task_mask=mask)
    return state, update

  start = tx.init(jnp.zeros(jacobians.shape[2:]))
  state, out = jax.jit(lambda *a: jax.lax.scan(step, *a))(
    start, jnp.asarray(jacobians)
  )
  return np.asarray(out), state


@pytest.mark.parametrize('size', [3, 20])
def test_by_the_description(size, x64):
  """In few dimensions most pairs are in conflict, by every part of the ramp."""
  jacobians = RNG.normal(size=(12, 5, size))
  jacobians[:, :, 0] *= 2
  found, _ = steps_of(mtl.contrib.gcond(5), jacobians)
  np.testing.assert_allclose(found, by_hand(jacobians), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize('c', [-0.2, -0.5, -0.65, -0.9])
def test_a_pair_is_projected_by_its_conflict(c, x64):
  rows = np.array([[1.0, 0.0], [2 * c, 2 * math.sqrt(1 - c * c)]])
  found, _ = steps_of(mtl.contrib.gcond(2), rows[None])
  a, dot = angle(c), 2 * c
  loser = rows[1] - math.sin(min(a, math.pi / 2)) * dot * rows[0]
  winner = rows[0] - math.sin(a) * dot / 4 * rows[1]
  np.testing.assert_allclose(found[0], loser + winner, atol=1e-12)
  if c <= CRITICAL:
    np.testing.assert_allclose(winner, rows[0], atol=1e-12)
    np.testing.assert_allclose(loser @ rows[0], 0, atol=1e-12)


def test_without_conflict_it_is_the_sum(x64):
  jacobians = np.abs(RNG.normal(size=(2, 4, 6)))
  found, state = steps_of(mtl.contrib.gcond(4), jacobians)
  np.testing.assert_allclose(found, jacobians.sum(1), rtol=1e-12)
  np.testing.assert_array_equal(mtl.get_weights(state), np.ones(4))


def test_absent_tasks_leave_the_smaller_problem(x64):
  jacobians = RNG.normal(size=(4, 4, 3))
  mask = np.array([True, False, True, True])
  poisoned = np.where(mask[:, None], jacobians, np.nan)
  found, state = steps_of(mtl.contrib.gcond(4), poisoned, jnp.asarray(mask))
  np.testing.assert_allclose(
    found, by_hand(jacobians[:, mask]), rtol=1e-8, atol=1e-9
  )
  assert not state.method_state.averaged[1]


def test_a_bad_gradient_leaves_no_trace():
  tx = mtl.contrib.gcond(2)
  bad = jnp.array([[1.0, jnp.inf], [1.0, 0.0]])
  update, state = tx.update(bad, tx.init(jnp.zeros(2)))
  assert np.all(np.isnan(update))
  assert not any(np.any(x) for x in jax.tree.leaves(state.method_state))

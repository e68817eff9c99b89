"""Affinities by hand, and groupings by trying all."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax as mtl
from mtljax import diagnostics


def _losses(params, x):
  z = x @ params['trunk']
  first = jnp.mean((z @ params['heads'][0] - 1) ** 2)
  second = jnp.mean((z @ params['heads'][1]) ** 2)
  return jnp.stack([first, second + 1, first + second])


def _given():
  rng = np.random.default_rng(0)
  params = {
    'trunk': jnp.asarray(rng.standard_normal((3, 4))),
    'heads': [jnp.asarray(rng.standard_normal(4)) for _ in range(2)],
  }
  return params, jnp.asarray(rng.standard_normal((5, 3)))


def test_it_is_the_change_of_the_loss_after_a_step():
  with jax.enable_x64(True):
    params, x = _given()
    found = diagnostics.task_affinity(_losses, params, x, learning_rate=0.1)
    before = _losses(params, x)
    for s in range(3):
      grads = jax.grad(lambda p, s=s: _losses(p, x)[s])(params)
      step = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
      after = _losses(step, x)
      np.testing.assert_allclose(found[s], 1 - after / before, rtol=1e-10)


@pytest.mark.parametrize('update_own', [False, True])
def test_what_a_task_owns_moves_only_where_asked(update_own):
  def staged(params, x):
    return x @ params['trunk']

  heads = [
    lambda p, z, x, t=t: jnp.mean((z @ p['heads'][t] - t) ** 2)
    for t in range(2)
  ]
  loss = mtl.Staged(staged, heads)
  with jax.enable_x64(True):
    params, x = _given()
    labels = mtl.label_params(
      params, shared='trunk', tasks=['heads/0', 'heads/1']
    )
    found = diagnostics.task_affinity(
      loss, params, x, learning_rate=0.1, labels=labels, update_own=update_own
    )
    at = lambda p: jnp.stack([h(p, staged(p, x), x) for h in heads])
    for s in range(2):
      grads = jax.grad(lambda p, s=s: at(p)[s])(params)
      step = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
      if not update_own:
        step = {**step, 'heads': params['heads']}
      wanted = 1 - at(step) / at(params)
      np.testing.assert_allclose(found[s], wanted, rtol=1e-10)


def test_to_first_order_it_is_the_scalar_product():
  with jax.enable_x64(True):
    params, x = _given()
    rate = 1e-6
    found = diagnostics.task_affinity(_losses, params, x, learning_rate=rate)
    losses, grads = mtl.value_and_task_grads(_losses)(params, x)
    wanted = rate * mtl.gramian(grads) / losses[None]
    np.testing.assert_allclose(found, wanted, rtol=1e-3)


def test_auxiliary_output_and_jit():
  params, x = _given()
  with_aux = lambda p, x: (_losses(p, x), {'a': x})
  plain = diagnostics.task_affinity(_losses, params, x, learning_rate=0.1)
  other = jax.jit(
    lambda p: diagnostics.task_affinity(
      with_aux, p, x, learning_rate=0.1, has_aux=True
    )
  )(params)
  np.testing.assert_allclose(plain, other, rtol=1e-5)


def test_numbers_out_of_range():
  params, x = _given()
  with pytest.raises(ValueError, match='learning_rate=-1'):
    diagnostics.task_affinity(_losses, params, x, learning_rate=-1)


def _partitions(tasks):
  if not tasks:
    yield []
    return
  first, *others = tasks
  for size in range(len(others) + 1):
    for some in itertools.combinations(others, size):
      left = [t for t in others if t not in some]
      for rest in _partitions(left):
        yield [[first, *some], *rest]


def _value(matrix, groups, alone):
  total = 0.0
  for group in groups:
    if len(group) == 1:
      total += alone
    for t in group if len(group) > 1 else ():
      total += np.mean([matrix[s, t] for s in group if s != t])
  return total


@pytest.mark.parametrize('num_groups', [1, 2, 3, 6])
@pytest.mark.parametrize('alone', [0.0, 0.3])
def test_no_grouping_is_better(num_groups, alone):
  matrix = np.random.default_rng(num_groups).standard_normal((6, 6))
  np.fill_diagonal(matrix, np.nan)
  groups = diagnostics.best_groups(matrix, num_groups, alone=alone)
  assert sorted(t for group in groups for t in group) == list(range(6))
  allowed = [x for x in _partitions(list(range(6))) if len(x) <= num_groups]
  best = max(_value(matrix, x, alone) for x in allowed)
  assert groups in allowed
  assert _value(matrix, groups, alone) == pytest.approx(best)


def test_planted_groups_of_twelve_tasks():
  planted = [[0, 3, 4, 9], [1, 2, 10, 11], [5, 6, 7, 8]]
  matrix = np.full((12, 12), -1.0)
  for group in planted:
    matrix[np.ix_(group, group)] = 1
  assert diagnostics.best_groups(matrix, 3) == planted


@pytest.mark.parametrize(
  ('matrix', 'num_groups', 'match'),
  [
    (np.zeros((2, 3)), 1, r'shape \(2, 3\)'),
    ([[0, np.nan], [0, 0]], 1, 'not finite'),
    (np.zeros((13, 13)), 2, '13 tasks'),
    (np.zeros((2, 2)), 0, 'num_groups=0'),
  ],
)
def test_what_cannot_be_grouped(matrix, num_groups, match):
  with pytest.raises(ValueError, match=match):
    diagnostics.best_groups(matrix, num_groups)

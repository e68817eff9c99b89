"""M-ConFIG against its definition in float64, and what a step of it costs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax.training import estimate, make_train_step

RNG = np.random.default_rng(0)
JACOBIANS = RNG.normal(size=(9, 3, 7))


def config(rows):
  """ConFIG by a pseudo-inverse of the gradients themselves."""
  unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
  b = np.linalg.pinv(unit) @ np.ones(len(rows))
  b = b / np.linalg.norm(b)
  return (rows @ b).sum() * b


def by_hand(jacobians, b1, b2):
  """The authors' operator, its pseudo-gradients and its steps."""
  num_tasks, size = jacobians.shape[1:]
  m, n = np.zeros((num_tasks, size)), np.zeros(num_tasks)
  last, s, t = np.zeros(size), np.zeros(size), 0
  gradients, steps = [], []
  for k, jacobian in enumerate(jacobians):
    due = k % num_tasks
    m[due] = b1 * m[due] + (1 - b1) * jacobian[due]
    n[due] += 1
    if not n.all():
      gradients.append(np.zeros(size))
      continue
    t += 1
    d = config(m / (1 - b1**n)[:, None])
    first = d * (1 - b1**t)
    gradients.append((first - b1 * last) / (1 - b1))
    last = first
    s = b2 * s + (1 - b2) * gradients[-1] ** 2
    steps.append(d / (np.sqrt(s / (1 - b2**t)) + 1e-8))
  return np.stack(gradients), np.stack(steps)


def updates_of(tx, jacobians, masks=None):
  state, out = tx.init(jnp.zeros(jacobians.shape[2:])), []
  update = jax.jit(lambda g, s, mask: tx.update(g, s, task_mask=mask))
  for k, jacobian in enumerate(jacobians):
    mask = np.ones(len(jacobian), bool) if masks is None else masks[k]
    found, state = update(jnp.asarray(jacobian), state, mask)
    out.append(found)
  return np.stack(out), state


@pytest.mark.parametrize('b1', [0.0, 0.9])
def test_by_the_authors_operator(b1, x64):
  """With the Adam that the pseudo-gradients are made for."""
  found, _ = updates_of(mtl.m_config(3, b1=b1), JACOBIANS)
  gradients, steps = by_hand(JACOBIANS, b1, 0.99)
  np.testing.assert_allclose(found, gradients, rtol=1e-8, atol=1e-12)
  adam = optax.scale_by_adam(b1=b1, b2=0.99, eps=1e-8)
  state = adam.init(jnp.zeros(7))
  for gradient, step in zip(found[2:], steps, strict=True):
    out, state = adam.update(jnp.asarray(gradient), state)
    np.testing.assert_allclose(out, step, rtol=1e-7)


def test_the_gramian_that_is_kept_is_that_of_the_averages(x64):
  tx = mtl.m_config(3)
  _, state = updates_of(tx, JACOBIANS)
  averages = state.method_state.averages[0]
  np.testing.assert_allclose(
    state.method_state.products, averages @ averages.T, rtol=1e-12
  )


def test_an_absent_task_waits_and_is_not_in_the_update(x64):
  masks = np.ones((9, 3), bool)
  masks[:, 1] = False
  poisoned = np.where(masks[:, :, None], JACOBIANS, np.nan)
  found, state = updates_of(mtl.m_config(3), poisoned, masks)
  small, _ = updates_of(mtl.m_config(2), JACOBIANS[:, [0, 2]])
  np.testing.assert_allclose(found, small, rtol=1e-9)
  np.testing.assert_array_equal(state.method_state.counts, [5, 0, 4])
  masks[5] = True  # back: it has waited longest
  found, state = updates_of(mtl.m_config(3), JACOBIANS, masks)
  assert state.method_state.turns[1] == 6
  nobody, after = mtl.m_config(3).update(
    jnp.asarray(JACOBIANS[0]), state, task_mask=jnp.zeros(3, bool)
  )
  assert not np.any(nobody)
  np.testing.assert_array_equal(
    after.method_state.counts, state.method_state.counts
  )


def test_only_the_task_due_is_read(x64):
  bad = JACOBIANS.copy()
  for k in range(9):
    bad[k, (k + 1) % 3] = np.nan
  found, _ = updates_of(mtl.m_config(3), bad)
  expected, _ = updates_of(mtl.m_config(3), JACOBIANS)
  np.testing.assert_array_equal(found, expected)


def test_a_bad_gradient_is_seen_and_leaves_no_trace(x64):
  bad = JACOBIANS.copy()
  bad[4, 1, 0] = np.inf
  found, state = updates_of(mtl.m_config(3), bad)
  assert np.all(np.isnan(found[4]))
  assert np.all(np.isfinite(np.delete(found, 4, axis=0)))
  np.testing.assert_array_equal(state.method_state.counts, [3, 2, 3])
  leaves = [x for x in jax.tree.leaves(state) if x.dtype.kind == 'f']
  assert all(np.all(np.isfinite(x)) for x in leaves)


def losses_of(form):
  def plain(params, x):
    z = jnp.tanh(x @ params['w'])
    return jnp.stack(
      [jnp.mean((z @ params[k] - i) ** 2) for i, k in enumerate('ab')]
    )

  if form == 'plain':
    return plain
  if form == 'sequence':
    return [lambda p, x, i=i: plain(p, x)[i] for i in range(2)]
  head = lambda i: lambda p, z, x: jnp.mean((z @ p['ab'[i]] - i) ** 2)
  return mtl.Staged(lambda p, x: jnp.tanh(x @ p['w']), [head(0), head(1)])


def steps_of(form, route, nonfinite='propagate'):
  labels = {'w': 'shared', 'a': 0, 'b': 1}
  rng = np.random.default_rng(1)
  params = {
    'w': jnp.asarray(rng.normal(size=(4, 3))),
    'a': jnp.asarray(rng.normal(size=3)),
    'b': jnp.asarray(rng.normal(size=3)),
  }
  method = mtl.m_config(2, labels=labels, nonfinite=nonfinite)
  init, step, found = make_train_step(
    method, optax.adam(0.1), losses_of(form), route=route
  )
  state = init(params, key=jax.random.key(0))
  x = jnp.asarray(rng.normal(size=(8, 4)))
  for _ in range(4):
    state, _ = step(state, (x, x) if form == 'sequence' else x)
  return state.params, found


@pytest.mark.parametrize('form', ['plain', 'staged', 'sequence'])
def test_one_backward_pass_is_the_jacobian_route(form, x64):
  one, route = steps_of(form, 'auto')
  all_of_them, other = steps_of(form, 'jacobian')
  assert (route, other) == ('losses', 'jacobian')
  for name, value in one.items():
    np.testing.assert_allclose(value, all_of_them[name], rtol=1e-9)


def test_dropping_a_bad_task_needs_all_gradients(x64):
  assert steps_of('plain', 'auto', 'drop_task')[1] == 'jacobian'


def test_the_forecast_says_why_it_takes_one_pass():
  found = estimate(
    mtl.m_config(2),
    lambda w, x: jnp.stack(
      [jnp.mean((x @ w) ** 2), jnp.mean((x @ w - 1) ** 2)]
    ),
    jnp.ones(3),
    jnp.ones((4, 3)),
  )
  assert found.route == 'losses'
  assert 'one task a step' in found.why and not found.bound


def flops(method, num_tasks, width=64):
  loss = lambda w, x: jnp.mean((jnp.tanh(x @ w[0]) @ w[1]) ** 2, axis=0)
  init, step, _ = make_train_step(
    method, optax.adam(1e-3), loss, num_tasks=num_tasks
  )
  params = [jnp.ones((width, width)), jnp.ones((width, num_tasks))]
  state = init(params, key=jax.random.key(0))
  compiled = step.lower(state, jnp.ones((2048, width))).compile()
  return compiled.cost_analysis()['flops']


def test_a_step_has_the_work_of_a_plain_one():
  plain = flops(mtl.weightings.sum_losses(), 6)
  assert flops(mtl.m_config(6), 6) < 1.1 * plain
  assert flops(mtl.moco(6), 6) > 2 * plain


def test_scales_of_losses_change_more_than_the_length(x64):
  """In the first update they do not: there is no average before it."""
  scale = np.array([10.0, 0.1, 3.0])[:, None]
  found, _ = updates_of(mtl.m_config(3), JACOBIANS)
  scaled, _ = updates_of(mtl.m_config(3), JACOBIANS * scale)
  cosines = (
    np.sum(found * scaled, 1)[2:]
    / (np.linalg.norm(found, axis=1) * np.linalg.norm(scaled, axis=1))[2:]
  )
  np.testing.assert_allclose(cosines[0], 1, rtol=1e-9)
  assert np.all(cosines[1:] < 1 - 1e-6)
  assert mtl.m_config(3).invariance == 'none'


def test_is_linear_in_a_common_factor(x64):
  found, _ = updates_of(mtl.m_config(3), JACOBIANS)
  scaled, _ = updates_of(mtl.m_config(3), 1e3 * JACOBIANS)
  np.testing.assert_allclose(scaled, 1e3 * found, rtol=1e-8)

"""LDC-MTL and CoBa against their formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax._types import TaskStats
from mtljax.training import make_train_step
from mtljax.weightings import coba, ldc_mtl

RNG = np.random.default_rng(0)
LOSSES = RNG.uniform(0.2, 3.0, size=(14, 4))


def softmax(x):
  x = np.exp(x - np.max(x))
  return x / x.sum()


def sequence(weighting, losses, masks=None):
  """The weights of every step, and the last state."""
  masks = np.ones(losses.shape, bool) if masks is None else masks

  def step(state, inputs):
    losses, mask = inputs
    weights, state = weighting.update(
      TaskStats(losses=losses, mask=mask), state
    )
    return state, weights

  inputs = jnp.asarray(losses), jnp.asarray(masks)
  state, weights = jax.jit(lambda *a: jax.lax.scan(step, *a))(
    weighting.init(losses.shape[1]), inputs
  )
  return np.asarray(weights), state


def ldc_by_hand(losses, strength, rate, first):
  """Weights of every step, by the objective's derivatives and Adam."""
  scale = first.min() / first
  logits, m, v, out = np.zeros(4), np.zeros(4), np.zeros(4), []
  for k, row in enumerate(losses, 1):
    z, terms = softmax(logits), softmax(logits) * row * scale
    signs = np.sign(-np.diff(terms))
    slopes = np.append(signs, 0) - np.append(0, signs)
    out.append(z * scale * (1 + strength * slopes))
    rise = row * scale * (1 + strength * slopes)
    g = z * (rise - z @ rise)
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    step = m / (1 - 0.9**k) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)
    logits = logits - rate * step
  return np.stack(out)


@pytest.mark.parametrize('normalize', ['initial', 'none'])
@pytest.mark.parametrize('strength', [0.0, 0.3, 0.5])
def test_ldc_by_the_formula(normalize, strength, x64):
  weighting = ldc_mtl(strength=strength, normalize=normalize, learning_rate=0.2)
  weights, _ = sequence(weighting, LOSSES)
  first = LOSSES[0] if normalize == 'initial' else np.ones(4)
  expected = ldc_by_hand(LOSSES, strength, 0.2, first)
  np.testing.assert_allclose(weights, expected, rtol=1e-9)
  assert np.all(weights >= 0)


def test_ldc_descends_the_objective_of_its_losses(x64):
  """Its weights are derivatives of it, its Adam sees that of the logits."""
  logits, rows = jnp.asarray(RNG.normal(size=4)), jnp.asarray(LOSSES[0])
  objective = lambda losses, logits: jnp.sum(
    mtl.ldc_losses(losses, logits, strength=0.3)
  )
  by_losses, by_logits = jax.grad(objective, (0, 1))(rows, logits)
  weighting = ldc_mtl(strength=0.3, normalize='none')
  state = weighting.init(4)._replace(logits=logits)
  weights, state = weighting.update(TaskStats(losses=rows), state)
  np.testing.assert_allclose(weights, by_losses, rtol=1e-12)
  seen = state.optimizer_state.mu
  np.testing.assert_allclose(seen, 0.1 * by_logits, rtol=1e-9)


def test_ldc_with_a_router_is_one_program_with_the_model(x64):
  """Router and trunk by `sum_losses` descend the total."""
  x = jnp.asarray(RNG.normal(size=(8, 3)))
  w, router = jnp.asarray(RNG.normal(size=(3, 3))), jnp.zeros((3, 2))

  def task_losses(params, batch):
    z = jnp.tanh(batch @ params['w'])
    losses = jnp.stack([jnp.mean(z**2), jnp.mean((z - 1) ** 2)])
    return mtl.ldc_losses(losses, z.mean(0) @ params['router'], strength=0.2)

  init, step, route = make_train_step(
    mtl.weightings.sum_losses(), optax.sgd(1.0), task_losses, num_tasks=2
  )
  params = {'w': w, 'router': router}
  after, _ = step(init(params, key=jax.random.key(0)), x)
  grads = jax.grad(lambda p: jnp.sum(task_losses(p, x)))(params)
  assert route == 'losses' and float(jnp.abs(grads['router']).max()) > 0
  for name, grad in grads.items():
    np.testing.assert_allclose(
      after.params[name], params[name] - grad, rtol=1e-9
    )


def test_ldc_lowers_the_discrepancy_more_with_more_strength(x64):
  def spread(strength):
    loss = lambda p, _: jnp.stack([(p[0] - 1) ** 2, 20 * (p[1] - 1) ** 2 + 1])
    weighting = ldc_mtl(strength=strength, normalize='none')
    init, step, _ = make_train_step(
      weighting, optax.sgd(0.005), loss, num_tasks=2
    )
    state = init(jnp.zeros(2), key=jax.random.key(0))
    for _ in range(100):
      state, metrics = step(state, 0.0)
    terms = jax.nn.softmax(state.method_state.weighting_state.logits)
    terms = terms * metrics['losses']
    return float(jnp.abs(terms[0] - terms[1]))

  assert spread(0.4) < spread(0.0)


def test_ldc_losses_refuses_by_name():
  with pytest.raises(ValueError, match=r'logits \(8, 2\).*pool'):
    mtl.ldc_losses(jnp.ones(2), jnp.ones((8, 2)))
  with pytest.raises(ValueError, match='strength=-1'):
    mtl.ldc_losses(jnp.ones(2), jnp.ones(2), strength=-1)
  with pytest.raises(ValueError, match='initial_losses'):
    mtl.ldc_losses(jnp.ones(2), jnp.ones(2), initial_losses=[1.0])


def slope(y):
  return np.polyfit(np.arange(len(y)), y, 1)[0]


def coba_by_hand(losses, window, warmup, tau, min_share, sharpen):
  losses = losses / losses[0]
  num_tasks, slopes, tops, out = losses.shape[1], [], [], []
  for k in range(1, len(losses) + 1):
    if k < warmup:
      out.append(np.full(num_tasks, 1 / num_tasks))
      continue
    recent = losses[max(0, k - window) : k]
    slopes.append([slope(y) for y in recent.T])
    tops.append(slope(recent.max(1)))
    past, top = np.array(slopes[-window:]), np.array(tops[-window:])
    n, now = len(past), past[-1]
    rcs = softmax(num_tasks * now / np.abs(now).sum())
    acs = softmax(-n * now / np.abs(past).sum(0))
    factor = n * softmax(-tau * n * top / np.abs(top).sum())[-1]
    if not sharpen:
      factor = min(factor, 1)
    weights = factor * rcs + (1 - factor) * acs
    if sharpen:
      weights = softmax(num_tasks * weights)
    if weights.min() < min_share / num_tasks:
      weights = weights * (1 - min_share) + min_share / num_tasks
    out.append(weights)
  return np.stack(out)


@pytest.mark.parametrize('sharpen', [False, True])
@pytest.mark.parametrize('window, warmup', [(4, 3), (20, 2), (3, 5)])
def test_coba_by_the_formula(window, warmup, sharpen, x64):
  weighting = coba(
    window=window,
    warmup_steps=warmup,
    temperature=0.5,
    min_share=0.6,
    sharpen=sharpen,
  )
  weights, _ = sequence(weighting, LOSSES)
  expected = coba_by_hand(LOSSES, window, warmup, 2.0, 0.6, sharpen)
  np.testing.assert_allclose(weights, expected, rtol=1e-8)
  np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-12)
  assert weights.min() >= 0.6 / 4 * (1 - 1e-12)


def test_coba_gives_the_slower_task_more(x64):
  steps = np.arange(10.0)[:, None]
  falling = np.exp(-steps * np.array([0.01, 0.3]))
  weights, _ = sequence(coba(warmup_steps=3), falling)
  assert np.all(weights[2:, 0] > weights[2:, 1])


@pytest.mark.parametrize('jit', [False, True])
def test_coba_on_validation_losses_is_that_on_training_losses(jit, x64):
  """The same losses, shown from outside to the train step's state."""
  loss = lambda p, batch: jnp.stack([jnp.sum((p - b) ** 2) for b in batch])
  method = mtl.coba(num_tasks=2, source='validation', warmup_steps=2)
  init, step, route = make_train_step(method, optax.sgd(0.1), loss)
  state = init(jnp.zeros(3), key=jax.random.key(0))
  show = mtl.observe_validation
  show = jax.jit(show) if jit else show
  seen = []
  for row in LOSSES[:, :2]:
    state, metrics = step(show(jnp.asarray(row), state), jnp.ones(2))
    seen.append(metrics['weights'])
  expected, _ = sequence(coba(warmup_steps=2), LOSSES[:, :2])
  assert route == 'losses'
  np.testing.assert_allclose(np.stack(seen), expected, rtol=1e-12)


def test_coba_on_validation_losses_without_a_task_or_bad(x64):
  tx = mtl.coba(num_tasks=3, source='validation', warmup_steps=2)
  state = tx.init(jnp.zeros(2))
  for row in ([1.0, np.nan, 2.0], [0.5, np.nan, 1.5]):
    state = mtl.observe_validation(row, state)
  history = state.weighting_state.history
  np.testing.assert_array_equal(history.seen, [2, 0, 2])
  bad = mtl.observe_validation([0.1, 1.0, np.inf], state)
  for old, new in zip(
    jax.tree.leaves(state), jax.tree.leaves(bad), strict=True
  ):
    np.testing.assert_array_equal(old, new)
  _, state = tx.update(jnp.ones((3, 2)), state)
  weights = mtl.get_weights(state)
  np.testing.assert_allclose(weights[1], 1 / 3)
  np.testing.assert_allclose(weights.sum(), 1)


def test_observe_validation_refuses_by_name():
  tx = mtl.coba(num_tasks=2, source='validation')
  with pytest.raises(ValueError, match=r'losses has shape \(3,\).*\(2,\)'):
    mtl.observe_validation(jnp.ones(3), tx.init(jnp.zeros(2)))
  for other in (mtl.coba(num_tasks=2), mtl.mgda(num_tasks=2)):
    with pytest.raises(ValueError, match="source='validation'"):
      mtl.observe_validation(jnp.ones(2), other.init(jnp.zeros(2)))


MAKES = {
  'coba': lambda: coba(warmup_steps=3, window=4),
  'coba sharpened': lambda: coba(warmup_steps=3, window=4, sharpen=True),
  'ldc_mtl': ldc_mtl,
}
EVERY = pytest.mark.parametrize('make', MAKES.values(), ids=MAKES)


@EVERY
def test_absent_tasks_leave_the_smaller_problem(make, x64):
  present = np.array([True, False, True, True])
  masks = np.tile(present, (len(LOSSES), 1))
  poisoned = np.where(masks, LOSSES, np.nan)
  weights, state = sequence(make(), poisoned, masks)
  small, _ = sequence(make(), LOSSES[:, present])
  np.testing.assert_allclose(weights[:, present], small, rtol=1e-9)
  assert not np.any(weights[:, 1])
  assert not state.first[1]


@EVERY
def test_a_bad_step_leaves_no_trace(make, x64):
  bad = np.insert(LOSSES, 5, np.nan, axis=0)
  bad[5, 0] = 1.0
  weights, state = sequence(make(), bad)
  good, same = sequence(make(), LOSSES)
  assert np.all(np.isnan(weights[5]))
  np.testing.assert_allclose(np.delete(weights, 5, axis=0), good, rtol=1e-12)
  for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(same), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-12)

"""Methods that need the gradients: golden values, facts, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax.aggregators import _graddrop, _trimmed_mean
from mtljax.training import make_train_step


def step(tx, jacobian, state=None, **extra):
  jacobian = jnp.asarray(jacobian)
  params = jnp.zeros(jacobian.shape[1:], jacobian.dtype)
  state = tx.init(params) if state is None else state
  return tx.update(jacobian, state, params, **extra)


def batches(golden, name):
  """The cases with one T in one array, padded with zero coordinates."""
  found = [k.split('/')[0] for k in golden if k.endswith(f'/{name}')]
  assert len(found) >= 10
  groups = {}
  for case in found:
    groups.setdefault(len(golden[f'{case}/J']), []).append(case)
  for num_tasks, group in groups.items():
    padded = np.zeros((len(group), num_tasks, 100))
    for row, case in zip(padded, group, strict=True):
      jacobian = golden[f'{case}/J']
      row[:, : jacobian.shape[1]] = jacobian
    yield num_tasks, group, jnp.asarray(padded)


def near(found, expected, case):
  found = found[: len(expected)]
  scale = np.max(np.abs(expected), initial=0)
  np.testing.assert_allclose(
    found, expected, rtol=1e-10, atol=1e-12 * scale, err_msg=case
  )


@pytest.mark.parametrize('name', ['GradDrop', 'GradDrop(leak=pref)'])
def test_graddrop_is_torchjds_for_the_same_numbers(name, golden, x64):
  half = jnp.full(100, 0.5)
  for num_tasks, group, stack in batches(golden, f'{name}@u0.5'):
    leaks = np.zeros((len(group), num_tasks))
    if 'pref' in name:
      leaks = np.stack([golden[f'{case}/pref'] for case in group])
    drop = jax.jit(jax.vmap(lambda j, leak: _graddrop._drop(j, half, leak)))
    # At P = U exactly TorchJD drops both signs, here the negative is kept.
    size = np.abs(stack).sum(1)
    purity = 0.5 * (1 + stack.sum(1) / np.where(size == 0, 1, size))
    decided = np.abs(purity - 0.5) > 1e-12
    found = drop(stack, leaks)
    for out, keep, case in zip(found, decided, group, strict=True):
      expected = golden[f'{case}/{name}@u0.5']
      keep = keep[: len(expected)]
      near(out[: len(expected)][keep], expected[keep], case)


def test_graddrop_is_unbiased_for_its_expectation(golden):
  """The mean over 4,000 keys, within five standard errors."""
  for case in ('normal_T3_P7_s0', 'conflict_T2_P20_s0'):
    jacobian = golden[f'{case}/J'].astype(np.float32)
    tx = mtl.graddrop(len(jacobian))

    def draw(key, tx=tx, jacobian=jacobian):
      state = tx.init(None)
      inner = state.method_state._replace(rng_key=key)
      return step(tx, jacobian, state._replace(method_state=inner))[0]

    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = np.asarray(jax.jit(jax.vmap(draw))(keys), np.float64)
    error = drawn.mean(0) - golden[f'{case}/GradDrop@expected']
    bound = 5 * drawn.std(0) / np.sqrt(len(drawn)) + 1e-5
    assert np.all(np.abs(error) < bound), case


def test_graddrop_draws_anew_each_step_and_keeps_one_sign():
  tx = mtl.graddrop(2, key=3)
  jacobian = np.stack([np.ones(200), -np.ones(200)]).astype(np.float32)
  first, state = step(tx, jacobian)
  second, _ = step(tx, jacobian, state)
  assert set(np.unique(first)) == {-1.0, 1.0}
  assert 60 < np.sum(first > 0) < 140
  assert np.any(first != second)


def test_graddrop_leak_one_is_the_sum():
  jacobian = jax.random.normal(jax.random.key(0), (3, 50))
  out, _ = step(mtl.graddrop(3, leak=1.0), jacobian)
  np.testing.assert_allclose(out, jacobian.sum(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('trim', [1, 2])
def test_trimmed_mean_is_torchjds(trim, golden, x64):
  name = f'TrimmedMean(trim_number={trim})'
  for num_tasks, group, stack in batches(golden, name):
    tx = mtl.trimmed_mean(num_tasks, trim=trim)
    found = jax.jit(jax.vmap(lambda j, tx=tx: step(tx, j)[0]))(stack)
    for out, case in zip(found, group, strict=True):
      near(out, golden[f'{case}/{name}'], case)


@pytest.mark.parametrize('num_tasks', [1, 2, 3, 5, 8, 10, 17])
def test_every_trim_is_the_mean_of_the_sorted_middle(num_tasks):
  rows = np.random.default_rng(num_tasks).normal(size=(num_tasks, 30))
  rows = rows.astype(np.float32)
  ordered = np.sort(rows, axis=0)
  for trim in range((num_tasks + 1) // 2):
    expected = ordered[trim : num_tasks - trim].mean(0)
    for pairs in (
      _trimmed_mean._merge_exchange(num_tasks),
      _trimmed_mean._selection(num_tasks, trim),
    ):
      found = _trimmed_mean._exchanged(rows, pairs)[trim : num_tasks - trim]
      np.testing.assert_allclose(
        np.mean(found, axis=0), expected, rtol=1e-5, atol=1e-6
      )


def test_trimmed_mean_loses_nothing_to_an_outlier():
  rows = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32)
  clean, _ = step(mtl.trimmed_mean(5, trim=1), rows)
  rows[np.argmax(rows, axis=0), np.arange(40)] = 1e30
  out, _ = step(mtl.trimmed_mean(5, trim=1), rows)
  np.testing.assert_array_equal(out, clean)
  rows[rows == 1e30] = np.inf
  out, _ = step(mtl.trimmed_mean(5, trim=1), rows)
  np.testing.assert_array_equal(out, clean)


def test_trimmed_mean_without_absent_tasks_or_their_median():
  rows = np.random.default_rng(1).normal(size=(6, 20)).astype(np.float32)
  tx = mtl.trimmed_mean(6, trim=2)
  for present in ([0, 1, 2, 4, 5], [1, 2, 5], [0, 3], [4]):
    mask = jnp.zeros(6, bool).at[jnp.array(present)].set(True)
    out, _ = step(tx, np.where(mask[:, None], rows, np.nan), task_mask=mask)
    ordered = np.sort(rows[present], axis=0)
    cut = min(2, (len(present) - 1) // 2)
    expected = ordered[cut : len(present) - cut].mean(0)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)
  rows[0, 3] = np.nan
  out, _ = step(tx, rows)
  assert np.flatnonzero(np.isnan(out)).tolist() == [3]


def test_excess_mtl_is_torchjds(golden, x64):
  name = 'ExcessMTL:w'
  for num_tasks, group, stack in batches(golden, name):
    tx = mtl.excess_mtl(num_tasks, learning_rate=1.0, first_step='absolute')
    run = jax.jit(jax.vmap(lambda j, tx=tx: step(tx, j)))
    found, state = run(stack)
    for w, case in zip(mtl.get_weights(state), group, strict=True):
      # They add 1e-7 under the root.
      np.testing.assert_allclose(
        w, golden[f'{case}/{name}'], rtol=1e-3, atol=1e-6, err_msg=case
      )
    expected = jnp.einsum('bt,btp->bp', mtl.get_weights(state), stack)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
  'name, kwargs',
  [
    ('ExcessMTL', dict(learning_rate=1.0)),
    (
      'ExcessMTL(robust_step_size=0.1,n_warmup_steps=2)',
      dict(learning_rate=0.1, warmup_steps=2),
    ),
  ],
)
def test_excess_mtl_over_steps_is_torchjds(name, kwargs, golden, x64):
  seen = 0
  for case in sorted({k.split('/')[0] for k in golden if k[:4] == 'seq_'}):
    num_tasks = len(golden[f'{case}/J0'])
    tx = mtl.excess_mtl(num_tasks, first_step='absolute', **kwargs)
    state = None
    for k in range(4):
      _, state = step(tx, golden[f'{case}/J{k}'], state)
      np.testing.assert_allclose(
        mtl.get_weights(state),
        golden[f'{case}/{name}@{k}:w'],
        rtol=1e-4,
        atol=1e-9,
        err_msg=f'{case} {k}',
      )
      seen += 1
  assert seen >= 8


def test_excess_mtl_prefers_the_task_with_excess_not_the_noisy_one():
  """A noisy loss at its optimum stays large; its excess risk falls."""
  rng = np.random.default_rng(0)
  tx = mtl.excess_mtl(2, learning_rate=0.1)
  state = None
  for _ in range(200):
    learnable = rng.normal(1.0, 0.1, size=20)  # points one way for ever
    noise = rng.normal(0.0, 0.1, size=20) * np.float32(0.1)
    rows = np.stack([learnable, noise]).astype(np.float32)
    _, state = step(tx, rows, state)
  relative = mtl.get_weights(state)
  assert np.all(np.isfinite(relative))
  # Scale-free: the weights are those of the same gradients times anything.
  rng = np.random.default_rng(0)
  state = None
  for _ in range(200):
    learnable = rng.normal(1.0, 0.1, size=20)
    noise = rng.normal(0.0, 0.1, size=20) * np.float32(0.1)
    rows = np.stack([1e3 * learnable, 1e-3 * noise]).astype(np.float32)
    _, state = step(tx, rows, state)
  np.testing.assert_allclose(mtl.get_weights(state), relative, rtol=1e-2)


def moco_by_hand(grads, beta, gamma, rho, projection):
  y, w = np.zeros(grads[0].shape), np.full(len(grads[0]), 1 / len(grads[0]))
  for k, g in enumerate(grads, start=1):
    y = y - beta(k) * (y - g)
    moved = w - gamma(k) * (y @ y.T @ w + rho * w)
    if projection == 'softmax':
      w = np.exp(moved - moved.max())
      w /= w.sum()
    else:
      low, high = moved.min() - 1, moved.max()
      for _ in range(200):
        middle = (low + high) / 2
        over = np.maximum(moved - middle, 0).sum() > 1
        low, high = (middle, high) if over else (low, middle)
      w = np.maximum(moved - high, 0)
  return w, w @ y


def test_moco_is_its_formula(x64):
  grads = np.random.default_rng(0).normal(size=(4, 3, 6))
  tx = mtl.moco(
    3,
    decay=0.5,
    gain_power=0.5,
    learning_rate=0.2,
    learning_rate_power=0.3,
    regularization=0.1,
  )
  state = None
  for g in grads:
    out, state = step(tx, g, state)
  w, expected = moco_by_hand(
    grads, lambda k: 0.5 / k**0.5, lambda k: 0.2 / k**0.3, 0.1, 'simplex'
  )
  np.testing.assert_allclose(mtl.get_weights(state), w, rtol=1e-8, atol=1e-10)
  np.testing.assert_allclose(out, expected, rtol=1e-8, atol=1e-10)


def test_moco_in_libmtls_form(x64):
  grads = np.random.default_rng(1).normal(size=(3, 2, 6))
  losses = np.array([[0.5, 2.0], [0.4, 1.0], [0.3, 3.0]])
  tx = mtl.moco(
    2, decay=0.5, gain_power=0.5, learning_rate_power=0.5,
    projection='softmax', normalize=True,
  )  # fmt: skip
  state = None
  for g, loss in zip(grads, losses, strict=True):
    out, state = step(tx, g, state, losses=jnp.asarray(loss))
  unit = grads / np.linalg.norm(grads, axis=-1, keepdims=True)
  w, expected = moco_by_hand(
    unit * losses[..., None],
    lambda k: 0.5 / k**0.5,
    lambda k: 0.1 / k**0.5,
    0.0,
    'softmax',
  )
  np.testing.assert_allclose(mtl.get_weights(state), w, rtol=1e-8)
  np.testing.assert_allclose(out, expected, rtol=1e-8, atol=1e-12)


def test_moco_is_less_biased_than_mgda_under_noise():
  """Its mean weights come nearer to those of the noiseless gradients."""
  rng = np.random.default_rng(0)
  clean = np.array([[1.0, 0.2], [-0.4, 1.5]], np.float32)
  noisy = clean + rng.normal(0, 1.5, size=(3000, 2, 2)).astype(np.float32)

  def run(tx):
    state = tx.init(jnp.zeros(2))

    def body(state, g):
      _, state = tx.update(g, state, jnp.zeros(2))
      return state, mtl.get_weights(state)

    return np.asarray(jax.lax.scan(body, state, noisy)[1])[1000:].mean(0)

  mgda = mtl.mgda(2)
  _, state = step(mgda, clean)
  target = mtl.get_weights(state)
  biased = np.abs(run(mgda) - target).max()
  tracked = np.abs(
    run(mtl.moco(2, decay=0.98, learning_rate=0.02)) - target
  ).max()
  assert tracked < 0.5 * biased


def test_db_mtl_is_its_formula(x64):
  rng = np.random.default_rng(0)
  grads = rng.normal(size=(3, 2, 6)) * np.array([1.0, 30.0])[:, None]
  losses = np.array([[0.5, 20.0], [0.3, 10.0], [0.2, 30.0]])
  tx = mtl.db_mtl(2, decay=0.9, decay_power=0.5)
  state, tracked = None, np.zeros((2, 6))
  for k, (g, loss) in enumerate(zip(grads, losses, strict=True), start=1):
    out, state = step(tx, g, state, losses=jnp.asarray(loss))
    beta = 0.9 / k**0.5
    tracked = beta * tracked + (1 - beta) * g / (loss + 1e-8)[:, None]
    norms = np.linalg.norm(tracked, axis=1)
    weights = norms.max() / norms
    np.testing.assert_allclose(mtl.get_weights(state), weights, rtol=1e-10)
    np.testing.assert_allclose(out, weights @ tracked, rtol=1e-10)


def test_db_mtl_without_average_is_scale_free_unit_gradients():
  jacobian = jax.random.normal(jax.random.key(0), (3, 8))
  losses = jnp.array([0.5, 3.0, 100.0])
  out, _ = step(mtl.db_mtl(3, decay=0.0), jacobian, losses=losses)
  scale = jnp.array([1e-3, 10.0, 1e4])
  scaled, _ = step(
    mtl.db_mtl(3, decay=0.0), jacobian * scale[:, None], losses=losses * scale
  )
  np.testing.assert_allclose(scaled, out, rtol=2e-4)


def test_db_mtl_heads_take_the_gradient_of_the_log_loss():
  labels = {'trunk': 'shared', 'head_0': 0, 'head_1': 1}
  grads = {k: jnp.ones(2) for k in labels} | {'trunk': jnp.ones((2, 3))}
  params = {k: jnp.zeros(2) for k in labels} | {'trunk': jnp.zeros(3)}
  losses = jnp.array([0.5, 4.0])
  tx = mtl.db_mtl(2, labels=labels)
  out, _ = tx.update(grads, tx.init(params), params, losses=losses)
  np.testing.assert_allclose(out['head_0'], 2.0, rtol=1e-6)
  np.testing.assert_allclose(out['head_1'], 0.25, rtol=1e-6)
  tx = mtl.db_mtl(2, labels=labels, weight_heads=False)
  out, _ = tx.update(grads, tx.init(params), params, losses=losses)
  np.testing.assert_array_equal(out['head_1'], 1.0)


def test_db_mtl_negative_loss_is_nan_and_the_state_stands_still():
  tx = mtl.db_mtl(2)
  _, before = step(tx, jnp.eye(2), losses=jnp.ones(2))
  out, state = step(tx, jnp.eye(2), before, losses=jnp.array([-1.0, 1.0]))
  assert np.all(np.isnan(out))
  np.testing.assert_array_equal(
    state.method_state.tracked[0], before.method_state.tracked[0]
  )


@pytest.mark.parametrize('name', ['excess_mtl', 'moco', 'db_mtl'])
def test_a_nan_or_an_absence_leaves_what_is_kept(name):
  tx = getattr(mtl, name)(2)
  losses = jnp.ones(2)
  _, before = step(tx, jnp.eye(2), losses=losses)
  rows = before.method_state[-1][0]
  _, state = step(tx, jnp.full((2, 2), jnp.nan), before, losses=losses)
  assert np.all(np.isnan(mtl.get_weights(state)))
  np.testing.assert_array_equal(state.method_state[-1][0], rows)
  mask = jnp.array([True, False])
  out, state = step(tx, 3 * jnp.eye(2), before, losses=losses, task_mask=mask)
  np.testing.assert_array_equal(state.method_state[-1][0][1], rows[1])
  assert np.any(state.method_state[-1][0][0] != rows[0])
  assert mtl.get_weights(state)[1] == 0
  assert out[1] == 0


NAMES = ['graddrop', 'trimmed_mean', 'excess_mtl', 'moco', 'db_mtl']


def task_losses(w, batch):
  return jnp.stack([jnp.sum((w - batch) ** 2), jnp.sum((w + 1) ** 2) + 1])


@pytest.mark.parametrize('name', NAMES)
def test_train_step_takes_the_jacobian_route(name):
  kwargs = {'trim': 0} if name == 'trimmed_mean' else {}
  method = getattr(mtl, name)(2, **kwargs)
  train = make_train_step(method, optax.adam(0.1), task_losses)
  assert train.route == 'jacobian'
  state = train.init(jnp.zeros(3), key=jax.random.key(0))
  first = None
  for _ in range(20):
    state, metrics = train.step(state, jnp.ones(3))
    first = metrics['losses'] if first is None else first
  assert np.all(np.isfinite(metrics['losses']))
  with pytest.raises(ValueError, match=f"route='gramian': {name}"):
    make_train_step(method, optax.adam(0.1), task_losses, route='gramian')
  with pytest.raises(ValueError, match='every'):
    make_train_step(method, optax.adam(0.1), task_losses, every=2)


@pytest.mark.parametrize(
  'call, error, message',
  [
    (lambda: mtl.graddrop(2, leak=1.5), ValueError, 'leak=1.5'),
    (lambda: mtl.graddrop(2, leak=[0.1, -0.2]), ValueError, 'leak=-0.2'),
    (lambda: mtl.graddrop(2, leak=[0.1] * 3), ValueError, r'leak.*\(3,\)'),
    (lambda: mtl.graddrop(2, weight_heads=True), ValueError, 'weight_heads'),
    (lambda: mtl.trimmed_mean(2, trim=1), ValueError, 'at least 3 tasks'),
    (lambda: mtl.trimmed_mean(4, trim=-1), ValueError, 'trim=-1'),
    (lambda: mtl.trimmed_mean(4, trim=1.0), ValueError, 'trim=1.0'),
    (
      lambda: mtl.excess_mtl(2, learning_rate=-1.0),
      ValueError,
      'learning_rate=-1.0',
    ),
    (lambda: mtl.excess_mtl(2, warmup_steps=-1), ValueError, 'warmup_steps=-1'),
    (lambda: mtl.excess_mtl(2, first_step='raw'), ValueError, "'raw'"),
    (lambda: mtl.excess_mtl(2).init(None), ValueError, 'init.params'),
    (lambda: mtl.moco(2, decay=1.0), ValueError, 'decay=1.0'),
    (lambda: mtl.moco(2, learning_rate=-0.1), ValueError, 'learning_rate=-0.1'),
    (lambda: mtl.moco(2, projection='l2'), ValueError, "projection='l2'"),
    (lambda: mtl.db_mtl(2, decay=1.0), ValueError, 'decay'),
    (lambda: step(mtl.db_mtl(2), jnp.eye(2)), TypeError, 'losses'),
    (
      lambda: step(mtl.moco(2, normalize=True), jnp.eye(2)),
      TypeError,
      'losses',
    ),
    (
      lambda: mtl.get_weights(mtl.graddrop(2).init(None)),
      ValueError,
      'gives none',
    ),
  ],
)
def test_bad_input(call, error, message):
  with pytest.raises(error, match=message):
    call()

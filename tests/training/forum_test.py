"""FORUM: against its formulas in numpy, its constraint, its cases."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax import solvers
from mtljax.training import TrainState, forum
from mtljax.training.step import _forum

T, D = 3, 4
RNG = np.random.default_rng(0)
CURVES = np.stack([x @ x.T / D for x in RNG.normal(size=(T, D, D))])
TRAIN, VAL = RNG.normal(size=(2, T, D))
START = RNG.normal(size=D)
RATES = {'learning_rate': 0.02, 'inner_learning_rate': 0.1}


def task_losses(w, centres):
  off = w[None] - centres
  curves = jnp.asarray(CURVES, w.dtype)
  return jnp.einsum('td,tde,te->t', off, curves, off) / 2


def losses_and_gradients(w, centres):
  off = w - centres
  rows = np.einsum('tde,te->td', CURVES, off)
  return (off * rows).sum(1) / 2, rows


def brute_force(rows, along, demand):
  """The dual's solution, by all sets of what is not 0."""
  size = len(rows)
  every = np.vstack([rows, along])
  best, found = np.inf, None
  for count in range(1, size + 1):
    for chosen in itertools.combinations(range(size), count):
      for active in ((), (size,)):
        free = [*chosen, *active]
        ones = np.array([float(i < size) for i in free])
        matrix = np.zeros((len(free) + 1, len(free) + 1))
        matrix[:-1, :-1] = every[free] @ every[free].T
        matrix[:-1, -1] = matrix[-1, :-1] = ones
        wanted = np.append([demand * (i == size) for i in free], 1)
        x = np.linalg.lstsq(matrix, wanted, rcond=None)[0][:-1]
        if x.min() < -1e-9 or abs(ones @ x - 1) > 1e-9:
          continue
        whole = np.zeros(size + 1)
        whole[free] = x
        value = ((whole @ every) ** 2).sum() / 2 - demand * whole[size]
        if value < best - 1e-12:
          best, found = value, whole
  return found


def units(x):
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize('size', [1, 2, 5])
def test_multipliers_are_those_of_all_sets_tried(x64, size):
  rng = np.random.default_rng(size)
  for demand in 3 * [0.0, 0.1, 1.0, 30.0]:
    rows, along = units(rng.normal(size=(size, 6))), units(rng.normal(size=6))
    shares, residual = _forum.multipliers(
      jnp.asarray(rows @ rows.T),
      jnp.ones(size, bool),
      jnp.asarray(rows @ along),
      jnp.asarray(demand),
    )
    wanted = brute_force(rows, along, demand)
    np.testing.assert_allclose(shares, wanted[:size], atol=1e-9)
    np.testing.assert_allclose(
      max(demand - wanted[:size] @ rows @ along, 0), wanted[size], atol=1e-8
    )
    assert residual < 1e-10


def test_multipliers_solve_the_problem_of_directions(x64):
  rng = np.random.default_rng(7)
  rows, along = units(rng.normal(size=(3, 2))), units(rng.normal(size=2))
  demand = 0.4
  shares, _ = _forum.multipliers(
    jnp.asarray(rows @ rows.T),
    jnp.ones(3, bool),
    jnp.asarray(rows @ along),
    jnp.asarray(demand),
  )
  mixed = np.asarray(shares) @ rows
  direction = -mixed - max(demand - mixed @ along, 0) * along

  def value(d):
    return (d @ rows.T).max(-1) + (d**2).sum(-1) / 2

  assert direction @ along <= -demand + 1e-9
  grid = np.stack(np.meshgrid(*[np.linspace(-2, 2, 801)] * 2), -1)
  grid = grid.reshape(-1, 2)
  grid = grid[grid @ along <= -demand]
  assert value(direction) <= value(grid).min() + 1e-9
  assert value(direction) >= value(grid).min() - 0.02


def test_float32_multipliers_of_forty_tasks():
  rng = np.random.default_rng(1)
  rows = units(rng.normal(size=(40, 60))).astype(np.float32)
  along = units(rng.normal(size=60)).astype(np.float32)
  found = _forum.multipliers(
    jnp.asarray(rows @ rows.T),
    jnp.ones(40, bool),
    jnp.asarray(rows @ along),
    jnp.float32(0.5),
  )
  assert found.residual < 1e-5
  np.testing.assert_allclose(found.shares.sum(), 1, atol=1e-5)


def softmax(x):
  e = np.exp(x - x.max())
  return e / e.sum()


class Reference:
  """The method by its formulas, with Adam and gradient descent."""

  def __init__(self, strictness, inner_steps, window, primary):
    self.strictness, self.inner_steps = strictness, inner_steps
    self.window, self.primary = window, primary
    self.w, self.learned = START.copy(), np.zeros(T)
    self.shares = np.zeros(T)
    self.first, self.second = np.zeros(T), np.zeros(T)
    self.count = 0

  def step(self, train, val, rate):
    weights = softmax(self.learned)
    losses, rows = losses_and_gradients(self.w, train)
    inner = self.w.copy()
    for _ in range(self.inner_steps):
      gradient = weights @ losses_and_gradients(inner, train)[1]
      inner = inner - RATES['inner_learning_rate'] * gradient
    gains = losses - losses_and_gradients(inner, train)[0]
    by_learned = weights * (gains - weights @ gains)
    q = np.concatenate([by_learned, weights @ rows])
    square = q @ q
    u = np.zeros((T, T + D))
    u[:, T:] = units(losses_and_gradients(self.w, val)[1])
    chosen = list(range(T)) if self.primary is None else self.primary
    length = np.sqrt(square)
    found = brute_force(u[chosen], q / length, self.strictness * length)
    wanted = np.zeros(T)
    wanted[chosen] = found[:-1]
    k = 1 + self.count // self.window
    self.shares += k**-0.75 * (wanted - self.shares)
    pi = self.strictness - u @ q / square
    multiplier = max(self.shares @ pi, 0)
    direction = self.shares @ u + multiplier * q
    self.w -= rate * direction[T:]
    self.count += 1
    g = direction[:T]
    self.first = 0.9 * self.first + 0.1 * g
    self.second = 0.999 * self.second + 0.001 * g**2
    m = self.first / (1 - 0.9**self.count)
    v = self.second / (1 - 0.999**self.count)
    self.learned -= RATES['learning_rate'] * m / (np.sqrt(v) + 1e-8)
    return multiplier, weights @ gains


def make(loss_fn=task_losses, optimizer=None, **options):
  optimizer = optax.sgd(0.1) if optimizer is None else optimizer
  return forum.make_forum_step(
    optimizer, loss_fn, **{'num_tasks': T} | RATES | options
  )


@pytest.mark.parametrize(
  'options',
  [
    {},
    {'strictness': 1.0, 'inner_steps': 2},
    {'primary': [2, 0], 'strictness': 0.5, 'window': 2},
  ],
  ids=str,
)
def test_steps_by_the_formulas(x64, options):
  wanted = Reference(
    **{'strictness': 0.1, 'inner_steps': 5, 'window': 1, 'primary': None}
    | options
  )
  program = make(**options)
  state = program.init(jnp.asarray(START), key=jax.random.key(0))
  for i in range(4):
    train, val = TRAIN + 0.1 * i, VAL - 0.1 * i
    multiplier, constraint = wanted.step(train, val, 0.1)
    state, metrics = program.step(
      state, jnp.asarray(train), val_batch=jnp.asarray(val)
    )
    np.testing.assert_allclose(metrics['multiplier'], multiplier, atol=1e-8)
    np.testing.assert_allclose(metrics['constraint'], constraint, atol=1e-10)
    np.testing.assert_allclose(metrics['shares'], wanted.shares, atol=1e-8)
  np.testing.assert_allclose(state.params, wanted.w, atol=1e-8)
  # Adam makes a step of what is little.
  np.testing.assert_allclose(
    state.method_state.learned, wanted.learned, atol=1e-6
  )
  assert state.method_state.residual < 1e-9


def run(program, steps, params=START, train=TRAIN, val=VAL):
  state = program.init(jnp.asarray(params, float), key=jax.random.key(0))
  found = []
  for _ in range(steps):
    state, metrics = program.step(
      state, jnp.asarray(train, float), val_batch=jnp.asarray(val, float)
    )
    found.append(metrics)
  return state, found


def test_the_constraint_falls():
  _, found = run(make(optimizer=optax.sgd(0.02), strictness=0.5), 400)
  values = [float(m['constraint']) for m in found]
  assert all(v >= -1e-6 for v in values)
  assert values[-1] < 0.02 * values[0]


def test_a_stricter_step_meets_the_constraint_better():
  ends = [
    float(run(make(strictness=s), 200)[1][-1]['constraint'])
    for s in (0.01, 1.0)
  ]
  assert ends[1] < 0.5 * ends[0]


def test_what_helps_primary_tasks_is_weighed_more():
  # Of the training tasks, the second is where the primary one has its
  # validation minimum, and the third far from it.
  train = np.stack([np.zeros(D), np.ones(D), -np.ones(D)])
  val = np.stack([np.ones(D), np.ones(D), -np.ones(D)])
  state, found = run(
    make(primary=[0], optimizer=optax.sgd(0.05), strictness=1.0),
    200,
    np.zeros(D),
    train,
    val,
  )
  weights = found[-1]['weights']
  assert weights[1] > 0.4 > weights[2] + 0.2
  assert found[-1]['val_losses'][0] < found[0]['val_losses'][0]


def test_forms_of_a_loss_agree(x64):
  staged = mtl.Staged(
    trunk=lambda w, centres: w,
    heads=[
      lambda w, z, centres, t=t: task_losses(z, centres)[t] for t in range(T)
    ],
  )
  sequence = [lambda w, c, t=t: task_losses(w, c)[t] for t in range(T)]
  plain = run(make(), 3)[0]
  as_staged = run(make(staged, num_tasks=None), 3)[0]
  as_sequence = run(
    make(sequence, num_tasks=None),
    3,
    train=np.broadcast_to(TRAIN, (T, T, D)),
    val=np.broadcast_to(VAL, (T, T, D)),
  )[0]
  for other in (as_staged, as_sequence):
    np.testing.assert_allclose(other.params, plain.params, atol=1e-12)
    np.testing.assert_allclose(
      other.method_state.learned, plain.method_state.learned, atol=1e-9
    )


def test_no_constraint_is_mgda_of_unit_gradients(x64):
  centres = np.zeros((T, D))
  state, found = run(make(), 1, np.zeros(D), train=centres)
  rows = units(losses_and_gradients(np.zeros(D), VAL)[1])
  wanted, _ = solvers.min_norm_simplex(jnp.asarray(rows @ rows.T))
  np.testing.assert_allclose(found[0]['shares'], wanted, atol=1e-9)
  np.testing.assert_allclose(state.params, -0.1 * wanted @ rows, atol=1e-9)
  assert found[0]['multiplier'] == 0
  np.testing.assert_array_equal(state.method_state.learned, np.zeros(T))


def test_a_task_without_a_gradient_does_not_count(x64):
  val = VAL.copy()
  val[1] = START
  shares = run(make(), 1, val=val)[1][0]['shares']
  assert shares[1] == 0
  np.testing.assert_allclose(shares.sum(), 1, atol=1e-12)
  everywhere = np.broadcast_to(START, (T, D))
  state, found = run(make(), 1, val=everywhere)
  np.testing.assert_array_equal(found[0]['shares'], np.zeros(T))
  rows = losses_and_gradients(START, TRAIN)[1]
  # The multiplier alone: strictness times the gradient of the lower level.
  np.testing.assert_allclose(
    state.params, START - 0.1 * 0.1 * rows.mean(0), atol=1e-10
  )


def test_nothing_that_is_not_finite_is_learned():
  program = make()
  state, _ = run(program, 2)
  before = jax.tree.map(np.asarray, state.method_state)
  bad = jnp.asarray(VAL, float).at[0].set(jnp.nan)
  state, _ = program.step(state, jnp.asarray(TRAIN, float), val_batch=bad)
  assert np.isnan(state.params).all()
  jax.tree.map(np.testing.assert_array_equal, before, state.method_state)


def test_one_trace():
  traces = []

  def counted(w, centres):
    traces.append(None)
    return task_losses(w, centres)

  program = make(counted)
  run(program, 1)
  first = len(traces)
  assert first
  run(program, 3)
  assert len(traces) == first


def test_what_a_step_refuses():
  program = make()
  state = program.init(jnp.asarray(START, float), key=jax.random.key(0))
  batch = jnp.asarray(TRAIN, float)
  with pytest.raises(ValueError, match='val_batch=None.*val_batch=val_batch'):
    program.step(state, batch)
  masked = mtl.MaskedBatch(batch, jnp.ones(T, bool))
  with pytest.raises(ValueError, match='^batch is a MaskedBatch'):
    program.step(state, masked, val_batch=batch)
  with pytest.raises(ValueError, match='val_batch is a MaskedBatch'):
    program.step(state, batch, val_batch=masked)
  with pytest.raises(TypeError, match='state is a dict'):
    program.step({}, batch, val_batch=batch)
  with pytest.raises(ValueError, match='model_state is not empty'):
    program.init(batch, key=jax.random.key(0), model_state={'mean': batch})
  assert isinstance(state, TrainState)


@pytest.mark.parametrize(
  'options, error, words',
  [
    ({'num_tasks': None}, ValueError, 'num_tasks=None.*pass num_tasks'),
    ({'primary': [3]}, ValueError, r'primary=\[3\]'),
    ({'primary': 1}, TypeError, 'primary=1'),
    ({'learning_rate': -1.0}, ValueError, 'learning_rate=-1.0'),
    ({'inner_learning_rate': -1.0}, ValueError, 'inner_learning_rate=-1.0'),
    ({'inner_steps': 0}, ValueError, 'inner_steps=0'),
    ({'strictness': -0.1}, ValueError, 'strictness=-0.1'),
    ({'window': 0}, ValueError, 'window=0'),
    ({'mode': 'both'}, ValueError, "mode='both'"),
    ({'optimizer': 0.1}, TypeError, 'optimizer=0.1'),
  ],
  ids=str,
)
def test_arguments_that_are_not_valid(options, error, words):
  with pytest.raises(error, match=words):
    make(**options)

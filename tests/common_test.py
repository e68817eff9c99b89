"""The common battery: one table, and what every method in it must do.

A new method joins with one row in `METHODS`. `claims` are properties that the
method promises; each is tested for the methods that declare it.
"""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax.training import Checkpointer


@dataclasses.dataclass(frozen=True)
class Method:
  """One row: a name, how to build it, and what it claims."""

  name: str
  kwargs: dict = dataclasses.field(default_factory=dict)
  per_task: tuple = ()  # keyword arguments that hold one number a task
  claims: frozenset = frozenset()

  def __call__(self, num_tasks, **options):
    kwargs = {k: v for k, v in self.kwargs.items()}
    for k in self.per_task:
      kwargs[k] = kwargs[k][:num_tasks]
    return getattr(mtl, self.name)(num_tasks, **kwargs, **options)


def method(name, claims='', per_task=(), **kwargs):
  return Method(name, kwargs, per_task, frozenset(claims.split()))


FIXED = tuple(np.linspace(0.5, 2.0, 64).tolist())
REFERENCE = tuple(np.linspace(-0.5, 0.2, 64).tolist())
# equivariant: permuting tasks permutes weights
# non_conflicting: no task's loss rises to first order
# stationary: the update is zero where a convex combination of gradients is
# linear: scaling all gradients scales the update
METHODS = [
  method('sum_losses', 'equivariant linear'),
  method('mean', 'equivariant linear'),
  method('fixed', 'linear', per_task=('weights',), weights=FIXED),
  method('rlw'),
  method('rlw', distribution='dirichlet'),
  method('uncertainty', 'equivariant'),
  method('uw_o', 'equivariant linear'),
  method('uw_so', 'equivariant linear'),
  method('dwa', 'equivariant linear', window=1),
  method('geometric', 'equivariant linear'),
  method('stch', 'equivariant linear'),
  method(
    'stch',
    'linear',
    per_task=('preference', 'reference'),
    preference=FIXED,
    reference=REFERENCE,
  ),
  method('stch', 'equivariant linear', warmup_steps=2),
  method('bmtl', 'equivariant linear', temperature=5.0),
  method('bmtl', 'equivariant linear', normalize=True),
  method('famo', 'equivariant linear'),
  method('famo', 'linear', per_task=('min_losses',), min_losses=REFERENCE),
  method('slaw', 'equivariant linear'),
  method('go4align', 'equivariant linear'),
  method('imtl_l', 'equivariant linear'),
  method('imtl', 'equivariant linear'),
  method(
    'pivrg', 'equivariant non_conflicting', per_task=('scores',), scores=FIXED
  ),
  method('pcgrad', 'linear'),
  method('gradvac', 'linear'),
  method('aligned_mtl', 'equivariant linear'),
  method('aligned_mtl', 'equivariant linear', scale_mode='median'),
  method('aligned_mtl', 'equivariant linear', scale_mode='mean'),
  method('upgrad', 'equivariant non_conflicting linear'),
  method(
    'upgrad',
    'non_conflicting linear',
    per_task=('preference',),
    preference=FIXED,
  ),
  method('dual_proj', 'equivariant non_conflicting linear'),
  method('conflict_free', 'equivariant linear'),
  method('pcd'),
  method('krum', 'equivariant linear', num_byzantine=0, num_selected=2),
  method('slw', 'equivariant linear'),
  method('emtl', 'equivariant linear'),
  method('emtl', 'equivariant linear', form='soft'),
  method('gradnorm', 'equivariant linear'),
  method('mgda', 'equivariant non_conflicting stationary linear'),
  method('mgda', 'equivariant', normalize='loss+'),
  method('cagrad', 'equivariant linear'),
  method('cagrad', 'equivariant linear', rescale='c_squared'),
  method('imtl_g', 'equivariant linear'),
  method('nash_mtl', 'equivariant non_conflicting'),
  method('fairgrad', 'equivariant non_conflicting'),
  method('fairgrad', 'equivariant non_conflicting', alpha=1.0),
]
# The plumbing is the same for every variant of a method, so it is tested once.
FIRST = list({m.name: m for m in reversed(METHODS)}.values())[::-1]
ALL = pytest.mark.parametrize('m', FIRST, ids=lambda m: m.name)
VARIANTS = pytest.mark.parametrize('m', METHODS, ids=lambda m: m.name)


def claiming(claim):
  chosen = [m for m in METHODS if claim in m.claims]
  return pytest.mark.parametrize('m', chosen, ids=lambda m: m.name)


LABELS = {'trunk': 'shared', 'heads_0': 0, 'heads_1': 1, 'fused': 'stacked'}


def make_params(dtype=jnp.float32):
  return {
    'trunk': {'w': jnp.ones((3, 4), dtype), 'b': jnp.zeros(4, dtype)},
    'heads_0': jnp.ones(2, dtype),
    'heads_1': jnp.ones((2, 2), dtype),
    'fused': jnp.ones((2, 3), dtype),
  }


def make_grads(seed=0, dtype=jnp.float32):
  """Gradients of two tasks for `make_params`, conflicting mildly."""
  keys = iter(jax.random.split(jax.random.key(seed), 8))

  def one(p, label):
    shape = (2, *p.shape) if label == 'shared' else p.shape
    return jax.random.normal(next(keys), shape, jnp.float32).astype(dtype)

  params = make_params()
  labels = jax.tree.broadcast(LABELS, params)
  return jax.tree.map(one, params, labels)


LOSSES = jnp.array([0.7, 2.0])


def run(tx, steps=3, dtype=jnp.float32, update=None):
  params = make_params(dtype)
  state = tx.init(params)
  update = update or tx.update
  out = None
  for i in range(steps):
    out, state = update(make_grads(i, dtype), state, params, losses=LOSSES)
  return out, state


def rows(tx, jacobian, losses=None, steps=1):
  """The update, and the weights, for the rows of a matrix."""
  jacobian = jnp.asarray(jacobian)
  params = jnp.zeros(jacobian.shape[1:], jacobian.dtype)
  if losses is None:
    losses = jnp.ones(jacobian.shape[0], jacobian.dtype)
  state = tx.init(params)
  for _ in range(steps):
    out, state = tx.update(jacobian, state, params, losses=losses)
  return out, mtl.get_weights(state)


@ALL
def test_unknown_extra_args_are_ignored(m):
  tx = m(2, labels=LABELS)
  params = make_params()
  out, _ = tx.update(
    make_grads(), tx.init(params), params, losses=LOSSES, surprise=1, value=2.0
  )
  chex.assert_trees_all_equal_shapes_and_dtypes(out, params)


@ALL
def test_one_trace(m):
  tx = m(2, labels=LABELS)
  traces = []

  def counted(*args, **kwargs):
    traces.append(1)
    return tx.update(*args, **kwargs)

  run(tx, update=jax.jit(counted))
  assert len(traces) == 1


@ALL
def test_jit_agrees(m):
  tx = m(2, labels=LABELS)
  chex.assert_trees_all_close(
    run(tx)[0], run(tx, update=jax.jit(tx.update))[0], rtol=1e-4, atol=1e-5
  )


@ALL
def test_state_is_stable(m):
  tx = m(2, labels=LABELS)
  params = make_params()

  def body(state, i):
    def step(state):
      out, state = tx.update(make_grads(), state, params, losses=LOSSES)
      return out, state

    def skip(state):
      return jax.tree.map(jnp.zeros_like, params), state

    out, state = jax.lax.cond(i > 0, step, skip, state)
    return state, out

  state, _ = jax.lax.scan(body, tx.init(params), jnp.arange(3))
  chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(params))


@ALL
def test_map_params_and_abstract_init(m):
  tx = m(2, labels=LABELS)
  state = tx.init(make_params())
  optax.tree.map_params(tx, lambda x: x, state)
  shapes = jax.eval_shape(make_params)
  chex.assert_trees_all_equal_shapes_and_dtypes(tx.init(shapes), state)


@ALL
def test_dtypes(m):
  tx = m(2, labels=LABELS)
  for dtype in (jnp.bfloat16, jnp.float32):
    out, state = run(tx, dtype=dtype)
    assert {x.dtype for x in jax.tree.leaves(out)} == {jnp.dtype(dtype)}
    assert mtl.get_weights(state).dtype == jnp.float32


@ALL
def test_bfloat16_weights_agree_with_float32(m):
  grads = make_grads(0, jnp.bfloat16)
  wide = jax.tree.map(lambda g: g.astype(jnp.float32), grads)
  tx = m(2, labels=LABELS)
  states = []
  for g in (grads, wide):
    _, state = tx.update(g, tx.init(make_params()), None, losses=LOSSES)
    states.append(mtl.get_weights(state))
  np.testing.assert_allclose(*states, rtol=1e-5)


@ALL
def test_float64(m, x64):
  jacobian = np.random.default_rng(0).normal(size=(3, 7))
  out, weights = rows(m(3, scale=2.0, max_norm=None), jacobian)
  assert out.dtype == weights.dtype == jnp.float64
  np.testing.assert_allclose(out, 2 * (weights @ jacobian), rtol=1e-12)
  gramian = mtl.gramian(jnp.asarray(jacobian))
  np.testing.assert_allclose(gramian, jacobian @ jacobian.T, rtol=1e-12)
  state = m(3).init(None)
  _, state = m(3).update(jnp.asarray(jacobian), state, losses=jnp.ones(3))
  if 'gramian' in mtl.get_stats(state):
    kept = mtl.get_stats(state)['gramian']
    np.testing.assert_allclose(kept, gramian, rtol=1e-12)


@ALL
def test_inject_hyperparams(m):
  factory = mtl.inject_hyperparams(getattr(mtl, m.name))
  kwargs = {k: v[:2] if k in m.per_task else v for k, v in m.kwargs.items()}
  tx = factory(num_tasks=2, labels=LABELS, **kwargs)
  expected, _ = run(m(2, labels=LABELS))
  out, _ = run(tx, update=jax.jit(tx.update))
  chex.assert_trees_all_close(out, expected, rtol=1e-4, atol=1e-5)


@ALL
def test_vmap_is_a_loop(m):
  tx = m(2)
  grads = jax.random.normal(jax.random.key(1), (4, 2, 5))
  losses = jnp.arange(1.0, 9.0).reshape(4, 2)
  state = tx.init(jnp.zeros(5))
  states = jax.tree.map(lambda x: jnp.stack([x] * 4), state)
  update = jax.vmap(lambda g, s, l: tx.update(g, s, losses=l))
  out, _ = update(grads, states, losses)
  for i in range(4):
    one, _ = tx.update(grads[i], state, losses=losses[i])
    np.testing.assert_allclose(out[i], one, rtol=2e-4, atol=1e-5)


@ALL
def test_init_after_donation(m):
  key = jax.random.key(3)
  tx = m(2, labels=LABELS, key=key)
  params = make_params()
  step = jax.jit(
    lambda s, g: tx.update(g, s, losses=LOSSES)[1], donate_argnums=0
  )
  step(tx.init(params), make_grads())
  again = tx.init(params)
  chex.assert_trees_all_equal_shapes_and_dtypes(
    step(again, make_grads()), tx.init(params)
  )


@ALL
def test_restore_and_continue(m, tmp_path):
  tx = m(2, labels=LABELS)
  update = jax.jit(tx.update)
  params = make_params()
  _, state = run(tx, update=update)
  with Checkpointer(tmp_path / 'checkpoints') as checkpointer:
    checkpointer.save(1, state, data_state={}, meta={}, score=None)
  with Checkpointer(tmp_path / 'checkpoints') as checkpointer:
    restored = checkpointer.restore(jax.eval_shape(tx.init, params))[0]
  args = dict(params=params, losses=LOSSES)
  chex.assert_trees_all_equal(
    update(make_grads(9), state, **args)[0],
    update(make_grads(9), restored, **args)[0],
  )


@VARIANTS
def test_one_task(m):
  gradient = jnp.array([[3.0, -4.0]])
  out, weights = rows(m(1), gradient)
  assert weights.shape == (1,)
  assert weights[0] > 0
  np.testing.assert_allclose(
    out / np.linalg.norm(out), gradient[0] / 5, rtol=1e-5
  )


@VARIANTS
@pytest.mark.parametrize('num_tasks', [2, 3, 10])
def test_degenerate_inputs_stay_finite(m, num_tasks):
  rng = np.random.default_rng(num_tasks)
  normal = rng.normal(size=(num_tasks, 6)).astype(np.float32)
  zero_row = normal.copy()
  zero_row[0] = 0
  scales = np.logspace(-10, 10, num_tasks, dtype=np.float32)[:, None]
  antiparallel = normal.copy()
  antiparallel[1] = -antiparallel[0]
  cases = {
    'zeros': np.zeros_like(normal),
    'identical': np.repeat(normal[:1], num_tasks, axis=0),
    'rank one': normal[:, :1] * normal[:1],
    'zero row': zero_row,
    'row scales': normal * scales,
    'tiny': normal * np.float32(1e-15),
    'huge': normal * np.float32(1e15),
    'antiparallel': antiparallel,
  }
  tx = m(num_tasks)
  update = jax.jit(lambda j: rows(tx, j))
  for name, jacobian in cases.items():
    out, weights = update(jnp.asarray(jacobian))
    assert np.all(np.isfinite(weights)), name
    assert np.all(np.isfinite(out)), name
  assert not np.any(update(jnp.zeros((num_tasks, 6)))[0])


@VARIANTS
def test_masked_task_is_the_smaller_problem(m):
  """The others' weights are those of the problem without the task."""
  jacobian = jax.random.normal(jax.random.key(5), (3, 6))
  mask = jnp.array([True, False, True])
  poisoned = jacobian.at[1].set(jnp.nan)
  losses = jnp.array([0.5, jnp.nan, 2.0])
  params = jnp.zeros(jacobian.shape[1])
  if m.name == 'rlw':  # draws other numbers for another T
    tx = m(3)
    out, state = tx.update(
      poisoned, tx.init(params), losses=losses, task_mask=mask
    )
    weights = mtl.get_weights(state)
    assert weights[1] == 0
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)
    assert np.all(np.isfinite(out))
    return
  kwargs = {
    k: [v[0], v[2]] if k in m.per_task else v for k, v in m.kwargs.items()
  }
  big, small = m(3), getattr(mtl, m.name)(2, **kwargs)
  out, state = big.update(
    poisoned, big.init(params), losses=losses, task_mask=mask
  )
  expected, small_state = small.update(
    jacobian[mask], small.init(params), losses=losses[mask]
  )
  np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
  weights = mtl.get_weights(state)
  assert weights[1] == 0
  np.testing.assert_allclose(
    weights[mask], mtl.get_weights(small_state), rtol=1e-4, atol=1e-5
  )


@ALL
def test_all_tasks_masked(m):
  tx = m(2)
  grads = jnp.full((2, 3), jnp.nan)
  out, state = tx.update(
    grads, tx.init(jnp.zeros(3)), losses=LOSSES, task_mask=jnp.zeros(2, bool)
  )
  assert not np.any(out)
  assert not np.any(mtl.get_weights(state))


@ALL
def test_nonfinite_propagates_or_drops(m):
  grads = jnp.array([[1.0, jnp.nan], [0.5, 2.0]])
  losses = jnp.array([jnp.inf, 1.0])
  tx = m(2)
  _, state = tx.update(grads, tx.init(jnp.zeros(2)), losses=losses)
  if tx.needs:
    assert np.all(np.isnan(mtl.get_weights(state)))
  tx = m(2, nonfinite='drop_task')
  out, state = tx.update(grads, tx.init(jnp.zeros(2)), losses=losses)
  assert mtl.get_weights(state)[0] == 0
  assert np.all(np.isfinite(out))


@claiming('equivariant')
def test_permutation_equivariant(m):
  jacobian = jax.random.normal(jax.random.key(2), (4, 9))
  losses = jnp.array([0.3, 1.0, 2.0, 5.0])
  order = jnp.array([2, 0, 3, 1])
  out, weights = rows(m(4), jacobian, losses)
  permuted, permuted_weights = rows(m(4), jacobian[order], losses[order])
  np.testing.assert_allclose(permuted, out, rtol=1e-3, atol=1e-4)
  np.testing.assert_allclose(
    permuted_weights, weights[order], rtol=1e-3, atol=1e-4
  )


@claiming('non_conflicting')
@pytest.mark.parametrize('seed', range(5))
def test_non_conflicting(m, seed):
  rng = np.random.default_rng(seed)
  jacobian = rng.normal(size=(4, 7)).astype(np.float32)
  jacobian -= 0.5 * jacobian.mean(0)
  jacobian *= np.logspace(-2, 2, 4, dtype=np.float32)[:, None]
  out, _ = rows(m(4), jacobian)
  norms = np.linalg.norm(jacobian, axis=1) * np.linalg.norm(out)
  assert np.min(jacobian @ np.asarray(out) / norms) > -2e-3


@claiming('stationary')
def test_zero_at_stationary_points(m):
  rng = np.random.default_rng(0)
  jacobian = rng.normal(size=(3, 8)).astype(np.float32)
  jacobian[2] = -(0.3 * jacobian[0] + 0.7 * jacobian[1])
  out, _ = rows(m(3), jacobian)
  assert np.linalg.norm(out) < 1e-3 * np.linalg.norm(jacobian)


@claiming('linear')
@pytest.mark.parametrize('scale', [1e-4, 1e4])
def test_linear_under_scaling(m, scale):
  jacobian = jax.random.normal(jax.random.key(4), (3, 6))
  out, _ = rows(m(3), jacobian)
  scaled, _ = rows(m(3), jacobian * scale)
  np.testing.assert_allclose(scaled / scale, out, rtol=1e-3, atol=1e-4)


@VARIANTS
def test_declared_invariance_to_loss_scale(m):
  """The declared class holds, and no stronger one does."""
  jacobian = jax.random.normal(jax.random.key(6), (4, 30))
  losses = jnp.array([0.3, 1.0, 2.0, 5.0])
  scale = jnp.array([10.0, 0.1, 3.0, 0.7])
  tx = m(4, max_norm=None)
  steps = 3 if 'losses' in tx.needs else 1
  out, _ = rows(tx, jacobian, losses, steps)
  scaled, _ = rows(tx, jacobian * scale[:, None], losses * scale, steps)
  cosine = out @ scaled / (np.linalg.norm(out) * np.linalg.norm(scaled))
  ratio = np.linalg.norm(scaled) / np.linalg.norm(out)
  same_direction = abs(cosine - 1) < 1e-4
  same_length = abs(ratio - 1) < 1e-3
  found = 'none'
  if same_direction:
    found = 'full' if same_length else 'direction'
  assert tx.invariance == found


@ALL
def test_converges_on_two_quadratics(m):
  """Ends on the segment between the two minima, or near it."""
  a, b = jnp.array([1.0, 0.0]), jnp.array([-1.0, 0.5])

  def task_losses(x):
    return jnp.stack([jnp.sum((x - a) ** 2), jnp.sum((x - b) ** 2)])

  grad_fn = mtl.value_and_task_grads(task_losses)
  tx = optax.chain(
    m(2, key=1), optax.adam(optax.cosine_decay_schedule(0.05, 300))
  )

  def step(carry, _):
    x, state = carry
    losses, grads = grad_fn(x)
    updates, state = tx.update(grads, state, x, losses=losses)
    return (optax.apply_updates(x, updates), state), losses

  x0 = jnp.array([0.3, 3.0])
  (x, _), _ = jax.lax.scan(step, (x0, tx.init(x0)), length=300)
  t = jnp.clip((x - b) @ (a - b) / jnp.sum((a - b) ** 2), 0, 1)
  distance = jnp.linalg.norm(x - (b + t * (a - b)))
  assert distance < 0.1 * jnp.linalg.norm(x0)


@VARIANTS
def test_facts(m):
  tx = m(2)
  assert isinstance(tx, mtl.Aggregator)
  assert isinstance(tx, optax.GradientTransformationExtraArgs)
  assert tx.info.name == m.name
  assert tx.info.random == any(
    jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    for x in jax.tree.leaves(tx.init(jnp.zeros(2)))
  )

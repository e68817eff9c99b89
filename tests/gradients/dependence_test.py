"""Which tasks a gradient comes from, against numerical Jacobians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.gradients import _dependence

T, D, B = 3, 4, 6
X = jax.random.normal(jax.random.key(0), (B, D))
PARAMS = [
  jax.random.normal(jax.random.key(t + 1), (D,)) * 0.2 for t in range(T)
]
STACK = jax.random.normal(jax.random.key(9), (T, D))


def mse(out, t=0.0):
  return jnp.mean((out - t) ** 2)


def apart(heads, x=X):
  return jnp.stack([mse(x @ h, t) for t, h in enumerate(heads)])


def next_door(heads, x=X):
  outs = [x @ h for h in heads]
  return jnp.stack([mse(outs[t] - outs[t - 1]) for t in range(T)])


def cut(heads, x=X):
  outs = [x @ h for h in heads]
  cuts = [jax.lax.stop_gradient(out) for out in outs]
  return jnp.stack([mse(outs[t] - cuts[t - 1]) for t in range(T)])


def through_integers(heads, x=X):
  order = jnp.argmax(x @ heads[0])
  return jnp.stack([mse(x @ h) * (1.0 + order) for h in heads])


def stacked_and_vmapped(heads, x=X):
  return jax.vmap(lambda h: mse(jnp.tanh(x @ h)))(jnp.stack(heads))


def einsum(heads, x=X):
  out = jax.nn.gelu(jnp.einsum('bd,td->bt', x, jnp.stack(heads)))
  return jnp.mean((out - x[:, :T]) ** 2, axis=0)


def columns(heads, x=X):
  out = x @ jnp.stack(heads, axis=1)
  return jnp.mean(jnp.abs(out), axis=0)


def flattened(heads, x=X):
  out = (x @ jnp.concatenate(heads).reshape(T, D).T).T.reshape(-1)
  return jnp.mean(out.reshape(T, B) ** 2, axis=1)


def sliced(heads, x=X):
  out = x @ jnp.stack(heads).T
  return jnp.stack([mse(out[:, t], t) for t in range(T)])


def softmax_over_tasks(heads, x=X):
  out = jax.nn.log_softmax(x @ jnp.stack(heads, axis=1), axis=1)
  return -jnp.mean(out, axis=0)


def added_to_all(heads, x=X):
  return apart(heads, x) + 0.1 * sum(jnp.sum(h**2) for h in heads)


def remat_and_jit(heads, x=X):
  one = jax.jit(jax.checkpoint(lambda h: mse(jnp.sin(x @ h))))
  return jnp.stack([one(h) for h in heads])


def conditional(heads, x=X):
  def one(h):
    return jax.lax.cond(jnp.sum(x) > 0, lambda: mse(x @ h), lambda: mse(h))

  return jnp.stack([one(h) for h in heads])


def recurrent(heads, x=X):
  def one(h):
    carry, _ = jax.lax.scan(lambda c, row: (jnp.tanh(c + row @ h), c), 0.0, x)
    return carry**2

  return jnp.stack([one(h) for h in heads])


def two_in_one_scan(heads, x=X):
  """Both come out of one loop, and each loss takes its own."""

  def body(carry, row):
    return tuple(
      jnp.tanh(c + row @ h) for c, h in zip(carry, heads, strict=True)
    ), None

  carry, _ = jax.lax.scan(body, (0.0,) * T, x)
  return jnp.stack([c**2 for c in carry])


def custom(heads, x=X):
  @jax.custom_vjp
  def square(x):
    return x**2

  square.defvjp(lambda x: (x**2, x), lambda x, g: (2 * g * x,))
  return jnp.stack([jnp.mean(square(x @ h)) for h in heads])


def scattered(heads, x=X):
  losses = jnp.zeros(T)
  for t, h in enumerate(heads):
    losses = losses.at[t].set(mse(x @ h))
  return losses


def in_a_loop(heads, x=X):
  return jax.lax.map(lambda h: mse(x @ h), jnp.stack(heads))


def by_domain(heads, x=X):
  """Each example is one task's: apart in numbers, not in the program."""
  mine = jax.nn.one_hot(jnp.arange(B) % T, T)
  out = jnp.sum(mine * (x @ jnp.stack(heads, axis=1)), axis=1)
  return mine.T @ (out - 1) ** 2


EXACT = [
  apart,
  next_door,
  cut,
  through_integers,
  stacked_and_vmapped,
  einsum,
  columns,
  flattened,
  sliced,
  softmax_over_tasks,
  added_to_all,
  remat_and_jit,
  conditional,
  recurrent,
  two_in_one_scan,
  custom,
]
BLURRED = [scattered, in_a_loop, by_domain]
CERTAIN = [next_door, softmax_over_tasks, added_to_all]


def reach(fun, params):
  losses, pull = jax.vjp(fun, params)
  traced = _dependence.Traced(lambda c: pull(c)[0], losses)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    traced(losses),
    pull(losses)[0],
  )
  return traced.reach([np.eye(T, dtype=bool)], T)


def tasks(patterns):
  return [set(_dependence.readers(p).tolist()) for p in patterns]


def numerical(fun):
  return [
    set(np.flatnonzero(np.any(np.asarray(leaf) != 0, axis=1)).tolist())
    for leaf in jax.jacrev(fun)(PARAMS)
  ]


@pytest.mark.parametrize('jit', [False, True])
@pytest.mark.parametrize('fun', EXACT + BLURRED, ids=lambda f: f.__name__)
def test_patterns_hold_the_jacobian(fun, jit):
  found = tasks(reach(jax.jit(fun) if jit else fun, PARAMS))
  want = numerical(fun)
  if fun in EXACT:
    assert found == want
  assert all(a >= b for a, b in zip(found, want, strict=True))


@pytest.mark.parametrize('fun', EXACT + BLURRED, ids=lambda f: f.__name__)
def test_what_is_proven_is_so(fun):
  """With a trunk between, whose values depend on parameters."""
  weight = jnp.eye(D)

  def losses(shared, heads):
    return fun(heads, jnp.tanh(X @ shared[0]))

  found = tasks(_dependence.proven(losses, [weight], PARAMS, T))
  want = numerical(fun)
  assert all(a <= b for a, b in zip(found, want, strict=True))
  if fun in CERTAIN:
    assert found == want


def test_nothing_is_proven_of_python_conditions():
  def losses(shared, heads):
    return apart(heads) if heads[0][0] > 0 else next_door(heads, X * shared[0])

  assert _dependence.proven(losses, [1.0], PARAMS, T) == [None] * T


@pytest.mark.parametrize(
  'fun',
  [
    lambda w: jax.vmap(lambda h: mse(X @ h))(w),
    lambda w: jnp.stack([mse(X @ w[t]) for t in range(T)]),
    lambda w: jnp.mean(jnp.einsum('bd,td->bt', X, w) ** 2, axis=0),
  ],
)
def test_rows_of_a_stacked_leaf(fun):
  (pattern,) = reach(lambda w: fun(w[0]), [STACK])
  np.testing.assert_array_equal(
    np.broadcast_to(pattern, (T, *STACK.shape)),
    np.asarray(jax.jacrev(fun)(STACK)) != 0,
  )


def test_a_slice_by_steps_and_a_turn():
  def fun(params):
    return params[0].reshape(2, T)[::-1, ::-1].T[:, 0] ** 2

  (pattern,) = reach(fun, [jnp.arange(1.0, 7.0)])
  want = np.asarray(jax.jacrev(fun)([jnp.arange(1.0, 7.0)])[0]) != 0
  np.testing.assert_array_equal(np.broadcast_to(pattern, want.shape), want)

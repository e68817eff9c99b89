"""Numbers in the state give what constants give, for every method."""

import functools
import inspect

import battery
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax.training import make_train_step

PLAIN = pytest.mark.parametrize(
  'm', [m for m in battery.FIRST if '(' not in m.name], ids=lambda m: m.name
)
STATIC = ('num_tasks', 'labels', 'gramian_labels', 'key', 'weight_heads')


def arguments(m):
  kwargs = {k: v[:2] if k in m.per_task else v for k, v in m.kwargs.items()}
  return {**kwargs, **{k: f(2) for k, f in m.by_size.items()}}


@PLAIN
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_numbers_are_those_of_a_constant(m, dtype):
  tx = mtl.inject_hyperparams(mtl.get_method(m.name))(
    num_tasks=2, labels=battery.LABELS, **arguments(m)
  )
  out, state = battery.run(battery.fill(tx), 2, dtype)
  expected, plain = battery.run(m(2, labels=battery.LABELS), 2, dtype)
  weights = battery.weights_of(state)
  if weights is not None:
    # Twice a few ulps of float32; bfloat16 numbers would differ by 1e-3.
    np.testing.assert_allclose(
      weights, battery.weights_of(plain), rtol=5e-6, atol=1e-6
    )
  chex.assert_trees_all_close(
    out, expected, rtol=1e-2 if dtype != jnp.float32 else 1e-5, atol=1e-6
  )
  for number in state.hyperparams.values():
    assert jnp.asarray(number).dtype != jnp.bfloat16


def test_numbers_of_double_precision_stay():
  with jax.enable_x64(True):
    grads = jnp.array([[3.0, 0.0], [1.0, 4.0]])
    weights = []
    for build in (mtl.cagrad, mtl.inject_hyperparams(mtl.cagrad)):
      tx = build(num_tasks=2, c=0.3)
      _, state = tx.update(grads, tx.init(jnp.zeros(2)), jnp.zeros(2))
      weights.append(mtl.get_weights(state))
  np.testing.assert_allclose(*weights, rtol=1e-12)


def test_without_parameters():
  tx = mtl.inject_hyperparams(mtl.cagrad)(2, c=optax.constant_schedule(0.3))
  state = tx.init(None)
  for _ in range(2):
    out, state = tx.update(jnp.eye(2), state)
  plain = mtl.cagrad(2, c=0.3)
  expected, _ = plain.update(jnp.eye(2), plain.init(None))
  np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_complex_parameters_leave_numbers_real():
  tx = mtl.inject_hyperparams(mtl.cagrad)(2, c=0.3)
  state = tx.init(jnp.zeros(2, jnp.complex64))
  assert state.hyperparams['c'].dtype == jnp.float32


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16, jnp.complex64])
def test_numbers_that_optax_rounds_are_refused(dtype):
  tx = optax.inject_hyperparams(mtl.cagrad, static_args=STATIC)(2, c=0.3)
  with pytest.raises(TypeError, match='mtl.inject_hyperparams'):
    tx.init(jnp.zeros(2, dtype))


WRAPPERS = {
  'sam': (mtl.sam, {'rho': 0.1}),
  'samo': (mtl.samo, {'rho': 0.1, 'beta': 0.3, 'smoothing': 0.01}),
  'flat_regions': (mtl.flat_regions, {'rho_shared': 0.1}),
  'gradient_norm_penalty': (
    mtl.gradient_norm_penalty,
    {'rho': 0.1, 'alpha': 0.3},
  ),
  'cr_mogm': (mtl.cr_mogm, {'decay': 0.3}),
}


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16, jnp.complex64])
@pytest.mark.parametrize(
  ('wrapper', 'number'), [(w, n) for w in WRAPPERS for n in WRAPPERS[w][1]]
)
def test_numbers_of_wrappers_that_optax_rounds_are_refused(
  wrapper, number, dtype
):
  build, numbers = WRAPPERS[wrapper]
  method = mtl.mean(2)
  static = set(inspect.signature(build).parameters) - {number}
  tx = optax.inject_hyperparams(build, static_args=static)(method, **numbers)
  with pytest.raises(TypeError, match=f'{number} .*mtl.inject_hyperparams'):
    tx.init(jnp.zeros(2, dtype))
  ours = mtl.inject_hyperparams(build)(method, **numbers)
  assert ours.init(jnp.zeros(2, dtype)).hyperparams[number] == jnp.float32(
    numbers[number]
  )


def test_the_rate_of_adatask_is_not_rounded_either():
  tx = optax.inject_hyperparams(mtl.adatask, static_args=('num_tasks',))(
    num_tasks=2, learning_rate=1e-3
  )
  with pytest.raises(TypeError, match='learning_rate is a bfloat16 number'):
    tx.init(jnp.zeros(2, jnp.bfloat16))


@PLAIN
def test_numbers_of_optax_are_those_of_a_constant_or_refused(m):
  static = [s for s in STATIC if s not in ('gramian_labels',)]
  kwargs = arguments(m)
  tx = optax.inject_hyperparams(mtl.get_method(m.name), static_args=static)(
    num_tasks=2, labels=battery.LABELS, **kwargs
  )
  try:
    state = tx.init(battery.make_params())
  except ValueError as error:  # an int that shapes the program
    assert 'must be an int' in str(error)
    return
  grads = battery.make_grads(0)
  cross = mtl.cross_gramian(grads, grads, labels=battery.LABELS)
  method, extra = mtl.get_method(m.name)(2, labels=battery.LABELS, **kwargs), {}
  if 'hypergradient' in method.needs:
    extra['hypergradient'] = battery.hypergradient(method, grads)
  if battery.at_features(method):
    extra |= battery.features(method, grads)
  _, state = tx.update(
    grads,
    state,
    battery.make_params(),
    losses=battery.LOSSES,
    cross_gramian=cross,
    **extra,
  )
  _, plain = battery.run(m(2, labels=battery.LABELS), 1)
  if m.has_weights:
    np.testing.assert_allclose(
      mtl.get_weights(state), mtl.get_weights(plain), rtol=5e-6, atol=1e-6
    )


@pytest.mark.parametrize(
  'build, name',
  [
    (lambda f: mtl.inject_hyperparams(mtl.dwa)(2, window=f), 'window'),
    (lambda f: mtl.inject_hyperparams(mtl.fixed)(2, weights=f), 'weights'),
    (lambda f: mtl.inject_hyperparams(mtl.cagrad)(2, rescale=f), 'rescale'),
  ],
)
def test_only_numbers_follow_a_schedule(build, name):
  with pytest.raises(TypeError, match=f'{name}=.*only numbers'):
    build(optax.constant_schedule(1.0))


def test_functions_of_ones_own():
  def build(num_tasks, c, heads=False):
    return mtl.cagrad(num_tasks, c=c, weight_heads=heads or None)

  schedule = optax.linear_schedule(0.0, 0.5, 1)
  for factory in (build, functools.partial(build, heads=False)):
    tx = mtl.inject_hyperparams(factory)(num_tasks=2, c=schedule)
    state = tx.init(jnp.zeros(2))
    for c in (0.0, 0.5):
      out, state = tx.update(jnp.eye(2), state, jnp.zeros(2))
      plain = mtl.cagrad(2, c=c)
      expected, _ = plain.update(jnp.eye(2), plain.init(None))
      np.testing.assert_allclose(out, expected, rtol=1e-5)


def test_a_schedule_of_a_required_number():
  rate = optax.constant_schedule(0.1)
  tx = mtl.inject_hyperparams(mtl.adatask)(2, learning_rate=rate)
  out, _ = tx.update(jnp.eye(2), tx.init(jnp.zeros(2)), jnp.zeros(2))
  np.testing.assert_allclose(out, [-0.1, -0.1], rtol=1e-4)


STAGED = mtl.Staged(
  lambda w, x: jnp.tanh(x * w),
  [lambda w, z, x: jnp.sum(z**2), lambda w, z, x: jnp.sum((z - 1) ** 2)],
)


@pytest.mark.parametrize(
  'wrap, numbers',
  # Without a local part SAMO draws nothing that counts.
  [(mtl.samo, {'rho': 0.2, 'beta': 0.0}), (mtl.sam, {'rho': 0.2})],
)
def test_sharpness_in_the_train_step(wrap, numbers):
  """The same step as with a number; SAMO by one pass of the sum."""
  ends = []
  for build in (wrap, mtl.inject_hyperparams(wrap)):
    tx = build(mtl.mgda(2), **numbers)
    assert (tx.update_from_sum is None) == (wrap is mtl.sam)
    init, step, _ = make_train_step(tx, optax.sgd(0.1), STAGED)
    state = init(jnp.array([0.5, -0.3]), key=jax.random.key(0))
    for _ in range(3):
      state, _ = step(state, jnp.array([1.0, 2.0]))
    ends.append(state.params)
  np.testing.assert_allclose(*ends, rtol=1e-5)


def test_a_method_that_observes_is_not_another_in_the_train_step():
  tx = mtl.inject_hyperparams(mtl.famo)(2, learning_rate=0.1)
  with pytest.raises(TypeError, match='famo under mtl.inject_hyperparams'):
    make_train_step(tx, optax.sgd(0.1), STAGED)


@pytest.mark.parametrize(
  'build, numbers',
  [
    (mtl.rlw, {'scale': 1.0}),
    (mtl.pcgrad, {'scale': 2.0}),
    (mtl.graddrop, {'leak': 0.3}),
    (lambda n, rho: mtl.sam(mtl.rlw(n), rho=rho), {'rho': 0.1}),
    (lambda n, rho: mtl.samo(mtl.rlw(n), rho=rho), {'rho': 0.1}),
    (lambda n, rho: mtl.flat_regions(mtl.rlw(n), rho_shared=rho), {'rho': 0.1}),
  ],
  ids=['rlw', 'pcgrad', 'graddrop', 'sam', 'samo', 'flat_regions'],
)
def test_a_random_method_draws_what_it_draws_with_constants(build, numbers):
  ends = []
  for make in (build, mtl.inject_hyperparams(build)):
    tx = make(3, **numbers)
    init, step, _ = make_train_step(
      tx, optax.sgd(0.1), mtl.Staged(STAGED.trunk, [*STAGED.heads, third])
    )
    state = init(jnp.array([0.5, -0.3]), key=jax.random.key(3))
    for _ in range(2):
      state, _ = step(state, jnp.array([1.0, 2.0]))
    ends.append(state.params)
  np.testing.assert_allclose(*ends, rtol=1e-5)


def third(w, z, x):
  return jnp.sum((z + 2) ** 4)

"""Every method on hostile input: a right answer, or an error that names it.

The short form draws some of the calls; all of them are marked ``slow``. What
counts as right: an update of the parameters' shapes and dtypes, finite where
the input is, NaN where a method says so, and the weighted sum of the rows where
the method has weights. An error is a ValueError or TypeError, and says which
argument or leaf is wrong.
"""

import inspect
import itertools
import math
import random
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from battery import FIRST, weights_of

import mtljax as mtl

T = 3
SHORT = 500
NUMBERS = [None, '', 'x', [], 1j, math.nan, math.inf, -1, 0, 1e38, True]
NUMBERS += [np.float32('nan'), [1.0] * (T + 1)]
SIZES = [0, -1, 1, 2.5, None, True, '2', 2**31]
# What no argument takes, and no number of tasks is.
NEVER = {repr(x) for x in ['', 'x', [], 1j, math.nan, math.inf]}
NEVER |= {repr(np.float32('nan'))}
# What few take, by their names.
SOME = {
  'None': (
    'preference|reference|warmup_steps|nadir_steps|min_losses|initial_weights|'
    'momentum|rho_task|weight_heads|max_norm|base_steps|others|primary'
  ),
  'True': 'normalize|squared|weight_heads|perturb_heads|sharpen|weighted',
  '-1': 'log_variance|log_scale|critical_cosine',
}
NO_SIZES = {repr(x) for x in [0, -1, 2.5, None, True, '2']}
# Not numbers: a tree, a key, or another transformation.
NOT_NUMBERS = {'num_tasks', 'labels', 'gramian_labels', 'key', 'tx', 'method'}
SHARED = {
  'sam': {'rho': 0.1},
  'flat_regions': {'rho_shared': 0.1, 'rho_task': None},
  'samo': {'rho': 0.1, 'beta': 0.5, 'smoothing': 0.01},
  'gradient_norm_penalty': {'rho': 0.1, 'alpha': 0.5},
  'cr_mogm': {'decay': 0.5},
  'every_k': {'k': 2},
  'freeze_after': {'steps': 2},
}
OTHERS = {
  'adatask': ((T, 0.1), {}),
  'signsgd': ((0.1,), {}),
  'normalized_ascent': ((0.1,), {}),
  'adaptive_ascent': ((0.1,), {}),
  'normalize_tasks': ((T,), {}),
}
# Optax's face of a number of tasks, by what else it is built of.
SIZED = {
  'adatask': {'learning_rate': 0.1},
  'normalize_tasks': {},
  'per_task': {'tx': optax.sgd(0.1)},
  'per_task_optimizer': {'tx': optax.sgd(0.1)},
}


def rows(seed=0):
  keys = jax.random.split(jax.random.key(seed), 2)
  return {
    'b': jax.random.normal(keys[0], (T, 2)),
    'w': jax.random.normal(keys[1], (T, 2, 3)),
  }


PARAMS = {'b': jnp.zeros(2), 'w': jnp.zeros((2, 3))}
LOSSES = jnp.array([0.5, 1.0, 2.0])


def changed(change):
  return jax.tree.map(change, rows())


GRADIENTS = {
  'good': rows(),
  'too few tasks': changed(lambda x: x[:-1]),
  'no task axis': PARAMS,
  'an axis too many': changed(lambda x: x[None]),
  'scalars': changed(lambda x: jnp.ones(())),
  'integers': changed(lambda x: jnp.ones(x.shape, jnp.int32)),
  'bools': changed(lambda x: x > 0),
  'half': changed(lambda x: x.astype(jnp.float16)),
  'bfloat16': changed(lambda x: x.astype(jnp.bfloat16)),
  'complex': changed(lambda x: x + 1j * x),
  'numpy': changed(np.asarray),
  'floats': {'b': 1.0, 'w': 2.0},
  'nothing': {},
  'None': {'b': None, 'w': None},
  'zeros': changed(jnp.zeros_like),
  'equal': changed(jnp.ones_like),
  'tiny': changed(lambda x: x * 1e-30),
  'huge': changed(lambda x: x * 1e15),
  'NaN': changed(lambda x: x.at[1].set(jnp.nan)),
  'infinite': changed(lambda x: x.at[1].set(jnp.inf)),
  'an empty leaf': {**rows(), 'e': jnp.zeros((T, 0))},
}
TASK_LOSSES = {
  'good': LOSSES,
  'missing': None,
  'too few': LOSSES[:-1],
  'one number': 1.0,
  'two axes': LOSSES[None],
  'a list': [0.5, 1.0, 2.0],
  'integers': jnp.array([1, 2, 3]),
  'complex': LOSSES + 1j,
  'text': 'losses',
  'zeros': jnp.zeros(T),
  'negative': -LOSSES,
  'NaN': LOSSES.at[0].set(jnp.nan),
  'huge': LOSSES * 1e38,
}
MASKS = {
  'none': None,
  'all': jnp.ones(T, bool),
  'nobody': jnp.zeros(T, bool),
  'one': jnp.array([True, False, False]),
  'numbers': jnp.array([1, 0, 1]),
  'too few': jnp.ones(T - 1, bool),
  'two axes': jnp.ones((1, T), bool),
}
CHOICES = [
  ('gradients', GRADIENTS),
  ('losses', TASK_LOSSES),
  ('mask', MASKS),
]


def build_calls():
  """A name, the argument that is hostile, its value, and what builds."""
  for m in FIRST:
    wrapped = '(' in m.name
    parameters = (
      {} if wrapped else inspect.signature(mtl.get_method(m.name)).parameters
    )
    for name, value in itertools.product(parameters, NUMBERS):
      if name not in NOT_NUMBERS:
        yield (
          f'{m.name}({name}={value!r})',
          name,
          value,
          lambda m=m, name=name, value=value: (
            m(T, **{name: value})
            if name not in m.per_task
            else m.build(T, **{**m.kwargs, name: value})
          ),
        )
    if not wrapped:
      for size in SIZES:
        yield (
          f'{m.name}({size!r})',
          'num_tasks|T',
          size,
          lambda m=m, size=size: mtl.get_method(m.name)(size, **valid(m)),
        )
  for factory, options in SHARED.items():
    for name, value in itertools.product(options, NUMBERS):
      kwargs = {**options, name: value}
      yield (
        f'{factory}({name}={value!r})',
        name,
        value,
        lambda f=factory, k=kwargs: getattr(mtl, f)(mtl.mean(T), **k),
      )
  for factory, (args, options) in OTHERS.items():
    function = getattr(mtl, factory)
    names = list(inspect.signature(function).parameters)
    for name, value in itertools.product(names, NUMBERS):
      if name in NOT_NUMBERS:
        continue
      kwargs = dict(zip(names, args, strict=False)) | options | {name: value}
      yield (
        f'{factory}({name}={value!r})',
        name,
        value,
        lambda f=function, k=kwargs: f(**k),
      )

  for (factory, options), size in itertools.product(SIZED.items(), SIZES):
    yield (
      f'{factory}({size!r})',
      'num_tasks|T',
      size,
      lambda f=factory, k=options, size=size: getattr(mtl, f)(
        num_tasks=size, **k
      ),
    )
  for value in NUMBERS:
    yield (
      f'select([mgda], {value!r})',
      'index',
      value,
      lambda value=value: mtl.select([mtl.mgda(T)], value),
    )
    yield (
      f'inject_hyperparams(cagrad)(c={value!r})',
      'c',
      value,
      lambda value=value: mtl.inject_hyperparams(mtl.cagrad)(T, c=value),
    )


def valid(m):
  """Arguments that fit one or any number of tasks, where they exist."""
  return {k: v[:T] if k in m.per_task else v for k, v in m.kwargs.items()} | {
    k: f(T) for k, f in m.by_size.items()
  }


def update_calls():
  """A method, and what of its input is hostile: one thing, or a pair."""
  for m in FIRST:
    for (a, some), (b, others) in itertools.combinations(CHOICES, 2):
      for one, other in itertools.product(some, others):
        yield m, {a: one, b: other}


def names(error, words):
  """Whether it says one of the words, and not only as a part of another."""
  return re.search(rf'(?<![\w.])({words})(?!\w)', str(error))


def check_build(what, name, value, build):
  try:
    build()
  except (ValueError, TypeError) as error:
    assert names(error, name), f'{what}: {error!r} does not name {name}'
    return
  except Exception as error:
    raise AssertionError(f'{what}: {error!r}') from error
  never = NO_SIZES if 'num_tasks' in name else NEVER
  right = repr(value) not in never
  if repr(value) in SOME and 'num_tasks' not in name:
    right = name in SOME[repr(value)].split('|')
  assert right, f'{what} was accepted'


def test_a_name_is_a_word():
  error = ValueError('c=-1 must be at least 0')
  assert names(error, 'c') and names(error, 'k|c')
  assert not names(ValueError('a check of scale fails'), 'c|k|T')


# Words of which an error has at least one.
NAMED = ('updates', 'grads', 'losses', 'task_mask', 'shared', 'leaf', 'params')


def check_update(m, kinds):
  what = f'{m.name}, {kinds}'
  grads = GRADIENTS[kinds.get('gradients', 'good')]
  losses = TASK_LOSSES[kinds.get('losses', 'good')]
  mask = MASKS[kinds.get('mask', 'none')]
  tx = m(T)
  params = jax.tree.map(
    lambda g: jnp.zeros(jnp.shape(g)[1:], jnp.result_type(g)), grads
  )
  try:
    state = tx.init(params)
    update, state = tx.update(grads, state, losses=losses, task_mask=mask)
  except (ValueError, TypeError) as error:
    assert any(word in str(error) for word in NAMED), f'{what}: {error!r}'
    return
  except Exception as error:
    raise AssertionError(f'{what}: {error!r}') from error
  for got, row in zip(
    jax.tree.leaves(update), jax.tree.leaves(grads), strict=True
  ):
    assert got.shape == row.shape[1:], what
    assert got.dtype == row.dtype, what
    assert jnp.issubdtype(got.dtype, jnp.inexact), what
  weights = weights_of(state)
  if weights is None or tx.weighting is None:
    return
  assert weights.shape == (T,), what
  if mask is not None:
    absent = ~np.asarray(mask, bool)
    assert not np.any(np.asarray(weights)[absent]), what
  here = np.ones(T, bool) if mask is None else np.asarray(mask, bool)
  if np.any(np.isnan(np.asarray(weights)[here])):
    # Said in the update as well, not made to look good.
    for got in jax.tree.leaves(update):
      assert not np.any(np.isfinite(np.asarray(got, complex))), what
  scale = tx.conventions.scale
  if tx.conventions.max_norm is None and bool(jnp.all(jnp.isfinite(weights))):
    for got, row in zip(
      jax.tree.leaves(update), jax.tree.leaves(grads), strict=True
    ):
      rows64 = np.asarray(row, complex).reshape(T, -1)
      if mask is not None:
        rows64 = np.where(np.asarray(mask, bool)[:, None], rows64, 0)
      with np.errstate(invalid='ignore', over='ignore'):  # infinite rows
        want = np.asarray(weights, np.float64) * scale @ rows64
        size = np.abs(np.asarray(weights, np.float64)) @ np.abs(rows64)
        error = np.abs(np.asarray(got, complex).ravel() - want)
      fine = np.finfo(np.float32).eps
      if row.dtype in (jnp.float16, jnp.bfloat16):
        fine = float(jnp.finfo(row.dtype).eps)
      bad = error > 8 * fine * size + 1e-30
      too_large = size > float(jnp.finfo(row.dtype).max) / 4
      wild = ~np.isfinite(size) | too_large
      assert not np.any(bad & ~wild), f'{what}: {got} for {want}'


def sample(calls):
  calls = list(calls)
  return random.Random(0).sample(calls, min(SHORT, len(calls)))


def test_some_buildings():
  for call in sample(build_calls()):
    check_build(*call)


def test_some_updates():
  for call in sample(update_calls())[: SHORT // 4]:
    check_update(*call)


@pytest.mark.slow
def test_every_building():
  calls = list(build_calls())
  for call in calls:
    check_build(*call)
  print(f'{len(calls)} buildings')


@pytest.mark.slow
@pytest.mark.parametrize('m', FIRST, ids=lambda m: m.name)
def test_every_update(m):
  calls = [kinds for other, kinds in update_calls() if other is m]
  for kinds in calls:
    check_update(m, kinds)
  # Each program maps memory, of which a process may have so many.
  jax.clear_caches()
  print(f'{len(calls)} updates')

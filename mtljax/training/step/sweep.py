"""Many runs in one program: seeds and hyper-parameters as an axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtljax import _validate
from mtljax.training.step import _sweep_modes
from mtljax.training.step.state import TrainState
from mtljax.training.step.train_step import TrainStep

Mode = Literal['auto', 'vmap', 'map', 'unroll', 'loop']
MODES = ('auto', 'vmap', 'map', 'unroll', 'loop')


class Sweep(NamedTuple):
  """What `make_sweep` returns.

  Attributes:
    init: ``init(params, *, keys, model_state=None, stacked=False) -> state``:
      the state of all members. ``keys`` has one typed key a member. ``params``
      and ``model_state`` are those of every member or, with ``stacked``, have
      the members on axis 0.
    step: ``step(state, batch, *, val_batch=None, shared_batch=True) -> (state,
      metrics)``, one update of every member, compiled; donates the state. The
      batches are the same for all or, without ``shared_batch``, have the
      members on axis 0. Every metric has the members on axis 0.
    member: ``member(state, i) -> TrainState``: the state of one member as its
      own `TrainStep` has it, in buffers of its own.
    stack: ``stack(states) -> state``, from the states of all members, which
      are at the same step.
    mode: how the members run, not ``'auto'``.
    num_members: how many there are, M.
    steps: the `TrainStep` of every member, to run it alone.
    subset: ``subset(members) -> Sweep``, of some of the members.
  """

  init: Callable[..., Any]
  step: Callable[..., tuple[Any, dict[str, jax.Array]]]
  member: Callable[[Any, int], TrainState]
  stack: Callable[[Sequence[TrainState]], Any]
  mode: str
  num_members: int
  steps: tuple[TrainStep, ...]
  subset: Callable[[Sequence[int]], Sweep]


class _Batches(NamedTuple):
  """What a step with a validation batch is given."""

  batch: Any
  val_batch: Any


def make_sweep(
  build: Callable[[dict[str, Any]], TrainStep],
  hparams: Mapping[str, Any] | None = None,
  *,
  num_members: int | None = None,
  mode: Mode = 'auto',
) -> Sweep:
  r"""Builds one step for many runs that differ in numbers only.

  ``build`` makes the train step of one run from its hyper-parameters. What it
  does with them has to be the same program for all members: numbers such as a
  learning rate, ``c``, ``alpha``, ``rho`` or task weights, and, through
  `mtljax.select`, the method. Seeds are keys and need no hyper-parameter.

  ============ ===========================================================
  mode         what runs
  ============ ===========================================================
  ``'vmap'``   one program, in which every operation is over all members
  ``'map'``    one program with a loop over the members
  ``'unroll'`` one program with the members one after the other: M times
               the time to compile
  ``'loop'``   the program of one member, compiled once, called M times
  ``'auto'``   the fastest on this backend, see
               `mtljax.models.layers.default_sweep_mode`
  ============ ===========================================================

  All modes give the same results up to rounding, and each member those of its
  run alone. A member whose numbers are no longer finite does not touch the
  others.

  The state is a `TrainState` with the members on axis 0 (for ``'unroll'`` and
  ``'loop'`` a tuple of the members' states). Counters stay single: an integer
  that does not depend on the member, such as the step, has no such axis.
  `jax.lax.cond` on it keeps skipping what it skips, as the gradients between
  the steps of ``every=k``; a batched condition would run both branches.

  Args:
    build: from one member's hyper-parameters to a `TrainStep`. It is called
      with Python numbers (and arrays, where a hyper-parameter has further
      axes), once a member, which is when they are checked; and with traced
      ones.
    hparams: by name, one entry a member: sequences or arrays of shape
      ``(M, ...)``. None: the members differ in their keys only.
    num_members: M, needed where there are no ``hparams``.
    mode: see above.

  Returns:
    A `Sweep`.

  Raises:
    TypeError: ``build`` does not return a `TrainStep`.
    ValueError: the hyper-parameters are not all of length M, or an argument is
      not valid.

  Examples:
    >>> import jax, jax.numpy as jnp, mtljax as mtl, optax
    >>> from mtljax.training import make_sweep, make_train_step
    >>> def task_losses(params, batch):
    ...   return jnp.stack([(params - batch) ** 2, (params + 1.0) ** 2])
    >>> def build(hparams):
    ...   return make_train_step(
    ...     mtl.cagrad(2, c=hparams['c']),
    ...     optax.sgd(hparams['learning_rate']), task_losses)
    >>> sweep = make_sweep(
    ...   build, {'c': [0.4, 0.4, 0.0], 'learning_rate': [0.1, 0.2, 0.1]})
    >>> state = sweep.init(
    ...   jnp.array(3.0), keys=jax.random.split(jax.random.key(0), 3))
    >>> state, metrics = sweep.step(state, 1.0)
    >>> metrics['losses'].shape
    (3, 2)
    >>> int(sweep.member(state, 1).step)
    1

  ================================ ========================================
  case                             result
  ================================ ========================================
  a member becomes NaN             the others go on as if alone
  members at different steps       ``stack`` raises ``ValueError``
  counters that come to differ     (skipped updates) they get the axis of the
                                   members, at the cost of one more compilation
  an integer hyper-parameter       traced: for `mtljax.select`; shapes and
                                   ``every=k`` cannot depend on it
  random methods                   draw by the member's key, as alone
  ================================ ========================================
  """
  _validate.one_of('mode', mode, MODES)
  if mode == 'auto':
    from mtljax.models import layers  # flax takes a third of a second to load

    mode = layers.default_sweep_mode(jax.default_backend())
  return _make(build, _members(hparams or {}, num_members), mode)


def _make(
  build: Callable[[dict[str, Any]], TrainStep],
  values: list[dict[str, Any]],
  mode: str,
) -> Sweep:
  """`make_sweep` from the hyper-parameters of every member."""
  steps = tuple(build(dict(value)) for value in values)
  for own in steps:
    if not isinstance(own, TrainStep):
      raise TypeError(
        f'build returned {type(own).__name__}; it must return what '
        'make_train_step returns.'
      )

  def one_step(hparams, state, batch):
    if isinstance(batch, _Batches):
      return build(hparams).step(state, batch.batch, batch.val_batch)
    return build(hparams).step(state, batch)

  size = len(values)
  tuples = mode in ('unroll', 'loop')
  if mode == 'loop':
    step = _sweep_modes.looped(one_step, values)
  elif mode == 'unroll':
    step = _sweep_modes.unrolled(one_step, values)
  else:
    step = _sweep_modes.in_one_program(one_step, values, mode)

  def step_on_batches(state, batch, *, val_batch=None, shared_batch=True):
    both = batch if val_batch is None else _Batches(batch, val_batch)
    return step(state, both, shared_batch=shared_batch)

  def stack(states):
    if len(states) != size:
      raise ValueError(
        f'states: there are {len(states)} for num_members={size}; pass one a '
        'member.'
      )
    found = [int(state.step) for state in states]
    if len(set(found)) > 1:
      raise ValueError(
        f'states are at steps {found}: members run in step with each other; '
        'bring them to the same one first, or make a sweep of those that are.'
      )
    return (
      tuple(map(_sweep_modes.copy, states))
      if tuples
      else _sweep_modes.stack_states(states)
    )

  def member(state, i):
    if not -size <= i < size:
      raise IndexError(f'i={i} is not one of {size} members.')
    return (
      _sweep_modes.copy(state[i])
      if tuples
      else _sweep_modes.take(state, i % size)
    )

  def init(params, *, keys, model_state=None, stacked=False):
    keys = jnp.asarray(keys)
    typed = jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    if not typed or keys.shape != (size,):
      raise ValueError(
        f'keys of dtype {keys.dtype} and shape {keys.shape}: pass {size} typed '
        f'keys, such as jax.random.split(key, {size}).'
      )
    given = (params, {} if model_state is None else model_state)
    if stacked:
      _sweep_modes.check_axis('stacked=True', given, size)

    def start(i):
      own = jax.tree.map(lambda x: x[i], given) if stacked else given
      return steps[i].init(own[0], key=keys[i], model_state=own[1])

    return stack([start(i) for i in range(size)])

  def subset(members):
    return _make(build, [values[i] for i in members], mode)

  return Sweep(init, step_on_batches, member, stack, mode, size, steps, subset)


def _members(
  hparams: Mapping[str, Any], num_members: int | None
) -> list[dict[str, Any]]:
  """The hyper-parameters of every member, scalars as Python numbers."""
  if num_members is not None:
    num_members = _validate.integer('num_members', num_members, 1)
  arrays = {name: np.asarray(value) for name, value in hparams.items()}
  sizes = {name: len(x) if x.ndim else None for name, x in arrays.items()}
  found = {*sizes.values(), num_members} - {None}
  if len(found) != 1 or None in sizes.values() or 0 in found:
    raise ValueError(
      f'hparams of lengths {sizes} and num_members={num_members}: every '
      'hyper-parameter must have one entry a member, and num_members must be '
      'given if there are none.'
    )
  return [
    {
      name: x[i].item() if x.ndim == 1 else jnp.asarray(x[i])
      for name, x in arrays.items()
    }
    for i in range(found.pop())
  ]

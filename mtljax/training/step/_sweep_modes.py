"""How the members of a sweep run: one program or many, and their states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from mtljax._jaxprs import canonical_convolutions
from mtljax.training.step.state import TrainState


def check_axis(what: str, tree: Any, size: int) -> None:
  """Raises ValueError unless axis 0 of every leaf is the members."""
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    shape = jnp.shape(leaf)
    if shape[:1] != (size,):
      name = jax.tree_util.keystr(path, simple=True, separator='/')
      raise ValueError(
        f'{what}: {name!r} has shape {shape}; axis 0 must be the {size} '
        'members.'
      )


def _stacked(trees: Sequence[Any]) -> Any:
  """Trees as one, with their axis in front.

  Weakly typed numbers stay so: a member's arithmetic is that of its run alone.
  """
  return jax.tree.map(lambda *xs: jnp.stack(list(map(jnp.asarray, xs))), *trees)


@jax.jit
def _stack_all(trees: Sequence[Any]) -> Any:
  return _stacked(trees)


@jax.jit
def copy(tree: Any) -> Any:
  """The tree in buffers of its own."""
  return jax.tree.map(lambda x: jnp.array(x, copy=True), tree)


def _is_counter(leaf: Any) -> bool:
  return leaf.ndim == 0 and jnp.issubdtype(leaf.dtype, jnp.integer)


def stack_states(states: Sequence[TrainState]) -> TrainState:
  """The members' states as one; counters that agree stay single."""

  def stacked(*leaves):
    if _is_counter(leaves[0]) and len({int(x) for x in leaves}) == 1:
      return jnp.array(leaves[0], copy=True)
    return jnp.stack(leaves)

  return jax.tree.map(stacked, *states)


@jax.jit
def take(state: TrainState, i: jax.Array) -> TrainState:
  """The state of one member."""
  return jax.tree.map(
    lambda x: jnp.array(x, copy=True) if x.ndim == 0 else x[i], state
  )


def _per_member(batch: Any, i: int, shared: bool) -> Any:
  return batch if shared else jax.tree.map(lambda x: x[i], batch)


def looped(one_step: Callable[..., Any], values: list[dict[str, Any]]):
  """One member's program, called for each."""
  program = jax.jit(one_step, donate_argnums=1)

  def step(state, batch, *, shared_batch=True):
    _check_batch(batch, len(values), shared_batch)
    found = [
      program(value, own, _per_member(batch, i, shared_batch))
      for i, (value, own) in enumerate(zip(values, state, strict=True))
    ]
    states, metrics = zip(*found, strict=True)
    return states, _stack_all(metrics)

  return step


def unrolled(one_step: Callable[..., Any], values: list[dict[str, Any]]):
  """The members one after the other in one program."""
  inner = jax.jit(one_step)

  def step(values, state, batch, shared_batch):
    found = [
      inner(value, own, _per_member(batch, i, shared_batch))
      for i, (value, own) in enumerate(zip(values, state, strict=True))
    ]
    states, metrics = zip(*found, strict=True)
    return states, _stacked(metrics)

  program = jax.jit(step, donate_argnums=1, static_argnums=3)

  def run(state, batch, *, shared_batch=True):
    _check_batch(batch, len(values), shared_batch)
    return program(values, state, batch, shared_batch)

  return run


def in_one_program(
  one_step: Callable[..., Any], values: list[dict[str, Any]], mode: str
):
  """One program with an axis of members, which counters do not have."""
  hparams = _stacked(values)
  inner = jax.jit(one_step)  # so that it is traced once

  def step(single, own, hparams, batch, treedef, shared_batch):
    def member(single, own, hparams, batch):
      leaves = single | own
      state = jax.tree.unflatten(treedef, [leaves[i] for i in sorted(leaves)])
      state, metrics = inner(hparams, state, batch)
      leaves = dict(enumerate(treedef.flatten_up_to(state)))
      return (
        {i: leaves[i] for i in single},
        {i: leaves[i] for i in own},
        metrics,
      )

    axes = (None, 0, 0, None if shared_batch else 0)
    while found := _dependent(member, axes, (single, own, hparams, batch)):
      own = own | {
        i: jnp.broadcast_to(single[i], (len(values),)) for i in found
      }
      single = {i: x for i, x in single.items() if i not in found}
    if mode == 'vmap':
      batched = jax.vmap(member, in_axes=axes, out_axes=(None, 0, 0))
      single, own, metrics = batched(single, own, hparams, batch)
    else:
      each = (own, hparams) if shared_batch else (own, hparams, batch)
      before = single
      one = canonical_convolutions(
        lambda args: member(before, *args, *([batch] if shared_batch else []))
      )
      single, own, metrics = jax.lax.map(one, each)
      single = {i: x[0] for i, x in single.items()}
    return single, own, metrics

  program = jax.jit(step, donate_argnums=1, static_argnums=(4, 5))

  def run(state, batch, *, shared_batch=True):
    _check_batch(batch, len(values), shared_batch)
    leaves, treedef = jax.tree.flatten(state)
    single = {i: x for i, x in enumerate(leaves) if _is_counter(x)}
    own = {i: x for i, x in enumerate(leaves) if i not in single}
    single, own, metrics = program(
      single, own, hparams, batch, treedef, shared_batch
    )
    leaves = single | own
    leaves = [leaves[i] for i in range(len(leaves))]
    return jax.tree.unflatten(treedef, leaves), metrics

  return run


def _dependent(
  fun: Callable[..., Any], axes: tuple[int | None, ...], args: tuple[Any, ...]
) -> set[int]:
  """Which of the counters that ``fun`` returns differ by member.

  `jax.vmap` itself says it: the rule below runs for what has the axis.
  """
  found = set()

  def probe(i, x):
    same = custom_vmap(lambda x: x)

    @same.def_vmap
    def rule(axis_size, in_batched, x):
      del axis_size
      found.add(i)
      return x, in_batched[0]

    return same(x)

  def probed(*args):
    return {i: probe(i, x) for i, x in fun(*args)[0].items()}

  jax.eval_shape(jax.vmap(probed, in_axes=axes), *args)
  return found


def _check_batch(batch: Any, size: int, shared: bool) -> None:
  if not shared:
    check_axis('shared_batch=False', batch, size)

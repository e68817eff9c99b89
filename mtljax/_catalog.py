"""The table of methods, made from the methods themselves."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtljax import _validate, optimizers
from mtljax._types import Aggregator, Invariance
from mtljax.aggregators import _methods
from mtljax.contrib import _methods as _contrib_methods

# What has no default, for two tasks.
EXAMPLE_ARGUMENTS: dict[str, dict[str, Any]] = {
  'adatask': {'learning_rate': 1e-3},
  'fixed': {'weights': (1.0, 1.0)},
  'krum': {'num_byzantine': 0},
  'per_task_optimizer': {'tx': optax.adam(1e-3)},
  'pivrg': {'scores': (1.0, 1.0)},
  'trimmed_mean': {'trim': 0},
}
OPTIMIZERS = ('adatask', 'per_task_optimizer')
_HEADER = (
  'method',
  'reads',
  'routes',
  'invariance',
  'heads',
  'signed',
  'stateful',
  'random',
  'paper',
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodSummary:
  """One row of `methods`, for the method's default arguments.

  Attributes:
    name: that of the function in `mtljax`, or in `mtljax.contrib`.
    contrib: whether it is in `mtljax.contrib`, so a reconstruction.
    needs: what it reads: ``'losses'``, ``'gramian'``, ``'cross_gramian'``,
      ``'hypergradient'``, ``'feature_norms'``, ``'alignment'``,
      ``'gradients'``; none of them for constant and random weights.
    routes: how `mtljax.training.make_train_step` can get that, its default
      first.
    invariance: what a change of a task's loss scale does to the update:
      nothing (``'full'``), only to its length (``'direction'``), or more
      (``'none'``).
    weight_heads: whether task-specific parameters are weighted too.
    signed: whether a weight can be negative.
    stateful: whether a step depends on the steps before it, apart from keys.
    random: whether it draws numbers.
    is_optimizer: whether it returns the step itself, and no optimizer comes
      after it.
    paper: authors, year and link.
  """

  name: str
  contrib: bool
  needs: tuple[str, ...]
  routes: tuple[str, ...]
  invariance: Invariance
  weight_heads: bool
  signed: bool
  stateful: bool
  random: bool
  is_optimizer: bool
  paper: str


class MethodTable(tuple[MethodSummary, ...]):
  """A tuple of `MethodSummary` that prints as a table."""

  def __str__(self) -> str:
    """The table as aligned text."""
    rows = [_HEADER, *(_cells(row) for row in self)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join(
      '  '.join(
        cell.ljust(width) for cell, width in zip(row, widths, strict=True)
      ).rstrip()
      for row in rows
    )


def _cells(row: MethodSummary) -> tuple[str, ...]:
  def said(value: bool) -> str:
    return 'yes' if value else '-'

  return (
    row.name,
    ', '.join(row.needs) or '-',
    ', '.join(row.routes),
    row.invariance,
    said(row.weight_heads),
    said(row.signed),
    said(row.stateful),
    said(row.random),
    row.paper or '-',
  )


def named_in(module: Any) -> dict[str, Callable[..., Aggregator]]:
  """The methods that a module names, in its order."""
  return {
    name: value
    for name, value in vars(module).items()
    if inspect.isfunction(value)
    and inspect.signature(value).return_annotation is Aggregator
  }


@functools.cache
def _factories() -> dict[str, Callable[..., Aggregator]]:
  found = {name: getattr(optimizers, name) for name in OPTIMIZERS}
  found |= named_in(_methods) | named_in(_contrib_methods)
  return dict(sorted(found.items()))


def method_names() -> tuple[str, ...]:
  """The methods' names, sorted."""
  return tuple(_factories())


def get_method(name: str) -> Callable[..., Aggregator]:
  """The factory of a method by its name, as `methods` says it.

  For command lines and tables; in code, write ``mtl.cagrad``.

  Args:
    name: such as ``'cagrad'``; those of `mtljax.contrib` by the same, plain
      names.

  Returns:
    The function ``(num_tasks, ...) -> Aggregator``.

  Raises:
    ValueError: there is no such method; the message lists those that are.

  Examples:
    >>> import mtljax as mtl
    >>> mtl.get_method('cagrad') is mtl.cagrad
    True
    >>> mtl.get_method('emtl') is mtl.contrib.emtl
    True
  """
  _validate.one_of('name', name, method_names())
  return _factories()[name]


def example_method(name: str) -> Aggregator:
  """The method for two tasks, with examples of what has no default."""
  arguments = EXAMPLE_ARGUMENTS.get(name, {})
  return get_method(name)(num_tasks=2, **arguments)


def _routes(method: Aggregator) -> tuple[str, ...]:
  if method.one_task is not None:
    return ('losses', 'jacobian')
  if method.weighting is None:
    return ('jacobian',)
  if 'cross_gramian' in method.needs:
    return ('gramian', 'jacobian', 'layerwise')
  if 'gramian' in method.needs:
    return ('layerwise', 'jacobian', 'gramian', 'features')
  # The other routes work, and gain a method that reads no gradients nothing.
  return ('losses',)


def _stateful(method: Aggregator) -> bool:
  """Whether an update or an observation changes more than a key.

  Read off the traced program: what a step leaves alone, it passes through.
  """
  params = jnp.zeros(3)
  # The counter of steps that `aggregate` keeps is there to call `observe`.
  if method.weighting is not None and method.weighting.observe is not None:
    return True

  ahead = None if method.weighting is None else method.weighting.lookahead
  chunks = None if method.weighting is None else method.weighting.chunks
  shape = (2, 2) if ahead is not None and ahead.separate else (2,)

  def update(state, grads, losses, cross):
    return method.update(
      grads,
      state,
      params,
      losses=losses,
      cross_gramian=cross,
      hypergradient=jnp.broadcast_to(losses, shape),
      feature_norms=jnp.ones((2, chunks or 1)),
      alignment_fn=lambda weights: params,
    )[1]

  state = method.init(params)
  jaxpr = jax.make_jaxpr(update)(
    state, jnp.ones((2, 3)), jnp.ones(2), jnp.eye(2)
  ).jaxpr
  paths = [p for p, _ in jax.tree_util.tree_leaves_with_path(state)]
  kept = ('.weights', '.gramian', '.residual')
  return any(
    old is not new
    and not jax.tree_util.keystr(path).endswith(kept)
    and not jnp.issubdtype(old.aval.dtype, jax.dtypes.prng_key)
    for path, old, new in zip(paths, jaxpr.invars, jaxpr.outvars, strict=False)
  )


def _summary(name: str) -> MethodSummary:
  method = example_method(name)
  info = method.info
  return MethodSummary(
    name=name,
    contrib=name in named_in(_contrib_methods),
    needs=tuple(sorted(method.needs)),
    routes=_routes(method),
    invariance=info.invariance,
    weight_heads=info.weight_heads,
    signed=info.signed,
    stateful=_stateful(method),
    random=info.random,
    is_optimizer=info.is_optimizer,
    paper=info.paper,
  )


@functools.cache
def methods() -> MethodTable:
  """All methods, as a tuple of records that prints as a table.

  Every row is read off the method built with its default arguments (and
  examples of those without a default), not typed by hand. Wrappers, which take
  a method, are not in it: `flat_regions`, `sam`, `cr_mogm`, `every_k`,
  `freeze_after` and `select`.

  Returns:
    A `MethodTable` of `MethodSummary`, sorted by name. The first call takes a
    few seconds: it traces each method once.

  Examples:
    >>> import mtljax as mtl
    >>> [m.name for m in mtl.methods() if m.invariance == 'full']
    ['adatask', 'balancer', 'db_mtl', 'igb', 'nash_mtl', 'uw_o']
    >>> print(str(mtl.methods()).splitlines()[0].split()[:4])
    ['method', 'reads', 'routes', 'invariance']
  """
  return MethodTable(_summary(name) for name in method_names())

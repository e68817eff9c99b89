"""One of several methods, chosen by a number that may be traced."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any, TypeVar

import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import weightings
from mtljax._types import Aggregator, Conventions, Weighting
from mtljax.aggregators import _aggregate
from mtljax.weightings import _select

Method = TypeVar('Method', Aggregator, Weighting)

_SAME = ('num_tasks', 'labels', 'gramian_labels')


def select(methods: Sequence[Method], index: ArrayLike) -> Method:
  r"""One of several methods, by its number.

  .. math:: w = w^{(i)}

  See `mtljax.weightings.select`, the rule inside. It makes methods an axis of a
  sweep (`mtljax.training.make_sweep`). Of aggregators, the one chosen brings
  its own conventions: whether heads are weighted, ``scale``, ``max_norm`` and
  its key. They have to agree in what one program cannot have two of: the number
  of tasks, ``labels``, ``gramian_labels`` and ``nonfinite``.

  Args:
    methods: aggregators or weightings, all of a kind.
    index: the number of the method, a scalar that may be traced.

  Returns:
    The same kind as the methods. Reads what any of them reads.

  Raises:
    TypeError: a method is neither, or more than weights, or they are of both
      kinds; ``index`` is no integer.
    ValueError: there is no method, ``index`` is out of range, or the methods
      differ in what they have to agree in.

  Examples:
    >>> import jax, jax.numpy as jnp, mtljax as mtl
    >>> methods = [mtl.mgda(num_tasks=2), mtl.mean(num_tasks=2, scale=2.0)]
    >>> @jax.vmap
    ... def update(index):
    ...   tx = mtl.select(methods, index)
    ...   grads = jnp.diag(jnp.array([2.0, 1.0]))
    ...   return tx.update(grads, tx.init(None))[0]
    >>> print(update(jnp.arange(2)).round(3))
    [[0.4 0.8]
     [2.  1. ]]
  """
  methods = list(methods)
  if methods and all(isinstance(m, Weighting) for m in methods):
    return weightings.select(methods, index)
  for method in methods:
    if not isinstance(method, Aggregator):
      raise TypeError(
        f'select: {type(method).__name__} among the methods; they must be all '
        'aggregators such as mtl.cagrad(num_tasks=2), or all weightings such '
        'as mtl.weightings.cagrad().'
      )
    if method.weighting is None:
      raise TypeError(
        f'select: {method.info.name} as built here is more than weights, which '
        'are all that can be chosen; of mtl.sam and mtl.flat_regions, select '
        'the method inside.'
      )
  if not methods:
    raise ValueError('methods is empty; pass at least one.')
  _select.check_index(index, len(methods))
  first = methods[0]
  for method in methods[1:]:
    for name in _SAME:
      same = getattr(first, name) == getattr(method, name)
      _check_same(name, first, method, same)
    same = first.conventions.nonfinite == method.conventions.nonfinite
    _check_same('nonfinite', first, method, same)
  return _aggregate.build(
    _select.of_any_heads([_with_key(m) for m in methods], index),
    first.num_tasks,
    labels=first.labels,
    gramian_labels=first.gramian_labels,
    conventions=_chosen([m.conventions for m in methods], index),
    key=first.key,
  )


def _check_same(
  name: str, first: Aggregator, other: Aggregator, same: bool
) -> None:
  if not same:
    raise ValueError(
      f'methods differ in {name}: {first.info.name} and {other.info.name} '
      'share one program, so build them with the same.'
    )


def _with_key(method: Aggregator) -> Weighting:
  """The method's rule, started with the method's own key."""
  rule = method.weighting

  def init_fn(num_tasks, key=None):
    del key
    return rule.init(num_tasks, key=_aggregate.fresh_key(method.key))

  return rule._replace(init=init_fn)


def _chosen(
  conventions: Sequence[Conventions], index: ArrayLike
) -> Conventions:
  """The conventions of one method; numbers that all share stay as they are."""

  def pick(values: list[Any]) -> Any:
    known = all(isinstance(x, numbers.Real) for x in values)
    if known and len(set(values)) == 1:
      return values[0]
    return jnp.stack([jnp.asarray(x) for x in values])[index]

  bounds = [c.max_norm for c in conventions]
  if all(bound is None for bound in bounds):
    max_norm = None
  else:
    max_norm = pick([jnp.inf if x is None else x for x in bounds])
  return Conventions(
    weight_heads=pick([c.weight_heads for c in conventions]),
    scale=pick([c.scale for c in conventions]),
    max_norm=max_norm,
    nonfinite=conventions[0].nonfinite,
  )

"""Which task owns which parameter: a static tree of labels."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any, Literal

import jax
import optax

Label = int | Literal['shared', 'stacked']
Labels = Any  # a tree, or a prefix of the parameters' tree, of `Label`
Pattern = str | Sequence[str]
Path = tuple[Any, ...]

SHARED = 'shared'
STACKED = 'stacked'


def path_names(tree: Any) -> list[str]:
  """The path of every leaf, in flattening order, as ``'trunk/conv/kernel'``."""
  paths = jax.tree_util.tree_flatten_with_path(tree)[0]
  return [
    jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in paths
  ]


def _unboxed(path: Path) -> Path:
  """The path without the step into a box around an array.

  ``nnx.Variable`` and linen's ``Partitioned`` are nodes with one child,
  ``value``; `flax.nnx.Optimizer` hands its transformation trees without them.
  """
  boxed = path and getattr(path[-1], 'name', None) == 'value'
  return path[:-1] if boxed else path


def unboxed_names(tree: Any) -> list[str]:
  """As `path_names`, for leaves in a box the path of the box."""
  paths = jax.tree_util.tree_flatten_with_path(tree)[0]
  return [
    jax.tree_util.keystr(_unboxed(path), simple=True, separator='/')
    for path, _ in paths
  ]


def matches(
  pattern: Pattern | None,
  names: list[str],
  what: str,
  others: list[str] | None = None,
) -> set[int]:
  """Indices of the names that fully match, by either name, any pattern."""
  if pattern is None:
    return set()
  found = set()
  for single in [pattern] if isinstance(pattern, str) else pattern:
    regex = re.compile(single)
    hits = {
      i
      for i, both in enumerate(zip(names, others or names, strict=True))
      if any(regex.fullmatch(name) for name in both)
    }
    if not hits:
      below = f'{single}/.*'
      inside = any(re.fullmatch(below, name) for name in names)
      hint = (
        f' A pattern matches whole paths: {below!r} would.' if inside else ''
      )
      raise ValueError(
        f'{what}={single!r} matches no parameter; the paths are '
        f'{", ".join(names)}.{hint}'
      )
    found |= hits
  return found


def label_params(
  params: Any,
  *,
  shared: Pattern | None = None,
  tasks: Sequence[Pattern | None] = (),
  stacked: Pattern | None = None,
) -> Labels:
  """Labels every parameter by its path.

  A leaf is ``'shared'`` (all tasks use it), an int (the task that owns it) or
  ``'stacked'`` (fused heads: its own axis 0 is the task). The result is static
  data to pass as ``labels=`` to aggregators and gradient functions.

  Args:
    params: any tree with the structure of the parameters; only its paths are
      read.
    shared: regular expressions, each matched against the whole
      ``'/'``-separated path of a leaf. The leaf of a ``flax.nnx.Param`` may be
      named with or without the ``/value`` at its end.
    tasks: one expression, or a sequence of them, for each task in order; None
      for a task that owns nothing.
    stacked: expressions for parameters that hold all tasks on axis 0.

  Returns:
    A tree like ``params`` with a label at each leaf.

  Raises:
    ValueError: an expression matches nothing, or a leaf is matched by none or
      by more than one of the groups.

  Examples:
    >>> import mtljax as mtl
    >>> params = {'trunk': {'w': 0.0}, 'heads_0': {'w': 0.0}}
    >>> mtl.label_params(params, shared='trunk/.*', tasks=['heads_0/.*'])
    {'heads_0': {'w': 0}, 'trunk': {'w': 'shared'}}
  """
  if isinstance(tasks, str):
    raise TypeError(
      f'tasks={tasks!r} must be a sequence with a pattern for each task.'
    )
  names, others = path_names(params), unboxed_names(params)
  groups: list[tuple[Label, set[int]]] = [
    (SHARED, matches(shared, names, 'shared', others)),
    (STACKED, matches(stacked, names, 'stacked', others)),
  ]
  for t, pattern in enumerate(tasks):
    groups.append((t, matches(pattern, names, f'tasks[{t}]', others)))
  labels = []
  for i, name in enumerate(names):
    hits = [label for label, found in groups if i in found]
    if len(hits) != 1:
      problem = f'is matched by {hits}' if hits else 'is matched by nothing'
      raise ValueError(
        f'parameter {name!r} {problem}; exactly one of shared=, tasks= and '
        'stacked= must match it.'
      )
    labels.append(hits[0])
  return jax.tree.unflatten(jax.tree.structure(params), labels)


def match_params(params: Any, pattern: Pattern) -> Any:
  """Marks the parameters whose path matches, for ``gramian_labels=``.

  Args:
    params: any tree with the structure of the parameters.
    pattern: regular expressions, as in `label_params`.

  Returns:
    A tree like ``params`` of bools.

  Raises:
    ValueError: an expression matches nothing.

  Examples:
    >>> import mtljax as mtl
    >>> mtl.match_params({'conv': 0.0, 'fc': 0.0}, 'fc')
    {'conv': False, 'fc': True}
  """
  names = path_names(params)
  found = matches(pattern, names, 'pattern', unboxed_names(params))
  return jax.tree.unflatten(
    jax.tree.structure(params), [i in found for i in range(len(names))]
  )


def _is_masked(node: Any) -> bool:
  return isinstance(node, optax.MaskedNode)


def _is_gap(node: Any) -> bool:
  return node is None or _is_masked(node)


def _by_names(tree: Any) -> list[tuple[tuple[str, ...], Any]]:
  """Leaves, and what stands in for one, by the names on their paths."""
  flat = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_gap)[0]
  one = functools.partial(jax.tree_util.keystr, simple=True)
  return [(tuple(one((k,)) for k in _unboxed(path)), x) for path, x in flat]


def _owner(names: tuple[str, ...], values: dict[tuple[str, ...], Any]) -> Any:
  """The longest of the paths that leads to, or is, that of the names."""
  above = [names[:n] for n in range(len(names) + 1) if names[:n] in values]
  return above[-1] if above else None


def _by_path(prefix: Any, tree: Any) -> list[Any]:
  """The prefix's value at each leaf of the tree, found by names alone."""
  values = {k: x for k, x in _by_names(prefix) if not _is_gap(x)}
  out, used = [], set()
  for names, leaf in _by_names(tree):
    owner = _owner(names, values)
    used.add(owner)
    if _is_gap(leaf):
      used |= {other for other in values if other[: len(names)] == names}
    elif owner is None:
      raise ValueError(f'there is none for {"/".join(names)!r}.')
    else:
      out.append(values[owner])
  for names in values:
    if names not in used:
      raise ValueError(f'there is no parameter {"/".join(names)!r}.')
  return out


def _broadcast(prefix: Any, tree: Any, argument: str) -> list[Any]:
  """The prefix's value at each leaf of the tree.

  Trees of other node types (an ``nnx.State``, a dict) agree by their paths.
  """
  try:
    return jax.tree.leaves(jax.tree.broadcast(prefix, tree))
  except ValueError as error:
    try:
      return _by_path(prefix, tree)
    except ValueError as by_path:
      raise ValueError(
        f'{argument} must have the structure of the parameters, or be a prefix '
        f'of it: {by_path} Are the arguments in the right order?'
      ) from error


def flatten_labels(
  labels: Labels | None, tree: Any, num_tasks: int | None = None
) -> list[Label]:
  """The label of each leaf of ``tree``; None labels every leaf as shared."""
  flat = _broadcast(SHARED if labels is None else labels, tree, 'labels')
  for name, label in zip(path_names(tree), flat, strict=True):
    if label in (SHARED, STACKED) and not isinstance(label, bool):
      continue
    owner = isinstance(label, int) and not isinstance(label, bool)
    if not owner or label < 0 or label >= (num_tasks or label + 1):
      raise ValueError(
        f"labels: {name!r} is labelled {label!r}; a label is 'shared', "
        f"'stacked' or a task: an int from 0"
        f'{f" to {num_tasks - 1}" if num_tasks else ""}.'
      )
  return flat


def refuse_masked(updates: Any, labels: Labels | None, name: str) -> None:
  """Raises ValueError if a shared leaf is masked out of a method's gradients.

  Whoever masked it holds a gradient with a task axis, which nothing sums. Where
  another method does, `optax.MaskedNode` stands for the leaf in the labels too.
  """
  gaps = [names for names, leaf in _by_names(updates) if _is_masked(leaf)]
  if not gaps:
    return
  values = dict(_by_names(SHARED if labels is None else labels))
  for gap in gaps:
    below = [x for names, x in values.items() if names[: len(gap)] == gap]
    owner = _owner(gap, values)
    if SHARED in (*below, None if owner is None else values[owner]):
      raise ValueError(
        f'{name} is inside optax.masked or optax.partition, which keeps the '
        f'gradient of the shared parameter {"/".join(gap)!r}, task axis and '
        'all, from it: put them to the right of the method in optax.chain '
        '(or, where another method takes that parameter, optax.MaskedNode() '
        'in its place in the labels).'
      )


def flatten_gramian_labels(
  gramian_labels: Any | None, labels: list[Label], tree: Any
) -> list[bool]:
  """For each leaf of ``tree``, whether the Gramian is taken over it."""
  if gramian_labels is None:
    return [label == SHARED for label in labels]
  flat = _broadcast(gramian_labels, tree, 'gramian_labels')
  for name, used, label in zip(path_names(tree), flat, labels, strict=True):
    if not isinstance(used, bool):
      raise ValueError(
        f'gramian_labels: {name!r} is {used!r}, not a bool; build it with '
        'mtl.match_params.'
      )
    if used and label != SHARED:
      raise ValueError(
        f'gramian_labels: {name!r} is labelled {label!r}; the Gramian is taken '
        'over shared parameters only.'
      )
  if not any(flat):
    raise ValueError('gramian_labels: no leaf is selected.')
  return flat

"""Phase two: each task's gradient at its own point, written over the first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _labels, _tree, _validate
from mtljax._jaxprs import canonical_convolutions
from mtljax._labels import Label
from mtljax._types import Aggregator
from mtljax.aggregators import _per_task
from mtljax.sharpness import _ascent, _common
from mtljax.sharpness._ascent import Ascent

Norms = Literal['separate', 'joint']
Leaves = list[jax.Array]
# (shared gradients, own, shared parameters, own) to the two perturbations.
Perturb = Callable[[Leaves, Leaves, Leaves, Leaves], tuple[Leaves, Leaves]]
Merge = Callable[[jax.Array, jax.Array], jax.Array]
Mode = Literal['unroll', 'map']
MODES = ('unroll', 'map')


def perturb_by_norms(
  name: str,
  method: Aggregator,
  *,
  rho_shared: ArrayLike,
  rho_task: ArrayLike | None,
  ascent: Ascent,
  norms: Norms,
  perturb_heads: bool,
) -> Perturb:
  """What moves a task's parameters along its gradient, from checked options."""
  _validate.refuse_narrow(rho_shared=rho_shared, rho_task=rho_task)
  _validate.in_range('rho_shared', rho_shared, 0)
  _validate.in_range('rho_task', rho_task, 0, optional=True)
  _validate.flag('perturb_heads', perturb_heads)
  _validate.one_of('norms', norms, ('separate', 'joint'))
  if rho_task is not None:
    given = f'{name}(rho_task={rho_task}): '
    if method.labels is None:
      raise ValueError(
        given + 'the method has no labels, so no parameter belongs to a task; '
        'build it with labels=, see mtl.label_params.'
      )
    if norms == 'joint' or not perturb_heads:
      other = "norms='joint'" if norms == 'joint' else 'perturb_heads=False'
      raise ValueError(
        given + f'{other} has no radius for heads; leave rho_task at None.'
      )
  if norms == 'joint' and not perturb_heads:
    raise ValueError(
      f"{name}(norms='joint', perturb_heads=False): the joint norm is over "
      "shared parameters and heads; use norms='separate'."
    )
  rule_shared = _ascent.make_rule(ascent, rho_shared)
  if norms == 'joint':

    def by_one_norm(shared, own, shared_params, own_params):
      both = _ascent.perturbation(
        rule_shared, [shared, own], [shared_params, own_params]
      )
      return both[0], both[1]

    return by_one_norm
  rule_task = _ascent.make_rule(
    ascent, rho_shared if rho_task is None else rho_task
  )

  def by_two_norms(shared, own, shared_params, own_params):
    moves = _ascent.perturbation(rule_shared, shared, shared_params)
    if not perturb_heads:
      return moves, [jnp.zeros_like(x) for x in own]
    return moves, _ascent.perturbation(rule_task, own, own_params)

  return by_two_norms


def shared_of(leaves: Sequence[Any], labels: Sequence[Label]) -> list[Any]:
  """The leaves that are shared, in flattening order."""
  return [
    x
    for x, label in zip(leaves, labels, strict=True)
    if label == _labels.SHARED
  ]


def own_of(
  leaves: Sequence[jax.Array], labels: Sequence[Label], task: int
) -> Leaves:
  """The parts that belong to the task, in flattening order."""
  return [
    _common.own_slice(x, label, task)
    for x, label in zip(leaves, labels, strict=True)
    if label in (task, _labels.STACKED)
  ]


def put_shared(
  leaves: Sequence[jax.Array], labels: Sequence[Label], shared: Leaves
) -> Leaves:
  """The leaves with the shared ones replaced."""
  shared_leaves = iter(shared)
  return [
    next(shared_leaves) if label == _labels.SHARED else x
    for x, label in zip(leaves, labels, strict=True)
  ]


def put_own(
  leaves: Sequence[jax.Array], labels: Sequence[Label], task: int, own: Leaves
) -> Leaves:
  """The leaves with the parts that belong to the task replaced."""
  own_leaves = iter(own)
  return [
    _common.put_slice(x, label, task, next(own_leaves))
    if label in (task, _labels.STACKED)
    else x
    for x, label in zip(leaves, labels, strict=True)
  ]


def move(
  values: Sequence[jax.Array],
  labels: Sequence[Label],
  task: int,
  moves: Leaves,
  own_moves: Leaves,
) -> Leaves:
  """The parameters with the task's shared and own ones perturbed."""
  shared = _common.add(shared_of(values, labels), moves)
  own = _common.add(own_of(values, labels, task), own_moves)
  return put_own(put_shared(values, labels, shared), labels, task, own)


def read_first(leaves: Leaves, results: Leaves) -> Leaves:
  """The leaves, unchanged, but not before the results were computed.

  What reads them for the results is then done when they are overwritten, and
  no copy of them is kept. `jax.lax.optimization_barrier` did not order them on
  CPU; that a norm is never negative is something XLA cannot know.
  """
  if not results:
    return leaves
  never = _tree.norm(results) < 0
  return [jnp.where(never, jnp.zeros_like(x), x) for x in leaves]


def _add_own(
  sums: list[tuple[jax.Array, jax.Array]],
  grads: Sequence[jax.Array],
  labels: Sequence[Label],
  task: int,
  drop: bool,
) -> list[tuple[jax.Array, jax.Array]]:
  """The owned leaves' gradients from their owners and from all others.

  With ``drop``, a task has no part in others' leaves if it is not finite.
  """
  out = []
  good = _per_task.all_finite(grads) if drop else True
  owned = [
    (g, label)
    for g, label in zip(grads, labels, strict=True)
    if label != _labels.SHARED
  ]
  for (own, others), (g, label) in zip(sums, owned, strict=True):
    g = g.astype(own.dtype)
    if label == _labels.STACKED:
      mine, rest = own.at[task].set(g[task]), g.at[task].set(0)
    elif label == task:
      mine, rest = g, None
    else:
      mine, rest = own, g
    if rest is not None:
      others = others + jnp.where(good, rest, 0)
    out.append((mine, others))
  return out


def _where_moved(
  sums: tuple[jax.Array, jax.Array],
  here: jax.Array,
  label: Label,
  moved: jax.Array,
) -> jax.Array:
  """The gradient there, or here if no task that reads the leaf has moved."""
  own, others = sums
  axes = tuple(range(1 if label == _labels.STACKED else 0, here.ndim))
  read = jnp.any(others != 0, axis=axes) & jnp.any(moved)
  where = read | (moved if label == _labels.STACKED else moved[label])
  where = where.reshape(where.shape + (1,) * (here.ndim - where.ndim))
  return jnp.where(where, own + others, here).astype(here.dtype)


def replace_gradients(
  leaves: Sequence[jax.Array],
  labels: Sequence[Label],
  params: Any,
  task_grad_fn: Callable[[Any, int], tuple[jax.Array, Any]],
  num_tasks: int,
  perturb: Perturb,
  *,
  merge_shared: Merge,
  merge_own: Merge,
  mode: Mode,
  drop: bool,
) -> Leaves:
  """Per-task gradients, each merged with that at the task's own point.

  A task whose perturbation does not move it has the same gradient ``there`` as
  ``here``, exactly. That of an owned leaf is the sum over the tasks, as where
  others than its owner may read it; with ``drop`` without tasks that are not
  finite. In the mode ``'map'``, ``merge(there,
  here)`` is written over the task's row, so that no second stack is needed.
  """
  values, treedef = jax.tree.flatten(params)
  places = shared_of(values, labels)

  def task_fn(t):
    def merged(here, sums):
      """The task's shared rows, whether it moved, and sums of owned leaves."""
      own, own_places = own_of(leaves, labels, t), own_of(values, labels, t)
      moves, own_moves = perturb(here, own, places, own_places)
      point = move(values, labels, t, moves, own_moves)
      moved = jnp.zeros((), bool)
      for a, b in zip(values, point, strict=True):
        moved = moved | jnp.any(a != b)
      _, grads = task_grad_fn(jax.tree.unflatten(treedef, point), t)
      grads = jax.tree.leaves(grads)
      rows = [
        merge_shared(jnp.where(moved, a, b).astype(b.dtype), b)
        for a, b in zip(shared_of(grads, labels), here, strict=True)
      ]
      return rows, moved, _add_own(sums, grads, labels, t, drop)

    return merged

  rows = shared_of(leaves, labels)
  sums = [
    (jnp.zeros_like(x), jnp.zeros_like(x))
    for x, label in zip(leaves, labels, strict=True)
    if label != _labels.SHARED
  ]
  if mode == 'unroll':
    found, moved = [], []
    for t in range(num_tasks):
      row, has_moved, sums = task_fn(t)([x[t] for x in rows], sums)
      found.append(row)
      moved.append(has_moved)
    rows = [jnp.stack(leaf) for leaf in zip(*found, strict=True)]
    moved = jnp.stack(moved)
  else:
    branches = [canonical_convolutions(task_fn(t)) for t in range(num_tasks)]

    def body(t, carry):
      rows, moved, sums = carry
      here = [x[t] for x in rows]
      row, has_moved, sums = jax.lax.switch(t, branches, here, sums)
      rows = [x.at[t].set(r) for x, r in zip(rows, row, strict=True)]
      return rows, moved.at[t].set(has_moved), sums

    start = (rows, jnp.zeros((num_tasks,), bool), sums)
    rows, moved, sums = jax.lax.fori_loop(0, num_tasks, body, start)

  sums = iter(sums)
  own = [
    x
    if label == _labels.SHARED
    else merge_own(_where_moved(next(sums), x, label, moved), x)
    for x, label in zip(leaves, labels, strict=True)
  ]
  return put_shared(own, labels, rows)

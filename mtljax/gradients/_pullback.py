"""One forward pass of a multi-task loss, and what can be pulled back from it.

The three forms of a loss (plain, staged, a sequence) become one interface, on
which every route is a few lines: per-task rows, weighted sums, gradients at
the features. Nothing is computed that is not asked for: under jit, what a
caller leaves unused is removed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from mtljax import _labels, _tree, _validate
from mtljax.gradients._staged import Staged

LossFn = Callable[..., Any] | Staged | Sequence[Callable[..., Any]]
Mode = Literal['unroll', 'vmap', 'map']
MODES = ('unroll', 'vmap', 'map')


@dataclasses.dataclass(frozen=True)
class Split:
  """Parameters as two lists: shared leaves, and leaves that tasks own."""

  treedef: Any
  labels: tuple[_labels.Label, ...]

  def split(self, leaves: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Shared leaves and owned leaves, each in flattening order."""
    pairs = list(zip(leaves, self.labels, strict=True))
    return (
      [x for x, label in pairs if label == _labels.SHARED],
      [x for x, label in pairs if label != _labels.SHARED],
    )

  def merge(self, shared: Sequence[Any], own: Sequence[Any]) -> Any:
    """The tree again."""
    shared, own = iter(shared), iter(own)
    return jax.tree.unflatten(
      self.treedef,
      [
        next(shared) if label == _labels.SHARED else next(own)
        for label in self.labels
      ],
    )


@dataclasses.dataclass(frozen=True)
class Pullback:
  """The losses of a forward pass, and the maps back from it.

  Attributes:
    losses: shape ``(T,)``.
    aux: the auxiliary output; for a staged loss ``(trunk's, (head 0's, ...))``,
      for a sequence a tuple.
    split: how the parameters divide.
    rows: ``rows(mode)``: the shared leaves of all tasks, each ``(T, ...)``.
    own: ``own(weights)``: the owned leaves, task t's times ``weights[t]``.
    combined: ``combined(weights)``: the shared leaves of the weighted sum.
    features: the gradients at the shared features, leaves ``(T, ...)``; None
      unless the loss is staged.
  """

  losses: jax.Array
  aux: Any
  split: Split
  rows: Callable[[Mode], list[jax.Array]]
  own: Callable[[jax.Array], list[jax.Array]]
  combined: Callable[[jax.Array], list[jax.Array]]
  features: Callable[[], list[jax.Array]] | None = None

  def task_grads(self, mode: Mode) -> Any:
    """The tree of per-task gradients."""
    return self.split.merge(self.rows(mode), self.own(self.ones()))

  def summed(self) -> Any:
    """The gradient of the sum of the losses, by one backward pass."""
    ones = self.ones()
    return self.split.merge(self.combined(ones), self.own(ones))

  def ones(self) -> jax.Array:
    """Weights of the plain sum."""
    return jnp.ones_like(self.losses)


@dataclasses.dataclass(frozen=True)
class Place:
  """Where the rows of a pullback lie on a mesh.

  Attributes:
    row: constrains the shared leaves of one task's gradient.
    task_axis: the mesh axis that the tasks are spread over, or None.
  """

  row: Callable[[list[jax.Array]], list[jax.Array]]
  task_axis: str | None


def _stack(rows: list[list[jax.Array]]) -> list[jax.Array]:
  return [jnp.stack(leaf) for leaf in zip(*rows, strict=True)]


def _map_rows(
  pull: Callable[[Any], list[jax.Array]],
  cotangents: Any,
  num_tasks: int,
  mode: Mode,
  place: Place | None,
) -> list[jax.Array]:
  """Pulls T stacked cotangents back, one by one or together."""
  if place is not None:
    unplaced = pull
    pull = lambda c: place.row(unplaced(c))
  if mode == 'vmap':
    axis = None if place is None else place.task_axis
    return jax.vmap(pull, spmd_axis_name=axis)(cotangents)
  if mode == 'map':
    return jax.lax.map(pull, cotangents)
  return _stack(
    [
      pull(jax.tree.map(lambda c, t=t: c[t], cotangents))
      for t in range(num_tasks)
    ]
  )


def _vector(losses: Any) -> jax.Array:
  if jnp.ndim(losses) != 1:
    raise ValueError(
      'the task losses must be one array of shape (T,); got '
      f'{jax.tree.map(jnp.shape, losses)}. For a list of scalar losses, '
      'use jnp.stack.'
    )
  return losses


def _scalar(loss: Any, task: int) -> jax.Array:
  if jnp.shape(loss) != ():
    raise ValueError(
      f'the loss of task {task} must be a scalar; got shape '
      f'{jnp.shape(loss)}. Take its mean over the batch.'
    )
  return loss


def with_aux(output: Any, has_aux: bool) -> tuple[Any, Any]:
  return output if has_aux else (output, None)


def make_pullback(
  fun: LossFn,
  params: Any,
  args: tuple[Any, ...],
  *,
  labels: _labels.Labels | None,
  has_aux: bool,
  place: Place | None = None,
) -> Pullback:
  """Evaluates the losses of any form and returns their pullback."""
  leaves, treedef = jax.tree.flatten(params)
  num_tasks = loss_num_tasks(fun)
  split = Split(
    treedef, tuple(_labels.flatten_labels(labels, params, num_tasks))
  )
  shared, own = split.split(leaves)
  if isinstance(fun, Staged):
    return _staged(fun, split, shared, own, args, has_aux, place)
  if isinstance(fun, Sequence):
    return _sequence(fun, split, shared, own, args, has_aux)
  return _plain(fun, split, shared, own, args, has_aux, place)


def loss_num_tasks(fun: LossFn) -> int | None:
  """The number of tasks, where the form of the loss tells it."""
  if isinstance(fun, Staged):
    return len(fun.heads)
  return len(fun) if isinstance(fun, Sequence) else None


def task_losses(
  fun: LossFn, params: Any, args: tuple[Any, ...], *, has_aux: bool
) -> jax.Array:
  """The losses alone, shape ``(T,)``."""
  pullback = make_pullback(fun, params, args, labels=None, has_aux=has_aux)
  return pullback.losses


def _plain(fun, split, shared, own, args, has_aux, place) -> Pullback:
  def forward(shared, own):
    losses, aux = with_aux(fun(split.merge(shared, own), *args), has_aux)
    return _vector(losses), aux

  losses, pull, aux = jax.vjp(forward, shared, own, has_aux=True)
  num_tasks = losses.shape[0]
  return Pullback(
    losses=losses,
    aux=aux,
    split=split,
    rows=lambda mode: _map_rows(
      lambda c: pull(c)[0],
      jnp.eye(num_tasks, dtype=losses.dtype),
      num_tasks,
      mode,
      place,
    ),
    own=lambda weights: pull(weights.astype(losses.dtype))[1],
    combined=lambda weights: pull(weights.astype(losses.dtype))[0],
  )


def _zeros(leaves):
  return [jnp.zeros_like(x) for x in leaves]


def _add(a, b):
  return jax.tree.map(jnp.add, a, b)


def _weighted_sum(weights, trees):
  """``sum_t weights[t] * trees[t]``, added up in float32 or wider."""

  def leaf_sum(*leaves):
    acc = _tree.accumulator(leaves[0].dtype)
    total = sum(
      weights[t].astype(acc) * leaf.astype(acc) for t, leaf in enumerate(leaves)
    )
    return total.astype(leaves[0].dtype)

  return jax.tree.map(leaf_sum, *trees)


def _staged(fun, split, shared, own, args, has_aux, place) -> Pullback:
  def trunk(shared, own):
    out = fun.trunk(split.merge(shared, own), *args)
    return with_aux(out, has_aux)

  features, pull_trunk, trunk_aux = jax.vjp(trunk, shared, own, has_aux=True)

  losses, head_aux, d_shared, d_own, d_features = [], [], [], [], []
  for t, head in enumerate(fun.heads):

    def head_loss(shared, own, features, t=t, head=head):
      out = head(split.merge(shared, own), features, *args)
      loss, aux = with_aux(out, has_aux)
      return _scalar(loss, t), aux

    loss, pull, aux = jax.vjp(head_loss, shared, own, features, has_aux=True)
    grads = pull(jnp.ones_like(loss))
    losses.append(loss)
    head_aux.append(aux)
    d_shared.append(grads[0])
    d_own.append(grads[1])
    d_features.append(grads[2])
  losses = jnp.stack(losses)
  num_tasks = len(fun.heads)

  def rows(mode):
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *d_features)
    through = _map_rows(
      lambda c: pull_trunk(c)[0], stacked, num_tasks, mode, place
    )
    return _add(through, _stack(d_shared)) if shared else through

  def combined(weights):
    through = pull_trunk(_weighted_sum(weights, d_features))[0]
    return _add(through, _weighted_sum(weights, d_shared))

  def own_grads(weights):
    # A trunk that reads a task's parameters is pulled back for them too; for
    # the usual one these are zeros, and the compiler drops the pass.
    through = pull_trunk(_weighted_sum(weights, d_features))[1]
    return _add(through, _weighted_sum(weights, d_own))

  return Pullback(
    losses=losses,
    aux=(trunk_aux, tuple(head_aux)),
    split=split,
    rows=rows,
    own=own_grads,
    combined=combined,
    features=lambda: _stack([jax.tree.leaves(d) for d in d_features]),
  )


def _sequence(funs, split, shared, own, args, has_aux) -> Pullback:
  batches, rest = args[0], args[1:]
  if len(batches) != len(funs):
    raise ValueError(
      f'a sequence of {len(funs)} losses needs as many batches, one a task; '
      f'got {len(batches)}.'
    )
  losses, auxes, pulls = [], [], []
  for t, fun in enumerate(funs):

    def forward(shared, own, t=t, fun=fun, batch=batches[t]):
      out = fun(split.merge(shared, own), batch, *rest)
      loss, aux = with_aux(out, has_aux)
      return _scalar(loss, t), aux

    loss, pull, aux = jax.vjp(forward, shared, own, has_aux=True)
    losses.append(loss)
    auxes.append(aux)
    pulls.append(pull)
  losses = jnp.stack(losses)

  def grads(weights, part):
    weights = weights.astype(losses.dtype)
    total = pulls[0](weights[0])[part]
    for t, pull in enumerate(pulls[1:], start=1):
      total = _add(total, pull(weights[t])[part])
    return total

  def rows(mode):
    del mode  # each task has its own forward pass, so its own pullback
    return _stack([pull(jnp.ones((), losses.dtype))[0] for pull in pulls])

  return Pullback(
    losses=losses,
    aux=tuple(auxes),
    split=split,
    rows=rows,
    own=lambda weights: grads(weights, 1),
    combined=lambda weights: grads(weights, 0),
  )


def check_mode(mode: str) -> None:
  """Raises ValueError for an unknown mode."""
  _validate.one_of('mode', mode, MODES)

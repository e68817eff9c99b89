"""One forward pass of a multi-task loss, and what can be pulled back from it.

The three forms of a loss (plain, staged, a sequence) become one interface, on
which every route is a few lines: per-task rows, weighted sums, gradients at
the features. Nothing is computed that is not asked for: under jit, what a
caller leaves unused is removed.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtljax import _labels, _params, _tree
from mtljax.gradients import (
  _dependence,
  _feature_norms,
  _outputs,
  _owners,
  _patterns,
)
from mtljax.gradients._layerwise import Layers
from mtljax.gradients._passes import Passes, map_rows
from mtljax.gradients._place import Place
from mtljax.gradients._split import Split as Split
from mtljax.gradients._staged import Features, Staged
from mtljax.gradients._watched import Watch, evaluate, make_layers, ready
from mtljax.gradients._watched import take as take

LossFn = Callable[..., Any] | Staged | Sequence[Callable[..., Any]]


@dataclasses.dataclass(frozen=True)
class Pullback:
  """The losses of a forward pass, and the maps back from it.

  Attributes:
    losses: shape ``(T,)``.
    aux: the auxiliary output; for a staged loss ``(trunk's, (head 0's, ...))``,
      for a sequence a tuple.
    split: how the parameters divide.
    rows: ``rows(passes, tasks=None)``: the shared leaves of those tasks, an
      array of indices, all by default, each ``(T, ...)``.
    own: ``own(weights=None)``: the owned leaves, task t's times
      ``weights[t]``.
    combined: ``combined(weights)``: the shared leaves of the weighted sum.
    features: the gradients at the shared features, leaves ``(T, ...)``; None
      unless the loss is staged.
    feature_norms: ``feature_norms(chunks)``: their squared norms ``(T,
      chunks)`` over chunks of the batch; None unless the loss is staged.
    layers: the same for the layers' inputs and signals; None unless the
      pass was watched.
    gramian: ``gramian(gramian_labels, chunk_size)``, where samples are the
      tasks; else None.
  """

  losses: jax.Array
  aux: Any
  split: Split
  rows: Callable[..., list[jax.Array]]
  own: _owners.Own
  combined: Callable[[jax.Array], list[jax.Array]]
  features: Callable[[], list[jax.Array]] | None = None
  feature_norms: Callable[[int], jax.Array] | None = None
  layers: Callable[..., Layers] | None = None
  gramian: Callable[..., jax.Array] | None = None

  def task_grads(self, passes: Passes) -> Any:
    """The tree of per-task gradients."""
    return self.split.merge(self.rows(passes), self.own())

  def summed(self, mask: jax.Array | None = None) -> Any:
    """The gradient of the sum of the losses, by one backward pass.

    Of those of the tasks present, where a mask ``(T,)`` says which are.
    """
    if mask is None:
      return self.split.merge(self.combined(self.ones()), self.own())
    weights = mask.astype(self.losses.dtype)
    return self.split.merge(self.combined(weights), self.own(weights))

  def in_range_of(self, signals: list[Any]) -> Pullback:
    """The same for weights beyond the range of the losses or the signals."""
    through = [self.losses, *signals]
    return dataclasses.replace(
      self,
      own=_tree.in_range_of(through, self.own),
      combined=_tree.in_range_of(through, self.combined),
    )

  def ones(self) -> jax.Array:
    """Weights of the plain sum."""
    return jnp.ones_like(self.losses)


def _stack(rows: list[list[jax.Array]]) -> list[jax.Array]:
  return [jnp.stack(leaf) for leaf in zip(*rows, strict=True)]


def make_pullback(
  fun: LossFn,
  params: Any,
  args: tuple[Any, ...],
  *,
  labels: _labels.Labels | None,
  has_aux: bool,
  watch: bool = False,
  cheapest: bool = False,
  place: Place | None = None,
  mask: jax.Array | None = None,
) -> Pullback:
  """Evaluates the losses of any form and returns their pullback.

  With ``watch`` the layers are watched too, which a sequence of losses, each
  with its own pass, does not allow; ``cheapest``: for the least work, though
  that keep the gradients of all tasks. ``place`` says where on a mesh the rows
  of the other forms go. What tasks outside the ``mask`` ``(T,)`` send back is
  zero, whatever it was; in the plain form, whatever is finite.
  """
  _params.check_params(params)
  split = make_split(fun, params, labels)
  shared, own = split.split(jax.tree.leaves(params))
  how = Watch(cheapest) if watch else None
  if isinstance(fun, Staged):
    return _staged(fun, split, shared, own, args, has_aux, how, place, mask)
  if isinstance(fun, Sequence):
    made = _sequence(fun, split, shared, own, args, has_aux, mask)
    return made.in_range_of([])
  made = _plain(fun, split, shared, own, args, has_aux, how, place, mask)
  return made.in_range_of([])


def bind(fun: LossFn, kwargs: dict[str, Any]) -> LossFn:
  """The losses with keyword arguments given."""
  if not kwargs:
    return fun
  give = lambda f: functools.partial(f, **kwargs)
  if isinstance(fun, Staged):
    return Staged(give(fun.trunk), [give(head) for head in fun.heads])
  return [give(f) for f in fun] if isinstance(fun, Sequence) else give(fun)


def make_split(fun: LossFn, params: Any, labels: Any) -> Split:
  """How the parameters divide."""
  flat = _labels.flatten_labels(labels, params, loss_num_tasks(fun))
  return Split(jax.tree.structure(params), tuple(flat))


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


def _plain(
  fun, split, shared, own, args, has_aux, watch, place, mask
) -> Pullback:
  def forward(shared, own):
    params = split.merge(shared, own)
    with _outputs.called('the loss', params, args):
      out = fun(params, *args)
    losses, aux = _outputs.with_aux(out, has_aux)
    return _outputs.vector(losses), aux

  passed = evaluate(forward, shared, own, watch, bool(own))
  losses = passed.out
  num_tasks = losses.shape[0]
  cotangents = _tree.present(mask, jnp.eye(num_tasks, dtype=losses.dtype))
  pull = lambda weights: passed.pull(weights.astype(losses.dtype))

  def rows(passes, tasks=None):
    some = take(cotangents, tasks)
    return map_rows(lambda c: pull(c)[0], some, len(some), passes, place)

  return Pullback(
    losses=losses,
    aux=passed.aux,
    split=split,
    rows=rows,
    own=split.separate(
      lambda weights: pull(weights)[1],
      own,
      losses,
      lambda: passed.pull.reach([np.eye(num_tasks, dtype=bool)], num_tasks)[1],
      lambda: _dependence.proven(
        lambda *leaves: forward(*leaves)[0], shared, own, num_tasks
      ),
    ),
    combined=lambda weights: pull(weights)[0],
    layers=make_layers(passed, shared, cotangents, num_tasks, place),
  )


def _none(x):
  return x is None


def _add(a, b):
  return jax.tree.map(jnp.add, a, b)


def _of_present(mask, t, tree):
  """What task t sends back; zeros where the mask says that it is absent."""
  if mask is None:
    return tree
  return jax.tree.map(lambda x: _tree.present(mask[t], x), tree)


def _weighted_sum(weights, trees):
  """``sum_t weights[t] * trees[t]``, added up in float32 or wider."""

  def leaf_sum(*leaves):
    acc = _tree.accumulator(leaves[0].dtype)
    total = sum(
      weights[t].astype(acc) * leaf.astype(acc) for t, leaf in enumerate(leaves)
    )
    return total.astype(leaves[0].dtype)

  return jax.tree.map(leaf_sum, *trees)


def _staged(
  fun, split, shared, own, args, has_aux, watch, place, mask
) -> Pullback:
  parts = Features()

  def trunk(shared, own):
    params = split.merge(shared, own)
    with _outputs.called('the trunk', params, args):
      out = fun.trunk(params, *args)
    out, aux = _outputs.with_aux(out, has_aux)
    features, rest = parts.split(out)
    return features, (aux, rest)

  num_tasks = len(fun.heads)
  tell = bool(own) and num_tasks > 1
  passed = evaluate(trunk, shared, own, watch, tell, num_tasks)
  features, (trunk_aux, rest) = passed.out, passed.aux

  losses, head_aux, d_shared, d_own, d_features, found = [], [], [], [], [], []
  for t, head in enumerate(fun.heads):

    def head_loss(shared, own, features, t=t, head=head):
      whole = parts.merge(features, rest)
      out = head(split.merge(shared, own), whole, *args)
      loss, aux = _outputs.with_aux(out, has_aux)
      return _outputs.scalar(loss, t), aux

    loss, pull, aux = jax.vjp(head_loss, shared, own, features, has_aux=True)
    pull = ready(pull, loss, watch is not None or tell)
    if watch is not None or tell:
      mine = [_dependence.one_task(t, num_tasks)]
      found.append(jax.tree.leaves(pull.reach(mine, num_tasks), is_leaf=_none))
    grads = _of_present(mask, t, pull(jnp.ones_like(loss)))
    losses.append(loss)
    head_aux.append(aux)
    d_shared.append(grads[0])
    d_own.append(grads[1])
    d_features.append(grads[2])
  losses = jnp.stack(losses)
  stacked = jax.tree.map(lambda *x: jnp.stack(x), *d_features)
  of_leaves = [_patterns.union(*x) for x in zip(*found, strict=True)]
  # Shared leaves that heads read themselves.
  beside = [i for i, x in enumerate(of_leaves[: len(shared)]) if x is not None]

  def rows(passes, tasks=None):
    if not shared:
      return []
    count = num_tasks if tasks is None else len(tasks)
    some = take(stacked, tasks)
    through = map_rows(lambda c: passed.pull(c)[0], some, count, passes, place)
    return _add(through, take(_stack(d_shared), tasks))

  def combined(weights):
    through = passed.pull(_weighted_sum(weights, d_features))[0]
    return _add(through, _weighted_sum(weights, d_shared))

  def own_grads(weights):
    # A trunk that reads a task's parameters is pulled back for them too; for
    # the usual one these are zeros, and the compiler drops the pass.
    through = passed.pull(_weighted_sum(weights, d_features))[1]
    return _add(through, _weighted_sum(weights, d_own))

  def patterns():
    at_heads = of_leaves[len(shared) : len(shared) + len(own)]
    through = passed.pull.reach(of_leaves[-len(features) :], num_tasks)[1]
    return list(map(_patterns.union, at_heads, through))

  def feature_norms(chunks):
    _feature_norms.check_no_statistics(head_aux)
    leaves = parts.check(stacked)
    return _feature_norms.squared_norms(leaves, parts.names, chunks)

  def together(shared, own):
    features, (_, rest) = trunk(shared, own)
    return jnp.stack(
      [
        _outputs.with_aux(
          head(split.merge(shared, own), parts.merge(features, rest), *args),
          has_aux,
        )[0]
        for head in fun.heads
      ]
    )

  return Pullback(
    losses=losses,
    aux=(trunk_aux, tuple(head_aux)),
    split=split,
    rows=rows,
    own=split.separate(
      own_grads,
      own,
      losses,
      patterns,
      lambda: _dependence.proven(together, shared, own, num_tasks),
    ),
    combined=combined,
    features=lambda: parts.check(stacked),
    feature_norms=feature_norms,
    layers=make_layers(
      passed,
      shared,
      stacked,
      num_tasks,
      place,
      (_stack(d_shared) if beside else [], beside),
    ),
  ).in_range_of(jax.tree.leaves(stacked))


def _sequence(funs, split, shared, own, args, has_aux, mask) -> Pullback:
  batches, rest = args[0], args[1:]
  if len(batches) != len(funs):
    raise ValueError(
      f'a sequence of {len(funs)} losses needs as many batches, one a task; '
      f'got {len(batches)}.'
    )
  num_tasks = len(funs)
  tell = bool(own) and num_tasks > 1
  forwards, losses, auxes, pulls = [], [], [], []
  for t, fun in enumerate(funs):

    def forward(shared, own, t=t, fun=fun, batch=batches[t]):
      params = split.merge(shared, own)
      with _outputs.called(f'the loss of task {t}', params, (batch, *rest)):
        out = fun(params, batch, *rest)
      loss, aux = _outputs.with_aux(out, has_aux)
      return _outputs.scalar(loss, t), aux

    loss, pull, aux = jax.vjp(forward, shared, own, has_aux=True)
    forwards.append(forward)
    losses.append(loss)
    auxes.append(aux)
    pulls.append(ready(pull, loss, tell))
  losses = jnp.stack(losses)

  def grads(weights, part):
    weights = weights.astype(losses.dtype)
    found = [
      _of_present(mask, t, pull(weights[t])[part])
      for t, pull in enumerate(pulls)
    ]
    return functools.reduce(_add, found)

  def rows(passes, tasks=None):
    del passes  # each task has its own forward pass, so its own pullback
    ones = jnp.ones((), losses.dtype)
    stacked = _stack([pull(ones)[0] for pull in pulls])
    return take([_tree.present(mask, x) for x in stacked], tasks)

  def patterns():
    found = [
      pull.reach([_dependence.one_task(t, num_tasks)], num_tasks)[1]
      for t, pull in enumerate(pulls)
    ]
    return [_patterns.union(*of_leaf) for of_leaf in zip(*found, strict=True)]

  def together(shared, own):
    return jnp.stack([forward(shared, own)[0] for forward in forwards])

  return Pullback(
    losses=losses,
    aux=tuple(auxes),
    split=split,
    rows=rows,
    own=split.separate(
      lambda weights: grads(weights, 1),
      own,
      losses,
      patterns,
      lambda: _dependence.proven(together, shared, own, num_tasks),
    ),
    combined=lambda weights: grads(weights, 0),
  )


def has_one_pass(fun: LossFn) -> bool:
  """Whether all tasks share a batch and its forward pass."""
  return isinstance(fun, Staged) or callable(fun)


def check_staged(fun: LossFn, what: str) -> None:
  """Raises ValueError for losses that do not name their features."""
  if not isinstance(fun, Staged):
    raise ValueError(
      f'{what}, which only the staged form of the losses names; pass an '
      'mtl.Staged.'
    )


def check_one_pass(fun: LossFn, what: str) -> None:
  """Raises ValueError for a sequence of losses, each with its own pass."""
  if not has_one_pass(fun):
    raise ValueError(
      f'{what} needs one forward pass for all tasks, which a sequence of '
      'losses with a batch each has not; use the jacobian or the plain gramian '
      'route.'
    )

"""The model's next state and the metrics, from what a loss of any form gave.

Means are taken of floating leaves only. Of a counter, a key or a mask the one
of the first pass is kept: every pass starts from the same state, so a counter
or a key that moves on without looking at the data is the same in all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtljax import _labels
from mtljax.gradients import HeadAux, _pullback
from mtljax.gradients._pullback import LossFn, Pullback


def split_aux(
  aux: Any, loss_fn: LossFn, before: Any, mask: jax.Array | None = None
) -> tuple[Any, Any]:
  """The model's next state, and the metrics, from any form's ``aux``.

  Args:
    aux: the auxiliary output of a pass.
    loss_fn: the losses.
    before: the state that the pass began with.
    mask: the tasks present, ``(T,)``; what the others made of the state is
      left out. None: all are.

  Raises:
    ValueError: a state differs from ``before`` in structure, shape or dtype, or
      metrics are not dictionaries.
  """
  if isinstance(loss_fn, _pullback.Staged):
    model_state, per_task = aux
    metrics = _gather(
      [x.metrics if isinstance(x, HeadAux) else x for x in per_task]
    )
    states = [_with_heads(model_state, per_task, before, mask)]
    mask = None
  elif callable(loss_fn):
    model_state, metrics = _pair(aux)
    metrics = _dictionary(metrics, 'the metrics')
    states, mask = [model_state], None
  else:
    # Tasks with batches of their own each saw the same state.
    states, per_task = zip(*map(_pair, aux), strict=True)
    metrics = _gather(per_task)
  for state in states:
    _check_alike(before, state)
  return mean_of_floating(states, before, mask), metrics


def _with_heads(
  model_state: Any, per_task: Sequence[Any], before: Any, mask: Any
) -> Any:
  """The state with what heads changed of it, means where several did."""
  changed = {
    t: x.model_state for t, x in enumerate(per_task) if isinstance(x, HeadAux)
  }
  if not changed:
    return model_state
  found = {}
  for name in {name: None for x in changed.values() for name in x}:
    tasks = [t for t, x in changed.items() if name in x]
    states = [changed[t][name] for t in tasks]
    here = None if mask is None else jnp.stack([mask[t] for t in tasks])
    # A part that did not come in is refused after this.
    found[name] = mean_of_floating(states, before.get(name, states[0]), here)
  return {**model_state, **found}


def of_pullback(
  make: Callable[..., Pullback],
  loss_fn: LossFn,
  before: Any,
  mask: jax.Array | None = None,
) -> Callable[..., Pullback]:
  """``make`` of pullbacks whose ``aux`` is the next state and the metrics."""

  def made(*args, **kwargs):
    pullback = make(*args, **kwargs)
    aux = split_aux(pullback.aux, loss_fn, before, mask)
    return dataclasses.replace(pullback, aux=aux)

  return made


def mean_of_floating(
  trees: Sequence[Any], before: Any = None, mask: jax.Array | None = None
) -> Any:
  """Means of the floating leaves; the others are those of the first tree.

  With a mask, of the trees that it marks, and ``before`` if there are none.
  """
  if mask is not None:
    return jax.tree.map(
      lambda old, *xs: _masked_mean(mask, old, xs), before, *trees
    )
  if len(trees) == 1:
    return trees[0]

  def leaf(*xs):
    return sum(xs) / len(xs) if is_floating(xs[0]) else xs[0]

  return jax.tree.map(leaf, *trees)


def _masked_mean(mask: jax.Array, old: Any, xs: Sequence[Any]) -> Any:
  if not is_floating(xs[0]):
    first = old
    for t in reversed(range(len(xs))):
      first = jnp.where(mask[t], xs[t], first)
    return first
  total = sum(jnp.where(mask[t], x, 0) for t, x in enumerate(xs))
  mean = total / jnp.maximum(jnp.sum(mask), 1).astype(_dtype(xs[0]))
  return jnp.where(jnp.any(mask), mean, old)


def is_floating(x: Any) -> bool:
  """Whether a mean of such leaves means anything."""
  return jnp.issubdtype(_dtype(x), jnp.inexact)


class Summable:
  """A tree as arrays that can be added up and chosen from, and back.

  Keys become their data, and numbers among metrics floating, so that their mean
  is one. What it keeps of `encode` is static.
  """

  def __init__(self):
    self._impls: list[Any] = []

  def encode(self, aux: Any) -> Any:
    """Of ``(model_state, metrics)``, or of what holds no arrays."""
    if not jax.tree.leaves(aux):
      return aux
    model_state, metrics = aux
    metrics = jax.tree.map(
      lambda x: x if is_floating(x) or _is_key(x) else jnp.float32(x), metrics
    )
    leaves, treedef = jax.tree.flatten((model_state, metrics))
    self._impls = [
      jax.random.key_impl(x) if _is_key(x) else None for x in leaves
    ]
    return jax.tree.unflatten(
      treedef, [jax.random.key_data(x) if _is_key(x) else x for x in leaves]
    )

  def decode(self, aux: Any) -> Any:
    """The tree of the encoded one's kind."""
    leaves, treedef = jax.tree.flatten(aux)
    return jax.tree.unflatten(
      treedef,
      [
        x if impl is None else jax.random.wrap_key_data(x, impl=impl)
        for x, impl in zip(leaves, self._impls, strict=True)
      ],
    )


def _is_key(x: Any) -> bool:
  return jnp.issubdtype(_dtype(x), jax.dtypes.prng_key)


def _dtype(x: Any) -> Any:
  return x.dtype if hasattr(x, 'dtype') else jnp.result_type(x)


def _pair(aux: Any) -> tuple[Any, Any]:
  if not isinstance(aux, tuple | list) or len(aux) != 2:
    raise ValueError(
      'has_state=True: the auxiliary output of the loss must be a pair '
      f'(model_state, metrics); got a {type(aux).__name__}.'
    )
  return aux[0], aux[1]


def _dictionary(metrics: Any, what: str) -> dict[str, Any]:
  if not isinstance(metrics, Mapping):
    raise ValueError(
      f'{what} must be a dictionary of arrays by name; got a '
      f'{type(metrics).__name__}.'
    )
  return dict(metrics)


def _gather(per_task: Sequence[Any]) -> dict[str, Any]:
  """Stacked where all tasks have them alike, else named after their task."""
  found = [
    _dictionary(metrics, f'the metrics of task {t}')
    for t, metrics in enumerate(per_task)
  ]
  gathered: dict[str, Any] = {}
  for name in dict.fromkeys(name for metrics in found for name in metrics):
    have = {t: m[name] for t, m in enumerate(found) if name in m}
    if len(have) == len(found) and _alike(list(have.values())):
      named = {name: jax.tree.map(lambda *x: jnp.stack(x), *have.values())}
    else:
      named = {f'{name}/{t}': value for t, value in have.items()}
    for key in named:
      if key in gathered:
        raise ValueError(
          f'metrics: {key!r} names two; tasks return it, and {name!r} too.'
        )
    gathered |= named
  return gathered


def _alike(values: list[Any]) -> bool:
  forms = {
    (jax.tree.structure(x), tuple(map(jnp.shape, jax.tree.leaves(x))))
    for x in values
  }
  return len(forms) == 1


def _check_alike(before: Any, after: Any) -> None:
  """Raises ValueError where the state is not of the form that it had."""
  old, new = (
    dict(zip(_labels.path_names(x), jax.tree.leaves(x), strict=True))
    for x in (before, after)
  )
  fix = 'return it as it came in, and give init a model_state of that form'
  for name in [*old, *new]:
    if name not in new:
      raise ValueError(f'model_state: the loss returned no {name!r}; {fix}.')
    if name not in old:
      raise ValueError(
        f'model_state: the loss returned {name!r}, which did not come in; '
        f'{fix}.'
      )
    kinds = [f'{_dtype(x)}{list(jnp.shape(x))}' for x in (old[name], new[name])]
    if kinds[0] != kinds[1]:
      raise ValueError(
        f'model_state: {name!r} came in as {kinds[0]} and the loss returned '
        f'{kinds[1]}; {fix}.'
      )
  if jax.tree.structure(before) != jax.tree.structure(after):
    raise ValueError(
      'model_state: the loss returned another structure, '
      f'{jax.tree.structure(after)}, than came in, '
      f'{jax.tree.structure(before)}; {fix}.'
    )

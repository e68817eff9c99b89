"""The staged form of a multi-task loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtljax import _labels


@dataclasses.dataclass(frozen=True)
class Staged:
  """A multi-task loss with trunk and heads apart.

  Each head is then evaluated and differentiated once; the plain form
  ``(params, batch) -> (T,)`` costs T times the heads. All functions get the
  whole tree of parameters.

  Attributes:
    trunk: ``trunk(params, *args) -> features``, a tree of arrays (several
      scales, say); with ``has_aux``, ``(features, aux)``. Masks, indices and
      keys may be among them: no gradient goes through what is not floating.
    heads: for each task ``head(params, features, *args) -> loss``, a scalar;
      with ``has_aux``, ``(loss, aux)``.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> loss = mtl.Staged(
    ...   trunk=lambda params, x: params['trunk'] * x,
    ...   heads=[lambda params, z, x: jnp.sum((z - 1) ** 2),
    ...          lambda params, z, x: jnp.sum((params['head'] * z) ** 2)],
    ... )
    >>> params = {'trunk': jnp.array(2.0), 'head': jnp.array(1.0)}
    >>> labels = {'trunk': 'shared', 'head': 1}
    >>> grad_fn = mtl.value_and_task_grads(loss, labels=labels)
    >>> losses, grads = grad_fn(params, jnp.array([1.0]))
    >>> print(losses, grads['trunk'], grads['head'])
    [1. 4.] [2. 4.] 8.0
  """

  trunk: Callable[..., Any]
  heads: Sequence[Callable[..., Any]]

  def __post_init__(self):
    """Checks that there is something to call."""
    if not callable(self.trunk):
      raise TypeError(f'trunk={self.trunk!r} must be callable.')
    if not self.heads or not all(callable(head) for head in self.heads):
      raise TypeError(
        f'heads={self.heads!r} must be a sequence of callables, one a task.'
      )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HeadAux:
  """What a head returns beside its loss where it changes the model's state.

  For `mtljax.training.make_train_step` with ``has_state=True``, in place of the
  metrics alone. Each entry replaces that of the model state that the trunk
  returned; of one that several heads return, the mean is taken over them.

  Attributes:
    metrics: a dictionary of arrays by name.
    model_state: some entries of the model state, by name.

  Examples:
    >>> import mtljax as mtl
    >>> mtl.HeadAux({'accuracy': 0.5}, {'heads_0': 1.0}).metrics
    {'accuracy': 0.5}
  """

  metrics: Any
  model_state: Any


class Features:
  """Features as those that gradients go through, and the rest.

  What it keeps of `split` is static.
  """

  def __init__(self):
    self._treedef = None
    self._floating: list[bool] = []

  @property
  def names(self) -> list[str]:
    """The paths of the floating leaves, once they are split."""
    whole = jax.tree.unflatten(self._treedef, range(len(self._floating)))
    names = _labels.path_names(whole)
    return [x for x, use in zip(names, self._floating, strict=True) if use]

  def split(self, features: Any) -> tuple[list[Any], list[Any]]:
    """The floating leaves, and all others; never none of the former."""
    leaves, self._treedef = jax.tree.flatten(features)
    self._floating = [_is_floating(x) for x in leaves]
    pairs = list(zip(leaves, self._floating, strict=True))
    floating = [x for x, use in pairs if use]
    return floating or [jnp.zeros(())], [x for x, use in pairs if not use]

  def merge(self, floating: Sequence[Any], rest: Sequence[Any]) -> Any:
    """The features again."""
    floating, rest = iter(floating), iter(rest)
    return jax.tree.unflatten(
      self._treedef,
      [next(floating) if use else next(rest) for use in self._floating],
    )

  def check(self, grads: list[jax.Array]) -> list[jax.Array]:
    """The gradients at the features; ValueError if there are none."""
    if not any(self._floating):
      raise ValueError(
        'the trunk returns no floating-point features, at which gradients '
        'could be taken; use another route or method.'
      )
    return grads


def _is_floating(x: Any) -> bool:
  dtype = getattr(x, 'dtype', None)
  if dtype is None:
    return isinstance(x, float | complex)
  return jnp.issubdtype(dtype, jnp.inexact)

"""The staged form of a multi-task loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Staged:
  """A multi-task loss with trunk and heads apart.

  Each head is then evaluated and differentiated once; the plain form
  ``(params, batch) -> (T,)`` costs T times the heads. All functions get the
  whole tree of parameters.

  Attributes:
    trunk: ``trunk(params, *args) -> features``, a tree of arrays (several
      scales, say); with ``has_aux``, ``(features, aux)``.
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

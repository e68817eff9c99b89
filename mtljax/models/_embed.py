"""Columns of a table as the inputs of dense layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class EmbedColumns(nn.Module):
  """Numbers as they are, beside an embedding of each category.

  One table holds the embeddings of all columns, one after another. A code below
  0 stands for a value that was not trained on: zeros.

  Args:
    vocabulary_sizes: how many values each categorical column has.
    size: units of an embedding.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> rows = {
    ...   'numeric': jnp.ones((4, 2)),
    ...   'categorical': jnp.zeros((4, 3), jnp.int32),
    ... }
    >>> embed = EmbedColumns(vocabulary_sizes=(5, 7, 2), size=8)
    >>> out, variables = embed.init_with_output(jax.random.key(0), rows)
    >>> out.shape, variables['params']['table'].shape
    ((4, 26), (14, 8))
  """

  vocabulary_sizes: tuple[int, ...]
  size: int = 8

  @nn.compact
  def __call__(
    self, x: Mapping[str, jax.Array], *, train: bool = False
  ) -> jax.Array:
    """Maps rows to ``(B, F + C * size)``.

    Args:
      x: ``numeric``, shape ``(B, F)``, and ``categorical``, integers of shape
        ``(B, C)``.
      train: of no effect.

    Raises:
      ValueError: there is not one vocabulary a column.
    """
    del train
    codes = x['categorical']
    if codes.shape[1:] != (len(self.vocabulary_sizes),):
      raise ValueError(
        f'vocabulary_sizes={self.vocabulary_sizes} is not one a column of '
        f'categories of shape {codes.shape}.'
      )
    ends = np.cumsum(self.vocabulary_sizes)
    table = self.param(
      'table', nn.initializers.normal(1.0), (int(ends[-1]), self.size)
    )
    starts = jnp.asarray(ends - self.vocabulary_sizes, codes.dtype)
    known = codes >= 0
    found = table[jnp.where(known, codes + starts[None], 0)]
    found = jnp.where(known[..., None], found, 0)
    numeric = x['numeric'].astype(found.dtype)
    return jnp.concatenate([numeric, found.reshape(len(codes), -1)], axis=1)


def encode(encoder: nn.Module | None, x: Any, *, train: bool) -> jax.Array:
  """What layers read, ``(B, D)``: of an encoder, or examples flattened."""
  if encoder is None:
    return x.reshape(x.shape[0], -1)
  return encoder(x, train=train)

"""What networks read of molecules: atoms, pairs, distances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

ELEMENTS = (1, 6, 7, 8, 9)

#: ``numbers`` and ``positions``, see `nnconv`.
Molecules = Mapping[str, jax.Array]


class Pairs(NamedTuple):
  """Molecules padded to A atoms, as a complete graph.

  Attributes:
    atoms: whether there is an atom, (B, A).
    pairs: whether there are two different atoms, (B, A, A).
    distances: between them, (B, A, A); 1 where there are none.
  """

  atoms: jax.Array
  pairs: jax.Array
  distances: jax.Array


def pairs_of(x: Molecules) -> Pairs:
  """The atoms, pairs and distances of a batch of molecules.

  Raises:
    ValueError: an array is missing, or the shapes do not fit each other.
  """
  for name in ('numbers', 'positions'):
    if name not in x:
      raise ValueError(
        f'x has no {name!r}: pass a mapping with numbers (B, A) and positions '
        '(B, A, 3).'
      )
  numbers, positions = jnp.asarray(x['numbers']), jnp.asarray(x['positions'])
  if numbers.ndim != 2 or positions.shape != (*numbers.shape, 3):
    raise ValueError(
      f'x has numbers {numbers.shape} and positions {positions.shape}: they '
      'must be (B, A) and (B, A, 3).'
    )
  atoms = numbers > 0
  size = numbers.shape[1]
  pairs = atoms[:, :, None] & atoms[:, None] & ~jnp.eye(size, dtype=bool)[None]
  between = positions[:, :, None] - positions[:, None]
  squares = jnp.where(pairs, jnp.sum(between**2, -1), 1)
  return Pairs(atoms, pairs, jnp.sqrt(squares))


def one_hot(numbers: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
  """Which of H, C, N, O and F the atoms are, (B, A, 5); no atom: all 0."""
  kinds = jnp.asarray(ELEMENTS, numbers.dtype)
  return (numbers[..., None] == kinds[None, None]).astype(dtype)


def gaussians(
  distances: jax.Array, low: float, high: float, count: int, rate: float
) -> jax.Array:
  """``exp(-rate (d - c)^2)`` at so many centers c, (..., count)."""
  centers = jnp.linspace(low, high, count, dtype=distances.dtype)
  centers = centers.reshape((1,) * distances.ndim + (-1,))
  return jnp.exp(-rate * (distances[..., None] - centers) ** 2)

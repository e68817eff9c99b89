"""Whether two scores put methods in the same order."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _tree, _validate

MEASURES = ('kendall', 'spearman')


def ranking_similarity(
  scores: ArrayLike,
  others: ArrayLike,
  *,
  measure: Literal['kendall', 'spearman'] = 'kendall',
) -> jax.Array:
  r"""A reconstruction of Ranking Similarity: how alike two rankings are.

  What is public is that a measure taken in training is judged by how it ranks
  methods beside their ranking on the test set; which correlation of ranks is
  meant is an open reading, and so an option. With :math:`a_{ij}` the sign of
  the difference of two scores and ranks :math:`r`, ties sharing their mean,

  .. math::
     \tau_b = \frac{\sum_{i<j} a_{ij} b_{ij}}
     {\sqrt{\sum_{i<j} a_{ij}^2 \, \sum_{i<j} b_{ij}^2}}, \qquad
     \rho = \operatorname{corr}(r(a), r(b))

  Give a measure its sign first: negate what is better when low.

  ============================ ==============================================
  input                        result
  ============================ ==============================================
  the same order               1
  the reverse order            -1
  a tie in one of both         below 1 in size: the pair is no evidence
  all of either tied, or N = 1 NaN
  infinities                   the largest, or the smallest; equals tie
  a NaN                        NaN
  ============================ ==============================================

  Args:
    scores: of N methods, shape ``(..., N)``.
    others: the same methods' other scores, of the same shape.
    measure: ``'kendall'`` for Kendall's tau-b, or ``'spearman'``.

  Returns:
    Shape ``(...)``, in [-1, 1], float32 or wider.

  Raises:
    ValueError: the shapes differ, or ``measure`` is not known.

  Example:
    >>> from mtljax.diagnostics import ranking_similarity
    >>> measured, tested = [0.1, 0.2, 0.4, 0.3], [5.0, 6.0, 9.0, 7.0]
    >>> print(ranking_similarity(measured, tested))
    1.0
    >>> tested = [5.0, 6.0, 7.0, 9.0]
    >>> print(f'{ranking_similarity(measured, tested):.3f}')
    0.667
    >>> print(ranking_similarity(measured, tested, measure='spearman').round(3))
    0.8

  References:
    Mao et al., `Robust Analysis of Multi-Task Learning Efficiency
    <https://arxiv.org/abs/2402.03557>`_, 2024, names it; Kendall, `The
    treatment of ties in ranking problems
    <https://doi.org/10.1093/biomet/33.3.239>`_, 1945.
  """
  _validate.one_of('measure', measure, MEASURES)
  first, second = jnp.asarray(scores), jnp.asarray(others)
  if not first.ndim or first.shape != second.shape:
    raise ValueError(
      'scores and others must have one shape (..., N), got '
      f'{first.shape} and {second.shape}.'
    )
  one, other = _orders(first), _orders(second)
  if measure == 'spearman':
    # A rank less the mean of ranks is half the sum of a row.
    one, other = jnp.sum(one, axis=-1), jnp.sum(other, axis=-1)
    axes: tuple[int, ...] = (-1,)
  else:
    axes = (-2, -1)
  total = lambda x: jnp.sum(x, axis=axes)
  squares = jnp.sqrt(total(one * one) * total(other * other))
  return jnp.where(squares == 0, jnp.nan, total(one * other) / squares)


def _orders(scores: jax.Array) -> jax.Array:
  """Signs of all differences, ``(..., N, N)``; equal infinities are ties."""
  one, other = scores[..., :, None], scores[..., None, :]
  dtype = _tree.accumulator(scores.dtype)
  signs = (one > other).astype(dtype) - (one < other).astype(dtype)
  known = (one == one) & (other == other)
  return jnp.where(known, signs, jnp.nan)

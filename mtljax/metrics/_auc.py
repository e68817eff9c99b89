"""The area under the ROC curve, gathered batch by batch."""

from __future__ import annotations

import dataclasses
from typing import Self

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax.metrics._accumulators import check_class


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AUC:
  r"""The area under the ROC curve of a binary task, in [0, 1].

  The probability that a positive example scores above a negative one, a tie
  counting half. A metric that merges can not keep every score; this one keeps a
  histogram of the logits for each class, of equal bins over [-limit, limit] and
  with what lies beyond in the outermost ones. With the shares :math:`p_b` of
  the positive and :math:`n_b` of the negative examples in bin :math:`b`:

  .. math:: \mathrm{AUC} = \sum_b p_b
      \left(\sum_{c < b} n_c + \tfrac{1}{2} n_b\right), \qquad
      |\mathrm{AUC} - \mathrm{exact}| \le \tfrac{1}{2} \sum_b p_b n_b

  that is, pairs within a bin count as ties, and only they can be wrong. The
  bound is `error_bound`. By default a bin is 1/128 wide.

  Merging is a plain sum of the leaves, as for `Mean`. Counts are exact up to
  16,777,216 (2 to the 24th) examples a class and bin.

  ============================ ==============================================
  input                        result
  ============================ ==============================================
  nothing yet, or all masked   NaN
  only one class               NaN
  masked entry is NaN          no effect
  unmasked NaN                 NaN
  infinite logit               in an outermost bin
  label neither 0 nor 1        not 0 counts as positive
  ============================ ==============================================

  Attributes:
    positives: examples of class 1 in each bin, shape ``(bins,)``.
    negatives: examples of class 0 in each bin, shape ``(bins,)``.

  Example:
    >>> import jax.numpy as jnp
    >>> logits = jnp.array([2.0, -1.0, 0.5, 0.0])
    >>> metric = AUC.from_logits(logits, jnp.array([1, 0, 0, 1]))
    >>> print(metric.compute(), metric.error_bound())
    0.75 0.0

  References:
    Hanley and McNeil, The Meaning and Use of the Area under a Receiver
    Operating Characteristic (ROC) Curve, Radiology 143, 1982,
    https://doi.org/10.1148/radiology.143.1.7063747
  """

  positives: jax.Array
  negatives: jax.Array

  @classmethod
  def empty(cls, bins: int = 4096) -> Self:
    """The metric of no data, neutral in `merge`.

    Args:
      bins: number of bins, at least 2.

    Returns:
      The metric.

    Raises:
      ValueError: there are fewer than 2 bins.
    """
    _validate.in_range('bins', bins, 2)
    return cls(jnp.zeros(bins, jnp.float32), jnp.zeros(bins, jnp.float32))

  @classmethod
  def from_logits(
    cls,
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    bins: int = 4096,
    limit: float = 16.0,
  ) -> Self:
    """The metric of one batch.

    Args:
      logits: scores, higher for class 1, any shape. The area does not depend on
        their scale, so any score will do that lies within the limit.
      labels: 0 or 1 (or bools), shape of ``logits``.
      mask: true where an example counts, shape of ``logits``; None counts all.
      bins: number of bins, at least 2; the same in all that is merged.
      limit: half the range of the bins, above 0; the same in all that is
        merged.

    Returns:
      The metric.

    Raises:
      ValueError: shapes differ, or ``bins`` or ``limit`` is out of range.
    """
    _validate.in_range('limit', limit, 0, open_low=True)
    zero = cls.empty(bins)
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    counts = jnp.ones(logits.shape, bool) if mask is None else jnp.asarray(mask)
    for name, array in (('labels', labels), ('mask', counts)):
      if array.shape != logits.shape:
        raise ValueError(
          f'{name} must have the shape of logits, {logits.shape}, got '
          f'{array.shape}.'
        )
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32)).ravel()
    place = jnp.floor((logits / limit + 1) * (bins / 2))
    place = jnp.where(jnp.isnan(logits), 0, jnp.clip(place, 0, bins - 1))
    place = place.astype(jnp.int32)
    one = jnp.where(jnp.isnan(logits), jnp.nan, 1.0).astype(jnp.float32)
    one = jnp.where(counts.astype(bool).ravel(), one, 0)
    positive = labels.ravel() != 0
    return cls(
      zero.positives.at[place].add(jnp.where(positive, one, 0)),
      zero.negatives.at[place].add(jnp.where(positive, 0, one)),
    )

  def merge(self, other: Self) -> Self:
    """The metric of both sets of data.

    Args:
      other: a metric with the same bins and limit.

    Returns:
      The merged metric.

    Raises:
      TypeError: ``other`` is another kind of metric.
      ValueError: the numbers of bins differ.
    """
    check_class(self, other)
    if self.positives.shape != other.positives.shape:
      raise ValueError(
        f'cannot merge AUCs of {self.positives.size} and '
        f'{other.positives.size} bins; give them the same.'
      )
    return type(self)(
      self.positives + other.positives, self.negatives + other.negatives
    )

  def compute(self) -> jax.Array:
    """The area so far; NaN where a class has no example."""
    positives, negatives = self._shares()
    below = jnp.cumsum(negatives) - negatives / 2
    return jnp.sum(positives * below)

  def error_bound(self) -> jax.Array:
    """How far `compute` can be from the area of the exact scores."""
    positives, negatives = self._shares()
    return jnp.sum(positives * negatives) / 2

  def _shares(self) -> tuple[jax.Array, jax.Array]:
    return tuple(  # 0 / 0 is the NaN of a class that is absent
      counts / jnp.sum(counts) for counts in (self.positives, self.negatives)
    )

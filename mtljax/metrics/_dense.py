"""The metrics of dense prediction: segmentation, depth, surface normals."""

from __future__ import annotations

import dataclasses
from typing import Self

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax.metrics._accumulators import (
  Accuracy,
  Mean,
  check_class,
  check_labels,
  like,
)

#: Degrees that a normal is called right within.
ANGLES = (11.25, 22.5, 30.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MeanIoU:
  r"""Mean intersection over union of classes, in [0, 1].

  From the confusion matrix n of all pixels seen (rows are labels):

  .. math:: \frac{1}{|C|} \sum_{c \in C}
      \frac{n_{cc}}{\sum_j n_{cj} + \sum_i n_{ic} - n_{cc}}

  over the classes C that are among the labels or predictions. Merging is a
  plain sum. Counts are exact to 16,777,216 (2 to the 24th) a cell, beyond that
  to 6e-8 of the cell for each merge.

  ============================ ==============================================
  input                        result
  ============================ ==============================================
  nothing yet, or all masked   NaN
  class in no label, no guess  left out of the mean
  label outside the classes    the pixel is ignored
  a NaN among the logits       the pixel counts as its label missed; it is in
                               no other class's union
  ============================ ==============================================

  Attributes:
    counts: pixels by label and prediction, shape ``(C, C + 1)``; the last
      column is of those without a prediction.

  Example:
    >>> import jax.numpy as jnp
    >>> logits = jnp.array([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]])
    >>> metric = MeanIoU.from_logits(logits, jnp.array([0, 1, 1]))
    >>> print(metric.compute())
    0.5
  """

  counts: jax.Array

  @classmethod
  def empty(cls, num_classes: int) -> Self:
    """The metric of no data, neutral in `merge`."""
    _validate.in_range('num_classes', num_classes, 1)
    return cls(jnp.zeros((num_classes, num_classes + 1), jnp.float32))

  @classmethod
  def from_logits(
    cls,
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    mask: ArrayLike | None = None,
  ) -> Self:
    """The metric of one batch.

    Args:
      logits: scores of the classes on the last axis, shape ``(..., C)``.
      labels: integer classes, shape ``(...)``; -1 is ignored.
      mask: true where a pixel counts, shape ``(...)``; None counts all.

    Returns:
      The metric.

    Raises:
      ValueError: the shapes do not fit.
      TypeError: ``labels`` are not integers.
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    check_labels(logits, labels)
    classes = logits.shape[-1]
    counts = (labels >= 0) & (labels < classes)
    if mask is not None:
      counts &= like(labels, 'mask', mask, 'labels').astype(bool)
    guess = jnp.argmax(logits, axis=-1)
    guess = jnp.where(jnp.any(jnp.isnan(logits), axis=-1), classes, guess)
    cell = jnp.where(counts, labels * (classes + 1) + guess, 0)
    found = jnp.bincount(
      cell.ravel(),
      weights=counts.ravel().astype(jnp.int32),
      length=classes * (classes + 1),
    )
    return cls(found.reshape(classes, classes + 1).astype(jnp.float32))

  def merge(self, other: Self) -> Self:
    """The metric of both sets of data."""
    check_class(self, other)
    if self.counts.shape != other.counts.shape:
      raise ValueError(
        f'cannot merge metrics of {len(self.counts)} and {len(other.counts)} '
        'classes.'
      )
    return type(self)(self.counts + other.counts)

  def compute(self) -> jax.Array:
    """The mean so far; NaN where there is no data."""
    guessed = self.counts[:, :-1]
    both = jnp.diagonal(guessed)
    union = jnp.sum(self.counts, 1) + jnp.sum(guessed, 0) - both
    there = union > 0
    shares = jnp.where(there, both / jnp.where(there, union, 1), 0)
    return jnp.sum(shares) / jnp.sum(there)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Median:
  r"""The median of all values seen, from a histogram of equal bins.

  It is the middle of the bin that holds the median (of an even number: the
  mean of the two bins in the middle), so it errs by at most half a bin:

  .. math:: |m - m_\mathrm{exact}| \le \frac{high - low}{2\, bins}

  for values in range; those beyond are counted in the outermost bins. Merging
  is a plain sum. Counts are exact to 16,777,216 (2 to the 24th) a bin, beyond
  that to 6e-8 of the bin for each merge.

  ============================ ==============================================
  input                        result
  ============================ ==============================================
  nothing yet, or all masked   NaN
  masked value is NaN          no effect
  unmasked NaN                 NaN
  ============================ ==============================================

  Attributes:
    counts: values in each bin, shape ``(bins,)``.
    low: where the bins begin.
    high: where they end.

  Example:
    >>> import jax.numpy as jnp
    >>> first = Median.from_values(jnp.array([1.0, 2.0]), high=10.0)
    >>> second = Median.from_values(jnp.array([7.0]), high=10.0)
    >>> print(f'{first.merge(second).compute():.2f}')
    2.00
  """

  counts: jax.Array
  low: float = dataclasses.field(metadata={'static': True}, default=0.0)
  high: float = dataclasses.field(metadata={'static': True}, default=1.0)

  @classmethod
  def from_values(
    cls,
    values: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    low: float = 0.0,
    high: float = 1.0,
    bins: int = 18_000,
  ) -> Self:
    """The metric of one batch.

    Args:
      values: numbers, any shape.
      mask: true where a value counts, shape of ``values``; None counts all.
      low: where the bins begin; the same in all that is merged.
      high: where they end.
      bins: how many there are, at least 1.

    Returns:
      The metric.

    Raises:
      ValueError: shapes differ, or a number is out of range.
    """
    _validate.in_range('bins', bins, 1)
    _validate.in_range('high', high, low, open_low=True)
    values = jnp.asarray(values)
    values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    counts = jnp.ones(values.shape, bool)
    if mask is not None:
      counts = like(values, 'mask', mask).astype(bool)
    missing = jnp.isnan(values)
    place = jnp.floor((values - low) * (bins / (high - low)))
    place = jnp.where(missing, 0, jnp.clip(place, 0, bins - 1))
    found = jnp.bincount(
      place.astype(jnp.int32).ravel(),
      weights=counts.ravel().astype(jnp.int32),
      length=bins,
    ).astype(jnp.float32)
    spoilt = jnp.any(missing & counts)
    return cls(jnp.where(spoilt, jnp.nan, found), float(low), float(high))

  def merge(self, other: Self) -> Self:
    """The metric of both sets of data."""
    check_class(self, other)
    mine, theirs = ((x.counts.size, x.low, x.high) for x in (self, other))
    if mine != theirs:
      raise ValueError(
        f'cannot merge medians of (bins, low, high) {mine} and {theirs}; give '
        'them the same.'
      )
    return dataclasses.replace(self, counts=self.counts + other.counts)

  def compute(self) -> jax.Array:
    """The median so far; NaN where there is no data."""
    below = jnp.cumsum(self.counts)
    total = below[-1]
    width = (self.high - self.low) / self.counts.size
    # The bins that hold the two values in the middle, or the one twice.
    middle = [
      jnp.sum(below < jnp.floor(rank)) for rank in (
        (total + 1) / 2, (total + 2) / 2
      )
    ]  # fmt: skip
    value = self.low + width * ((middle[0] + middle[1]) / 2 + 0.5)
    return jnp.where(total > 0, value, jnp.nan)

  def error_bound(self) -> float:
    """How far `compute` can be from the exact median."""
    return (self.high - self.low) / (2 * self.counts.size)


def segmentation_metrics(
  logits: ArrayLike, labels: ArrayLike, *, mask: ArrayLike | None = None
) -> dict[str, MeanIoU | Accuracy]:
  """Mean IoU and pixel accuracy, as on NYUv2.

  Args:
    logits: shape ``(..., C)``.
    labels: integer classes, shape ``(...)``; negative ones are ignored.
    mask: true where a pixel counts, shape ``(...)``; None counts all.

  Returns:
    Mergeable metrics ``miou`` and ``pixel_accuracy``, in [0, 1].

  Raises:
    ValueError: the shapes do not fit.
    TypeError: ``labels`` are not integers.

  Example:
    >>> import jax.numpy as jnp
    >>> logits = jnp.eye(3)[jnp.array([[0, 1, 1, 2]])]
    >>> labels = jnp.array([[0, 1, 2, -1]])
    >>> found = segmentation_metrics(logits, labels)
    >>> print(*(f'{k} {x.compute():.3f}' for k, x in found.items()))
    miou 0.500 pixel_accuracy 0.667

  References:
    Liu, Johns and Davison, End-to-End Multi-Task Learning with Attention,
    2019, https://arxiv.org/abs/1803.10704
  """
  logits, labels = jnp.asarray(logits), jnp.asarray(labels)
  check_labels(logits, labels)
  valid = labels >= 0
  if mask is not None:
    valid &= like(labels, 'mask', mask, 'labels').astype(bool)
  return {
    'miou': MeanIoU.from_logits(logits, labels, mask=valid),
    'pixel_accuracy': Accuracy.from_logits(logits, labels, mask=valid),
  }


def depth_metrics(
  predictions: ArrayLike, depth: ArrayLike, *, mask: ArrayLike | None = None
) -> dict[str, Mean]:
  """Absolute and relative error of depth, as on NYUv2.

  The means are over all valid pixels of all batches. The protocol's code takes
  means of the means of batches instead, which hang on the size of a batch.

  Args:
    predictions: shape ``(...)``.
    depth: true values, positive, same shape; where 0, a pixel is ignored.
    mask: true where a pixel counts, same shape; None counts all.

  Returns:
    Mergeable metrics ``abs_err``, in the unit of ``depth``, and ``rel_err``,
    the error as a share of the true depth.

  Raises:
    ValueError: the shapes differ.

  Example:
    >>> import jax.numpy as jnp
    >>> depth = jnp.array([2.0, 4.0, 0.0])
    >>> found = depth_metrics(jnp.array([1.0, 5.0, 9.0]), depth)
    >>> print(*(f'{k} {x.compute():.3f}' for k, x in found.items()))
    abs_err 1.000 rel_err 0.375
  """
  depth = jnp.asarray(depth)
  error = jnp.abs(like(depth, 'predictions', predictions, 'depth') - depth)
  valid = depth != 0
  relative = error / jnp.where(valid, jnp.abs(depth), 1)
  if mask is not None:
    valid &= like(depth, 'mask', mask, 'depth').astype(bool)
  return {
    'abs_err': Mean.from_values(error, mask=valid),
    'rel_err': Mean.from_values(relative, mask=valid),
  }


def normals_metrics(
  predictions: ArrayLike, normals: ArrayLike, *, mask: ArrayLike | None = None
) -> dict[str, Mean | Median]:
  """Angles between predicted and true surface normals, as on NYUv2.

  The median is that of all pixels of all batches to 0.005 degrees (`Median`
  of bins of 0.01); the protocol's code takes the mean of medians of batches.

  ============================ ==============================================
  input                        result
  ============================ ==============================================
  prediction of any length     its direction counts
  prediction (0, 0, 0)         90 degrees
  true normal (0, 0, 0)        ignored
  unmasked NaN                 NaN means and median; in no share within
  ============================ ==============================================

  Args:
    predictions: shape ``(..., 3)``.
    normals: true normals of length 1, same shape; (0, 0, 0) is ignored.
    mask: true where a pixel counts, shape ``(...)``; None counts all.

  Returns:
    Mergeable metrics ``angle_mean`` and ``angle_median`` in degrees, and the
    shares ``within_11.25``, ``within_22.5`` and ``within_30``, in [0, 1].

  Raises:
    ValueError: the shapes differ, or the last axis is not of three.

  Example:
    >>> import jax.numpy as jnp
    >>> normals = jnp.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    >>> found = normals_metrics(jnp.array([[0.0, 0, 2], [0, 0, 1]]), normals)
    >>> print(f'{found["angle_mean"].compute():.1f}')
    45.0
    >>> print(found['within_30'].compute())
    0.5
  """
  normals = jnp.asarray(normals)
  predictions = like(normals, 'predictions', predictions, 'normals')
  if normals.shape[-1:] != (3,):
    raise ValueError(
      f'normals must have three components on the last axis, got shape '
      f'{normals.shape}.'
    )
  valid = jnp.any(normals != 0, axis=-1)
  if mask is not None:
    valid &= like(valid, 'mask', mask, 'pixels').astype(bool)
  # Exact near 0, where the arc cosine loses half of the digits.
  sine = jnp.linalg.norm(jnp.cross(predictions, normals), axis=-1)
  cosine = jnp.sum(predictions * normals, axis=-1)
  zero = (sine == 0) & (cosine == 0)
  angle = jnp.where(zero, 90.0, jnp.rad2deg(jnp.arctan2(sine, cosine)))
  within = {
    f'within_{bound:g}': Mean.from_values(angle < bound, mask=valid)
    for bound in ANGLES
  }
  return {
    'angle_mean': Mean.from_values(angle, mask=valid),
    'angle_median': Median.from_values(angle, mask=valid, high=180.0),
    **within,
  }

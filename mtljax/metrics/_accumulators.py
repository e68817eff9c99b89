"""Metrics that are gathered batch by batch: sums first, one division last."""

from __future__ import annotations

import dataclasses
from typing import Self

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mean:
  r"""A weighted mean over all batches seen.

  The mean of batch means is wrong when the batches differ in size or in the
  number of masked entries. This keeps the two sums and divides once:

  .. math:: \frac{\sum_i w_i x_i}{\sum_i w_i}

  Merging is associative and commutative, and is a plain sum of the leaves: a
  scan may carry a metric, and ``jax.lax.psum`` merges one across devices. The
  sums are kept in float32 or wider.

  =========================== ===============================================
  input                       result
  =========================== ===============================================
  nothing yet, or all masked  NaN
  masked entry is NaN or inf  no effect
  weight 0                    no effect if the value is finite
  unmasked NaN                NaN
  =========================== ===============================================

  Attributes:
    total: sum of weight times value; any shape.
    weight: sum of the weights, shape of ``total``.

  Example:
    >>> import jax.numpy as jnp
    >>> first = Mean.from_values(jnp.array([1.0, 2.0, 3.0]))
    >>> second = Mean.from_values(jnp.array([8.0, 0.0]), mask=jnp.array([1, 0]))
    >>> print(first.merge(second).compute())
    3.5
  """

  total: jax.Array
  weight: jax.Array

  @classmethod
  def empty(cls, shape: tuple[int, ...] = ()) -> Self:
    """The metric of no data, neutral in `merge`.

    Args:
      shape: shape of the result, for instance ``(T,)`` for a mean a task.

    Returns:
      The metric, in jax's default float type.
    """
    return cls(jnp.zeros(shape), jnp.zeros(shape))

  @classmethod
  def from_values(
    cls,
    values: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    axis: int | tuple[int, ...] | None = None,
  ) -> Self:
    """The metric of one batch.

    Args:
      values: numbers to average, any shape.
      weights: their non-negative weights, shape of ``values``; None weighs
        all alike.
      mask: true (or non-zero) where a value counts, shape of ``values``; None
        counts all.
      axis: the axes to average over; None for all. ``axis=0`` on values of
        shape ``(B, T)`` gives a mean a task.

    Returns:
      The metric.

    Raises:
      ValueError: the shape of ``weights`` or ``mask`` is not that of
        ``values``.
    """
    values = jnp.asarray(values)
    values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    if weights is None:
      weights = jnp.ones_like(values)
    weights = like(values, 'weights', weights).astype(values.dtype)
    if mask is not None:
      mask = like(values, 'mask', mask).astype(bool)
      weights = jnp.where(mask, weights, 0)
      values = jnp.where(mask, values, 0)
    return cls(jnp.sum(values * weights, axis), jnp.sum(weights, axis))

  def merge(self, other: Self) -> Self:
    """The metric of both sets of data.

    Args:
      other: a metric of the same class and shape.

    Returns:
      The merged metric.

    Raises:
      TypeError: ``other`` is another kind of metric.
      ValueError: the shapes differ.
    """
    check_class(self, other)
    if self.total.shape != other.total.shape:
      raise ValueError(
        f'cannot merge metrics of shapes {self.total.shape} and '
        f'{other.total.shape}; give `empty` the shape of the others.'
      )
    return type(self)(self.total + other.total, self.weight + other.weight)

  def compute(self) -> jax.Array:
    """The mean so far; NaN where there is no data."""
    some = self.weight > 0
    mean = self.total / jnp.where(some, self.weight, 1)
    return jnp.where(some, mean, jnp.nan)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Accuracy(Mean):
  """The fraction of examples classified correctly, in [0, 1].

  ============================ ==============================================
  input                        result
  ============================ ==============================================
  nothing yet, or all masked   NaN
  a NaN among the logits       counts as wrong (its argmax would name a class)
  several largest logits       the first of them is the prediction
  label outside the classes    counts as wrong
  ============================ ==============================================

  Attributes:
    total: number of correct examples.
    weight: number of examples.

  Example:
    >>> import jax.numpy as jnp
    >>> logits = jnp.array([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]])
    >>> metric = Accuracy.from_logits(logits, jnp.array([0, 1, 1]))
    >>> print(f'{metric.compute():.3f}')
    0.667
  """

  @classmethod
  def from_logits(
    cls,
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    axis: int | tuple[int, ...] | None = None,
  ) -> Self:
    """The accuracy of one batch.

    Args:
      logits: scores of the classes on the last axis, shape ``(..., C)``.
      labels: integer classes, shape ``(...)``.
      mask: true where an example counts, shape ``(...)``; None counts all.
      axis: the axes of ``labels`` to average over; None for all.

    Returns:
      The metric.

    Raises:
      ValueError: the shapes do not fit.
      TypeError: ``labels`` are not integers.
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    check_labels(logits, labels)
    correct = jnp.argmax(logits, axis=-1) == labels
    correct &= ~jnp.any(jnp.isnan(logits), axis=-1)
    return cls.from_values(correct, mask=mask, axis=axis)


def check_class(metric: object, other: object) -> None:
  """Raises TypeError unless both metrics are of one class."""
  if type(other) is not type(metric):
    raise TypeError(
      f'cannot merge {type(metric).__name__} with {type(other).__name__}; '
      'merge metrics of one class.'
    )


def check_labels(logits: jax.Array, labels: jax.Array) -> None:
  """Raises unless labels are integers, one for each row of logits."""
  if not jnp.issubdtype(labels.dtype, jnp.integer):
    raise TypeError(
      f'labels must be integers, got {labels.dtype}; one-hot labels become '
      'integers by jnp.argmax(labels, -1).'
    )
  if logits.ndim == 0 or labels.shape != logits.shape[:-1]:
    raise ValueError(
      f'labels must have the shape of logits without its last axis, got '
      f'{labels.shape} for logits of shape {logits.shape}.'
    )


def like(
  values: jax.Array, name: str, other: ArrayLike, reference: str = 'values'
) -> jax.Array:
  """The other as an array, or a ValueError unless it has the shape."""
  other = jnp.asarray(other)
  if other.shape != values.shape:
    raise ValueError(
      f'{name} must have the shape of {reference}, {values.shape}, got '
      f'{other.shape}; broadcast it first with jnp.broadcast_to.'
    )
  return other

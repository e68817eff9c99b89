"""The coefficient of determination, gathered batch by batch."""

from __future__ import annotations

import dataclasses
from typing import Self

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax.metrics._accumulators import check_class


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class R2:
  r"""The share of the targets' variance that predictions explain.

  .. math:: 1 - \frac{\sum_i (y_i - \hat y_i)^2}{\sum_i (y_i - \bar y)^2}

  1 for a perfect prediction, 0 for that of the mean of these targets, below 0
  for a worse one. The spread is merged by Chan's formula, so that a large mean
  costs no digits; merging is associative and commutative.

  =========================== ===============================================
  input                       result
  =========================== ===============================================
  nothing yet, or all masked  NaN
  targets all the same        NaN
  masked entry is NaN or inf  no effect
  unmasked NaN                NaN
  =========================== ===============================================

  Attributes:
    count: number of targets.
    mean: of the targets.
    spread: their summed squares around the mean.
    residual: summed squares of the errors.

  Example:
    >>> import jax.numpy as jnp
    >>> targets = jnp.array([1.0, 2.0, 3.0, 4.0])
    >>> first = R2.from_values(targets[:2] + 0.5, targets[:2])
    >>> second = R2.from_values(targets[2:], targets[2:])
    >>> print(first.merge(second).compute())
    0.9

  References:
    Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for
    Computing Sample Variances, 1979.
  """

  count: jax.Array
  mean: jax.Array
  spread: jax.Array
  residual: jax.Array

  @classmethod
  def empty(cls) -> Self:
    """The metric of no data, neutral in `merge`."""
    return cls(*(jnp.zeros(()) for _ in range(4)))

  @classmethod
  def from_values(
    cls,
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    mask: ArrayLike | None = None,
  ) -> Self:
    """The metric of one batch.

    Args:
      predictions: numbers, any shape.
      targets: what they should be, the same shape.
      mask: true where a pair counts, the same shape; None counts all.

    Returns:
      The metric.

    Raises:
      ValueError: the shapes differ.
    """
    predictions, targets = jnp.asarray(predictions), jnp.asarray(targets)
    use = jnp.ones(targets.shape, bool) if mask is None else jnp.asarray(mask)
    if not predictions.shape == targets.shape == use.shape:
      raise ValueError(
        f'predictions {predictions.shape}, targets {targets.shape} and mask '
        f'{use.shape} must have one shape.'
      )
    use = use.astype(bool)
    dtype = jnp.promote_types(
      jnp.promote_types(predictions.dtype, targets.dtype), jnp.float32
    )
    y = jnp.where(use, targets, 0).astype(dtype)
    error = jnp.where(use, predictions, 0).astype(dtype) - y
    count = jnp.sum(use, dtype=dtype)
    mean = jnp.sum(y) / jnp.maximum(count, 1)
    spread = jnp.sum(jnp.where(use, y - mean, 0) ** 2)
    return cls(count, mean, spread, jnp.sum(error**2))

  def merge(self, other: Self) -> Self:
    """The metric of both sets of data.

    Args:
      other: a metric of the same class.

    Returns:
      The merged metric.

    Raises:
      TypeError: ``other`` is another kind of metric.
    """
    check_class(self, other)
    count = self.count + other.count
    share = other.count / jnp.maximum(count, 1)
    apart = other.mean - self.mean
    return type(self)(
      count,
      self.mean + apart * share,
      self.spread + other.spread + apart**2 * self.count * share,
      self.residual + other.residual,
    )

  def compute(self) -> jax.Array:
    """The metric so far; NaN where the targets have no variance."""
    some = self.spread > 0
    ratio = self.residual / jnp.where(some, self.spread, 1)
    return jnp.where(some, 1 - ratio, jnp.nan)

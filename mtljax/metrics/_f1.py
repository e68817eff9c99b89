"""The F1 score of a yes or no, gathered batch by batch."""

from __future__ import annotations

import dataclasses
from typing import Self

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax.metrics._accumulators import check_class


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class F1:
  r"""The harmonic mean of precision and recall of label 1.

  .. math:: \frac{2 TP}{2 TP + FP + FN}

  Of all the data at once: it is no mean of the scores of batches. Merging is
  associative and commutative.

  =================================== =======================================
  input                               result
  =================================== =======================================
  nothing yet, or all masked          NaN
  label 1 neither there nor predicted 0
  never predicted where it is there   0
  logit of 0, or NaN                  label 0 is predicted
  =================================== =======================================

  Attributes:
    hits: how often label 1 was predicted and right.
    predicted: how often it was predicted.
    present: how often it was the label.
    count: number of labels.

  Example:
    >>> import jax.numpy as jnp
    >>> first = F1.from_logits(jnp.array([2.0, 1.0]), jnp.array([1, 0]))
    >>> second = F1.from_logits(jnp.array([-1.0, 3.0]), jnp.array([1, 1]))
    >>> print(round(float(first.merge(second).compute()), 4))
    0.6667
  """

  hits: jax.Array
  predicted: jax.Array
  present: jax.Array
  count: jax.Array

  @classmethod
  def empty(cls) -> Self:
    """The metric of no data, neutral in `merge`."""
    return cls(*(jnp.zeros(()) for _ in range(4)))

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
      logits: of label 1, any shape; above 0 it is predicted.
      labels: 0 or 1, the same shape.
      mask: true where a pair counts, the same shape; None counts all.

    Returns:
      The metric.

    Raises:
      ValueError: the shapes differ.
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    use = jnp.ones(labels.shape, bool) if mask is None else jnp.asarray(mask)
    if not logits.shape == labels.shape == use.shape:
      raise ValueError(
        f'logits {logits.shape}, labels {labels.shape} and mask {use.shape} '
        'must have one shape.'
      )
    use = use.astype(bool)
    predicted, present = (logits > 0) & use, (labels == 1) & use
    counted = (predicted & present, predicted, present, use)
    return cls(*(jnp.sum(x, dtype=jnp.float32) for x in counted))

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
    return jax.tree.map(jnp.add, self, other)

  def compute(self) -> jax.Array:
    """The metric so far; NaN where there are no labels."""
    score = 2 * self.hits / jnp.maximum(self.predicted + self.present, 1)
    return jnp.where(self.count > 0, score, jnp.nan)

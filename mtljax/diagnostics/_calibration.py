"""Whether a classifier's probabilities mean what they say."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _tree, _validate


class Reliability(NamedTuple):
  """What `Calibration.reliability` returns: one entry a bin of confidence.

  Attributes:
    confidence: mean confidence, shape ``(num_bins,)``; NaN in an empty bin.
    accuracy: fraction of correct examples; NaN in an empty bin.
    count: number of examples.
  """

  confidence: jax.Array
  accuracy: jax.Array
  count: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Calibration:
  r"""Calibration error, Brier score and reliability over all batches seen.

  An example's confidence is its largest softmax probability. The bins are of
  equal width, and a bin holds its upper edge: bin b of B is
  :math:`((b - 1) / B,\, b / B]`, so that a confidence of 1 is in the last.

  .. math::
     \mathrm{ECE} = \sum_b \frac{n_b}{N}
     \left| \mathrm{acc}_b - \mathrm{conf}_b \right|, \qquad
     \mathrm{Brier} = 1 + \frac{1}{N} \sum_i
     \Big( \sum_c p_{ic}^2 - 2 p_{i y_i} \Big)

  The Brier score is :math:`\frac{1}{N} \sum_i \lVert p_i - e_{y_i} \rVert^2`,
  in [0, 2]; some authors halve it for two classes. Everything kept is a sum,
  so that merging is adding: a scan may carry one, and ``jax.lax.psum`` merges
  one across devices. For one a task, ``jax.vmap`` over the tasks' logits.

  ============================ ==============================================
  input                        result
  ============================ ==============================================
  nothing yet, or all masked   NaN scores
  an empty bin                 counts nothing in the ECE; NaN in `reliability`
  masked NaN                   no effect
  unmasked NaN among logits    NaN scores, and NaN in the last bin
  label outside the classes    counts as wrong, with probability 0
  several largest logits       the first of them is the prediction
  ============================ ==============================================

  Attributes:
    confidence: sum of the confidences in each bin, shape ``(num_bins,)``.
    correct: number of correct examples in each bin.
    count: number of examples in each bin.
    squared_error: sum over the examples of the squared error.

  Example:
    >>> import jax.numpy as jnp
    >>> from mtljax.diagnostics import Calibration
    >>> logits = jnp.log(jnp.array([[0.75, 0.25], [0.25, 0.75]]))
    >>> got = Calibration.from_logits(logits, jnp.array([0, 0]))
    >>> print(f'{got.ece():.3f} {got.brier():.3f}')
    0.250 0.625

  References:
    Guo et al., `On Calibration of Modern Neural Networks
    <https://arxiv.org/abs/1706.04599>`_, 2017; Brier, `Verification of
    Forecasts Expressed in Terms of Probability
    <https://doi.org/10.1175/1520-0493(1950)078%3C0001:VOFEIT%3E2.0.CO;2>`_,
    1950.
  """

  confidence: jax.Array
  correct: jax.Array
  count: jax.Array
  squared_error: jax.Array

  @classmethod
  def empty(cls, num_bins: int = 10) -> Self:
    """The calibration of no data, neutral in `merge`.

    Args:
      num_bins: number of bins of confidence.

    Returns:
      The accumulator, in jax's default float type.
    """
    bins = jnp.zeros(_bins(num_bins))
    return cls(bins, jnp.zeros_like(bins), jnp.zeros_like(bins), jnp.zeros(()))

  @classmethod
  def from_logits(
    cls,
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
  ) -> Self:
    """The calibration of one batch.

    Args:
      logits: scores of the classes on the last axis, shape ``(..., C)``.
      labels: integer classes, shape ``(...)``.
      mask: true where an example counts, shape ``(...)``; None counts all.
      num_bins: number of bins of confidence.

    Returns:
      The accumulator.

    Raises:
      ValueError: the shapes do not fit, or ``num_bins`` is not positive.
      TypeError: ``labels`` are not integers.
    """
    num_bins = _bins(num_bins)
    probabilities = _softmax(logits)
    labels = jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
      raise TypeError(
        f'labels must be integers, got {labels.dtype}; one-hot labels become '
        'integers by jnp.argmax(labels, -1).'
      )
    _check_shape('labels', labels, probabilities)
    classes = jnp.arange(probabilities.shape[-1], dtype=labels.dtype)
    classes = classes.reshape((1,) * labels.ndim + classes.shape)
    hit = labels[..., None] == classes
    confidence = jnp.max(probabilities, axis=-1)
    correct = jnp.argmax(probabilities, axis=-1) == labels
    squared = 1 + jnp.sum(
      jnp.square(probabilities) - 2 * jnp.where(hit, probabilities, 0), axis=-1
    )
    edges = jnp.linspace(0, 1, num_bins + 1, dtype=confidence.dtype)[1:-1]
    index = jnp.searchsorted(edges, confidence)
    keep = _keep(mask, confidence)
    return cls(
      _per_bin(index, confidence, keep, num_bins),
      _per_bin(index, correct.astype(confidence.dtype), keep, num_bins),
      _per_bin(index, jnp.ones_like(confidence), keep, num_bins),
      jnp.sum(jnp.where(keep, squared, 0)),
    )

  def merge(self, other: Self) -> Self:
    """The calibration of both sets of data.

    Args:
      other: another one, of as many bins.

    Returns:
      The merged accumulator.

    Raises:
      TypeError: ``other`` is something else.
      ValueError: the numbers of bins differ.
    """
    return _merge(self, other)

  def ece(self) -> jax.Array:
    """The expected calibration error, in [0, 1]; NaN without data."""
    gaps = jnp.sum(jnp.abs(self.correct - self.confidence), axis=-1)
    return _ratio(gaps, jnp.sum(self.count, axis=-1))

  def brier(self) -> jax.Array:
    """The Brier score, in [0, 2]; NaN without data."""
    return _ratio(self.squared_error, jnp.sum(self.count, axis=-1))

  def reliability(self) -> Reliability:
    """Mean confidence, accuracy and count of each bin."""
    return Reliability(
      _ratio(self.confidence, self.count),
      _ratio(self.correct, self.count),
      self.count,
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EntropyHistogram:
  r"""Histogram of the predictive entropy over all batches seen, in nats.

  .. math:: H_i = -\sum_c p_{ic} \log p_{ic} \in [0, \log C]

  A network that knows what it does not know has low entropies on the data it
  was trained for and high ones on others; draw both histograms together. The
  bins are of equal width over [0, log C], and a bin holds its upper edge.

  ============================ ==============================================
  input                        result
  ============================ ==============================================
  nothing yet, or all masked   counts 0; NaN density and mean
  logit -inf                   probability 0, which adds no entropy
  masked NaN                   no effect
  unmasked NaN among logits    NaN mean, and NaN in the last bin
  ============================ ==============================================

  Attributes:
    count: number of examples in each bin, shape ``(num_bins,)``.
    total: sum of the entropies, nats.
    num_classes: C, static.

  Example:
    >>> import jax.numpy as jnp
    >>> from mtljax.diagnostics import EntropyHistogram
    >>> logits = jnp.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    >>> got = EntropyHistogram.from_logits(logits, num_bins=4)
    >>> print(got.count, f'{got.mean():.4f}')
    [2. 0. 0. 1.] 0.2319

  References:
    Lakshminarayanan, Pritzel and Blundell, `Simple and Scalable Predictive
    Uncertainty Estimation using Deep Ensembles
    <https://arxiv.org/abs/1612.01474>`_, 2017, section 3.5.
  """

  count: jax.Array
  total: jax.Array
  num_classes: int = dataclasses.field(metadata={'static': True})

  @classmethod
  def empty(cls, num_classes: int, num_bins: int = 20) -> Self:
    """The histogram of no data, neutral in `merge`.

    Args:
      num_classes: C.
      num_bins: number of bins of entropy.

    Returns:
      The histogram, in jax's default float type.
    """
    if num_classes < 2:
      raise ValueError(
        f'num_classes={num_classes}: entropy needs at least two classes.'
      )
    return cls(jnp.zeros(_bins(num_bins)), jnp.zeros(()), num_classes)

  @classmethod
  def from_logits(
    cls, logits: ArrayLike, *, mask: ArrayLike | None = None, num_bins: int = 20
  ) -> Self:
    """The histogram of one batch.

    Args:
      logits: scores of the classes on the last axis, shape ``(..., C)``.
      mask: true where an example counts, shape ``(...)``; None counts all.
      num_bins: number of bins of entropy.

    Returns:
      The histogram.

    Raises:
      ValueError: the shapes do not fit, there are fewer than two classes, or
        ``num_bins`` is not positive.
    """
    probabilities = _softmax(logits)
    num_classes = probabilities.shape[-1]
    cls.empty(num_classes, num_bins)  # checks both
    entropy = jnp.sum(jax.scipy.special.entr(probabilities), axis=-1)
    edges = jnp.linspace(
      0, math.log(num_classes), num_bins + 1, dtype=entropy.dtype
    )
    index = jnp.searchsorted(edges[1:-1], entropy)
    keep = _keep(mask, entropy)
    one = jnp.where(jnp.isnan(entropy), entropy, 1)
    return cls(
      _per_bin(index, one, keep, num_bins),
      jnp.sum(jnp.where(keep, entropy, 0)),
      num_classes,
    )

  def merge(self, other: Self) -> Self:
    """The histogram of both sets of data.

    Args:
      other: another one, of as many classes and bins.

    Returns:
      The merged histogram.

    Raises:
      TypeError: ``other`` is something else.
      ValueError: the numbers of classes or bins differ.
    """
    return _merge(self, other)

  def edges(self) -> jax.Array:
    """The edges of the bins in nats, shape ``(num_bins + 1,)``."""
    num_bins = self.count.shape[-1]
    return jnp.linspace(
      0, math.log(self.num_classes), num_bins + 1, dtype=self.count.dtype
    )

  def density(self) -> jax.Array:
    """Density in each bin, per nat: its integral is 1; NaN without data."""
    width = math.log(self.num_classes) / self.count.shape[-1]
    total = jnp.sum(self.count, axis=-1, keepdims=True)
    return _ratio(self.count, jnp.broadcast_to(total, self.count.shape)) / width

  def mean(self) -> jax.Array:
    """The mean entropy in nats; NaN without data."""
    return _ratio(self.total, jnp.sum(self.count, axis=-1))


def _bins(num_bins: int) -> int:
  _validate.in_range('num_bins', num_bins, 1)
  return num_bins


def _softmax(logits: ArrayLike) -> jax.Array:
  logits = jnp.asarray(logits)
  if logits.ndim == 0:
    raise ValueError('logits must have the classes on their last axis.')
  return jax.nn.softmax(logits.astype(_tree.accumulator(logits.dtype)), axis=-1)


def _check_shape(name: str, array: jax.Array, logits: jax.Array) -> None:
  if array.shape != logits.shape[:-1]:
    raise ValueError(
      f'{name} must have the shape of logits without its last axis, got '
      f'{array.shape} for logits of shape {logits.shape}.'
    )


def _keep(mask: ArrayLike | None, values: jax.Array) -> jax.Array:
  if mask is None:
    return jnp.ones(values.shape, bool)
  mask = jnp.asarray(mask).astype(bool)
  _check_shape('mask', mask, values[..., None])
  return mask


def _per_bin(
  index: jax.Array, values: jax.Array, keep: jax.Array, num_bins: int
) -> jax.Array:
  """Sums in each bin; a NaN stays in its own."""
  index, values = index.reshape(-1, 1), values.reshape(-1, 1)
  inside = (index == jnp.arange(num_bins)[None]) & keep.reshape(-1, 1)
  return jnp.sum(jnp.where(inside, values, 0), axis=0)


def _ratio(total: jax.Array, weight: jax.Array) -> jax.Array:
  # `weight` is NaN after a NaN, and so is the ratio.
  some = weight != 0
  return jnp.where(some, total / jnp.where(some, weight, 1), jnp.nan)


def _merge(first, second):
  """Adds the leaves of two accumulators of one kind and shape."""
  if type(first) is not type(second):
    raise TypeError(
      f'cannot merge {type(first).__name__} with {type(second).__name__}; '
      'merge accumulators of one class.'
    )
  shapes = [
    (jax.tree.structure(x), [leaf.shape for leaf in jax.tree.leaves(x)])
    for x in (first, second)
  ]
  if shapes[0] != shapes[1]:
    raise ValueError(
      f'cannot merge accumulators of different sizes, {shapes[0][1]} and '
      f'{shapes[1][1]}; give both as many bins and classes.'
    )
  return jax.tree.map(jnp.add, first, second)

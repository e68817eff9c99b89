"""How far the tasks' gradients disagree: in angle, in size, in sign."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _labels, _tree
from mtljax.metrics import Mean


class Similarity(NamedTuple):
  """What `similarity` returns, each of the Gramian's shape.

  Attributes:
    cosine: in [-1, 1]; below zero the gradients conflict.
    magnitude: in [0, 1]; 1 for gradients of one length.
    product: the scalar products.
  """

  cosine: jax.Array
  magnitude: jax.Array
  product: jax.Array


def similarity(gramian: ArrayLike) -> Similarity:
  r"""Cosine, magnitude similarity and scalar product of gradients.

  .. math::
     S_{cos} = \frac{g \cdot g'}{\lVert g \rVert \lVert g' \rVert}, \qquad
     S_{mag} = \frac{2 \lVert g \rVert \lVert g' \rVert}
     {\lVert g \rVert^2 + \lVert g' \rVert^2}

  ======================= ==================================================
  input                   result
  ======================= ==================================================
  a zero gradient         cosine and magnitude 0 beside it, its own diagonal
                          entry included
  a NaN in the Gramian    NaN in its row and column
  ======================= ==================================================

  Args:
    gramian: shape ``(..., N, N)``; the N gradients are of tasks, samples, or
      both.

  Returns:
    The `Similarity`.

  Example:
    >>> import jax.numpy as jnp
    >>> from mtljax.diagnostics import similarity
    >>> got = similarity(jnp.array([[1.0, -2.0], [-2.0, 16.0]]))
    >>> print(f'{got.cosine[0, 1]:.3f} {got.magnitude[0, 1]:.3f}')
    -0.500 0.471

  References:
    Yu et al., `Gradient Surgery for Multi-Task Learning
    <https://arxiv.org/abs/2001.06782>`_, 2020; between samples and tasks,
    Elich et al., `Examining Common Paradigms in Multi-Task Learning
    <https://arxiv.org/abs/2311.04698>`_, 2024.
  """
  gramian = _square(gramian)
  cosine = jnp.vectorize(_tree.cosines, signature='(n,n)->(n,n)')(gramian)
  norms = jnp.sqrt(jnp.diagonal(gramian, axis1=-2, axis2=-1))
  one, other = norms[..., :, None], norms[..., None, :]
  longer = jnp.maximum(one, other)
  ratio = jnp.where(
    longer == 0, 0, jnp.minimum(one, other) / jnp.where(longer == 0, 1, longer)
  )
  return Similarity(cosine, 2 * ratio / (1 + jnp.square(ratio)), gramian)


def sign_conflicts(
  grads: Any, *, labels: _labels.Labels | None = None
) -> jax.Array:
  r"""Fraction of shared coordinates where two tasks' gradients differ in sign.

  .. math:: C_{ij} = \frac{1}{P} \left| \{ p : g_{ip}\, g_{jp} < 0 \} \right|

  The paper names this ratio without a formula; this is the plain reading. A
  coordinate where either is zero does not conflict but counts in P. Leaves are
  counted one by one, on signs, so nothing underflows. Costs T² P operations.

  ======================= ===============================================
  input                   result
  ======================= ===============================================
  a zero gradient         0
  a NaN in a gradient     NaN in that task's row and column
  ======================= ===============================================

  Args:
    grads: per-task gradients as `mtljax.value_and_task_grads` returns them.
    labels: see `mtljax.label_params`; None: all leaves are shared.

  Returns:
    Shape ``(T, T)``, in [0, 1], float32 or wider, with zeros on the diagonal.

  Raises:
    ValueError: no leaf is shared.

  Example:
    >>> import jax.numpy as jnp
    >>> from mtljax.diagnostics import sign_conflicts
    >>> print(sign_conflicts(jnp.array([[1.0, 2.0, 0.0, 3.0],
    ...                                 [1.0, -1.0, 5.0, -1.0]])))
    [[0.  0.5]
     [0.5 0. ]]

  References:
    Elich et al., `Examining Common Paradigms in Multi-Task Learning
    <https://arxiv.org/abs/2311.04698>`_, 2024, figure 4.
  """
  flat = _labels.flatten_labels(labels, grads)
  leaves = jax.tree.leaves(grads)
  signs = [
    jnp.sign(_tree.as_real(x))
    for x, label in zip(leaves, flat, strict=True)
    if label == _labels.SHARED
  ]
  agreement = _tree.gramian_of(signs)
  both = _tree.gramian_of([jnp.abs(s) for s in signs])
  size = sum(s[0].size for s in signs)
  return (both - agreement) / (2 * size)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ConflictRate:
  r"""How often gradients conflict, over all steps seen: an epoch, say.

  A pair of tasks conflicts in a step when :math:`g_i \cdot g_j < 0`. Kept are
  sums, so that merging is adding: a scan may carry one, and
  ``jax.lax.psum`` merges one across devices.

  ============================ ==============================================
  input                        result
  ============================ ==============================================
  nothing yet, or T = 1        NaN rates
  a zero gradient              does not conflict
  an absent task (mask)        its pairs do not count
  one task present, or none    the step does not count
  unmasked NaN                 NaN
  ============================ ==============================================

  Attributes:
    pairs: for each pair the mean of its conflicts, shape ``(T, T)``.
    steps: the mean over the steps with any conflict.

  Example:
    >>> import jax.numpy as jnp
    >>> from mtljax.diagnostics import ConflictRate
    >>> calm, tense = jnp.eye(3), jnp.eye(3).at[0, 1].set(-0.5)
    >>> tense = tense.at[1, 0].set(-0.5)
    >>> rate = ConflictRate.empty(num_tasks=3)
    >>> for gramian in (calm, tense):
    ...   rate = rate.merge(ConflictRate.from_gramian(gramian))
    >>> print(f'{rate.step_rate():.3f} {rate.pair_rate():.3f}')
    0.500 0.167

  References:
    Yu et al., `Gradient Surgery for Multi-Task Learning
    <https://arxiv.org/abs/2001.06782>`_, 2020, definition 1; by epoch, Phan et
    al., `Improving Multi-task Learning via Seeking Task-based Flat Regions
    <https://arxiv.org/abs/2211.13723>`_, 2022, figure 3.
  """

  pairs: Mean
  steps: Mean

  @classmethod
  def empty(cls, num_tasks: int) -> Self:
    """The rate over no steps, neutral in `merge`.

    Args:
      num_tasks: T.

    Returns:
      The accumulator, in jax's default float type.
    """
    return cls(Mean.empty((num_tasks, num_tasks)), Mean.empty())

  @classmethod
  def from_gramian(
    cls, gramian: ArrayLike, *, mask: ArrayLike | None = None
  ) -> Self:
    """The rate of one step, or of several.

    Args:
      gramian: shape ``(..., T, T)``; leading axes are steps.
      mask: true for the tasks present, shape ``(..., T)``; None: all.

    Returns:
      The accumulator.

    Raises:
      ValueError: the shapes do not fit.
    """
    gramian = _square(gramian)
    num_tasks = gramian.shape[-1]
    gramian = gramian.reshape(-1, num_tasks, num_tasks)
    present = jnp.ones(gramian.shape[:2], bool)
    if mask is not None:
      mask = jnp.asarray(mask).astype(bool)
      if mask.size != present.size or mask.shape[-1] != num_tasks:
        raise ValueError(
          f'mask must have an entry for each of the {num_tasks} tasks in each '
          f'step, got shape {mask.shape}.'
        )
      present = mask.reshape(present.shape)
    upper = jnp.triu(jnp.ones((num_tasks, num_tasks), bool), 1)
    counts = (
      present[:, :, None]
      & present[:, None, :]
      & ~jnp.eye(num_tasks, dtype=bool)[None]
    )
    conflict = jnp.where(jnp.isnan(gramian), gramian, gramian < 0)
    upper = counts & upper[None]
    any_conflict = jnp.max(
      jnp.where(upper, conflict, 0), axis=(1, 2), initial=0
    )
    return cls(
      Mean.from_values(conflict, mask=counts, axis=0),
      Mean.from_values(any_conflict, mask=jnp.any(upper, axis=(1, 2))),
    )

  def merge(self, other: Self) -> Self:
    """The rate over the steps of both.

    Args:
      other: another one, of as many tasks.

    Returns:
      The merged accumulator.

    Raises:
      TypeError: ``other`` is something else.
      ValueError: the numbers of tasks differ.
    """
    if type(other) is not type(self):
      raise TypeError(
        f'cannot merge ConflictRate with {type(other).__name__}; merge '
        'accumulators of one class.'
      )
    return type(self)(
      self.pairs.merge(other.pairs), self.steps.merge(other.steps)
    )

  def rates(self) -> jax.Array:
    """Each pair's rate, shape ``(T, T)``; NaN on the diagonal."""
    return self.pairs.compute()

  def pair_rate(self) -> jax.Array:
    """The fraction of pairs in conflict, over all steps and pairs."""
    return Mean(jnp.sum(self.pairs.total), jnp.sum(self.pairs.weight)).compute()

  def step_rate(self) -> jax.Array:
    """The fraction of steps with any pair in conflict."""
    return self.steps.compute()


def _square(gramian: ArrayLike) -> jax.Array:
  gramian = jnp.asarray(gramian)
  if gramian.ndim < 2 or gramian.shape[-1] != gramian.shape[-2]:
    raise ValueError(
      f'gramian must have shape (..., T, T), got {gramian.shape}.'
    )
  return gramian.astype(_tree.accumulator(gramian.dtype))

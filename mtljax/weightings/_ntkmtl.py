"""NTKMTL-SR: weights by the spectra of kernels at the representation."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, TaskStats, Weighting


class NTKMTLSRState(NamedTuple):
  """State of `ntkmtl_sr`: none."""


def _norms_and_mask(
  stats: TaskStats, chunks: int
) -> tuple[jax.Array, jax.Array]:
  norms = stats.feature_norms
  if norms is None:
    raise ValueError(
      'ntkmtl_sr needs stats.feature_norms, which is None: pass TaskStats('
      'feature_norms=...), from mtl.value_and_feature_norms.'
    )
  norms = jnp.asarray(norms)
  if norms.ndim != 2 or norms.shape[1] != chunks:
    raise ValueError(
      f'stats.feature_norms has shape {norms.shape}; ntkmtl_sr needs (T, '
      f'{chunks}): build it by mtl.value_and_feature_norms(chunks={chunks}).'
    )
  mask = stats.mask
  mask = jnp.ones(len(norms), bool) if mask is None else jnp.asarray(mask, bool)
  return norms.astype(jnp.promote_types(norms.dtype, jnp.float32)), mask


def ntkmtl_sr(*, power: ArrayLike = 0.5, chunks: int = 4) -> Weighting:
  r"""NTKMTL-SR: equal speed of convergence, at the shared representation.

  Along the eigenvectors of its neural tangent kernel a task converges at the
  speed of the eigenvalues. Of the batch cut into n chunks, with losses
  :math:`L_{tc}` and features z,

  .. math:: \lambda_t = \lambda_{\max}(J_t J_t^\top), \quad
     J_t = \left(\frac{\partial L_{tc}}{\partial z}\right)_{c = 1..n},
     \qquad w_t = \left(\frac{\sum_s \lambda_s}{\lambda_t}\right)^p

  A chunk's loss depends on the features of its own samples alone, so the kernel
  is diagonal and no eigenproblem is left: :math:`\lambda_t` is the largest of
  the n squared norms. Of a loss that is a mean over the samples (or a sum)
  these are the squared norms of the rows of its gradient, up to one factor for
  all tasks, which the quotient drops. Batch statistics behind the features
  break that: a head that returns such a state is refused.

  The weights have no fixed sum. Heads are weighted: the method weights losses.
  Scaling a task's loss changes the length of the update only for ``power=0.5``
  (invariance ``'direction'``), and its direction otherwise (``'none'``). Costs
  in `mtljax.training.make_train_step`, of a `mtljax.Staged` loss, one backward
  pass and the sum of T squares over the features. On the optax face
  ``feature_norms=`` is an argument of ``update``, see
  `mtljax.value_and_feature_norms`. The method without features (NTKMTL), with
  the kernel of one loss on the whole batch, is `slw`, heads unweighted.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  no gradient at features   0 for such a task, the smaller problem's answer for
                            the rest; its head is not trained in that step
  none for any task         zeros
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    power: p, at least 0: 0 is the sum of the losses, 1/2 the paper's, and the
      authors had better results with 3/4 at times.
    chunks: n, which must divide the batch.

  Returns:
    The `mtljax.Weighting`. Reads the norms at the features; it has no state.

  Raises:
    ValueError: an argument is out of range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.ntkmtl_sr(chunks=2)
    >>> stats = mtl.TaskStats(
    ...   feature_norms=jnp.array([[4.0, 1.0], [9.0, 12.0]]))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 4) for w in weights]
    [2.0, 1.1547]

  References:
    Qin et al., `NTKMTL: Mitigating Task Imbalance in Multi-Task Learning from
    Neural Tangent Kernel Perspective <https://arxiv.org/abs/2510.18258>`_, 2025
  """
  _validate.in_range('power', power, 0)
  chunks = _validate.integer('chunks', chunks, 1)

  def init_fn(num_tasks, key=None):
    del num_tasks, key
    return NTKMTLSRState()

  def update_fn(stats, state):
    norms, mask = _norms_and_mask(stats, chunks)
    largest = jnp.where(mask, jnp.max(norms, axis=1), 0)
    finite = jnp.all(jnp.isfinite(largest))
    top = jnp.max(largest)
    total = jnp.sum(largest / jnp.where(top > 0, top, 1))
    # Powers first: the eigenvalues themselves may be too far apart.
    p = jnp.asarray(power, norms.dtype)
    used = largest > 0
    weights = (total**p * top**p) / jnp.where(used, largest, 1) ** p
    weights = jnp.where(used, weights, 0)
    return jnp.where(mask, jnp.where(finite, weights, jnp.nan), 0), state

  is_root = isinstance(power, (int, float)) and power == 0.5
  return Weighting(
    init_fn,
    update_fn,
    frozenset({'feature_norms'}),
    info=MethodInfo(
      name='ntkmtl_sr',
      paper='Qin et al., 2025, https://arxiv.org/abs/2510.18258',
      invariance='direction' if is_root else 'none',
      weight_heads=True,
    ),
    chunks=chunks,
  )

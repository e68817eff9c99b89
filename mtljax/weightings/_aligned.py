"""Aligned-MTL: gradients made orthogonal and equally long."""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.weightings import _common, _preference

ScaleMode = Literal['min', 'median', 'mean']


class AlignedMTLState(NamedTuple):
  """State of `aligned_mtl`: none."""


@functools.partial(jax.jit, static_argnames=('scale_mode',))
def _align(
  gramian: jax.Array,
  preference: jax.Array,
  mask: jax.Array,
  *,
  scale_mode: ScaleMode,
) -> jax.Array:
  both = mask[:, None] & mask[None, :]
  gramian = jnp.where(both, gramian, 0)
  largest = jnp.max(jnp.diagonal(gramian))
  empty = largest < jnp.finfo(gramian.dtype).tiny
  values, vectors = jnp.linalg.eigh(gramian / jnp.where(empty, 1, largest))
  eps = jnp.finfo(gramian.dtype).eps
  cut = jnp.sum(mask).astype(gramian.dtype) * eps * values[-1]
  kept = values > cut
  rank = jnp.sum(kept)
  # Ascending: the kept values are the last ones.
  if scale_mode == 'min':
    level = values[jnp.clip(len(values) - rank, 0, len(values) - 1)]
  elif scale_mode == 'median':
    middle = len(values) - rank + (rank - 1) // 2
    level = values[jnp.clip(middle, 0, len(values) - 1)]
  else:
    level = jnp.sum(jnp.where(kept, values, 0)) / jnp.maximum(rank, 1)
  ratio = jnp.where(kept, level / jnp.where(kept, values, 1), 0)
  inner = jnp.matmul(vectors.T, preference, precision='highest')
  weights = jnp.matmul(vectors, jnp.sqrt(ratio) * inner, precision='highest')
  return jnp.where(empty, preference, weights)


def aligned_mtl(
  *,
  scale_mode: ScaleMode = 'min',
  preference: _preference.Preference = None,
) -> Weighting:
  r"""Independent component alignment (Aligned-MTL).

  The gradients are replaced by the nearest ones that are orthogonal and all of
  length :math:`\sqrt{\sigma}`, and these are added up:

  .. math:: w = \sqrt{\sigma}\, G^{-1/2} p, \qquad
     G^{-1/2} = V \Lambda^{-1/2} V^\top

  with :math:`G = V \Lambda V^\top` over the eigenvalues above rounding,
  :math:`p = 1`, and :math:`\sigma` the least of them, so that the worst
  conditioned direction keeps its length. The weights have no fixed sum; they
  may be negative, so heads are never weighted. The update's norm is
  :math:`\sqrt{\sigma} \|p\|` for independent rows. It is defined on the raw
  spectrum: scaling a task's loss changes the update (invariance ``'none'``).
  Costs the Gramian (T backward passes) and one eigenvalue decomposition, for
  :math:`G` divided by its largest diagonal entry, which changes nothing but
  the range. In float32 the update is off by up to 1 % where the gradients'
  lengths span four decades.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  a zero row                0 for it, the smaller problem's answer for the rest
  all rows zero             the preference; the update is 0
  dependent rows            equal or antiparallel ones too: the pseudo-inverse
                            square root, eigenvalues up to T eps times the
                            largest are left out
  rows of unlike length     a row that is shorter than the longest by more than
                            sqrt(T eps), 1e-3 in float32, counts as zero
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    scale_mode: which of the eigenvalues is :math:`\sigma`: ``'min'`` (the
      paper), ``'median'`` (the lower of two in the middle) or ``'mean'``.
    preference: :math:`p`, shape ``(T,)``, not negative; None: ones. With 1/T
      it is a mean.

  Returns:
    The `mtljax.Weighting`. Reads the Gramian; it has no state.

  Raises:
    ValueError: ``scale_mode`` is not known, or the preference is negative, not
      finite, 0, or not of length T.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.aligned_mtl()
    >>> stats = mtl.TaskStats(gramian=jnp.diag(jnp.array([1.0, 4.0])))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 4) for w in weights]
    [1.0, 0.5]

  References:
    Senushkin et al., `Independent Component Alignment for Multi-Task Learning
    <https://arxiv.org/abs/2305.19000>`_, 2023
  """
  _validate.one_of('scale_mode', scale_mode, ('min', 'median', 'mean'))
  _preference.check(preference)

  def init_fn(num_tasks, key=None):
    del key
    _preference.check_length(preference, num_tasks)
    return AlignedMTLState()

  def update_fn(stats, state):
    gramian, mask = _common.gramian_and_mask(stats, 'aligned_mtl')
    wanted = _preference.as_array(preference, mask, gramian.dtype)
    weights = _align(gramian, wanted, mask, scale_mode=scale_mode)
    return _common.nan_unless_finite(weights, gramian, mask), state

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'gramian'}),
    info=MethodInfo(
      name='aligned_mtl',
      paper='Senushkin et al., 2023, https://arxiv.org/abs/2305.19000',
      signed=True,
    ),
  )

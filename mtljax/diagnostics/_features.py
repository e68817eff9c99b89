"""Whether tasks use features of their own: saliency and disentanglement."""

from __future__ import annotations

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _labels, _tree, _validate
from mtljax.gradients import Staged, _pullback

KINDS = ('gradient', 'gradient_input')
PER = ('feature', 'task')
MEASURES = ('cosine', 'jensen_shannon', 'jaccard', 'entropy')


def feature_saliency(
  fun: Staged,
  params: Any,
  batch: Any,
  *args: Any,
  labels: _labels.Labels | None = None,
  kind: Literal['gradient', 'gradient_input'] = 'gradient',
  has_aux: bool = False,
) -> jax.Array:
  r"""How much each task's loss hangs on each shared feature.

  .. math:: s_{tc} = \operatorname{mean}_{n, p}
     \left| \frac{\partial L_t}{\partial z_{npc}} \right|

  over examples n and positions p (pixels, say) of the trunk's output z, whose
  last axis are the features c; of several outputs the features follow each
  other. It costs one forward pass and a backward pass of each head, none of the
  trunk. The shared parameters are not touched.

  ======================== =================================================
  input                    result
  ======================== =================================================
  a feature nobody reads   0 for all tasks
  a NaN in a gradient      NaN in that task's feature
  mean over the batch      all entries have a factor 1 / batch
  ======================== =================================================

  Args:
    fun: the losses with trunk and heads apart, called as
      ``fun.trunk(params, batch, *args)``.
    params: the parameters.
    batch: what the trunk is given.
    *args: further arguments of trunk and heads.
    labels: see `mtljax.label_params`; None: all parameters are shared.
    kind: ``'gradient'``, or ``'gradient_input'`` for the mean of
      :math:`|z \odot \partial L_t / \partial z|`.
    has_aux: whether trunk and heads return ``(output, aux)``.

  Returns:
    Shape ``(T, C)``, at least 0, float32 or wider.

  Raises:
    TypeError: the losses are not staged.
    ValueError: the trunk returns nothing floating, or ``kind`` is not known.

  Example:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> from mtljax.diagnostics import feature_saliency
    >>> loss = mtl.Staged(
    ...   trunk=lambda params, x: x @ params,
    ...   heads=[lambda params, z, x: jnp.mean(3 * z[:, 0]),
    ...          lambda params, z, x: jnp.mean(z[:, 0] - z[:, 1])],
    ... )
    >>> print(feature_saliency(loss, jnp.eye(2), jnp.ones((1, 2))))
    [[3. 0.]
     [1. 1.]]

  References:
    Mao et al., `Robust Analysis of Multi-Task Learning Efficiency
    <https://arxiv.org/abs/2402.03557>`_, 2024.
  """
  _validate.one_of('kind', kind, KINDS)
  if not isinstance(fun, Staged):
    raise TypeError(
      f'fun={fun!r} must be a mtljax.Staged: features are what its trunk '
      'returns.'
    )
  args = (batch, *args)
  pullback = _pullback.make_pullback(
    fun, params, args, labels=labels, has_aux=has_aux
  )
  assert pullback.features is not None
  grads = pullback.features()
  if kind == 'gradient_input':
    out = fun.trunk(params, *args)
    features = [
      x
      for x in jax.tree.leaves(out[0] if has_aux else out)
      if jnp.issubdtype(jnp.result_type(x), jnp.inexact)
    ]
    grads = [
      grad * jnp.asarray(z)[None]
      for grad, z in zip(grads, features, strict=True)
    ]
  return jnp.concatenate([_channels(grad) for grad in grads], axis=1)


def _channels(grads: jax.Array) -> jax.Array:
  """Mean sizes over all but tasks and the last axis, ``(T, C)``."""
  sizes = jnp.abs(grads)
  sizes = sizes.reshape(
    len(sizes), -1, sizes.shape[-1] if grads.ndim > 1 else 1
  )
  return jnp.mean(sizes.astype(_tree.accumulator(sizes.dtype)), axis=1)


def feature_disentanglement(
  saliency: ArrayLike,
  *,
  per: Literal['feature', 'task'] = 'feature',
  measure: Literal['cosine', 'jensen_shannon', 'jaccard', 'entropy'] = 'cosine',
  top_k: int | None = None,
  balanced: bool = False,
) -> jax.Array:
  r"""A reconstruction of Feature Disentanglement: how few features are shared.

  No formula is public: what is, is that saliencies of features make, for each
  feature, a distribution over tasks. How features are aggregated is an open
  reading, and so an option. With shares

  .. math:: p_{tc} = \frac{s_{tc}}{\sum_u s_{uc}}
     \quad \text{(per feature)} \qquad \text{or} \qquad
     p_{tc} = \frac{s_{tc}}{\sum_d s_{td}} \quad \text{(per task)}

  it is, 0 where all tasks use all features alike and 1 where none is shared,

  ==================== ======================================================
  measure              value
  ==================== ======================================================
  ``cosine``           1 less the mean cosine of two tasks' rows :math:`p_t`
  ``jensen_shannon``   the mean divergence of two rows, each scaled to sum to
                       one, by log 2
  ``jaccard``          1 less the mean of shared by all features among the
                       ``top_k`` of either task
  ``entropy``          1 less the mean entropy over tasks of the features'
                       distributions, by log T; per feature only
  ==================== ======================================================

  ============================ ==============================================
  input                        result
  ============================ ==============================================
  a feature that nobody reads  is not counted
  a task without saliency      its pairs are not counted
  T = 1, or no pair left       NaN
  equal saliencies             of these the first are the top ones
  a NaN                        NaN
  ============================ ==============================================

  Per feature it hangs on the units of the losses: a task with a far larger one
  has all shares. ``balanced`` takes that away.

  Args:
    saliency: of `feature_saliency`, at least 0, shape ``(..., T, C)``.
    per: what the distributions are of: ``'feature'``, over tasks, or
      ``'task'``, over features.
    measure: see above.
    top_k: features a task that ``'jaccard'`` looks at; None: a tenth of them,
      rounded up.
    balanced: whether each task's saliencies are first scaled to sum to one.

  Returns:
    Shape ``(...)``, in [0, 1], float32 or wider.

  Raises:
    ValueError: the shape or an option does not fit.

  Example:
    >>> import jax.numpy as jnp
    >>> from mtljax.diagnostics import feature_disentanglement
    >>> apart = jnp.array([[1.0, 1.0, 0.0], [0.0, 0.0, 5.0]])
    >>> print(feature_disentanglement(apart))
    1.0
    >>> half = jnp.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    >>> for measure in ('cosine', 'jensen_shannon'):
    ...   print(f'{feature_disentanglement(half, measure=measure):.3f}')
    0.800
    0.667

  References:
    Mao et al., `Robust Analysis of Multi-Task Learning Efficiency
    <https://arxiv.org/abs/2402.03557>`_, 2024, names it; entropy over tasks is
    that of Rep-MTL, which cites it for saliencies.
  """
  _validate.one_of('per', per, PER)
  _validate.one_of('measure', measure, MEASURES)
  _validate.flag('balanced', balanced)
  saliency = jnp.asarray(saliency)
  if saliency.ndim < 2 or 0 in saliency.shape[-2:]:
    raise ValueError(
      f'saliency must have shape (..., T, C), got {saliency.shape}.'
    )
  if measure == 'entropy' and per == 'task':
    raise ValueError(
      "measure='entropy' is of distributions over tasks: use per='feature'."
    )
  num_features = saliency.shape[-1]
  top_k = math.ceil(num_features / 10) if top_k is None else top_k
  _validate.in_range('top_k', top_k, 1, num_features)
  saliency = saliency.astype(_tree.accumulator(saliency.dtype))
  if balanced:
    saliency = _shares(saliency, -1)
  shares = _shares(saliency, -2 if per == 'feature' else -1)
  if measure == 'entropy':
    return _concentration(shares)
  if measure == 'cosine':
    apart = 1 - _cosines(shares)
  elif measure == 'jensen_shannon':
    apart = _divergences(_shares(shares, -1))
  else:
    apart = 1 - _overlaps(shares, top_k)
  return _mean_of_pairs(apart, jnp.sum(shares, axis=-1) != 0)


def _shares(values: jax.Array, axis: int) -> jax.Array:
  """The values by their sum; zeros where that is zero."""
  # By the largest first: sums of tiny or huge values stay in range.
  largest = jnp.max(values, axis=axis, keepdims=True)
  scaled = values / jnp.where(largest == 0, 1, largest)
  total = jnp.sum(scaled, axis=axis, keepdims=True)
  return scaled / jnp.where(total == 0, 1, total)


def _cosines(rows: jax.Array) -> jax.Array:
  norms = jnp.linalg.norm(rows, axis=-1, keepdims=True)
  units = rows / jnp.where(norms == 0, 1, norms)
  return jnp.einsum('...tc,...uc->...tu', units, units, precision='highest')


def _divergences(rows: jax.Array) -> jax.Array:
  """Jensen-Shannon divergences of all pairs, by log 2."""
  one, other = rows[..., :, None, :], rows[..., None, :, :]
  entropy = lambda p: jnp.sum(jax.scipy.special.entr(p), axis=-1)
  mixed = entropy((one + other) / 2)
  return (mixed - (entropy(one) + entropy(other)) / 2) / math.log(2)


def _overlaps(rows: jax.Array, top_k: int) -> jax.Array:
  """Jaccard indices of the sets of the largest entries above zero."""
  num_features = rows.shape[-1]
  top = jax.lax.top_k(rows, top_k)[1]
  chosen = jnp.sum(jax.nn.one_hot(top, num_features), axis=-2)
  # Not a set of NaN: these stay.
  chosen = jnp.where(rows == 0, 0, chosen + 0 * rows)
  one, other = chosen[..., :, None, :], chosen[..., None, :, :]
  both = jnp.sum(one * other, axis=-1)
  either = jnp.sum(jnp.maximum(one, other), axis=-1)
  return both / jnp.where(either == 0, 1, either)


def _concentration(shares: jax.Array) -> jax.Array:
  num_tasks = shares.shape[-2]
  if num_tasks == 1:
    return jnp.full(shares.shape[:-2], jnp.nan, shares.dtype)
  counts = jnp.sum(shares, axis=-2) != 0
  entropy = jnp.sum(jax.scipy.special.entr(shares), axis=-2)
  found = 1 - entropy / math.log(num_tasks)
  return jnp.sum(jnp.where(counts, found, 0), axis=-1) / jnp.sum(
    counts, axis=-1
  )


def _mean_of_pairs(values: jax.Array, counts: jax.Array) -> jax.Array:
  """Mean above the diagonal over pairs that both count; NaN for none."""
  upper = jnp.triu(jnp.ones(values.shape[-2:], bool), 1)
  pairs = counts[..., :, None] & counts[..., None, :]
  pairs = pairs & jnp.broadcast_to(upper, pairs.shape)
  total = jnp.sum(jnp.where(pairs, values, 0), axis=(-2, -1))
  return total / jnp.sum(pairs, axis=(-2, -1))

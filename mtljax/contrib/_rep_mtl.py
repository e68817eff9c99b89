r"""Rep-MTL, reconstructed: losses that steer saliencies at the features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _tree, _validate
from mtljax.gradients import Staged, _outputs, _pullback

Anchor = Literal['mean', 'others']
ANCHORS: tuple[Anchor, ...] = ('mean', 'others')


def rep_mtl_losses(
  fun: Staged,
  *,
  entropy_strength: ArrayLike,
  alignment_strength: ArrayLike,
  temperature: ArrayLike = 0.1,
  anchor: Anchor = 'mean',
) -> Callable[..., jax.Array]:
  r"""Rep-MTL, reconstructed from its text: losses to sum, saliencies in them.

  The saliency of a task is the gradient of its loss at the shared features,
  :math:`S_t = \partial L_t / \partial z`. The objective is

  .. math:: \sum_t L_t + \lambda_1 L_{\mathrm{tsr}}
     + \lambda_2 L_{\mathrm{csa}}

  Task-specific saliency regulation is the mean over samples and positions i of
  the entropy of the tasks' shares there, from the means over channels:

  .. math:: P_{ti} = \frac{|\bar S_{ti}|}{\sum_s |\bar S_{si}|}, \qquad
     L_{\mathrm{tsr}} = -\operatorname{mean}_i \sum_t P_{ti} \log P_{ti}

  Cross-task saliency alignment contrasts channel affinities. Of sample b with
  saliencies :math:`S_{tb}`, channels by positions, :math:`m_{tb}` is
  :math:`S_{tb} S_{tb}^\top` over its Frobenius norm, and

  .. math:: L_{\mathrm{csa}} = -\operatorname{mean}_{t,b} \log
     \frac{\exp(\langle m_{tb}, a_{tb} \rangle / \tau)}
     {\sum_{b'} \exp(\langle m_{tb}, a_{tb'} \rangle / \tau)}

  with the anchor :math:`a_{tb}` the mean over tasks of the :math:`m_{sb}`, over
  its norm. The authors' code is not public. From the paper are the saliencies,
  the shares, the entropy, the affinities and that tasks of one sample attract
  while other samples' anchors repel. **Not** from it, and so choices here: what
  an anchor is (an option), the norms, that gradients pass through anchors, the
  temperature; the two strengths have no default.

  Train the result with `mtljax.sum_losses` (the paper's equal weights) and no
  labels: a regulariser is every task's, so each entry is its loss and a T-th
  part of :math:`\lambda_1 L_{\mathrm{tsr}} + \lambda_2 L_{\mathrm{csa}}`, and
  depends on all heads. Costs T passes back through the heads and, for the
  gradient, second derivatives of the heads, of which the trunk sees one more
  signal; memory T copies of the features.

  ==========================  ================================================
  input                       result
  ==========================  ================================================
  one task                    entropy 0; alignment of samples with themselves
  no saliency at a position   entropy 0 there
  a sample's saliency is 0    its affinity and anchor are 0
  a batch of one              alignment 0
  features without positions  ``(B, C)``: one position
  ==========================  ================================================

  Args:
    fun: the losses; the trunk returns one array ``(B, ..., C)``. Heads must be
      differentiable twice.
    entropy_strength: :math:`\lambda_1`, at least 0.
    alignment_strength: :math:`\lambda_2`, at least 0.
    temperature: :math:`\tau`, above 0.
    anchor: ``'mean'``: of all tasks; ``'others'``: of those but t, so that a
      task is not its own anchor, for two tasks or more.

  Returns:
    A function ``(params, *args) -> (T,)``, the plain form of a loss.

  Raises:
    ValueError: an argument is not valid; or, when called, the trunk returns
      other than one floating array with a batch and channels.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> loss = mtl.Staged(
    ...   trunk=lambda w, x: w * x,
    ...   heads=[lambda w, z, x: jnp.sum(z), lambda w, z, x: 3 * jnp.sum(z)],
    ... )
    >>> fn = mtl.contrib.rep_mtl_losses(
    ...   loss, entropy_strength=1.0, alignment_strength=0.0)
    >>> losses = fn(2.0, jnp.ones((2, 3)))
    >>> [round(float(x), 4) for x in losses]  # half of the entropy in each
    [12.2812, 36.2812]

  References:
    Wang et al., `Rep-MTL: Unleashing the Power of Representation-level Task
    Saliency for Multi-Task Learning <https://arxiv.org/abs/2507.21049>`_, 2025
  """
  _pullback.check_staged(fun, 'Rep-MTL reads gradients at the features')
  _validate.in_range('entropy_strength', entropy_strength, 0)
  _validate.in_range('alignment_strength', alignment_strength, 0)
  _validate.in_range('temperature', temperature, 0, open_low=True)
  _validate.one_of('anchor', anchor, ANCHORS)
  if anchor == 'others' and len(fun.heads) < 2:
    raise ValueError("anchor='others': one task has no others; use 'mean'.")

  def losses_fn(params, *args):
    features = _checked(fun.trunk(params, *args))

    def head_loss(t):
      head = lambda z: _outputs.scalar(fun.heads[t](params, z, *args), t)
      return jax.value_and_grad(head)(features)

    losses, saliencies = zip(
      *map(head_loss, range(len(fun.heads))), strict=True
    )
    flat = jnp.stack(saliencies).astype(_tree.accumulator(features.dtype))
    flat = flat.reshape(*flat.shape[:2], -1, flat.shape[-1])
    regularizer = entropy_strength * _entropy(flat)
    regularizer += alignment_strength * _contrast(flat, temperature, anchor)
    losses = jnp.stack(losses)
    return losses + (regularizer / len(losses)).astype(losses.dtype)

  return losses_fn


def _checked(features: Any) -> jax.Array:
  leaves = jax.tree.leaves(features)
  if len(leaves) != 1 or not jnp.issubdtype(leaves[0].dtype, jnp.floating):
    raise ValueError(
      f'features: the trunk returns {len(leaves)} arrays ('
      f'{", ".join(x.dtype.name for x in leaves)}); Rep-MTL is of one floating '
      'array (B, ..., C).'
    )
  if leaves[0].ndim < 2 or leaves[0] is not features:
    raise ValueError(
      f'features: {leaves[0].shape} in a {type(features).__name__}; return the '
      'array itself, with the batch first and the channels last.'
    )
  return features


def _entropy(saliencies: jax.Array) -> jax.Array:
  """Of the tasks' shares, from ``(T, B, positions, C)``."""
  sizes = jnp.abs(jnp.mean(saliencies, axis=-1))
  total = jnp.sum(sizes, axis=0, keepdims=True)
  shares = sizes / jnp.where(total > 0, total, 1)
  used = shares > 0
  logs = jnp.log(jnp.where(used, shares, 1))
  return -jnp.mean(jnp.sum(shares * logs, axis=0))


def _unit(rows: jax.Array) -> jax.Array:
  """Over the norms of the last axis; zeros stay."""
  squares = jnp.sum(rows**2, axis=-1, keepdims=True)
  return rows * jnp.where(
    squares > 0, jax.lax.rsqrt(jnp.where(squares > 0, squares, 1)), 0
  )


def _contrast(
  saliencies: jax.Array, temperature: ArrayLike, anchor: Anchor
) -> jax.Array:
  """InfoNCE of the channel affinities, from ``(T, B, positions, C)``."""
  affinities = jnp.einsum(
    'tbic,tbid->tbcd', saliencies, saliencies, precision='highest'
  )
  units = _unit(affinities.reshape(*affinities.shape[:2], -1))
  total = jnp.sum(units, axis=0, keepdims=True)
  if anchor == 'others':
    total = total - units
  anchors = _unit(jnp.broadcast_to(total, units.shape))
  logits = jnp.einsum('tbk,tck->tbc', units, anchors, precision='highest')
  logs = jax.nn.log_softmax(logits / temperature, axis=-1)
  return -jnp.mean(jnp.diagonal(logs, axis1=1, axis2=2))

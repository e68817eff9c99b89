"""LDC-MTL: a router learns weights that keep the weighted losses close."""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.weightings import _loss_common


class LDCMTLState(NamedTuple):
  """State of `ldc_mtl`; everything is a task's own, shape ``(T,)``."""

  logits: jax.Array
  first: jax.Array  # the first loss above 0, 0 before it
  optimizer_state: Any  # Adam, one a task


def _discrepancy_slopes(terms: jax.Array, mask: jax.Array) -> jax.Array:
  """The derivatives of ``sum |a_i - a_{i+1}|`` over the tasks present."""
  order = jnp.argsort(~mask, stable=True)
  terms, here = terms[order], mask[order]
  signs = jnp.sign(terms[:-1] - terms[1:]) * (here[:-1] & here[1:])
  zero = jnp.zeros((1,), terms.dtype)
  slopes = jnp.concatenate([signs, zero]) - jnp.concatenate([zero, signs])
  return jnp.zeros_like(slopes).at[order].set(slopes)


@functools.partial(jax.jit, static_argnames='by_first')
def _step(
  losses: jax.Array,
  mask: jax.Array,
  state: LDCMTLState,
  strength: jax.Array,
  learning_rate: jax.Array,
  by_first: bool,
) -> tuple[jax.Array, LDCMTLState]:
  """The weights and the state after a step on them."""
  finite = jnp.isfinite(losses)
  first = jnp.where((state.first == 0) & (losses > 0), losses, state.first)
  scale = jnp.ones_like(losses)
  if by_first:
    known = mask & (first > 0)
    least = jnp.min(jnp.where(known, first, jnp.inf))
    scale = jnp.where(known, least / jnp.where(known, first, 1), 1)
  scaled = losses * scale
  shares = _loss_common.softmax(state.logits, mask)
  slopes = _discrepancy_slopes(shares * scaled, mask)
  factor = 1 + strength * slopes
  weights = shares * scale * factor

  rises = jnp.where(mask, scaled * factor, 0)
  gradient = shares * (rises - jnp.sum(shares * rises))
  moved = mask & jnp.all(finite | ~mask)
  direction, optimizer_state = _loss_common.adam_step(
    jnp.where(moved, gradient, 0), state.optimizer_state, moved
  )
  new = LDCMTLState(
    logits=state.logits - learning_rate * direction,
    first=jnp.where(moved, first, state.first),
    optimizer_state=optimizer_state,
  )
  return _loss_common.nan_unless(finite, weights, mask), new


def ldc_losses(
  losses: ArrayLike,
  logits: ArrayLike,
  *,
  strength: ArrayLike = 0.1,
  initial_losses: ArrayLike | None = None,
) -> jax.Array:
  r"""LDC-MTL with a router that is part of the model: losses to sum.

  The router of the paper is a linear map of the pooled features; its output is
  ``logits``, and its parameters are parameters of the model. The sum of what
  this returns is the objective of `ldc_mtl`, which model and router descend
  together:

  .. math:: \sum_t a_t + \lambda \sum_t |a_t - a_{t+1}|, \qquad
     a_t = \mathrm{softmax}(\text{logits})_t L_t / r_t

  Train it with `sum_losses`, router and trunk labelled as shared. The entry of
  the last task holds :math:`a_T` alone, that of task t besides it the
  discrepancy to the next one.

  Args:
    losses: :math:`L`, shape ``(T,)``.
    logits: the router's output, shape ``(T,)``.
    strength: :math:`\lambda`, at least 0.
    initial_losses: :math:`r`, shape ``(T,)``, above 0: the first losses over
      the least of them; None: ones.

  Returns:
    The terms of the objective, shape ``(T,)``.

  Raises:
    ValueError: an argument has another shape or is out of range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> features = jnp.ones((8, 3))
    >>> logits = features.mean(0) @ jnp.zeros((3, 2))
    >>> terms = mtl.ldc_losses([1.0, 4.0], logits, strength=0.5)
    >>> print(terms)
    [1.25 2.  ]

  References:
    Xiao et al., `LDC-MTL: Balancing Multi-Task Learning through Scalable Loss
    Discrepancy Control <https://arxiv.org/abs/2502.08585>`_, 2025
  """
  _validate.in_range('strength', strength, 0)
  losses, logits = jnp.asarray(losses), jnp.asarray(logits)
  if losses.ndim != 1 or logits.shape != losses.shape:
    raise ValueError(
      f'losses {losses.shape} and logits {logits.shape} must both have the '
      'shape (T,): pool the features over the batch before the router.'
    )
  if initial_losses is not None:
    _loss_common.check_vector('initial_losses', initial_losses, 0)
    _loss_common.check_length('initial_losses', initial_losses, len(losses))
    losses = losses / jnp.asarray(initial_losses)
  terms = jax.nn.softmax(logits) * losses
  jumps = jnp.asarray(strength) * jnp.abs(terms[:-1] - terms[1:])
  return terms.at[:-1].add(jumps)


def ldc_mtl(
  *,
  strength: ArrayLike = 0.1,
  normalize: Literal['initial', 'none'] = 'initial',
  learning_rate: ArrayLike = 0.025,
) -> Weighting:
  r"""LDC-MTL: learned weights under control of the losses' discrepancy.

  Model and weights descend one objective together, by one backward pass:

  .. math:: \sum_t a_t + \lambda \sum_{t < T} |a_t - a_{t+1}|, \qquad
     a_t = z_t L_t / r_t, \quad z = \mathrm{softmax}(\xi)

  so that with :math:`s_t = \mathrm{sign}(a_t - a_{t+1}) -
  \mathrm{sign}(a_{t-1} - a_t)`, a sign that is 0 past the ends,

  .. math:: w_t = \frac{z_t}{r_t} (1 + \lambda s_t), \qquad
     \xi \leftarrow \mathrm{Adam}\Big(\xi,\; J_\mathrm{softmax}^\top
     \big(\tfrac{L}{r} (1 + \lambda s)\big)\Big)

  Here :math:`\xi` are T learned parameters, from 0. The paper's router is a
  linear map of the pooled features, of which these are the bias: for it give
  the model a head of T outputs and train `mtljax.ldc_losses` of them. It is
  the authors' single-loop form. :math:`r_t` is the first loss over the least
  of the first losses, as for NYUv2. The weights have no fixed sum; they depend
  on the order of the tasks. Heads are weighted: the method weights losses. The
  learning rate is FAMO's: their router's is that of the model.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass and O(T log T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  equal terms               those of neither side: a sign of 0 is 0
  a loss of zero or below   as any other, but no first loss: :math:`r_t = 1`
                            until there is one
  absent tasks              0, the smaller problem's answer for the rest, whose
                            neighbours are those present; logits and Adam stand
                            still
  NaN or infinity           NaN; the state stands still
  ========================  ==================================================

  Args:
    strength: :math:`\lambda`, from 0 to 1/2, beyond which a weight could be
      negative; theirs are 0.1 (Cityscapes), 0.05 (NYUv2), 0.01 (CelebA).
    normalize: ``'initial'``: by the first losses, ``'none'``: r = 1 (theirs for
      Cityscapes).
    learning_rate: of the logits, at least 0.

  Returns:
    The `mtljax.Weighting`. Reads the losses.

  Raises:
    ValueError: an argument is out of range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.ldc_mtl(normalize='none')
    >>> stats = mtl.TaskStats(losses=jnp.array([1.0, 4.0]))
    >>> weights, state = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 3) for w in weights]
    [0.45, 0.55]
    >>> print(state.logits.round(3))
    [ 0.025 -0.025]

  References:
    Xiao et al., `LDC-MTL: Balancing Multi-Task Learning through Scalable Loss
    Discrepancy Control <https://arxiv.org/abs/2502.08585>`_, 2025
  """
  _validate.in_range('strength', strength, 0, 0.5)
  _validate.one_of('normalize', normalize, ('initial', 'none'))
  _validate.in_range('learning_rate', learning_rate, 0)

  def init_fn(num_tasks, key=None):
    del key
    logits = jnp.zeros((num_tasks,), float)
    return LDCMTLState(
      logits=logits,
      first=jnp.zeros((num_tasks,), float),
      optimizer_state=_loss_common.adam_init(logits),
    )

  def update_fn(stats, state):
    losses, mask = _loss_common.losses_and_mask(stats, 'ldc_mtl')
    dtype = losses.dtype
    numbers = jnp.asarray(strength, dtype), jnp.asarray(learning_rate, dtype)
    return _step(losses, mask, state, *numbers, normalize == 'initial')

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'losses'}),
    info=MethodInfo(
      name='ldc_mtl',
      paper='Xiao et al., 2025, https://arxiv.org/abs/2502.08585',
      weight_heads=True,
    ),
  )

"""Smooth Tchebycheff scalarization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.weightings import _loss_common

_PAPER = 'Lin et al., 2024, https://arxiv.org/abs/2402.19078'

Vector = Sequence[float] | jax.Array | None


class STCHState(NamedTuple):
  """State of `stch` with a warm-up; everything is a task's own, ``(T,)``."""

  nadir: jax.Array  # mean loss at the end of the warm-up
  seen: jax.Array  # steps of the warm-up so far, int32


def stch(
  *,
  temperature: ArrayLike = 1.0,
  preference: Vector = None,
  reference: Vector = None,
  warmup_steps: int | None = None,
  nadir_steps: int | None = None,
) -> Weighting:
  r"""Smooth Tchebycheff scalarization (STCH): a soft maximum of the losses.

  The weights are the gradient of the objective with respect to the losses:

  .. math:: \mu \log \sum_t \exp \frac{\lambda_t (L_t - z_t)}{\mu}, \qquad
     w_t = \lambda_t \,
     \mathrm{softmax}\Big(\frac{\lambda (L - z)}{\mu}\Big)_t

  They sum to a mean of the preferences :math:`\lambda`, so to 1/T by default.
  A small :math:`\mu` attends to the task with the largest preferred loss, a
  large one to the preferred sum. Heads are weighted: the method is a function
  of the losses.

  With ``warmup_steps`` it is the form of the authors' multi-task experiments,
  on log losses relative to a nadir point :math:`n`. The warm-up minimises
  :math:`\sum_t \log L_t`, so :math:`w_t = 1 / L_t`; :math:`n_t` is the mean of
  :math:`L_t` over its last ``nadir_steps``. Afterwards

  .. math:: T \mu \log \sum_t \exp \frac{\log (L_t / n_t)}{\mu}, \qquad
     w_t = \frac{T}{L_t} \,
     \mathrm{softmax}\Big(\frac{\log (L / n)}{\mu}\Big)_t

  which does not depend on the losses' scales. Theirs is a warm-up of five
  epochs, of which the last gives the nadir.

  Scaling a task's loss changes the update's direction (invariance ``'none'``);
  with ``warmup_steps`` it leaves the update as it is (invariance ``'full'``).
  Costs one backward pass and O(T) beside it; with ``warmup_steps`` 2 T
  numbers of state.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  the preference; 1 by default, 1 / L with a warm-up
  a loss of zero or below   nothing special; with a warm-up NaN for all, and
                            the step is no part of it
  absent tasks              0, the smaller problem's answer for the rest, with
                            their preferences as given. A task's warm-up counts
                            the steps it was present; those still in it have
                            the weight 1 / L, the others share as above
  NaN or infinity           NaN, from then on if it was in the nadir; in an
                            aggregator only in that step
  ========================  ==================================================

  Args:
    temperature: :math:`\mu`, above 0, in units of a preferred loss.
    preference: :math:`\lambda`, one a task, at least 0; None: 1/T, with T the
      tasks present.
    reference: :math:`z`, the ideal losses, one a task; None: zeros.
    warmup_steps: length of the warm-up, at least 1; None: the plain form. It
      takes no preference and no reference.
    nadir_steps: the last steps of the warm-up, from 1 to all of it; None: a
      fifth of it, rounded up.

  Returns:
    The `mtljax.Weighting`. Reads the losses.

  Raises:
    ValueError: an argument is out of range, a vector does not have one entry a
      task, or the two forms' arguments are mixed.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.stch(temperature=0.5)
    >>> stats = mtl.TaskStats(losses=jnp.array([1.0, 2.0]))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 3) for w in weights]
    [0.134, 0.366]

  References:
    Lin et al., `Smooth Tchebycheff Scalarization for Multi-Objective
    Optimization <https://arxiv.org/abs/2402.19078>`_, 2024
  """
  _validate.in_range('temperature', temperature, 0, open_low=True)
  if warmup_steps is None:
    if nadir_steps is not None:
      raise ValueError(
        f'nadir_steps={nadir_steps} is part of a warm-up: set warmup_steps.'
      )
    return _plain(temperature, preference, reference)
  if preference is not None or reference is not None:
    raise ValueError(
      f'warmup_steps={warmup_steps} has its own reference and equal '
      'preferences: leave preference and reference at None.'
    )
  warmup_steps = _validate.integer('warmup_steps', warmup_steps, 1)
  if nadir_steps is None:
    nadir_steps = -(-warmup_steps // 5)
  nadir_steps = _validate.integer('nadir_steps', nadir_steps, 1)
  _validate.in_range('nadir_steps', nadir_steps, 1, warmup_steps)
  return _with_warmup(temperature, warmup_steps, nadir_steps)


def _plain(
  temperature: ArrayLike, preference: Vector, reference: Vector
) -> Weighting:
  """The paper's scalarization."""
  _loss_common.check_vector('preference', preference, 0.0)
  _loss_common.check_vector('reference', reference)

  def init_fn(num_tasks, key=None):
    del key
    _loss_common.check_length('preference', preference, num_tasks)
    _loss_common.check_length('reference', reference, num_tasks)
    return optax.EmptyState()

  def update_fn(stats, state):
    losses, mask = _loss_common.losses_and_mask(stats, 'stch')
    if reference is not None:
      losses = losses - jnp.asarray(reference, losses.dtype)
    if preference is None:
      prefer = jnp.ones_like(losses) / _loss_common.count(mask)
    else:
      prefer = jnp.asarray(preference, losses.dtype)
    return prefer * _loss_common.softmax(
      prefer * losses, mask, temperature
    ), state

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'losses'}),
    info=MethodInfo(name='stch', paper=_PAPER, weight_heads=True),
  )


def _with_warmup(
  temperature: ArrayLike, warmup_steps: int, nadir_steps: int
) -> Weighting:
  """The form on log losses relative to the nadir of a warm-up."""

  def init_fn(num_tasks, key=None):
    del key
    return STCHState(
      nadir=jnp.ones((num_tasks,), float),
      seen=jnp.zeros((num_tasks,), jnp.int32),
    )

  def update_fn(stats, state):
    losses, mask = _loss_common.losses_and_mask(stats, 'stch')
    warm = state.seen < warmup_steps
    done = mask & ~warm
    shares = _loss_common.softmax(
      jnp.log(losses / state.nadir), done, temperature
    )
    shares = _loss_common.count(done) * shares
    weights = jnp.where(warm, 1, shares) / losses

    nth = state.seen + 1 - (warmup_steps - nadir_steps)
    step = (losses - state.nadir) / jnp.maximum(nth, 1)
    mean = jnp.where(nth == 1, losses, state.nadir + step)
    new = STCHState(
      nadir=jnp.where(warm & (nth >= 1), mean, state.nadir),
      seen=jnp.minimum(state.seen + 1, warmup_steps),
    )
    # A loss without a logarithm has no place in a nadir.
    valid = jnp.all(~(losses <= 0) | ~mask)
    new = _loss_common.keep_absent(mask & valid, new, state)
    return _loss_common.nan_unless(losses > 0, weights, mask), new

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'losses'}),
    info=MethodInfo(
      name='stch', paper=_PAPER, invariance='full', weight_heads=True
    ),
  )

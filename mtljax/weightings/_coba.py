"""CoBa: weights by the slopes of the validation losses."""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.weightings import _loss_common


class CoBaState(NamedTuple):
  """State of `coba`: the newest entry of a history is its last, N long.

  Slopes are kept from the first on; those of the warm-up are not read.
  """

  first: jax.Array  # (T,), the first loss above 0, 0 before it
  seen: jax.Array  # (T,) int32, losses of each task
  losses: jax.Array  # (N, T), over the first
  slopes: jax.Array  # (N, T)
  largest_seen: jax.Array  # (1,) int32
  largest: jax.Array  # (N,), the largest of the losses
  largest_slopes: jax.Array  # (N,)


class ValidationState(NamedTuple):
  """State of `coba` on validation losses, which `observe_validation` finds."""

  history: CoBaState


# Of one history, and of every task's.
def _push(history: jax.Array, new: jax.Array, where: jax.Array) -> jax.Array:
  return jnp.where(where, jnp.append(history[1:], new), history)


def _newest(history: jax.Array, number: jax.Array) -> jax.Array:
  """The history with zeros but for so many last entries."""
  size = len(history)
  return jnp.where(jnp.arange(size) >= size - number, history, 0)


def _slope(history: jax.Array, number: jax.Array) -> jax.Array:
  """That of the least-squares line through so many last entries."""
  number = jnp.minimum(number, len(history))
  count = jnp.maximum(number, 1).astype(history.dtype)
  ones = jnp.ones_like(history)
  place = jnp.arange(len(history), dtype=history.dtype)
  off = _newest(place - jnp.sum(_newest(place, number)) / count * ones, number)
  mean = jnp.sum(_newest(history, number)) / count
  spread = jnp.sum(off * off)
  rise = jnp.sum(off * (history - mean * ones))
  return jnp.where(number < 2, 0, rise / jnp.where(spread > 0, spread, 1))


_push_all = jax.vmap(_push, (1, 0, 0), 1)
_newest_all = jax.vmap(_newest, (1, 0), 1)
_slope_all = jax.vmap(_slope, (1, 0), 0)


def _relative(
  slopes: jax.Array, total: jax.Array, count: jax.Array
) -> jax.Array:
  """Slopes in units of their mean length; zeros stay."""
  return count * slopes / jnp.where(total > 0, total, 1)


@jax.jit
def observed(losses: jax.Array, mask: jax.Array, state: CoBaState) -> CoBaState:
  """The state after these losses, if they are all finite."""
  dtype = state.losses.dtype
  losses = jnp.asarray(losses).astype(dtype)
  usable = mask & (losses > 0)
  first = jnp.where((state.first == 0) & usable, losses, state.first)
  fine = jnp.all(jnp.isfinite(losses) | ~mask)
  here = mask & (first > 0) & fine
  relative = jnp.where(here, losses / jnp.where(first > 0, first, 1), 0)
  seen = jnp.where(here, state.seen + 1, state.seen)
  history = _push_all(state.losses, relative, here)
  some = jnp.any(here)
  largest_seen = jnp.where(some, state.largest_seen + 1, state.largest_seen)
  top = jnp.max(jnp.where(here, relative, -jnp.inf))
  largest = _push(state.largest, jnp.where(some, top, 0), some)
  return CoBaState(
    first=jnp.where(fine, first, state.first),
    seen=seen,
    losses=history,
    slopes=_push_all(state.slopes, _slope_all(history, seen), here),
    largest_seen=largest_seen,
    largest=largest,
    largest_slopes=_push(
      state.largest_slopes, _slope(largest, largest_seen[0]), some
    ),
  )


@functools.partial(jax.jit, static_argnames=('warmup_steps', 'sharpen'))
def _mixture(
  state: CoBaState,
  mask: jax.Array,
  warmup_steps: int,
  temperature: ArrayLike,
  sharpen: bool,
) -> jax.Array:
  """Shares of the tasks in the mask, all of which have a slope; 0 elsewhere."""
  window, dtype = state.losses.shape[0], state.losses.dtype
  tasks = _loss_common.count(mask).astype(dtype)
  number = jnp.clip(state.seen - warmup_steps + 1, 0, window)
  slopes = state.slopes[-1]
  lengths = jnp.where(mask, jnp.abs(slopes), 0)
  among_tasks = _relative(slopes, jnp.sum(lengths), tasks)
  past = jnp.sum(jnp.abs(_newest_all(state.slopes, number)), axis=0)
  among_steps = _relative(slopes, past, number.astype(dtype))
  relative_score = _loss_common.softmax(among_tasks, mask)
  absolute_score = _loss_common.softmax(-among_steps, mask)

  steps = jnp.clip(state.largest_seen[0] - warmup_steps + 1, 0, window)
  used = _newest(jnp.ones((window,), bool), steps)
  total = jnp.sum(jnp.abs(_newest(state.largest_slopes, steps)))
  scores = _relative(state.largest_slopes, total, steps.astype(dtype))
  factor = steps * _loss_common.softmax(-scores, used, temperature)[-1]
  if not sharpen:
    factor = jnp.minimum(factor, 1)
  mixed = factor * relative_score + (1 - factor) * absolute_score
  return _loss_common.softmax(tasks * mixed, mask) if sharpen else mixed


def coba(
  *,
  window: int = 200,
  warmup_steps: int = 100,
  temperature: ArrayLike = 0.2,
  min_share: ArrayLike = 0.1,
  sharpen: bool = False,
  source: Literal['training', 'validation'] = 'training',
) -> Weighting:
  r"""Convergence balancer (CoBa): weights by the slopes of the losses.

  With :math:`\alpha_t` the slope of the line through task t's last N losses,
  each over its first, a task that converges more slowly than the others gets
  more, and one that begins to diverge gets less than it would by that:

  .. math::
     w = D\, \mathrm{softmax}_t\Big(\frac{T \alpha_t}{\sum_s |\alpha_s|}\Big)
     + (1 - D)\, \mathrm{softmax}_t\Big(\frac{-n \alpha_t}
     {\sum_k |\alpha_t(k)|}\Big), \qquad
     D = \min\Big(n\, \mathrm{softmax}_k\Big(
     \frac{-n\, \alpha_{\max}(k)}{\tau \sum_j |\alpha_{\max}(j)|}\Big), 1\Big)

  where k runs over the last n slopes, at most N of them since the warm-up,
  :math:`\alpha_{\max}` is the slope of the largest loss, and D is the softmax
  at the newest: it falls as the slopes turn up. The weights are equal, 1/T,
  during the warm-up and sum to 1. If one is below ``min_share`` / T, all are
  moved towards it by :math:`w (1 - m) + m / T`. Theirs takes all slopes since
  the warm-up into D; the authors' code leaves out the minimum and takes
  :math:`\mathrm{softmax}(T w)`: ``sharpen``. Heads are weighted: the method
  weights losses. A factor on a loss leaves the weights as they are, so it acts
  as it would without weights.

  The paper's losses are those of a validation batch: with
  ``source='validation'`` the step's own are not read, and
  `mtljax.observe_validation` shows them to the state, at every step or at
  times; as many as the warm-up takes before the weights are other than equal.
  By default they are the training losses of the steps.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass and O(N T) beside it; the state holds
  2 N (T + 1) numbers.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  slopes of zero            equal scores: as of slopes that are all alike
  a first loss not above 0  it does not count, the next one is the first
  absent tasks              0, the smaller problem's answer for the rest; their
                            histories stand still. One still in its warm-up has
                            the weight 1/T, the others share what is left
  NaN or infinity           NaN in that step; the histories stand still
  ========================  ==================================================

  Args:
    window: N, losses in a line and slopes in a history, at least 2.
    warmup_steps: losses before the first slope, at least 2.
    temperature: :math:`\tau`, above 0; the paper's is its inverse, 5.
    min_share: the least weight in units of 1/T, at least 0 and below 1.
    sharpen: whether to take the weights of the authors' code.
    source: ``'training'`` or ``'validation'``, whose losses it follows.

  Returns:
    The `mtljax.Weighting`. Reads the losses, or nothing of the step.

  Raises:
    ValueError: an argument is out of range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.coba(warmup_steps=2)
    >>> state = weighting.init(2)
    >>> for losses in ([1.0, 4.0], [0.9, 2.0], [0.9, 1.0]):
    ...   stats = mtl.TaskStats(losses=jnp.array(losses))
    ...   weights, state = weighting.update(stats, state)
    ...   print([round(float(w), 3) for w in weights])
    [0.5, 0.5]
    [0.791, 0.209]
    [0.478, 0.522]

  References:
    Gong et al., `CoBa: Convergence Balancer for Multitask Finetuning of Large
    Language Models <https://arxiv.org/abs/2410.06741>`_, 2024
  """
  window = _validate.integer('window', window, 2)
  warmup_steps = _validate.integer('warmup_steps', warmup_steps, 2)
  _validate.in_range('temperature', temperature, 0, open_low=True)
  _validate.in_range('min_share', min_share, 0, 1, open_high=True)
  _validate.flag('sharpen', sharpen)
  _validate.one_of('source', source, ('training', 'validation'))

  def init_fn(num_tasks, key=None):
    del key
    state = CoBaState(
      first=jnp.zeros((num_tasks,), float),
      seen=jnp.zeros((num_tasks,), jnp.int32),
      losses=jnp.zeros((window, num_tasks), float),
      slopes=jnp.zeros((window, num_tasks), float),
      largest_seen=jnp.zeros((1,), jnp.int32),
      largest=jnp.zeros((window,), float),
      largest_slopes=jnp.zeros((window,), float),
    )
    return ValidationState(state) if source == 'validation' else state

  def weights_of(state, mask):
    warm = mask & (state.seen >= warmup_steps)
    some = _loss_common.count(mask)
    shares = _mixture(state, warm, warmup_steps, temperature, sharpen)
    share = jnp.sum(warm) / some
    least = jnp.asarray(min_share, shares.dtype)
    smallest = jnp.min(jnp.where(warm, shares, jnp.inf))
    even = 1 / _loss_common.count(warm)
    shares = jnp.where(
      smallest < least * even, shares * (1 - least) + least * even, shares
    )
    return jnp.where(warm, share * shares, jnp.where(mask, 1 / some, 0))

  def update_fn(stats, state):
    if source == 'validation':
      mask = jnp.ones(state.history.first.shape, bool)
      mask = mask if stats.mask is None else jnp.asarray(stats.mask, bool)
      return weights_of(state.history, mask), state
    losses, mask = _loss_common.losses_and_mask(stats, 'coba')
    state = observed(losses, mask, state)
    weights = weights_of(state, mask)
    return _loss_common.nan_unless(jnp.isfinite(losses), weights, mask), state

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'losses'} if source == 'training' else ()),
    info=MethodInfo(
      name='coba',
      paper='Gong et al., 2024, https://arxiv.org/abs/2410.06741',
      weight_heads=True,
    ),
  )

"""Rules around a rule: averaged weights, and weights that are reused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import Invariance, Lookahead, Reuse, Weighting
from mtljax.weightings import _loss_common


class CRMOGMState(NamedTuple):
  """State of `cr_mogm`."""

  held_weights: jax.Array  # (T,), the average
  started: jax.Array  # (T,) bool: the tasks that have one
  inner_state: Any


class ReuseState(NamedTuple):
  """State of `every_k` and of `freeze_after`."""

  held_weights: jax.Array  # (T,), as last computed; NaN before the first time
  count: jax.Array  # () int32
  inner_state: Any


def _passed_on(weighting: Weighting) -> Callable[..., Any] | None:
  """The ``observe`` of the rule inside, on the wrapper's state."""
  observe = weighting.observe
  if observe is None:
    return None

  def observe_fn(losses_after, state):
    inner_state = observe(losses_after, state.inner_state)
    return state._replace(inner_state=inner_state)

  return observe_fn


def _looks_ahead(weighting: Weighting) -> Lookahead | None:
  """What the rule inside asks for, of the wrapper's state."""
  ahead = weighting.lookahead
  if ahead is None:
    return None
  return ahead._replace(weights=lambda state: ahead.weights(state.inner_state))


def cr_mogm(
  weighting: Weighting,
  *,
  decay: ArrayLike = 0.9,
  initial_weights: Sequence[float] | jax.Array | None = None,
) -> Weighting:
  r"""Correlation-reduced weights (CR-MOGM): their moving average.

  .. math:: \bar w_k = \alpha \bar w_{k-1} + (1 - \alpha) w_k

  with the weights :math:`w_k` of any rule. Its weights and its gradients come
  from the same batch, so the update :math:`\sum_t w_t g_t` is biased; the
  average depends on that batch less. The weights sum to what those inside sum
  to (to a mixture of it with ``initial_weights``). Heads are weighted if those
  of the rule are. A rule with full invariance to the losses' scales keeps it,
  if there are no ``initial_weights``: each task's weights are in inverse
  proportion to its scale at every step. One whose weights are normalised
  (invariance ``'direction'``) loses it: their common factor changes from step
  to step, and with the scales. Costs nothing.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  the first step            those of the rule, or mixed with
                            ``initial_weights``
  absent tasks              0; their average stands still, and begins when they
                            are first present
  NaN or infinity           NaN in that step; the average keeps its value and
                            goes on from it
  ========================  ==================================================

  Args:
    weighting: the rule inside.
    decay: :math:`\alpha`, from 0 (the rule itself) to 1.
    initial_weights: :math:`\bar w_0`, shape ``(T,)``, finite and not negative;
      None: the first weights.

  Returns:
    The `mtljax.Weighting`. Reads what the rule reads.

  Raises:
    ValueError: decay is out of range, or ``initial_weights`` is negative, not
      finite, or not of length T.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.cr_mogm(mtl.weightings.mgda(), decay=0.5)
    >>> state = weighting.init(2)
    >>> for first in (1.0, 4.0):
    ...   gramian = jnp.diag(jnp.array([first, 1.0]))
    ...   weights, state = weighting.update(
    ...     mtl.TaskStats(gramian=gramian), state)
    ...   print([round(float(w), 3) for w in weights])
    [0.5, 0.5]
    [0.35, 0.65]

  References:
    Zhou et al., `On the Convergence of Stochastic Multi-Objective Gradient
    Manipulation and Beyond <https://openreview.net/forum?id=ScwfQ7hdwyP>`_,
    2022
  """
  _validate.in_range('decay', decay, 0, 1)
  _loss_common.check_vector('initial_weights', initial_weights, 0)

  def init_fn(num_tasks, key=None):
    _loss_common.check_length('initial_weights', initial_weights, num_tasks)
    given = initial_weights is not None
    return CRMOGMState(
      held_weights=jnp.array(initial_weights, float, copy=True)
      if given
      else jnp.zeros((num_tasks,), float),
      started=jnp.full((num_tasks,), given),
      inner_state=weighting.init(num_tasks, key=key),
    )

  def update_fn(stats, state):
    new, inner_state = weighting.update(stats, state.inner_state)
    held = state.held_weights.astype(new.dtype)
    rate = jnp.asarray(decay, new.dtype)
    weights = jnp.where(state.started, rate * held + (1 - rate) * new, new)
    counts = jnp.isfinite(weights)
    if stats.mask is not None:
      weights = jnp.where(stats.mask, weights, 0)
      counts = counts & stats.mask
    return weights, CRMOGMState(
      held_weights=jnp.where(
        counts, weights.astype(state.held_weights.dtype), state.held_weights
      ),
      started=state.started | counts,
      inner_state=inner_state,
    )

  info = weighting.info
  full = info.invariance == 'full' and initial_weights is None
  invariance: Invariance = 'full' if full else 'none'
  return Weighting(
    init_fn,
    update_fn,
    weighting.needs,
    observe=_passed_on(weighting),
    info=dataclasses.replace(
      info,
      name=f'cr_mogm({info.name})',
      paper='Zhou et al., 2022, https://openreview.net/forum?id=ScwfQ7hdwyP',
      invariance=invariance,
    ),
    lookahead=_looks_ahead(weighting),
    chunks=weighting.chunks,
    alignment=weighting.alignment,
  )


def _reusing(
  weighting: Weighting,
  name: str,
  due: Callable[[jax.Array], jax.Array],
  advance: Callable[[jax.Array], jax.Array],
) -> Weighting:
  """The rule, run only when ``due(count)``."""

  def init_fn(num_tasks, key=None):
    return ReuseState(
      held_weights=jnp.full((num_tasks,), jnp.nan, float),
      count=jnp.zeros((), jnp.int32),
      inner_state=weighting.init(num_tasks, key=key),
    )

  def update_fn(stats, state):
    def solve(state):
      weights, inner_state = weighting.update(stats, state.inner_state)
      weights = weights.astype(state.held_weights.dtype)
      if stats.mask is not None:
        before = jnp.nan_to_num(state.held_weights, nan=0.0)
        weights = jnp.where(stats.mask, weights, before)
      return state._replace(held_weights=weights, inner_state=inner_state)

    state = jax.lax.cond(due(state.count), solve, lambda s: s, state)
    weights = state.held_weights
    if stats.mask is not None:
      weights = jnp.where(stats.mask, weights, 0)
    return weights, state._replace(count=advance(state.count))

  return Weighting(
    init_fn,
    update_fn,
    weighting.needs,
    observe=_passed_on(weighting),
    info=dataclasses.replace(
      weighting.info, name=f'{name}({weighting.info.name})'
    ),
    reuse=Reuse(weighting, due),
    lookahead=_looks_ahead(weighting),
    chunks=weighting.chunks,
    alignment=weighting.alignment,
  )


def every_k(weighting: Weighting, k: int) -> Weighting:
  r"""The weights of a rule, computed at every k-th step and held in between.

  .. math:: w_k = w_{k \lfloor n / k \rfloor} \text{ at step } n = 0, 1, \dots

  Sums, heads and invariance are those of the rule. On the optax face only the
  solve is saved, as the gradients are there already; around the outermost
  method of `mtljax.training.make_train_step` those of the other steps are not
  computed at all.

  ``every_k(cr_mogm(mgda(), alpha=0.1), 8)`` is PSMGD.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  ``k=1``                   those of the rule
  absent tasks              0. A task that is back has the weight that it had
                            when it was last computed, 0 before the first time
  NaN or infinity           NaN in that step; if they were due in it, the
                            weights before are held on (NaN if there are none)
  ========================  ==================================================

  Args:
    weighting: the rule inside.
    k: a Python int of at least 1.

  Returns:
    The `mtljax.Weighting`. Reads what the rule reads. Its counter is a scalar:
    keep it out of the batch of a `jax.vmap`, or both branches are computed.

  Raises:
    ValueError: k is not an int of at least 1.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.every_k(mtl.weightings.mgda(), k=2)
    >>> state = weighting.init(2)
    >>> for first in (1.0, 4.0, 4.0):
    ...   gramian = jnp.diag(jnp.array([first, 1.0]))
    ...   weights, state = weighting.update(
    ...     mtl.TaskStats(gramian=gramian), state)
    ...   print([round(float(w), 3) for w in weights])
    [0.5, 0.5]
    [0.5, 0.5]
    [0.2, 0.8]

  References:
    Navon et al., `Multi-Task Learning as a Bargaining Game
    <https://arxiv.org/abs/2202.01017>`_, 2022 (Nash-MTL every 50 steps)

    Xu et al., `PSMGD: Periodic Stochastic Multi-Gradient Descent for Fast
    Multi-Objective Optimization <https://arxiv.org/abs/2412.10961>`_, 2024
  """
  k = _validate.integer('k', k, 1)
  return _reusing(
    weighting,
    'every_k',
    due=lambda count: count % k == 0,
    advance=lambda count: (count + 1) % k,
  )


def freeze_after(weighting: Weighting, steps: int) -> Weighting:
  r"""The weights of a rule for some steps, then constant.

  .. math:: w_n \text{ for } n < N, \qquad w_{N-1} \text{ from step } N
     \text{ on}

  The control for a method that adapts its weights: does it have to go on doing
  so, or are the weights that it found as good when fixed? Sums and heads are
  those of the rule, and so is its invariance. In
  `mtljax.training.make_train_step`, around the outermost method, the gradients
  for the weights are not computed once these are constant.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  absent tasks              0. A task that is back has the weight that it had
                            when it was last computed, 0 if it never was
  NaN or infinity           NaN in that step; the last finite weights become
                            the constant (NaN if there are none)
  ========================  ==================================================

  Args:
    weighting: the rule inside.
    steps: N, a Python int of at least 1.

  Returns:
    The `mtljax.Weighting`. Reads what the rule reads. Its counter is a scalar:
    keep it out of the batch of a `jax.vmap`, or both branches are computed.

  Raises:
    ValueError: steps is not an int of at least 1.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.freeze_after(mtl.weightings.mgda(), steps=2)
    >>> state = weighting.init(2)
    >>> for first in (1.0, 4.0, 9.0):
    ...   gramian = jnp.diag(jnp.array([first, 1.0]))
    ...   weights, state = weighting.update(
    ...     mtl.TaskStats(gramian=gramian), state)
    ...   print([round(float(w), 3) for w in weights])
    [0.5, 0.5]
    [0.2, 0.8]
    [0.2, 0.8]

  References:
    Gama and Grassi, `Uniform Loss vs. Specialized Optimization: A Comparative
    Analysis in Multi-Task Learning <https://arxiv.org/abs/2505.10347>`_, 2025,
    which asks the question
  """
  steps = _validate.integer('steps', steps, 1)
  return _reusing(
    weighting,
    'freeze_after',
    due=lambda count: count < steps,
    advance=lambda count: jnp.minimum(count + 1, steps),
  )

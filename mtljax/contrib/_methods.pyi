"""Every method as ``mtl.contrib.<name>(num_tasks, ...)``.

Made by `python docs/make_stubs.py`; do not edit it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
import optax
from jax.typing import ArrayLike

from mtljax import _labels
from mtljax._types import Aggregator, Weighting


def emtl(
  num_tasks: int,
  *,
  form: Literal['hard', 'soft'] = 'hard',
  strength: ArrayLike = 1.0,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""EMTL, reconstructed from its abstract: equal relative contributions.

  The abstract of equitable multi-task learning defines the relative
  contribution of task t as the value of its loss over the norm of its gradient,
  :math:`r_t = L_t / \|g_t\|`, and regularises the variance of the contributions
  over the tasks. Its algorithm has not been published as code and is **not**
  what this is: the weights here follow that idea alone. In the hard form
  :math:`w_t g_t` is as long as the others in proportion to its loss, so
  :math:`L_t / \|w_t g_t\|` is equal for all tasks:

  .. math:: w_t = T\, \frac{r_t}{\sum_s r_s}

  which is also how MoCo's code scales gradients. The soft form weighs that
  against equal weights, in logarithms: up to a factor it is

  .. math:: \arg\min_w \sum_t (\log w_t)^2
     + \lambda T\, \mathrm{Var}_t (\log w_t - \log r_t)
     \quad\Rightarrow\quad
     w_t = T\, \frac{r_t^{\lambda / (1 + \lambda)}}
     {\sum_s r_s^{\lambda / (1 + \lambda)}}

  from equal weights at :math:`\lambda = 0` to the hard form. The weights sum
  to T. Heads are weighted: the method weights losses. In the hard form a
  factor on a loss leaves the weights as they are, so it acts as it would
  without weights (invariance ``'none'``). Costs the Gramian (T backward
  passes) and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  zero rows                 0 for them, the smaller problem's answer for the
                            rest; their heads are not trained in that step
  all rows zero             zeros
  equal or opposed rows     nothing special: only their norms are read
  a loss of 0               0 (for a ``strength`` above 0)
  all losses 0              zeros
  a negative loss           NaN
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    form: ``'hard'`` or ``'soft'``.
    strength: :math:`\lambda` of the soft form, at least 0.

  Returns:
    The `mtljax.Aggregator`. Reads the losses and the Gramian; it has no state.

  Raises:
    ValueError: ``form`` is not known or ``strength`` is negative.

  References:
    Yuan and Zhang, `Equitable Multi-task Learning
    <https://arxiv.org/abs/2306.09373>`_, 2023 (the idea only)

  The optax face of `mtljax.contrib.weightings.emtl`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.contrib.emtl(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def gcond(
  num_tasks: int,
  *,
  weak_cosine: ArrayLike = 0.0,
  main_cosine: ArrayLike = -0.5,
  critical_cosine: ArrayLike = -0.8,
  power: ArrayLike = 2.0,
  stability_weight: ArrayLike = 0.8,
  decay: ArrayLike = 0.9,
  labels: _labels.Labels | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""GCond, reconstructed: conflicts settled pair by pair, the worst first.

  As long as a pair of gradients has a cosine c below ``weak_cosine``, that with
  the lowest is settled. Of the two, the one with the higher score wins:

  .. math:: \text{score}_t = \lambda \cos(g_t, g_t^{\text{before}})
     + (1 - \lambda) \frac{\|g_t\|}{\langle \|g_t\| \rangle_\beta}

  and both are projected, more the worse the conflict is,

  .. math:: g_l \leftarrow g_l - \sin\big(\min(\alpha, \tfrac\pi 2)\big)
     \frac{g_l^\top g_w}{\|g_w\|^2} g_w, \qquad
     g_w \leftarrow g_w - \sin(\alpha)
     \frac{g_l^\top g_w}{\|g_l\|^2} g_l

  with :math:`\alpha` from 0 at ``weak_cosine`` by :math:`\pi / 2` (both are
  projected wholly) at ``main_cosine`` to :math:`\pi` at ``critical_cosine`` and
  below (only the loser is), by a power of the share of the way. A pair is met
  once. The update is the sum. The angles, levels, powers and the parts of the
  score are the paper's as they have been described; that the sines are shares
  of a projection, and the forms of score and ramp, are reconstructed.

  The paper takes the gradients of several micro-batches together: give
  `mtljax.training.make_train_step` a ``microbatch_size``. The weights have no
  fixed sum and may be negative, so heads are never weighted. Scaling a task's
  loss changes the update's direction (invariance ``'none'``). Costs the T
  gradients, their Gramian and at most T (T - 1) / 2 rounds of O(T^2). The state
  holds T numbers a shared parameter.

  ========================  ==================================================
  input                     update
  ========================  ==================================================
  one task                  its gradient
  a zero row                in conflict with none
  equal rows                their sum
  antiparallel rows         the winner's
  equal cosines             the first pair is settled first, and of equal ones
                            rounding tells which is lower
  absent tasks              the smaller problem's answer for the rest; what is
                            kept of them stands still
  NaN or infinity           NaN; the state stands still
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``weight_heads``, ``scale``, ``max_norm``, ``key``,
      ``nonfinite``.
    weak_cosine: below it a pair is in conflict; from -1 to 1.
    main_cosine: below ``weak_cosine``.
    critical_cosine: below ``main_cosine``, at least -1.
    power: of the ramps, above 0.
    stability_weight: :math:`\lambda`, from 0 to 1.
    decay: :math:`\beta` of the mean lengths, at least 0 and below 1.

  Returns:
    The `mtljax.Aggregator`. Reads the gradients.

  Raises:
    ValueError: an argument is out of its range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.contrib.gcond(num_tasks=2)
    >>> params = {'w': jnp.zeros(2)}
    >>> grads = {'w': jnp.array([[1.0, 0.0], [-1.0, 0.5]])}
    >>> update, state = tx.update(grads, tx.init(params), params)
    >>> print(update['w'])
    [1.  0.5]

  References:
    Limarenko and Studenikina, `GCond: Gradient Conflict Resolution via
    Accumulation-based Stabilization for Large-Scale Multi-Task Learning
    <https://arxiv.org/abs/2509.07252>`_, 2025 (reconstructed)
  """


def son_goku(
  num_tasks: int,
  *,
  decay: ArrayLike = 0.9,
  threshold: ArrayLike = 0.2,
  refresh_steps: int = 32,
  anneal_steps: int = 200,
  labels: _labels.Labels | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""SON-GOKU, reconstructed: tasks in conflict are trained at other steps.

  The moving averages of the tasks' gradients say who is in conflict. Every R
  steps, at step k = 0, R, 2R ..., they make a graph:

  .. math:: a_t \leftarrow \beta a_t + (1 - \beta) g_t, \qquad
     \{s, t\} \in E \iff -\cos(a_s, a_t) > \tau_k, \qquad
     d = \sum_{t : c_t = k \bmod m} g_t

  where c is a colouring of it with m colours, no two tasks in conflict of one
  colour: greedy, those with most conflicts first. :math:`\tau_k` falls from 1,
  without conflicts and so with all tasks in a step, linearly to ``threshold``.
  The paper describes these parts; how :math:`\tau` falls and the numbers are
  those of this library. A task has the weight 1 where it is active, 0 where it
  is not, so the weights have no fixed sum. Heads are weighted: a task that is
  not active is not trained.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs the T gradients and O(T) a coordinate, O(T^2) at the steps
  that look, and the colouring, O(T^2). The state holds T numbers a shared
  parameter.

  ========================  ==================================================
  input                     update
  ========================  ==================================================
  one task                  its gradient
  a zero average            in conflict with none
  equal averages            never in conflict
  antiparallel averages     in conflict as soon as :math:`\tau` is below 1
  absent tasks              they are not coloured, the smaller problem's answer
                            for the rest; their averages stand still
  NaN or infinity           NaN, be the task active or not; averages and
                            conflicts stand still
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``weight_heads``, ``scale``, ``max_norm``, ``key``,
      ``nonfinite``.
    decay: :math:`\beta`, at least 0 and below 1; 0 does not average.
    threshold: the last :math:`\tau`, from 0 to 1.
    refresh_steps: R, at least 1.
    anneal_steps: the steps in which :math:`\tau` falls, at least 0.

  Returns:
    The `mtljax.Aggregator`. Reads the gradients. Its counter is a scalar: keep
    it out of the batch of a `jax.vmap`, or every step looks.

  Raises:
    ValueError: an argument is out of its range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.contrib.son_goku(num_tasks=3, anneal_steps=0)
    >>> params = {'w': jnp.zeros(2)}
    >>> grads = {'w': jnp.array([[1.0, 0.0], [-1.0, 0.1], [1.0, 1.0]])}
    >>> state = tx.init(params)
    >>> for _ in range(2):
    ...   update, state = tx.update(grads, state, params)
    ...   print(mtl.get_weights(state), update['w'])
    [0. 1. 0.] [-1.   0.1]
    [1. 0. 1.] [2. 1.]

  References:
    Patapati and Srinivasan, `Graph Coloring for Multi-Task Learning
    <https://arxiv.org/abs/2509.16959>`_, 2025 (reconstructed)
  """

"""Every method as ``mtl.<name>(num_tasks, ...)``.

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
from mtljax.weightings import _preference
from mtljax.weightings._aligned import ScaleMode
from mtljax.weightings._auto_lambda import Hypergradient
from mtljax.weightings._moml import Hypergradient
from mtljax.weightings._stch import Vector


def sum_losses(
  num_tasks: int,
  *,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""The sum of the losses: every task has weight 1.

  .. math:: w_t = 1

  Also known as equal weighting (EW) and linear scalarization (LS). The
  weights sum to the number of tasks present. Heads get the same weight, so
  the update is the gradient of :math:`\sum_t L_t`.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass of the weighted loss.

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.

  Returns:
    The `mtljax.Aggregator`. Reads nothing.

  The optax face of `mtljax.weightings.sum_losses`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.sum_losses(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def mean(
  num_tasks: int,
  *,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""The mean of the losses: every task has weight 1/T.

  .. math:: w_t = 1/T

  The weights sum to 1; with absent tasks, T counts those present. Heads get
  the same weight.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass of the weighted loss.

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.

  Returns:
    The `mtljax.Aggregator`. Reads nothing.

  The optax face of `mtljax.weightings.mean`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.mean(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def fixed(
  num_tasks: int,
  *,
  weights: Sequence[float] | jax.Array,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Fixed weights, as given: scalarization.

  .. math:: w_t = \text{weights}_t

  The weights are not normalised, and an absent task's share is not given to
  the others. Heads get the same weights.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass of the weighted loss.

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    weights: shape ``(T,)``, finite and not negative.

  Returns:
    The `mtljax.Aggregator`. Reads nothing.

  Raises:
    ValueError: a weight is negative or not finite, or there are not T of them.

  References:
    Xin et al., `Do Current Multi-Task Optimization Methods in Deep Learning
    Even Help? <https://arxiv.org/abs/2209.11379>`_, 2022: tuned, they are the
    baseline to beat.

  The optax face of `mtljax.weightings.fixed`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.fixed(num_tasks=2, weights=[1.0, 0.5])
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def rlw(
  num_tasks: int,
  *,
  distribution: Literal['normal', 'dirichlet', 'uniform'] = 'normal',
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Random weights, drawn anew at every step.

  .. math:: w = \mathrm{softmax}(z), \quad z \sim N(0, I)

  The weights sum to 1 over the tasks present. Heads are weighted: the method
  weights losses.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass and T random numbers.

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    distribution: of the weights: ``'normal'`` as above, ``'dirichlet'`` flat
      on the simplex, ``'uniform'`` softmax of uniform numbers in [0, 1].

  Returns:
    The `mtljax.Aggregator`. Reads nothing; its state holds a key.

  Raises:
    ValueError: the distribution is not known.

  References:
    Lin et al., `Reasonable Effectiveness of Random Weighting: A Litmus Test
    for Multi-Task Learning <https://arxiv.org/abs/2111.10603>`_, 2022

  The optax face of `mtljax.weightings.rlw`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.rlw(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def uncertainty(
  num_tasks: int,
  *,
  learning_rate: ArrayLike = 0.025,
  log_variance: ArrayLike = 0.0,
  likelihood: Literal['gaussian', 'softmax'] = 'gaussian',
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Homoscedastic uncertainty (UW): each task learns its noise level.

  The objective is minimised over the parameters and over :math:`s_t`, the log
  variance of task t, together:

  .. math:: \sum_t a e^{-s_t} L_t + \tfrac12 s_t, \quad w_t = a e^{-s_t}

  with :math:`a = 1/2` for a Gaussian likelihood and :math:`a = 1` for a
  softmax. The weights sum to nothing in particular. Heads are weighted: the
  method weights losses. Adam updates s here, apart from the model's optimizer,
  so that its weight decay and learning rate do not touch it.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  :math:`a e^{-s}`, as for any other
  a loss of 0 or less       finite: s falls, and the weight grows
  absent tasks              0; their log variance and Adam stand still
  NaN or infinity           those of this step do not read the losses; the
                            task's own are NaN from the next step on; in an
                            aggregator NaN in that step only
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    learning_rate: of the log variances; 0.025 is what later papers use.
    log_variance: where the log variances start; the original starts at 0,
      LibMTL at -0.5.
    likelihood: ``'gaussian'`` or ``'softmax'``.

  Returns:
    The `mtljax.Aggregator`. Reads the losses.

  Raises:
    ValueError: the likelihood is not known, or the learning rate is negative.

  Edge cases: a masked task keeps its log variance; a negative loss drives its
  log variance down without bound, as the paper's objective does.

  References:
    Kendall et al., `Multi-Task Learning Using Uncertainty to Weigh Losses for
    Scene Geometry and Semantics <https://arxiv.org/abs/1705.07115>`_, 2018

  The optax face of `mtljax.weightings.uncertainty`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.uncertainty(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def mgda(
  num_tasks: int,
  *,
  normalize: Literal['none', 'l2', 'loss', 'loss+'] = 'none',
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""The multiple-gradient descent algorithm.

  .. math:: w = \arg\min_{w \ge 0,\ \sum_t w_t = 1} w^\top G w

  The weights sum to 1. The update :math:`J^\top w` is the shortest vector in
  the convex hull of the gradients; it harms no task, and is 0 exactly at
  Pareto stationary points. It is solved to rounding, not by a fixed number of
  Frank-Wolfe steps. Heads are not weighted.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs the Gramian (T backward passes) and one quadratic program
  of size T.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  a zero row                all on it (shared, if several), so the update is
                            0: such a point is Pareto stationary
  equal rows                they share their weight equally
  0 in the hull             combine the rows to 0 up to rounding
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    normalize: how the gradients are scaled for *finding* the weights, which
      then apply to the gradients as they are: ``'none'``, ``'l2'``
      (:math:`g_t / \|g_t\|`), ``'loss'`` (:math:`g_t / L_t`), ``'loss+'``
      (:math:`g_t / (L_t \|g_t\|)`). A loss of 0 counts as an infinitely long
      gradient, and a negative one makes the weights NaN. Where several
      combinations of the scaled gradients are 0, rounding chooses among them,
      and the update is that of its choice.

  Returns:
    The `mtljax.Aggregator`. Reads the Gramian, and the losses for ``'loss'``
    and ``'loss+'``. Its state has the residual of the last solve, see
    `mtljax.solvers.min_norm_simplex`.

  Raises:
    ValueError: ``normalize`` is not known.

  References:
    Désidéri, `Multiple-gradient descent algorithm (MGDA) for multiobjective
    optimization <https://doi.org/10.1016/j.crma.2012.03.014>`_, 2012

    Sener and Koltun, `Multi-Task Learning as Multi-Objective Optimization
    <https://arxiv.org/abs/1810.04650>`_, 2018

  The optax face of `mtljax.weightings.mgda`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.mgda(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def pcgrad(
  num_tasks: int,
  *,
  reduction: Literal['sum', 'mean'] = 'sum',
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Projecting conflicting gradients.

  Each task i starts from its gradient, meets the other tasks j in a random
  order of its own, and takes the conflicting part out,

  .. math:: g_i \leftarrow g_i -
     \frac{\min(g_i^\top g_j, 0)}{\|g_j\|^2} g_j,

  with the original :math:`g_j`; the update adds up the results. They are
  combinations of the gradients, so only their coefficients are computed, from
  the Gramian. The weights are not negative and have no fixed sum; each is at
  least 1 (1/T for the mean). Heads are not weighted.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs the Gramian (T backward passes) and T dependent steps of
  O(T^2).

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  zero rows                 they neither take nor give: weight 1, without
                            effect
  equal rows                nothing special
  antiparallel rows         each projection is 0 up to rounding
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    reduction: ``'sum'`` (the paper) or ``'mean'`` of the projected gradients,
      over the tasks present.

  Returns:
    The `mtljax.Aggregator`. Reads the Gramian; its state holds a key.

  Raises:
    ValueError: ``reduction`` is not known.

  References:
    Yu et al., `Gradient Surgery for Multi-Task Learning
    <https://arxiv.org/abs/2001.06782>`_, 2020

  The optax face of `mtljax.weightings.pcgrad`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.pcgrad(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def cagrad(
  num_tasks: int,
  *,
  c: ArrayLike = 0.4,
  rescale: Literal['none', 'c_squared', 'c'] = 'none',
  subset: int | None = None,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Conflict-averse gradient descent.

  With :math:`g_0` the mean of the gradients, the update is

  .. math:: d = \arg\max_d \min_t g_t^\top d
     \quad\text{s.t.}\quad \|d - g_0\| \le c \|g_0\|,

  so :math:`w_t = 1/T + c \|g_0\| w^*_t / \|g_{w^*}\|`, where :math:`w^*`
  minimises :math:`g_w^\top g_0 + c \|g_0\| \|g_w\|` over the simplex. The
  weights are not negative and sum to 1 or more. ``c = 0`` is the mean; a large
  ``c`` has the direction of `mgda`. For ``c < 1`` it converges to a minimum of
  the mean loss. Heads are not weighted.

  With ``subset``, the paper's speedup (CAGrad-Fast): at every step so many
  tasks S are drawn, and the others make one demand, by their mean gradient,

  .. math:: \max_d \min \left( \frac{T g_0 - \sum_{i \in S} g_i}{T - |S|}^\top
     d,\ \min_{i \in S} g_i^\top d \right)
     \quad\text{s.t.}\quad \|d - g_0\| \le c \|g_0\|.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs the Gramian (T backward passes) and a search of a few
  steps, each a quadratic program of size T; two tasks have a closed form.
  With ``subset``, `mtljax.training.make_train_step` takes, on its route
  ``'gramian'``, which is then the default, ``subset + 1`` backward passes in
  place of T, whose gradients it keeps; the cosines that it reports are those
  of the tasks drawn and of the mean of the others. Every other route, and the
  optax face, takes all T to the same update.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1 + c
  a zero row                1/T for it; it counts in the mean and places no
                            demand on ``d``, so it does not stop the others
  all rows zero, mean 0     1/T
  equal rows                they share the second term equally
  0 in the hull, c >= 1     finite; ``d`` harms no task, and is 0 if some
                            combination with all weights positive is 0
  absent tasks              0, the smaller problem's answer for the rest; none
                            is drawn
  ``subset`` >= T - 1       what there is without it
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    c: the radius relative to the mean's norm, at least 0. In the paper 0.4 for
      NYUv2 and 0.2 for Cityscapes.
    rescale: what ``d`` is divided by: ``'none'`` nothing (the paper),
      ``'c_squared'`` :math:`1 + c^2`, ``'c'`` :math:`1 + c`.
    subset: :math:`|S|`, how many tasks are drawn at every step, from 1 to T;
      None: all. In the paper 4 of 10, and 8 of 50.

  Returns:
    The `mtljax.Aggregator`. Reads the Gramian. Its state has the residual of
    the last solve, see `mtljax.solvers.ball_max_min`; with ``subset`` also a
    key.

  Raises:
    ValueError: ``c`` is negative, ``rescale`` is not known, or ``subset`` is
      not from 1 to T.

  References:
    Liu et al., `Conflict-Averse Gradient Descent for Multi-task Learning
    <https://arxiv.org/abs/2110.14048>`_, 2021

  The optax face of `mtljax.weightings.cagrad`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.cagrad(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def imtl_g(
  num_tasks: int,
  *,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Impartial multi-task learning, the part on gradients (IMTL-G).

  The update :math:`d = J^\top w` has the same projection on every task's
  gradient direction :math:`u_t = g_t / \|g_t\|`, and the weights sum to 1:

  .. math:: w_t = \frac{y_t / \|g_t\|}{\sum_s y_s / \|g_s\|}, \qquad
     y = \mathrm{pinv}(U)\, 1, \quad U_{st} = u_s^\top u_t

  Weights may be negative, so heads are never weighted. Their size has no
  bound: it grows without limit where the raw sum
  :math:`\sum_t y_t / \|g_t\|` passes 0, and where that sum is negative the
  common projection is negative too, which means that the update is against
  every task. That is the paper's definition and is kept; see the guard below.

  Scaling a task's loss changes at most the update's length (invariance
  ``'direction'``). Costs the Gramian (T backward passes) and one
  pseudo-inverse, O(T^3).

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  zero rows                 0 for them, the smaller problem's answer for the
                            rest; all rows zero: zeros
  equal rows                they share their weight equally
  rank-deficient rows       least squares: equal projections where they exist,
                            else as equal as can be; the residual tells
  directions with sum 0     such as antiparallel rows: equal in y, so the
                            shorter row weighs more: d = 0
  raw sum rounds to 0       divided by the sum of absolute values in place of
                            the sum: the projections are equal and not
                            negative, and the weights do not sum to 1
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.

  Returns:
    The `mtljax.Aggregator`. Reads the Gramian. Its state has the residual of
    the last step: the largest :math:`|(U y)_t - 1|`.

  References:
    Liu et al., `Towards Impartial Multi-task Learning
    <https://openreview.net/forum?id=IMPnRXEWpvr>`_, 2021

  The optax face of `mtljax.weightings.imtl_g`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.imtl_g(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def nash_mtl(
  num_tasks: int,
  *,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = 1.0,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Multi-task learning as a bargaining game.

  The weights are positive and solve

  .. math:: w_t (G w)_t = 1, \qquad t = 1 \ldots T

  They have no fixed sum; the update :math:`J^\top w` has norm
  :math:`\sqrt T` whatever the losses' scales are, and improves every task. It
  is a strictly convex problem, solved by Newton's method. The paper clips the
  norm of the update afterwards: an option of the aggregator. Heads are
  weighted. For two tasks :math:`w_t = 1 / (\|g_t\| \sqrt{1 + \cos})`.

  Scaling a task's loss leaves the update as it is (invariance ``'full'``).
  Costs the Gramian (T backward passes) and 5 to 15 Newton steps of O(T^3).

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1 / ||g||
  zero rows                 0 for them, the smaller problem's answer for the
                            rest; their heads are not trained in that step
  equal rows                equal
  0 in the hull             Pareto stationary, as of antiparallel rows: there is
                            no solution; finite weights that combine to an
                            update shorter than sqrt(T), with a residual of
                            order 1
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``. Here ``max_norm=1.0`` by default.

  Returns:
    The `mtljax.Aggregator`. Reads the Gramian. Its state has the residual of
    the last solve, :math:`\max_t |w_t (G w)_t - 1|`.

  References:
    Navon et al., `Multi-Task Learning as a Bargaining Game
    <https://arxiv.org/abs/2202.01017>`_, 2022

  The optax face of `mtljax.weightings.nash_mtl`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.nash_mtl(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def fairgrad(
  num_tasks: int,
  *,
  alpha: ArrayLike = 2.0,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Fair resource allocation in multi-task learning.

  The update :math:`d = J^\top w` maximises the :math:`\alpha`-fair utility
  :math:`\sum_t (g_t^\top d)^{1-\alpha} / (1-\alpha)` in a small ball. The
  weights are positive and solve

  .. math:: (G w)_t = w_t^{-1/\alpha}

  They have no fixed sum. A small :math:`\alpha` favours the sum of the
  improvements, 1 is `nash_mtl` (proportional fairness), 2 minimises potential
  delay, and a large one favours the task that improves least. For orthogonal
  gradients :math:`w_t = \|g_t\|^{-2\alpha/(\alpha+1)}`. Only
  :math:`\alpha = 1` does not depend on the losses' scales. Heads are not
  weighted. (The official code multiplies the update by T and clips its norm.)

  Scaling a task's loss leaves the update as it is for ``alpha=1`` (invariance
  ``'full'``), and changes its direction otherwise (``'none'``). Costs the
  Gramian (T backward passes) and 5 to 15 Newton steps of O(T^3).

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  ||g||^(-2 alpha / (alpha + 1))
  zero rows                 0 for them, the smaller problem's answer for the
                            rest
  equal rows                equal
  0 in the hull             Pareto stationary, as of antiparallel rows: there is
                            no solution; finite weights whose combination is
                            bounded, with a residual of order 1
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    alpha: the fairness, above 0. In float32 the equation is solved to about
      1e-5 at 1 and 1e-3 at 2 where the gradients' lengths span six decades,
      and worse the further alpha is from there; from 10 up or 0.5 down such
      lengths may leave it unsolved. The residual tells.

  Returns:
    The `mtljax.Aggregator`. Reads the Gramian. Its state has the residual of
    the last solve, :math:`\max_t |w_t^{1/\alpha} (G w)_t - 1|`.

  Raises:
    ValueError: ``alpha`` is not above 0.

  References:
    Ban and Ji, `Fair Resource Allocation in Multi-Task Learning
    <https://arxiv.org/abs/2402.15638>`_, 2024

  The optax face of `mtljax.weightings.fairgrad`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.fairgrad(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def aligned_mtl(
  num_tasks: int,
  *,
  scale_mode: ScaleMode = 'min',
  preference: _preference.Preference = None,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
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
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    scale_mode: which of the eigenvalues is :math:`\sigma`: ``'min'`` (the
      paper), ``'median'`` (the lower of two in the middle) or ``'mean'``.
    preference: :math:`p`, shape ``(T,)``, not negative; None: ones. With 1/T
      it is a mean.

  Returns:
    The `mtljax.Aggregator`. Reads the Gramian; it has no state.

  Raises:
    ValueError: ``scale_mode`` is not known, or the preference is negative, not
      finite, 0, or not of length T.

  References:
    Senushkin et al., `Independent Component Alignment for Multi-Task Learning
    <https://arxiv.org/abs/2305.19000>`_, 2023

  The optax face of `mtljax.weightings.aligned_mtl`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.aligned_mtl(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def bmtl(
  num_tasks: int,
  *,
  temperature: ArrayLike = 1.0,
  normalize: bool = False,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Balanced multi-task learning: more weight for the larger losses.

  The objective and its gradient with respect to the losses are

  .. math:: \sum_t e^{L_t / \tau}, \qquad w_t = \frac{1}{\tau} e^{L_t / \tau}

  With ``normalize`` the objective is :math:`\tau \log \sum_t e^{L_t / \tau}`,
  which has the same minima and :math:`w = \mathrm{softmax}(L / \tau)`: `stch`
  with unit preferences. The two differ only in the length of the update. The
  weights sum to nothing in particular; normalised, to 1. A small temperature
  attends to the task with the largest loss, a large one to the sum. Heads are
  weighted: the method is a function of the losses.

  The weights are computed through their logarithms and do not overflow: where
  the largest would be above the cube root of the largest number of its dtype,
  7e12 in float32, all are shrunk by one factor to make it that.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  exp(L / tau) / tau; normalised: 1
  zero or negative losses   nothing special
  L much larger than tau    finite, see above
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    temperature: :math:`\tau`, above 0, in units of a loss. The paper tunes it.
    normalize: whether the weights sum to 1.

  Returns:
    The `mtljax.Aggregator`. Reads the losses.

  Raises:
    ValueError: ``temperature`` is not above 0.

  References:
    Liang and Zhang, `A Simple General Approach to Balance Task Difficulty in
    Multi-Task Learning <https://arxiv.org/abs/2002.04792>`_, 2020

  The optax face of `mtljax.weightings.bmtl`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.bmtl(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def conflict_free(
  num_tasks: int,
  *,
  preference: _preference.Preference = None,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Conflict-free inverse gradients (ConFIG).

  The update's direction :math:`b` has the same positive cosine with every
  gradient, and its length is the sum of the gradients' projections on it. With
  :math:`u_t = g_t / \|g_t\|` and :math:`U = [u_1 \ldots u_T]^\top`,

  .. math:: d = \Big(\sum_t g_t^\top b\Big) b, \qquad
     b = \frac{U^+ p}{\|U^+ p\|}, \quad p = 1

  Written with the unit Gramian, :math:`U^+ = U^\top (U U^\top)^+`, it takes a
  T by T pseudo-inverse in place of one of the gradients. The weights have no
  fixed sum; they may be negative, so heads are never weighted. Scaling a
  task's loss changes the length of the update only (invariance
  ``'direction'``). For two tasks :math:`b` halves the angle between them.
  Costs the Gramian (T backward passes) and one pseudo-inverse, O(T^3).

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  a zero row                0 for it, the smaller problem's answer for the rest
  all rows zero             zeros
  equal rows                they share their weight equally in ``u``
  antiparallel rows         zeros: no direction agrees with both
  dependent rows            least squares: equal cosines where they exist, else
                            as equal as can be, and some may be negative; the
                            residual tells
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    preference: :math:`p`, the cosines' ratios, shape ``(T,)``, not negative;
      None: ones.

  Returns:
    The `mtljax.Aggregator`. Reads the Gramian. Its state has the residual of
    the last step: the largest :math:`|u_t^\top U^+ p - p_t|`, relative to the
    largest :math:`p_t`.

  Raises:
    ValueError: the preference is negative, not finite, 0, or not of length T.

  References:
    Liu et al., `ConFIG: Towards Conflict-free Training of Physics Informed
    Neural Networks <https://arxiv.org/abs/2408.11104>`_, 2024

  The optax face of `mtljax.weightings.conflict_free`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.conflict_free(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def dual_proj(
  num_tasks: int,
  *,
  preference: _preference.Preference = None,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""The projection of the mean gradient on the dual cone (DualProj, GEM).

  .. math:: d = \pi(J^\top p), \qquad
     w = \arg\min_{v \ge p} v^\top G v

  with the preference :math:`p_t = 1/T`. The weights are at least the
  preference, and sum to at least its sum: 1. `upgrad` projects the gradients
  one by one, and is the same for a one-hot preference. The update harms no
  task, to first order, however short its gradient. Heads are not weighted:
  only the shared parameters are in conflict. Scaling a task's loss changes
  the update (invariance ``'none'``). Costs the Gramian (T backward passes)
  and one quadratic program of size T.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  a zero row                1/T for it, without effect; it counts in T
  equal rows                nothing special
  antiparallel rows         an update of 0 up to rounding
  0 in the hull             finite; ``d`` is 0 if some combination with all
                            weights positive is
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    preference: :math:`p`, shape ``(T,)``, not negative, used as it is, and an
      absent task's share is not given to the others; None: 1/T, over the tasks
      present.

  Returns:
    The `mtljax.Aggregator`. Reads the Gramian. Its state has the residual of
    the last solve, see `mtljax.solvers.dual_cone`.

  Raises:
    ValueError: the preference is negative, not finite, 0, or not of length T.

  References:
    Lopez-Paz and Ranzato, `Gradient Episodic Memory for Continual Learning
    <https://arxiv.org/abs/1706.08840>`_, 2017

  The optax face of `mtljax.weightings.dual_proj`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.dual_proj(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def dwa(
  num_tasks: int,
  *,
  temperature: ArrayLike = 2.0,
  window: int = 25,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Dynamic weight average: more weight where a loss falls more slowly.

  .. math:: w = T\, \mathrm{softmax}(r / \tau), \qquad
     r_t = \frac{\bar L_t(k - 1)}{\bar L_t(k - 2)}

  with :math:`\bar L_t(k)` the mean loss over the k-th window. The weights sum
  to the number of tasks present, and are 1 during the first two windows. The
  paper's window is an epoch: pass the number of steps in one. 25 steps are
  what the code of Nash-MTL uses for runs that have no epochs. Heads are
  weighted: the method weights losses. A factor on a loss leaves the weights as
  they are, so it acts as it would without weights.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  a window's mean <= 0      NaN for all while the ratio divides by it
  absent tasks              0; T counts those present. Windows are counted
                            for each task in the steps it was present; one
                            with fewer than two has the ratio 1
  NaN or infinity           NaN, until its window is forgotten; in an
                            aggregator only in that step
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    temperature: :math:`\tau`, above 0; a large one gives equal weights.
    window: steps that are averaged, at least 1.

  Returns:
    The `mtljax.Aggregator`. Reads the losses.

  Raises:
    ValueError: ``temperature`` is not above 0, or ``window`` is below 1.

  References:
    Liu et al., `End-to-End Multi-Task Learning with Attention
    <https://arxiv.org/abs/1803.10704>`_, 2019

  The optax face of `mtljax.weightings.dwa`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.dwa(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def famo(
  num_tasks: int,
  *,
  learning_rate: ArrayLike = 0.025,
  weight_decay: ArrayLike = 0.001,
  min_losses: Sequence[float] | jax.Array | None = None,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Fast adaptive multitask optimization: equal rates of improvement.

  With :math:`D_t = L_t - b_t + 10^{-8}` and :math:`z = \mathrm{softmax}(\xi)`,
  the model descends along the gradient of :math:`c \sum_t z_t \log D_t`, where
  :math:`c = 1 / \sum_t (z_t / D_t)` is held constant:

  .. math:: w_t = \frac{z_t / D_t}{\sum_s z_s / D_s}

  After the step the losses of the same batch say how much each task improved,
  and the logits move towards those that improved least:

  .. math:: \delta = \log D(\theta_k) - \log D(\theta_{k+1}), \qquad
     \xi \leftarrow \mathrm{Adam}\big(\xi,\;
     J_\mathrm{softmax}^\top \delta + \gamma \xi\big)

  The weights sum to 1. Heads are weighted: the method weights losses. A factor
  on a loss changes only the length of the update, if no ``min_losses`` are
  given. The train step evaluates the losses after its update, one more forward
  pass. The optax face sees them only with the next call, so on the next batch.
  (The authors' code also clips the update's norm to 1: ``max_norm``.)

  Scaling a task's loss changes at most the update's length (invariance
  ``'direction'``); with ``min_losses``, which do not scale along, it changes
  the direction too (invariance ``'none'``). Costs one backward pass and the T
  losses once more, after the step.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  L_t = b_t                 1 for it, nearly
  L_t below b_t             NaN for all; after a step: as NaN
  absent tasks              0, the smaller problem's answer for the rest;
                            their logits and Adam stand still
  NaN or infinity           NaN; after a step: that task has not been observed
                            and does not count in the change of the logits
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    learning_rate: of the logits, at least 0.
    weight_decay: :math:`\gamma`, at least 0, part of Adam's gradient as in
      PyTorch. The paper has 0.001, and 0.01 for Cityscapes; the authors'
      example 0.01, the default of their class 1e-5.
    min_losses: lower bounds b of the losses, one a task; None: zeros.

  Returns:
    The `mtljax.Aggregator`. Reads the losses, and observes those after a step.

  Raises:
    ValueError: an argument is out of range, or ``min_losses`` does not have
      one entry a task.

  References:
    Liu et al., `FAMO: Fast Adaptive Multitask Optimization
    <https://arxiv.org/abs/2306.03792>`_, 2023

  The optax face of `mtljax.weightings.famo`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.famo(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def geometric(
  num_tasks: int,
  *,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""The geometric mean of the losses (geometric loss strategy, GLS).

  The weights are the gradient of the objective with respect to the losses:

  .. math:: \Big(\prod_t L_t\Big)^{1/T}, \qquad
     w_t = \frac{1}{T L_t} \Big(\prod_s L_s\Big)^{1/T}

  The direction is that of `uw_o`, so a constant factor on a loss changes only
  the length of the update. The weights sum to the ratio of the geometric to
  the harmonic mean, 1 or more; their product is :math:`T^{-T}`. Heads are
  weighted: the method is a function of the losses. The objective falls to 0 as
  soon as one loss does.

  Scaling a task's loss changes at most the update's length (invariance
  ``'direction'``). Costs one backward pass and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  equal losses              1/T
  a loss of zero or below   NaN for all
  absent tasks              0; T counts those present
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.

  Returns:
    The `mtljax.Aggregator`. Reads the losses.

  References:
    Chennupati et al., `MultiNet++: Multi-Stream Feature Aggregation and
    Geometric Loss Strategy for Multi-Task Learning
    <https://arxiv.org/abs/1904.08492>`_, 2019

  The optax face of `mtljax.weightings.geometric`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.geometric(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def go4align(
  num_tasks: int,
  *,
  num_groups: int = 2,
  learning_rate: ArrayLike = 0.0001,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Group optimization for multi-task alignment.

  Losses are brought to one scale, tempered by the risk so far, and tasks with
  similar results share one weight, the mean of their group:

  .. math:: p \leftarrow \frac{p\, e^{-\eta L}}{\sum_s p_s e^{-\eta L_s}},
     \qquad v_t = \frac{\sum_s L_s}{L_t} p_t, \qquad
     w_t = \mathrm{mean}\{v_s : s \text{ in the group of } t\}

  with p uniform at first, and the groups by k-means on v. The weights have no
  fixed sum; for equal losses they are 1. Heads are weighted: the method
  weights losses.

  The definition is that of the authors' code. It runs Lloyd's algorithm from a
  random start on the host. Here the groups are the optimum of the same
  k-means objective, by dynamic programming in the graph: the same from step to
  step for the same losses, and never worse. Where groupings are equally good,
  one is chosen by the values alone.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass and O(K T^2) beside it, K groups.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  no more than num_groups   v: every task is a group
  equal v                   equal
  a loss of zero or below   NaN for all
  absent tasks              0, the smaller problem's answer for the rest; p is
                            theirs among those present, up to a constant
  NaN or infinity           NaN, from then on; in an aggregator only in that
                            step
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    num_groups: how many groups, at least 1; 1 gives all tasks the mean of v.
    learning_rate: :math:`\eta`, at least 0, in units of an inverse loss.

  Returns:
    The `mtljax.Aggregator`. Reads the losses.

  Raises:
    ValueError: an argument is out of range.

  References:
    Shen et al., `GO4Align: Group Optimization for Multi-Task Alignment
    <https://arxiv.org/abs/2404.06486>`_, 2024

  The optax face of `mtljax.weightings.go4align`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.go4align(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def gradnorm(
  num_tasks: int,
  *,
  alpha: ArrayLike = 1.5,
  learning_rate: ArrayLike = 0.025,
  min_weight: ArrayLike = 0.001,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Gradient normalisation (GradNorm).

  Adam moves the weights down the gradient of

  .. math:: \sum_t \Big| w_t \|g_t\| - \bar G\, r_t^\alpha \Big|, \qquad
     \bar G = \frac1T \sum_s w_s \|g_s\|, \quad
     r_t = \frac{L_t / L_t(0)}{\frac1T \sum_s L_s / L_s(0)}

  in which :math:`\bar G r_t^\alpha` is a constant, and scales them to sum to T
  again. A task that trains more slowly than the others, :math:`r_t > 1`, is
  given a longer gradient. The weights of a step are those from before its
  update. :math:`L_t(0)` is the loss in the task's first step. Heads are
  weighted: the method weights losses. Scaling a task's loss changes the update
  (invariance ``'none'``) until the weights have made up for it. The paper
  takes the gradients of the last shared layer: ``gramian_labels`` of
  `mtljax.aggregate`. Costs the Gramian (T backward passes) and O(T) beside
  it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  a zero row                its own weight has no gradient; the norms' mean
                            counts it
  equal or opposed rows     nothing special: only their norms are read
  below ``min_weight``      a weight is held there before the scaling (the paper
                            has no bound, and a step may pass 0)
  a first loss of 0         its ratio is 1 until a loss is not 0, which is then
                            its first
  a negative ratio          NaN from the next step on, unless alpha is whole;
                            in an aggregator they stand still in that step
  absent tasks              0, the smaller problem's answer for the rest; their
                            weight and Adam stand still
  NaN or infinity           NaN, from then on; in an aggregator only in that
                            step
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    alpha: how strongly the rates are made equal, at least 0; 0 makes the norms
      equal. In the paper 1.5 for NYUv2, 0.12 for its toy problem.
    learning_rate: of the weights, at least 0.
    min_weight: what a step may not take a weight below, at least 0.

  Returns:
    The `mtljax.Aggregator`. Reads the losses and the Gramian.

  Raises:
    ValueError: an argument is negative.

  References:
    Chen et al., `GradNorm: Gradient Normalization for Adaptive Loss Balancing
    in Deep Multitask Networks <https://arxiv.org/abs/1711.02257>`_, 2018

  The optax face of `mtljax.weightings.gradnorm`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.gradnorm(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def gradvac(
  num_tasks: int,
  *,
  decay: ArrayLike = 0.99,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Gradient vaccine.

  As in `pcgrad` each task i starts from its gradient and meets the others in a
  random order of its own, but what it is held to is not a cosine of 0: it is
  :math:`\hat\phi_{ij}`, a moving average of the cosines that it had with task
  j. Where its cosine :math:`\phi` is below,

  .. math:: g_i \leftarrow g_i + \|g_i\| \frac{\hat\phi_{ij} \sqrt{1 - \phi^2}
     - \phi \sqrt{1 - \hat\phi_{ij}^2}}{\|g_j\| \sqrt{1 - \hat\phi_{ij}^2}} g_j

  which makes the cosine :math:`\hat\phi_{ij}`; then :math:`\hat\phi_{ij}
  \leftarrow (1 - \beta) \hat\phi_{ij} + \beta \phi`. The update adds up the
  results. They are combinations of the gradients, so only their coefficients
  are computed, from the Gramian. Targets start at 0: the first step is
  `pcgrad`. The weights are not negative and have no fixed sum; each is at
  least 1. Heads are not weighted: only the shared parameters are in conflict.
  Scaling a task's loss changes the update (invariance ``'none'``), though not
  the targets. Costs the Gramian (T backward passes) and T dependent steps of
  O(T^2).

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  zero rows                 they neither take nor give: weight 1, without
                            effect; their targets stand still
  equal rows                nothing special; their target goes to 1, and the
                            root of 1 minus its square is held above the root
                            of eps
  antiparallel rows         what is left of the gradient is 0 up to rounding;
                            it has no cosine, so it meets nobody after that
  absent tasks              0, the smaller problem's answer for the rest; their
                            targets stand still
  NaN or infinity           NaN; the targets stand still
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    decay: :math:`1 - \beta`, what stays of the targets, from 0 to 1 (`pcgrad`,
      as long as they are 0). In the paper 0.99; 0.5 in LibMTL and TorchJD.

  Returns:
    The `mtljax.Aggregator`. Reads the Gramian; its state holds the targets and
    a key.

  Raises:
    ValueError: ``decay`` is not between 0 and 1.

  References:
    Wang et al., `Gradient Vaccine: Investigating and Improving Multi-task
    Optimization in Massively Multilingual Models
    <https://arxiv.org/abs/2010.05874>`_, 2021

  The optax face of `mtljax.weightings.gradvac`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.gradvac(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def imtl(
  num_tasks: int,
  *,
  learning_rate: ArrayLike = 0.025,
  log_scale: ArrayLike = 0.0,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Impartial multi-task learning, both parts (IMTL).

  `imtl_l` scales the losses by learned factors :math:`e^{s_t}`, minimising
  :math:`\sum_t e^{s_t} L_t - s_t` over s too, and `imtl_g` then combines the
  gradients of the scaled losses:

  .. math:: w_t = e^{s_t} \alpha_t, \qquad \sum_t \alpha_t = 1

  with :math:`\alpha` the weights for which :math:`d = J^\top w` has the same
  projection on every task's gradient direction. The :math:`\alpha_t`, not the
  weights, sum to 1. The direction of the update is that of `imtl_g`; s decides
  its length. Scaling a task's loss changes the length only (invariance
  ``'direction'``). Weights may be negative, so heads are not weighted; the
  paper multiplies a head's loss by :math:`e^{s_t}`. Adam updates s, as in
  `imtl_l`. Costs the Gramian (T backward passes) and one pseudo-inverse,
  O(T^3).

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  exp(s)
  zero rows                 0 for them, the smaller problem's answer for the
                            rest; all rows zero: zeros
  dependent rows            equal or antiparallel ones too: as in `imtl_g`
  raw sum rounds to 0       as in `imtl_g`
  a loss of zero or below   its s grows without bound, as in `imtl_l`
  absent tasks              0, the smaller problem's answer for the rest; their
                            s and its Adam stand still
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    learning_rate: of the log scales, at least 0.
    log_scale: where they start.

  Returns:
    The `mtljax.Aggregator`. Reads the losses and the Gramian. Its state has the
    residual of `imtl_g`.

  Raises:
    ValueError: ``learning_rate`` is negative.

  References:
    Liu et al., `Towards Impartial Multi-task Learning
    <https://openreview.net/forum?id=IMPnRXEWpvr>`_, 2021

  The optax face of `mtljax.weightings.imtl`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.imtl(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def imtl_l(
  num_tasks: int,
  *,
  learning_rate: ArrayLike = 0.025,
  log_scale: ArrayLike = 0.0,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Impartial multi-task learning, the part on losses (IMTL-L).

  The objective is minimised over the parameters and over :math:`s_t`, the log
  scale of task t, together:

  .. math:: \sum_t e^{s_t} L_t - s_t, \qquad w_t = e^{s_t}

  At the minimum over s every scaled loss is 1 and :math:`w_t = 1 / L_t`, which
  is `uw_o`. The weights sum to nothing in particular. Heads are weighted: the
  method weights losses. Adam updates s here, apart from the model's optimizer,
  so that its weight decay and learning rate do not touch it.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  exp(s)
  a loss of zero or below   the objective has no minimum over s: the weight
                            grows without bound
  absent tasks              0; their s and its Adam stand still
  NaN or infinity           that task's s is NaN from then on; in an
                            aggregator it stays as it was
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    learning_rate: of the log scales, at least 0.
    log_scale: where they start.

  Returns:
    The `mtljax.Aggregator`. Reads the losses.

  Raises:
    ValueError: ``learning_rate`` is negative.

  References:
    Liu et al., `Towards Impartial Multi-task Learning
    <https://openreview.net/forum?id=IMPnRXEWpvr>`_, 2021

  The optax face of `mtljax.weightings.imtl_l`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.imtl_l(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def krum(
  num_tasks: int,
  *,
  num_byzantine: int,
  num_selected: int = 1,
  squared: bool = True,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Krum and multi-Krum: robust to a few arbitrary gradients.

  A task's score is the sum of the squared distances to its :math:`T - f - 2`
  nearest neighbours, with :math:`f` the number of tasks that may be arbitrary:

  .. math:: s_t = \sum_{t \to j} \|g_t - g_j\|^2, \qquad
     w_t = 1/m \text{ for the } m \text{ lowest scores, else } 0

  The weights sum to 1. Made for workers with the same loss, it leaves out the
  tasks that are unlike the others, which also get nothing in that step. Heads
  are not weighted: theirs would not be trained. Scaling a task's loss changes
  the update (invariance ``'none'``). Costs the Gramian (T backward passes)
  and T^3 comparisons of distances.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  zero rows                 nothing special: points like others
  equal rows, ties          the first of equal scores
  rows of unlike length     the short ones are nearest to each other, and win
  f = 0 and two tasks       one neighbour is counted: a tie
  fewer than f + 3 present  one neighbour is counted; without the guarantee
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    num_byzantine: :math:`f`, at least 0; if it is above 0 there have to be
      :math:`f + 3` tasks or more.
    num_selected: :math:`m`, how many gradients are averaged, at least 1; all
      tasks present if there are fewer.
    squared: whether distances are squared (the paper) or not (TorchJD).

  Returns:
    The `mtljax.Aggregator`. Reads the Gramian; it has no state.

  Raises:
    ValueError: an argument is out of its range or too large for T.

  References:
    Blanchard et al., `Byzantine-Tolerant Machine Learning
    <https://arxiv.org/abs/1703.02757>`_, 2017

  The optax face of `mtljax.weightings.krum`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.krum(num_tasks=2, num_byzantine=0)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def pcd(
  num_tasks: int,
  *,
  primary: int = 0,
  tau: ArrayLike = 0.02,
  decay: ArrayLike = 0.999,
  eps: ArrayLike = 1e-08,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Priority-constrained descent (PCD): one task leads.

  With the gradients scaled by their usual length, :math:`\hat g_t = g_t /
  \sqrt{\hat v_t + \epsilon}`, the update has the direction of

  .. math:: \arg\min_d \|d - \hat g_1\|^2 \quad\text{s.t.}\quad
     \hat g_t^\top d \ge \tau \|\hat g_t\|^2, \quad t \ne 1

  and the norm of the primary task's gradient :math:`g_1`. :math:`\hat v_t` is
  the moving average of :math:`\|g_t\|^2`, corrected for its start. Each other
  task gets the fraction :math:`\tau` of the progress that its own scaled
  gradient would give it. The weights are not negative and have no fixed sum.
  Heads are not weighted: it is the shared update that is bent. Scaling a
  task's loss by a constant leaves the direction, and the norm follows the
  primary's (invariance ``'direction'``, up to ``eps``). Costs the Gramian (T
  backward passes) and one quadratic program of size T.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  no conflict               a multiple of the primary alone: 1
  primary row zero          zeros: there is no update
  primary task absent       the same
  another row zero          0 for it: it asks for nothing
  equal rows                nothing special
  antiparallel to primary   tau > 0: the constraint wins, along its own
                            gradient; tau = 0, or within rounding of it: zeros
  exclusive constraints     the primary alone: 1, with a residual of order 1
  absent tasks              0, the smaller problem's answer for the rest; their
                            averages stand still
  NaN or infinity           NaN; the averages stand still
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    primary: the index of the primary task.
    tau: from 0 to 1, for all or one for each task, shape ``(T,)``, of which
      the primary's is not read.
    decay: :math:`\beta`, of the averages, at least 0 and below 1.
    eps: added to the averages of the squared norms, at least 0.

  Returns:
    The `mtljax.Aggregator`. Reads the Gramian. Its state has the residual of
    the last solve: the larger of that of `mtljax.solvers.nonneg_qp` and the
    largest part of its progress that a task misses.

  Raises:
    ValueError: an argument is out of its range, or there is no such task.

  References:
    Varam and AlHajri, `Not All Objectives Are Born Equal: Priority-Constrained
    Descent for Hierarchical Multi-Objective Optimization
    <https://arxiv.org/abs/2606.29521>`_, 2026

  The optax face of `mtljax.weightings.pcd`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.pcd(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def pivrg(
  num_tasks: int,
  *,
  scores: Sequence[float] | jax.Array,
  window: int = 25,
  bound: ArrayLike = 2.0,
  min_temperature: ArrayLike = 10.0,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Performance-informed variance reduction (PIVRG).

  `fairgrad` with :math:`\alpha = 2` in which a task counts by how far it is
  behind its single-task score :math:`b_t`:

  .. math:: (G w)_t = \sqrt{\omega_t / w_t}, \qquad
     \omega = T\, \mathrm{softmax}(\Delta / \tau), \quad
     \Delta_t = 100\, (\bar L_t / b_t - 1)

  with :math:`\bar L_t` the mean training loss over the last window and
  :math:`\tau` the larger of :math:`(\max \Delta - \min \Delta) / \log 2` and
  10, so that no factor is more than twice another. The weights are positive
  and have no fixed sum. Until the first window is full all :math:`\omega_t`
  are 1, which is `fairgrad`. Heads are not weighted. Scaling a task's loss
  changes the update (invariance ``'none'``). (The official code takes
  :math:`\Delta_t` from the training metrics of the last epoch, multiplies the
  update by T and clips its norm.) Costs the Gramian (T backward passes) and 5
  to 15 Newton steps of O(T^3).

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  ||g||^(-4/3)
  zero rows                 0 for them; they count among the factors, so the
                            rest has the smaller problem's direction
  equal rows                as unlike as the factors
  0 in the hull             Pareto stationary, as of antiparallel rows: there is
                            no solution; finite weights whose combination is
                            bounded, with a residual of order 1
  absent tasks              0, the smaller problem's answer for the rest; a
                            window counts the steps a task is present
  NaN or infinity           NaN; in a loss, until its window is replaced; in
                            an aggregator only in that step
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    scores: :math:`b`, the training loss that each task reaches when it is
      trained alone, shape ``(T,)``, above 0.
    window: steps that are averaged, at least 1; the paper's is an epoch.
    bound: the largest ratio of two factors, above 1.
    min_temperature: the least :math:`\tau`, in per cent, above 0.

  Returns:
    The `mtljax.Aggregator`. Reads the losses and the Gramian. Its state has the
    residual of the last solve, :math:`\max_t |\sqrt{w_t / \omega_t} (G w)_t -
    1|`.

  Raises:
    ValueError: an argument is out of its range, or there are not T scores.

  References:
    Qin et al., `Revisiting Fairness in Multitask Learning: A
    Performance-Driven Approach for Variance Reduction
    <https://github.com/jianke0604/MTLlib>`_, 2025

  The optax face of `mtljax.weightings.pivrg`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.pivrg(num_tasks=2, scores=[1.0, 0.5])
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def slaw(
  num_tasks: int,
  *,
  decay: ArrayLike = 0.99,
  eps: ArrayLike = 1e-05,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Scaled loss approximate weighting: about equal gradient norms.

  A loss whose gradient is long varies more from step to step. With
  :math:`s_t` the running standard deviation of the loss,

  .. math:: w_t = T\, \frac{1 / s_t}{\sum_u 1 / s_u}, \qquad
     s_t^2 = \mathrm{E}[L_t^2] - \mathrm{E}[L_t]^2

  where the means E run over all steps, this one included, for the first
  :math:`1 / (1 - \mathrm{decay})` steps (100), and are exponential with
  ``decay`` from then on. The weights sum to the number of tasks present, and
  are 1 at the first step. They approximate dividing by the gradients' norms at
  the price of no extra pass. Heads are weighted: the method weights losses.

  The variance is updated around the running mean. That is the same number as
  the difference of the formula, which in float32 loses it, and may be
  negative, where a loss varies little around its mean.

  After the first step a constant factor on a loss changes only the length of
  the update, as long as every deviation is above ``eps``.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  a loss that is constant   the deviation counts as ``eps``: all the weight,
                            if the others' vary; equal if none does
  zero or negative losses   nothing special
  absent tasks              0; T counts those present, each with the history
                            of the steps it was present. One present for the
                            first time has weight 1, the rest share as above
  NaN or infinity           NaN, from then on; in an aggregator only in that
                            step
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    decay: of the running means, from 0 to 1.
    eps: the least of the standard deviations, above 0, in units of a loss.

  Returns:
    The `mtljax.Aggregator`. Reads the losses.

  Raises:
    ValueError: an argument is out of range.

  References:
    Crawshaw and Košecká, `SLAW: Scaled Loss Approximate Weighting for
    Efficient Multi-Task Learning <https://arxiv.org/abs/2109.08218>`_, 2021

  The optax face of `mtljax.weightings.slaw`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.slaw(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def slw(
  num_tasks: int,
  *,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Scaled loss weighting by gradient norms (SLW).

  .. math:: w_t = T\, \frac{1 / \|g_t\|}{\sum_s 1 / \|g_s\|}

  The weights sum to T, and all :math:`w_t g_t` have the same norm. It is what
  SLAW approximates from the spread of the losses. Heads are weighted: the
  method weights losses. Scaling a task's loss changes the length of the update
  only (invariance ``'direction'``). The paper takes the gradients of the last
  shared layer: ``gramian_labels`` of `mtljax.aggregate`. Costs the Gramian (T
  backward passes) and O(T) beside it.

  Under other names, up to the length of the update: NTKMTL with the kernel of
  one sample, :math:`w_t = \sqrt{\mathrm{tr}\, G / G_{tt}}`, whose heads are
  not weighted, and DiBS-MTL with one step, which then clips the update's norm.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  zero rows                 0 for them, the smaller problem's answer for the
                            rest; their heads are not trained in that step
  all rows zero             zeros
  equal or opposed rows     nothing special: only their norms are read
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.

  Returns:
    The `mtljax.Aggregator`. Reads the Gramian; it has no state.

  References:
    Crawshaw and Košecká, `SLAW: Scaled Loss Approximate Weighting for
    Efficient Multi-Task Learning <https://arxiv.org/abs/2109.08218>`_, 2021

    `NTKMTL <https://github.com/jianke0604/NTKMTL>`_, 2025, and `DiBS-MTL
    <https://arxiv.org/abs/2509.23948>`_, 2025: the equal updates

  The optax face of `mtljax.weightings.slw`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.slw(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def stch(
  num_tasks: int,
  *,
  temperature: ArrayLike = 1.0,
  preference: Vector = None,
  reference: Vector = None,
  warmup_steps: int | None = None,
  nadir_steps: int | None = None,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
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
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    temperature: :math:`\mu`, above 0, in units of a preferred loss.
    preference: :math:`\lambda`, one a task, at least 0; None: 1/T, with T the
      tasks present.
    reference: :math:`z`, the ideal losses, one a task; None: zeros.
    warmup_steps: length of the warm-up, at least 1; None: the plain form. It
      takes no preference and no reference.
    nadir_steps: the last steps of the warm-up, from 1 to all of it; None: a
      fifth of it, rounded up.

  Returns:
    The `mtljax.Aggregator`. Reads the losses.

  Raises:
    ValueError: an argument is out of range, a vector does not have one entry a
      task, or the two forms' arguments are mixed.

  References:
    Lin et al., `Smooth Tchebycheff Scalarization for Multi-Objective
    Optimization <https://arxiv.org/abs/2402.19078>`_, 2024

  The optax face of `mtljax.weightings.stch`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.stch(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def upgrad(
  num_tasks: int,
  *,
  preference: _preference.Preference = None,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Unconflicting projection of gradients (UPGrad).

  Each gradient is projected on the dual cone, the directions
  :math:`\{d : J d \ge 0\}` that harm no task, and the projections are added:

  .. math:: d = \sum_t \pi(p_t g_t), \qquad
     w = \sum_t \arg\min_{v \ge p_t e_t} v^\top G v

  with the preference :math:`p_t = 1/T`. The weights are at least the
  preference, and sum to at least its sum: 1. Where no two gradients conflict,
  the update is their mean. It harms no task, to first order; a task with a
  short gradient is protected like any other, because the T problems are
  solved for the unit Gramian. Heads are not weighted: only the shared
  parameters are in conflict. Scaling a task's loss changes the update
  (invariance ``'none'``). Costs the Gramian (T backward passes) and T
  quadratic programs of size T in one batch, from 17 tasks on as products of
  matrices, with four of T x T held, see `mtljax.solvers.dual_cones`.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  a zero row                1/T for it, without effect; it counts in T
  equal rows                nothing special
  antiparallel rows         both projections are 0 up to rounding
  0 in the hull             the gradients' part in the span of the rows that
                            combine to 0 is taken out, so the update is 0 if
                            they are all the rows; finite
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    preference: :math:`p`, shape ``(T,)``, not negative, used as it is, and an
      absent task's share is not given to the others; None: 1/T, over the tasks
      present.

  Returns:
    The `mtljax.Aggregator`. Reads the Gramian. Its state has the largest
    residual of the last solves, see `mtljax.solvers.dual_cone`.

  Raises:
    ValueError: the preference is negative, not finite, 0, or not of length T.

  References:
    Quinton and Rey, `Jacobian Descent for Multi-Objective Optimization
    <https://arxiv.org/abs/2406.16232>`_, 2024

  The optax face of `mtljax.weightings.upgrad`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.upgrad(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def uw_o(
  num_tasks: int,
  *,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Optimal uncertainty weighting (UW-O): every loss divided by itself.

  Instead of learning the noise levels as `uncertainty` does, their minimum
  :math:`\sigma_t = L_t` of :math:`L_t / \sigma_t + \log \sigma_t` is put in,
  as a constant:

  .. math:: w_t = 1 / L_t

  That is the gradient of :math:`\sum_t \log L_t`, the scale-invariant (SI)
  baseline: a constant factor on a loss changes nothing, for the shared
  parameters and for the heads. The weights sum to nothing in particular, and
  grow as the losses fall. Heads are weighted: the method weights losses.

  Scaling a task's loss leaves the update as it is (invariance ``'full'``).
  Costs one backward pass and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1 / L
  a loss of zero or below   NaN for all: it has no logarithm
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.

  Returns:
    The `mtljax.Aggregator`. Reads the losses.

  References:
    Kirchdorfer et al., `Analytical Uncertainty-Based Loss Weighting in
    Multi-Task Learning <https://arxiv.org/abs/2408.07985>`_, 2024

  The optax face of `mtljax.weightings.uw_o`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.uw_o(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def uw_so(
  num_tasks: int,
  *,
  temperature: ArrayLike = 1.0,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Soft optimal uncertainty weighting (UW-SO).

  The inverse losses of `uw_o`, made comparable by a softmax over the tasks:

  .. math:: w = \mathrm{softmax}\left(\frac{1}{\tau L}\right)

  The weights sum to 1 over the tasks present. The smallest loss weighs most,
  more so with a small temperature; a large one gives the mean. Heads are
  weighted: the method weights losses.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  a loss of zero or below   NaN for all: it has no noise level
  one far smaller loss      1 for it, 0 for the others, if below 1 / tau too
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    temperature: :math:`\tau`, above 0, in units of an inverse loss. The paper
      tunes it for each data set; there is no value that fits all.

  Returns:
    The `mtljax.Aggregator`. Reads the losses.

  Raises:
    ValueError: ``temperature`` is not above 0.

  References:
    Kirchdorfer et al., `Analytical Uncertainty-Based Loss Weighting in
    Multi-Task Learning <https://arxiv.org/abs/2408.07985>`_, 2024

  The optax face of `mtljax.weightings.uw_so`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.uw_so(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def cosmos(
  num_tasks: int,
  *,
  cosine_weight: ArrayLike = 2.0,
  preference: _preference.Preference = None,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Conditioned one-shot multi-objective search (COSMOS), its scalarization.

  The preferred sum of the losses, less the cosine of the losses with the
  preference :math:`\alpha`, which draws the losses to the preferred ratio. The
  weights are its gradient with respect to the losses:

  .. math:: \alpha^\top L - \lambda \cos(L, \alpha), \qquad
     w = \alpha - \frac{\lambda}{\|L\|}
     \Big(\frac{\alpha}{\|\alpha\|} - \cos(L, \alpha) \frac{L}{\|L\|}\Big)

  They sum to nothing in particular. A task whose loss is short of its share,
  beside a large :math:`\lambda`, has a negative weight: its loss is to rise.
  So heads are not weighted here, each descends its own loss; the paper's take
  the weights too. ``cosine_weight=0`` is `fixed` with these weights.

  The paper draws :math:`\alpha` from a Dirichlet distribution at every step
  and gives it to the network beside the input, so that one network holds the
  whole trade-off. The network is the user's; the preference may be traced,
  as an argument of the step in which the weighting is built, or by
  `mtljax.inject_hyperparams`.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  the preference; 1 by default
  losses as preferred       the preference
  all losses 0              the preference: there is no cosine
  negative losses           nothing special
  absent tasks              0, the smaller problem's answer for the rest, with
                            their preferences as given
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    cosine_weight: :math:`\lambda`, at least 0. The authors' code has 2 for
      Multi-MNIST, 8 for Multi-Fashion-MNIST, 3 for CelebA, 0.01 for fairness.
    preference: :math:`\alpha`, one a task, at least 0; None: 1/T, with T the
      tasks present.

  Returns:
    The `mtljax.Aggregator`. Reads the losses; it has no state.

  Raises:
    ValueError: an argument is out of range, or the preference does not have
      one entry a task.

  References:
    Ruchte and Grabocka, `Scalable Pareto Front Approximation for Deep
    Multi-Objective Learning <https://arxiv.org/abs/2103.13392>`_, 2021

  The optax face of `mtljax.weightings.cosmos`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.cosmos(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def pbi(
  num_tasks: int,
  *,
  penalty: ArrayLike = 5.0,
  preference: _preference.Preference = None,
  reference: _preference.Preference = None,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Penalty-based boundary intersection (PBI).

  With :math:`\hat\lambda = \lambda / \|\lambda\|` the preferred direction from
  the ideal losses :math:`z`, the objective is how far the losses are along it
  and, times :math:`\theta`, how far they are off it. The weights are its
  gradient with respect to the losses:

  .. math:: d_1 + \theta d_2, \quad
     d_1 = \hat\lambda^\top (L - z), \quad
     r = L - z - d_1 \hat\lambda, \quad d_2 = \|r\|, \qquad
     w = \hat\lambda + \theta \frac{r}{\|r\|}

  They sum to nothing in particular. A task whose loss is short of its share
  has a negative weight for any :math:`\theta` that is not small: its loss is
  to rise. So heads are not weighted here, each descends its own loss.

  :math:`r / \|r\|` jumps at :math:`r = 0`; there, and where :math:`r` is no
  longer than rounding, it is 0. TorchJD adds 1e-12 under the root instead.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  losses as preferred       :math:`\hat\lambda`; so where all are ideal
  losses below the ideal    nothing special
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    penalty: :math:`\theta`, at least 0. 5 in the paper.
    preference: :math:`\lambda`, one a task, at least 0; None: equal. May be
      traced, as that of `cosmos`.
    reference: :math:`z`, the ideal losses, one a task; None: zeros.

  Returns:
    The `mtljax.Aggregator`. Reads the losses; it has no state.

  Raises:
    ValueError: an argument is out of range, or a vector does not have one
      entry a task.

  References:
    Zhang and Li, `MOEA/D: A Multiobjective Evolutionary Algorithm Based on
    Decomposition <https://ieeexplore.ieee.org/document/4358754>`_, 2007

  The optax face of `mtljax.weightings.pbi`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.pbi(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def conic_grad(
  num_tasks: int,
  *,
  c: ArrayLike = 0.5,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""The best worst-case direction inside a cone around the mean gradient.

  With :math:`g_0` the mean of the gradients, the update has the direction of

  .. math:: \arg\max_d \min_t g_t^\top d
     \quad\text{s.t.}\quad \|d\| \le 1, \; g_0^\top d \ge c \|g_0\|

  and the length of :math:`g_0`. Its angle to the mean is at most
  :math:`\arccos c`, and where the cone holds a direction in which all losses
  fall, all of them do. The direction of `mgda`, if that is inside; ``c = 1``
  is the mean. CAGrad's ball of radius :math:`c'` lies in the cone of
  :math:`c = \sqrt{1 - c'^2}`, so for a step of given length the worst task
  gains no less here. The weights are not negative and
  have no fixed sum. Heads are not weighted.

  The problem is solved to accuracy from the Gramian. The paper takes a step on
  the dual's weights at a time, and inverts a matrix for each; its length is
  set apart from the direction too.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs the Gramian (T backward passes) and a search of a few
  steps, each a quadratic program of size T + 1.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  a zero row                it counts in the mean, with weight in proportion,
                            and places no demand on ``d``
  all rows zero, mean 0     zeros
  no direction in the cone  the one in which the worst task loses least: the
  improves all tasks        update is not 0 at Pareto stationary points, unless
                            ``c = 0``
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    c: the least cosine of the update and the mean gradient, from 0 to 1.

  Returns:
    The `mtljax.Aggregator`. Reads the Gramian. Its state has the residual of
    the last solve, see `mtljax.solvers.cone_max_min`.

  Raises:
    ValueError: ``c`` is not from 0 to 1.

  References:
    Hassanpour et al., `Fantastic Multi-Task Gradient Updates and How to Find
    Them In a Cone <https://arxiv.org/abs/2502.00217>`_, 2025

  The optax face of `mtljax.weightings.conic_grad`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.conic_grad(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def igb(
  num_tasks: int,
  *,
  warmup_steps: int = 100,
  base_steps: int | None = None,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Improvable gap balancing (IGB, its first form).

  The gap that a task can still improve by is its loss in units of what it was
  early in training, :math:`L_t / b_t`. The log losses are weighted by it:

  .. math:: \sum_t a_t \log L_t, \quad
     a = T\, \mathrm{softmax}(L / b) \text{, held constant}, \qquad
     w_t = a_t / L_t

  During the warm-up :math:`a_t = 1`: the direction of `uw_o`. :math:`b_t` is
  the mean of :math:`L_t` over its last ``base_steps``. Theirs is the training
  loss of one epoch: pass the number of steps in it. The weights have no fixed
  sum. Heads are weighted: the method weights losses. The second form, whose
  :math:`a` a reinforcement learner chooses, is not here.

  Scaling a task's loss leaves the update as it is (invariance ``'full'``).
  Costs one backward pass and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1 / L
  a loss of zero or below   NaN for all; it does not count in the warm-up
  absent tasks              0, the smaller problem's answer for the rest. A
                            task's warm-up counts the steps it was present;
                            those still in it have the weight 1 / L, the others
                            share as above
  NaN or infinity           NaN in that step, which does not count
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    warmup_steps: length of the warm-up, at least 1.
    base_steps: the last steps of the warm-up, from 1 to all of it; None: all.

  Returns:
    The `mtljax.Aggregator`. Reads the losses.

  Raises:
    ValueError: an argument is out of range.

  References:
    Dai et al., `Improvable Gap Balancing for Multi-Task Learning
    <https://arxiv.org/abs/2307.15429>`_, 2023

  The optax face of `mtljax.weightings.igb`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.igb(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def relobralo(
  num_tasks: int,
  *,
  decay: ArrayLike = 0.999,
  keep_probability: ArrayLike = 0.99,
  temperature: ArrayLike = 0.1,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Relative loss balancing with random lookback (ReLoBRaLo).

  A task that has progressed less, since the step before or since the first,
  gets more weight. With :math:`b(k') = T\, \mathrm{softmax}\big(L(k) /
  (\tau L(k'))\big)` and :math:`\rho_k` a coin that is 1 with probability
  :math:`\rho`,

  .. math:: w(k) = \alpha \big(\rho_k w(k - 1) + (1 - \rho_k) b(0)\big)
     + (1 - \alpha)\, b(k - 1)

  from :math:`w(0) = 1` and, as in the authors' code, :math:`w(1) = b(0)`. It
  was made for the residual and boundary losses of physics-informed networks.
  The weights sum to the number of tasks present, where those have been present
  together. Heads are weighted: the method weights losses. A factor on a loss
  leaves the weights as they are, so it acts as it would without weights.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  a loss of zero or below   compared with what it was; later losses are not
                            compared with it, but with the one before
  absent tasks              0; their weight and losses stand still. One present
                            for the first time has weight 1, and the rest share
                            as above
  NaN or infinity           NaN in that step; the state stands still, but for
                            its key
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    decay: :math:`\alpha`, from 0 to 1, what is kept of the weights.
    keep_probability: :math:`\rho`, from 0 to 1; 1 never looks back to the first
      losses.
    temperature: :math:`\tau`, above 0; a large one gives equal weights.

  Returns:
    The `mtljax.Aggregator`. Reads the losses; its state holds a key.

  Raises:
    ValueError: an argument is out of range.

  References:
    Bischof and Kraus, `Multi-Objective Loss Balancing for Physics-Informed
    Deep Learning <https://arxiv.org/abs/2110.09813>`_, 2021

  The optax face of `mtljax.weightings.relobralo`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.relobralo(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def balancer(
  num_tasks: int,
  *,
  preference: _preference.Preference = None,
  decay: ArrayLike = 0.999,
  total_norm: ArrayLike = 1.0,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""The loss balancer of EnCodec: every task its share of the gradient.

  Each gradient is divided by the moving average of its length and given the
  share of the whole that is wanted for it:

  .. math:: w_t = R\, \frac{\lambda_t}{\sum_s \lambda_s}
     \frac{1}{\langle \|g_t\| \rangle_\beta}

  where the average counts this step and is corrected for its start. So the
  preferences are shares, not weights in units of the losses. The weights have
  no fixed sum; the lengths of the terms sum to R on average. Heads are not
  weighted. The paper takes the gradients at the model's output:
  ``route='features'`` with the output as the features, or ``gramian_labels``
  of the layer that makes it. Its code averages the lengths of the samples'
  gradients over a batch, which the Gramian does not have; this is its
  ``per_batch_item=False``, the formula.

  Scaling a task's loss leaves the update as it is (invariance ``'full'``).
  Costs the Gramian's diagonal (T backward passes) and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  :math:`R / \langle \|g\| \rangle`
  zero rows                 0 while their average is 0: they have no direction;
                            their share stays theirs
  equal or opposed rows     nothing special: only their norms are read
  a preference of 0         0
  absent tasks              0, the smaller problem's answer for the rest; their
                            averages stand still
  NaN or infinity           NaN; the averages stand still
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    preference: :math:`\lambda`, one a task, at least 0; None: equal.
    decay: :math:`\beta`, at least 0 and below 1; 0 does not average.
    total_norm: R, above 0.

  Returns:
    The `mtljax.Aggregator`. Reads the Gramian.

  Raises:
    ValueError: an argument is out of range, or the preference does not have
      one entry a task.

  References:
    Défossez et al., `High Fidelity Neural Audio Compression
    <https://arxiv.org/abs/2210.13438>`_, 2022

  The optax face of `mtljax.weightings.balancer`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.balancer(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def ldc_mtl(
  num_tasks: int,
  *,
  strength: ArrayLike = 0.1,
  normalize: Literal['initial', 'none'] = 'initial',
  learning_rate: ArrayLike = 0.025,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
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
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    strength: :math:`\lambda`, from 0 to 1/2, beyond which a weight could be
      negative; theirs are 0.1 (Cityscapes), 0.05 (NYUv2), 0.01 (CelebA).
    normalize: ``'initial'``: by the first losses, ``'none'``: r = 1 (theirs for
      Cityscapes).
    learning_rate: of the logits, at least 0.

  Returns:
    The `mtljax.Aggregator`. Reads the losses.

  Raises:
    ValueError: an argument is out of range.

  References:
    Xiao et al., `LDC-MTL: Balancing Multi-Task Learning through Scalable Loss
    Discrepancy Control <https://arxiv.org/abs/2502.08585>`_, 2025

  The optax face of `mtljax.weightings.ldc_mtl`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.ldc_mtl(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def coba(
  num_tasks: int,
  *,
  window: int = 200,
  warmup_steps: int = 100,
  temperature: ArrayLike = 0.2,
  min_share: ArrayLike = 0.1,
  sharpen: bool = False,
  source: Literal['training', 'validation'] = 'training',
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
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
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    window: N, losses in a line and slopes in a history, at least 2.
    warmup_steps: losses before the first slope, at least 2.
    temperature: :math:`\tau`, above 0; the paper's is its inverse, 5.
    min_share: the least weight in units of 1/T, at least 0 and below 1.
    sharpen: whether to take the weights of the authors' code.
    source: ``'training'`` or ``'validation'``, whose losses it follows.

  Returns:
    The `mtljax.Aggregator`. Reads the losses, or nothing of the step.

  Raises:
    ValueError: an argument is out of range.

  References:
    Gong et al., `CoBa: Convergence Balancer for Multitask Finetuning of Large
    Language Models <https://arxiv.org/abs/2410.06741>`_, 2024

  The optax face of `mtljax.weightings.coba`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.coba(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def epo(
  num_tasks: int,
  *,
  preference: _preference.Preference = None,
  tolerance: ArrayLike = 0.0001,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Exact Pareto optimal search, the form with linear programs.

  It looks for the point of the front at which all :math:`r_t L_t` are equal:
  a task that is preferred more has the smaller loss. With
  :math:`\hat L_t = r_t L_t / \sum_s r_s L_s`, how far it is from there is
  :math:`\mu = \sum_t \hat L_t \log(T \hat L_t)`, and

  .. math:: a_t = r_t (\log(T \hat L_t) - \mu), \qquad
     \max_{w \in \Delta} a^\top G w
     \;\text{ s.t. }\; (Gw)_t \ge b_t

  is the step that balances most, taken while :math:`\mu` is above
  ``tolerance``. Where no entry of :math:`Ga` is above 0, :math:`b = 0`;
  otherwise tasks with :math:`(Ga)_t > 0` have no bound, the others
  :math:`b_t = (Ga)_t`, and the one with the largest :math:`r_t L_t` has
  :math:`b_t = 0`. Once balanced, the step is the one that descends most,

  .. math:: \max_{w \in \Delta} \textstyle\sum_t (Gw)_t
     \;\text{ s.t. }\; Gw \ge 0, \;
     a^\top G w \ge \min(0, \max_t (Ga)_t),

  without the last bound if nothing keeps it. The weights sum to 1; the authors'
  code multiplies them by T, as ``scale=num_tasks`` does. Heads are weighted, as
  there. While it balances, losses of single tasks may rise.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs the Gramian (T backward passes) and one or two linear
  programs of size T, see `mtljax.solvers.linear_program`: a task whose gradient
  is shorter than 1e-5 of the longest is not seen in float32.

  =========================  =================================================
  input                      weights
  =========================  =================================================
  one task                   1
  a zero row                 no demand on the rest
  all rows zero              everything on one task, the update is 0
  a preference of 0          the task's loss does not count in the balance
  a loss of 0                as the least number above it
  a loss below 0             NaN
  absent tasks               0, the smaller problem's answer for the rest
  NaN or infinity            NaN
  =========================  =================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    preference: :math:`r`, one a task, at least 0, with a sum of 1; None:
      equal. May be traced, as that of `cosmos`.
    tolerance: :math:`\mu` up to which the losses count as balanced. 1e-4 in the
      authors' code.

  Returns:
    The `mtljax.Aggregator`. Reads the losses and the Gramian. Its state has the
    residual of the last solve, see `mtljax.solvers.linear_program`.

  Raises:
    ValueError: the preference is not on the simplex, does not have one entry a
      task, or the tolerance is negative.

  References:
    Mahapatra and Rajan, `Multi-Task Learning with User Preferences: Gradient
    Descent with Controlled Ascent in Pareto Optimization
    <https://proceedings.mlr.press/v119/mahapatra20a.html>`_, 2020

  The optax face of `mtljax.weightings.epo`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.epo(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def pmtl(
  num_tasks: int,
  *,
  preference: _preference.Preference = None,
  others: ArrayLike | None = None,
  warmup_steps: int = 100,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Pareto multi-task learning.

  Preferences :math:`u_1, \dots, u_K`, unit vectors, divide the losses into
  regions: that of :math:`u` is where it has the largest scalar product with
  the losses, so the losses are about in proportion to it. A constraint is
  active where another preference is nearer, and the update is the shortest
  vector in the hull of the tasks' gradients and those of the active ones:

  .. math:: c_k(L) = (u_k - u)^\top L, \qquad
     w = \alpha + \sum_{k: c_k > 0} \beta_k (u_k - u), \qquad
     (\alpha, \beta) = \arg\min_{\Delta} \|J^\top w\|^2

  First, for at most ``warmup_steps`` steps and until no constraint is active,
  only the constraints are descended, :math:`\alpha = 0`. Weights may be
  negative and have no fixed sum; the authors' code divides them by the mean of
  their sizes. Heads are not weighted.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs the Gramian (T backward passes) and a quadratic program of
  size T + K.

  =========================  =================================================
  input                      weights
  =========================  =================================================
  one task                   1
  no active constraint       those of `mgda`
  a zero row                 the update is 0, as of `mgda`
  absent tasks               0; preferences lose their entries, and the rest is
                             the smaller problem's answer
  NaN or infinity            NaN
  =========================  =================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    preference: :math:`u` up to its length, one a task, at least 0, with a sum
      of 1; None: equal. May be traced. It is where the losses are to be: a
      large entry is a large loss.
    others: the other preferences, shape ``(K, T)``, on the simplex; the nearer
      they are, the narrower the region. Rows equal to ``preference`` are of no
      effect. None: the corners of the simplex.
    warmup_steps: how many steps may go by before the tasks count.

  Returns:
    The `mtljax.Aggregator`. Reads the losses and the Gramian. Its state has the
    residual of the last solve, see `mtljax.solvers.min_norm_simplex`.

  Raises:
    ValueError: a preference is not on the simplex or does not have one entry a
      task, or the number of steps is negative.

  References:
    Lin et al., `Pareto Multi-Task Learning
    <https://arxiv.org/abs/1912.12854>`_, 2019

  The optax face of `mtljax.weightings.pmtl`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.pmtl(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def pmgda(
  num_tasks: int,
  *,
  preference: _preference.Preference = None,
  tolerance: ArrayLike = 0.01,
  strength: ArrayLike = 0.95,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Preference-based multiple-gradient descent, the exact constraint.

  It looks for the point of the front on the ray of :math:`\lambda`: losses in
  proportion to the preference. :math:`h` is how far they are off it,

  .. math:: h(L) = \|L - (\hat\lambda^\top L) \hat\lambda\|, \qquad
     \hat\lambda = \lambda / \|\lambda\|

  Where :math:`h` is below ``tolerance`` the weights are those of `mgda`. Else,
  with :math:`\hat g_1, \dots, \hat g_T, \hat g_h` the unit gradients of the
  losses and of :math:`h`, the update is the point :math:`d` of their hull with

  .. math:: \max_d \min_t g_t^\top d
     \quad\text{s.t.}\quad \nabla h^\top d \ge \sigma \|\nabla h\|

  Weights are

  .. math:: w_t = \frac{\mu_t}{\|g_t\|}
     + \frac{\mu_h}{\|\nabla h\|} \frac{\partial h}{\partial L_t}

  with :math:`\mu` those of the hull. They may be negative, and have no fixed
  sum. Heads are not weighted.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs the Gramian (T backward passes), one quadratic program of
  size T and one linear program of size T + 2.

  =========================  =================================================
  input                      weights
  =========================  =================================================
  one task                   1
  losses on the ray          those of `mgda`
  a zero row                 off the ray it cannot be improved, and the
                             correction alone decides; on it as `mgda`
  :math:`\nabla h = 0`       those of `mgda`
  absent tasks               0, the smaller problem's answer for the rest
  NaN or infinity            NaN
  =========================  =================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    preference: :math:`\lambda`, one a task, at least 0, with a sum of 1; None:
      equal. May be traced. It is where the losses are to be: a large entry is a
      large loss.
    tolerance: of :math:`h`, in the unit of the losses. 0.01 in the authors'
      code.
    strength: :math:`\sigma`, from 0 to 1: which part of the steepest descent of
      :math:`h` a correction keeps. 0.95 in the authors' code.

  Returns:
    The `mtljax.Aggregator`. Reads the losses and the Gramian. Its state has the
    residual of the last solve, see `mtljax.solvers.linear_program`.

  Raises:
    ValueError: the preference is not on the simplex, does not have one entry a
      task, or a number is out of range.

  References:
    Zhang, Lin and Zhang, `PMGDA: A Preference-based Multiple Gradient Descent
    Algorithm <https://arxiv.org/abs/2402.09492>`_, 2024

  The optax face of `mtljax.weightings.pmgda`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.pmgda(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def modo(
  num_tasks: int,
  *,
  learning_rate: ArrayLike = 0.1,
  regularization: ArrayLike = 0.1,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Multi-objective gradient with double sampling (MoDo).

  One step of projected gradient descent on MGDA's problem at every step. Its
  gradient :math:`J J^\top w` is estimated without bias from two independent
  batches, and the model steps along the gradients of a third:

  .. math:: w \leftarrow \Pi_\Delta \big(w - \gamma (M w + \rho w)\big), \qquad
     M = J_1 J_2^\top, \qquad d = J_3^\top w

  from :math:`w = 1/T`. The weights sum to 1. Heads are not weighted: only the
  shared parameters are in conflict. Scaling a task's loss changes the update
  (invariance ``'none'``), and the learning rate is in units of the gradients:
  :math:`\gamma M` is compared with weights of order 1/T. No solver: one sort
  of T numbers. `mtljax.training.make_train_step` makes the three batches out
  of each of its own; on the optax face see `mtljax.cross_gramian`. Costs T
  backward passes of two of the three batches and one of the third.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  zero or equal rows        nothing special: it is one step of descent
  0 in the hull             the same, and so of antiparallel rows
  rows of unlike length     a row much longer than the others loses its weight
                            in one step, if :math:`\gamma \|g\|^2` is over 2
  absent tasks              0; the others share 1 and move as in the smaller
                            problem; an absent task's share is kept for it
  NaN or infinity           NaN; the next step goes on from the weights before
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    learning_rate: :math:`\gamma`, at least 0. LibMTL has 0.001.
    regularization: :math:`\rho`, at least 0: pulls towards equal weights.

  Returns:
    The `mtljax.Aggregator`. Reads the cross-Gramian.

  Raises:
    ValueError: an argument is negative or not finite.

  References:
    Chen et al., `Three-Way Trade-Off in Multi-Objective Learning:
    Optimization, Generalization and Conflict-Avoidance
    <https://arxiv.org/abs/2305.20057>`_, 2023

  The optax face of `mtljax.weightings.modo`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.modo(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None),
    ...   cross_gramian=mtl.cross_gramian(grads, grads))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def sdmgrad(
  num_tasks: int,
  *,
  lambda_: ArrayLike = 0.3,
  learning_rate: ArrayLike = 0.1,
  momentum: ArrayLike = 0.5,
  num_steps: int = 20,
  normalize: bool = False,
  preference: _preference.Preference = None,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Stochastic direction-oriented multi-objective gradient descent (SDMGrad).

  MGDA's problem with the update kept near a preferred direction,
  :math:`g_0 = J^\top p`, the mean gradient by default:

  .. math:: \min_{w \in \Delta} \tfrac12 \| J^\top w + \lambda g_0 \|^2

  It takes some steps of projected gradient descent, whose gradient is
  estimated without bias from two independent batches, from the weights of the
  step before; the model then steps along the gradients of a third:

  .. math:: w \leftarrow \Pi_\Delta \big(w - \gamma M (w + \lambda p)\big),
     \qquad M = J_1 J_2^\top, \qquad
     d = J_3^\top \frac{w + \lambda p}{1 + \lambda}

  The weights sum to 1 if the preference does. Heads are not weighted: only the
  shared parameters are in conflict. Scaling a task's loss changes the update
  (invariance ``'none'``). With :math:`\lambda = 0` it is stochastic MGDA, with
  a large one the mean. The inner loop is ``num_steps`` products with a T by T
  matrix. `mtljax.training.make_train_step` makes the three batches out of each
  of its own; on the optax face see `mtljax.cross_gramian`. Costs T backward
  passes of two of the three batches and one of the third.

  The learning rate is in units of the gradients. The authors' code divides M
  by the squared mean length of the gradients first, so that it is not:
  ``normalize=True`` with ``learning_rate=10`` (LibMTL: 5). Such steps are too
  long to settle, and the weights jump between corners of the simplex. (In its
  supervised experiments the three batches' gradients share one buffer, so that
  they are those of one batch.)

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  zero or equal rows        nothing special: these are steps of descent
  0 in the hull             the same, and so of antiparallel rows
  rows of unlike length     a row much longer than the others is left with
                            :math:`\lambda p_t / (1 + \lambda)`, if
                            :math:`\gamma \|g\|^2` is over 2
  absent tasks              0; the others share 1 and move as in the smaller
                            problem; an absent task's share is kept for it
  NaN or infinity           NaN; the next step goes on from the weights before
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    lambda_: :math:`\lambda`, at least 0. The paper has 0.3, and 0.6 for
      reinforcement learning.
    learning_rate: :math:`\gamma`, at least 0.
    momentum: of the inner steps, at least 0, from rest at every step; the
      paper's analysis has 0, its experiments 0.5.
    num_steps: inner steps, at least 1.
    normalize: whether M is divided by
      :math:`(\frac1T \sum_t \sqrt{\max(M_{tt}, 0)})^2`.
    preference: :math:`p`, shape ``(T,)``, not negative, used as it is; None:
      1/T, over the tasks present.

  Returns:
    The `mtljax.Aggregator`. Reads the cross-Gramian. Its state has as residual
    the largest change of a weight in the last inner step.

  Raises:
    ValueError: an argument is out of range, or the preference is negative, not
      finite, 0, or not of length T.

  References:
    Xiao et al., `Direction-oriented Multi-objective Learning: Simple and
    Provable Stochastic Algorithms <https://arxiv.org/abs/2305.18409>`_, 2023

  The optax face of `mtljax.weightings.sdmgrad`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.sdmgrad(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None),
    ...   cross_gramian=mtl.cross_gramian(grads, grads))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def auto_lambda(
  num_tasks: int,
  *,
  primary: Sequence[int] | None = None,
  learning_rate: ArrayLike = 0.0001,
  inner_learning_rate: ArrayLike = 0.1,
  initial_weight: ArrayLike = 0.1,
  projection: Literal['nonnegative', 'softmax'] = 'nonnegative',
  hypergradient: Hypergradient = 'exact',
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Auto-Lambda: weights that make one step best for primary tasks.

  The weights :math:`\lambda` descend the validation losses of the primary
  tasks P after a step that they decide:

  .. math:: \min_\lambda \sum_{p \in P} L^{\mathrm{val}}_p(\theta'), \qquad
     \theta' = \theta - \eta \sum_t \lambda_t \nabla L_t(\theta), \qquad
     h_t = -\eta\, \left\langle \nabla L_t(\theta),
     \sum_{p \in P} \nabla L^{\mathrm{val}}_p(\theta') \right\rangle

  At every step Adam moves them by :math:`h`, and the parameters take a step
  with the new ones: a task whose gradient lowers the primary tasks' validation
  losses gets more. Tasks that are not primary are auxiliary: trained as far as
  they help. The authors' step ahead has the momentum and the weight decay of
  their optimizer in it, which do not depend on :math:`\lambda`; here it is
  plain gradient descent, as in their paper. Theirs may turn negative, which
  would make a head ascend: here they are kept from 0 on, and grow again from
  there as soon as :math:`h_t < 0`. The weights have no fixed sum; with
  ``projection='softmax'``, as in LibMTL, they sum to 1. Heads are weighted, in
  the step ahead too: the method weights losses.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs in `mtljax.training.make_train_step`, which takes the
  validation batch as ``val_batch=``, three backward passes in place of one,
  one of them on that batch, and a forward-mode pass, or two evaluations of the
  losses; O(T) beside it. On the optax face ``hypergradient=`` is an argument of
  ``update``, see `mtljax.hypergradient`.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  learned as any; 1 with ``'softmax'``
  :math:`h = 0`             they stay
  absent tasks              0, and they are not in the step ahead; what is
                            learned of them stands still
  validation lacks a task   it does not count; those that are there do
  NaN or infinity           NaN in that step; what is learned stands still
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    primary: P, indices of tasks, from 0; None: all.
    learning_rate: of the weights' Adam, at least 0; the authors' is 1e-4, or
      3e-5.
    inner_learning_rate: :math:`\eta`, at least 0; the authors take that of
      their optimizer at the time, from 0.1 on. As Adam does not see the length
      of :math:`h`, only :math:`\theta'` depends on it.
    initial_weight: where all weights start, above 0; with ``'softmax'`` they
      start equal.
    projection: ``'nonnegative'`` or ``'softmax'``.
    hypergradient: ``'exact'`` or ``'finite_difference'``, the authors', see
      `mtljax.hypergradient`.

  Returns:
    The `mtljax.Aggregator`. Reads the hypergradient.

  Raises:
    TypeError: ``primary`` is not a list.
    ValueError: an argument is out of range.

  References:
    Liu et al., `Auto-Lambda: Disentangling Dynamic Task Relationships
    <https://arxiv.org/abs/2202.03091>`_, 2022

  The optax face of `mtljax.weightings.auto_lambda`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.auto_lambda(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None),
    ...   hypergradient=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def moml(
  num_tasks: int,
  *,
  primary: Sequence[int] | None = None,
  learning_rate: ArrayLike = 0.001,
  inner_learning_rate: ArrayLike = 0.1,
  normalize: Literal['none', 'l2'] = 'l2',
  hypergradient: Hypergradient = 'exact',
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Multi-objective meta learning (MOML) of the weights, after one step.

  With weights :math:`w = \mathrm{softmax}(\alpha)` and the parameters after a
  step that they decide,

  .. math:: \theta' = \theta - \eta \sum_t w_t \nabla L_t(\theta), \qquad
     a_p = \nabla_\alpha L^{\mathrm{val}}_p(\theta'), \qquad
     d = \sum_{p \in P} c_p \frac{a_p}{\|a_p\|}

  where c are the weights of `mgda` for the vectors :math:`a_p / \|a_p\|`: d is
  the shortest vector of their hull, and Adam moves :math:`\alpha` by it, so
  that no validation loss of a primary task rises to first order. The
  parameters then take a step with the new weights, which sum to 1 and start
  equal. Where `auto_lambda` adds the validation losses up, this weighs them.
  The paper's method looks any number of steps ahead; this is the case of one,
  which its authors run and for which no second derivative is needed. Heads are
  weighted, in the step ahead too: the method weights losses.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs in `mtljax.training.make_train_step`, which takes the
  validation batch as ``val_batch=``, a backward pass of the training batch
  more, and for each of P primary tasks one of the validation batch and a
  forward-mode pass (or two evaluations of the losses); O(P^2 T) beside it. On
  the optax face ``hypergradient=`` ``(P, T)`` is an argument of ``update``, see
  `mtljax.hypergradient`.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  :math:`a_p = 0`           p does not count; with no other, Adam goes on by
                            what it has of the steps before
  0 in the hull             Adam gets 0: d is no longer than the root of the
                            rounding error times the longest :math:`a_p`
  absent tasks              0, and they are not in the step ahead; what is
                            learned of them stands still
  validation lacks a task   it does not count; those that are there do
  NaN or infinity           NaN in that step; what is learned stands still
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    primary: P, indices of tasks, from 0; None: all.
    learning_rate: of :math:`\alpha`'s Adam, at least 0.
    inner_learning_rate: :math:`\eta`, at least 0.
    normalize: ``'l2'`` as above, or ``'none'``, where :math:`a_p` stands for
      :math:`a_p / \|a_p\|`.
    hypergradient: ``'exact'`` or ``'finite_difference'``, see
      `mtljax.hypergradient`.

  Returns:
    The `mtljax.Aggregator`. Reads the hypergradient, of every primary task by
    itself. Its state has the residual of the last solve, see
    `mtljax.solvers.min_norm_simplex`.

  Raises:
    TypeError: ``primary`` is not a list.
    ValueError: an argument is out of range.

  References:
    Ye et al., `Multi-Objective Meta Learning
    <https://arxiv.org/abs/2102.07121>`_, 2021

  The optax face of `mtljax.weightings.moml`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.moml(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None),
    ...   hypergradient=jnp.eye(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def ntkmtl_sr(
  num_tasks: int,
  *,
  power: ArrayLike = 0.5,
  chunks: int = 4,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
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
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    power: p, at least 0: 0 is the sum of the losses, 1/2 the paper's, and the
      authors had better results with 3/4 at times.
    chunks: n, which must divide the batch.

  Returns:
    The `mtljax.Aggregator`. Reads the norms at the features; it has no state.

  Raises:
    ValueError: an argument is out of range.

  References:
    Qin et al., `NTKMTL: Mitigating Task Imbalance in Multi-Task Learning from
    Neural Tangent Kernel Perspective <https://arxiv.org/abs/2510.18258>`_, 2025

  The optax face of `mtljax.weightings.ntkmtl_sr`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.ntkmtl_sr(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None),
    ...   feature_norms=jnp.ones((2, 4)))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def cons_mtl(
  num_tasks: int,
  *,
  strength: ArrayLike = 1.0,
  max_ratio: ArrayLike | None = 0.1,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""ConsMTL: heads moved so that their gradients at the features agree.

  The shared parameters get `fairgrad`'s update with :math:`\alpha = 2`. The
  parameters :math:`\psi_t` of each head descend, beside their loss, the
  negative inner product of its gradient at the features z with the weighted sum
  of all tasks':

  .. math:: d_{\psi_t} = \nabla_{\psi_t} L_t
     - \lambda \min\left(1, \frac{c \|\nabla_{\psi_t} L_t\|}
     {\lambda \|a_t\|}\right) a_t, \qquad
     a_t = \nabla_{\psi_t} \left\langle \frac{\partial L_t}{\partial z},
     \sum_s w_s \frac{\partial L_s}{\partial z} \right\rangle

  with the sum held fixed and :math:`(G w)_t = w_t^{-1/2}`. The weights have no
  fixed sum. Heads' losses are not weighted. As the authors' code has it, which
  also multiplies the shared update by T and then clips its norm to 1
  (``scale=num_tasks, max_norm=1.0``), and adds up tasks' gradients at features
  of their own, where a network has such; here only features that two heads read
  make them agree.

  Scaling a task's loss changes the update's direction (invariance ``'none'``).
  Costs `fairgrad` and, in `mtljax.training.make_train_step`, of a
  `mtljax.Staged` loss, two passes back through each head and one forward
  through the trunk. On the optax face ``alignment_fn=`` is an argument of
  ``update``, see `mtljax.alignment_fn`.

  ========================  ==================================================
  input                     result
  ========================  ==================================================
  no parameters of a task   `fairgrad`
  zero rows                 weight 0, the smaller problem's answer for the rest;
                            such a head learns by its loss alone
  :math:`a_t = 0`           the head learns by its loss alone
  0 in the hull             as `fairgrad`: no solution, finite weights
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    strength: :math:`\lambda`, at least 0; the authors': 1 (NYUv2), 50
      (Cityscapes, CelebA), 1e-3 (QM9).
    max_ratio: c, at least 0; the authors' code has 0.1, and 0.05 for
      Cityscapes. None: not bounded.

  Returns:
    The `mtljax.Aggregator`. Reads the Gramian; the heads' part is what an
    aggregator or a train step makes of it.

  Raises:
    ValueError: an argument is out of range.

  References:
    ConsMTL (CVPR 2025), as in the authors' `MTLlib
    <https://github.com/jianke0604/MTLlib>`_

  The optax face of `mtljax.weightings.cons_mtl`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.cons_mtl(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None),
    ...   alignment_fn=lambda weights: {'w': jnp.zeros(3)})
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """


def graddrop(
  num_tasks: int,
  *,
  leak: ArrayLike = 0.0,
  labels: _labels.Labels | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Gradient sign dropout (GradDrop).

  In every coordinate the tasks' gradients agree on a sign with the purity

  .. math:: P = \frac12 \left(1 + \frac{\sum_t g_t}{\sum_t |g_t|}\right)

  One number U is drawn uniformly from [0, 1) a coordinate; where U < P the
  positive entries are kept, elsewhere the negative ones, and the update is

  .. math:: d = \sum_t \big(\ell_t + (1 - \ell_t) M_t\big) g_t

  with :math:`M_t` whether the entry was kept and :math:`\ell_t` the leak. In
  expectation an entry is multiplied by P if it is positive and by 1 - P if it
  is negative. The paper drops the gradients at the shared representation,
  summed over the batch and signed by the activation; this is the form on
  parameters, as in the codes of CAGrad and FAMO, which need no access to
  activations (they take the mean where this takes the sum: ``scale=1/T``).

  It gives no task weights: `mtljax.get_weights` raises, and heads are not
  weighted. Scaling a task's loss changes the update (invariance ``'none'``).
  Costs the T gradients and one number drawn a coordinate.

  ========================  ==================================================
  input                     update
  ========================  ==================================================
  one task                  its gradient
  zero rows                 no effect
  a zero coordinate         0
  equal rows                their sum: P is 0 or 1
  antiparallel rows         of one length: either row, by a coin a coordinate
  absent tasks              the smaller problem, with the same numbers drawn
  NaN or infinity           NaN in its coordinates, the others are not touched
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``weight_heads``, ``scale``, ``max_norm``, ``key``,
      ``nonfinite``.
    leak: :math:`\ell`, between 0 and 1, one number or one a task: how much of
      a dropped entry passes. 1 is the sum of the gradients.

  Returns:
    The `mtljax.Aggregator`. Reads the gradients; its state holds a key.

  Raises:
    ValueError: ``leak`` is not between 0 and 1, or has another length than T.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.graddrop(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 2.0], [0.5, -2.0]])}
    >>> update, state = tx.update(grads, tx.init(None))
    >>> float(update['w'][0]), abs(float(update['w'][1]))
    (1.5, 2.0)

  References:
    Chen et al., `Just Pick a Sign: Optimizing Deep Multitask Models with
    Gradient Sign Dropout <https://arxiv.org/abs/2010.06808>`_, 2020
  """


def trimmed_mean(
  num_tasks: int,
  *,
  trim: int = 1,
  labels: _labels.Labels | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Trimmed mean: robust to tasks with outlying gradients.

  In every coordinate the ``trim`` largest and the ``trim`` smallest of the
  tasks' entries are left out, and the rest is averaged:

  .. math:: d_i = \frac{1}{T - 2k} \sum_{t = k + 1}^{T - k} g_{(t), i}, \qquad
     g_{(1), i} \le \dots \le g_{(T), i}

  The extremes are found by comparisons of whole rows, without a full sort
  where few are trimmed, and left out rather than subtracted: one huge entry
  costs no precision. It gives no task weights: `mtljax.get_weights` raises,
  and heads are not weighted. Scaling a task's loss changes the update
  (invariance ``'none'``). Costs the T gradients and about 2 k T comparisons a
  coordinate; the state is empty.

  ========================  ==================================================
  input                     update
  ========================  ==================================================
  one task                  its gradient, with ``trim=0``
  zero rows                 entries like others
  equal rows                the row
  antiparallel rows         nothing special
  absent tasks              the smaller problem; if fewer than 2 k + 1 are
                            present, as many are trimmed at each end as leave
                            one or two: the median
  infinity                  an extreme like others: it is trimmed, or reaches
                            its coordinate
  NaN                       NaN in its coordinates, the others are not touched
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``weight_heads``, ``scale``, ``max_norm``, ``key``,
      ``nonfinite``.
    trim: k, how many entries to leave out at each end, a Python int. 0 is the
      mean.

  Returns:
    The `mtljax.Aggregator`. Reads the gradients.

  Raises:
    ValueError: ``trim`` is not an int of at least 0, or T is below 2 k + 1.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.trimmed_mean(num_tasks=3, trim=1)
    >>> grads = {'w': jnp.array([[1.0, 0.0], [3.0, 1.0], [1e9, 2.0]])}
    >>> update, state = tx.update(grads, tx.init(None))
    >>> print(update['w'])
    [3. 1.]

  References:
    Yin et al., `Byzantine-Robust Distributed Learning: Towards Optimal
    Statistical Rates <https://arxiv.org/abs/1803.01498>`_, 2018
  """


def excess_mtl(
  num_tasks: int,
  *,
  learning_rate: ArrayLike = 0.01,
  warmup_steps: int = 0,
  first_step: Literal['relative', 'absolute'] = 'relative',
  labels: _labels.Labels | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""ExcessMTL: tasks far from their optimum weigh more, noisy ones do not.

  A task's excess risk, how far its loss is above what can be reached, is
  estimated by a Newton step with AdaGrad's diagonal in place of the Hessian,
  and the weights rise with it:

  .. math::
     S_t \leftarrow S_t + g_t^2, \quad
     e_t = g_t^\top \mathrm{diag}(S_t)^{-1/2} g_t, \quad
     w_t \propto w_t \exp(\eta \, e_t / e_t^{(1)})

  from :math:`w = 1/T`, with :math:`e_t^{(1)}` the task's first estimate, or
  the mean of those of the warm-up steps. The
  weights sum to 1 (in the authors' code to T: ``scale=num_tasks``). Heads are
  weighted: the method weights losses. The weights do not depend on the scale
  of a task's loss, but the update does (invariance ``'none'``). The state
  holds a number for each task and shared parameter: T times their memory.
  Costs the T gradients and O(T) a coordinate.

  The authors' code and TorchJD exponentiate the first estimates as they are,
  before there is anything to divide by, so that the first step alone depends
  on the scales of the losses: ``first_step='absolute'``. They add 1e-7 under
  the root; here a coordinate that never had a gradient has no part.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  first step                1/T
  zero rows                 no excess: their weight falls against the others';
                            a task's first estimate is that of its first
                            gradient that is not zero
  equal, antiparallel rows  nothing special
  absent tasks              0; the others as in the smaller problem; what is
                            kept for an absent task stands still
  NaN or infinity           NaN; the state stands still
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``weight_heads``, ``scale``, ``max_norm``, ``key``,
      ``nonfinite``.
    learning_rate: :math:`\eta`, at least 0. 0.01 in LibMTL, 1 in TorchJD.
    warmup_steps: so many steps only estimate :math:`S` and :math:`e^{(1)}`,
      with equal weights.
    first_step: ``'relative'`` or ``'absolute'``, see above.

  Returns:
    The `mtljax.Aggregator`. Reads the gradients.

  Raises:
    ValueError: an argument is out of its range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.excess_mtl(num_tasks=2, learning_rate=1.0)
    >>> params = {'w': jnp.zeros(2)}
    >>> state = tx.init(params)
    >>> for size in (1.0, 0.1):  # the first task comes to its optimum
    ...   grads = {'w': jnp.array([[size, 0.0], [0.0, 1.0]])}
    ...   update, state = tx.update(grads, state, params)
    >>> [round(float(w), 3) for w in mtl.get_weights(state)]
    [0.332, 0.668]

  References:
    He et al., `Robust Multi-Task Learning with Excess Risks
    <https://arxiv.org/abs/2402.02009>`_, 2024
  """


def moco(
  num_tasks: int,
  *,
  decay: ArrayLike = 0.01,
  gain_power: ArrayLike = 0.0,
  learning_rate: ArrayLike = 0.1,
  learning_rate_power: ArrayLike = 0.0,
  regularization: ArrayLike = 0.0,
  projection: Literal['simplex', 'softmax'] = 'simplex',
  normalize: bool = False,
  labels: _labels.Labels | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Multi-objective gradient correction (MoCo).

  The gradient of MGDA's weights is biased on mini-batches. MoCo tracks every
  task's gradient by a moving average, and takes one step of projected descent
  on MGDA's problem with it:

  .. math::
     y_t \leftarrow y_t - \beta_k (y_t - g_t), \quad
     w \leftarrow \Pi_\Delta\big(w - \gamma_k (Y Y^\top + \rho I) w\big), \quad
     d = Y^\top w

  in this order, with :math:`\beta_k = \beta / k^{\sigma_\beta}`,
  :math:`\gamma_k = \gamma / k^{\sigma_\gamma}`, from y = 0 and w = 1/T. The
  weights sum to 1; the update is made of the tracked gradients, not of those
  of the step. Heads are not weighted and take the step's gradients. Scaling a
  task's loss changes the update (invariance ``'none'``), and :math:`\gamma` is
  in units of the gradients. The state holds a number for each task and shared
  parameter: T times their memory. Costs the T gradients and O(T) a
  coordinate.

  The authors' code has :math:`2 Y Y^\top` (put the 2 into ``learning_rate``)
  and runs with the values that are the defaults here. LibMTL gives the
  gradients the lengths of their losses first and takes a softmax in place of
  the projection:
  ``moco(normalize=True, projection='softmax', decay=0.5, gain_power=0.5,
  learning_rate=0.1, learning_rate_power=0.5)``. A softmax of equal numbers is
  uniform, and it never gives a weight of 0.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1; the update is :math:`\beta` times its gradient
                            in the first step
  zero or equal rows        nothing special: it is one step of descent
  0 in the hull             the same, and so of antiparallel rows
  rows of unlike length     a long row loses its weight in one step, if
                            :math:`\gamma \|y\|^2` is over 1
  absent tasks              0; the others share 1 and move as in the smaller
                            problem; an absent task's share and average stand
                            still
  NaN or infinity           NaN; the state stands still
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``weight_heads``, ``scale``, ``max_norm``, ``key``,
      ``nonfinite``.
    decay: :math:`1 - \beta`, at least 0 and below 1; 0 does not average.
    gain_power: :math:`\sigma_\beta`, at least 0: how what a gradient adds to
      its average falls with the steps.
    learning_rate: :math:`\gamma`, at least 0.
    learning_rate_power: :math:`\sigma_\gamma`, at least 0.
    regularization: :math:`\rho`, at least 0: pulls towards equal weights.
    projection: ``'simplex'`` or ``'softmax'``, see above.
    normalize: whether gradients get the lengths of their losses; reads the
      losses.

  Returns:
    The `mtljax.Aggregator`. Reads the gradients.

  Raises:
    ValueError: an argument is out of its range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.moco(num_tasks=2, decay=0.0)
    >>> params = {'w': jnp.zeros(2)}
    >>> grads = {'w': jnp.array([[1.0, 0.0], [0.0, 2.0]])}
    >>> update, state = tx.update(grads, tx.init(params), params)
    >>> [round(float(w), 3) for w in mtl.get_weights(state)]
    [0.575, 0.425]

  References:
    Fernando et al., `Mitigating Gradient Bias in Multi-objective Learning: A
    Provably Convergent Approach <https://arxiv.org/abs/2210.12624>`_, 2023
  """


def m_config(
  num_tasks: int,
  *,
  b1: ArrayLike = 0.9,
  preference: _preference.Preference = None,
  labels: _labels.Labels | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""M-ConFIG: ConFIG on moving averages, one task's gradient a step.

  Step k takes the gradient of task :math:`t = k \bmod T` alone:

  .. math:: m_t \leftarrow \beta_1 m_t + (1 - \beta_1) g_t, \qquad
     d_k = \mathrm{ConFIG}\Big(\frac{m_s}{1 - \beta_1^{n_s}}, s = 1 \ldots T
     \Big)

  with :math:`n_s` the gradients in an average, and ConFIG that of
  `conflict_free`. The update is the gradient whose first moment in Adam,
  corrected for its start, is :math:`d_k`:

  .. math:: \frac{M_k - \beta_1 M_{k - 1}}{1 - \beta_1}, \qquad
     M_k = (1 - \beta_1^k)\, d_k

  so ``optax.adam(learning_rate, b1=b1)`` after it is the paper's method, with
  its second moment of this pseudo-gradient. Until every task has an average
  the update is 0; the authors' Adam counts its steps from there, optax's
  counts these too. Heads are not weighted and take the step's gradients. The
  weights are those of the corrected averages, have no fixed sum and may be
  negative.

  Scaling a task's loss changes the update (invariance ``'none'``): only the
  direction of :math:`d_k` does not see it. Costs one backward pass, O(T) a
  coordinate and one pseudo-inverse in `mtljax.training.make_train_step` (route
  ``'losses'``), where the gradients of the other tasks are not computed; on the
  optax face they are there and not read. The state holds T + 1 numbers a
  shared parameter.

  ========================  ==================================================
  input                     update
  ========================  ==================================================
  one task                  its gradient
  a zero average            the smaller problem's answer for the rest
  equal, antiparallel       as of `conflict_free`: zero where averages are
  averages                  opposed
  absent tasks              the one present that has waited longest is due;
                            averages of absent ones stand still and are not in
                            the update. With none present: 0
  NaN or infinity           NaN, if in the gradient of the task due; its average
                            stands still. Others are not read
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``weight_heads``, ``scale``, ``max_norm``, ``key``,
      ``nonfinite``.
    b1: :math:`\beta_1`, at least 0 and below 1; give the Adam after it the
      same.
    preference: of `conflict_free`: the cosines' ratios; None: ones.

  Returns:
    The `mtljax.Aggregator`. Reads the gradient of one task. Its state has the
    residual of `conflict_free`.

  Raises:
    ValueError: an argument is out of its range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.m_config(num_tasks=2)
    >>> params = {'w': jnp.zeros(2)}
    >>> grads = {'w': jnp.array([[1.0, 0.0], [0.0, 2.0]])}
    >>> update, state = tx.update(grads, tx.init(params), params)
    >>> print(update['w'])
    [0. 0.]
    >>> update, state = tx.update(grads, state, params)
    >>> [round(float(x), 3) for x in update['w']]
    [1.5, 1.5]

  References:
    Liu et al., `ConFIG: Towards Conflict-free Training of Physics Informed
    Neural Networks <https://arxiv.org/abs/2408.11104>`_, 2024
  """


def db_mtl(
  num_tasks: int,
  *,
  decay: ArrayLike = 0.9,
  decay_power: ArrayLike = 0.0,
  eps: float = 1e-08,
  labels: _labels.Labels | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Dual-balancing: both the losses' and the gradients' scales (DB-MTL).

  The losses are balanced by a logarithm, the gradients by giving their moving
  averages the length of the longest:

  .. math::
     \hat g_t \leftarrow \beta_k \hat g_t
     + (1 - \beta_k) \nabla \log(L_t + \epsilon), \qquad
     d = \max_s \|\hat g_s\| \sum_t \frac{\hat g_t}{\|\hat g_t\|}

  from :math:`\hat g = 0`, with :math:`\beta_k = \beta / k^\sigma`. The weights
  are :math:`\max_s \|\hat g_s\| / \|\hat g_t\|`, of the tracked gradients of
  the log losses: at least 1, with no fixed sum. Heads take the gradient of
  their log loss, as in the authors' code; ``weight_heads=False`` gives them
  that of the loss. A constant factor on a loss changes nothing as long as the
  loss is far above :math:`\epsilon` (invariance ``'full'``). The state holds a
  number for each task and shared parameter: T times their memory. Costs the T
  gradients and O(T) a coordinate.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  zero rows                 0 while their average is zero: it has no direction
  equal, antiparallel rows  nothing special; two antiparallel ones cancel
  a loss of 0               bounded by :math:`\epsilon`
  a loss below 0            NaN for all: it has no logarithm
  absent tasks              0, the smaller problem's answer for the rest; their
                            averages stand still
  NaN or infinity           NaN; the state stands still
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``weight_heads``, ``scale``, ``max_norm``, ``key``,
      ``nonfinite``.
    decay: :math:`\beta`, at least 0 and below 1; 0 does not average.
    decay_power: :math:`\sigma`, at least 0.
    eps: :math:`\epsilon`, in units of a loss.

  Returns:
    The `mtljax.Aggregator`. Reads the gradients and the losses.

  Raises:
    ValueError: an argument is out of its range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.db_mtl(num_tasks=2, decay=0.0)
    >>> params = {'w': jnp.zeros(2)}
    >>> grads = {'w': jnp.array([[1.0, 0.0], [0.0, 200.0]])}
    >>> update, state = tx.update(
    ...   grads, tx.init(params), params, losses=jnp.array([0.5, 50.0]))
    >>> print(mtl.get_weights(state), update['w'])
    [2. 1.] [4. 4.]

  References:
    Lin et al., `Dual-Balancing for Multi-Task Learning
    <https://arxiv.org/abs/2308.12029>`_, 2023
  """


def meta_balance(
  num_tasks: int,
  *,
  primary: int = 0,
  relax_factor: ArrayLike = 0.7,
  decay: ArrayLike = 0.9,
  labels: _labels.Labels | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""MetaBalance: auxiliary gradients near the primary one's length.

  In every parameter array apart, with :math:`m_t` the moving average of the
  length of task t's gradient there and p the primary task, the update is

  .. math:: d = \sum_t \Big( r \frac{m_p}{m_t} + 1 - r \Big) g_t, \qquad
     m_t \leftarrow \beta m_t + (1 - \beta) \|g_t\|

  which leaves the primary gradient as it is. ``relax_factor=1`` gives all the
  same usual length, 0 is the sum of the gradients. There are no task weights:
  the factors differ from array to array. Heads take their own gradients. The
  averages are corrected for their start, which changes nothing but where tasks
  were absent. The state holds T numbers a shared array.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs the T gradients and O(T) a coordinate.

  ========================  ==================================================
  input                     update
  ========================  ==================================================
  one task                  its gradient
  a zero row                it adds nothing
  an average of 0           the gradient times :math:`1 - r`
  equal, antiparallel rows  nothing special: only lengths are read
  absent tasks              they add nothing, and their averages stand still;
                            without an average of the primary task the others
                            are added as they are
  NaN or infinity           not finite where a task's gradient is not; the
                            averages stand still
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``weight_heads``, ``scale``, ``max_norm``, ``key``,
      ``nonfinite``.
    primary: the index of the primary task.
    relax_factor: r, from 0 to 1.
    decay: :math:`\beta`, at least 0 and below 1; 0 does not average.

  Returns:
    The `mtljax.Aggregator`. Reads the gradients.

  Raises:
    ValueError: an argument is out of its range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.meta_balance(num_tasks=2)
    >>> params = {'w': jnp.zeros(2)}
    >>> grads = {'w': jnp.array([[1.0, 0.0], [0.0, 10.0]])}
    >>> update, state = tx.update(grads, tx.init(params), params)
    >>> [round(float(x), 3) for x in update['w']]
    [1.0, 3.7]

  References:
    He et al., `MetaBalance: Improving Multi-Task Recommendations via Adapting
    Gradient Magnitudes of Auxiliary Tasks <https://arxiv.org/abs/2203.06801>`_,
    2022
  """


def lr_annealing(
  num_tasks: int,
  *,
  primary: int = 0,
  decay: ArrayLike = 0.9,
  weighted: bool = False,
  labels: _labels.Labels | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""Learning-rate annealing for physics-informed networks.

  The primary loss is the residual of the differential equation, the others are
  boundary and initial conditions and data, whose gradients are often far
  smaller. With p the primary task,

  .. math:: \hat w_t = \frac{\max_i |\partial_i L_p|}
     {\mathrm{mean}_i |\partial_i L_t|}, \qquad
     w_t \leftarrow \beta w_t + (1 - \beta) \hat w_t, \qquad w_p = 1

  from :math:`w = 1`, over all shared coordinates i; the update is
  :math:`\sum_t w_t g_t`. The weights have no fixed sum: a maximum over a mean
  is large, and grows with the number of parameters that a gradient does not
  reach. Heads are weighted: the method weights losses. The authors' code takes
  the mean of the gradient of :math:`w_t L_t`, ``weighted=True``, which tends
  to the root of the quotient; it renews the weights at every tenth step.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs the T gradients and O(T) a coordinate.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  a zero row                its weight stands still; of the primary task: those
                            of the others fall
  equal, antiparallel rows  nothing special: only sizes are read
  absent tasks              0, and their weights stand still; without the
                            primary task all do
  NaN or infinity           NaN; the state stands still
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``weight_heads``, ``scale``, ``max_norm``, ``key``,
      ``nonfinite``.
    primary: the index of the primary task, the residual.
    decay: :math:`\beta`, from 0 to 1: what is kept of the weights. The paper's
      :math:`\alpha` is one less it.
    weighted: whether the mean is of the weighted gradient, see above.

  Returns:
    The `mtljax.Aggregator`. Reads the gradients.

  Raises:
    ValueError: an argument is out of its range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.lr_annealing(num_tasks=2)
    >>> params = {'w': jnp.zeros(2)}
    >>> grads = {'w': jnp.array([[4.0, 1.0], [0.0, 1.0]])}
    >>> update, state = tx.update(grads, tx.init(params), params)
    >>> print(mtl.get_weights(state).round(3), update['w'].round(3))
    [1.  1.7] [4.  2.7]

  References:
    Wang et al., `Understanding and Mitigating Gradient Pathologies in
    Physics-Informed Neural Networks <https://arxiv.org/abs/2001.04536>`_, 2021
  """

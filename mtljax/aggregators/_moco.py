"""MoCo: MGDA on tracked gradients, one step at a time."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _tree, _validate
from mtljax._types import MethodInfo
from mtljax.aggregators import _gradient_based as _base
from mtljax.weightings import _double_sampling, _loss_common


class MoCoState(NamedTuple):
  """State of `moco`."""

  iterate: jax.Array  # (T,), on the simplex
  count: jax.Array  # () int32
  tracked: Any  # (T, ...) a leaf: the averaged gradients


def _normalized(rows: _base.TaskRows) -> list[jax.Array]:
  """Every task's gradient with the length of its loss."""
  squares = jnp.diagonal(_tree.gramian_of(rows.leaves))
  norms = jnp.sqrt(squares)
  factor = rows.losses.astype(norms.dtype) / jnp.where(norms == 0, 1, norms)
  return [
    _tree.scale_leaf(factor, x.astype(_tree.accumulator(x.dtype)))
    for x in rows.leaves
  ]


def _share(moved: jax.Array, mask: jax.Array, projection: str) -> jax.Array:
  """The point moved back to the simplex of the tasks present."""
  if projection == 'softmax':
    return _loss_common.softmax(moved, mask)
  return _double_sampling.project_simplex(moved, mask)


def moco(
  *,
  decay: ArrayLike = 0.01,
  gain_power: ArrayLike = 0.0,
  learning_rate: ArrayLike = 0.1,
  learning_rate_power: ArrayLike = 0.0,
  regularization: ArrayLike = 0.0,
  projection: Literal['simplex', 'softmax'] = 'simplex',
  normalize: bool = False,
) -> _base.GradientRule:
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
  _validate.flag('normalize', normalize)
  _validate.in_range('decay', decay, 0, 1)
  if isinstance(decay, (int, float)) and decay == 1:
    raise ValueError(
      f'decay={decay!r} must be below 1, or the averages stay 0.'
    )
  for name, value in (
    ('gain_power', gain_power),
    ('learning_rate', learning_rate),
    ('learning_rate_power', learning_rate_power),
    ('regularization', regularization),
  ):
    _validate.in_range(name, value, 0)
  _validate.one_of('projection', projection, ('simplex', 'softmax'))

  def init_fn(num_tasks, shared, key):
    del key
    return MoCoState(
      iterate=jnp.full((num_tasks,), 1 / num_tasks, float),
      count=jnp.zeros((), jnp.int32),
      tracked=_base.zero_rows(shared, num_tasks),
    )

  def update_fn(rows, state):
    mask = rows.present
    count = (state.count + 1).astype(state.iterate.dtype)
    rate = jnp.where(mask, (1 - decay) / count**gain_power, 0)
    leaves = _normalized(rows) if normalize else rows.leaves
    tracked = [
      y + _tree.scale_leaf(rate, g.astype(y.dtype) - y)
      for y, g in zip(state.tracked, leaves, strict=True)
    ]
    present = [_tree.present(rows.mask, y) for y in tracked]
    gramian = _tree.gramian_of(present)
    ok = jnp.all(jnp.isfinite(gramian))

    w, total = _double_sampling.start(state.iterate.astype(gramian.dtype), mask)
    slope = jnp.matmul(gramian, w, precision='highest') + regularization * w
    moved = w - learning_rate / count**learning_rate_power * slope
    w = _share(moved, mask, projection)
    weights = jnp.where(mask, jnp.where(ok, w, jnp.nan), 0)

    state = MoCoState(
      iterate=_double_sampling.keep(state.iterate, weights, total, mask),
      count=state.count + 1,
      tracked=_base.keep_unless(ok, tracked, state.tracked),
    )
    return _base.Outcome(
      _base.weighted_sum(weights, present, rows.leaves),
      state,
      weights,
      own=weights,
    )

  return _base.GradientRule(
    init_fn,
    update_fn,
    MethodInfo(
      name='moco',
      paper='Fernando et al., 2023, https://arxiv.org/abs/2210.12624',
    ),
    keeps_rows=True,
    reads_losses=normalize,
  )

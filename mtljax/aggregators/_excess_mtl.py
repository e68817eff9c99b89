"""ExcessMTL: weights that follow the tasks' excess risks."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _tree, _validate
from mtljax._types import MethodInfo
from mtljax.aggregators import _gradient_based as _base
from mtljax.weightings import _loss_common


class ExcessMTLState(NamedTuple):
  """State of `excess_mtl`."""

  log_weights: jax.Array  # (T,)
  baseline: jax.Array  # (T,); the first excess risks, 0 until there are some
  seen: jax.Array  # (T,) int32; of how many warm-up steps it is the mean
  count: jax.Array  # () int32
  roots: Any  # (T, ...) a leaf: the root of the sum of squared gradients


def _grow(leaf: jax.Array, root: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The next root, and the leaf's part of every task's excess risk."""
  rows = leaf.astype(root.dtype)
  root = jnp.hypot(root, rows)
  terms = rows * (rows / jnp.where(root == 0, 1, root))
  return root, jnp.sum(terms, axis=tuple(range(1, leaf.ndim)))


def excess_mtl(
  *,
  learning_rate: ArrayLike = 0.01,
  warmup_steps: int = 0,
  first_step: Literal['relative', 'absolute'] = 'relative',
) -> _base.GradientRule:
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
  _validate.in_range('learning_rate', learning_rate, 0)
  _validate.one_of('first_step', first_step, ('relative', 'absolute'))
  warmup_steps = _validate.integer('warmup_steps', warmup_steps, 0)

  def init_fn(num_tasks, shared, key):
    del key
    return ExcessMTLState(
      log_weights=jnp.zeros((num_tasks,), float),
      baseline=jnp.zeros((num_tasks,), float),
      seen=jnp.zeros((num_tasks,), jnp.int32),
      count=jnp.zeros((), jnp.int32),
      roots=_base.zero_rows(shared, num_tasks),
    )

  def update_fn(rows, state):
    mask = rows.present
    grown = [
      _grow(leaf, root)
      for leaf, root in zip(rows.leaves, state.roots, strict=True)
    ]
    excess = sum(part for _, part in grown)
    ok = jnp.all(jnp.isfinite(excess))

    warm = mask & (state.count < warmup_steps)
    seen = state.seen + warm
    mean = state.baseline + (excess - state.baseline) / jnp.maximum(seen, 1)
    baseline = jnp.where(warm, mean, state.baseline)
    counts = mask & ~warm
    is_first = counts & (baseline == 0)
    baseline = jnp.where(is_first, excess, baseline)
    relative = excess / jnp.where(baseline == 0, 1, baseline)
    if first_step == 'absolute':
      relative = jnp.where(is_first, excess, relative)
    # Far beyond what the softmax tells apart, and never infinite.
    rise = jnp.minimum(learning_rate * relative, 1e30)
    logits = state.log_weights + jnp.where(counts, rise, 0)
    weights = jnp.where(ok, _loss_common.softmax(logits, mask), jnp.nan)
    weights = jnp.where(mask, weights, 0)

    new = ExcessMTLState(
      # A constant changes nothing; without this they grow for ever.
      log_weights=logits - jnp.max(logits),
      baseline=baseline,
      seen=seen,
      count=state.count + 1,
      roots=[root for root, _ in grown],
    )
    state = jax.tree.map(
      lambda n, o: jnp.where(ok, n.astype(o.dtype), o), new, state
    )
    return _base.Outcome(
      [_tree.combine_leaf(weights, leaf) for leaf in rows.leaves],
      state,
      weights,
      own=weights,
    )

  return _base.GradientRule(
    init_fn,
    update_fn,
    MethodInfo(
      name='excess_mtl',
      paper='He et al., 2024, https://arxiv.org/abs/2402.02009',
      weight_heads=True,
    ),
    keeps_rows=True,
  )

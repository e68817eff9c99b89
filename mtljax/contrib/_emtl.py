"""EMTL, reconstructed: relative contributions of the tasks made equal."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.solvers import row_normalize
from mtljax.weightings import _common, _loss_common


class EMTLState(NamedTuple):
  """State of `emtl`: none."""


@jax.jit
def _weights(
  gramian: jax.Array, losses: jax.Array, mask: jax.Array, power: jax.Array
) -> jax.Array:
  _, norms = row_normalize(gramian, mask)
  used = ~(norms <= 0)
  losses = jnp.where(used, losses, 1)
  # A loss of 0 has the logarithm -inf: no weight.
  logs = jnp.log(losses) - jnp.log(jnp.where(used, norms, 1))
  logs = jnp.where(used, jnp.where(power == 0, 0, power * logs), -jnp.inf)
  top = jnp.max(logs)
  powers = jnp.exp(logs - jnp.where(top == -jnp.inf, 0, top))
  total = jnp.sum(powers)
  count = jnp.sum(used).astype(norms.dtype)
  weights = count * powers / jnp.where(total == 0, 1, total)
  return jnp.where(used, weights, 0)


def emtl(
  *, form: Literal['hard', 'soft'] = 'hard', strength: ArrayLike = 1.0
) -> Weighting:
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
    form: ``'hard'`` or ``'soft'``.
    strength: :math:`\lambda` of the soft form, at least 0.

  Returns:
    The `mtljax.Weighting`. Reads the losses and the Gramian; it has no state.

  Raises:
    ValueError: ``form`` is not known or ``strength`` is negative.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.contrib.weightings.emtl()
    >>> stats = mtl.TaskStats(
    ...   gramian=jnp.diag(jnp.array([1.0, 4.0])), losses=jnp.array([1.0, 6.0])
    ... )
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 4) for w in weights]
    [0.5, 1.5]

  References:
    Yuan and Zhang, `Equitable Multi-task Learning
    <https://arxiv.org/abs/2306.09373>`_, 2023 (the idea only)
  """
  _validate.one_of('form', form, ('hard', 'soft'))
  _validate.in_range('strength', strength, 0)

  def init_fn(num_tasks, key=None):
    del num_tasks, key
    return EMTLState()

  def update_fn(stats, state):
    gramian, mask = _common.gramian_and_mask(stats, 'emtl')
    losses, _ = _loss_common.losses_and_mask(stats, 'emtl')
    dtype = gramian.dtype
    power = jnp.ones((), dtype)
    if form == 'soft':
      factor = jnp.asarray(strength, dtype)
      power = factor / (1 + factor)
    weights = _weights(gramian, losses.astype(dtype), mask, power)
    return _common.nan_unless_finite(weights, gramian, mask), state

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'losses', 'gramian'}),
    info=MethodInfo(
      name='emtl',
      paper='Yuan and Zhang, 2023, https://arxiv.org/abs/2306.09373',
      weight_heads=True,
    ),
  )

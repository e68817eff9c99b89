"""GradVac: gradient surgery towards the usual cosine of each pair of tasks."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.solvers import row_normalize
from mtljax.weightings import _common


class GradVacState(NamedTuple):
  """State of `gradvac`."""

  targets: jax.Array  # (T, T); row i has the cosines that task i met
  rng_key: jax.Array  # typed key


def _vaccinate(unit, used, targets, beta, orders):
  """Every task's turned unit gradient, as coefficients, and the new targets."""
  num_tasks = unit.shape[0]
  tasks = jnp.arange(num_tasks)
  eps = jnp.finfo(unit.dtype).eps

  def meet(position, carry):
    coefficients, targets = carry
    other = orders[:, position]
    inner = jnp.sum(unit[other] * coefficients, axis=1)
    image = jnp.matmul(coefficients, unit, precision='highest')
    squared = jnp.sum(image * coefficients, axis=1)
    # What is left of an opposed gradient has no direction.
    size = jnp.sum(jnp.abs(coefficients), axis=1)
    gone = squared <= 4 * num_tasks * eps * size**2
    meets = (other != tasks) & used & used[other] & ~gone
    norm = jnp.sqrt(jnp.where(meets, squared, 1))
    cosine = jnp.clip(inner / norm, -1, 1)
    target = targets[tasks, other]
    sine = jnp.sqrt(1 - cosine**2)
    target_sine = jnp.sqrt(1 - target**2)
    take = norm * (target * sine - cosine * target_sine)
    take = take / jnp.maximum(target_sine, jnp.sqrt(eps))
    # Not `cosine < target`: a NaN has to stay one.
    take = jnp.where(meets & ~(cosine >= target), take, 0)
    coefficients = coefficients.at[tasks, other].add(take)
    moved = jnp.where(meets, target + beta * (cosine - target), target)
    return coefficients, targets.at[tasks, other].set(moved)

  eye = jnp.eye(num_tasks, dtype=unit.dtype)
  return jax.lax.fori_loop(0, num_tasks, meet, (eye, targets))


@jax.jit
def _weights(
  gramian: jax.Array,
  mask: jax.Array,
  targets: jax.Array,
  beta: jax.Array,
  orders: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  unit, norms = row_normalize(gramian, mask)
  used = ~(norms <= 0)
  coefficients, new = _vaccinate(unit, used, targets, beta, orders)
  safe = jnp.where(used, norms, 1)
  # From unit gradients back to gradients. A row that is not used meets nobody.
  ratio = safe[:, None] / safe[None, :]
  terms = jnp.where(coefficients == 0, 0, coefficients * ratio)
  weights = jnp.sum(terms, axis=0)
  weights = _common.nan_unless_finite(weights, gramian, mask)
  return weights, jnp.where(jnp.all(jnp.isfinite(new)), new, targets)


def gradvac(*, decay: ArrayLike = 0.99) -> Weighting:
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
    decay: :math:`1 - \beta`, what stays of the targets, from 0 to 1 (`pcgrad`,
      as long as they are 0). In the paper 0.99; 0.5 in LibMTL and TorchJD.

  Returns:
    The `mtljax.Weighting`. Reads the Gramian; its state holds the targets and
    a key.

  Raises:
    ValueError: ``decay`` is not between 0 and 1.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.gradvac(decay=0.5)
    >>> stats = mtl.TaskStats(gramian=jnp.array([[1.0, 0.8], [0.8, 1.0]]))
    >>> weights, state = weighting.update(stats, weighting.init(2))
    >>> print(weights)
    [1. 1.]
    >>> stats = mtl.TaskStats(gramian=jnp.eye(2))
    >>> weights, _ = weighting.update(stats, state)
    >>> [round(float(w), 4) for w in weights]  # cosine 0, usually 0.4
    [1.4364, 1.4364]

  References:
    Wang et al., `Gradient Vaccine: Investigating and Improving Multi-task
    Optimization in Massively Multilingual Models
    <https://arxiv.org/abs/2010.05874>`_, 2021
  """
  _validate.in_range('decay', decay, 0, 1)

  def init_fn(num_tasks, key=None):
    key = jax.random.key(0) if key is None else jax.random.clone(key)
    return GradVacState(
      targets=jnp.zeros((num_tasks, num_tasks), float), rng_key=key
    )

  def update_fn(stats, state):
    gramian, mask = _common.gramian_and_mask(stats, 'gradvac')
    key, orders = _common.random_orders(state.rng_key, gramian.shape[0])
    dtype = gramian.dtype
    weights, targets = _weights(
      gramian,
      mask,
      state.targets.astype(dtype),
      jnp.asarray(1 - decay, dtype),
      orders,
    )
    return weights, GradVacState(targets.astype(state.targets.dtype), key)

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'gramian'}),
    info=MethodInfo(
      name='gradvac',
      paper='Wang et al., 2021, https://arxiv.org/abs/2010.05874',
      random=True,
    ),
  )

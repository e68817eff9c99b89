"""ReLoBRaLo: losses balanced by their progress, with random lookbacks."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.weightings import _loss_common


class ReLoBRaLoState(NamedTuple):
  """State of `relobralo`; all but the key are a task's own, ``(T,)``."""

  rng_key: jax.Array  # typed key
  loss_weights: jax.Array
  first: jax.Array  # the first loss, 0 before it
  last: jax.Array  # the one of the step before, 0 before it
  seen: jax.Array  # steps, counted up to 2, int32


def relobralo(
  *,
  decay: ArrayLike = 0.999,
  keep_probability: ArrayLike = 0.99,
  temperature: ArrayLike = 0.1,
) -> Weighting:
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
    decay: :math:`\alpha`, from 0 to 1, what is kept of the weights.
    keep_probability: :math:`\rho`, from 0 to 1; 1 never looks back to the first
      losses.
    temperature: :math:`\tau`, above 0; a large one gives equal weights.

  Returns:
    The `mtljax.Weighting`. Reads the losses; its state holds a key.

  Raises:
    ValueError: an argument is out of range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.relobralo(temperature=1.0)
    >>> state = weighting.init(2)
    >>> for losses in ([1.0, 8.0], [1.0, 4.0]):
    ...   stats = mtl.TaskStats(losses=jnp.array(losses))
    ...   weights, state = weighting.update(stats, state)
    >>> [round(float(w), 3) for w in weights]
    [1.245, 0.755]

  References:
    Bischof and Kraus, `Multi-Objective Loss Balancing for Physics-Informed
    Deep Learning <https://arxiv.org/abs/2110.09813>`_, 2021
  """
  _validate.in_range('decay', decay, 0, 1)
  _validate.in_range('keep_probability', keep_probability, 0, 1)
  _validate.in_range('temperature', temperature, 0, open_low=True)

  def init_fn(num_tasks, key=None):
    key = jax.random.key(0) if key is None else jax.random.clone(key)
    return ReLoBRaLoState(
      rng_key=key,
      loss_weights=jnp.ones((num_tasks,), float),
      first=jnp.zeros((num_tasks,), float),
      last=jnp.zeros((num_tasks,), float),
      seen=jnp.zeros((num_tasks,), jnp.int32),
    )

  def update_fn(stats, state):
    losses, mask = _loss_common.losses_and_mask(stats, 'relobralo')
    dtype = losses.dtype
    key, draw = jax.random.split(state.rng_key)
    looks_back = ~jax.random.bernoulli(
      draw, jnp.asarray(keep_probability, jnp.float32)
    )
    known = mask & (state.seen > 0) & (state.last > 0)

    def balance(then):
      ratio = losses / jnp.where(known, then, 1)
      shares = _loss_common.softmax(ratio, known, temperature)
      return _loss_common.count(known) * shares

    since_first = balance(state.first)
    kept = jnp.where(looks_back, since_first, state.loss_weights)
    rate = jnp.asarray(decay, dtype)
    new = rate * kept + (1 - rate) * balance(state.last)
    new = jnp.where(state.seen == 1, since_first, new)
    weights = jnp.where(known, new, state.loss_weights)
    fine = jnp.all(jnp.isfinite(jnp.where(mask, weights * losses, 0)))

    usable = losses > 0
    after = ReLoBRaLoState(
      rng_key=key,
      loss_weights=weights,
      first=jnp.where(usable & (state.first == 0), losses, state.first),
      last=jnp.where(usable, losses, state.last),
      seen=jnp.where(usable, jnp.minimum(state.seen + 1, 2), state.seen),
    )
    after = after._replace(
      **{
        name: jnp.where(mask & fine, getattr(after, name), old)
        for name, old in state._asdict().items()
        if name != 'rng_key'
      }
    )
    return _loss_common.nan_unless(jnp.isfinite(losses), weights, mask), after

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'losses'}),
    info=MethodInfo(
      name='relobralo',
      paper='Bischof and Kraus, 2021, https://arxiv.org/abs/2110.09813',
      weight_heads=True,
      random=True,
    ),
  )

"""Random loss weighting."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting


class RLWState(NamedTuple):
  """State of `rlw`."""

  rng_key: jax.Array  # typed key
  template: jax.Array  # (T,), says how many tasks there are


def rlw(
  *, distribution: Literal['normal', 'dirichlet', 'uniform'] = 'normal'
) -> Weighting:
  r"""Random weights, drawn anew at every step.

  .. math:: w = \mathrm{softmax}(z), \quad z \sim N(0, I)

  The weights sum to 1 over the tasks present. Heads are weighted: the method
  weights losses.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs one backward pass and T random numbers.

  Args:
    distribution: of the weights: ``'normal'`` as above, ``'dirichlet'`` flat
      on the simplex, ``'uniform'`` softmax of uniform numbers in [0, 1].

  Returns:
    The `mtljax.Weighting`. Reads nothing; its state holds a key.

  Raises:
    ValueError: the distribution is not known.

  Examples:
    >>> import mtljax as mtl
    >>> weighting = mtl.weightings.rlw()
    >>> weights, _ = weighting.update(mtl.TaskStats(), weighting.init(3))
    >>> weights.shape, round(float(weights.sum()), 6)
    ((3,), 1.0)

  References:
    Lin et al., `Reasonable Effectiveness of Random Weighting: A Litmus Test
    for Multi-Task Learning <https://arxiv.org/abs/2111.10603>`_, 2022
  """
  _validate.one_of(
    'distribution', distribution, ('normal', 'dirichlet', 'uniform')
  )

  def init_fn(num_tasks, key=None):
    key = jax.random.key(0) if key is None else jax.random.clone(key)
    return RLWState(rng_key=key, template=jnp.zeros((num_tasks,), float))

  def update_fn(stats, state):
    key, draw = jax.random.split(state.rng_key)
    shape, dtype = state.template.shape, state.template.dtype
    if distribution == 'normal':
      logits = jax.random.normal(draw, shape, dtype)
    elif distribution == 'uniform':
      logits = jax.random.uniform(draw, shape, dtype)
    else:
      logits = jnp.log(jax.random.exponential(draw, shape, dtype))
    if stats.mask is not None:
      logits = jnp.where(stats.mask, logits, -jnp.inf)
      logits = jnp.where(jnp.any(stats.mask), logits, 0)
    return jax.nn.softmax(logits), state._replace(rng_key=key)

  return Weighting(
    init_fn,
    update_fn,
    frozenset(),
    info=MethodInfo(
      name='rlw',
      paper='Lin et al., 2022, https://arxiv.org/abs/2111.10603',
      weight_heads=True,
      random=True,
    ),
  )

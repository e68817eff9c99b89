"""Wrappers around a method's weights, for either of its two forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
from jax.typing import ArrayLike

from mtljax import _validate, weightings
from mtljax._types import Aggregator, Weighting
from mtljax.aggregators import _aggregate

Method = TypeVar('Method', Aggregator, Weighting)


def _wrap(
  name: str, method: Any, wrapper: Callable[[Weighting], Weighting]
) -> Any:
  if isinstance(method, Weighting):
    return wrapper(method)
  if not isinstance(method, Aggregator):
    raise TypeError(
      f'{name}(method={type(method).__name__}): method must be an aggregator '
      'such as mtl.cagrad(num_tasks=2) or a weighting such as '
      'mtl.weightings.cagrad(); put the optimizer after it in optax.chain.'
    )
  if method.weighting is None:
    raise TypeError(
      f'{name}: {method.info.name} as built here is more than weights, which '
      f'are all that {name} acts on; of mtl.sam and mtl.flat_regions, wrap '
      'the method inside.'
    )
  rule = method.weighting._replace(info=method.info)
  return _aggregate.rebuild(method, wrapper(rule))


def cr_mogm(
  method: Method,
  *,
  decay: ArrayLike = 0.9,
  initial_weights: Sequence[float] | jax.Array | None = None,
) -> Method:
  r"""Correlation-reduced weights (CR-MOGM): their moving average.

  .. math:: \bar w_k = \alpha \bar w_{k-1} + (1 - \alpha) w_k

  See `mtljax.weightings.cr_mogm`, the rule inside. An aggregator keeps its
  options: labels, heads, scale, key.

  Args:
    method: an aggregator or a weighting.
    decay: :math:`\alpha`, from 0 (the method itself) to 1.
    initial_weights: :math:`\bar w_0`, shape ``(T,)``, finite and not negative;
      None: the first weights.

  Returns:
    The same kind as ``method``.

  Raises:
    TypeError: ``method`` is neither, or needs more than weights.
    ValueError: decay or ``initial_weights`` is not valid.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.cr_mogm(mtl.mgda(num_tasks=2), decay=0.5)
    >>> state = tx.init(None)
    >>> for first in (1.0, 2.0):
    ...   grads = jnp.diag(jnp.array([first, 1.0]))
    ...   update, state = tx.update(grads, state)
    ...   print([round(float(w), 3) for w in mtl.get_weights(state)])
    [0.5, 0.5]
    [0.35, 0.65]

  References:
    Zhou et al., `On the Convergence of Stochastic Multi-Objective Gradient
    Manipulation and Beyond <https://openreview.net/forum?id=ScwfQ7hdwyP>`_,
    2022
  """
  _validate.refuse_narrow(decay=decay)
  return _wrap(
    'cr_mogm',
    method,
    lambda weighting: weightings.cr_mogm(
      weighting, decay=decay, initial_weights=initial_weights
    ),
  )


def every_k(method: Method, k: int) -> Method:
  """The weights of a method, computed at every k-th step and held in between.

  See `mtljax.weightings.every_k`, the rule inside. An aggregator keeps its
  options: labels, heads, scale, key. On the optax face the solve is saved;
  given to `mtljax.training.make_train_step` it also saves the gradients, as
  ``every=k`` there does.

  Args:
    method: an aggregator or a weighting.
    k: a Python int of at least 1.

  Returns:
    The same kind as ``method``.

  Raises:
    TypeError: ``method`` is neither, or needs more than weights.
    ValueError: k is not an int of at least 1.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.every_k(mtl.mgda(num_tasks=2), k=2)
    >>> state = tx.init(None)
    >>> for first in (1.0, 2.0, 2.0):
    ...   grads = jnp.diag(jnp.array([first, 1.0]))
    ...   update, state = tx.update(grads, state)
    ...   print([round(float(w), 3) for w in mtl.get_weights(state)])
    [0.5, 0.5]
    [0.5, 0.5]
    [0.2, 0.8]
  """
  return _wrap(
    'every_k', method, lambda weighting: weightings.every_k(weighting, k)
  )


def freeze_after(method: Method, steps: int) -> Method:
  """The weights of a method for some steps, then constant.

  See `mtljax.weightings.freeze_after`, the rule inside. An aggregator keeps
  its options: labels, heads, scale, key.

  Args:
    method: an aggregator or a weighting.
    steps: after how many steps the weights stay as they are; a Python int of
      at least 1.

  Returns:
    The same kind as ``method``.

  Raises:
    TypeError: ``method`` is neither, or needs more than weights.
    ValueError: steps is not an int of at least 1.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.freeze_after(mtl.mgda(num_tasks=2), steps=1)
    >>> state = tx.init(None)
    >>> for first in (1.0, 2.0):
    ...   grads = jnp.diag(jnp.array([first, 1.0]))
    ...   update, state = tx.update(grads, state)
    ...   print([round(float(w), 3) for w in mtl.get_weights(state)])
    [0.5, 0.5]
    [0.5, 0.5]
  """
  return _wrap(
    'freeze_after',
    method,
    lambda weighting: weightings.freeze_after(weighting, steps),
  )

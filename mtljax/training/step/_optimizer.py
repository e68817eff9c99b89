"""The optimizer of a train step: what it may be, and what it is told."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtljax._types import Aggregator

_BY_HAND = (
  'call the two in turn by hand: direction, method_state = method.update('
  'grads, method_state, params.fast, losses=losses), then '
  'optimizer.update(direction, state, params)'
)


_ORDER = 'the order is make_train_step(method, optimizer, loss_fn)'


def missing(optimizer: Any) -> str:
  """What is missing where a train step is given two arguments only."""
  if isinstance(optimizer, optax.GradientTransformation):
    return f'loss_fn is missing; {_ORDER}.'
  return (
    f'optimizer is missing, such as optax.adam(1e-3), and {optimizer!r} stands '
    f'in its place; {_ORDER}.'
  )


def checked(optimizer: Any) -> optax.GradientTransformationExtraArgs:
  """The optimizer as a transformation with extra arguments, or TypeError."""
  if isinstance(optimizer, Aggregator):
    raise TypeError(
      f'optimizer is the method {optimizer.info.name}, which takes per-task '
      'gradients; pass it as method= and what follows it, such as '
      'optax.adam(1e-3), as optimizer=.'
    )
  if isinstance(optimizer, optax.MultiSteps):
    optimizer = optimizer.gradient_transformation()
  if not isinstance(optimizer, optax.GradientTransformation):
    raise TypeError(
      f'optimizer={optimizer!r} must be an optax transformation such as '
      f'optax.adam(1e-3); {_ORDER}.'
    )
  return optax.with_extra_args_support(optimizer)


def init(optimizer: optax.GradientTransformation, params: Any) -> Any:
  """The optimizer's state, in buffers of its own: a step donates both."""
  seen = {id(x) for x in jax.tree.leaves(params)}

  def fresh(x):
    if not isinstance(x, jax.Array):
      return x
    if id(x) in seen:
      return jnp.array(x, copy=True)
    seen.add(id(x))
    return x

  return jax.tree.map(fresh, optimizer.init(params))


def _accepted(update: Any, extra: dict[str, Any]) -> dict[str, Any]:
  """Those of the arguments that an ``update`` takes."""
  parameters = inspect.signature(update).parameters.values()
  if any(p.kind is p.VAR_KEYWORD for p in parameters):
    return extra
  names = {p.name for p in parameters}
  return {k: v for k, v in extra.items() if k in names}


def update(
  optimizer: optax.GradientTransformation,
  direction: Any,
  state: Any,
  params: Any,
  **extra: Any,
) -> tuple[Any, Any]:
  """Its update, given of the extra arguments what it takes."""
  extra = _accepted(optimizer.update, extra)
  try:
    return optimizer.update(direction, state, params, **extra)
  except (TypeError, ValueError, AttributeError) as error:
    said = str(error)
    if 'unexpected keyword argument' in said:
      raise TypeError(
        'a part of the optimizer does not take value=, the sum of the losses, '
        f'which optax.chain hands to all ({said}); put '
        'optax.GradientTransformation(part.init, part.update) in its place.'
      ) from error
    if 'required keyword-only argument' in said or 'must be provided' in said:
      raise TypeError(
        'optimizer wants more than the update and value=, the sum of the '
        f'losses, which a train step has ({said}); in optax.chain(method, '
        'optimizer) pass it that, of the loss that you mean: a line search '
        'follows one, and a method changes its weights at every step. For '
        'optax.contrib.sam(opaque_mode=True) there is mtl.sam.'
      ) from error
    if "no attribute 'fast'" in said:
      raise TypeError(
        'optimizer is optax.lookahead, whose two copies of the parameters a '
        f'train step does not keep; {_BY_HAND}.'
      ) from error
    raise

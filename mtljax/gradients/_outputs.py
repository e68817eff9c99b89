"""What a loss function returned: checked, and taken apart."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from mtljax import _labels

SHOWN = 6  # arrays of a tree


@contextlib.contextmanager
def called(what: str, params: Any, args: tuple[Any, ...]) -> Iterator[None]:
  """Adds to what a loss raises how it was called."""
  try:
    yield
  except Exception as error:
    given = ', '.join(_shapes(arg) for arg in (params, *args))
    more = ''
    if isinstance(error, TypeError) and 'required positional' in str(error):
      more = (
        ' With has_state=True a train step gives it the state of the model and '
        'a key too.'
      )
    error.add_note(
      f'{what} was called with the parameters first, then the batch: {given}; '
      f'it must take them in that order and in these shapes.{more}'
    )
    raise


def _shapes(tree: Any) -> str:
  """The arrays of a tree, in a few words."""
  leaves = jax.tree.leaves(tree)
  found = [
    f'{name}: {_array(leaf)}' if name else _array(leaf)
    for name, leaf in zip(_labels.path_names(tree), leaves, strict=True)
  ]
  if len(found) > SHOWN:
    found[SHOWN:] = [f'and {len(found) - SHOWN} more']
  return found[0] if len(found) == 1 else f'({", ".join(found)})'


def _array(leaf: Any) -> str:
  if not hasattr(leaf, 'dtype'):
    return type(leaf).__name__
  return f'{leaf.dtype}[{",".join(map(str, leaf.shape))}]'


def with_aux(output: Any, has_aux: bool) -> tuple[Any, Any]:
  """The output and the auxiliary one, None if there is none.

  Raises:
    TypeError: there should be one and is none.
  """
  if not has_aux:
    return output, None
  if not isinstance(output, tuple | list) or len(output) != 2:
    raise TypeError(
      'has_aux=True (or has_state=True): the function must return a pair, the '
      f'second being the auxiliary output; got {_kind(output)}.'
    )
  return output[0], output[1]


def vector(losses: Any) -> jax.Array:
  """The losses of the plain form, an array ``(T,)`` of real floats."""
  if isinstance(losses, tuple) and len(losses) == 2 and _ndim(losses[0]) == 1:
    raise ValueError(
      f'the task losses must be one array of shape (T,); got '
      f'{_kind(losses)}. If the second is an auxiliary output, pass '
      'has_aux=True.'
    )
  if _ndim(losses) is None:
    raise ValueError(
      f'the task losses must be one array of shape (T,); got '
      f'{_kind(losses)}. Put scalar losses together with jnp.stack([...]).'
    )
  if jnp.ndim(losses) != 1 or not jnp.shape(losses)[0]:
    raise ValueError(
      'the task losses must be one array of shape (T,), T at least 1; got '
      f'shape {jnp.shape(losses)}. Take means over the batch, and put scalar '
      'losses together with jnp.stack.'
    )
  return _real(losses, 'the task losses')


def scalar(loss: Any, task: int) -> jax.Array:
  """The loss of one task, a real float."""
  if isinstance(loss, tuple) and len(loss) == 2 and _ndim(loss[0]) == 0:
    raise ValueError(
      f'the loss of task {task} must be a scalar; got {_kind(loss)}. If the '
      'second is an auxiliary output, pass has_aux=True.'
    )
  if _ndim(loss) is None:
    raise ValueError(
      f'the loss of task {task} must be a scalar; got {_kind(loss)}.'
    )
  if jnp.shape(loss) != ():
    raise ValueError(
      f'the loss of task {task} must be a scalar; got shape '
      f'{jnp.shape(loss)}. Take its mean over the batch.'
    )
  return _real(loss, f'the loss of task {task}')


def _real(losses: Any, what: str) -> jax.Array:
  dtype = jnp.result_type(losses)
  if jnp.issubdtype(dtype, jnp.complexfloating):
    raise TypeError(
      f'{what} must be real; got {dtype}. Take the absolute value, or its '
      'square.'
    )
  if not jnp.issubdtype(dtype, jnp.floating):
    raise TypeError(
      f'{what} must be floating-point, as nothing else has gradients; got '
      f'{dtype}.'
    )
  return losses


def _ndim(x: Any) -> int | None:
  """The number of axes; None for what is not one array."""
  if jax.tree_util.all_leaves([x]) and hasattr(x, 'ndim'):
    return x.ndim
  return 0 if isinstance(x, bool | int | float | complex) else None


def _kind(output: Any) -> str:
  """What was returned, in a few words."""
  if _ndim(output) is not None:
    return f'an array of shape {jnp.shape(output)}'
  name = type(output).__name__
  if isinstance(output, list | tuple | dict):
    return f'a {name} of {len(output)}'
  return 'None' if output is None else f'a {name}'

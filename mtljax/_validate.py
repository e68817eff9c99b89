"""Argument checks whose messages name the argument, its value and the fix."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def one_of(name: str, value: Any, valid: Iterable[Any]) -> None:
  """Raises ValueError with the valid values, and the closest, if none fits."""
  valid = list(valid)
  # An array would be compared with each, entry by entry.
  if not isinstance(value, (jax.Array, np.ndarray)) and value in valid:
    return
  close = difflib.get_close_matches(
    str(value), [str(v) for v in valid], n=1, cutoff=0.4
  )
  hint = f' Did you mean {close[0]!r}?' if close else ''
  listed = ', '.join(repr(v) for v in valid)
  raise ValueError(f'{name}={value!r} is not one of {listed}.{hint}')


_UNBOUNDED = (-math.inf, math.inf)


def in_range(
  name: str,
  value: Any,
  low: float = -math.inf,
  high: float = math.inf,
  *,
  open_low: bool = False,
  open_high: bool = False,
  optional: bool = False,
  vector: bool = False,
) -> None:
  """Raises unless the value is one finite number within the bounds.

  Traced values pass; what is not a number at all is a TypeError.

  Args:
    name: of the argument.
    value: a Python number, or an array.
    low: the lower bound.
    high: the upper bound.
    open_low: whether the lower bound itself is outside.
    open_high: whether the upper one is.
    optional: whether None passes.
    vector: whether an array of one dimension passes, each number in range.
  """
  if (value is None and optional) or isinstance(value, jax.core.Tracer):
    return
  array = _as_numbers(value)
  bounded = array is not None and bool(np.all(np.isfinite(array)))
  bounds = _bounds(low, high, open_low, open_high, bounded)
  if array is None or array.ndim > vector:
    kind = 'a number or a vector of numbers' if vector else 'a number'
    why = f'{bounds}.'
    if array is not None:
      why = f'{bounds}; it has shape {array.shape}.'
    elif isinstance(value, numbers.Real) and not isinstance(value, bool):
      why = f'{bounds}; give float({name}).'
    raise TypeError(f'{name}={value!r} must be {kind}, {why}')
  below = array <= low if open_low else array < low
  above = array >= high if open_high else array > high
  if not np.all(np.isfinite(array)) or np.any(below | above):
    raise ValueError(f'{name}={value!r} must be {bounds}.')


def _as_numbers(value: Any) -> np.ndarray | None:
  """Real numbers in float64; None for anything else."""
  if isinstance(value, (bool, np.bool_, str, bytes)) or callable(value):
    return None
  try:
    array = np.asarray(value)
    if array.dtype == bool or not (
      jnp.issubdtype(array.dtype, np.integer)
      or jnp.issubdtype(array.dtype, np.floating)
    ):
      return None
    return array.astype(np.float64)
  except (TypeError, ValueError):
    return None


def _bounds(
  low: float, high: float, open_low: bool, open_high: bool, is_finite: bool
) -> str:
  parts = [] if is_finite and (low, high) != _UNBOUNDED else ['finite']
  if low != -math.inf:
    parts.append(f'{"above" if open_low else "at least"} {low:g}')
  if high != math.inf:
    parts.append(f'{"below" if open_high else "at most"} {high:g}')
  return ' and '.join(parts)


def refuse_narrow(**numbers: Any) -> None:
  """Raises TypeError for a number that has been rounded, or made complex.

  `optax.inject_hyperparams` casts all numbers to the dtype of the parameters.
  """
  for name, value in numbers.items():
    if not isinstance(value, jax.Array) or value.ndim:
      continue
    dtype = value.dtype
    if not jnp.issubdtype(dtype, jnp.inexact):
      continue
    wide = jnp.promote_types(dtype, jnp.float32)
    if jnp.iscomplexobj(value) or wide != dtype:
      raise TypeError(
        f'{name} is a {dtype} number, as optax.inject_hyperparams makes of '
        'those of parameters of that dtype; use mtl.inject_hyperparams, which '
        'keeps them in float32.'
      )


def flag(name: str, value: Any, *, optional: bool = False) -> None:
  """Raises TypeError unless the value is a bool (or None, if optional)."""
  if isinstance(value, (bool, np.bool_)) or (value is None and optional):
    return
  kinds = 'True, False or None' if optional else 'True or False'
  raise TypeError(f'{name}={value!r} must be {kinds}.')


def integer(name: str, value: Any, low: int) -> int:
  """Returns the int, or raises ValueError unless it is at least ``low``.

  One number of an integer type, in an array, is an int as well.
  """
  integral = isinstance(value, numbers.Integral) and not isinstance(value, bool)
  if isinstance(value, (jax.Array, np.ndarray)):
    concrete = not isinstance(value, jax.core.Tracer)
    integral = concrete and value.ndim == 0
    integral = integral and jnp.issubdtype(value.dtype, jnp.integer)
  if not integral or value < low:
    raise ValueError(f'{name}={value!r} must be an int of at least {low}.')
  return int(value)


def num_tasks(value: Any) -> int:
  """Returns the number of tasks as an int, or raises."""
  if isinstance(value, bool) or not isinstance(value, int):
    raise TypeError(
      f'num_tasks={value!r} must be a Python int: the task axis is static.'
    )
  if value < 1:
    raise ValueError(f'num_tasks={value} must be at least 1.')
  return value


def tasks(
  name: str, value: Any, num_tasks: int | None = None
) -> tuple[int, ...] | None:
  """Returns the indices as a tuple of ints, or None for None.

  Raises:
    TypeError: the value is not a sequence.
    ValueError: it is empty, or an entry is not an int of at least 0, below
      ``num_tasks`` where that is known, and there once.
  """
  if value is None:
    return None
  if isinstance(value, (jax.Array, np.ndarray)) and value.ndim == 1:
    value = value.tolist()
  if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
    raise TypeError(f'{name}={value!r} must be a list of indices of tasks.')
  found = tuple(integer(f'{name}[{i}]', x, 0) for i, x in enumerate(value))
  if not found or len(set(found)) < len(found):
    raise ValueError(
      f'{name}={value!r} must name at least one task, and each once; None is '
      'all of them.'
    )
  if num_tasks is not None and max(found) >= num_tasks:
    raise ValueError(
      f'{name}={value!r} must be indices below num_tasks={num_tasks}, counted '
      'from 0.'
    )
  return found

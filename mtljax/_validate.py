"""Argument checks whose messages name the argument, its value and the fix."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any


def one_of(name: str, value: Any, valid: Iterable[Any]) -> None:
  """Raises ValueError with the valid values, and the closest, if none fits."""
  valid = list(valid)
  if value in valid:
    return
  close = difflib.get_close_matches(
    str(value), [str(v) for v in valid], n=1, cutoff=0.4
  )
  hint = f' Did you mean {close[0]!r}?' if close else ''
  listed = ', '.join(repr(v) for v in valid)
  raise ValueError(f'{name}={value!r} is not one of {listed}.{hint}')


def in_range(
  name: str,
  value: Any,
  low: float = -math.inf,
  high: float = math.inf,
  *,
  open_low: bool = False,
) -> None:
  """Raises ValueError if a Python number is outside; arrays are left alone."""
  if isinstance(value, str):
    raise TypeError(f'{name}={value!r} must be a number.')
  if isinstance(value, bool) or not isinstance(value, numbers.Real):
    return
  below = value <= low if open_low else value < low
  if not math.isfinite(value) or below or value > high:
    finite = '' if math.isfinite(value) else 'finite and '
    bound = f'{finite}{"above" if open_low else "at least"} {low:g}'
    if low == -math.inf:
      bound = 'finite'
    if high != math.inf:
      bound += f' and at most {high:g}'
    raise ValueError(f'{name}={value!r} must be {bound}.')


def integer(name: str, value: Any, low: int) -> None:
  """Raises ValueError unless the value is an int of at least ``low``."""
  integral = isinstance(value, numbers.Integral) and not isinstance(value, bool)
  if not integral or value < low:
    raise ValueError(f'{name}={value!r} must be an int of at least {low}.')


def num_tasks(value: Any) -> int:
  """Returns the number of tasks as an int, or raises."""
  if isinstance(value, bool) or not isinstance(value, int):
    raise TypeError(
      f'num_tasks={value!r} must be a Python int: the task axis is static.'
    )
  if value < 1:
    raise ValueError(f'num_tasks={value} must be at least 1.')
  return value

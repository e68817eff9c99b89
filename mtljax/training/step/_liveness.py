"""What a traced program holds at a time, without compiling it.

A walk over the equations in their order. Operations on entries (additions,
moves, casts) cost no memory where only others of their kind or sums read them,
as the compiler fuses these into one loop; the others are held from where they
are computed to where they are last read.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend import core

from mtljax._jaxprs import is_var

# Computed again by each reader, whatever they are.
_FREE = frozenset(
  ('broadcast_in_dim', 'convert_element_type', 'copy', 'iota', 'reshape')
  + ('rev', 'slice', 'squeeze', 'expand_dims', 'transpose', 'stop_gradient')
  + ('copy_p', 'pvary', 'reduce_precision', 'optimization_barrier', 'pad')
)
# Computed once where two read them.
_DEAR = frozenset(
  ('div', 'erf', 'erf_inv', 'exp', 'exp2', 'expm1', 'log', 'log1p', 'pow')
  + ('logistic', 'rsqrt', 'sqrt', 'cbrt', 'tanh', 'sin', 'cos', 'tan', 'rem')
)
_CHEAP = frozenset(
  ('abs', 'add', 'add_any', 'and', 'clamp', 'eq', 'floor', 'ge', 'gt', 'le')
  + ('integer_pow', 'is_finite', 'lt', 'max', 'min', 'mul', 'ne', 'neg', 'not')
  + ('or', 'round', 'select_n', 'select_and', 'sign', 'square', 'sub', 'xor')
  + ('ceil', 'nextafter', 'real', 'imag', 'conj', 'complex')
)
_FUSED = _FREE | _DEAR | _CHEAP
_ALIASES = frozenset(
  ('broadcast_in_dim', 'convert_element_type', 'copy', 'reshape', 'squeeze')
  + ('expand_dims', 'transpose', 'stop_gradient', 'optimization_barrier')
)
_SUMS = ('reduce_sum', 'reduce_max', 'reduce_min', 'reduce_and', 'reduce_or')
_LOOPS = ('scan', 'while')


@dataclasses.dataclass(eq=False)
class _Value:
  """What an operation makes; ``sources``: of what it is, if it is fused."""

  size: int
  name: str
  at: int = 0
  last: int = -1
  readers: list[str] = dataclasses.field(default_factory=list)
  sources: list[_Value] = dataclasses.field(default_factory=list)
  inside: int = 0
  held: bool = True
  zero: bool = False


def num_bytes(aval: Any) -> int:
  """Of an array; 0 for what is none."""
  dtype, shape = getattr(aval, 'dtype', None), getattr(aval, 'shape', ())
  if dtype is None or not all(isinstance(n, int) for n in shape):
    return 0
  return math.prod(shape) * getattr(dtype, 'itemsize', 4)


def _is_alias(eqn: core.JaxprEqn) -> bool:
  """Whether the output is the input under another shape, or read turned."""
  name = eqn.primitive.name
  if name not in _ALIASES:
    return False
  one, other = eqn.invars[0].aval, eqn.outvars[0].aval
  if name == 'transpose' and one.ndim > 2:
    return False
  return num_bytes(one) == num_bytes(other) and one.dtype == other.dtype


def _is_zero(eqn: core.JaxprEqn, ins: Sequence[_Value | None]) -> bool:
  """Whether it is zeros that were written out."""
  name = eqn.primitive.name
  if name not in ('broadcast_in_dim', 'stack', 'concatenate', 'pad'):
    return name in _ALIASES and all(x is not None and x.zero for x in ins)
  return all(
    x.zero if x is not None else not is_var(var) and not np.any(var.val)
    for x, var in zip(ins, eqn.invars, strict=True)
  )


class _Walk:
  """The values of a program, its calls inlined."""

  def __init__(self):
    self.values: list[_Value] = []

  def add(self, eqn: core.JaxprEqn, ins: Sequence[_Value | None]) -> list:
    name, p = eqn.primitive.name, eqn.params
    called = list(core.jaxprs_in_params(p))
    if len(called) == 1 and name not in _LOOPS:
      return self.inline(called[0], ins[-len(called[0].invars) :])
    if name.startswith('custom_') and called:
      return self.inline(called[0], ins[-len(called[0].invars) :])
    inside = max((peak_bytes(x) for x in called), default=0)
    if _is_alias(eqn):
      return [ins[0]]
    if name in ('add', 'add_any') and len(ins) == 2:
      for x, other in (ins, ins[::-1]):
        if other is not None and other.zero and x is not None:
          return [x]
    outs = []
    found = [x for x in ins if x is not None]
    for x in found:
      x.readers.append(name)
    for var in eqn.outvars:
      value = _Value(num_bytes(var.aval), name, len(self.values), inside=inside)
      value.sources = found
      value.zero = _is_zero(eqn, ins)
      inside = 0
      self.values.append(value)
      outs.append(value)
    return outs

  def inline(self, jaxpr: Any, ins: Sequence[_Value | None]) -> list:
    jaxpr = getattr(jaxpr, 'jaxpr', jaxpr)
    env: dict[Any, _Value | None] = dict.fromkeys(jaxpr.constvars)
    env.update(zip(jaxpr.invars, ins, strict=True))
    read = lambda x: env[x] if is_var(x) else None
    for eqn in jaxpr.eqns:
      outs = self.add(eqn, [read(x) for x in eqn.invars])
      env.update(zip(eqn.outvars, outs, strict=True))
    return [read(x) for x in jaxpr.outvars]


def _is_held(value: _Value) -> bool:
  """Whether it gets a place of its own."""
  name = value.name
  if value.zero:
    return False
  if name not in _FUSED:
    return True
  if any(r not in _FUSED and r not in _SUMS for r in value.readers):
    return True
  return name in _DEAR and len(value.readers) > 1


def _roots(value: _Value) -> list[_Value]:
  """The held values that it is made of."""
  found: dict[int, _Value] = {}
  stack, seen = list(value.sources), set()
  while stack:
    x = stack.pop()
    if id(x) in seen:
      continue
    seen.add(id(x))
    if x.held:
      found[id(x)] = x
    else:
      stack.extend(x.sources)
  return list(found.values())


def peak_bytes(jaxpr: Any) -> int:
  """Bytes that are held at once, beside what goes in and comes out."""
  walk = _Walk()
  jaxpr = getattr(jaxpr, 'jaxpr', jaxpr)
  outs = walk.inline(jaxpr, [_Value(0, 'argument') for _ in jaxpr.invars])
  given = {id(x) for x in outs if x is not None}
  for value in walk.values:
    value.held = _is_held(value) or id(value) in given
  dies: dict[int, list[_Value]] = {}
  for value in walk.values:
    if value.held:
      for x in _roots(value):
        x.last = value.at
  for value in walk.values:
    if value.held and id(value) not in given:
      dies.setdefault(max(value.last, value.at), []).append(value)
  live = peak = 0
  for value in walk.values:
    gone = dies.get(value.at, [])
    freed = sum(x.size for x in gone if x is not value)
    if value.held:
      size = 0 if id(value) in given else value.size
      # An entry takes the place of one that is read for the last time.
      reused = value.name in _FUSED and any(
        x.size >= size for x in gone if x is not value
      )
      peak = max(peak, live + value.inside + (0 if reused else size))
      live += size
    live -= freed
    if any(x is value for x in gone):
      live -= value.size
  return peak

"""What a traced program holds at a time, without compiling it.

Operations on entries (additions, moves, casts) cost no memory where only others
of their kind or sums read them, as the compiler fuses these into one loop; the
others are held from where they are computed to where they are last read. On CPU
XLA computes them in the order in which they get ready, so that passes one after
the other in the program are on their way all at once; elsewhere the order is
that of the program.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from mtljax._jaxprs import is_var
from mtljax.gradients import _proven

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
  + ('asin', 'acos', 'atan', 'atan2', 'sinh', 'cosh', 'asinh', 'acosh', 'atanh')
  + ('erfc', 'log2', 'lgamma', 'digamma', 'polygamma', 'polynomial')
)
_CHEAP = frozenset(
  ('abs', 'add', 'add_any', 'and', 'clamp', 'eq', 'floor', 'ge', 'gt', 'le')
  + ('integer_pow', 'is_finite', 'lt', 'max', 'min', 'mul', 'ne', 'neg', 'not')
  + ('or', 'round', 'select_n', 'select_and', 'sign', 'square', 'sub', 'xor')
  + ('ceil', 'nextafter', 'real', 'imag', 'conj', 'complex', 'mulhi')
  + ('shift_left', 'shift_right_arithmetic', 'shift_right_logical')
  + ('bitcast_convert_type', 'clz', 'population_count', 'one_minus_square')
)
_FUSED = _FREE | _DEAR | _CHEAP
_IN_PLACE = _DEAR | _CHEAP | {'dynamic_update_slice'}
_ALIASES = frozenset(
  ('broadcast_in_dim', 'convert_element_type', 'copy', 'reshape', 'squeeze')
  + ('expand_dims', 'transpose', 'stop_gradient', 'optimization_barrier')
)
_SUMS = ('reduce_sum', 'reduce_max', 'reduce_min', 'reduce_and', 'reduce_or')
_LOOPS = ('scan', 'while')
# Their programs are of two entries.
_APPLIED = ('scatter', 'reduce', 'select_and_scatter')


@dataclasses.dataclass(eq=False)
class _Value:
  """What an operation makes.

  ``sources``: of what it is, if it is fused; ``over``: zeros that it is written
  over.
  """

  size: int
  name: str
  at: int = -1
  last: int = -1
  readers: list[str] = dataclasses.field(default_factory=list)
  sources: list[_Value] = dataclasses.field(default_factory=list)
  stacked: tuple[_Value | None, ...] = ()
  over: _Value | None = None
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


def _part(
  eqn: core.JaxprEqn, stacked: tuple[_Value | None, ...]
) -> _Value | None:
  """Which of the stacked values a slice is, if it is one."""
  shape = eqn.invars[0].aval.shape
  start, limit = eqn.params['start_indices'], eqn.params['limit_indices']
  whole = tuple(limit[1:]) == shape[1:] and not any(start[1:])
  strided = eqn.params['strides'] not in (None, (1,) * len(shape))
  if not whole or strided or limit[0] != start[0] + 1:
    return None
  return stacked[start[0]]


def _stack_of(eqn: core.JaxprEqn, ins: Sequence[_Value | None]):
  """Equal for stacks of the same values."""
  parts = zip(ins, eqn.invars, strict=True)
  return eqn.params['axis'], *(id(x or var) for x, var in parts)


def _is_outer(eqn: core.JaxprEqn) -> bool:
  """Whether nothing is summed, which is compiled as a multiplication."""
  (summed, _), _ = eqn.params['dimension_numbers']
  shape = eqn.invars[0].aval.shape
  return all(shape[i] == 1 for i in summed)


def _turned(eqn: core.JaxprEqn, operand: int) -> tuple[int, ...] | None:
  """How a product has an operand written out first; None: as it is.

  Its axes belong together as those of the batch, then the summed ones and the
  others, in either order.
  """
  dims = eqn.params['dimension_numbers']
  summed, batch = tuple(dims[0][operand]), tuple(dims[1][operand])
  shape = eqn.invars[operand].aval.shape
  others = [i for i in range(len(shape)) if i not in (*summed, *batch)]
  orders = (*batch, *others, *summed), (*batch, *summed, *others)
  for order in orders:
    axes = [i for i in order if shape[i] > 1]
    if axes == sorted(axes):
      return None
  return orders[operand]


class _Walk:
  """The values of a program, its calls inlined."""

  def __init__(self, backend: str):
    self.backend = backend
    self.values: list[_Value] = []
    self.turned: dict[tuple[int, tuple[int, ...]], _Value] = {}
    self.stacks: dict[tuple[tuple[int, ...], int], _Value] = {}

  def copy(self, aval: Any, *sources: _Value) -> _Value:
    """A value that is written out."""
    found = _Value(num_bytes(aval), 'transpose')
    found.sources = list(sources)
    for x in sources:
      x.readers.append(found.name)
    self.values.append(found)
    return found

  def turn(self, eqn: core.JaxprEqn, ins: Sequence[_Value | None]) -> list:
    """The operands of a product, those that it needs otherwise as copies."""
    found = list(ins)
    for i, value in enumerate(ins):
      order = None if value is None else _turned(eqn, i)
      if value is None or order is None:
        continue
      copy = self.turned.get((id(value), order))
      if copy is None:
        copy = self.copy(eqn.invars[i].aval, value)
        self.turned[id(value), order] = copy
      found[i] = copy
    return found

  def zeros(self, eqn: core.JaxprEqn, ins: Sequence[_Value | None]) -> list:
    """What the outputs are written over, if the operation needs zeros."""
    name = eqn.primitive.name
    if name.startswith('scatter') and ins[0] is not None and ins[0].zero:
      return [self.copy(eqn.outvars[0].aval)]
    if name != 'scan':
      return []
    _, carried = _proven.loop_parts(eqn)
    stacks = [self.copy(x.aval) for x in eqn.outvars[carried:]]
    return [None] * carried + stacks

  def known(
    self, eqn: core.JaxprEqn, ins: Sequence[_Value | None]
  ) -> _Value | None:
    """The value that an operation gives, where the program has it already."""
    name = eqn.primitive.name
    if name == 'slice' and ins[0] is not None and ins[0].stacked:
      return _part(eqn, ins[0].stacked)
    if name == 'stack':
      same = ins[0] if len(ins) == 1 else None
      return same or self.stacks.get(_stack_of(eqn, ins))
    if name in ('add', 'add_any') and len(ins) == 2:
      for x, other in (ins, ins[::-1]):
        if other is not None and other.zero and x is not None:
          return x
    return None

  def add(self, eqn: core.JaxprEqn, ins: Sequence[_Value | None]) -> list:
    name = eqn.primitive.name
    called = list(core.jaxprs_in_params(eqn.params))
    if name.startswith(_APPLIED):
      called = []
    if called and (
      name.startswith('custom_') or len(called) == 1 and name not in _LOOPS
    ):
      return self.inline(called[0], ins[-len(called[0].invars) :])
    if _is_alias(eqn):
      return [ins[0]]
    known = self.known(eqn, ins)
    if known is not None:
      return [known]
    if name == 'dot_general' and _is_outer(eqn):
      name = 'mul'
    elif name == 'dot_general':
      ins = self.turn(eqn, ins)
    zeros = self.zeros(eqn, ins)
    found = [x for x in (*ins, *zeros) if x is not None]
    for x in found:
      x.readers.append(name)
    outs = [_Value(num_bytes(var.aval), name) for var in eqn.outvars]
    for value, over in zip(outs, zeros or [None] * len(outs), strict=True):
      value.sources, value.over = found, over
      value.zero = _is_zero(eqn, ins)
    if outs:
      outs[0].inside = max(
        (peak_bytes(x, self.backend) for x in called), default=0
      )
    if name == 'stack':
      self.stacks[_stack_of(eqn, ins)] = outs[0]
      outs[0].stacked = () if eqn.params['axis'] else tuple(ins)
    self.values += outs
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


def _in_order(held: Sequence[_Value], by_breadth: bool) -> list[_Value]:
  """As they are computed; notes for each when, and when it is last read.

  ``by_breadth``: as they get ready; else as they are given.
  """
  readers: dict[int, list[_Value]] = {id(x): [] for x in held}
  waiting = {}
  for value in held:
    roots = [x for x in _roots(value) if id(x) in readers]
    waiting[id(value)] = len(roots)
    for x in roots:
      readers[id(x)].append(value)
  order = [x for x in held if not by_breadth or not waiting[id(x)]]
  for at, value in enumerate(order):  # which grows
    value.at = at
    for x in readers[id(value)]:
      waiting[id(x)] -= 1
      if by_breadth and not waiting[id(x)]:
        order.append(x)
  for value in order:
    value.last = max([x.at for x in readers[id(value)]], default=value.at)
  return order


def peak_bytes(jaxpr: Any, backend: str | None = None) -> int:
  """Bytes that are held at once, beside what goes in and comes out.

  ``backend`` by default that of JAX.
  """
  backend = backend or jax.default_backend()
  walk = _Walk(backend)
  jaxpr = getattr(jaxpr, 'jaxpr', jaxpr)
  outs = walk.inline(jaxpr, [_Value(0, 'argument') for _ in jaxpr.invars])
  given = {id(x) for x in outs if x is not None}
  for value in walk.values:
    value.held = _is_held(value) or id(value) in given
  held = [x for x in walk.values if x.held]
  order = _in_order(held, backend == 'cpu')
  for value in order:
    if value.over is not None:
      value.over.last = max(value.over.last, value.last)
      value.over.size = 0 if id(value) in given else value.size
      value.size = 0
  dies: dict[int, list[_Value]] = {}
  for value in order:
    if id(value) not in given:
      dies.setdefault(value.last, []).append(value)
  live = peak = 0
  for value in order:
    gone = dies.get(value.at, [])
    freed = sum(x.size for x in gone if x is not value)
    size = 0 if id(value) in given else value.size
    # An entry takes the place of one that is read for the last time.
    reused = value.name in _IN_PLACE and any(
      x.size >= size for x in gone if x is not value
    )
    peak = max(peak, live + value.inside + (0 if reused else size))
    live += size - freed
    if any(x is value for x in gone):
      live -= value.size
  return peak

"""How the entries of a value go through one operation.

A pattern tells for each task which entries of a value its cotangent reaches: an
array of bools ``(T, ...)`` whose further axes are those of the value, of size 1
where all entries are alike; None reaches nothing.
"""

from __future__ import annotations

import math

import numpy as np

Pattern = np.ndarray | None

MAX_SIZE = 1 << 20  # entries of a pattern; larger ones are blurred
# Entries stay where they are; several outputs belong to inputs one by one.
ELEMENTWISE = (
  'add',
  'add_any',
  'complex',
  'conj',
  'convert_element_type',
  'copy',
  'copy_p',
  'div',
  'imag',
  'mul',
  'name',
  'neg',
  'optimization_barrier',
  'pcast',
  'psum',
  'psum_invariant',
  'pvary',
  'real',
  'reduce_precision',
  'select_n',
  'sharding_constraint',
  'sub',
)
_CUMULATIVE = ('cumsum', 'cumlogsumexp', 'cummax', 'cummin', 'cumprod')


def union(*patterns: Pattern) -> Pattern:
  """The pattern of a sum."""
  found = [p for p in patterns if p is not None]
  if not found:
    return None
  total = found[0]
  for p in found[1:]:
    total = total | p
  return total


def whole(pattern: Pattern, ndim: int) -> Pattern:
  """The pattern of a value, any entry of which may depend on any other's."""
  if pattern is None:
    return None
  any_entry = pattern.reshape(len(pattern), -1).any(1)
  return any_entry.reshape(-1, *[1] * ndim)


def _blank(pattern: np.ndarray) -> bool:
  return not any(n > 1 for n in pattern.shape[1:])


def same(a: Pattern, b: Pattern) -> bool:
  """Whether two patterns are equal."""
  if a is None or b is None:
    return a is b
  return bool(np.array_equal(a, b))


def _elementwise(eqn, ins):
  ndim = eqn.outvars[0].aval.ndim
  return [
    union(
      *(p if p is None or p.ndim == ndim + 1 else whole(p, ndim) for p in ins)
    )
  ]


def _take(pattern: np.ndarray, axis: int, index: slice) -> np.ndarray:
  """A part of an axis of the value, which all entries may have in common."""
  if pattern.shape[axis + 1] == 1:
    return pattern
  return pattern[(slice(None),) * (axis + 1) + (index,)]


def _broadcast_in_dim(eqn, ins):
  (pattern, *_), out = ins, eqn.outvars[0].aval
  shape = [1] * out.ndim
  for axis, place in enumerate(eqn.params['broadcast_dimensions']):
    shape[place] = pattern.shape[axis + 1]
  return [pattern.reshape(len(pattern), *shape)]


def _reshape(eqn, ins):
  if eqn.params.get('dimensions') is not None:
    return None
  pattern, old = ins[0], eqn.invars[0].aval.shape
  new = eqn.outvars[0].aval.shape
  if _blank(pattern):
    return [whole(pattern, len(new))]
  if not all(isinstance(n, int) and n for n in (*old, *new)):
    return None
  full, shape = [len(pattern)], [len(pattern)]
  for before, after in _groups(old, new):
    sizes = pattern.shape[1 + before.start : 1 + before.stop]
    if old[before] == new[after]:
      full += sizes
      shape += sizes
    elif all(n == 1 for n in sizes):
      full += sizes
      shape += [1] * (after.stop - after.start)
    else:
      full += old[before]
      shape += new[after]
  if math.prod(full) > MAX_SIZE:
    return None
  out = np.broadcast_to(pattern, full).reshape(shape)
  for axis in range(1, out.ndim):
    first = np.take(out, [0], axis)
    if out.shape[axis] > 1 and bool((out == first).all()):
      out = first
  return [out]


def _groups(old: tuple[int, ...], new: tuple[int, ...]):
  """The axes of both shapes that a reshape maps to each other."""
  i = j = 0
  while i < len(old) or j < len(new):
    start, stop = i, j
    a = b = 1
    if i < len(old):
      a, i = old[i], i + 1
    if j < len(new):
      b, j = new[j], j + 1
    while a != b:
      if a < b:
        a, i = a * old[i], i + 1
      else:
        b, j = b * new[j], j + 1
    yield slice(start, i), slice(stop, j)


def _squeeze(eqn, ins):
  axes = tuple(axis + 1 for axis in eqn.params['dimensions'])
  return [np.squeeze(ins[0], axes)]


def _transpose(eqn, ins):
  order = (0, *(axis + 1 for axis in eqn.params['permutation']))
  return [ins[0].transpose(order)]


def _rev(eqn, ins):
  axes = tuple(axis + 1 for axis in eqn.params['dimensions'])
  return [np.flip(ins[0], axes)]


def _slice(eqn, ins):
  (out,), params = ins, eqn.params
  strides = params['strides'] or (1,) * (out.ndim - 1)
  limits = zip(
    params['start_indices'], params['limit_indices'], strides, strict=True
  )
  for axis, index in enumerate(limits):
    out = _take(out, axis, slice(*index))
  return [out]


def _pad(eqn, ins):
  if ins[0] is None or ins[1] is not None:
    return None
  (out, _), shape = ins, eqn.invars[0].aval.shape
  for axis, config in enumerate(eqn.params['padding_config']):
    low, high, inner = map(int, config)
    if (low, high, inner) == (0, 0, 0):
      continue
    size = shape[axis]
    if low < 0 or high < 0 or out.size * (low + high + size) > MAX_SIZE:
      return None
    length = low + high + size + max(size - 1, 0) * inner
    wide = np.zeros(
      (*out.shape[: axis + 1], length, *out.shape[axis + 2 :]), bool
    )
    places = slice(low, low + size + max(size - 1, 0) * inner, inner + 1)
    wide[(slice(None),) * (axis + 1) + (places,)] = out
    out = wide
  return [out]


def _concatenate(eqn, ins):
  axis = eqn.params['dimension'] + 1
  return _join([x.aval.shape for x in eqn.invars], ins, axis)


def _stack(eqn, ins):
  axis = eqn.params['axis']
  shape = list(eqn.invars[0].aval.shape)
  shape.insert(axis, 1)
  wide = [None if p is None else np.expand_dims(p, axis + 1) for p in ins]
  return _join([shape] * len(ins), wide, axis + 1)


def _join(shapes, ins, axis):
  known = [p for p in ins if p is not None]
  rest = [
    max(sizes)
    for sizes in zip(
      *(p.shape[:axis] + p.shape[axis + 1 :] for p in known), strict=True
    )
  ]
  parts = []
  for shape, p in zip(shapes, ins, strict=True):
    full = (*rest[:axis], shape[axis - 1], *rest[axis:])
    if math.prod(full) > MAX_SIZE:
      return None
    parts.append(
      np.zeros(full, bool) if p is None else np.broadcast_to(p, full)
    )
  return [np.concatenate(parts, axis)]


def _split(eqn, ins):
  axis, start, outs = eqn.params['axis'], 0, []
  for size in eqn.params['sizes']:
    outs.append(_take(ins[0], axis, slice(start, start + size)))
    start += size
  return outs


def _unstack(eqn, ins):
  axis = eqn.params['axis']
  return [
    _take(ins[0], axis, slice(i, i + 1)).squeeze(axis + 1)
    for i in range(len(eqn.outvars))
  ]


def _reduce(eqn, ins):
  return [ins[0].any(tuple(axis + 1 for axis in eqn.params['axes']))]


def _cumulative(eqn, ins):
  axis = eqn.params['axis'] + 1
  return [ins[0]] if ins[0].shape[axis] == 1 else None


def _dot_general(eqn, ins):
  if all(p is not None for p in ins):
    return None
  side = 0 if ins[0] is not None else 1
  contract, batch = eqn.params['dimension_numbers']
  pattern = ins[side].any(
    tuple(axis + 1 for axis in contract[side]), keepdims=True
  )
  taken = [(*contract[i], *batch[i]) for i in (0, 1)]
  free = [
    [a for a in range(x.aval.ndim) if a not in taken[i]]
    for i, x in enumerate(eqn.invars)
  ]
  sizes = [pattern.shape[a + 1] for a in batch[side]]
  for i in (0, 1):
    sizes += [pattern.shape[a + 1] if i == side else 1 for a in free[i]]
  order = [0, *(a + 1 for a in (*batch[side], *free[side], *contract[side]))]
  return [pattern.transpose(order).reshape(len(pattern), *sizes)]


def _convolution(eqn, ins):
  """All entries, if all go in."""
  (pattern,) = (p for p in ins if p is not None)
  if not _blank(pattern):
    return None
  return [whole(pattern, eqn.outvars[0].aval.ndim)]


# From an equation and the patterns of its inputs to those of its outputs; None
# where that is not known.
RULES = {
  'elementwise': _elementwise,
  'broadcast_in_dim': _broadcast_in_dim,
  'concatenate': _concatenate,
  'conv_general_dilated': _convolution,
  'dot_general': _dot_general,
  'pad': _pad,
  'reduce_sum': _reduce,
  'reshape': _reshape,
  'rev': _rev,
  'slice': _slice,
  'split': _split,
  'squeeze': _squeeze,
  'stack': _stack,
  'transpose': _transpose,
  'unstack': _unstack,
  **dict.fromkeys(_CUMULATIVE, _cumulative),
}

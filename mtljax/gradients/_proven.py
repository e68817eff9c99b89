"""What may take part in layer-wise products: primitives and their dtypes.

A parameter takes part where its inner products are proven to be those of its
gradients: every primitive below, in the dtypes beside it, is compared with the
jacobian by the tests. All else, a primitive that is new, a dtype that is not
named, an option that was added since or a size that is not known, is pulled
back once a task.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend import core

REAL = ('bfloat16', 'float16', 'float32', 'float64')
INTEGERS = tuple(f'{u}int{n}' for u in ('', 'u') for n in (8, 16, 32, 64))


class Rule(NamedTuple):
  """How a primitive takes part.

  Attributes:
    operands: dtypes of each operand.
    options: the parameters of the primitive that the rule knows.
  """

  operands: tuple[tuple[str, ...], ...]
  options: tuple[str, ...] = ()


# What may happen to a parameter before it meets the data: its entries change
# place or precision, and each stays there once.
MOVES = {
  'broadcast_in_dim': Rule(
    (REAL,), ('shape', 'broadcast_dimensions', 'sharding')
  ),
  'convert_element_type': Rule((REAL,), ('new_dtype', 'weak_type', 'sharding')),
  'copy': Rule((REAL,)),
  'reshape': Rule((REAL,), ('new_sizes', 'dimensions', 'sharding')),
  'rev': Rule((REAL,), ('dimensions',)),
  'squeeze': Rule((REAL,), ('dimensions',)),
  'transpose': Rule((REAL,), ('permutation',)),
}

# Where it meets the data, in a product that is linear in it.
PRODUCTS = {
  'dot_general': Rule(
    (REAL, REAL),
    (
      'dimension_numbers',
      'precision',
      'preferred_element_type',
      'out_sharding',
    ),
  ),
  'conv_general_dilated': Rule(
    (REAL, REAL),
    (
      'window_strides',
      'padding',
      'lhs_dilation',
      'rhs_dilation',
      'dimension_numbers',
      'feature_group_count',
      'batch_group_count',
      'precision',
      'preferred_element_type',
      'out_sharding',
    ),
  ),
  'gather': Rule(
    (REAL, INTEGERS),
    (
      'dimension_numbers',
      'slice_sizes',
      'unique_indices',
      'indices_are_sorted',
      'mode',
      'fill_value',
    ),
  ),
}

# The options of a loop whose slices are known. How many of its inputs are
# constants, and how many are carried, is said by the one pair or the other,
# after the release of jax; `loop_parts` reads it off the program.
LOOP = ('jaxpr', 'length', 'reverse', 'unroll')
LOOP_PARTS = (('num_carry', 'num_consts'), ('ft_in', 'ft_out'))
# Names and options of a part that is computed again in the backward pass.
REMATS = ('checkpoint', 'remat', 'remat2')
REMAT = ('differentiated', 'jaxpr', 'policy', 'prevent_cse')


def is_real(aval: Any) -> bool:
  """Whether it is an array of real floats, of known size, on no mesh."""
  dtype = getattr(aval, 'dtype', None)
  if dtype is None or dtype.name not in REAL or not is_static(aval.shape):
    return False
  return bool(aval.size) and aval.sharding.mesh.empty


def is_loop(eqn: core.JaxprEqn) -> bool:
  """Whether it is a loop that does nothing but compute, of known length."""
  if eqn.primitive.name != 'scan' or eqn.effects:
    return False
  length = eqn.params.get('length')
  known = any(_knows(eqn, (*LOOP, *parts)) for parts in LOOP_PARTS)
  return known and isinstance(length, int) and length > 0


def loop_parts(eqn: core.JaxprEqn) -> tuple[int, int]:
  """How many inputs of a `jax.lax.scan` are constants, and how many carried.

  Inputs are constants, carries and what is scanned over, in this order; outputs
  are carries and what is stacked. What is scanned over or stacked lacks an axis
  inside; the rest is as outside.
  """
  body = getattr(eqn.params['jaxpr'], 'jaxpr', eqn.params['jaxpr'])

  def whole(outer, inner):
    pairs = zip(outer, inner, strict=True)
    return sum(_ndim(a) == _ndim(b) for a, b in pairs)

  carry = whole(eqn.outvars, body.outvars)
  return whole(eqn.invars, body.invars) - carry, carry


def _ndim(x: Any) -> int:
  return getattr(x.aval, 'ndim', 0)


def is_remat(eqn: core.JaxprEqn) -> bool:
  """Whether it computes, and is computed again in the backward pass."""
  if eqn.primitive.name not in REMATS or eqn.effects:
    return False
  p = eqn.params
  known = _knows(eqn, REMAT) and isinstance(p['prevent_cse'], bool)
  return known and not p['differentiated']


def _knows(eqn: core.JaxprEqn, names: Collection[str]) -> bool:
  rest = set(eqn.params) - set(names)
  return set(names) <= set(eqn.params) and not any(
    eqn.params[name] for name in rest
  )


def is_move(eqn: core.JaxprEqn) -> bool:
  """Whether the entries of its input are those of its output, moved."""
  return (
    _follows(MOVES, eqn) and eqn.invars[0].aval.size == eqn.outvars[0].aval.size
  )


def is_product(eqn: core.JaxprEqn) -> bool:
  """Whether it may be a product of a parameter with data."""
  avals = [x.aval for x in (*eqn.invars, *eqn.outvars)]
  return _follows(PRODUCTS, eqn) and all(a.size for a in avals)


def holds(dtype: Any, length: int) -> bool:
  """Whether an integer type holds the length of a table."""
  return int(jnp.iinfo(dtype).max) >= length


def is_static(shape: Collection[Any]) -> bool:
  """Whether all sizes are known, as in a program for any batch they are not."""
  return all(isinstance(size, int) for size in shape)


def _follows(rules: dict[str, Rule], eqn: core.JaxprEqn) -> bool:
  rule = rules.get(eqn.primitive.name)
  if rule is None or len(eqn.outvars) != 1:
    return False
  if len(eqn.invars) != len(rule.operands):
    return False
  unknown = set(eqn.params) - set(rule.options)
  if any(eqn.params[name] is not None for name in unknown):
    return False
  dtypes = (*rule.operands, REAL)
  return all(
    is_static(x.aval.shape) and x.aval.dtype.name in names
    for x, names in zip((*eqn.invars, *eqn.outvars), dtypes, strict=True)
  )

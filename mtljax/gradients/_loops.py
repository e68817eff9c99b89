"""Parameters inside of loops, whose gradients no one needs to hold.

A `jax.lax.scan` over layers reads slice i of a stacked parameter in iteration
i, and every entry lies in one slice. So inner products are sums over slices,

    <g_s, g_t> = sum_i <g_s[i], g_t[i]>,

which the backward loop adds up as it goes: T gradients of one slice are held,
never T of the stack. How:

1. In the body the slice passes through `_mark`, the identity, which takes an
   accumulator beside it, a constant of the loop. Where the slice meets the data
   in one product that is cheaper by K (see `_kernels`), that product's output
   is marked instead, and not even the gradients of a slice are formed.
2. The mark's derivative gives the accumulator row t of the products as its
   cotangent. The tasks are pulled back together by `jax.vmap`, whose rule for
   `_row` sees the gradients of all T at once.
3. Autodiff sums the cotangents of a loop's constants in its carry, through
   loops in loops, rematerialization, conditionals and custom derivatives.
4. What the body does with a slice is autodiff's too, so nothing in it needs a
   proof; the loop, that it reads slices, and their dtype do.
5. A parameter that a loop reads as a constant or a carry, or that is read
   elsewhere too, has products between iterations: it is pulled back T times.
6. No gradient is kept, so the update takes one weighted backward pass more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from mtljax import _tree
from mtljax.gradients import _proven

Tag = Callable[[Any, Sequence[Any], jax.Array], Any]


def enters(eqn: core.JaxprEqn, position: int) -> bool:
  """Whether an input of an operation is followed inside of it."""
  if not _proven.is_real(eqn.invars[position].aval):
    return False
  if _proven.is_loop(eqn):
    return position >= sum(_proven.loop_parts(eqn))
  return _proven.is_remat(eqn)


def held(eqn: core.JaxprEqn) -> core.ClosedJaxpr:
  """The program that is inside of it."""
  jaxpr = eqn.params['jaxpr']
  if isinstance(jaxpr, core.ClosedJaxpr):
    return jaxpr
  return core.ClosedJaxpr(jaxpr, [])


def run(
  eqn: core.JaxprEqn,
  values: Sequence[Any],
  body: Callable[[Sequence[Any]], Sequence[Any]],
  marks: Mapping[int, jax.Array],
) -> list[Any]:
  """The outputs of a loop, or of a rematerialized part.

  Args:
    eqn: the operation.
    values: its inputs.
    body: what is inside of it.
    marks: by the position of an input, the accumulator of its slices.
  """
  params = eqn.params
  if _proven.is_remat(eqn):
    again = jax.checkpoint(
      lambda *values: tuple(body(values)),
      prevent_cse=params['prevent_cse'],
      policy=params['policy'],
    )
    return list(again(*values))
  num_consts, num_carry = _proven.loop_parts(eqn)
  first = num_consts + num_carry

  def step(carry, slices):
    slices = list(slices)
    for position, total in marks.items():
      slices[position - first] = _mark(slices[position - first], total)
    outs = body([*values[:num_consts], *carry, *slices])
    return tuple(outs[:num_carry]), tuple(outs[num_carry:])

  carry, stacked = jax.lax.scan(
    step,
    tuple(values[num_consts:first]),
    tuple(values[first:]),
    length=params['length'],
    reverse=params['reverse'],
    unroll=params['unroll'],
  )
  return [*carry, *stacked]


def make_tag(
  products: Callable[[jax.Array, Sequence[Any]], jax.Array],
) -> Tag:
  """Marks a value, whose T gradients tell the products of a parameter's.

  Args:
    products: ``products(signals, inputs)``: from them ``(T, ...)``, and what
      else went into the operation, the products ``(T, T)``.
  """

  @jax.custom_batching.custom_vmap
  def row(signal, inputs, total):
    return _padded(products(signal[None], inputs), total)[0]

  @row.def_vmap
  def rows(num_tasks, batched, signals, inputs, total):
    if any(jax.tree.leaves(batched[1:])):
      return _unknown(num_tasks, total), True
    if not batched[0]:
      signals = jnp.broadcast_to(signals, (num_tasks, *signals.shape))
    return _padded(products(signals, inputs), total), True

  @jax.custom_vjp
  def tag(out, inputs, total):
    del inputs, total
    return out

  def tag_bwd(saved, signal):
    return signal, None, row(signal, *saved)

  tag.defvjp(lambda out, inputs, total: (out, (inputs, total)), tag_bwd)
  return tag


_tag_slice = make_tag(
  lambda gradients, _: _tree.leaf_products(gradients, gradients)
)


def _mark(x: jax.Array, total: jax.Array) -> jax.Array:
  return _tag_slice(x, (), total)


def _padded(products: jax.Array, total: jax.Array) -> jax.Array:
  """The products of T tasks in as many columns as there may be tasks."""
  rest = total.shape[-1] - len(products)
  if rest < 0:
    return _unknown(len(products), total)
  return jnp.pad(products.astype(total.dtype), ((0, 0), (0, rest)))


def _unknown(count: int, total: jax.Array) -> jax.Array:
  """What a sweep, whose members are no tasks, is told, and does not read."""
  return jnp.full((count, total.shape[-1]), jnp.nan, total.dtype)

"""Stacked parameters, of which a loop reads one slice an iteration.

A `jax.lax.scan` over layers reads slice i of a stacked parameter in iteration
i, and every entry lies in one slice. So inner products are sums over slices,

    <g_s, g_t> = sum_i <g_s[i], g_t[i]>,

which the backward loop adds up as it goes: T gradients of one slice are held,
never T of the stack. How:

1. In the body the slice passes through `_mark`, the identity, which takes an
   accumulator beside it, a constant of the loop.
2. Its derivative gives the accumulator row t of the products as its cotangent.
   The tasks are pulled back together by `jax.vmap`, so the rule of `_row` sees
   the gradients of all T at once.
3. Autodiff sums the cotangents of a loop's constants in its carry, through
   loops in loops, rematerialization, conditionals and custom derivatives.
4. What the body does with the slice is autodiff's too, so nothing in it needs
   a proof; the loop, that it reads slices, and their dtype do.
5. A parameter that a loop reads as a constant or a carry, or that is read
   elsewhere too, has products between iterations: it is pulled back T times.
6. No gradient is kept, so the update takes one weighted backward pass more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from mtljax import _tree
from mtljax.gradients import _proven


def reads_slices(eqn: core.JaxprEqn, position: int) -> bool:
  """Whether it is a loop that reads an input slice by slice."""
  if not _proven.is_loop(eqn):
    return False
  aval = eqn.invars[position].aval
  first = eqn.params['num_consts'] + eqn.params['num_carry']
  return position >= first and _proven.is_real(aval)


def run(
  eqn: core.JaxprEqn, values: Sequence[Any], sums: Mapping[int, jax.Array]
) -> list[Any]:
  """The outputs of a loop.

  Args:
    eqn: the loop.
    values: its inputs.
    sums: by the position of an input, the accumulator of its slices.
  """
  params, body = eqn.params, core.jaxpr_as_fun(eqn.params['jaxpr'])
  num_consts, num_carry = params['num_consts'], params['num_carry']
  first = num_consts + num_carry

  def step(carry, slices):
    slices = list(slices)
    for position, total in sums.items():
      slices[position - first] = _mark(slices[position - first], total)
    outs = body(*values[:num_consts], *carry, *slices)
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


@jax.custom_vjp
def _mark(x: jax.Array, total: jax.Array) -> jax.Array:
  del total
  return x


def _mark_bwd(total, gradient):
  return gradient, _row(gradient, total)


_mark.defvjp(lambda x, total: (x, total), _mark_bwd)


@jax.custom_batching.custom_vmap
def _row(gradient: jax.Array, total: jax.Array) -> jax.Array:
  """A task's inner products with all tasks, which `jax.vmap` tells it of."""
  return _padded(gradient[None], total)[0]


@_row.def_vmap
def _rows(num_tasks, batched, gradients, total):
  if not batched[0]:
    gradients = jnp.broadcast_to(gradients, (num_tasks, *gradients.shape))
  return _padded(gradients, total), True


def _padded(gradients, total):
  """Inner products ``(T, N)``, the first T of them."""
  found = _tree.leaf_products(gradients, gradients).astype(total.dtype)
  rest = total.shape[-1] - len(found)
  if rest < 0:  # not the tasks, but a sweep, of which none is asked for
    return jnp.full((len(found), total.shape[-1]), jnp.nan, total.dtype)
  return jnp.pad(found, ((0, 0), (0, rest)))

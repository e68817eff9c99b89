"""Counted work: which way to a weighted sum of gradients is the shorter.

Times depend on the machine, so multiplications decide, and numbers that are
moved, at the price of so many multiplications each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
from jax.extend import core

from mtljax.gradients import _kernels, _proven

#: Multiplications in the time that a number takes to come from memory: about
#: what a core or an accelerator does in single precision.
MOVE = 16
_WITH_KEPT = ('div', 'mul', 'select_n')


class Work(NamedTuple):
  """Multiplications of a forward pass, in products and convolutions.

  Attributes:
    forward: of all.
    again: of the parts that a backward pass computes again.
  """

  forward: int = 0
  again: int = 0

  def __add__(self, other: Work) -> Work:  # pyrefly: ignore
    return Work(self.forward + other.forward, self.again + other.again)


def of_equations(eqns: Iterable[core.JaxprEqn]) -> Work | None:
  """The work of equations, those inside of loops as often as they run.

  Of a conditional it is that of the longest branch, of a loop of unknown length
  that of one iteration; None where sizes are unknown.
  """
  total = Work()
  for eqn in eqns:
    one = _of_equation(eqn)
    if one is None:
      return None
    total = total + one
  return total


def _of_equation(eqn: core.JaxprEqn) -> Work | None:
  name, p = eqn.primitive.name, eqn.params
  if name in ('dot_general', 'conv_general_dilated'):
    avals = [x.aval for x in (*eqn.invars, *eqn.outvars)]
    if not all(_proven.is_static(a.shape) for a in avals):
      return None
    left, right, out = (a.shape for a in avals)
    if name == 'dot_general':
      inner = [left[i] for i in p['dimension_numbers'][0][0]]
    else:
      # Groups divide the kernel's inputs already.
      inner = [right[i] for i in p['dimension_numbers'].rhs_spec[1:]]
    return Work(math.prod(out) * math.prod(inner))
  found = [of_equations(jaxpr.eqns) for jaxpr in core.jaxprs_in_params(p)]
  parts = [x for x in found if x is not None]
  if len(parts) < len(found):
    return None
  if name == 'cond':
    return max(parts)
  total = sum(parts, start=Work())
  if name in _proven.REMATS:
    return Work(total.forward, total.forward)
  times = p['length'] if name == 'scan' else 1
  if not isinstance(times, int):
    return None
  return Work(times * total.forward, times * total.again)


class Contents(NamedTuple):
  """What a backward pass is made of.

  Attributes:
    made: numbers that its operations make.
    shared: those among them made with what the forward pass kept.
    convolutions: how many convolutions it has.
    loops: how many loops and parts that are computed again have products.
  """

  made: int = 0
  shared: int = 0
  convolutions: int = 0
  loops: int = 0

  def __add__(self, other: Contents) -> Contents:  # pyrefly: ignore
    return Contents(*(a + b for a, b in zip(self, other, strict=True)))


def contents(eqns: Iterable[core.JaxprEqn]) -> Contents:
  """Those of equations; what is in a loop counts once."""
  total = Contents()
  for eqn in eqns:
    name = eqn.primitive.name
    inner = list(core.jaxprs_in_params(eqn.params))
    again = name in ('scan', 'while') or name in _proven.REMATS
    for jaxpr in inner:
      total = total + contents(jaxpr.eqns)
      total = total + Contents(loops=int(again and _has_products(jaxpr.eqns)))
    shapes = [v.aval.shape for v in eqn.outvars]
    if not inner and all(map(_proven.is_static, shapes)):
      made = sum(map(math.prod, shapes))
      total = total + Contents(
        made=made,
        shared=made if name in _WITH_KEPT else 0,
        convolutions=int(name == 'conv_general_dilated'),
      )
  return total


def _has_products(eqns: Iterable[core.JaxprEqn]) -> bool:
  work = of_equations(eqns)
  return work is None or work.forward > 0


def is_longer(
  work: Work,
  params: Sequence[jax.Array],
  layers: Mapping[int, _kernels.Layer],
  num_tasks: int,
  unrolled: bool,
) -> bool:
  """Whether the Gramian alone and a weighted pass are more work than T rows.

  Args:
    work: of the forward pass.
    params: what gradients are taken of.
    layers: by their numbers, those whose inner products are taken by K, of a
      slice where a loop reads them.
    num_tasks: T.
    unrolled: whether the T passes to rows compute parts again T times.
  """
  again = work.again * (2 - num_tasks if unrolled else 1)
  extra = 2 * work.forward + again
  for i, param in enumerate(params):
    extra -= num_tasks * param.size * MOVE  # what combines the rows reads them
    if i in layers:
      by_kernel, by_rows = _kernels.costs(layers[i], num_tasks)
      extra -= (by_rows - by_kernel) * (param.size // layers[i].size)
  return extra > 0

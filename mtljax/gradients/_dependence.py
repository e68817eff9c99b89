"""Which tasks' losses a gradient comes from, told by the backward pass.

A backward pass is linear in the cotangents of the losses. Its jaxpr is walked
once, with the pattern of every value: for each task, which entries its
cotangent reaches. What no gradient flows through (`jax.lax.stop_gradient`,
integers) is not there any more, and nothing is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from mtljax._jaxprs import is_var
from mtljax.gradients import _proven, _varying
from mtljax.gradients._patterns import (
  ELEMENTWISE,
  MAX_SIZE,
  RULES,
  Pattern,
  same,
  union,
  whole,
)

_CALLS = (
  'checkpoint',
  'closed_call',
  'core_call',
  'custom_jvp_call',
  'custom_vjp_call',
  'custom_vjp_call_jaxpr',
  'jit',
  'pjit',
  'remat',
  'remat2',
)
_PRODUCTS = ('conv_general_dilated', 'dot_general', 'mul')


class Traced:
  """A backward pass as a jaxpr, which is read and run in place of it.

  Running it costs less than to trace the pass again.
  """

  def __init__(self, pull: Callable[[Any], Any], out: Any):
    """Traces ``pull`` of cotangents like ``out``."""
    self._closed, shape = jax.make_jaxpr(pull, return_shape=True)(out)
    self._treedef = jax.tree.structure(shape)
    self._pull = _varying.of_outputs(self._run, out)

  def __call__(self, cotangents: Any) -> Any:
    """What ``pull`` gives."""
    return self._pull(cotangents)

  def _run(self, cotangents: Any) -> Any:
    outs = core.jaxpr_as_fun(self._closed)(*jax.tree.leaves(cotangents))
    return jax.tree.unflatten(self._treedef, outs)

  def reach(self, patterns: Sequence[Pattern], num_tasks: int) -> Any:
    """The tree of patterns of its output, from those of the cotangents.

    They hold at least what is there.
    """
    found = _Walk(num_tasks, proven=False).run(
      self._closed.jaxpr, list(patterns), [False] * len(patterns)
    )
    return jax.tree.unflatten(self._treedef, found)


def proven(
  fun: Callable[[Any, Any], jax.Array], shared: Any, own: Any, num_tasks: int
) -> list[Pattern]:
  """What the gradient of each leaf of ``own`` depends on for certain.

  Args:
    fun: ``fun(shared, own)``: the losses ``(T,)``.
    shared: leaves.
    own: leaves.
    num_tasks: T.

  Returns:
    The pattern of every leaf of ``own``. A factor that does not depend on
    the parameters may be a mask, so nothing is certain behind it.
  """

  def pulled(shared, own, cotangent):
    return jax.vjp(lambda own: fun(shared, own), own)[1](cotangent)[0]

  try:
    losses = jax.eval_shape(fun, shared, own)
    closed = jax.make_jaxpr(pulled)(
      shared, own, jnp.zeros(losses.shape, losses.dtype)
    )
  except jax.errors.JAXTypeError:  # Python conditions on values
    return [None] * len(own)
  count = len(jax.tree.leaves((shared, own)))
  walk = _Walk(num_tasks, proven=True)
  return walk.run(
    closed.jaxpr,
    [None] * count + [np.eye(num_tasks, dtype=bool)],
    [True] * count + [False],
  )


def one_task(task: int, num_tasks: int, ndim: int = 0) -> np.ndarray:
  """The pattern of a value that is one task's."""
  return (np.arange(num_tasks) == task).reshape(-1, *[1] * ndim)


def readers(pattern: Pattern) -> np.ndarray:
  """The tasks that reach any entry."""
  if pattern is None:
    return np.zeros(0, int)
  return np.flatnonzero(pattern.reshape(len(pattern), -1).any(1))


def _is_known(eqn: core.JaxprEqn) -> bool:
  """Whether a loop's parameters are those that are read here."""
  names = ('jaxpr',)
  if eqn.primitive.name == 'while':
    names = ('body_jaxpr', 'body_nconsts', 'cond_nconsts')
  return all(name in eqn.params for name in names)


def _ndim(x: Any) -> int:
  return getattr(x.aval, 'ndim', 0)


def _body(params: Any) -> core.Jaxpr | None:
  """The jaxpr of a call."""
  for key in ('jaxpr', 'call_jaxpr', 'fun_jaxpr'):
    if key in params:
      return getattr(params[key], 'jaxpr', params[key])
  return None


class _Walk:
  """Goes through a jaxpr; ``proven``: patterns of what is certain only."""

  def __init__(self, num_tasks: int, proven: bool):
    self.num_tasks = num_tasks
    self.proven = proven

  def run(
    self,
    jaxpr: core.Jaxpr,
    patterns: Sequence[Pattern],
    active: Sequence[bool],
  ) -> list[Pattern]:
    """The patterns of its outputs; ``active``: inputs made of parameters."""
    env = {
      x: p for x, p in zip(jaxpr.invars, patterns, strict=True) if p is not None
    }
    live = {x for x, on in zip(jaxpr.invars, active, strict=True) if on}
    for eqn in jaxpr.eqns:
      ins = [env.get(x) if is_var(x) else None for x in eqn.invars]
      on = [is_var(x) and x in live for x in eqn.invars]
      if all(p is None for p in ins):
        if any(on):
          live.update(eqn.outvars)
        continue
      for x, p in zip(eqn.outvars, self.step(eqn, ins, on), strict=True):
        if p is not None and p.any():
          env[x] = p if p.size <= MAX_SIZE else self.lost([p], x.aval.ndim)
    return [env.get(x) if is_var(x) else None for x in jaxpr.outvars]

  def lost(self, ins: Sequence[Pattern], ndim: int) -> Pattern:
    """Where it is not known which entry depends on which."""
    if self.proven:
      return None
    return union(*(whole(p, ndim) for p in ins))

  def step(
    self, eqn: core.JaxprEqn, ins: list[Pattern], on: list[bool]
  ) -> list[Pattern]:
    """The patterns of an equation's outputs."""
    name = eqn.primitive.name
    if name in _CALLS and (body := _body(eqn.params)) is not None:
      if len(body.invars) == len(ins):
        return self.run(body, ins, on)
    if name == 'cond':
      return self.cond(eqn, ins, on)
    if name in ('scan', 'while') and not self.proven and _is_known(eqn):
      return self.loop(eqn, ins)
    if self.proven and not self.certain(eqn, ins, on):
      return [None] * len(eqn.outvars)
    if name in ELEMENTWISE and len(eqn.outvars) > 1:
      return ins
    ndims = [_ndim(x) for x in eqn.outvars]
    rule = RULES.get('elementwise' if name in ELEMENTWISE else name)
    if rule is not None:
      found = rule(eqn, ins)
      if found is not None:
        return found
    return [self.lost(ins, ndim) for ndim in ndims]

  def certain(self, eqn, ins, on) -> bool:
    """Whether what goes in is certain to reach what comes out."""
    name = eqn.primitive.name
    if name == 'select_n':
      return on[0]
    if name not in _PRODUCTS:
      return True
    others = [i for i, p in enumerate(ins) if p is None]
    if len(others) != 1:
      return False
    (other,) = others
    x = eqn.invars[other]
    return on[other] if is_var(x) else bool(np.all(x.val != 0))

  def cond(self, eqn, ins, on) -> list[Pattern]:
    found = [
      self.run(branch.jaxpr, ins[1:], on[1:])
      for branch in eqn.params['branches']
    ]
    outs = []
    for of_branches in zip(*found, strict=True):
      if not self.proven:
        outs.append(union(*of_branches))
      elif any(p is None for p in of_branches):
        outs.append(None)
      else:
        total = of_branches[0]
        for p in of_branches[1:]:
          total = total & p
        outs.append(total)
    return outs

  def loop(self, eqn, ins) -> list[Pattern]:
    """Goes round until no pattern grows."""
    params = eqn.params
    if eqn.primitive.name == 'scan':
      body, skip = params['jaxpr'].jaxpr, 0
      consts, carry = _proven.loop_parts(eqn)
    else:
      body, skip = params['body_jaxpr'].jaxpr, params['cond_nconsts']
      consts, carry = params['body_nconsts'], len(eqn.outvars)
    ndims = [_ndim(x) for x in body.invars]
    now = [whole(p, n) for p, n in zip(ins[skip:], ndims, strict=True)]
    while True:
      outs = self.run(body, now, [False] * len(now))
      grown = list(now)
      for i in range(carry):
        j = consts + i
        grown[j] = union(now[j], whole(outs[i], ndims[j]))
      if all(map(same, grown, now)):
        break
      now = grown
    return [
      union(
        whole(p, _ndim(x)),
        whole(ins[skip + consts + i], _ndim(x)) if i < carry else None,
      )
      for i, (p, x) in enumerate(zip(outs, eqn.outvars, strict=True))
    ]

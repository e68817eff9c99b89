"""A function as a list of operations, and where parameters enter it.

The layer-wise Gramian needs two things of every layer: what went in, and the
gradient of each task at what came out. Both are found in the function's jaxpr,
so a layer takes part by being computed by `jax.lax` operations, whatever module
system it is written in.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from mtljax._jaxprs import CALLS, inner, run_equation
from mtljax.gradients import _loops, _proven


class Op(NamedTuple):
  """An equation whose variables are numbered."""

  eqn: core.JaxprEqn
  ins: tuple[Any, ...]
  outs: tuple[int, ...]
  of: core.Jaxpr

  def __call__(self, *values: Any) -> list[Any]:
    """Its outputs, from the values of its inputs."""
    return run_equation(self.eqn, self.of, values)


class Origin(NamedTuple):
  """A value made of one parameter alone: which, and by what moves."""

  param: int
  moves: tuple[Op, ...] = ()

  @property
  def keeps_axes(self) -> bool:
    """Whether the value has the parameter's axes."""
    kept = ('convert_element_type', 'copy')
    return all(move.eqn.primitive.name in kept for move in self.moves)

  def __call__(self, param: Any) -> Any:
    """The value, from the parameter."""
    for move in self.moves:
      (param,) = move(param)
    return param


@dataclasses.dataclass(frozen=True)
class Use:
  """A parameter meets the data.

  Attributes:
    site: the number of the operation among `Program.sites`.
    op: the operation.
    position: which of its inputs is the parameter.
    origin: what was done to the parameter before.
  """

  site: int
  op: Op
  position: int
  origin: Origin

  def output(self, param: Any, inputs: Sequence[Any]) -> Any:
    """The output of the operation as a function of the parameter."""
    values = list(inputs)
    values[self.position] = self.origin(param)
    return self.op(*values)[0]

  def pull(self, param: Any, inputs: Sequence[Any], signal: Any) -> Any:
    """The parameter's gradient, from the gradient at the output."""
    return jax.vjp(lambda p: self.output(p, inputs), param)[1](signal)[0]


class Inside(NamedTuple):
  """A parameter, or a slice of it, enters an operation that holds a program.

  Attributes:
    place: the number of the operation among `Program.ops`.
    position: which of its inputs is the parameter.
    origin: what was done to the parameter before.
    sliced: whether it is read slice by slice, here or farther inside.
    use: where it meets the data inside, in one proven product, or None.
  """

  place: int
  position: int
  origin: Origin
  sliced: bool
  use: Use | None


class Sum(NamedTuple):
  """Where the products of a parameter's gradients are added up.

  Attributes:
    total: an accumulator, see `_loops`.
    tag: from the signal at `Inside.use`, by ``tag(out, inputs, total)``; None:
      from the slices' gradients.
  """

  total: jax.Array
  tag: _loops.Tag | None = None


@dataclasses.dataclass(frozen=True)
class Program:
  """A traced function of a list of parameters and of anything else.

  Attributes:
    ops: its operations.
    consts: the numbered values that it closes over.
    num_inputs: the number of its inputs, which are numbered first.
    outs: its outputs, by number or literal.
    sites: places in ``ops`` at which a parameter meets the data, of the kinds
      that were asked for.
    signals: the shapes and dtypes of the outputs of the sites.
    widest: bytes of the largest output of an operation, of known size.
    uses: for each parameter, its site; None if it meets the data elsewhere,
      more than once or never, is an output, or enters something that is not
      one operation (a loop, say) or is not proven (see `_proven`).
    inside: for each parameter, the loop or rematerialized part that it enters
      to be read slice by slice, or to be used once; None if neither, or if it
      is read elsewhere too.
    inner: by their numbers among the operations, those parts' programs. Their
      parameters are their inputs.
    met: for each parameter, the names of the operations that it enters;
      ``'output'`` where it is one itself.
  """

  ops: tuple[Op, ...]
  consts: dict[int, Any]
  num_inputs: int
  outs: tuple[Any, ...]
  sites: tuple[int, ...]
  signals: tuple[jax.ShapeDtypeStruct, ...]
  widest: int
  uses: tuple[Use | None, ...]
  inside: tuple[Inside | None, ...]
  inner: Mapping[int, Program]
  met: tuple[tuple[str, ...], ...]

  def __call__(
    self,
    inputs: Sequence[Any],
    taps: Sequence[Any],
    sums: Mapping[int, Sum],
  ) -> tuple[list[Any], list[tuple[Any, ...]]]:
    """Runs it.

    Args:
      inputs: its inputs.
      taps: what is added to the outputs of the sites.
      sums: by the parameter's number, where its products go.

    Returns:
      The outputs, and what went into each site.
    """
    seen = {}

    def watch(i, tap):
      def watched(values, out):
        seen[i] = tuple(values)
        return out + tap

      return watched

    pairs = zip(self.sites, taps, strict=True)
    outs = self.run(inputs, {i: watch(i, tap) for i, tap in pairs}, sums)
    return outs, [seen[i] for i in self.sites]

  def run(
    self,
    inputs: Sequence[Any],
    watch: Mapping[int, Callable[[Sequence[Any], Any], Any]],
    sums: Mapping[int, Sum],
  ) -> list[Any]:
    """Runs it; ``watch``: for some operations, what becomes of their output."""
    env = dict(self.consts) | dict(enumerate(inputs))
    read = lambda x: x.val if isinstance(x, core.Literal) else env[x]
    watch = dict(watch)
    within: dict[int, dict[int, Sum]] = {}
    for i, total in sums.items():
      inside, use = self.inside[i], self.uses[i]
      if inside is not None:
        within.setdefault(inside.place, {})[inside.position] = total
      elif use is not None:
        watch[self.sites[use.site]] = functools.partial(_tag, use, total)
    for i, op in enumerate(self.ops):
      values = [read(x) for x in op.ins]
      if i in within:
        outs = self.enter(i, values, within[i])
      else:
        outs = op(*values)
      if i in watch:
        outs = [watch[i](values, outs[0])]
      env.update(zip(op.outs, outs, strict=True))
    return [read(x) for x in self.outs]

  def enter(
    self, i: int, values: Sequence[Any], sums: Mapping[int, Sum]
  ) -> list[Any]:
    """Runs an operation that holds a program."""
    eqn, inner = self.ops[i].eqn, self.inner[i]
    marks, farther = {}, {}
    for position, total in sums.items():
      found = inner.inside[position]
      if total.tag is not None or (found is not None and found.sliced):
        farther[position] = total
      else:
        marks[position] = total.total
    body = lambda values: inner.run(values, {}, farther)
    return _loops.run(eqn, values, body, marks)


def _tag(use: Use, total: Sum, values: Sequence[Any], out: Any) -> Any:
  others = [None if i == use.position else x for i, x in enumerate(values)]
  assert total.tag is not None
  return total.tag(out, others, total.total)


class _Tracer:
  """Numbers the variables of a jaxpr, inlining calls that take parameters."""

  def __init__(self, num_params: int):
    self.ops: list[Op] = []
    self.consts: dict[int, Any] = {}
    self.origins = {i: Origin(i) for i in range(num_params)}
    self.entries: dict[int, list[tuple[int, Origin]]] = {}
    self.opaque: set[int] = set()
    self.met: dict[int, list[str]] = {i: [] for i in range(num_params)}
    self.count = 0

  def number(self) -> int:
    self.count += 1
    return self.count - 1

  def constant(self, value: Any) -> int:
    slot = self.number()
    self.consts[slot] = value
    return slot

  def inline(
    self, jaxpr: core.Jaxpr, consts: Sequence[Any], ins: Sequence[Any]
  ) -> list[Any]:
    env = dict(zip(jaxpr.invars, ins, strict=True))
    env.update(zip(jaxpr.constvars, map(self.constant, consts), strict=True))
    read = lambda x: x if isinstance(x, core.Literal) else env[x]
    for eqn in jaxpr.eqns:
      values = [read(x) for x in eqn.invars]
      env.update(zip(eqn.outvars, self.add(eqn, values, jaxpr), strict=True))
    return [read(x) for x in jaxpr.outvars]

  def find(self, ins: list[Any]) -> list[tuple[int, Origin]]:
    """The positions of inputs made of a parameter, and their origins."""
    return [
      (position, self.origins[x])
      for position, x in enumerate(ins)
      if not isinstance(x, core.Literal) and x in self.origins
    ]

  def add(
    self, eqn: core.JaxprEqn, ins: list[Any], jaxpr: core.Jaxpr
  ) -> list[Any]:
    found = self.find(ins)
    if found and eqn.primitive.name in CALLS:
      called = inner(eqn)
      return self.inline(called.jaxpr, called.consts, ins)
    outs = [self.number() for _ in eqn.outvars]
    op = Op(eqn, tuple(ins), tuple(outs), jaxpr)
    self.ops.append(op)
    if not found:
      return outs
    self.meet(eqn, found)
    if len(outs) != 1 or any(core.jaxprs_in_params(eqn.params)):
      entered = [x for x in found if _loops.enters(eqn, x[0])]
      self.opaque.update(o.param for x, o in found if (x, o) not in entered)
      self.entries[len(self.ops) - 1] = entered
    elif not jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.inexact):
      pass  # no gradient comes back
    elif _proven.is_move(eqn):
      ((_, origin),) = found
      self.origins[outs[0]] = Origin(origin.param, (*origin.moves, op))
    else:
      self.entries[len(self.ops) - 1] = found
    return outs

  def meet(self, eqn: core.JaxprEqn, found: Any) -> None:
    """Notes what parameters enter, unless it moves them or is no number."""
    floats = any(
      jnp.issubdtype(getattr(x.aval, 'dtype', jnp.float32), jnp.inexact)
      for x in eqn.outvars
    )
    if floats and not (len(eqn.outvars) == 1 and _proven.is_move(eqn)):
      for _, origin in found:
        self.met[origin.param].append(eqn.primitive.name)


def trace(
  fun: Callable[..., Any],
  params: Sequence[jax.Array],
  *rest: Any,
  kinds: Collection[str],
) -> tuple[Program, Any]:
  """Traces ``fun(params, *rest)``.

  Args:
    fun: the function.
    params: its parameters.
    *rest: its other arguments.
    kinds: the names of the operations that are sites.

  Returns:
    The program, whose inputs are the flattened arguments, and the shapes of the
    function's output.
  """
  closed, shape = jax.make_jaxpr(fun, return_shape=True)(list(params), *rest)
  return _read(closed, len(params), kinds), shape


def _read(
  closed: core.ClosedJaxpr, num_params: int, kinds: Collection[str]
) -> Program:
  jaxpr = closed.jaxpr
  tracer = _Tracer(num_params)
  ins = [tracer.number() for _ in jaxpr.invars]
  outs = tracer.inline(jaxpr, closed.consts, ins)
  given = {origin.param for _, origin in tracer.find(outs)}
  opaque = tracer.opaque | given
  for i in given:
    tracer.met[i].append('output')
  entries = [(i, *e) for i, found in tracer.entries.items() for e in found]
  times = collections.Counter(origin.param for *_, origin in entries)
  inner: dict[int, Program] = {}
  inside: list[Inside | None] = [None] * num_params
  found = []
  for i, position, origin in entries:
    eqn = tracer.ops[i].eqn
    if times[origin.param] != 1 or origin.param in opaque:
      continue
    if _loops.enters(eqn, position):
      if i not in inner:
        held = _loops.held(eqn)
        inner[i] = _read(held, len(held.jaxpr.invars), kinds)
      inside[origin.param] = _inside(eqn, i, position, origin, inner[i])
    elif eqn.primitive.name in kinds and _proven.is_product(eqn):
      found.append((i, position, origin))
  sites = tuple(dict.fromkeys(i for i, *_ in found))
  uses: list[Use | None] = [None] * num_params
  for i, position, origin in found:
    uses[origin.param] = Use(sites.index(i), tracer.ops[i], position, origin)
  avals = [tracer.ops[i].eqn.outvars[0].aval for i in sites]
  return Program(
    ops=tuple(tracer.ops),
    consts=tracer.consts,
    num_inputs=len(ins),
    outs=tuple(outs),
    sites=sites,
    signals=tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals),
    widest=max(map(_num_bytes, tracer.ops), default=0),
    uses=tuple(uses),
    inside=tuple(inside),
    inner=inner,
    met=tuple(map(tuple, tracer.met.values())),
  )


def _inside(
  eqn: core.JaxprEqn, place: int, position: int, origin: Origin, held: Program
) -> Inside | None:
  farther, use = held.inside[position], held.uses[position]
  sliced = _proven.is_loop(eqn)
  if farther is not None:
    sliced, use = sliced or farther.sliced, farther.use
  if not sliced and use is None:
    return None
  return Inside(place, position, origin, sliced, use)


def _num_bytes(op: Op) -> int:
  avals = [
    x.aval
    for x in op.eqn.outvars
    if hasattr(x.aval, 'dtype') and _proven.is_static(x.aval.shape)
  ]
  return max((a.size * a.dtype.itemsize for a in avals), default=0)

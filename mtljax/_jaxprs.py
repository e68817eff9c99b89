"""Traced functions: running one equation, and convolutions inside loops."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
from jax.extend import core

#: Calls that are only a name for what is inside.
CALLS = ('jit', 'pjit', 'closed_call')

_Fun = TypeVar('_Fun', bound=Callable[..., Any])


def inner(eqn: core.JaxprEqn) -> core.ClosedJaxpr:
  """What one of `CALLS` calls."""
  return eqn.params.get('jaxpr') or eqn.params['call_jaxpr']


def is_var(x: Any) -> bool:
  """Whether x is a variable, not a literal."""
  return not isinstance(x, core.Literal)


def run_equation(
  eqn: core.JaxprEqn, jaxpr: core.Jaxpr, values: Sequence[Any]
) -> list[Any]:
  """The outputs of an equation of ``jaxpr``, from the values of its inputs."""
  env = {x: v for x, v in zip(eqn.invars, values, strict=True) if is_var(x)}
  alone = jaxpr.replace(
    constvars=[],
    invars=list(env),
    outvars=eqn.outvars,
    eqns=[eqn],
    debug_info=jaxpr.debug_info._replace(arg_names=None, result_paths=None),
  )
  return core.jaxpr_as_fun(core.ClosedJaxpr(alone, []))(*env.values())


def canonical_convolutions(fun: _Fun) -> _Fun:
  """A function that computes the same, its convolutions channels-last.

  XLA on CPU has fast convolutions for images ``(N, H, W, C)`` and kernels
  ``(H, W, I, O)`` alone, and brings the others, the gradients with respect to
  kernels above all, into this form only outside of loops and conditionals:
  inside they take 10 to 40 times as long. Here they are transposed by hand, so
  the body of a `jax.lax.scan`, `jax.lax.map` or `jax.lax.cond` runs at the
  speed of a straight program. ``python -m benchmarks.conv`` has the figures.

  The library does this in its own loops. On GPU and TPU ``fun`` comes back as
  it is, as it does from a trace that holds no such convolution. Take gradients
  inside ``fun``, not of it. Convolutions in loops that ``fun`` itself holds
  stay as they are.

  Args:
    fun: a function of arrays, in any trees, that is called under `jax.jit`.

  Returns:
    A function of the same positional arguments.

  Example:
    >>> import jax.numpy as jnp
    >>> conv = lambda x, k: jax.lax.conv(x, k, (1, 1), 'SAME')  # NCHW
    >>> x, k = jnp.ones((1, 3, 4, 4)), jnp.ones((2, 3, 3, 3))
    >>> y = jax.lax.map(lambda x: canonical_convolutions(conv)(x, k), x[None])
    >>> y.shape, float(y[0, 0, 0, 1, 1])
    ((1, 1, 2, 4, 4), 27.0)
  """
  if jax.default_backend() != 'cpu':
    return fun

  @functools.wraps(fun)
  def canonical(*args):
    closed, shape = jax.make_jaxpr(fun, return_shape=True)(*args)
    leaves = jax.tree.leaves(args)
    outs = _run(closed.jaxpr, closed.consts, leaves)
    return jax.tree.unflatten(jax.tree.structure(shape), outs)

  return canonical  # pyrefly: ignore


def _run(
  jaxpr: core.Jaxpr, consts: Sequence[Any], args: Sequence[Any]
) -> list[Any]:
  if not _turned(jaxpr):
    return core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, list(consts)))(*args)
  env = dict(zip(jaxpr.constvars, consts, strict=True))
  env.update(zip(jaxpr.invars, args, strict=True))
  read = lambda x: env[x] if is_var(x) else x.val
  for eqn in jaxpr.eqns:
    values = [read(x) for x in eqn.invars]
    if _is_turned(eqn):
      outs = [_canonical(*values, **eqn.params)]
    elif eqn.primitive.name in CALLS:
      outs = _run(inner(eqn).jaxpr, inner(eqn).consts, values)
    else:
      outs = run_equation(eqn, jaxpr, values)
    env.update(zip(eqn.outvars, outs, strict=True))
  return [read(x) for x in jaxpr.outvars]


def _turned(jaxpr: core.Jaxpr) -> bool:
  """Whether it holds a convolution that is not channels-last."""
  return any(
    _is_turned(eqn)
    or (eqn.primitive.name in CALLS and _turned(inner(eqn).jaxpr))
    for eqn in jaxpr.eqns
  )


def _channels_last(ndim: int) -> jax.lax.ConvDimensionNumbers:
  image = (0, ndim - 1, *range(1, ndim - 1))
  return jax.lax.ConvDimensionNumbers(
    image, (ndim - 1, ndim - 2, *range(ndim - 2)), image
  )


def _is_turned(eqn: core.JaxprEqn) -> bool:
  if eqn.primitive.name != 'conv_general_dilated':
    return False
  ndim = eqn.invars[0].aval.ndim
  return eqn.params['dimension_numbers'] != _channels_last(ndim)


def _canonical(
  image: jax.Array,
  kernel: jax.Array,
  *,
  dimension_numbers: jax.lax.ConvDimensionNumbers,
  **params: Any,
) -> jax.Array:
  n, c, *hw = dimension_numbers.lhs_spec
  o, i, *window = dimension_numbers.rhs_spec
  out = jax.lax.conv_general_dilated(
    image.transpose(n, *hw, c),
    kernel.transpose(*window, i, o),
    params['window_strides'],
    params['padding'],
    params['lhs_dilation'],
    params['rhs_dilation'],
    _channels_last(image.ndim),
    feature_group_count=params['feature_group_count'],
    batch_group_count=params['batch_group_count'],
    precision=params['precision'],
    preferred_element_type=params['preferred_element_type'],
  )
  n, c, *hw = dimension_numbers.out_spec
  places = (n, *hw, c)
  return out.transpose([places.index(axis) for axis in range(out.ndim)])

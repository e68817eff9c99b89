"""Schedules for the numbers of a method."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtljax._types import Aggregator


def _is_number(parameter: inspect.Parameter, value: Any) -> bool:
  """Whether an argument is one that `optax.inject_hyperparams` may trace."""
  said = str(parameter.annotation)
  if parameter.annotation is parameter.empty:
    return callable(value) or isinstance(value, float)
  number = said.startswith(('ArrayLike', 'float'))
  takes = any(word in said for word in ('Callable', 'Ascent', 'Schedule'))
  if callable(value) and not number and not takes:
    raise TypeError(
      f'{parameter.name}={value!r}: only numbers can follow a schedule, and '
      f'{parameter.name} shapes the program; give a constant.'
    )
  return number


def _first_value(value: Any) -> Any:
  """What a schedule gives at the start; others as they are."""
  if callable(value) and hasattr(value, 'init'):  # a stateful schedule
    return value(value.init())
  return value(jnp.zeros((), jnp.int32)) if callable(value) else value


def _number_dtype(tree: Any) -> Any:
  """float32, or wider where the tree is: what constants are computed in."""
  dtype = jnp.dtype(jnp.float32)
  for leaf in jax.tree.leaves(tree):
    if jnp.issubdtype(leaf.dtype, jnp.inexact):
      dtype = jnp.promote_types(dtype, jnp.finfo(leaf.dtype).dtype)
  return dtype


def inject_hyperparams(
  factory: Callable[..., Aggregator],
) -> Callable[..., Aggregator]:
  """`optax.inject_hyperparams` for methods: schedules for their floats.

  Every argument that is not a number (``num_tasks``, ``labels``, ``key``,
  strings, bools, ints such as a window) is kept static; floats may be schedules
  of the step, and sit in the state as ``hyperparams``, in float32 or wider
  whatever the dtype of the parameters: a constant gives what it gives without.
  `mtljax.samo` keeps its one pass for the sum of the losses in the train step;
  `mtljax.sam` costs T - 1 passes more there than with a number.

  Args:
    factory: a method, such as `mtljax.cagrad`. Of a function of your own,
      arguments without an annotation are numbers where a float or a schedule
      is given.

  Returns:
    A factory with the same arguments.

  Raises:
    TypeError: when called, an argument that is no number is a schedule.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl, optax
    >>> c = optax.linear_schedule(0.0, 0.5, transition_steps=10)
    >>> tx = mtl.inject_hyperparams(mtl.cagrad)(num_tasks=2, c=c)
    >>> state = tx.init({'w': jnp.zeros(2)})
    >>> print(float(state.hyperparams['c']))
    0.0
  """
  signature = inspect.signature(factory)
  parameters = signature.parameters

  @functools.wraps(factory)
  def from_sum_factory(*args: Any, **kwargs: Any) -> Any:
    method = factory(*args, **kwargs)
    return optax.GradientTransformationExtraArgs(
      method.init,
      method.update_from_sum,  # pyrefly: ignore
    )

  @functools.wraps(factory)
  def wrapped(*args: Any, **kwargs: Any) -> Aggregator:
    bound = signature.bind(*args, **kwargs).arguments
    traced = {k for k, v in bound.items() if _is_number(parameters[k], v)}
    static = [
      name
      for name, p in parameters.items()
      if name not in traced and (name in bound or not _is_number(p, p.default))
    ]
    facts = factory(
      **{k: _first_value(v) if k in traced else v for k, v in bound.items()}
    )

    def injected(of: Callable[..., Any], tree: Any) -> Any:
      return optax.inject_hyperparams(
        of, static_args=static, hyperparam_dtype=_number_dtype(tree)
      )(*args, **kwargs)

    def init_fn(params):
      return injected(factory, params).init(params)

    def update_fn(updates, state, params=None, **extra_args):
      tx = injected(factory, updates)
      return tx.update(updates, state, params, **extra_args)

    def from_sum(summed, state, params=None, **extra_args):
      tx = injected(from_sum_factory, summed)
      return tx.update(summed, state, params, **extra_args)

    return Aggregator(
      init_fn,
      update_fn,
      num_tasks=facts.num_tasks,
      needs=facts.needs | {'gradients'},
      info=facts.info,
      labels=facts.labels,
      gramian_labels=facts.gramian_labels,
      conventions=facts.conventions,
      key=facts.key,
      inner=facts,
      update_from_sum=None if facts.update_from_sum is None else from_sum,
    )

  return wrapped

"""Every method as ``mtl.<name>(num_tasks, ...)``: one line each."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import optax

from mtljax import weightings
from mtljax._types import Aggregator, Weighting
from mtljax.aggregators import _aggregate

_OPTIONS_DOC = """num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``."""


_EXAMPLE = """

Examples:
  >>> import jax.numpy as jnp, mtljax as mtl
  >>> tx = mtl.{name}(num_tasks=2{example})
  >>> grads = {{'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}}
  >>> update, state = tx.update(grads, tx.init(None), {reads})
  >>> update['w'].shape, mtl.get_weights(state).shape
  ((3,), (2,))
"""


_CROSS = 'cross_gramian=mtl.cross_gramian(grads, grads)'


def _lift(
  factory: Callable[..., Weighting],
  *,
  _example: str = '',
  _reads: str = 'losses=jnp.ones(2)',
  **defaults: Any,
) -> Callable[..., Aggregator]:
  """The optax face of a weighting's factory, with its own defaults."""
  method = list(inspect.signature(factory).parameters.values())
  common = inspect.signature(_aggregate.aggregate).parameters
  options = [
    p.replace(default=defaults.get(p.name, p.default))
    for p in common.values()
    if p.name not in ('weighting', 'num_tasks')
  ]
  names = {p.name for p in options}

  @functools.wraps(factory)
  def lifted(num_tasks: int, **kwargs: Any) -> Aggregator:
    kwargs = {**defaults, **kwargs}
    own = {k: v for k, v in kwargs.items() if k not in names}
    rest = {k: v for k, v in kwargs.items() if k in names}
    return _aggregate.aggregate(factory(**own), num_tasks, **rest)

  lifted.__signature__ = inspect.Signature(  # pyrefly: ignore
    [common['num_tasks'], *method, *options],
    return_annotation=Aggregator,
  )
  lifted.__module__ = __name__
  lifted.__doc__ = _lifted_doc(factory, defaults, _example, _reads)
  return lifted


def _lifted_doc(
  factory: Callable[..., Weighting], defaults: Any, example: str, reads: str
) -> str:
  """The factory's docstring with the options, and an example of this face."""
  doc = inspect.getdoc(factory) or ''
  before, _, after = doc.partition('Examples:\n')
  tail = after.split('\n\n', 1)
  doc = before + (tail[1] if len(tail) > 1 else '')
  options = _OPTIONS_DOC.replace('\n  ', '\n')
  if defaults:
    said = ', '.join(f'``{k}={v}``' for k, v in defaults.items())
    options += f' Here {said} by default.'
  if 'Args:\n' in doc:
    doc = doc.replace('Args:\n', f'Args:\n  {options}\n', 1)
  else:
    doc += f'\n\nArgs:\n  {options}\n'
  return (
    doc.rstrip()
    + '\n\nThe optax face of '
    + f'`mtljax.weightings.{factory.__name__}`: see `mtljax.aggregate`.'
    + _EXAMPLE.format(name=factory.__name__, example=example, reads=reads)
  )


sum_losses = _lift(weightings.sum_losses)
mean = _lift(weightings.mean)
fixed = _lift(weightings.fixed, _example=', weights=[1.0, 0.5]')
rlw = _lift(weightings.rlw)
uncertainty = _lift(weightings.uncertainty)
mgda = _lift(weightings.mgda)
pcgrad = _lift(weightings.pcgrad)
cagrad = _lift(weightings.cagrad)
imtl_g = _lift(weightings.imtl_g)
nash_mtl = _lift(weightings.nash_mtl, max_norm=1.0)
fairgrad = _lift(weightings.fairgrad)
aligned_mtl = _lift(weightings.aligned_mtl)
bmtl = _lift(weightings.bmtl)
conflict_free = _lift(weightings.conflict_free)
dual_proj = _lift(weightings.dual_proj)
dwa = _lift(weightings.dwa)
emtl = _lift(weightings.emtl)
famo = _lift(weightings.famo)
geometric = _lift(weightings.geometric)
go4align = _lift(weightings.go4align)
gradnorm = _lift(weightings.gradnorm)
gradvac = _lift(weightings.gradvac)
imtl = _lift(weightings.imtl)
imtl_l = _lift(weightings.imtl_l)
krum = _lift(weightings.krum, _example=', num_byzantine=0')
pcd = _lift(weightings.pcd)
pivrg = _lift(weightings.pivrg, _example=', scores=[1.0, 0.5]')
slaw = _lift(weightings.slaw)
slw = _lift(weightings.slw)
stch = _lift(weightings.stch)
upgrad = _lift(weightings.upgrad)
uw_o = _lift(weightings.uw_o)
uw_so = _lift(weightings.uw_so)
modo = _lift(weightings.modo, _reads=_CROSS)
sdmgrad = _lift(weightings.sdmgrad, _reads=_CROSS)


def inject_hyperparams(
  factory: Callable[..., Aggregator],
) -> Callable[..., Aggregator]:
  """`optax.inject_hyperparams` for methods: schedules for their floats.

  Every argument that is not a number (``num_tasks``, ``labels``, ``key``,
  strings, bools) is kept static; floats may be schedules of the step, and sit
  in the state as ``hyperparams``.

  Args:
    factory: a method, such as `mtljax.cagrad`.

  Returns:
    A factory with the same arguments.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl, optax
    >>> c = optax.linear_schedule(0.0, 0.5, transition_steps=10)
    >>> tx = mtl.inject_hyperparams(mtl.cagrad)(num_tasks=2, c=c)
    >>> state = tx.init({'w': jnp.zeros(2)})
    >>> print(float(state.hyperparams['c']))
    0.0
  """
  parameters = inspect.signature(factory).parameters
  static = tuple(
    name
    for name, p in parameters.items()
    if not str(p.annotation).startswith('ArrayLike')
  )
  injected = optax.inject_hyperparams(factory, static_args=static)

  @functools.wraps(factory)
  def wrapped(*args: Any, **kwargs: Any) -> Aggregator:
    tx = injected(*args, **kwargs)
    bound = inspect.signature(factory).bind(*args, **kwargs).arguments
    plain = {k: v for k, v in bound.items() if not callable(v)}
    facts = factory(**plain)
    return Aggregator(
      tx.init,
      tx.update,
      num_tasks=facts.num_tasks,
      needs=facts.needs | {'gradients'},
      info=facts.info,
      labels=facts.labels,
      gramian_labels=facts.gramian_labels,
    )

  return wrapped

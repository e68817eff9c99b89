"""From a rule's factory to a method's: ``num_tasks`` and options join it."""

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from mtljax import _validate
from mtljax._types import Aggregator, Weighting
from mtljax.aggregators import _aggregate, _gradient_based

_OPTIONS_DOC = """\
  num_tasks: T, a Python int.
  **options: the options of `mtljax.aggregate`, where they are explained:
{names}
"""

_EXAMPLE = """

Examples:
  >>> import jax.numpy as jnp, mtljax as mtl
  >>> tx = {call}(num_tasks=2{example})
  >>> grads = {{'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}}
  >>> update, state = tx.update(grads, tx.init(None),{reads})
  >>> update['w'].shape, mtl.get_weights(state).shape
  ((3,), (2,))
"""

# Where rules are written: where users find them, and where and how the methods.
_PLACES = {
  'mtljax.weightings': ('mtljax.weightings', 'mtljax.aggregators', 'mtl'),
  'mtljax.contrib': (
    'mtljax.contrib.weightings',
    'mtljax.contrib',
    'mtl.contrib',
  ),
}
ALIGNED = "\n  ...   alignment_fn=lambda weights: {'w': jnp.zeros(3)}"
NORMS = '\n  ...   feature_norms=jnp.ones((2, 4))'
AHEAD = '\n  ...   hypergradient=jnp.ones(2)'
AHEAD_EACH = '\n  ...   hypergradient=jnp.eye(2)'
CROSS = '\n  ...   cross_gramian=mtl.cross_gramian(grads, grads)'


@functools.cache
def _signature(build: Callable[..., Aggregator]) -> inspect.Signature:
  return inspect.signature(build)


def _options(build: Callable[..., Aggregator]) -> list[inspect.Parameter]:
  """The keyword options that every method of this kind takes."""
  parameters = _signature(build).parameters.values()
  return [p for p in parameters if p.kind is p.KEYWORD_ONLY]


def _face(
  factory: Callable[..., Any],
  build: Callable[..., Aggregator],
  defaults: dict[str, Any],
  doc: str,
) -> Callable[..., Aggregator]:
  """``build(factory(...), num_tasks, ...)`` with one flat signature."""
  own = list(inspect.signature(factory).parameters.values())
  options = [
    p.replace(default=defaults.get(p.name, p.default)) for p in _options(build)
  ]
  names = {p.name for p in options}

  @functools.wraps(factory)
  def lifted(num_tasks: int, **kwargs: Any) -> Aggregator:
    kwargs = {**defaults, **kwargs}
    _validate.refuse_narrow(**kwargs)
    rule = factory(**{k: v for k, v in kwargs.items() if k not in names})
    rest = {k: v for k, v in kwargs.items() if k in names}
    return build(rule, num_tasks, **rest)

  num_tasks = _signature(build).parameters['num_tasks']
  lifted.__signature__ = inspect.Signature(  # pyrefly: ignore
    [num_tasks, *own, *options], return_annotation=Aggregator
  )
  lifted.__doc__ = doc
  return lifted


@functools.cache
def _option_lines(build: Callable[..., Aggregator], defaults: str) -> str:
  names = ', '.join(f'``{p.name}``' for p in _options(build)) + '.'
  if defaults:
    names += f' Here {defaults} by default.'
  indent = ' ' * 4
  return textwrap.fill(
    names, 76, initial_indent=indent, subsequent_indent=indent
  )


def _with_options(
  doc: str, build: Callable[..., Aggregator], defaults: dict[str, Any]
) -> str:
  """The docstring with the options among its arguments."""
  said = ', '.join(f'``{k}={v}``' for k, v in defaults.items())
  options = 'Args:\n' + _OPTIONS_DOC.format(names=_option_lines(build, said))
  if 'Args:\n' in doc:
    return doc.replace('Args:\n', options, 1)
  return doc.replace('Returns:\n', f'{options}\nReturns:\n', 1)


def lift(
  factory: Callable[..., Weighting],
  *,
  _example: str = '',
  _reads: str = ' losses=jnp.ones(2)',
  **defaults: Any,
) -> Callable[..., Aggregator]:
  """The optax face of a weighting's factory, with its own defaults."""
  name = factory.__name__
  package = factory.__module__.rpartition('.')[0]
  rules, home, face = _PLACES[package]
  doc = inspect.getdoc(factory) or ''
  before, _, after = doc.partition('Examples:\n')
  doc = before.rstrip() + '\n\n' + ''.join(after.split('\n\n', 1)[1:])
  doc = doc.replace('The `mtljax.Weighting`.', 'The `mtljax.Aggregator`.')
  doc = _with_options(doc, _aggregate.aggregate, defaults).rstrip()
  doc += (
    f'\n\nThe optax face of `{rules}.{name}`: see `mtljax.aggregate`.'
    + _EXAMPLE.format(call=f'{face}.{name}', example=_example, reads=_reads)
  )
  lifted = _face(factory, _aggregate.aggregate, defaults, doc)
  lifted.__module__ = f'{home}._methods'
  return lifted


def lift_rule(
  factory: Callable[..., _gradient_based.GradientRule],
) -> Callable[..., Aggregator]:
  """The method of a rule that needs the gradients themselves."""
  build = _gradient_based.gradient_method
  doc = _with_options(inspect.getdoc(factory) or '', build, {})
  return _face(factory, build, {}, doc)

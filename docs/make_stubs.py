"""Writes the static face of the methods: python docs/make_stubs.py.

The methods are made from the rules in `mtljax.weightings` when the package is
imported, which editors and type checkers cannot see. This writes what they
read instead, ``mtljax/aggregators/_methods.pyi``; a test holds the two equal.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import pathlib
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

from mtljax.aggregators import _methods

STUB = pathlib.Path(_methods.__file__).with_suffix('.pyi')
TOP = '''\
"""Every method as ``mtl.<name>(num_tasks, ...)``.

Made by `python docs/make_stubs.py`; do not edit it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
import optax
from jax.typing import ArrayLike

from mtljax import _labels
from mtljax._types import Aggregator, Weighting
'''


def _parameter(p: inspect.Parameter) -> str:
  default = '' if p.default is p.empty else f' = {p.default!r}'
  return f'{p.name}: {p.annotation}{default},'


def render_function(fun: Callable[..., Any]) -> str:
  """A definition with the signature and docstring of a function."""
  signature = inspect.signature(fun)
  lines = [f'def {fun.__name__}(']
  keyword_only = False
  for p in signature.parameters.values():
    if p.kind is p.KEYWORD_ONLY and not keyword_only:
      lines.append('  *,')
      keyword_only = True
    lines.append(f'  {_parameter(p)}')
  returns = signature.return_annotation
  returns = returns if isinstance(returns, str) else returns.__name__
  doc = inspect.getdoc(fun) or ''
  lines += [f') -> {returns}:', textwrap.indent(f'r"""{doc}\n"""', '  ')]
  return '\n'.join(lines)


def public_functions() -> dict[str, Callable[..., Any]]:
  """What the module makes or defines, in its order."""
  return {
    name: value
    for name, value in vars(_methods).items()
    if inspect.isfunction(value) and not name.startswith(('_', 'lift'))
  }


def _aliases(functions: Iterable[Callable[..., Any]]) -> set[str]:
  """Imports of the types that rules define for themselves."""
  known: dict[str, Any] = dict(vars(builtins))
  exec(TOP, known)
  imports = set()
  for fun in functions:
    scope = inspect.unwrap(fun).__globals__
    for p in inspect.signature(fun).parameters.values():
      names = {
        node.id
        for node in ast.walk(ast.parse(str(p.annotation)))
        if isinstance(node, ast.Name)
      }
      for name in names - known.keys():
        home = scope['__name__']
        if inspect.ismodule(scope[name]):
          home, _, name = scope[name].__name__.rpartition('.')
        imports.add(f'from {home} import {name}\n')
  return imports


def render() -> str:
  """The whole stub."""
  functions = public_functions().values()
  top = TOP + ''.join(sorted(_aliases(functions)))
  return top + ''.join(f'\n\n{render_function(f)}\n' for f in functions)


if __name__ == '__main__':
  STUB.write_text(render())

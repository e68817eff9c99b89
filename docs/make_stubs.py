"""Writes what follows from the methods: python docs/make_stubs.py.

A method is named in one place, ``_methods.py`` of `mtljax.aggregators` or of
`mtljax.contrib`, and made from its rule when the package is imported. This
writes the rest, and tests hold it equal:

- ``_methods.pyi`` beside it, what editors and type checkers read;
- the names that the packages export.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import pathlib
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

import mtljax
from mtljax import _catalog
from mtljax.aggregators import _methods
from mtljax.contrib import _methods as _contrib_methods

PACKAGE = pathlib.Path(mtljax.__file__).parent
# Whose names `mtljax`, or a package, exports, and where the rules' are.
NAMED_IN = {
  _methods: (
    PACKAGE / '__init__.py',
    PACKAGE / 'weightings' / '__init__.py',
  ),
  _contrib_methods: (
    PACKAGE / 'contrib' / '__init__.py',
    PACKAGE / 'contrib' / 'weightings.py',
  ),
}
# What a package exports beside its methods.
BESIDE = {_contrib_methods: ['rep_mtl_losses']}
# Rules about rules: no methods, but exported with them.
WRAPPERS = {
  'mtljax.weightings._select': ['select'],
  'mtljax.weightings._wrappers': ['cr_mogm', 'every_k', 'freeze_after'],
}
TOP = '''\
"""Every method as ``{call}(num_tasks, ...)``.

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


def stub_of(module: ModuleType) -> pathlib.Path:
  """Where its stub is."""
  return pathlib.Path(module.__file__ or '').with_suffix('.pyi')


def render_stub(module: ModuleType) -> str:
  """What editors and type checkers read of the methods that it names."""
  functions = _catalog.named_in(module).values()
  call = module.__name__.removesuffix('._methods').removesuffix('.aggregators')
  top = TOP.format(call=f'{call}.<name>'.replace('mtljax', 'mtl'))
  top += ''.join(sorted(_aliases(functions)))
  return top + ''.join(f'\n\n{render_function(f)}\n' for f in functions)


def _import(module: str, names: Iterable[str]) -> str:
  """As ruff writes it."""
  line = f'from {module} import {", ".join(sorted(names))}\n'
  if len(line) <= 81:
    return line
  listed = ''.join(f'  {name},\n' for name in sorted(names))
  return f'from {module} import (\n{listed})\n'


def render_face(module: ModuleType, text: str) -> str:
  """A package's text that exports the methods which ``module`` names."""
  names = sorted(_catalog.named_in(module))
  imports = ''.join(
    _import(module.__name__, [f'{name} as {name}']) for name in names
  )
  start = f'from {re.escape(module.__name__)} import '
  old = re.compile(rf'(?:^{start}(?:\([^)]*\)|[^\n]*)\n)+', re.M)
  text = old.sub(lambda _: imports, text, count=1)
  if module is _methods:
    return text
  names = sorted([*names, *BESIDE.get(module, [])])
  names = ''.join(f'  {name!r},\n' for name in names)
  return re.sub(r'__all__ = \[[^]]*\]', f'__all__ = [\n{names}]', text)


def rules_of(module: ModuleType) -> dict[str, list[str]]:
  """The rules inside the methods that it names, by the file they are in."""
  rules: dict[str, list[str]] = {}
  for method in _catalog.named_in(module).values():
    rule = inspect.unwrap(method)
    if rule.__annotations__['return'] == 'Weighting':
      rules.setdefault(rule.__module__, []).append(rule.__name__)
  return rules


def render_rules(rules: Mapping[str, Iterable[str]], text: str) -> str:
  """A package's text, after its docstring, that exports rules."""
  names = sorted(name for found in rules.values() for name in found)
  imports = ''.join(_import(home, rules[home]) for home in sorted(rules))
  listed = ''.join(f'  {name!r},\n' for name in names)
  summary = text.partition('"""\n')[0]
  return f'{summary}"""\n\n{imports}\n__all__ = [\n{listed}]\n'


def render() -> dict[pathlib.Path, str]:
  """What every file should be."""
  made = {}
  for module, (face, rules) in NAMED_IN.items():
    made[stub_of(module)] = render_stub(module)
    made[face] = render_face(module, face.read_text())
    found = rules_of(module) | (WRAPPERS if module is _methods else {})
    made[rules] = render_rules(found, rules.read_text())
  return made


if __name__ == '__main__':
  for path, text in render().items():
    path.write_text(text)

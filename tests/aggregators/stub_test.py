"""What editors and type checkers read of the methods is what runs."""

import ast
import inspect
import pathlib
import runpy

import pytest

import mtljax as mtl
from mtljax import _catalog

ROOT = pathlib.Path(__file__).parents[2]
MADE = runpy.run_path(str(ROOT / 'docs' / 'make_stubs.py'))
EACH = pytest.mark.parametrize(
  'module', MADE['NAMED_IN'], ids=lambda m: m.__name__
)


@pytest.mark.parametrize(
  'path', MADE['render'](), ids=lambda p: str(p.relative_to(ROOT))
)
def test_what_follows_from_the_methods_does(path):
  assert path.read_text() == MADE['render']()[path], (
    f'{path.relative_to(ROOT)} is not what the methods say: run '
    'python docs/make_stubs.py'
  )


@EACH
def test_every_method_has_its_own_parameters_there(module):
  tree = ast.parse(MADE['stub_of'](module).read_text())
  found = {f.name: f for f in tree.body if isinstance(f, ast.FunctionDef)}
  assert found.keys() == _catalog.named_in(module).keys()
  for name, fun in _catalog.named_in(module).items():
    args = found[name].args
    names = [a.arg for a in (*args.args, *args.kwonlyargs)]
    assert names == list(inspect.signature(mtl.get_method(name)).parameters)
    assert ast.get_docstring(found[name]) == inspect.getdoc(fun)


@EACH
def test_the_stub_names_nothing_that_it_does_not_import(module):
  scope = {}
  exec(compile(MADE['stub_of'](module).read_text(), 'stub', 'exec'), scope)  # noqa: S102
  for name in _catalog.named_in(module):
    assert scope[name].__annotations__['return'] is mtl.Aggregator

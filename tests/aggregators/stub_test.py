"""What editors and type checkers read of the methods is what runs."""

import ast
import inspect
import pathlib
import runpy

import mtljax as mtl

ROOT = pathlib.Path(__file__).parents[2]
MADE = runpy.run_path(str(ROOT / 'docs' / 'make_stubs.py'))


def test_the_stub_is_of_this_code():
  assert MADE['STUB'].read_text() == MADE['render'](), (
    'run python docs/make_stubs.py'
  )


def test_every_method_has_its_own_parameters_there():
  tree = ast.parse(MADE['STUB'].read_text())
  found = {f.name: f for f in tree.body if isinstance(f, ast.FunctionDef)}
  for name, fun in MADE['public_functions']().items():
    args = found[name].args
    names = [a.arg for a in (*args.args, *args.kwonlyargs)]
    assert names == list(inspect.signature(getattr(mtl, name)).parameters)
    assert ast.get_docstring(found[name]) == inspect.getdoc(fun)


def test_the_stub_names_nothing_that_it_does_not_import():
  scope = {}
  exec(compile(MADE['STUB'].read_text(), 'stub', 'exec'), scope)  # noqa: S102
  assert scope['cagrad'].__annotations__['return'] is mtl.Aggregator

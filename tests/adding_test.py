"""Everything that a new method needs: what is missing, and where it goes.

The steps are those of CONTRIBUTING.md, "Adding a method". What follows from
the one place that names a method is written by `python docs/make_stubs.py` and
`python docs/make_methods.py`, and held by tests of their own.
"""

import ast
import dataclasses
import pathlib
import re

import pytest
from battery import FIRST

import mtljax as mtl
from mtljax import _catalog

ROOT = pathlib.Path(__file__).parents[1]
# Where methods are written, and where those are named.
HOMES = {
  'mtljax/weightings': 'mtljax/aggregators/_methods.py',
  'mtljax/aggregators': 'mtljax/aggregators/_methods.py',
  'mtljax/contrib': 'mtljax/contrib/_methods.py',
}
# Factories of rules that are no methods: wrappers, and parts of others.
NO_METHODS = {
  'cr_mogm',
  'every_k',
  'freeze_after',
  'of_any_heads',
  'select',
}


@dataclasses.dataclass(frozen=True)
class Tree:
  """What the steps leave behind."""

  factories: dict  # of name to the file that it is in
  named: set
  tested: set
  readme: str
  api: str
  contrib: frozenset


def factories_in(text):
  """Public functions that return a rule, by their annotation."""
  return {
    node.name
    for node in ast.parse(text).body
    if isinstance(node, ast.FunctionDef)
    and not node.name.startswith('_')
    and node.returns is not None
    and ast.unparse(node.returns).rpartition('.')[2]
    in ('Weighting', 'GradientRule')
  }


def this_tree():
  factories = {
    name: str(path.relative_to(ROOT))
    for home in HOMES
    for path in (ROOT / home).glob('_*.py')
    for name in factories_in(path.read_text())
  }
  contrib = [m.name for m in mtl.methods() if m.contrib]
  return Tree(
    factories={k: v for k, v in factories.items() if k not in NO_METHODS},
    named=set(_catalog.method_names()),
    tested={m.name for m in FIRST} | set(_catalog.OPTIMIZERS),
    readme=(ROOT / 'README.md').read_text(),
    api=(ROOT / 'docs' / 'api.md').read_text(),
    contrib=frozenset(contrib),
  )


def missing(tree):
  """A sentence for each thing that is left to do."""
  said = []
  for name, file in sorted(tree.factories.items()):
    if name not in tree.named:
      place = HOMES[file.rpartition('/')[0]]
      said.append(
        f'{name}, of {file}, has no name: add `{name} = ...` to {place}.'
      )
  for name in sorted(tree.named):
    if name not in tree.tested:
      said.append(
        f"{name} is in no test: add a row `method('{name}', ...)` with what it "
        'claims to METHODS of tests/helpers/battery.py.'
      )
    shown = f'contrib.{name}' if name in tree.contrib else name
    if f'`{shown}`' not in tree.readme:
      said.append(
        f'{name} is not in README.md: add `{shown}` to a row of its table of '
        'methods.'
      )
    if f'\n   {name}\n' not in tree.api:
      said.append(
        f'{name} is not in docs/api.md: add a line "   {name}" to a block of '
        'its methods.'
      )
  return said


def test_every_method_has_all_that_it_needs():
  said = missing(this_tree())
  assert not said, ' '.join(said)


@pytest.mark.parametrize(
  'change, words',
  [
    (
      lambda t: {'factories': t.factories | {'new': 'mtljax/contrib/_new.py'}},
      'new, of mtljax/contrib/_new.py.*mtljax/contrib/_methods.py',
    ),
    (lambda t: {'tested': t.tested - {'mgda'}}, 'mgda.*METHODS.*battery'),
    (lambda t: {'readme': t.readme.replace('`mgda`', '')}, 'mgda.*README'),
    (
      lambda t: {'readme': t.readme.replace('`contrib.emtl`', '`emtl`')},
      'emtl.*README.*`contrib.emtl`',
    ),
    (
      lambda t: {'api': t.api.replace('\n   krum\n', '\n')},
      'krum.*docs/api.md',
    ),
  ],
)
def test_what_is_missing_is_said(change, words):
  tree = this_tree()
  said = missing(dataclasses.replace(tree, **change(tree)))
  assert len(said) == 1
  assert re.search(words, said[0])


def test_factories_are_found_in_their_files():
  found = this_tree().factories
  assert found.keys() | set(_catalog.OPTIMIZERS) == set(_catalog.method_names())
  assert found['cagrad'] == 'mtljax/weightings/_cagrad.py'
  assert found['db_mtl'] == 'mtljax/aggregators/_db_mtl.py'
  assert found['emtl'] == 'mtljax/contrib/_emtl.py'


@pytest.mark.parametrize('name', [m.name for m in mtl.methods() if m.contrib])
def test_reconstructions_say_so_in_their_first_line(name):
  functions = [getattr(mtl.contrib, name)]
  if _catalog.example_method(name).weighting is not None:
    functions.append(getattr(mtl.contrib.weightings, name))
  for function in functions:
    assert 'reconstruct' in function.__doc__.splitlines()[0]
  assert not hasattr(mtl, name)
  assert not hasattr(mtl.weightings, name)


def test_methods_by_name():
  for name in _catalog.method_names():
    home = mtl.contrib if hasattr(mtl.contrib, name) else mtl
    assert mtl.get_method(name) is getattr(home, name)
  with pytest.raises(ValueError, match="name='mdga'.*Did you mean 'mgda'"):
    mtl.get_method('mdga')

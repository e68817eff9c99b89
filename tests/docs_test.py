"""The pages agree with the library, and their examples run."""

import ast
import doctest
import importlib
import inspect
import pathlib
import re
import runpy

import jax
import pytest

import mtljax

DOCS = pathlib.Path(__file__).parents[1] / 'docs'
PAGES = sorted(DOCS.glob('*.md'))
LISTED = re.findall(
  r'^- `mtljax\.(\w+)`: ', (DOCS / 'api.md').read_text(), re.M
)
SUBPACKAGES = {
  'contrib',
  'weightings',
  'solvers',
  'training',
  'models',
  'data',
  'metrics',
  'diagnostics',
}
# Plain records and types, which their users do not build, or one by one.
WITHOUT_EXAMPLE = {'Aggregator', 'MethodInfo', 'TaskStats', 'Weighting'}
WITHOUT_EXAMPLE |= {'MethodSummary', 'MethodTable'}
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def public_names():
  """What mtljax/__init__.py re-exports, read from its source."""
  tree = ast.parse(pathlib.Path(mtljax.__file__).read_text())
  return {
    alias.asname
    for node in tree.body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
  }


NAMES = sorted(public_names() - SUBPACKAGES)


def test_page_of_methods_is_as_generated():
  made = runpy.run_path(str(DOCS / 'make_methods.py'))
  assert made['PAGE'].read_text() == made['render'](), (
    'run python docs/make_methods.py'
  )


def test_every_public_name_is_listed_once():
  assert sorted(LISTED) == sorted(public_names() | SUBPACKAGES)


def test_subpackages_are_those_listed():
  for name in SUBPACKAGES:
    module = importlib.import_module(f'mtljax.{name}')
    assert sorted(module.__all__) == sorted(set(module.__all__))
    assert all(inspect.getdoc(getattr(module, n)) for n in module.__all__)


@pytest.mark.parametrize('name', sorted(SUBPACKAGES - {'weightings'}))
def test_page_of_names_has_those_of_subpackages(name):
  listed = set(re.findall(r'`(\w+)`', (DOCS / 'api.md').read_text()))
  module = importlib.import_module(f'mtljax.{name}')
  assert set(module.__all__) <= listed


@pytest.mark.parametrize('name', NAMES)
def test_docstring_has_a_summary_and_an_example(name):
  doc = inspect.getdoc(getattr(mtljax, name))
  assert doc
  assert doc.splitlines()[0].endswith('.')
  if name in WITHOUT_EXAMPLE:
    return
  if name in mtljax.weightings.__all__:
    # A method's page points to the rule inside it, where the example is.
    assert f'`mtljax.weightings.{name}`' in doc
    doc = inspect.getdoc(getattr(mtljax.weightings, name))
  assert re.search(r'^Examples?:\n\s+>>> ', doc, re.M)


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_examples_run(page):
  with jax.numpy_rank_promotion('allow'):  # the default, which users have
    results = doctest.testfile(
      str(page), module_relative=False, optionflags=OPTIONS
    )
  assert results.failed == 0


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_links_between_files_lead_somewhere(page):
  for target in re.findall(r'\]\(([^)]+)\)', page.read_text()):
    if not target.startswith('http'):
      assert (page.parent / target).exists(), target


def test_index_leads_to_every_page():
  index = (DOCS / 'index.md').read_text()
  for page in PAGES:
    assert page.name == 'index.md' or f'({page.name})' in index

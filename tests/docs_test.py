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
API = (DOCS / 'api.md').read_text()
LISTED = [  # the modules and names that pages are made for
  (module, name)
  for module, names in re.findall(
    r'^\.\. currentmodule:: (\S+)\n\.\. autosummary::\n(?:   :.*\n)+\n'
    r'((?:   \w+\n)+)```',
    API,
    re.M,
  )
  for name in names.split()
]
SUBPACKAGES = {
  'contrib',
  'weightings',
  'solvers',
  'training',
  'models',
  'data',
  'metrics',
  'diagnostics',
  'pareto',
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


def test_every_public_name_has_a_page_once():
  assert len(LISTED) == len(set(LISTED))
  listed = {name for module, name in LISTED if module == 'mtljax'}
  assert listed == public_names() - SUBPACKAGES
  for module, name in LISTED:
    assert hasattr(importlib.import_module(module), name), (module, name)


def test_every_block_of_names_is_read():
  assert API.count('autosummary::') == API.count('currentmodule::')
  lines = re.findall(r'^   \w+$', API, re.M)
  assert len(lines) == len(LISTED)


def test_subpackages_are_those_listed():
  for name in SUBPACKAGES:
    module = importlib.import_module(f'mtljax.{name}')
    assert sorted(module.__all__) == sorted(set(module.__all__))
    assert all(inspect.getdoc(getattr(module, n)) for n in module.__all__)


@pytest.mark.parametrize(
  'name',
  [
    *sorted(SUBPACKAGES - {'weightings'}),
    'data.corruptions',
    'data.curricula',
    'contrib.tfcl',
    'training.cooperative',
    'training.forum',
    'training.task_groups',
  ],
)
def test_names_of_subpackages_have_pages(name):
  """A page a function or class; constants and modules stand in the text."""
  module = importlib.import_module(f'mtljax.{name}')
  listed = {n for where, n in LISTED if where == f'mtljax.{name}'}
  written = set(re.findall(r'`(?:[\w.]+\.)?(\w+)`', API))
  paged = {n for n in module.__all__ if callable(getattr(module, n))}
  assert listed == paged
  assert set(module.__all__) - paged <= written


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
def test_code_is_fenced(page):
  outside = re.sub(r'^```.*?^```$', '', page.read_text(), flags=re.M | re.S)
  assert '\n>>> ' not in outside


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_links_between_files_lead_somewhere(page):
  for target in re.findall(r'\]\(([^)]+)\)', page.read_text()):
    # Pictures and pages of methods are made with the site.
    if not target.startswith(('http', 'generated/')):
      assert (page.parent / target).exists(), target


def test_index_leads_to_every_page():
  index = (DOCS / 'index.md').read_text()
  menus = re.findall(r'^```{toctree}\n(?::.*\n)*\n((?:\w+\n)+)```', index, re.M)
  in_menus = sorted(' '.join(menus).split())
  pages = sorted(page.stem for page in PAGES if page.name != 'index.md')
  assert in_menus == pages
  assert all(f'({page}.md)' in index for page in pages)


def rows_of_tables():
  """Every line of a docstring's table, where it stands and its columns."""
  for path in sorted(pathlib.Path(mtljax.__file__).parent.rglob('*.py')):
    lines = path.read_text().splitlines()
    bars = [i for i, line in enumerate(lines) if re.match(r' +=+ +=+', line)]
    for _, start, end in zip(*[iter(bars)] * 3, strict=True):
      left, right, *_ = (m.span() for m in re.finditer('=+', lines[start]))
      for i in range(start + 1, end):
        yield f'{path.name}:{i + 1}', lines[i], left, right


def test_rows_of_tables_have_their_first_cell_in_one_line():
  """A text in the first column begins a row: it cannot go on in the next."""
  rows = list(rows_of_tables())
  assert len(rows) > 300
  for where, line, left, right in rows:
    first = line[slice(*left)].strip()
    assert not line[left[1] : right[0]].strip(), where
    assert line[right[0] :].strip(), where
    assert first.count('(') == first.count(')'), where
    assert not re.search(r'(?:^| )(?:or|by|than|to the|its)$', first), where

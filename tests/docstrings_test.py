"""What the docstring of every method has to say."""

import inspect
import re

import pytest
from battery import FIRST, METHODS

import mtljax as mtl

NAMES = [m.name for m in FIRST if '(' not in m.name]  # no wrappers
ALL = pytest.mark.parametrize('name', NAMES)

# They read no statistics that could be degenerate.
WITHOUT_TABLE = {'sum_losses', 'mean', 'fixed', 'rlw'}
# They have no paper.
WITHOUT_REFERENCE = {'sum_losses', 'mean'}


def factory_of(name):
  """The rule inside, where there is one: its docstring has all."""
  return inspect.unwrap(mtl.get_method(name))


def doc_of(name):
  """The docstring, with every run of white space as one space."""
  return re.sub(r'\s+', ' ', inspect.getdoc(factory_of(name)))


@ALL
def test_sections(name):
  factory = factory_of(name)
  wanted = ['.. math::', 'Returns:', 'Examples:']
  if inspect.signature(factory).parameters:
    wanted += ['Args:']
  if name not in WITHOUT_REFERENCE:
    wanted += ['References:']
  if name not in WITHOUT_TABLE:
    wanted += ['=== ===']
  doc = doc_of(name)
  assert not [section for section in wanted if section not in doc]


@ALL
def test_says_what_the_weights_sum_to(name):
  said = r'\bsum to\b|\bfixed sum\b|\bnot normalised\b|\bno task weights\b'
  assert re.search(said, doc_of(name))


@ALL
def test_says_what_it_costs(name):
  assert 'Costs' in doc_of(name)


@ALL
def test_says_whether_heads_are_weighted(name):
  assert re.search(r'\b[Hh]eads\b', doc_of(name))


@ALL
def test_says_the_invariance_that_is_declared(name):
  doc = doc_of(name)
  said = re.findall(r"\(invariance ``'(\w+)'``|otherwise \(``'(\w+)'``\)", doc)
  said = {word for pair in said for word in pair if word}
  declared = {m(2).invariance for m in METHODS if m.name == name}
  assert said == declared

"""What the docstring of every method has to say."""

import inspect
import re

import pytest
from battery import ALL, METHODS

from mtljax import weightings

# They read no statistics that could be degenerate.
WITHOUT_TABLE = {'sum_losses', 'mean', 'fixed', 'rlw'}
# They have no paper.
WITHOUT_REFERENCE = {'sum_losses', 'mean'}


def doc_of(m):
  """The docstring, with every run of white space as one space."""
  factory = getattr(weightings, m.name)
  return re.sub(r'\s+', ' ', inspect.getdoc(factory))


@ALL
def test_sections(m):
  factory = getattr(weightings, m.name)
  wanted = ['.. math::', 'Returns:', 'Examples:']
  if inspect.signature(factory).parameters:
    wanted += ['Args:']
  if m.name not in WITHOUT_REFERENCE:
    wanted += ['References:']
  if m.name not in WITHOUT_TABLE:
    wanted += ['=== ===']
  doc = doc_of(m)
  assert not [section for section in wanted if section not in doc]


@ALL
def test_says_what_the_weights_sum_to(m):
  said = r'\bsum to\b|\bfixed sum\b|\bnot normalised\b'
  assert re.search(said, doc_of(m))


@ALL
def test_says_whether_heads_are_weighted(m):
  assert re.search(r'\b[Hh]eads\b', doc_of(m))


@pytest.mark.parametrize('name', sorted({m.name for m in METHODS}))
def test_says_the_invariance_that_is_declared(name):
  doc = doc_of(next(m for m in METHODS if m.name == name))
  said = re.findall(r"\(invariance ``'(\w+)'``|otherwise \(``'(\w+)'``\)", doc)
  said = {word for pair in said for word in pair if word}
  declared = {m(2).invariance for m in METHODS if m.name == name}
  assert said == declared

"""The site: sphinx-build -W -b html docs site."""

from __future__ import annotations

import pathlib
import sys

from docutils import nodes
from latex2mathml import converter
from sphinx.application import Sphinx
from sphinx.util import logging

_log = logging.getLogger(__name__)

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import method_pages  # noqa: E402

import mtljax  # noqa: E402

project = 'mtljax'
author = 'The mtljax developers'
copyright = author
release = version = mtljax.__version__

extensions = [
  'myst_parser',
  'sphinx.ext.autodoc',
  'sphinx.ext.autosummary',
  'sphinx.ext.napoleon',
  'sphinx.ext.viewcode',
]
exclude_patterns = ['_templates']
templates_path = ['_templates']
default_role = 'py:obj'
html_theme = 'furo'
html_title = 'mtljax'
html_math_renderer = 'mathml'
html_static_path = ['_static']
html_css_files = ['site.css']
html_copy_source = False
html_show_sourcelink = False
maximum_signature_line_length = 60
add_module_names = False
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_class_signature = 'mixed'
autodoc_type_aliases = {'ArrayLike': 'ArrayLike'}  # which is a long union
python_use_unqualified_type_names = True
autosummary_ignore_module_all = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
viewcode_line_numbers = True
myst_heading_anchors = 3


def _mathml(tex: str, node: nodes.Element, display: str) -> str:
  drawn = converter.convert(
    tex.replace(r'\arg', r'\operatorname{arg}'), display=display
  )
  if '\\' in drawn:
    _log.warning('a formula is not understood: %s', tex, location=node)
  return drawn


def _visit_math(self, node: nodes.Element) -> None:
  self.body.append(_mathml(node.astext(), node, 'inline'))
  raise nodes.SkipNode


def _visit_displayed_math(self, node: nodes.Element) -> None:
  drawn = _mathml(node.astext(), node, 'block')
  self.body.append(f'<div class="math">{drawn}</div>\n')
  raise nodes.SkipNode


def _link_methods(app: Sphinx, docname: str, source: list[str]) -> None:
  del app
  if docname == 'methods':
    source[0] = method_pages.linked(source[0])


def _shorten_sidebar(app, pagename, templatename, context, doctree) -> None:
  """Opens the names of the API in the sidebar of their own pages alone.

  With all of them on every page most of the build goes into sidebars.
  """
  del app, pagename, templatename, doctree
  whole = context.get('toctree')
  if whole is not None:
    context['toctree'] = lambda **kwargs: whole(**{**kwargs, 'collapse': True})


def _skip_fields(app, what, name, obj, skip, options) -> bool | None:
  """Leaves out the fields of named tuples, which have no docstring."""
  del app, what, name, skip, options
  return True if type(obj).__name__ == '_tuplegetter' else None


def setup(app: Sphinx) -> dict[str, bool]:
  """Registers what no extension of Sphinx's own does."""
  # Formulas that browsers draw themselves: no script, no address elsewhere.
  app.add_html_math_renderer(
    'mathml', (_visit_math, None), (_visit_displayed_math, None)
  )
  app.connect('builder-inited', lambda app: method_pages.make(), priority=400)
  app.connect('source-read', _link_methods)
  app.connect('html-page-context', _shorten_sidebar, priority=400)
  app.connect('autodoc-skip-member', _skip_fields)
  return {'parallel_read_safe': True, 'parallel_write_safe': True}

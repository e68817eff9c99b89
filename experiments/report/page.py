"""Pages from templates."""

from __future__ import annotations

import pathlib
from typing import Any

import jinja2


def render_template(name: str, **values: Any) -> str:
  """A page from a file of ``templates``."""
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent / 'templates'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
  )
  return environment.get_template(name).render(**values).rstrip() + '\n'

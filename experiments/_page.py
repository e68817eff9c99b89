"""Pages from the templates of this folder."""

from __future__ import annotations

import pathlib
from typing import Any

import jinja2


def render_template(name: str, **values: Any) -> str:
  """A page from a template beside this file."""
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
  )
  return environment.get_template(name).render(**values).rstrip() + '\n'

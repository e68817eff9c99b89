"""Pictures as SVG elements inside a page, with the numbers they show."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

POINTS_PER_INCH = 72
# Colours that the page replaces by its own, light or dark.
INK, GRID = '#010203', '#040506'


class Style(NamedTuple):
  """How a line looks, apart from others also without colour.

  Attributes:
    color: hexadecimal.
    dash: lengths of dashes and gaps, in points; empty for a full line.
  """

  color: str
  dash: tuple[float, ...]


class Curve(NamedTuple):
  """A line with its band.

  Attributes:
    style: how it looks.
    steps: positions.
    mean: mean over seeds.
    error: standard error over seeds, NaN where there is one seed.
    label: shown with its values, and written at its end where a picture has
      many lines.
  """

  style: Style
  steps: np.ndarray
  mean: np.ndarray
  error: np.ndarray
  label: str = ''


def embed(figure: Figure, title: str, ident: str) -> str:
  """A figure as an element for inside an HTML page.

  Args:
    figure: is drawn here, so what its layout places is known after this only.
    title: read aloud.
    ident: prefix of its ids.
  """
  buffer = io.StringIO()
  figure.savefig(
    buffer, format='svg', transparent=True, metadata={'Date': None}
  )
  return _inline(buffer.getvalue(), title, ident)


def places(axes: Any, xlabel: str) -> str:
  """Attributes that say where numbers are in a picture that was drawn."""
  x, y = axes.get_xlim(), axes.get_ylim()
  height = axes.figure.get_figheight()
  corners = axes.transData.transform(list(zip(x, y, strict=True)))
  found = POINTS_PER_INCH * (corners / axes.figure.dpi * (1, -1) + (0, height))
  values = np.stack([np.array([x, y]), found.T], axis=-1)
  ends = [f'{value:.6g} {at:.1f}' for value, at in values.reshape(-1, 2)]
  label = html.escape(xlabel, quote=True)
  return (
    f' data-axes="{" ".join(ends)}" data-scale="{axes.get_yscale()}"'
    f' data-xlabel="{label}"'
  )


def with_data(
  element: str, curves: Sequence[Curve], ident: str, axes_data: str
) -> str:
  """The numbers of the curves as attributes, which the page's script reads."""

  def attributes(match: re.Match[str]) -> str:
    part, number = match[1], int(match[2])
    found = f'{match[0]} data-curve="{number}" data-part="{part}"'
    if part != 'line':
      return found
    curve = curves[number]
    found += f' data-label="{html.escape(curve.label, quote=True)}"'
    columns = {'steps': curve.steps, 'mean': curve.mean}
    if np.isfinite(curve.error).any():
      columns['error'] = curve.error
    for name, values in columns.items():
      digits = {'steps': 10, 'mean': 5, 'error': 3}[name]
      text = ' '.join(f'{value:.{digits}g}' for value in values)
      found += f' data-{name}="{text}"'
    return found

  marked = re.sub(
    rf'<g id="{re.escape(ident)}(line|band|label|arrow)(\d+)"',
    attributes,
    element,
  )
  head, close, rest = marked.partition('>')
  return f'{head}{axes_data}{close}{rest}'


def _inline(svg: str, title: str, ident: str) -> str:
  """Strips what a picture of its own needs and one inside a page must not."""
  label = html.escape(title, quote=True)
  steps: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r'(?s)^.*?(?=<svg)', ''),
    (r'(?s)\s*<(metadata|style)\b.*?</\1>|\s*<!--.*?-->', ''),
    (
      r'(?s)<svg [^>]*?(viewBox="[^"]*")[^>]*>',
      lambda match: f'<svg role="img" aria-label="{label}" {match[1]}>',
    ),
    (r'\bxlink:href=', 'href='),
    (r'\bid="', f'id="{ident}'),
    (r'url\(#', f'url(#{ident}'),
    (r'href="#', f'href="#{ident}'),
    (r"'DejaVu Sans'", 'sans-serif'),
    (INK, 'currentColor'),
    (GRID, 'var(--grid)'),
    (r'(?<= d=")[^"]*', _shorten),
  ]
  for pattern, replacement in steps:
    svg = re.sub(pattern, replacement, svg)
  return svg.strip()


def _shorten(path: re.Match[str]) -> str:
  """A tenth of a point is finer than a screen shows."""
  short = re.sub(r'\d+\.\d+', lambda m: f'{float(m[0]):.1f}', path[0])
  return ' '.join(short.split())

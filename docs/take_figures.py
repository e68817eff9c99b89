"""Takes a picture out of a report, as docs/gallery.md has them.

  python docs/take_figures.py REPORT.html 'TITLE OF THE PICTURE' OUT.svg

A report's plots are SVG elements of its page. The one with the title becomes a
file of its own, in the colours of a light page and without what moves.
"""

from __future__ import annotations

import html
import pathlib
import re
import sys

LIGHT = {'currentColor': '#222222', 'var(--grid)': '#dddddd'}


def take(report: str, title: str) -> str:
  """The first plot of a report that has this title, as an SVG file.

  Raises:
    ValueError: no plot has it; those that there are, are named.
  """
  plots = {
    html.unescape(found[1]): found[0]
    for found in re.finditer(
      r'<svg role="img" aria-label="([^"]*)".*?</svg>', report, re.S
    )
  }
  if title not in plots:
    raise ValueError(
      f'title={title!r} is none of the report: {", ".join(plots)}.'
    )
  svg = re.sub(r'<circle class="mover".*?</circle>', '', plots[title])
  for name, color in LIGHT.items():
    svg = svg.replace(name, color)
  size = re.sub(
    r'viewBox="0 0 (\S+) (\S+)"', r'\g<0> width="\1pt" height="\2pt"', svg
  )
  svg = size.replace('<svg ', '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
  return re.sub(r'>\s+<', '><', svg) + '\n'


if __name__ == '__main__':
  source, wanted, out = sys.argv[1:]
  pathlib.Path(out).write_text(take(pathlib.Path(source).read_text(), wanted))

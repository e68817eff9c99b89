"""Predictions beside the truth, of what runs have kept for it."""

from __future__ import annotations

import base64
import html
import io
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from experiments.report import files
from experiments.report.plots import Section, Style, picture, style_of
from experiments.report.results import Results

#: What the names of these arrays begin with.
PREFIX = 'pictures/'
_GIVEN, _MADE, _POINTS = 'given/', 'made/', 'points/'

Arrays = dict[str, np.ndarray]


def sections(directory: pathlib.Path, results: Results) -> list[Section]:
  """Pictures of the first seed of every method; none, where none were kept.

  Args:
    directory: folder of the experiment.
    results: what it holds; a file that cannot be read gets a note there.
  """
  kept: dict[str, Arrays] = {}
  for run in results.runs:
    path = directory / 'runs' / run.method / f'seed_{run.seed}'
    path /= files.ARTIFACTS
    damaged = path.name in run.damaged
    if run.problem or damaged or run.method in kept or not path.is_file():
      continue
    try:
      arrays = files.read_arrays(path, name=f'{run.method}/{run.seed}')
    except (OSError, ValueError) as error:
      results.notes.append(
        f'{path.relative_to(directory)} is damaged ({error}): its pictures '
        'were left out.'
      )
      continue
    own = {
      name.removeprefix(PREFIX): x
      for name, x in arrays.items()
      if name.startswith(PREFIX)
    }
    if own:
      kept[run.method] = own
  return [x for x in (_images(kept), _parity(kept)) if x is not None]


def _images(kept: Mapping[str, Arrays]) -> Section | None:
  given: Arrays = {}
  for own in kept.values():
    given |= {
      name.removeprefix(_GIVEN): x
      for name, x in own.items()
      if name.startswith(_GIVEN)
    }
  panels = []
  titles = dict.fromkeys(
    name.removeprefix(_MADE)
    for own in kept.values()
    for name in own
    if name.startswith(_MADE)
  )
  for title in titles:
    inputs = [x for name, x in given.items() if name not in titles]
    for i in range(len(given[title])):
      shown = [('', x[i]) for x in inputs] + [('truth', given[title][i])]
      shown += [
        (method, own[_MADE + title][i])
        for method, own in kept.items()
        if _MADE + title in own
      ]
      panels.append(strip(title, shown))
  if not panels:
    return None
  text = (
    'The first examples of the test split, by the network of the first seed. '
    'Black: no label.'
  )
  return Section('Predictions beside the truth', text, [], panels)


def strip(title: str, images: list[tuple[str, np.ndarray]]) -> str:
  """Images beside each other, each with its caption, as HTML.

  Args:
    title: what they are of.
    images: captions and uint8 arrays ``(H, W, 3)``.
  """
  figures = []
  for caption, pixels in images:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format='png', optimize=True)
    content = base64.b64encode(buffer.getvalue()).decode()
    caption = html.escape(caption)
    figures.append(
      f'<figure><img src="data:image/png;base64,{content}" '
      f'alt="{html.escape(title)} {caption}"><figcaption>{caption}'
      '</figcaption></figure>'
    )
  heading = f'<p class="soft">{html.escape(title)}</p>'
  return f'<div class="strip">{heading}{"".join(figures)}</div>'


def _parity(kept: Mapping[str, Arrays]) -> Section | None:
  by_title: dict[str, list[tuple[Style, np.ndarray]]] = {}
  legend = []
  for i, (method, own) in enumerate(kept.items()):
    found = {
      name.removeprefix(_POINTS): x
      for name, x in own.items()
      if name.startswith(_POINTS)
    }
    if found:
      legend.append((method, style_of(i)))
    for title, points in found.items():
      by_title.setdefault(title, []).append((style_of(i), points))
  if not by_title:
    return None
  panels = [
    parity_plot(title, series, ident=f'parity{i}-')
    for i, (title, series) in enumerate(by_title.items())
  ]
  text = (
    'Predicted over true values of the first examples of the test split, by '
    'the network of the first seed; the line is where they are equal.'
  )
  return Section('Predicted over true values', text, legend, panels)


def parity_plot(
  title: str, series: list[tuple[Style, np.ndarray]], *, ident: str
) -> str:
  """One picture: points ``(N, 2)``, true and predicted, by method."""

  def plot(axes: Any) -> None:
    for style, points in series:
      axes.plot(*points.T, '.', color=style.color, markersize=3, alpha=0.7)
    whole = np.concatenate([points[:, 0] for _, points in series])
    ends = [whole.min(), whole.max()]
    axes.plot(ends, ends, color='#7f7f7f', linewidth=0.8)
    axes.set_xlabel('true')
    axes.set_ylabel('predicted')

  return picture(title, plot, ident=ident)

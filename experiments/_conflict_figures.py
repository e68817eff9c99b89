"""Pictures of conflict between tasks and between samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments._conflict_runs import TITLES, Pairs, Setting
from experiments._plots import Curve, Section, Style, average, draw, style_of
from experiments._results import Series

HEADINGS = {
  'cosine': 'Cosine',
  'magnitude': 'Magnitude similarity',
  'sign_ratio': 'Share of coordinates of opposite sign',
  'product': 'Scalar product',
}


def sections(settings: Sequence[Setting]) -> list[Section]:
  """Each measure over the epochs, then the cosines by sign."""
  tasks, samples = style_of(0), style_of(1)
  whole = [
    _section(
      settings,
      measure,
      heading,
      'Mean over the pairs of an epoch, of all seeds; the band is one standard '
      'deviation. Averaged: tasks on the whole batch, and samples of the mean '
      'over tasks.',
      [('tasks', tasks, 0), ('samples', samples, 0)],
    )
    for measure, heading in HEADINGS.items()
  ]
  dashed = [Style(style.color, (5, 2)) for style in (tasks, samples)]
  by_sign = _section(
    settings,
    'cosine',
    'Cosine, positive and negative pairs apart',
    'As above, over the pairs of one sign.',
    [
      ('tasks, positive', tasks, 1),
      ('samples, positive', samples, 1),
      ('tasks, negative', dashed[0], -1),
      ('samples, negative', dashed[1], -1),
    ],
  )
  return [section for section in (*whole, by_sign) if section.panels]


def _section(
  settings: Sequence[Setting],
  measure: str,
  heading: str,
  text: str,
  lines: Sequence[tuple[str, Style, int]],
) -> Section:
  """Panels of the single pairs and of the averaged ones of each setting.

  ``lines`` are a label that begins with the kind of pairs, a style, and the
  sign of the pairs taken, 0 for all.
  """
  panels = []
  for setting in settings:
    for prefix, title in (
      ('', setting.name),
      ('mean_', f'{setting.name}, averaged'),
    ):
      curves = []
      for label, style, sign in lines:
        kind = f'{prefix}{label.partition(",")[0]}'
        found = setting.per_epoch(f'{kind}/{measure}', sign)
        if found:
          epochs, mean, sd = np.array(
            [(e, x.mean, x.sd) for e, x in found.items()]
          ).T
          curves.append(Curve(style, epochs, mean, sd))
      if curves:
        ident = f'{measure}{len(lines)}{len(panels)}-'
        panels.append(draw(title, curves, ident=ident, xlabel='epoch'))
  legend = [(label, style) for label, style, _ in lines]
  return Section(heading, text, legend, panels)


def comparison(settings: Sequence[Setting]) -> list[Section]:
  """The measures of methods that were trained side by side, if any was."""
  style = {x.name: style_of(i) for i, x in enumerate(settings)}
  panels = []
  for measure, heading in HEADINGS.items():
    for kind in ('tasks', 'samples'):
      name = f'{kind}/{measure}'
      curves = [
        Curve(style[x.name], *average(found))
        for x in settings
        if (
          found := [_means(run, name) for run in x.runs.values() if run[name]]
        )
      ]
      if curves:
        title = f'{heading}, {TITLES[kind]}'
        ident = f'conflict{len(panels)}-'
        panels.append(draw(title, curves, ident=ident, xlabel='epoch'))
  text = (
    'Of gradients on the shared parameters, mean over the pairs of an epoch '
    'and over seeds; the band is one standard error over seeds.'
  )
  title = 'Conflict between tasks and between samples'
  return [Section(title, text, list(style.items()), panels)] if panels else []


def _means(run: Pairs, name: str) -> Series:
  """The mean over the pairs of each epoch."""
  return (
    np.array(list(run[name])),
    np.array([values.mean() for values in run[name].values()]),
  )

"""The report of the invariance study: its table, verdicts and curves."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rich.console

from experiments.report import files, tables
from experiments.report import verdicts as verdicts_
from experiments.report.plots import Section, picture, style_of
from experiments.report.results import ReportError, config_notes, read_config

COLUMNS = ('heads_10', 'heads_100', 'trunk_100')
#: The same three of a computation of others, of like but not the same networks.
REFERENCE: dict[str, tuple[float | None, ...]] = {
  'frozen, SGD': (9.7e-1, 7.4e-1, None),
  'frozen, Adam eps=0': (6.5e-16, 3.7e-16, None),
  'frozen, Adam eps=1e-12': (4.4e-6, 2.8e-6, None),
  'frozen, Adam eps=1e-8': (2.5e-2, 2.1e-2, None),
  'frozen, Adam eps=1e-4': (3.1e-1, 3.4e-1, None),
  'frozen, Adam coupled decay': (3.4e-1, 3.9e-1, None),
  'frozen, AdamW': (6.8e-16, 3.5e-16, None),
  'frozen, clipped Adam': (1.7e-3, 2.2e-1, None),
  'frozen, Adam, changing factors': (6.1e-2, 1.4e-1, None),
  'frozen, Adam b1=b2=0, changing factors': (7e-17, 3e-17, None),
  'free, Adam eps=0': (2.1e-1, 6.5e-1, 1.4),
  'free, Adam b1=b2=0': (3.0e-1, 7.0e-1, 1.3),
  'free, Adam, one factor': (6.3e-16, 4.2e-16, 4.4e-16),
  'free, AdaTask eps=1e-8': (2.5e-2, 1.5e-2, 1.3e-2),
  'free, UW-O, Adam': (2.8e-16, 5e-11, 1e-10),
  'free, UW-O, SGD': (4.7e-16, 1.6e-1, 1.2e-1),
}
ROUNDING = 1e-8  # of float64, after steps that enlarge it
CLEAR = 1e-2  # a change beyond doubt

Rows = Mapping[str, Mapping[str, float | None]]


def read_rows(directory: pathlib.Path) -> dict[str, dict[str, float | None]]:
  """The changes by setting and column; `ReportError` where there are none."""
  try:
    return {
      row['setting']: {
        name: float(row[name]) if row[name] else None for name in COLUMNS
      }
      for row in files.read_table(directory / files.TABLE)
    }
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise ReportError(
      f'{directory} holds no readable results.csv ({error}); run the study '
      'again.'
    ) from error


def verdicts(rows: Rows) -> list[verdicts_.Verdict]:
  """What became of E5, E6 and E6'."""

  def numbers(bound, wanted, *places):
    found = []
    for setting, column in places:
      value = rows.get(setting, {}).get(column)
      if value is not None and math.isfinite(value):
        label = f'{setting}: {column.replace("_", ", step ")}'
        found.append(verdicts_.exact(label, value, wanted, bound))
    return found

  invariant = numbers(
    ROUNDING,
    'below',
    ('frozen, Adam eps=0', 'heads_100'),
    ('free, Adam, one factor', 'trunk_100'),
    ('free, AdaTask eps=0', 'heads_100'),
    ('free, AdaTask eps=0', 'trunk_100'),
    ('free, UW-O, Adam', 'heads_100'),
    ('free, UW-O, Adam', 'trunk_100'),
    ('free, UW-O, SGD', 'heads_10'),
  )
  not_invariant = numbers(
    CLEAR,
    'above',
    ('frozen, SGD', 'heads_100'),
    ('free, Adam eps=0', 'trunk_100'),
  )
  shown = numbers(
    0,
    None,
    ('frozen, Adam eps=1e-8', 'heads_100'),
    ('frozen, Adam coupled decay', 'heads_100'),
    ('frozen, clipped Adam', 'heads_100'),
    ('free, UW-O, SGD', 'trunk_100'),
  )
  return [
    verdicts_.verdict(
      'E5',
      'Constant factors on the losses change nothing in the heads under Adam, '
      'and nothing at all under an Adam a task or under UW-O; under SGD they '
      'do, and in the trunk under Adam.',
      f'with epsilon 0 the first change by less than {ROUNDING:g}, and the '
      f'others by more than {CLEAR:g}.',
      invariant + not_invariant + shown,
      min_seeds=1,
      remark=(
        'It needs epsilon far below the gradients, and neither coupled decay '
        'nor clipping: see the numbers only shown. The default epsilon and the '
        "paper's own weight decay are enough to break it. The steps of UW-O "
        'grow as the losses fall, and under SGD the rounding with them.'
      ),
    ),
    verdicts_.verdict(
      'E6',
      'Without memory and with a frozen trunk, all weightings of the losses '
      'give the same training under Adam.',
      f'factors drawn anew at every step change the heads by less than '
      f'{ROUNDING:g} where both decays are 0.',
      numbers(
        ROUNDING,
        'below',
        ('frozen, Adam b1=b2=0, changing factors', 'heads_100'),
      )
      + numbers(0, None, ('frozen, Adam, changing factors', 'heads_100')),
      min_seeds=1,
    ),
    verdicts_.verdict(
      "E6'",
      'Without memory Adam is invariant for all parameters, trunk and heads '
      '(appendix A1.3, b).',
      f'constant factors change the trunk by less than {ROUNDING:g} where both '
      'decays are 0.',
      numbers(ROUNDING, 'below', ('free, Adam b1=b2=0', 'trunk_100')),
      min_seeds=1,
      remark=(
        'Such an Adam takes the sign of the summed gradient, and that depends '
        'on the factors.'
      ),
    ),
  ]


def write_report(directory: pathlib.Path) -> dict[str, Any]:
  """Writes ``summary.json`` and ``report.html`` of the study.

  Args:
    directory: folder that the study wrote.

  Returns:
    The content of ``summary.json``: ``settings`` (``measured`` and
    ``reference`` by column), ``oracles`` (expected ``times`` and relative
    ``difference``), ``verdicts``, ``failures`` and ``notes``.

  Raises:
    ReportError: the folder holds no results.
  """
  config = read_config(directory)
  rows = read_rows(directory)
  notes = config_notes(config)
  curves = _read(directory / 'curves.json', notes) or {}
  oracles = _read(directory / 'oracles.json', notes) or []
  found = verdicts(rows)
  summary = {
    'experiment': 'invariance',
    'settings': [
      {
        'setting': name,
        'measured': {k: v and verdicts_.finite(v) for k, v in row.items()},
        'reference': dict(
          zip(COLUMNS, REFERENCE.get(name, (None,) * 3), strict=True)
        ),
      }
      for name, row in rows.items()
    ],
    'oracles': oracles,
    'failures': [],
    'notes': notes,
  }
  return verdicts_.write_claims(
    directory,
    summary,
    found,
    title='invariance',
    lead=(
      f'Two tasks, a trunk and a head each of two layers, {config["steps"]} '
      'steps in float64.'
    ),
    how=[
      'A number is how far the displacement of the parameters under the '
      'factors 10 and 0.1 on the losses is from that without, relative to it '
      '(L2). 1e-16 is rounding. Frozen: only the heads are trained.',
    ],
    tables=[
      {
        'title': 'Settings',
        'text': (
          'With the numbers of an independent computation on a like network: '
          'only their order of magnitude is comparable.'
        ),
        'columns': _columns(summary['settings']),
      },
      {
        'title': 'To the bit',
        'text': (
          'Displacements that are known multiples of each other: factors that '
          'are powers of two round nothing. The last two are what goes wrong '
          'where the remedy is left out.'
        ),
        'columns': _oracle_columns(oracles),
      },
    ],
    sections=[_section(i, *curve) for i, curve in enumerate(curves.items())],
    config=config,
  )


def _read(path: pathlib.Path, notes: list[str]) -> Any:
  """The content of a file, or None and a note."""
  try:
    return files.read_json(path)
  except (OSError, ValueError) as error:
    notes.append(f'{path.name} is missing or damaged ({error}).')
    return None


def print_tables(
  summary: Mapping[str, Any], console: rich.console.Console
) -> None:
  """Prints the settings, what is exact, and the verdicts."""
  for title, columns in (
    ('relative change of the displacement', _columns(summary['settings'])),
    ('to the bit', _oracle_columns(summary['oracles'])),
  ):
    verdicts_.print_columns(title, columns, console)
  verdicts_.print_verdicts(summary['verdicts'], console)


def _oracle_columns(
  oracles: Sequence[Mapping[str, Any]],
) -> list[tables.Column]:
  texts = {
    'training': [x['oracle'] for x in oracles],
    'in': [x['dtype'] for x in oracles],
    'factors': [x['factors'] for x in oracles],
    'should move': [
      'as far' if x['times'] == 1 else f'{x["times"]:g} times as far'
      for x in oracles
    ],
    'off by': [
      '0' if x['difference'] == 0 else f'{x["difference"]:.1e}' for x in oracles
    ],
    'allowed': [f'{x["bound"]:g}' for x in oracles],
    'holds': ['yes' if x['holds'] else 'no' for x in oracles],
  }
  return [
    tables.Column(title, [tables.Cell(text) for text in column])
    for title, column in texts.items()
  ]


def _columns(settings: Sequence[Mapping[str, Any]]) -> list[tables.Column]:
  columns = [
    tables.Column('setting', [tables.Cell(s['setting']) for s in settings])
  ]
  for name in COLUMNS:
    for kind in ('measured', 'reference'):
      title = name.replace('_', ' ') + ('' if kind == 'measured' else ' ref.')
      values = [s[kind][name] for s in settings]
      columns.append(
        tables.Column(
          title,
          [
            tables.Cell(tables.MISSING if v is None else f'{v:.1e}')
            for v in values
          ],
        )
      )
  return columns


def _section(index: int, name: str, curve: Mapping[str, Any]) -> Section:
  """The change of the heads over the factor, a line a value."""

  def plot(axes):
    for i, changes in enumerate(curve['heads']):
      style = style_of(i)
      axes.loglog(
        curve['factors'],
        np.maximum(changes, 1e-17),
        color=style.color,
        linestyle=(0, style.dash) if style.dash else 'solid',
      )
    axes.set(xlabel='factor', ylabel='relative change of the heads')
    axes.grid(visible=True)

  text = (
    'Adam with a frozen trunk, both losses times the factor; 1e-17 stands for '
    'no change at all.'
  )
  legend = [
    (f'{name} {value:g}', style_of(i))
    for i, value in enumerate(curve['values'])
  ]
  return Section(
    f'What {name} does',
    text,
    legend,
    [picture(name, plot, ident=f'invariance{index}-')],
  )

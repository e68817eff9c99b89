"""Claims of a paper, the numbers measured for them, and what follows."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import rich.console

from experiments.report.page import render_template
from experiments.report.statistics import (
  LEVEL,
  MIN_SEEDS,
  Interval,
  decide,
  interval,
)
from experiments.report.tables import (
  MISSING,
  Cell,
  Column,
  columns_of,
  render_columns,
)
from mtljax import _files

TEMPLATE = 'claims.html.j2'

Outcome = Literal['holds', 'does not hold', 'undecided at this size']
HOLDS: Outcome = 'holds'
FAILS: Outcome = 'does not hold'
UNDECIDED: Outcome = 'undecided at this size'


class Measured(NamedTuple):
  """A number that a verdict rests on.

  Attributes:
    label: what it is.
    value: the number and its interval.
    wanted: the side of ``threshold`` that the claim says, or None for a number
      that is only shown.
    threshold: what the number is compared with.
  """

  label: str
  value: Interval
  wanted: Literal['above', 'below'] | None
  threshold: float = 0.0


class Verdict(NamedTuple):
  """What became of a claim.

  Attributes:
    claim: its name, such as ``'F1'``.
    statement: what the authors say.
    rule: when it counts as holding.
    measured: the numbers.
    outcome: the verdict.
    sentence: the outcome in words.
  """

  claim: str
  statement: str
  rule: str
  measured: list[Measured]
  outcome: Outcome
  sentence: str


def judge(measured: Sequence[Measured], min_seeds: int = MIN_SEEDS) -> Outcome:
  """Holds if all numbers are decided as wanted; fails if one is decided not."""
  needed = [m for m in measured if m.wanted is not None]
  found = [
    (decide(m.value, m.threshold, min_seeds=min_seeds), m.wanted)
    for m in needed
  ]
  if found and all(side == wanted for side, wanted in found):
    return HOLDS
  if any(side not in (wanted, 'undecided') for side, wanted in found):
    return FAILS
  return UNDECIDED


def measure(
  label: str,
  values: Mapping[int, float] | Sequence[float],
  wanted: Literal['above', 'below'] | None,
  threshold: float = 0.0,
  level: float = LEVEL,
) -> list[Measured]:
  """One number, or none where nothing was measured."""
  numbers = list(values.values() if isinstance(values, Mapping) else values)
  if not numbers:
    return []
  return [Measured(label, interval(numbers, level), wanted, threshold)]


def exact(
  label: str,
  value: float,
  wanted: Literal['above', 'below'] | None,
  threshold: float = 0.0,
) -> Measured:
  """A number without an interval: a count, or of a run without chance.

  The verdict on such numbers takes ``min_seeds=1``.
  """
  known = Interval(value, 0.0, value, value, (value, value), 1)
  return Measured(label, known, wanted, threshold)


def verdict(
  claim: str,
  statement: str,
  rule: str,
  measured: list[Measured],
  *,
  min_seeds: int = MIN_SEEDS,
  compared: int = 0,
  remark: str = '',
) -> Verdict:
  """A verdict whose outcome and sentence follow from its numbers.

  With fewer numbers than ``compared``, how many the rule is of, it does not
  count as holding.
  """
  outcome = judge(measured, min_seeds)
  needed = [m for m in measured if m.wanted is not None]
  if not needed:
    sentence = 'The runs that it needs are not there.'
  else:
    sides = [decide(m.value, m.threshold, min_seeds=min_seeds) for m in needed]
    as_said = sum(s == m.wanted for s, m in zip(sides, needed, strict=True))
    open_ = sides.count('undecided')
    sentence = (
      f'Of {len(needed)} comparisons {as_said} came out as claimed, '
      f'{len(needed) - as_said - open_} the other way, {open_} undecided.'
    )
    missing = compared - len(needed)
    if outcome == HOLDS and missing > 0:
      outcome = UNDECIDED
      sentence += f' Of {missing} more there is no number.'
  sentence = f'{sentence} {remark}'.strip()
  return Verdict(claim, statement, rule, measured, outcome, sentence)


def plain_verdict(verdict: Verdict) -> dict[str, Any]:
  """As ``summary.json`` holds it."""
  return verdict._asdict() | {
    'measured': [
      {
        'label': m.label,
        'wanted': m.wanted,
        'threshold': finite(m.threshold),
        **plain_interval(m.value),
      }
      for m in verdict.measured
    ]
  }


def plain_interval(found: Interval) -> dict[str, Any]:
  """As ``summary.json`` holds it: None for a number that does not exist."""
  return {
    'mean': found.mean,
    'standard_error': finite(found.error),
    'low': finite(found.low),
    'high': finite(found.high),
    'bootstrap': [finite(x) for x in found.bootstrap],
    'n': found.n,
  }


def plain_values(values: Iterable[float]) -> dict[str, Any] | None:
  """`plain_interval` of numbers, one a seed; None if there are none."""
  values = list(values)
  return plain_interval(interval(values)) if values else None


def finite(value: float) -> float | None:
  """The number, or None where JSON has none."""
  return value if math.isfinite(value) else None


def measured_columns(measured: Sequence[Measured]) -> list[Column]:
  """The numbers of a verdict."""
  if not measured:
    return []
  return [
    Column('number', [Cell(m.label) for m in measured]),
    Column('mean', [Cell(f'{m.value.mean:+.3g}') for m in measured]),
    Column('interval', [Cell(span(m.value)) for m in measured]),
    Column(
      'bootstrap only',
      [Cell(_pair(*m.value.bootstrap)) for m in measured],
    ),
    Column('n', [Cell(str(m.value.n)) for m in measured]),
    Column(
      'claimed',
      [
        Cell(f'{m.wanted} {m.threshold:.3g}' if m.wanted else 'shown only')
        for m in measured
      ],
    ),
  ]


def span(found: Interval) -> str:
  """The wider interval as text."""
  return _pair(found.low, found.high)


def _pair(low: float, high: float) -> str:
  return f'[{low:+.3g}, {high:+.3g}]' if math.isfinite(low) else MISSING


def write_claims(
  directory: pathlib.Path,
  summary: Mapping[str, Any],
  verdicts: Sequence[Verdict],
  *,
  config: Mapping[str, Any],
  **values: Any,
) -> dict[str, Any]:
  """Writes ``summary.json`` and ``report.html`` of a study of claims.

  Args:
    directory: the study's folder.
    summary: what there is besides the verdicts; its ``failures`` and ``notes``
      are shown on the page.
    verdicts: the claims, shown first.
    config: the study's options.
    **values: what the template asks for: ``title``, ``lead``, ``how`` (the
      numbers are to be read, in sentences), ``tables`` (each with ``title``,
      ``text``, ``columns``) and ``sections`` (of `_plots.Section`).

  Returns:
    The content of ``summary.json``: the summary with ``verdicts``.
  """
  shown = [
    verdict._asdict() | {'columns': measured_columns(verdict.measured)}
    for verdict in verdicts
  ]
  whole = {**summary, 'verdicts': [plain_verdict(x) for x in verdicts]}
  page = render_template(
    TEMPLATE,
    verdicts=shown,
    summary=whole,
    config=json.dumps(config, indent=2, ensure_ascii=False),
    **values,
  )
  text = json.dumps(whole, indent=2, allow_nan=False, ensure_ascii=False)
  _files.replace_text(directory / 'summary.json', text + '\n')
  _files.replace_text(directory / 'report.html', page)
  return whole


def print_by_problem(
  title: str,
  lines: Sequence[Mapping[str, Any]],
  make_columns: Callable[[Sequence[Mapping[str, Any]]], Sequence[Column]],
  console: rich.console.Console,
) -> None:
  """Prints a table of the lines of each problem, in their order."""
  for problem in dict.fromkeys(x['problem'] for x in lines):
    columns = make_columns([x for x in lines if x['problem'] == problem])
    print_columns(title.format(problem), columns, console)


def print_verdicts(
  verdicts: Sequence[Mapping[str, Any]], console: rich.console.Console
) -> None:
  """Prints the verdicts of ``summary.json``."""
  rows = [(x['claim'], x['outcome'], x['sentence']) for x in verdicts]
  columns = columns_of(('claim', 'verdict', 'measured'), rows)
  table = render_columns('claims', columns, left=2)
  table.columns[-1].justify = 'left'
  console.print(table)


def print_columns(
  title: str,
  columns: Sequence[Column],
  console: rich.console.Console,
  left: int = 1,
) -> None:
  """Prints a table of the page, its first columns to the left."""
  console.print(render_columns(title, columns, left=left))

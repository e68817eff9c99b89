"""Floors and a paper's rows, shown beside the methods that were run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.report.tables import MISSING, SHARE, Column, columns_of
from mtljax import metrics

_TITLE = 'Δm published %'
#: Of more metrics the table has their means only.
_MANY = 12


def compare(
  config: Mapping[str, Any], summary: Mapping[str, Any]
) -> dict[str, Any] | None:
  """The methods' means between floors and published rows.

  Args:
    config: content of ``config.json``: ``floors`` and ``published``.
    summary: ``metrics`` and ``methods`` of ``summary.json``.

  Returns:
    ``rows``, each with ``name``, ``kind`` (``'floor'``, ``'method'`` or
    ``'published'``), ``metrics``, ``means`` where no more is published, and
    ``delta_m``, which is taken against the published baseline, None where a
    value is missing; and ``notes``, sentences.
    None where the suite has neither floors nor published rows.
  """
  floors, published = config.get('floors'), config.get('published')
  if not floors and not published:
    return None
  chosen = [m for m in summary['metrics'] if m['in_delta_m']]
  found = [('floor', name, dict(row)) for name, row in (floors or {}).items()]
  for method, entry in summary['methods'].items():
    means = {name: x['mean'] for name, x in entry['metrics'].items()}
    if means and entry['single_task'] is None:
      found.append(('method', method, means))
  notes = []
  base: Mapping[str, float] = {}
  printed: Mapping[str, Mapping[str, float]] = {}
  if floors:
    notes.append(f'Floors, which no network should miss: {", ".join(floors)}.')
  if published:
    values, printed = published['rows'], published.get('means', {})
    base = values.get(published['baseline'], {})
    found += [
      ('published', name, dict(values.get(name, {})))
      for name in dict.fromkeys([*values, *printed])
    ]
    notes += [
      f'Published: {published["source"]}. {published["differs"]}'.rstrip(),
      f'{_TITLE[:-2]} is delta-m against the published row '
      f'{published["baseline"]}, so it is no delta-m of the runs here.',
    ]
    if printed:
      notes.append('Where only means are published, they are as printed.')
  rows = []
  for kind, name, values in found:
    means = dict(printed.get(name, {})) if kind == 'published' else {}
    delta_m = means.pop('delta_m', None)
    computed = _delta_m(chosen, values, base)
    rows.append(
      {
        'name': name,
        'kind': kind,
        'metrics': values,
        'means': means,
        'delta_m': delta_m if computed is None else computed,
      }
    )
  place = {'floor': 0, 'method': 1, 'published': 2}
  worst = float('inf')
  # Where delta-m is not known the order is that of before.
  rows.sort(
    key=lambda row: (
      place[row['kind']],
      worst if row['delta_m'] is None else -row['delta_m'],
    )
  )
  return {'rows': rows, 'notes': notes}


def _delta_m(chosen, values, base) -> float | None:
  names = [metric['name'] for metric in chosen]
  if not names or not all(n in values and n in base for n in names):
    return None
  higher = [metric['higher_is_better'] for metric in chosen]
  return float(
    metrics.delta_m(
      [values[name] for name in names], [base[name] for name in names], higher
    )
  )


def columns(summary: Mapping[str, Any]) -> list[Column]:
  """The table of `compare`: means of kinds of one unit, then every metric.

  Without delta-m where no row has one.

  Args:
    summary: content of ``summary.json``, with ``beside``.
  """
  rows = summary['beside']['rows']
  chosen = [m for m in summary['metrics'] if m['in_delta_m']]
  others = [
    m for m in summary['metrics'] if not m['in_delta_m'] and m['kind'] != 'loss'
  ]
  averaged = {m['kind'] for m in others}
  averaged |= {kind for row in rows for kind in row['means']}
  if len(chosen) > _MANY:
    averaged |= {metric['kind'] for metric in chosen}
    chosen = []
  by_kind: dict[str, list[Mapping[str, Any]]] = {}
  for metric in summary['metrics']:
    if metric['kind'] in averaged:
      by_kind.setdefault(metric['kind'], []).append(metric)
  names = [
    row['name'] + (f' ({row["kind"]})' if row['kind'] != 'method' else '')
    for row in rows
  ]
  found = [columns_of([''], [[name] for name in names])[0]]
  for kind, own in by_kind.items():
    wanted = [metric['name'] for metric in own]
    means = [
      row['means'].get(kind, _mean(row['metrics'], wanted)) for row in rows
    ]
    unit = SHARE if all(m['unit'] == SHARE for m in own) else ''
    found.append(_column(f'{kind}, mean', means, unit))
  deltas = [row['delta_m'] for row in rows]
  if any(x is not None for x in deltas):
    found.append(_column(_TITLE, deltas))
  for metric in chosen:
    values = [row['metrics'].get(metric['name']) for row in rows]
    title = metric['name'].replace('/', ' ')
    found.append(_column(title, values, metric['unit']))
  return found


def _column(
  title: str, values: Sequence[float | None], unit: str = ''
) -> Column:
  factor = 100 if unit == SHARE else 1
  texts = [MISSING if x is None else f'{factor * x:.4g}' for x in values]
  heading = f'{title} {unit}' if unit else title
  return columns_of([heading], [[text] for text in texts])[0]


def _mean(values: Mapping[str, float], wanted: list[str]) -> float | None:
  if not all(name in values for name in wanted):
    return None
  return sum(values[name] for name in wanted) / len(wanted)

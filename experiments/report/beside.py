"""Floors and a paper's rows, shown beside the methods that were run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.report.tables import MISSING, Column, columns_of
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
  by_kind = {
    m['kind']: [x['name'] for x in summary['metrics'] if x['kind'] == m['kind']]
    for m in summary['metrics']
    if m['kind'] in averaged
  }
  titles = ['', *(f'{kind}, mean' for kind in by_kind), _TITLE]
  titles += [_title(metric) for metric in chosen]
  texts = []
  for row in rows:
    means = [
      row['means'].get(kind, _mean(row['metrics'], wanted))
      for kind, wanted in by_kind.items()
    ]
    cells = [*means, row['delta_m']]
    cells += [row['metrics'].get(metric['name']) for metric in chosen]
    name = row['name'] + (
      f' ({row["kind"]})' if row['kind'] != 'method' else ''
    )
    texts.append([name, *(MISSING if x is None else f'{x:.4g}' for x in cells)])
  return columns_of(titles, texts)


def _title(metric: Mapping[str, Any]) -> str:
  unit = metric.get('unit')
  return metric['name'].replace('/', ' ') + (f' {unit}' if unit else '')


def _mean(values: Mapping[str, float], wanted: list[str]) -> float | None:
  if not all(name in values for name in wanted):
    return None
  return sum(values[name] for name in wanted) / len(wanted)

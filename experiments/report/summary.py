"""From runs to the numbers of the report."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from experiments.report.results import Results, Run
from mtljax import metrics

#: Of metrics whose unit a folder does not say.
UNITS = {'accuracy': '%'}
HIGHER_IS_BETTER = {
  'accuracy': True,
  'auc': True,
  'f1': True,
  'miou': True,
  'precision': True,
  'r2': True,
  'recall': True,
  'abs_err': False,
  'error': False,
  'loss': False,
  'mae': False,
  'mse': False,
  'rel_err': False,
  'rmse': False,
}
REFERENCE = 'sum_losses'


def summarize_results(results: Results) -> dict[str, Any]:
  """Means over seeds, delta-m of both kinds and mean ranks.

  Finished runs count; the others are listed under ``failures``. Delta-m and
  mean rank are taken over the metrics marked ``in_delta_m``: those named by
  ``delta_m_metrics`` in the configuration, else each task's metrics without
  its loss (the loss where a task has nothing else). Whether higher is better
  follows from the metric's name, or from a mapping ``higher_is_better`` in the
  configuration.

  Args:
    results: what the experiment wrote.

  Returns:
    A tree of dicts, lists, strings and numbers that JSON can hold; a number
    that does not exist is None.
  """
  notes = list(results.notes)
  listed = _list_metrics(results, notes)
  chosen = [metric for metric in listed if metric['in_delta_m']]
  names = [metric['name'] for metric in chosen]
  done = {method: [] for method in results.methods}
  for run in results.runs:
    if not run.problem:
      done[run.method].append(run)
  single = {f'single_{task}': task for task in results.tasks}

  methods = {}
  for method, runs in done.items():
    methods[method] = {
      'single_task': single.get(method),
      'seeds': [run.seed for run in runs],
      'metrics': {
        metric['name']: found
        for metric in listed
        if (found := _over_seeds(runs, f'test/{metric["name"]}'))
      },
      'delta_m_metrics': None,
      'delta_m_tasks': None,
      'mean_rank': None,
      'wall_time': _over_seeds(runs, 'wall_time'),
      'steps_per_second': _over_seeds(runs, 'steps_per_second'),
    }
  _add_time_ratio(methods)
  baseline = _baseline(chosen, done, notes)
  columns = [f'test/{name}' for name in names]
  complete = {}
  for method, runs in done.items():
    whole = [run for run in runs if run.values.keys() >= set(columns)]
    if whole and columns and method not in single:
      complete[method] = whole
  if baseline is not None:
    _add_delta_m(methods, complete, chosen, baseline, notes)
  if complete:
    ranks = metrics.mean_rank(
      [
        [methods[method]['metrics'][name]['mean'] for name in names]
        for method in complete
      ],
      [metric['higher_is_better'] for metric in chosen],
    )
    for method, rank in zip(complete, ranks, strict=True):
      methods[method]['mean_rank'] = float(rank)
  if not any(done.values()):
    notes.append('No run has finished: there is no table.')
  return {
    'experiment': _text(results.config.get('experiment')) or 'experiment',
    'data': _text(results.config.get('data')),
    'tasks': results.tasks,
    'metrics': listed,
    'baseline': baseline,
    'methods': methods,
    'failures': results.failures,
    'notes': notes,
  }


def _list_metrics(results: Results, notes: list[str]) -> list[dict[str, Any]]:
  """The test metrics, with task, direction and use, in order of the tasks."""
  names = dict.fromkeys(
    name.removeprefix('test/')
    for run in results.runs
    for name in run.values
    if name.startswith('test/')
  )
  known = HIGHER_IS_BETTER | dict(results.config.get('higher_is_better', {}))
  units = dict(results.config.get('units', {}))
  listed = []
  for name in names:
    kind, _, task = name.rpartition('/')
    direction = known.get(name, known.get(kind or name))
    if direction is None:
      notes.append(
        f'{name} is left out of delta-m and mean rank: whether higher is '
        'better is not known; say so in "higher_is_better" of config.json.'
      )
    listed.append(
      {
        'name': name,
        'kind': kind or name,
        'task': task if kind and task in results.tasks else None,
        'higher_is_better': direction,
        'unit': units.get(name, UNITS.get(kind or name, '')),
      }
    )
  rich = {
    m['task']
    for m in listed
    if m['kind'] != 'loss' and m['higher_is_better'] is not None
  }
  wanted = results.config.get('delta_m_metrics')
  for name in wanted or ():
    if name not in names:
      notes.append(f'delta_m_metrics names {name}, which no run has measured.')
  for metric in listed:
    usable = metric['task'] is not None and (
      metric['higher_is_better'] is not None
    )
    if wanted is None:
      use = metric['kind'] != 'loss' or metric['task'] not in rich
    else:
      use = metric['name'] in wanted
    metric['in_delta_m'] = usable and use
  place = {task: index for index, task in enumerate(results.tasks)}
  last = len(place)
  listed.sort(key=lambda m: (m['kind'] == 'loss', place.get(m['task'], last)))
  return listed


def _baseline(
  chosen: list[dict[str, Any]],
  done: dict[str, list[Run]],
  notes: list[str],
) -> dict[str, Any] | None:
  """Single-task value of each metric, or None and a note."""
  found, missing = {}, []
  for metric in chosen:
    method = f'single_{metric["task"]}'
    name = metric['name']
    value = _over_seeds(done.get(method, []), f'test/{name}')
    if value is None:
      missing.append(method)
    found[name] = value
  if missing:
    listed = ', '.join(dict.fromkeys(missing))
    notes.append(
      'Delta-m is not shown: it compares with single-task training, and '
      f'there is no finished run of {listed}.'
    )
  return None if missing or not chosen else found


def _add_delta_m(
  methods: dict[str, Any],
  complete: dict[str, list[Run]],
  chosen: list[dict[str, Any]],
  baseline: dict[str, Any],
  notes: list[str],
) -> None:
  base = [baseline[metric['name']]['mean'] for metric in chosen]
  higher = [metric['higher_is_better'] for metric in chosen]
  tasks = [metric['task'] for metric in chosen]
  for method, runs in complete.items():
    values = [[run.values[f'test/{m["name"]}'] for m in chosen] for run in runs]
    try:
      over_metrics = metrics.delta_m(values, base, higher)
      over_tasks = metrics.delta_m_tasks(values, base, higher, tasks)
    except ValueError as error:
      names = [metric['name'] for metric in chosen]
      notes.append(f'Delta-m over {", ".join(names)} is not shown: {error}')
      return
    methods[method]['delta_m_metrics'] = _plain(over_metrics)
    methods[method]['delta_m_tasks'] = _plain(over_tasks)


def _add_time_ratio(methods: dict[str, Any]) -> None:
  """Time of a step relative to that of `REFERENCE`."""
  reference = methods.get(REFERENCE, {}).get('steps_per_second')
  for entry in methods.values():
    own = entry['steps_per_second']
    entry['time_ratio'] = (
      reference['mean'] / own['mean']
      if reference and own and own['mean'] > 0
      else None
    )


def _over_seeds(runs: Iterable[Run], column: str) -> dict[str, Any] | None:
  values = [run.values[column] for run in runs if column in run.values]
  values = [value for value in values if math.isfinite(value)]
  return _plain(values) if values else None


def _text(value: object) -> str:
  return value if isinstance(value, str) else ''


def _plain(values: Iterable[float]) -> dict[str, Any]:
  """A `metrics.Summary` as JSON holds it."""
  summary = metrics.summarize(values)
  error = summary.standard_error
  return {
    'mean': summary.mean,
    'standard_error': error if math.isfinite(error) else None,
    'n': summary.n,
  }

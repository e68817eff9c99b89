"""Fair tuning: as many trials for every method, chosen on validation."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import rich.console

from experiments.lab import runs, spaces
from experiments.report import files
from experiments.report.tuning import CHOSEN, FOLDER

#: Of all trials; none of the runs that are compared has it.
SEED = 1000


def search(
  out: pathlib.Path,
  methods: Mapping[str, int],
  specs_of: Callable[..., list[runs.RunSpec]],
  count: int,
  console: rich.console.Console,
  **options: Any,
) -> dict[str, spaces.Trial]:
  """Tries hyper-parameters of all methods and chooses the best of each.

  A trial is a run of its own folder under ``tuning/``, which goes on where it
  was stopped, and never looks at test data. The best is that of the highest
  score on validation, the earlier one of two that tie; a trial whose loss is
  not finite is never chosen, and where none is left the defaults are.

  Args:
    out: the study's folder; it gets ``tuning/chosen.json``.
    methods: how many tasks each is trained on.
    specs_of: ``specs_of(method, trial, seeds)`` makes its runs.
    count: trials a method, the defaults among them.
    console: where progress goes.
    **options: of `runs.run_grid`.

  Returns:
    The hyper-parameters that were chosen, by method.
  """
  trials = {x: spaces.draw_trials(x, n, count) for x, n in methods.items()}
  specs = {
    name: [
      _as_trial(specs_of(name, trial, [SEED])[0], k)
      for k, trial in enumerate(listed)
    ]
    for name, listed in trials.items()
  }
  console.print(
    f'tuning: {count} trials of each of {len(methods)} methods', markup=False
  )
  groups = [[run] for listed in specs.values() for run in listed]
  runs.run_grid(out / FOLDER, groups, console, mode='loop', **options)
  chosen, said = {}, {}
  for name, listed in specs.items():
    rows = [_row(out / FOLDER, run) for run in listed]
    best = _best([_score(row) for row in rows])
    chosen[name] = trials[name][best]
    said[name] = _in_words(rows, trials[name], best)
  files.write_json(out / FOLDER / CHOSEN, {'trials': count, 'methods': said})
  return chosen


def _as_trial(run: runs.RunSpec, number: int) -> runs.RunSpec:
  """A run that is neither measured on test nor compared."""
  return dataclasses.replace(
    run,
    method=f'{run.method}.trial_{number}',
    test_fn=lambda state: {},
    measure_fn=None,
    probe_fn=None,
  )


def _row(out: pathlib.Path, run: runs.RunSpec) -> dict[str, Any]:
  return files.read_result(run.folder(out), run.method, run.seed)[0]


def _score(row: Mapping[str, Any]) -> float:
  score = row.get('validation/score')
  return -math.inf if score is None or math.isnan(score) else float(score)


def _best(scores: Sequence[float]) -> int:
  return max(range(len(scores)), key=lambda k: (scores[k], -k))


def _in_words(
  rows: Sequence[Mapping[str, Any]], trials: Sequence[spaces.Trial], best: int
) -> dict[str, Any]:
  finite = lambda score: score if math.isfinite(score) else None
  times = [row.get('wall_time') for row in rows]
  return {
    'chosen': best,
    'rate': trials[best].rate,
    'options': dict(trials[best].options),
    'score': finite(_score(rows[best])),
    'default_score': finite(_score(rows[0])),
    'failed': sum(not math.isfinite(_score(row)) for row in rows),
    'seconds': None if None in times else round(sum(times), 1),
  }

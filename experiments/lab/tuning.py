"""Fair tuning: as many trials for every method, chosen on validation."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import rich.console

from experiments.lab import runs, spaces
from experiments.report import files
from experiments.report.tuning import CHOSEN, FOLDER

#: The first of all trials; none of the runs that are compared has one of them.
SEED = 1000
#: In `FOLDER`: the scores of all rungs but the last, where there are several.
RUNGS = 'rungs.json'


class Rung(NamedTuple):
  """A part of tuning.

  Attributes:
    trials: how many of a method are in it, the best of the rung before.
    share: of a run's steps that each has been trained for at its end.
  """

  trials: int
  share: float


def make_rungs(by: str, count: int, epochs: int) -> tuple[Rung, ...]:
  """Of ``'random'`` one, of ``'halving'`` as many as can be halved.

  In the last one trials are as long as a run that is compared; in the first
  none is shorter than an epoch.
  """
  halved = by == 'halving' and count > 1
  rungs = int(math.log2(min(count, epochs))) if halved else 0
  return tuple(
    Rung(-(-count // 2**k), 2.0 ** (k - rungs)) for k in range(rungs + 1)
  )


def in_runs(rungs: Sequence[Rung]) -> float:
  """What a method's trials take, in runs of full length."""
  return sum(
    rung.trials * (rung.share - (rungs[i - 1].share if i else 0.0))
    for i, rung in enumerate(rungs)
  )


def search(
  out: pathlib.Path,
  trials: Mapping[str, Sequence[spaces.Trial]],
  specs_of: Callable[..., list[runs.RunSpec]],
  console: rich.console.Console,
  *,
  rungs: Sequence[Rung],
  num_seeds: int = 1,
  mode: str,
  **options: Any,
) -> dict[str, spaces.Trial]:
  """Tries hyper-parameters of all methods and chooses the best of each.

  A trial is a run a seed, of folders under ``tuning/``, which go on where they
  were stopped, and never look at test data. Those of a method that differ in
  numbers alone share one program. The best is that of the highest mean score
  on validation, the earlier one of two that tie; a trial with a loss that is
  not finite is never chosen, and where none is left the first is.

  Args:
    out: the study's folder; it gets ``tuning/chosen.json``, and, of several
      rungs, ``tuning/rungs.json``.
    trials: by method, as many of each.
    specs_of: ``specs_of(method, trial, seeds)`` makes its runs.
    console: where progress goes.
    rungs: see `make_rungs`.
    num_seeds: of every trial.
    mode: how trials share a program, see `mtljax.training.make_sweep`.
    **options: of `runs.run_grid`.

  Returns:
    The hyper-parameters that were chosen, by method.
  """
  folder = out / FOLDER
  seeds = range(SEED, SEED + num_seeds)
  specs = {
    name: [
      [_as_trial(run, k) for run in specs_of(name, trial, seeds)]
      for k, trial in enumerate(listed)
    ]
    for name, listed in trials.items()
  }
  console.print(
    f'tuning: {rungs[0].trials} trials of each of {len(specs)} methods, '
    f'{num_seeds} seeds each',
    markup=False,
  )
  scores = _read_scores(folder) if len(rungs) > 1 else {}
  for i, rung in enumerate(rungs):
    left = {
      name: _leading(scores.get(name, []), i, rung.trials)
      for name in specs
      if len(scores.get(name, [])) <= i
    }
    groups = []
    for name, ks in left.items():
      short = {
        k: [_until(run, rung.share) for run in specs[name][k]] for k in ks
      }
      for run in itertools.chain.from_iterable(short.values()):
        _reopen(folder, run)
      groups += _programs(short, trials[name])
    runs.run_grid(folder, groups, console, mode=mode, **options)
    for name, ks in left.items():
      found = [_score(_rows(folder, specs[name][k])) for k in ks]
      scores.setdefault(name, []).append(dict(zip(ks, found, strict=True)))
    if len(rungs) > 1:
      _write_scores(folder, scores)
  chosen, said = {}, {}
  rows = {
    name: [_rows(folder, trial) for trial in listed]
    for name, listed in specs.items()
  }
  for name, listed in trials.items():
    (best,) = _leading(scores[name], len(rungs), 1)
    chosen[name] = listed[best]
    said[name] = _in_words(rows[name], listed, best)
  every = itertools.chain.from_iterable(rows.values())
  files.write_table(
    folder / files.TABLE, list(itertools.chain.from_iterable(every))
  )
  files.write_json(
    folder / CHOSEN,
    {
      'trials': rungs[0].trials,
      'seeds': num_seeds,
      'rungs': [rung._asdict() for rung in rungs],
      'methods': said,
    },
  )
  return chosen


def _leading(
  scores: Sequence[Mapping[int, float]], rung: int, count: int
) -> list[int]:
  """The best trials of the rung before, in their own order."""
  if rung == 0:
    return list(range(count))
  last = scores[rung - 1]
  return sorted(sorted(last, key=lambda k: (-last[k], k))[:count])


def _programs(
  found: Mapping[int, Sequence[runs.RunSpec]], trials: Sequence[spaces.Trial]
) -> list[list[runs.RunSpec]]:
  """Runs of a method, those that differ in numbers alone together."""
  groups: dict[Any, list[runs.RunSpec]] = {}
  for k, listed in found.items():
    key = k if listed[0].build is None else trials[k].program
    groups.setdefault(key, []).extend(listed)
  return list(groups.values())


def _read_scores(folder: pathlib.Path) -> dict[str, list[dict[int, float]]]:
  """By method, of each rung that has ended: its trials' scores."""
  path = folder / RUNGS
  if not path.exists():
    return {}
  return {
    name: [
      {int(k): -math.inf if x is None else x for k, x in rung.items()}
      for rung in rungs
    ]
    for name, rungs in files.read_json(path).items()
  }


def _write_scores(
  folder: pathlib.Path, scores: Mapping[str, Sequence[Mapping[int, float]]]
) -> None:
  found = {
    name: [{k: _or_none(x) for k, x in rung.items()} for rung in rungs]
    for name, rungs in scores.items()
  }
  files.write_json(folder / RUNGS, found)


def _until(run: runs.RunSpec, share: float) -> runs.RunSpec:
  """A run that ends after a share of its epochs, rounded up."""
  epochs = math.ceil(share * run.num_steps / run.steps_per_epoch)
  steps = epochs * run.steps_per_epoch
  facts = {**run.facts, 'trained': steps}
  return dataclasses.replace(run, num_steps=steps, facts=facts)


def _reopen(folder: pathlib.Path, run: runs.RunSpec) -> None:
  """Lets a run that has ended earlier go on."""
  row = runs.finished(folder, run)
  if row is not None and row.get('trained', run.num_steps) < run.num_steps:
    (run.folder(folder) / files.RESULT).unlink()


def _as_trial(run: runs.RunSpec, number: int) -> runs.RunSpec:
  """A run that is neither measured on test nor compared."""
  return dataclasses.replace(
    run,
    method=f'{run.method}.trial_{number}',
    test_fn=lambda state: {},
    measure_fn=None,
    probe_fn=None,
  )


def _rows(
  out: pathlib.Path, trial: Sequence[runs.RunSpec]
) -> list[dict[str, Any]]:
  return [
    files.read_result(run.folder(out), run.method, run.seed)[0] for run in trial
  ]


def _score(rows: Sequence[Mapping[str, Any]]) -> float:
  """Of a trial, the mean over its seeds."""
  scores = [row.get('validation/score') for row in rows]
  if any(x is None or math.isnan(x) for x in scores):
    return -math.inf
  return statistics.fmean(scores)


def _or_none(score: float) -> float | None:
  return score if math.isfinite(score) else None


def _in_words(
  rows: Sequence[Sequence[Mapping[str, Any]]],
  trials: Sequence[spaces.Trial],
  best: int,
) -> dict[str, Any]:
  every = list(itertools.chain.from_iterable(rows))
  times = [row.get('wall_time') for row in every]
  return {
    'chosen': best,
    'rate': trials[best].rate,
    'options': dict(trials[best].options),
    'score': _or_none(_score(rows[best])),
    'default_score': _or_none(_score(rows[0])),
    'steps': sum(row.get('trained', 0) for row in every),
    'failed': sum(not math.isfinite(_score(trial)) for trial in rows),
    'seconds': None if None in times else round(sum(times), 1),
  }

"""What the study of robustness measures of its runs, and its claim, E10.

The rule of the verdict was written before any number was there.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.report import files, verdicts
from experiments.report.results import Results, Run
from experiments.report.statistics import Decision, decide, interval
from mtljax import metrics

SINGLE = 'single_'
REFIT, ZERO_SHOT = 'refit', 'zero_shot'


class Key(NamedTuple):
  """Whose numbers: a network, how it was trained, and a task."""

  model: str
  method: str
  task: str


class Score(NamedTuple):
  """What a task is scored by.

  Attributes:
    name: ``'accuracy'``.
    higher_is_better: its direction.
    unit: of its values, ``'%'`` for a share.
  """

  name: str = 'accuracy'
  higher_is_better: bool = True
  unit: str = '%'


def scores_of(config: Mapping[str, Any]) -> dict[str, Score]:
  """By task, of the configuration of a study; older ones had accuracies."""
  kept = config.get('scores', {})
  return {
    task: Score(**kept[task]) if task in kept else Score()
    for task in config['tasks']
  }


class Kept(NamedTuple):
  """Scores of a task in one run.

  Attributes:
    clean: of the trained network on clean test images.
    refit: on test images under every corruption and severity, after the heads
      were fitted to corrupted images.
    zero_shot: the same with the heads as they were trained.
  """

  clean: float
  refit: np.ndarray
  zero_shot: np.ndarray


#: By whose they are, then seed.
Runs = dict[Key, dict[int, Kept]]
Deltas = dict[Key, dict[int, float]]


def read_runs(
  directory: pathlib.Path, results: Results, pairs: int
) -> tuple[Runs, list[str]]:
  """The scores of all finished runs, and notes on what is left out."""
  found: Runs = {}
  notes = []
  scores = scores_of(results.config)
  for run in results.runs:
    folder = directory / 'runs' / run.method / f'seed_{run.seed}'
    path = folder / 'artifacts.npz'
    if run.problem or path.name in run.damaged or not path.is_file():
      continue
    model, _, method = run.method.partition('.')
    try:
      arrays = files.read_arrays(path, name=f'{run.method}/{run.seed}')
      own = _kept(run, arrays, scores)
    except (OSError, ValueError, KeyError) as error:
      notes.append(
        f'{path.relative_to(directory)} is damaged ({error}) and was left out.'
      )
      continue
    for task, kept in own.items():
      if kept.clean <= 0 or len(kept.refit) != pairs:
        notes.append(
          f'{run.method}, seed {run.seed}, {task}: left out, its clean '
          f'{scores[task].name} is {kept.clean:g} on {len(kept.refit)} of '
          f'{pairs} kinds of corrupted images.'
        )
        continue
      found.setdefault(Key(model, method, task), {})[int(run.seed)] = kept
  return found, notes


def _kept(
  run: Run, arrays: Mapping[str, np.ndarray], scores: Mapping[str, Score]
) -> dict[str, Kept]:
  """By task, of those that the run has."""
  return {
    task: Kept(
      run.values[f'test/{score.name}/{task}'],
      *(
        arrays[f'{kind}/{score.name}/{task}'].astype(np.float64)
        for kind in (REFIT, ZERO_SHOT)
      ),
    )
    for task, score in scores.items()
    if f'{REFIT}/{score.name}/{task}' in arrays
  }


def _against(runs: Runs, key: Key) -> dict[int, tuple[Kept, Kept]]:
  """By seed, a run and the one of its task alone."""
  alone = runs.get(key._replace(method=SINGLE + key.task), {})
  return {s: (x, alone[s]) for s, x in runs[key].items() if s in alone}


def deltas(
  runs: Runs, kind: str = REFIT, scores: Mapping[str, Score] | None = None
) -> Deltas:
  """delta_t of every method, against the task alone with the same seed.

  Args:
    runs: what `read_runs` returned.
    kind: of what heads.
    scores: by task; None: accuracies.
  """
  return {
    key: {
      seed: metrics.robustness_delta(
        getattr(own, kind),
        own.clean,
        getattr(alone, kind),
        alone.clean,
        higher_is_better=_score(scores, key).higher_is_better,
      )
      for seed, (own, alone) in _against(runs, key).items()
    }
    for key in multi(runs)
  }


def multi(keys: Iterable[Key]) -> list[Key]:
  """Those of multi-task networks."""
  return [key for key in keys if not key.method.startswith(SINGLE)]


def _score(scores: Mapping[str, Score] | None, key: Key) -> Score:
  return Score() if scores is None else scores[key.task]


def change(
  runs: Runs,
  key: Key,
  kind: str,
  scores: Mapping[str, Score] | None = None,
) -> np.ndarray | None:
  """delta_t before the mean over corruptions: one a pair, mean over seeds."""
  sign = 1 if _score(scores, key).higher_is_better else -1
  found = [
    sign * (getattr(alone, kind) / alone.clean - getattr(own, kind) / own.clean)
    for own, alone in _against(runs, key).values()
  ]
  return np.mean(found, 0) if found else None


def outcome(decided: Mapping[Key, Decision]) -> verdicts.Outcome:
  """E10 from the sides of zero that the deltas lie on.

  It holds if some lie above and some below, and every method has one above.
  It does not hold if all lie on one side, or some method lies below with every
  network and task. Else it is undecided.
  """
  by_method: dict[str, list[Decision]] = {}
  for key, side in decided.items():
    by_method.setdefault(key.method, []).append(side)
  sides = set(decided.values())
  below = [all(x == 'below' for x in own) for own in by_method.values()]
  if any(below) or sides in ({'above'}, {'below'}):
    return verdicts.FAILS
  above = ['above' in own for own in by_method.values()]
  if 'below' in sides and above and all(above):
    return verdicts.HOLDS
  return verdicts.UNDECIDED


def claims(found: Deltas, min_seeds: int) -> list[verdicts.Verdict]:
  """The verdict on E10."""
  found = {key: values for key, values in found.items() if values}
  measured = [
    entry
    for key, values in found.items()
    for entry in verdicts.measure(', '.join(key), values, None)
  ]
  for model, task in dict.fromkeys((key.model, key.task) for key in found):
    own = [v for k, v in found.items() if (k.model, k.task) == (model, task)]
    seeds = sorted(set.intersection(*(set(values) for values in own)))
    means = [float(np.mean([values[s] for values in own])) for s in seeds]
    measured += verdicts.measure(
      f'{model}, mean over methods, {task}', means, None
    )
  decided = {
    key: decide(interval(list(values.values())), min_seeds=min_seeds)
    for key, values in found.items()
  }
  return [
    verdicts.Verdict(
      'E10',
      'The sign of delta_t varies with data set, network and task, and no '
      'method has delta_t < 0 everywhere.',
      'the intervals of some deltas (a network, method and task each) lie '
      'above 0, of others below, and every method has one above. It does not '
      'hold if all lie on one side, or a method lies below with every network '
      'and task; else it is undecided.',
      measured,
      outcome(decided),
      _sentence(found, decided),
    )
  ]


def _sentence(found: Deltas, decided: Mapping[Key, Decision]) -> str:
  if not found:
    return 'The runs that it needs are not there.'
  sides = list(decided.values())
  methods = dict.fromkeys(key.method for key in found)
  above = {key.method for key, side in decided.items() if side == 'above'}
  means = {key: float(np.mean(list(x.values()))) for key, x in found.items()}
  lower = [
    method
    for method in methods
    if all(mean < 0 for key, mean in means.items() if key.method == method)
  ]
  return (
    f'Of {len(sides)} deltas {sides.count("above")} lie above 0, '
    f'{sides.count("below")} below, {sides.count("undecided")} are undecided; '
    f'by chance alone one in twenty would be decided. Of {len(methods)} '
    f'methods {len(above)} lie above 0 somewhere. The mean is below 0 '
    f'everywhere for {", ".join(lower) or "none"}.'
  )

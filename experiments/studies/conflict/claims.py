"""The claims of the study of conflict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from experiments.report import verdicts
from experiments.report.conflict import TITLES, SettingPairs, stats

# How much the ratio of magnitude similarities may move over the training.
DRIFT = 0.1


def inside(setting: SettingPairs, seed: int) -> float:
  """Share of tasks' cosines within the middle 95 % of the samples'."""
  tasks = setting.values(seed, 'tasks/cosine')
  found = stats(setting.values(seed, 'samples/cosine'))
  return float(np.mean((tasks >= found.low) & (tasks <= found.high)))


def lower_by(setting: SettingPairs, seed: int) -> float:
  """Mean cosine of tasks less that of samples, in deviations of samples."""
  tasks = setting.values(seed, 'tasks/cosine')
  samples = setting.values(seed, 'samples/cosine')
  return float((tasks.mean() - samples.mean()) / samples.std())


def magnitude_gap(setting: SettingPairs, seed: int) -> float:
  """Mean magnitude similarity of tasks less that of samples."""
  return float(
    setting.values(seed, 'tasks/magnitude').mean()
    - setting.values(seed, 'samples/magnitude').mean()
  )


def magnitude_drift(setting: SettingPairs, seed: int) -> float | None:
  """How far the line through the epochs' ratios of both means rises."""
  run = setting.runs[seed]
  tasks, samples = run['tasks/magnitude'], run['samples/magnitude']
  epochs = sorted(tasks.keys() & samples.keys())
  if len(epochs) < 2:
    return None
  ratios = [tasks[e].mean() / samples[e].mean() for e in epochs]
  slope = np.polyfit(epochs, ratios, 1)[0]
  return float(slope * (epochs[-1] - epochs[0]))


def spread_ratio(
  heads: SettingPairs, shared: SettingPairs, seed: int, kind: str
) -> float:
  """Logarithm of the variance of cosines with larger heads by that without."""
  name = f'{kind}/cosine'
  return float(
    np.log(heads.values(seed, name).var() / shared.values(seed, name).var())
  )


def claims(
  settings: Sequence[SettingPairs], min_seeds: int
) -> list[verdicts.Verdict]:
  """The verdicts on E7, E8 and E9."""
  return [
    _angle(settings, min_seeds),
    _magnitude(settings, min_seeds),
    _heads(settings, min_seeds),
  ]


def outcomes(
  settings: Sequence[SettingPairs], min_seeds: int
) -> list[dict[str, str | None]]:
  """Each claim by the same rule on every data set and on every setting alone.

  Returns:
    Rows of ``part`` and the outcome of each claim, None where it compares
    settings that the part does not have.
  """
  parts: dict[str, list[SettingPairs]] = {}
  for setting in settings:
    parts.setdefault(setting.source, []).append(setting)
  parts |= {setting.name: [setting] for setting in settings}
  return [
    {'part': part}
    | {v.claim: v.outcome if v.measured else None for v in claims(x, min_seeds)}
    for part, x in parts.items()
  ]


def _angle(
  settings: Sequence[SettingPairs], min_seeds: int
) -> verdicts.Verdict:
  seeds = _common(settings)
  measured = verdicts.measure(
    'cosine of tasks less that of samples, in deviations of samples, mean over '
    'settings',
    {s: float(np.mean([lower_by(x, s) for x in settings])) for s in seeds},
    'above',
  )
  for setting in settings:
    measured += verdicts.measure(
      f'{setting.name}: the same',
      {s: lower_by(setting, s) for s in setting.runs},
      None,
    )
    measured += verdicts.measure(
      f"{setting.name}: share within the samples' middle 95 %",
      {s: inside(setting, s) for s in setting.runs},
      None,
    )
    measured += verdicts.measure(
      f'{setting.name}: share of pairs in conflict, tasks less samples',
      {
        s: float(
          np.mean(setting.values(s, 'tasks/cosine') < 0)
          - np.mean(setting.values(s, 'samples/cosine') < 0)
        )
        for s in setting.runs
      },
      None,
    )
  return verdicts.verdict(
    'E7',
    'Conflict in angle is not special to multi-task learning: cosines between '
    'tasks are not systematically lower than those between samples of a task.',
    'the mean over settings is higher; it does not hold where it is lower, '
    'and equal means are undecided.',
    measured,
    min_seeds=min_seeds,
  )


def _magnitude(
  settings: Sequence[SettingPairs], min_seeds: int
) -> verdicts.Verdict:
  measured = []
  for setting in settings:
    measured += verdicts.measure(
      f'{setting.name}: magnitude similarity, tasks less samples',
      {s: magnitude_gap(setting, s) for s in setting.runs},
      'below',
    )
    drift = {s: magnitude_drift(setting, s) for s in setting.runs}
    known = {s: x for s, x in drift.items() if x is not None}
    label = f'{setting.name}: change of their ratio over the training'
    measured += verdicts.measure(label, known, 'below', DRIFT)
    measured += verdicts.measure(label, known, 'above', -DRIFT)
  return verdicts.verdict(
    'E8',
    'Gradients of two tasks on a sample differ more in magnitude than those of '
    'two samples in a task, in every setting and about equally throughout '
    'training.',
    'the mean is lower in every setting, and the line through the ratios of '
    f'the epochs moves by less than {DRIFT}.',
    measured,
    min_seeds=min_seeds,
  )


def _heads(
  settings: Sequence[SettingPairs], min_seeds: int
) -> verdicts.Verdict:
  by_name = {setting.name: setting for setting in settings}
  measured = []
  for name, shared in by_name.items():
    source = shared.source
    heads = by_name.get(f'{source}.head_heavy')
    if name != f'{source}.shared_heavy' or heads is None:
      continue
    seeds = _common([shared, heads])
    for kind, wanted in (('tasks', 'below'), ('samples', None)):
      measured += verdicts.measure(
        f'{source}, {TITLES[kind]}: log of the ratio of variances',
        {s: spread_ratio(heads, shared, s, kind) for s in seeds},
        wanted,
      )
  return verdicts.verdict(
    'E9',
    'With more parameters in the heads, on the same trunk, cosines between '
    'tasks vary less.',
    'their variance over the training is lower with larger heads, on every '
    'data set.',
    measured,
    min_seeds=min_seeds,
  )


def _common(settings: Iterable[SettingPairs]) -> list[int]:
  """Seeds that all settings have."""
  seeds = [set(setting.runs) for setting in settings]
  return sorted(set.intersection(*seeds)) if seeds else []

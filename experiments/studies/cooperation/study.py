"""Do sub-models that are trained in turn, in flat minima, cooperate better?

  python -m experiments.cooperation

Two tasks, each with a modality and a sub-model of its own, whose decoder reads
the features of both. All parameters descend the sum of the losses (joint), or
each sub-model its own loss in turn, the other's features constant
(alternating), moved by noise (uniform) or by ascent within several bounds. To
``--out`` go ``config.json``, ``runs/<problem>.<arm>/seed_<k>/``,
``results.csv``, ``summary.json`` and ``report.html`` with the verdicts on MC1,
MC2 and MC3. The same command again goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import rich.console

from experiments.lab import command, identity, presets, study
from experiments.lab.options import (
  DataOptions,
  Options,
  check_counts,
  check_distinct,
  free,
)
from experiments.lab.runs import RunSpec
from experiments.studies.cooperation import arms
from experiments.studies.cooperation.claims import (
  APART,
  NAME,
  PLAIN,
  SEARCHES,
  Found,
  arm_of,
)
from experiments.studies.cooperation.problems import PROBLEMS, PairedTasks
from mtljax import _validate, data

TASKS = ('first', 'second')


@dataclasses.dataclass(frozen=True)
class CooperationConfig(Options):
  """Compares sub-models trained in turn with joint training."""

  preset: str = free('quick')
  """quick (some minutes on two cores) or long. Other options override it."""
  out: pathlib.Path = free(pathlib.Path('results/cooperation'))
  """Folder for everything this run writes."""
  problems: tuple[str, ...] = free(tuple(PROBLEMS))
  """one_way, both_ways and halves, separated by spaces."""
  bounds: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
  """Of the searches, relative to the size of the features; at least two."""
  hidden: int = 64
  """Width of the hidden layers of encoders and decoders."""
  width: int = 16
  """Of the features of each sub-model."""
  passes: int = 20
  """Passes over the training data."""
  warmup: float = 0.1
  """The share of the steps, at the beginning, that is without search."""
  learning_rate: float = 3e-3
  """Of Adam; constant."""
  batch_size: int = 64
  """Examples a step."""
  seeds: int = free(8)
  """Number of seeds: 0, 1, ..."""
  min_seeds: int = free(3)
  """With fewer seeds no claim is decided."""
  log_every: int = 100
  """Steps between lines of metrics."""
  data: DataOptions = dataclasses.field(
    default_factory=lambda: DataOptions(
      num_train=2000, num_validation=500, num_test=2000
    )
  )
  """The data; of what is planted, what is drawn."""


PRESETS = {
  'quick': CooperationConfig(),
  'long': CooperationConfig(
    preset='long',
    seeds=20,
    passes=60,
    bounds=(0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
  ),
}


def check(config: CooperationConfig) -> None:
  """Raises ValueError for options that no study could be made of."""
  names, bounds = config.problems, config.bounds
  check_distinct('problems', names)
  for name in names:
    _validate.one_of('--problems', name, PROBLEMS)
  for bound in bounds:
    _validate.in_range('--bounds', bound, 0, open_low=True)
  if len(bounds) < 2 or len({arm_of('', b) for b in bounds}) != len(bounds):
    raise ValueError(
      f'--bounds={bounds} must be at least two numbers, none twice.'
    )
  check_counts(
    config,
    (
      'seeds',
      'hidden',
      'width',
      'passes',
      'batch_size',
      'min_seeds',
      'log_every',
    ),
  )
  _validate.in_range('--warmup', config.warmup, 0, 1)
  _validate.in_range('--learning-rate', config.learning_rate, 0, open_low=True)


@dataclasses.dataclass(frozen=True, eq=False)
class CooperationSetting:
  """A problem, and the sub-models for it."""

  config: CooperationConfig
  tasks: PairedTasks
  pair: arms.SubModelPair

  @property
  def steps_per_pass(self) -> int:
    """Batches of a pass."""
    return len(self.tasks.splits['train']['y0']) // self.config.batch_size

  @property
  def num_steps(self) -> int:
    """Of a run."""
    return self.config.passes * self.steps_per_pass

  def start(self, step: Any, seed: int) -> Any:
    """The state before the first step, of all arms of a seed with the same."""
    init_key, key = jax.random.split(jax.random.key(seed))
    return step.init(self.pair.init(init_key), key=key)

  def batches(self, seed: int) -> Any:
    """Those of a seed, without end."""
    return data.make_train_iterator(
      self.tasks.splits['train'], batch_size=self.config.batch_size, seed=seed
    )

  def scores(self, arm: str, split: str, state: Any) -> Mapping[str, float]:
    """The accuracy of each task, and their mean."""
    right, _ = self.pair.measured(
      state.params, dict(self.tasks.splits[split]), float(arm == APART)
    )
    right = np.asarray(right)
    found = {f'accuracy/{t}': right[i] for i, t in enumerate(TASKS)}
    return {'accuracy': right.mean(), **found}

  def measure(
    self, arm: str, seed: int, state: Any
  ) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """The columns of `claims.Found`, and no arrays."""
    splits = {name: dict(x) for name, x in self.tasks.splits.items()}
    apart = float(arm == APART)
    right, losses = self.pair.measured(state.params, splits['test'], apart)
    valid, _ = self.pair.measured(state.params, splits['validation'], apart)
    key = jax.random.fold_in(jax.random.key(seed), 1)
    changes = self.pair.changes(state.params, splits['test'], key)
    if arm == APART:
      changes = jax.tree.map(np.zeros_like, changes)
    found = arms.means(
      (right, valid, losses, changes['params'], changes['features'])
    )
    return Found(*found)._asdict(), {}


def make_setting(
  config: CooperationConfig, name: str, console: rich.console.Console
) -> CooperationSetting:
  """A problem of a study."""
  say = lambda text: console.print(text, markup=False)
  tasks = PROBLEMS[name](config.data, say)
  size = len(tasks.splits['train']['y0'])
  if size < config.batch_size:
    raise ValueError(
      f'--batch-size={config.batch_size}: {name} has {size} examples to train '
      'on; make it smaller.'
    )
  pair = arms.SubModelPair(tasks, config.hidden, config.width)
  return CooperationSetting(config, tasks, pair)


def make_groups(
  config: CooperationConfig, setting: CooperationSetting
) -> list[tuple[RunSpec, ...]]:
  """The runs of all arms on a problem; those of a group share a program."""

  def spec(arm, seed, step, **more):
    return RunSpec(
      method=f'{setting.tasks.name}.{arm}',
      seed=seed,
      tasks=TASKS,
      step=step,
      init_fn=functools.partial(setting.start, step, seed),
      batches_fn=functools.partial(setting.batches, seed),
      validate_fn=functools.partial(setting.scores, arm, 'validation'),
      test_fn=functools.partial(setting.scores, arm, 'test'),
      measure_fn=functools.partial(setting.measure, arm, seed),
      num_steps=setting.num_steps,
      steps_per_epoch=setting.num_steps,
      **more,
    )

  seeds = range(config.seeds)
  groups = []
  for arm in PLAIN:
    step = arms.make_plain(setting.pair, arm, config.learning_rate)
    groups.append(tuple(spec(arm, seed, step) for seed in seeds))
  for search in SEARCHES:
    build = functools.partial(
      arms.make_search,
      setting.pair,
      search,
      config.learning_rate,
      round(config.warmup * setting.num_steps),
    )
    steps = {bound: build({'bound': bound}) for bound in config.bounds}
    groups.append(
      tuple(
        spec(
          arm_of(search, bound),
          seed,
          step,
          build=build,
          hparams={'bound': bound},
        )
        for bound, step in steps.items()
        for seed in seeds
      )
    )
  return groups


def prepare(
  config: CooperationConfig, console: rich.console.Console
) -> study.Study:
  """Everything that can be refused, before anything is written or trained."""
  check(config)
  settings = [make_setting(config, name, console) for name in config.problems]
  return study.Study(
    name=NAME,
    tasks=TASKS,
    groups=tuple(x for y in settings for x in make_groups(config, y)),
    growing=('methods',),
    data={x.tasks.name: identity.digests(x.tasks.splits) for x in settings},
    options={
      'log_every': config.log_every,
      'batch_size': config.batch_size,
      'tensorboard': False,
    },
    sweep='vmap',
  )


def main() -> None:
  """The command line."""
  command.run_command(
    lambda: presets.parse(
      CooperationConfig, PRESETS, prog='python -m experiments.cooperation'
    ),
    prepare,
    study.run,
  )

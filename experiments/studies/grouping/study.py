"""Do affinities of tasks say which should be trained together?

  python -m experiments.grouping
  python -m experiments.grouping --problems flights@standardised

Every group of tasks is trained, from single tasks to all of them, and inside
the training of all of them affinities are measured: what a step on one task
does to another. They are compared with what the tasks gain from each other, and
the grouping that they choose by exact search with the best one and a random
one. To ``--out`` go ``config.json``, ``runs/<problem>/seed_<k>.npz``,
``results.csv``, ``summary.json`` and ``report.html`` with the verdicts on the
claims GR1 to GR4. The same command again goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich.console

import mtljax as mtl
from experiments.lab import command, presets, seeds
from experiments.lab.options import (
  DataOptions,
  Options,
  check_counts,
  check_distinct,
  flag,
  free,
)
from experiments.lab.problem import Problem, make_problem, over_batches
from experiments.lab.suite import Data, Suite, Widths, check_widths
from experiments.studies.grouping import affinities, groupings, problems
from experiments.studies.grouping.claims import NAME, SCORES
from mtljax import _validate
from mtljax.models import layers
from mtljax.training import make_sweep, make_train_step
from mtljax.training.step import sweep


@dataclasses.dataclass(frozen=True)
class GroupingConfig(Options):
  """Compares affinities of tasks with what they gain from each other."""

  preset: str = free('quick')
  """quick (a few minutes on two cores) or long. Other options override it."""
  out: pathlib.Path = free(pathlib.Path('results/grouping'))
  """Folder for everything this run writes."""
  problems: tuple[str, ...] = free(tuple(problems.OWN))
  """planted, digit_attributes, and suites of three to eight tasks, all of which
  are taken; separated by spaces. flights@standardised: that source of it."""
  groups: int = free(2)
  """The most groups of a grouping."""
  steps: int = 300
  """Steps of the network of each group."""
  hidden_sizes: tuple[int, ...] = (16,)
  """Layers of the trunk."""
  head_sizes: tuple[int, ...] = ()
  """Hidden layers of each head; none: linear heads."""
  batch_size: int = 64
  """Examples a step."""
  learning_rate: float = 5e-3
  """Of Adam; it falls to zero along a cosine."""
  probe_every: int = 10
  """Steps between measurements of affinities."""
  probe_rate: float = 0.01
  """Of the step of gradient descent that a measurement tries."""
  sweep: str = free('auto')
  """How the networks of all groups share a program: vmap, map, unroll or loop;
  auto takes what is fastest on this backend."""
  seeds: int = free(8)
  """Number of seeds: 0, 1, ..."""
  min_seeds: int = free(3)
  """With fewer seeds no claim is decided."""
  data: DataOptions = dataclasses.field(
    default_factory=lambda: DataOptions(
      num_train=1000, num_validation=1000, num_test=2000
    )
  )
  """The data; sources are part of --problems."""


PRESETS = {
  'quick': GroupingConfig(),
  'long': GroupingConfig(
    preset='long',
    steps=2000,
    seeds=12,
    hidden_sizes=(64, 32),
    data=DataOptions(num_train=5000, num_validation=2000, num_test=5000),
  ),
}


def check(config: GroupingConfig) -> None:
  """Raises ValueError for options that no study could be made of."""
  names = config.problems
  plain = [x.partition(problems.SOURCE)[0] for x in names]
  check_distinct('problems', names, plain)
  if config.data.source:
    raise ValueError(
      f'--data.source={config.data.source!r}: say it behind the suite, as in '
      f'--problems flights{problems.SOURCE}standardised.'
    )
  for name in names:
    problems.find(name)[0].check_data(config.data)
  _validate.one_of('--sweep', config.sweep, sweep.MODES)
  check_counts(
    config, ('seeds', 'steps', 'batch_size', 'probe_every', 'min_seeds')
  )
  _validate.in_range('--groups', config.groups, 2)
  for name in ('learning_rate', 'probe_rate'):
    _validate.in_range(flag(name), getattr(config, name), 0, open_low=True)
  check_widths(config.hidden_sizes, config.head_sizes)


@dataclasses.dataclass(frozen=True, eq=False)
class GroupingSetting:
  """The tasks of a problem, their network, and the step of all groups."""

  config: GroupingConfig
  suite: Suite
  data: Data
  problem: Problem

  @property
  def columns(self) -> list[str]:
    """The score of each task."""
    return [f'{x.score.name}/{x.name}' for x in self.suite.tasks]

  @functools.cached_property
  def training(self):
    """The steps of the networks of all groups, a member a group.

    All have the heads of all tasks; those outside of the group stay as they
    were.
    """
    config, num_tasks = self.config, len(self.suite.tasks)
    rate = optax.cosine_decay_schedule(config.learning_rate, config.steps)

    def build(hparams):
      method = mtl.fixed(num_tasks, labels=self.problem.labels, **hparams)
      return make_train_step(
        method, optax.adam(rate), self.problem.loss, has_state=True
      )

    mode = config.sweep
    if mode == 'auto':
      mode = layers.default_sweep_mode(jax.default_backend())
    return make_sweep(build, {'weights': groupings.masks(num_tasks)}, mode=mode)

  @functools.cached_property
  def measure(self):
    """Affinities at parameters, on a batch."""
    _, model_state = self.problem.init(jax.random.key(0))
    losses = affinities.task_losses(
      self.suite, self.data, self.problem, model_state
    )
    return affinities.make_measure(
      losses, self.problem.labels, self.config.probe_rate
    )

  def run(self, seed: int, on_step: Callable[[int], None]) -> dict[str, Any]:
    """What was measured in the joint run, and the metrics of all groups.

    Args:
      seed: of the parameters and of the order of the data.
      on_step: called with the number of steps made.

    Returns:
      ``affinity/<score>``, means over training, row s, column t; and
      ``validation`` and ``test``, the score of each task in each group, NaN
      outside of it.
    """
    config, training = self.config, self.training
    params, model_state = self.problem.init(jax.random.key(seed))
    keys = jnp.stack([jax.random.key(seed)] * training.num_members)
    state = training.init(params, keys=keys, model_state=model_state)
    batches = self.data.batches(config.batch_size, seed)
    readings = []
    for step in range(config.steps):
      batch = next(batches)
      if step % config.probe_every == 0:
        everyone = training.member(state, training.num_members - 1)
        readings.append(jax.device_get(self.measure(everyone.params, batch)))
      state, _ = training.step(state, batch)
      on_step(step + 1)
    found = {
      f'affinity/{name}': np.mean([x[name] for x in readings], axis=0)
      for name in SCORES
    }
    states = [training.member(state, i) for i in range(training.num_members)]
    inside = groupings.masks(len(self.suite.tasks)) > 0
    for split in ('validation', 'test'):
      metrics = [self._evaluate(x, split) for x in states]
      found[split] = np.where(inside, metrics, np.nan)
    return found

  def _evaluate(self, state: Any, split: str) -> list[float]:
    measure = functools.partial(
      self.problem.measure, state.params, state.model_state
    )
    arrays = self.data.splits[split]
    found = over_batches(measure, arrays, self.data.eval_batch)
    return [float(found[x]) for x in self.columns]

  def rows(
    self, name: str, seed: int, arrays: Mapping[str, np.ndarray]
  ) -> Iterable[dict[str, Any]]:
    """A row of the table for each group."""
    names = self.suite.task_names
    for i, group in enumerate(groupings.groups(len(names))):
      inside = groupings.members(group)
      yield {
        'problem': name,
        'group': '+'.join(names[t] for t in inside),
        'seed': seed,
      } | {
        f'{split}/{task}': float(arrays[split][i, t])
        for split in ('validation', 'test')
        for t, task in enumerate(names)
        if t in inside
      }


def make_setting(
  config: GroupingConfig, name: str, console: rich.console.Console
) -> GroupingSetting:
  """A problem of the study."""
  suite, source = problems.find(name)
  data = suite.read(
    dataclasses.replace(config.data, source=source),
    config.batch_size,
    lambda text: console.print(text, markup=False),
  )
  if not data.spread:
    raise ValueError(
      f'--problems={name!r}: its tasks are on batches of their own; this study '
      'trains all on one.'
    )
  widths = Widths(
    hidden_sizes=config.hidden_sizes, head_sizes=config.head_sizes
  )
  problem = make_problem(suite, data, suite.network(problems.NETWORK), widths)
  return GroupingSetting(config, suite, data, problem)


def prepare(
  config: GroupingConfig, console: rich.console.Console
) -> dict[str, GroupingSetting]:
  """Everything that can be refused, before anything is written or trained."""
  check(config)
  return {name: make_setting(config, name, console) for name in config.problems}


def run(
  config: GroupingConfig,
  settings: Mapping[str, GroupingSetting],
  console: rich.console.Console,
) -> None:
  """Runs the study."""
  values = dataclasses.asdict(config) | {
    'experiment': NAME,
    'tasks': ['all'],
    'suites': {
      name: {
        'title': x.suite.title,
        'tasks': list(x.suite.task_names),
        'scores': x.columns,
        'higher_is_better': [
          task.score.higher_is_better for task in x.suite.tasks
        ],
      }
      for name, x in settings.items()
    },
  }
  seeds.run_seeds(
    config,
    values,
    [(x, seed) for seed in range(config.seeds) for x in settings],
    lambda name, seed, on_step: settings[name].run(seed, on_step),
    lambda name, seed, arrays: settings[name].rows(name, seed, arrays),
    console,
    num_steps=config.steps,
    growing=('suites',),
    data={x: y.suite.digests(y.data) for x, y in settings.items()},
  )


def main() -> None:
  """The command line."""
  command.run_command(
    lambda: presets.parse(
      GroupingConfig, PRESETS, prog='python -m experiments.grouping'
    ),
    prepare,
    run,
  )

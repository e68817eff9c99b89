r"""Do the order of tasks and the order of instances help?

  python -m experiments.curricula
  python -m experiments.curricula --problems carriers \
    --data.num-train 16000 --data.num-test 16000

A base model that has seen a little of all tasks says how alike they are and how
difficult their instances. From it training goes on, on batches of one task
each: in an order of tasks that is annealed so that neighbours are alike or in a
random one, with instances from easy to difficult or in random order. To
``--out`` go ``config.json``, ``runs/<problem>.<arm>/seed_<k>/``,
``results.csv``, ``summary.json`` and ``report.html`` with the verdicts on the
claims DC1, DC2 and DC3. The same command again goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich.console

import mtljax as mtl
from experiments.lab import command, identity, presets, study
from experiments.lab.options import (
  DataOptions,
  Options,
  check_counts,
  check_distinct,
  free,
)
from experiments.lab.runs import RunSpec
from experiments.studies.curricula import orders
from experiments.studies.curricula.claims import ARMS, BOTH, MIXED, NAME
from experiments.studies.curricula.problems import PROBLEMS, OwnedRows
from mtljax import _validate, data
from mtljax.training import TrainStep, make_train_step


@dataclasses.dataclass(frozen=True)
class CurriculaConfig(Options):
  """Compares curricula over tasks and instances with random orders."""

  preset: str = free('quick')
  """quick (a few minutes on two cores) or long. Other options override it."""
  out: pathlib.Path = free(pathlib.Path('results/curricula'))
  """Folder for everything this run writes."""
  problems: tuple[str, ...] = free(('planted', 'digit_pairs'))
  """planted and digit_pairs, separated by spaces; or carriers, by itself."""
  num_tasks: int = 10
  """Tasks of planted, 8 to 12."""
  hidden_sizes: tuple[int, ...] = (32, 32)
  """Layers of the shared trunk."""
  base_steps: int = 100
  """Steps of the base model, on batches of all tasks."""
  passes: int = 3
  """Passes over the training data after it."""
  rounds: int = 1
  """A task's batches are cut in so many parts, which take turns in a pass; 1
  finishes a task before the next."""
  drop: float = 0.1
  """The share of a task's most difficult instances that is left out where they
  are ordered."""
  learning_rate: float = 3e-3
  """Of Adam; constant."""
  batch_size: int = 16
  """Examples a step."""
  seeds: int = free(10)
  """Number of seeds: 0, 1, ..."""
  min_seeds: int = free(3)
  """With fewer seeds no claim is decided."""
  log_every: int = 50
  """Steps between lines of metrics."""
  data: DataOptions = dataclasses.field(
    default_factory=lambda: DataOptions(
      num_train=2000, num_validation=500, num_test=2000
    )
  )
  """The data; of planted what is drawn."""


PRESETS = {
  'quick': CurriculaConfig(),
  'long': CurriculaConfig(
    preset='long', seeds=20, passes=10, num_tasks=12, data=DataOptions()
  ),
}


def check(config: CurriculaConfig) -> None:
  """Raises ValueError for options that no study could be made of."""
  names = config.problems
  check_distinct('problems', names)
  for name in names:
    _validate.one_of('--problems', name, PROBLEMS)
  if not config.hidden_sizes:
    raise ValueError('--hidden-sizes is empty: the trunk needs a layer.')
  for size in config.hidden_sizes:
    _validate.in_range('--hidden-sizes', size, 1)
  check_counts(
    config,
    (
      'seeds',
      'base_steps',
      'passes',
      'rounds',
      'batch_size',
      'min_seeds',
      'log_every',
    ),
  )
  _validate.in_range('--num-tasks', config.num_tasks, 8, 12)
  _validate.in_range('--drop', config.drop, 0, 1, open_high=True)
  _validate.in_range('--learning-rate', config.learning_rate, 0, open_low=True)


@dataclasses.dataclass(frozen=True, eq=False)
class CurriculaSetting:
  """A problem, the network for it, and its train step."""

  config: CurriculaConfig
  tasks: OwnedRows
  network: orders.PickedHeads
  step: TrainStep

  @functools.cached_property
  def predict(self) -> Any:
    """The score of each row of arrays, jitted."""

    def score(params, arrays):
      outputs, _ = self.network.apply(params, arrays['x'], arrays['owner'])
      return self.tasks.kind.scores(outputs, arrays['label'])

    return jax.jit(score)

  @functools.cache  # noqa: B019
  def base(self, seed: int) -> orders.Base:
    """The model that all arms of a seed begin at."""
    config = self.config
    return orders.make_base(
      self.tasks,
      self.network,
      jax.random.fold_in(jax.random.key(seed), 0),
      steps=config.base_steps,
      batch_size=config.batch_size,
      learning_rate=config.learning_rate,
    )

  def start(self, seed: int):
    """The state before the first step."""
    params = jax.tree.map(jnp.array, self.base(seed).params)
    return self.step.init(params, key=jax.random.key(seed))

  def batches(self, arm: str, seed: int):
    """The batches of an arm, without end."""
    config, arrays = self.config, self.tasks.train
    if arm == MIXED:
      return data.make_train_iterator(
        arrays, batch_size=config.batch_size, seed=seed
      )
    found = orders.make_schedule(
      self.tasks,
      self.base(seed),
      arm,
      jax.random.fold_in(jax.random.key(seed), 1),
      batch_size=config.batch_size,
      rounds=config.rounds,
      drop=config.drop,
    )
    return found.batches(arrays, num_epochs=None)

  def scores(self, state) -> Mapping[str, float]:
    """On the test data: of each task, their mean and their least."""
    test = self.tasks.test
    rows = np.asarray(self.predict(state.params, dict(test)))
    found = [
      rows[test['owner'] == t].mean() for t in range(self.tasks.num_tasks)
    ]
    name = self.tasks.kind.score
    return {name: np.mean(found), f'least_{name}': np.min(found)}

  def costs(self, seed: int, state) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """What the annealed order of a seed costs."""
    del state
    key = jax.random.fold_in(jax.random.key(seed), 2)
    return orders.compare_orders(self.base(seed), key), {}


def make_setting(
  config: CurriculaConfig, name: str, console: rich.console.Console
) -> CurriculaSetting:
  """A problem of a study."""
  say = lambda text: console.print(text, markup=False)
  tasks = PROBLEMS[name](config.num_tasks, config.data, say)
  for task, rows in enumerate(tasks.rows()):
    kept = len(rows) * (1 - config.drop)
    if kept < config.batch_size:
      raise ValueError(
        f'--batch-size={config.batch_size}: task {task} of {name} has '
        f'{len(rows)} examples, too few with --drop={config.drop}.'
      )
  network = orders.PickedHeads(config.hidden_sizes, tasks.num_tasks)
  step = make_train_step(
    mtl.sum_losses(1),
    optax.adam(config.learning_rate),
    functools.partial(orders.loss_of, network, tasks.kind),
  )
  return CurriculaSetting(config, tasks, network, step)


def make_specs(config: CurriculaConfig, setting: CurriculaSetting):
  """The runs of all arms on a problem, sharing the compiled step."""
  count = len(setting.tasks.train['x'])
  steps_per_pass = count // config.batch_size
  return [
    RunSpec(
      method=f'{setting.tasks.name}.{arm}',
      seed=seed,
      tasks=('batch',),
      step=setting.step,
      init_fn=functools.partial(setting.start, seed),
      batches_fn=functools.partial(setting.batches, arm, seed),
      validate_fn=setting.scores,
      test_fn=setting.scores,
      measure_fn=functools.partial(setting.costs, seed)
      if arm == BOTH
      else None,
      num_steps=config.passes * steps_per_pass,
      steps_per_epoch=steps_per_pass,
    )
    for arm in ARMS
    for seed in range(config.seeds)
  ]


def prepare(
  config: CurriculaConfig, console: rich.console.Console
) -> study.Study:
  """Everything that can be refused, before anything is written or trained."""
  check(config)
  settings = [make_setting(config, name, console) for name in config.problems]
  kinds = {x.tasks.name: x.tasks.kind.score for x in settings}
  if len(set(kinds.values())) > 1:
    raise ValueError(
      f'--problems={config.problems} cannot be averaged: they are scored by '
      f'{kinds}. Take those of one score together.'
    )
  return study.Study(
    name=NAME,
    tasks=('batch',),
    groups=tuple((x,) for y in settings for x in make_specs(config, y)),
    growing=('methods',),
    data={
      x.tasks.name: identity.digests(
        {'train': x.tasks.train, 'test': x.tasks.test}
      )
      for x in settings
    },
    options={
      'log_every': config.log_every,
      'batch_size': config.batch_size,
      'tensorboard': False,
    },
  )


def main() -> None:
  """The command line."""
  command.run_command(
    lambda: presets.parse(
      CurriculaConfig, PRESETS, prog='python -m experiments.curricula'
    ),
    prepare,
    study.run,
  )

"""Do tasks conflict more than samples of one task do?

  python -m experiments.conflict_study

Networks that share much, and networks with larger heads on the same trunk, are
trained on two overlapping digits and on Census-Income. Every k steps the
gradients of single samples and tasks are compared. To ``--out`` go
``config.json``, ``runs/<suite>.<shape>/seed_<k>/`` with the pairs in
``probe.jsonl``, ``results.csv``, ``summary.json`` and ``report.html`` with the
verdicts on the claims E7, E8 and E9. The same command again goes on where it
was stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import jax
import optax
import rich.console

import mtljax as mtl
from experiments import suites
from experiments.lab import command, diagnose, presets, study
from experiments.lab.options import DataOptions, Options, check_counts, free
from experiments.lab.problem import Problem, make_problem
from experiments.lab.runs import RunSpec
from experiments.lab.suite import Data, Suite, Widths, check_widths
from experiments.studies.conflict.report import NAME
from mtljax import _validate
from mtljax.training import make_train_step

#: Head layers of each shape; the trunk is the same.
SHAPES: dict[str, tuple[int, ...]] = {
  'shared_heavy': (),
  'head_heavy': (64, 64),
}
NETWORK = 'multi_mlp'


@dataclasses.dataclass(frozen=True)
class ConflictConfig(Options):
  """Compares conflict between tasks with conflict between samples."""

  preset: str = free('quick')
  """quick (a few minutes on two cores) or long. Other options override it."""
  out: pathlib.Path = free(pathlib.Path('results/conflict_study'))
  """Folder for everything this run writes."""
  suite: tuple[str, ...] = free(('digits', 'census'))
  """Suites, separated by spaces, each with two tasks or more."""
  epochs: int = 4
  """Passes over the training data."""
  hidden_sizes: tuple[int, ...] = (64, 32)
  """Layers of the trunk, the same in both shapes."""
  learning_rate: float = 1e-3
  """Of Adam; constant."""
  batch_size: int = 64
  """Examples a step."""
  diagnose_every: int = 5
  """Steps between comparisons of gradients."""
  diagnose_samples: int = 8
  """Samples of a batch that are compared."""
  min_seeds: int = free(3)
  """With fewer seeds no claim is decided."""
  log_every: int = 25
  """Steps between lines of metrics."""
  data: DataOptions = dataclasses.field(
    default_factory=lambda: DataOptions(
      num_train=4000, num_validation=1000, num_test=2000
    )
  )
  """The data of every suite."""


PRESETS = {
  'quick': ConflictConfig(),
  'long': ConflictConfig(
    preset='long', seeds=5, epochs=30, data=DataOptions(num_train=8000)
  ),
}


@dataclasses.dataclass(frozen=True)
class ConflictSetting:
  """A network on a suite."""

  name: str
  suite: Suite
  data: Data
  problem: Problem


def check(config: ConflictConfig) -> None:
  """Raises ValueError for options that no study could be made of."""
  if not config.suite or len(set(config.suite)) != len(config.suite):
    raise ValueError(
      f'--suite={config.suite} must be different ones of '
      f'{", ".join(suites.available())}.'
    )
  for name in config.suite:
    suites.find_with(name, NETWORK).check_data(config.data)
  check_counts(
    config, ('seeds', 'epochs', 'batch_size', 'log_every', 'min_seeds')
  )
  _validate.in_range('--diagnose-every', config.diagnose_every, 1)
  _validate.in_range(
    '--diagnose-samples', config.diagnose_samples, 2, config.batch_size
  )
  _validate.in_range('--learning-rate', config.learning_rate, 0, open_low=True)
  check_widths(config.hidden_sizes, ())


def make_settings(
  config: ConflictConfig, say: Callable[[str], None]
) -> list[ConflictSetting]:
  """Both shapes on every suite, whose data is prepared if it is not there."""
  found = []
  for name in config.suite:
    suite = suites.find(name)
    suite = suite.with_tasks(suite.default_tasks)
    try:
      data = suite.read(config.data, config.batch_size, say)
    except FileNotFoundError as error:
      others = ' '.join(x for x in config.suite if x != name)
      remedy = f'. To do without these data: --suite {others}' if others else ''
      raise FileNotFoundError(f'{error}{remedy}') from error
    for shape, head_sizes in SHAPES.items():
      widths = Widths(hidden_sizes=config.hidden_sizes, head_sizes=head_sizes)
      problem = make_problem(suite, data, suite.network(NETWORK), widths)
      found.append(
        ConflictSetting(f'{suite.name}.{shape}', suite, data, problem)
      )
  return found


def make_specs(
  config: ConflictConfig, setting: ConflictSetting
) -> list[RunSpec]:
  """The runs of a setting, all seeds sharing the compiled step."""
  problem, data = setting.problem, setting.data
  step = make_train_step(
    mtl.sum_losses(len(problem.tasks)),
    optax.adam(config.learning_rate),
    problem.loss,
    has_state=True,
  )
  probe = diagnose.make_probe(
    problem.loss,
    problem.labels,
    problem.sharings.gramian_labels,
    num_samples=config.diagnose_samples,
  )
  steps_per_epoch = data.steps_per_epoch(config.batch_size)

  return [
    RunSpec(
      method=setting.name,
      seed=seed,
      tasks=problem.tasks,
      step=step,
      init_fn=functools.partial(problem.start, step, jax.random.key(seed)),
      batches_fn=functools.partial(data.batches, config.batch_size, seed),
      validate_fn=lambda state: problem.evaluate(state, 'validation'),
      test_fn=lambda state: problem.evaluate(state, 'test'),
      probe_fn=probe,
      probe_every=config.diagnose_every,
      num_steps=config.epochs * steps_per_epoch,
      steps_per_epoch=steps_per_epoch,
      select=setting.suite.score_of,
    )
    for seed in range(config.seeds)
  ]


def prepare(
  config: ConflictConfig, console: rich.console.Console
) -> study.Study:
  """Everything that can be refused, before anything is written or trained."""
  check(config)
  settings = make_settings(
    config, lambda text: console.print(text, markup=False)
  )
  specs = [x for setting in settings for x in make_specs(config, setting)]
  by_suite = {x.suite.name: x for x in settings}
  return study.Study(
    name=NAME,
    tasks=tuple(dict.fromkeys(t for x in settings for t in x.problem.tasks)),
    groups=tuple((spec,) for spec in specs),
    growing=('tasks', 'methods'),
    data={name: x.suite.digests(x.data) for name, x in by_suite.items()},
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
      ConflictConfig, PRESETS, prog='python -m experiments.conflict_study'
    ),
    prepare,
    study.run,
  )

"""Are the features of multi-task networks more robust to corrupted images?

  python -m experiments.robustness_study

Networks are trained on two overlapping digits, by each task alone and by
several methods. Their trunks are then frozen, and their heads fitted again to
images under random corruptions. What is left of their accuracy on the test
images under every corruption and severity is compared with what is left of the
single-task networks'. To ``--out`` go ``config.json``, ``corrupted/``,
``runs/<model>.<method>/seed_<k>/`` with the accuracies in ``artifacts.npz``,
``results.csv``, ``summary.json`` and ``report.html`` with heat maps and the
verdict on the claim E10. The same command again goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import rich.console

from experiments import suites
from experiments.lab import (
  command,
  comparison,
  diagnose,
  methods,
  presets,
  specs,
  study,
)
from experiments.lab.options import (
  DataOptions,
  Options,
  check_counts,
  check_distinct,
  free,
  override,
)
from experiments.lab.problem import make_problem, trained_on
from experiments.lab.runs import RunSpec
from experiments.lab.suite import Data, Suite
from experiments.studies.robustness import corrupted
from experiments.studies.robustness.report import NAME
from mtljax import _validate
from mtljax.data import corruptions


@dataclasses.dataclass(frozen=True)
class RobustnessConfig(Options, diagnose.DiagnoseOptions):
  """Compares what corrupted images leave of multi- and single-task networks."""

  preset: str = free('quick')
  """quick (about ten minutes on two cores) or paper. Other options override
  it."""
  out: pathlib.Path = free(pathlib.Path('results/robustness_study'))
  """Folder for everything this run writes."""
  suite: str = 'digits'
  """A suite of images. Of another than the digits, epochs, batches, learning
  rate and data are by default those of its first preset."""
  models: tuple[str, ...] = free(('multi_mlp', 'multi_lenet'))
  """Networks of the suite, separated by spaces; of another suite than the
  digits its first by default. Of the digits: multi_mlp, multi_lenet, resnet
  (small), resnet18."""
  methods: tuple[str, ...] = free(
    ('sum_losses', 'uncertainty', 'rlw', 'imtl', 'pcgrad', 'cagrad')
  )
  """Methods to compare with single-task training; see multi_digits."""
  epochs: int = 4
  """Passes over the training pairs."""
  learning_rate: float = 2e-3
  """Of Adam; it falls to zero along a cosine."""
  batch_size: int = 64
  """Examples a step."""
  corruptions: tuple[str, ...] = corruptions.CORRUPTIONS
  """The corruptions, separated by spaces: the fifteen common ones, or those
  and the four held out."""
  severities: tuple[int, ...] = (1, 3, 5)
  """Their severities, of 1 to 5."""
  scale: str = 'cifar'
  """What a severity means: cifar (made for 32 pixels) or imagenet (for 224)."""
  draws: int = 2
  """How often the heads see a training image, under a random corruption and
  severity each time."""
  refit_epochs: int = 20
  """Passes over these images."""
  refit_learning_rate: float = 5e-3
  """Of Adam on the heads; it falls to zero along a cosine."""
  min_seeds: int = free(3)
  """With fewer seeds nothing is decided."""
  log_every: int = 25
  """Steps between lines of metrics."""
  data: DataOptions = dataclasses.field(
    default_factory=lambda: DataOptions(
      num_train=4000, num_validation=1000, num_test=1000
    )
  )
  """The data set."""


PRESETS = {
  'quick': RobustnessConfig(),
  'paper': RobustnessConfig(
    preset='paper',
    seeds=5,
    epochs=30,
    severities=corruptions.SEVERITIES,
    draws=4,
    data=DataOptions(),
  ),
}


def options_of(
  config: RobustnessConfig, suite: Suite
) -> comparison.ComparisonConfig:
  """The options of the training on clean images."""
  options = comparison.ComparisonConfig(
    tasks=suite.task_names,
    model=config.models[0],
    methods=methods.expand(config.methods),
    scores=(1.0,) * len(suite.tasks),
    seeds=config.seeds,
    epochs=config.epochs,
    learning_rate=config.learning_rate,
    batch_size=config.batch_size,
    diagnose=config.diagnose,
    diagnose_every=config.diagnose_every,
    diagnose_samples=config.diagnose_samples,
    log_every=config.log_every,
    data=config.data,
  )
  return comparison.complete(options, suite)


def suite_of(config: RobustnessConfig) -> Suite:
  """The suite, with the tasks that are trained by default.

  Raises:
    ValueError: it has no images.
  """
  suite = suites.find(config.suite)
  if not suite.images:
    raise ValueError(
      f'--suite={config.suite!r} has no images to corrupt; take digits.'
    )
  return suite.with_tasks(suite.default_tasks)


def check(config: RobustnessConfig) -> None:
  """Raises ValueError for options that no study could be made of."""
  suite = suite_of(config)
  if not config.methods:
    raise ValueError(
      '--methods is empty: name at least one to compare with single-task '
      'training.'
    )
  for option, known in (
    ('models', tuple(suite.networks)),
    ('corruptions', corrupted.KNOWN),
    ('severities', corruptions.SEVERITIES),
  ):
    values = getattr(config, option)
    check_distinct(option, values)
    for value in values:
      _validate.one_of(f'--{option}', value, known)
  methods.check_names(methods.expand(config.methods))
  comparison.check(options_of(config, suite), suite)
  _validate.one_of('--scale', config.scale, ('cifar', 'imagenet'))
  check_counts(config, ('draws', 'refit_epochs', 'min_seeds'))
  _validate.in_range(
    '--refit-learning-rate', config.refit_learning_rate, 0, open_low=True
  )
  for name in config.models:
    diagnose.check_network(config, name, suite.network(name))


def prepare(
  config: RobustnessConfig, console: rich.console.Console
) -> study.Study:
  """Everything that can be refused, before anything is written or trained."""
  check(config)
  suite = suite_of(config)
  data = suite.read(
    config.data,
    config.batch_size,
    lambda text: console.print(text, markup=False),
  )
  corrupt = functools.cache(
    functools.partial(
      corrupted.make_corrupted,
      config.out / 'corrupted',
      data.splits,
      corrupted.make_pairs(config.corruptions, config.severities),
      draws=config.draws,
      seed=config.data.seed,
      scale=config.scale,
    )
  )

  def before():
    kinds = len(config.corruptions) * len(config.severities)
    console.print(
      f'Images under {kinds} corruptions and severities, made once.'
    )
    corrupt()

  specs = [
    spec
    for name in config.models
    for spec in make_specs(config, suite, name, data, corrupt)
  ]
  return study.Study(
    name=NAME,
    tasks=suite.task_names,
    groups=tuple((spec,) for spec in specs),
    facts={
      'scores': {
        task.name: {
          'name': task.score.name,
          'higher_is_better': task.score.higher_is_better,
          'unit': task.score.unit,
        }
        for task in suite.tasks
      }
    },
    data={suite.name: suite.digests(data)},
    options={
      'log_every': config.log_every,
      'batch_size': config.batch_size,
      'select': suite.score_of,
      'tensorboard': False,
    },
    before=before,
  )


def make_specs(
  config: RobustnessConfig,
  suite: Suite,
  name: str,
  data: Data,
  corrupt: Callable[[], corrupted.Corrupted],
) -> list[RunSpec]:
  """The runs of a network: each task alone, then all by every method."""
  options = options_of(config, suite)
  network = suite.network(name)
  steps = data.steps_per_epoch(config.batch_size)
  parts: dict[tuple[str, ...], Any] = {}
  probes: dict[tuple[str, ...], diagnose.Probe] = {}
  found = []
  for method in specs.methods_of(options, suite.task_names):
    tasks = trained_on(method, suite.task_names)
    if tasks not in parts:
      problem = make_problem(suite, data, network, tasks=tasks)
      refit = corrupted.make_refit(
        problem,
        epochs=config.refit_epochs,
        batch_size=config.batch_size,
        learning_rate=config.refit_learning_rate,
      )
      probes |= diagnose.make_probes(options, {tasks: problem})
      trained = corrupted.Trained(problem, suite.tasks_of(tasks), data)
      parts[tasks] = (
        problem,
        corrupted.make_measure(trained, corrupt, refit),
      )
    problem, measure = parts[tasks]
    for spec in specs.make_specs(
      options,
      method,
      problem,
      data,
      None,
      mode=network.mode_of('auto'),
      probe=probes.get(tasks),
    ):
      found.append(
        dataclasses.replace(
          spec,
          method=f'{name}.{method}',
          measure_fn=functools.partial(measure, spec.seed),
          num_steps=config.epochs * steps,
          steps_per_epoch=steps,
          facts={'model': name, 'base': method},
        )
      )
  return found


#: Options that another suite than the digits has of its first preset.
_OF_SUITE = ('epochs', 'batch_size', 'learning_rate')


def configs(name: str) -> dict[str, RobustnessConfig]:
  """The presets of the study on a suite.

  Args:
    name: of the suite; if there is none, what is wrong is said later.
  """
  if name == RobustnessConfig.suite:
    return PRESETS
  try:
    suite = suites.find(name)
  except ValueError:
    return PRESETS
  own = next(iter(suite.presets.values()))
  changes = {'suite': name, 'models': (next(iter(suite.networks)),)}
  changes |= {'data': DataOptions()}
  changes |= {
    key: x
    for key, x in own.items()
    if key in _OF_SUITE or key.startswith('data.')
  }
  return {key: override(x, changes) for key, x in PRESETS.items()}


def main() -> None:
  """The command line."""
  command.run_command(
    lambda: presets.parse_on_suite(
      RobustnessConfig, configs, prog='python -m experiments.robustness_study'
    ),
    prepare,
    study.run,
  )

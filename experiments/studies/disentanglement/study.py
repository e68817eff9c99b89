"""Do features say which method is best, and does a backbone change the order?

  python -m experiments.disentanglement

Methods are trained on a suite with gradients of the parameters and with those
at the features, on three backbones of growing size, and each task alone. Inside
training Feature Disentanglement, the cosine and the magnitude similarity of
gradients are measured. To ``--out`` go ``config.json``,
``runs/<backbone>.<level>.<method>/seed_<k>/``, ``results.csv``,
``summary.json`` and ``report.html`` with the rankings and the verdicts on the
claims RA1, RA2 and RA3. The same command again goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax
import rich.console

from experiments import suites
from experiments.lab import command, methods, presets, study
from experiments.lab.options import (
  DataOptions,
  Options,
  check_counts,
  check_distinct,
  free,
  override,
)
from experiments.lab.problem import SINGLE, Problem, make_problem
from experiments.lab.runs import RunSpec
from experiments.lab.suite import Data, Network, Suite, Widths
from experiments.studies.disentanglement.claims import (
  FEATURE,
  NAME,
  NONE,
  PARAMETER,
)
from experiments.studies.disentanglement.readings import make_probe
from mtljax import _catalog, _validate
from mtljax.training import make_train_step

METHODS = (
  'sum_losses',
  'uncertainty',
  'rlw',
  'mgda',
  'aligned_mtl',
  'pcgrad',
  'cagrad',
  'imtl_g',
  'nash_mtl',
  'fairgrad',
)
#: In a name, between a network and the units of its layers.
SIZE = '-'
MLP = 'multi_mlp'
#: Ends the names of networks of the papers' size, which are asked for only.
FULL = '_full'


@dataclasses.dataclass(frozen=True)
class DisentanglementConfig(Options):
  """Ranks methods by features, by gradients and by the test."""

  preset: str = free('quick')
  """quick (about ten minutes on two cores) or paper. Other options override
  it."""
  out: pathlib.Path = free(pathlib.Path('results/disentanglement'))
  """Folder for everything this run writes."""
  suite: str = 'digits'
  """A suite with two tasks or more."""
  backbones: tuple[str, ...] = ()
  """Networks of the suite, separated by spaces; multi_mlp-64-32 is multi_mlp
  with layers of 64 and 32 units. By default two such and another one, or the
  first three of the suite that are not of a paper's size."""
  methods: tuple[str, ...] = free(METHODS)
  """Methods of the library, separated by spaces. Those that read gradients are
  trained with gradients of the parameters and with those at the features."""
  epochs: int = 6
  """Passes over the training data."""
  learning_rate: float = 2e-3
  """Of Adam; it falls to zero along a cosine."""
  batch_size: int = 64
  """Examples a step."""
  probe_every: int = 10
  """Steps between measurements inside training."""
  seeds: int = free(5)
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
  """The data set."""


#: What the quick preset of a suite has of its own.
QUICK: dict[str, dict[str, Any]] = {
  # Each of its programs takes most of a minute to compile.
  'scenes': {
    'backbones': ('segnet', 'deeplab_v3'),
    'methods': (
      'sum_losses',
      'mgda',
      'aligned_mtl',
      'pcgrad',
      'cagrad',
      'imtl_g',
    ),
    'epochs': 4,
    'batch_size': 8,
    'seeds': 3,
    'data.pool': 2,
    'data.num_train': 256,
    'data.num_validation': 32,
    'data.num_test': 64,
  },
}


def presets_of(name: str) -> dict[str, DisentanglementConfig]:
  """The presets on a suite; if there is none, what is wrong is said later."""
  quick = DisentanglementConfig(suite=name)
  return {
    'quick': override(quick, QUICK.get(name, {})),
    # Fifteen methods, as in the paper, whose data is not to be had.
    'paper': dataclasses.replace(
      quick,
      preset='paper',
      methods=(
        *METHODS,
        'dwa',
        'geometric',
        'imtl_l',
        'gradvac',
        'upgrad',
      ),
      epochs=30,
      data=DataOptions(),
    ),
  }


def backbones_of(config: DisentanglementConfig, suite: Suite) -> list[str]:
  """Those that are asked for, or those of the suite."""
  if config.backbones:
    return list(config.backbones)
  others = [x for x in suite.networks if x != MLP and not x.endswith(FULL)]
  if MLP not in suite.networks:
    return others[:3]
  sizes = [f'{MLP}-16', f'{MLP}-256-128', f'{MLP}-64-32']
  return [*sizes[:2], *others[:1]] if others else sizes


def find_backbone(suite: Suite, name: str) -> tuple[Network, Widths]:
  """The network of a name, and the units of its layers.

  Raises:
    ValueError: the suite has no such network, or a size is no number.
  """
  base, *sizes = name.split(SIZE)
  network = suite.network(base, '--backbones')
  if not sizes:
    return network, Widths()
  if base != MLP or not all(x.isdecimal() and int(x) for x in sizes):
    raise ValueError(
      f'--backbones={name!r}: sizes are whole numbers after {MLP}, as in '
      f'{MLP}-64-32.'
    )
  return network, Widths(hidden_sizes=tuple(map(int, sizes)))


def levels_of(name: str) -> tuple[str, ...]:
  """Where the gradients of a method can be taken."""
  method = _catalog.example_method(name)
  if 'gramian' in method.needs and method.weighting is not None:
    return PARAMETER, FEATURE
  return (PARAMETER if 'gradients' in method.needs else NONE,)


def check(config: DisentanglementConfig) -> None:
  """Raises ValueError for options that no study could be made of."""
  suite = suites.find(config.suite)
  suite.check_data(config.data)
  if len(suite.default_tasks) < 2:
    raise ValueError(f'--suite={config.suite!r} has one task only.')
  names = backbones_of(config, suite)
  for option, values in (('backbones', names), ('methods', config.methods)):
    check_distinct(option, values)
  for name in names:
    find_backbone(suite, name)
  for name in config.methods:
    methods.check_names([name])
    if name not in methods.wrappable_names():
      raise ValueError(
        f'--methods={name} compares batches, is an optimizer or a wrapper: '
        'this study takes plain methods that make one update for Adam.'
      )
  check_counts(
    config,
    (
      'seeds',
      'epochs',
      'batch_size',
      'probe_every',
      'min_seeds',
      'log_every',
    ),
  )
  _validate.in_range('--learning-rate', config.learning_rate, 0, open_low=True)


def make_specs(
  config: DisentanglementConfig,
  name: str,
  level: str,
  problem: Problem,
  data: Data,
  network: Network,
  probe: Callable | None,
) -> list[RunSpec]:
  """The runs of a method at a level, all seeds sharing the compiled step."""
  steps = config.epochs * data.steps_per_epoch(config.batch_size)
  schedule = optax.cosine_decay_schedule(config.learning_rate, steps)
  at_features = level == FEATURE
  method = methods.make_method(
    name,
    len(problem.tasks),
    problem.labels,
    rho=0.05,
    gramian_labels=None if at_features else problem.sharings.gramian_labels,
  )
  step = make_train_step(
    method,
    optax.adam(schedule),
    problem.loss,
    has_state=True,
    route='features' if at_features else 'auto',
    mode=network.mode_of('auto'),
  )
  return [
    RunSpec(
      method=f'{level}.{name}',
      seed=seed,
      tasks=problem.tasks,
      step=step,
      init_fn=functools.partial(problem.start, step, jax.random.key(seed)),
      batches_fn=functools.partial(data.batches, config.batch_size, seed),
      validate_fn=lambda state: problem.evaluate(state, 'validation'),
      test_fn=lambda state: problem.evaluate(state, 'test'),
      probe_fn=probe,
      probe_every=config.probe_every,
    )
    for seed in range(config.seeds)
  ]


def make_groups(
  config: DisentanglementConfig, suite: Suite, name: str, data: Data
) -> tuple[int, list[list[RunSpec]]]:
  """The number of shared parameters of a backbone, and its runs."""
  network, widths = find_backbone(suite, name)
  problem = make_problem(suite, data, network, widths)
  probe = make_probe(problem)
  found = [
    make_specs(
      config,
      'sum_losses',
      f'{SINGLE}{task}',
      make_problem(suite, data, network, widths, tasks=[task]),
      data,
      network,
      None,
    )
    for task in suite.task_names
  ]
  found += [
    make_specs(config, method, level, problem, data, network, probe)
    for method in config.methods
    for level in levels_of(method)
  ]
  groups = [
    [
      dataclasses.replace(spec, method=f'{name}.{spec.method}')
      for spec in specs
    ]
    for specs in found
  ]
  return problem.sharings.num_shared, groups


def prepare(
  config: DisentanglementConfig, console: rich.console.Console
) -> study.Study:
  """Everything that can be refused, before anything is written or trained."""
  check(config)
  suite = suites.find(config.suite)
  suite = suite.with_tasks(suite.default_tasks)
  data = suite.read(
    config.data,
    config.batch_size,
    lambda text: console.print(text, markup=False),
  )
  names = backbones_of(config, suite)
  made = {name: make_groups(config, suite, name, data) for name in names}
  steps_per_epoch = data.steps_per_epoch(config.batch_size)
  groups: Sequence[list[RunSpec]] = [
    group for _, found in made.values() for group in found
  ]
  return study.Study(
    name=NAME,
    tasks=suite.task_names,
    groups=tuple((spec,) for group in groups for spec in group),
    facts=suite.facts()
    | {'num_shared': {name: count for name, (count, _) in made.items()}},
    growing=('methods',),
    data={suite.name: suite.digests(data)},
    options={
      'num_steps': config.epochs * steps_per_epoch,
      'steps_per_epoch': steps_per_epoch,
      'log_every': config.log_every,
      'batch_size': config.batch_size,
      'select': suite.score_of,
      'tensorboard': False,
    },
  )


def main() -> None:
  """The command line."""
  command.run_command(
    lambda: presets.parse_on_suite(
      DisentanglementConfig,
      presets_of,
      prog='python -m experiments.disentanglement',
    ),
    prepare,
    study.run,
  )

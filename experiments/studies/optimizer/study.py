"""Does the optimizer matter more than the method?

  python -m experiments.optimizer_study

Methods with Adam, signSGD and SGD (both with momentum), AdaTask and MTL-IO are
trained on two overlapping digits (or another suite) at ten learning rates, with
the last task's loss multiplied by a ratio. All learning rates, ratios and seeds
of a method and an optimizer are one compiled program. The best epoch and
learning rate are those of the lowest delta-m on validation data, against
single-task runs with learning rates of their own. To ``--out`` go
``config.json``, ``runs/<optimizer>.<method>/ratio_<r>.seed_<k>.npz`` (scores of
every epoch), ``results.csv``, ``summary.json`` and ``report.html`` with the
verdicts on the claims E2, E3 and E4. The same command again goes on where it
was stopped, and trains what more seeds, ratios, methods or optimizers need.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import time
from typing import Any, Literal

import rich.console

from experiments import suites
from experiments.lab import command, identity, presets
from experiments.lab import methods as method_names
from experiments.lab.options import (
  DataOptions,
  Options,
  check_counts,
  flag,
  free,
  override,
)
from experiments.lab.problem import SINGLE
from experiments.lab.progress import GridProgress
from experiments.lab.suite import Data, Suite, check_widths
from experiments.report import files, write_report
from experiments.report.console import print_end
from experiments.studies.optimizer import runs
from experiments.studies.optimizer.claims import MIN_RATES
from experiments.studies.optimizer.grid import (
  LINEAR,
  MODES,
  NETWORK,
  OPTIMIZERS,
  PER_TASK,
  Group,
  Part,
  Training,
  measures_of,
  run_group,
  with_inputs,
)
from experiments.studies.optimizer.report import NAME
from mtljax import _validate

#: The grids of the paper.
RATES = (0.5, 0.1, 0.05, 0.01, 0.005, 1e-3, 5e-4, 1e-4, 5e-5, 1e-5)
BASELINE_RATES = (0.01, 0.005, 1e-3, 5e-4, 1e-4, 5e-5)
#: The options that name some.
RATES_OF = ('learning_rates', 'sgd_rates', 'baseline_rates')


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Options):
  """Compares what the optimizer changes with what the method changes."""

  preset: str = free('quick')
  """quick (about ten minutes on two cores) or paper. Other options override
  it."""
  out: pathlib.Path = free(pathlib.Path('results/optimizer_study'))
  """Folder for everything this run writes."""
  suite: str = 'digits'
  """What is trained on: any suite whose tasks are all on one batch. Other
  defaults hang on it."""
  tasks: tuple[str, ...] = ()
  """Those that are trained; none: those of the suite's first preset."""
  model: str = NETWORK
  """The network; by default multi_mlp where the suite has it, else that of its
  first preset."""
  optimizers: tuple[str, ...] = free((*OPTIMIZERS, *PER_TASK))
  """adam, signsgd and momentum (SGD), the last two with momentum 0.9, follow a
  method; adatask (an Adam a task) and mtl_io (SGD with momentum a task) are
  rows of their own."""
  methods: tuple[str, ...] = free(
    ('sum_losses', 'uncertainty', 'pcgrad', 'cagrad', 'imtl')
  )
  """Methods that read one batch, separated by spaces."""
  ratios: tuple[float, ...] = free((1.0, 10.0, 100.0, 1000.0))
  """What the last task's loss is multiplied by."""
  learning_rates: tuple[float, ...] = RATES
  """Tried for each method, optimizer and ratio; halved after each third of the
  training."""
  sgd_rates: tuple[float, ...] = ()
  """Those of momentum and mtl_io; none: the same."""
  baseline_rates: tuple[float, ...] = BASELINE_RATES
  """Tried for each task alone, with Adam."""
  epochs: int = 20
  """Passes over the training data."""
  hidden_sizes: tuple[int, ...] = (64, 32)
  """Layers of the trunk, where a network has a choice."""
  head_sizes: tuple[int, ...] = ()
  """Hidden layers of each head; none: linear heads."""
  batch_size: int = 64
  """Examples a step."""
  min_seeds: int = free(3)
  """With fewer seeds no claim is decided."""
  min_rates: int = free(MIN_RATES)
  """With fewer learning rates E2 is not."""
  sweep: Literal['vmap', 'map', 'loop'] = free('vmap')
  """How runs share a program: batched; one after the other in it, both with a
  split measured as one batch; or loop: the program of one, called for each."""
  data: DataOptions = dataclasses.field(default_factory=DataOptions)
  """The data set; digits are averaged over squares of two pixels."""


#: Of a suite whose losses are looked at as they are, with few learning rates,
#: and as many of both optimizers.
_AS_THEY_ARE = {
  'ratios': (1.0,),
  'optimizers': ('adam', 'momentum'),
  'methods': ('sum_losses', 'uncertainty', 'cagrad', 'imtl'),
  'learning_rates': (3e-2, 1e-2, 3e-3, 1e-3),
  'baseline_rates': (1e-2, 3e-3, 1e-3),
  'min_rates': 4,
}
#: What the quick preset of a suite has of its own.
QUICK: dict[str, dict[str, Any]] = {
  'scenes': {
    **_AS_THEY_ARE,
    'learning_rates': (0.1, 3e-2, 1e-2, 3e-3, 1e-3),
    'sgd_rates': (1.0, 0.3, 0.1, 3e-2, 1e-2),
    'min_rates': 5,
    'epochs': 6,
    'data.pool': 4,
  },
  'flights': {
    **_AS_THEY_ARE,
    # Squared minutes, and the cross entropy of a rare label.
    'tasks': ('dep_delay', 'arr_delay', 'air_time', 'cancelled'),
    'learning_rates': (0.1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4),
    # Of losses as they are, and of such that a method has scaled.
    'sgd_rates': (0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
    'min_rates': 6,
  },
  'qm9': {
    **_AS_THEY_ARE,
    # One a kind: a dipole, an orbital, an extent, a vibration, an energy.
    'tasks': ('mu', 'homo', 'r2', 'zpve', 'u0'),
    'model': 'nnconv_tiny',
    'sgd_rates': (0.1, 3e-2, 1e-2, 3e-3),
    'epochs': 6,
    'batch_size': 25,
    'data.num_train': 750,
    'data.num_validation': 150,
    'data.num_test': 350,
  },
}


def presets_of(name: str) -> dict[str, OptimizerConfig]:
  """The presets on a suite; if there is none, what is wrong is said later."""
  pool = 2 if name == 'digits' else 1
  found = {
    'quick': OptimizerConfig(
      data=DataOptions(
        num_train=4000, num_validation=1000, num_test=2000, pool=pool
      ),
    ),
    'paper': OptimizerConfig(
      preset='paper',
      methods=(
        'sum_losses',
        'uncertainty',
        'rlw',
        'pcgrad',
        'cagrad',
        'imtl',
        'aligned_mtl',
      ),
      epochs=60,
      data=DataOptions(
        num_train=8000, num_validation=2000, num_test=4000, pool=pool
      ),
    ),
  }
  changes = {'suite': name} | _of_suite(name)
  own = {'epochs': changes.pop('epochs', found['quick'].epochs)}
  found = {key: override(x, changes) for key, x in found.items()}
  found['quick'] = override(found['quick'], own | QUICK.get(name, {}))
  return found


def _of_suite(name: str) -> dict[str, Any]:
  """Options that hang on a suite without the network of the others."""
  suite = suites.peek(name)
  if suite is None or NETWORK in suite.networks:
    return {}
  own = next(iter(suite.presets.values()))
  sizes = {
    key: x
    for key, x in own.items()
    if key in ('epochs', 'batch_size') or key.startswith('data.')
  }
  return {
    'model': suite.default_network(NETWORK),
    'sweep': 'loop',
    'data': DataOptions(),
    **sizes,
  }


def suite_of(config: OptimizerConfig) -> Suite:
  """The suite, with the tasks that are trained.

  Raises:
    ValueError: there is none of the name, it has no such network or task, there
      is one task only, or one that nothing is known of that delta-m could be
      taken over.
  """
  suite = suites.find(config.suite)
  suite.network(config.model)
  suite = suite.with_tasks(config.tasks or suite.default_tasks)
  if len(suite.tasks) < 2:
    raise ValueError(
      f'--tasks={suite.task_names}: methods differ where there are two tasks '
      'or more.'
    )
  for task in suite.task_names:
    if not measures_of(suite, [task]):
      raise ValueError(
        f'--suite={config.suite!r}: delta-m is taken over no measure of the '
        f'task {task}; leave it out by --tasks.'
      )
  return suite


def check(config: OptimizerConfig) -> None:
  """Raises ValueError for options that no study could be made of."""
  for option in (
    'optimizers',
    'methods',
    'ratios',
    'learning_rates',
    'baseline_rates',
    'hidden_sizes',
  ):
    if not getattr(config, option):
      raise ValueError(f'{flag(option)} is empty: name at least one.')
  _validate.one_of('--sweep', config.sweep, MODES)
  for name in config.optimizers:
    _validate.one_of('--optimizers', name, (*OPTIMIZERS, *PER_TASK))
  for name in config.methods:
    _validate.one_of('--methods', name, method_names.wrappable_names())
  check_counts(
    config, ('seeds', 'epochs', 'batch_size', 'min_seeds', 'min_rates')
  )
  for option in ('ratios', *RATES_OF):
    for value in getattr(config, option):
      _validate.in_range(flag(option), value, 0, open_low=True)
  check_widths(config.hidden_sizes, config.head_sizes)
  for option in RATES_OF:
    rates = getattr(config, option)
    twice = [rate for rate in rates if rates.count(rate) > 1]
    if twice:
      raise ValueError(f'{flag(option)} names {twice[0]} twice: name it once.')
  suite_of(config).check_data(config.data)


def prepare(
  config: OptimizerConfig, console: rich.console.Console
) -> tuple[Suite, Data]:
  """Everything that can be refused, before anything is written or trained."""
  check(config)
  suite = suite_of(config)
  data = suite.read(
    config.data,
    config.batch_size,
    lambda text: console.print(text, markup=False),
  )
  if type(data).batches is not Data.batches:
    raise ValueError(
      f'--suite={config.suite!r} makes batches in a way of its own, with tasks '
      'absent from some or on examples of their own: this study has all tasks '
      'on each batch. Compare methods on it by experiments.compare.'
    )
  return suite, with_inputs(suite, data, config.model)


def groups(config: OptimizerConfig, tasks: tuple[str, ...]) -> list[Group]:
  """Each task alone, then the pairs of an optimizer and a method."""
  found = [Group('adam', f'{SINGLE}{task}') for task in tasks]
  for optimizer in dict.fromkeys(config.optimizers):
    methods = dict.fromkeys(config.methods) if optimizer in OPTIMIZERS else ['']
    found += [Group(optimizer, method) for method in methods]
  return found


def rates_of(config: OptimizerConfig, group: Group) -> tuple[float, ...]:
  """The learning rates of a group."""
  if group.is_baseline:
    return config.baseline_rates
  linear = group.optimizer in LINEAR
  return (linear and config.sgd_rates) or config.learning_rates


def parts_of(config: OptimizerConfig, group: Group) -> list[Part]:
  """The ratios and seeds of a group."""
  ratios = (1.0,) if group.is_baseline else dict.fromkeys(config.ratios)
  pairs = itertools.product(ratios, range(config.seeds))
  return [Part(group, ratio, seed) for ratio, seed in pairs]


def run(
  config: OptimizerConfig,
  prepared: tuple[Suite, Data],
  console: rich.console.Console,
) -> None:
  """Runs the study."""
  suite, data = prepared
  start = time.perf_counter()
  wanted = groups(config, suite.task_names)
  facts = {
    'delta_m_metrics': measures_of(suite, suite.task_names),
    'higher_is_better': suite.facts()['higher_is_better'],
  }
  values = dataclasses.asdict(config) | {
    'experiment': NAME,
    'tasks': list(suite.task_names),
    **facts,
  }
  parts = [x for group in wanted for x in parts_of(config, group)]
  identity.open_study(
    config,
    values,
    growing=tuple(facts),  # they say what the suite says
    data={suite.name: suite.digests(data)},
    finished=lambda: all(x.read(config.out) is not None for x in parts),
  )
  training = Training(
    suite,
    data,
    config.hidden_sizes,
    config.head_sizes,
    config.epochs,
    config.batch_size,
    config.sweep,
    config.model,
  )
  steps = training.num_steps
  with GridProgress(steps * len(wanted), console, config.progress) as bar:
    for number, group in enumerate(wanted, start=1):
      parts = parts_of(config, group)
      todo = [x for x in parts if x.read(config.out) is None]
      if todo:
        rates = rates_of(config, group)
        bar.start(
          f'[{number}/{len(wanted)}] {group.name}, {len(todo) * len(rates)} '
          'runs'
        )
        run_group(config.out, training, todo, rates, bar.step)
      bar.finish(steps)
  read = runs.read_runs(config.out)
  files.write_table(config.out / files.TABLE, runs.rows(read))
  write_report(config.out, console)
  print_end(config.out, start, console)


def main() -> None:
  """The command line."""
  command.run_command(
    lambda: presets.parse_on_suite(
      OptimizerConfig, presets_of, prog='python -m experiments.optimizer_study'
    ),
    prepare,
    run,
  )

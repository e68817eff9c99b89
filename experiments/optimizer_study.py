"""Does the optimizer matter more than the method?

  python -m experiments.optimizer_study

Methods with Adam, signSGD and SGD (both with momentum), AdaTask and MTL-IO are
trained on two overlapping digits (or census rows) at ten learning rates, with
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
from collections.abc import Callable
from typing import Literal

import rich.console

from experiments import (
  _census,
  _command,
  _digits,
  _identity,
  _methods,
  _optimizer_report,
  _optimizer_runs,
  _presets,
  _sources,
  _study,
  report,
)
from experiments._digits import DataConfig
from experiments._optimizer_grid import (
  OPTIMIZERS,
  PER_TASK,
  SINGLE,
  Group,
  Part,
  Training,
  run_group,
  with_inputs,
)
from mtljax import _validate

#: The grids of the paper.
RATES = (0.5, 0.1, 0.05, 0.01, 0.005, 1e-3, 5e-4, 1e-4, 5e-5, 1e-5)
BASELINE_RATES = (0.01, 0.005, 1e-3, 5e-4, 1e-4, 5e-5)


@dataclasses.dataclass(frozen=True)
class Config:
  """Compares what the optimizer changes with what the method changes."""

  preset: str = 'quick'
  """quick (about ten minutes on two cores) or paper. Other options override
  it."""
  out: pathlib.Path = pathlib.Path('results/optimizer_study')
  """Folder for everything this run writes."""
  dataset: Literal['digits', 'census'] = 'digits'
  """digits, or census (its options are --data.dir and the numbers of rows)."""
  optimizers: tuple[str, ...] = (*OPTIMIZERS, *PER_TASK)
  """adam, signsgd and momentum (SGD), the last two with momentum 0.9, follow a
  method; adatask (an Adam a task) and mtl_io (SGD with momentum a task) are
  rows of their own."""
  methods: tuple[str, ...] = (
    'sum_losses',
    'uncertainty',
    'pcgrad',
    'cagrad',
    'imtl',
  )
  """Methods that read one batch, separated by spaces."""
  ratios: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0)
  """What the last task's loss is multiplied by."""
  learning_rates: tuple[float, ...] = RATES
  """Tried for each method, optimizer and ratio; halved after each third of the
  training."""
  baseline_rates: tuple[float, ...] = BASELINE_RATES
  """Tried for each task alone, with Adam."""
  seeds: int = 3
  """Number of seeds: 0, 1, ..."""
  epochs: int = 20
  """Passes over the training data."""
  hidden_sizes: tuple[int, ...] = (64, 32)
  """Layers of the trunk."""
  head_sizes: tuple[int, ...] = ()
  """Hidden layers of each head; none: linear heads."""
  pool: int = 2
  """Side of the squares that the digits' pixels are averaged over: 1, 2, 3, 4,
  6, 9 ..."""
  batch_size: int = 64
  """Examples a step."""
  min_seeds: int = 3
  """With fewer seeds no claim is decided."""
  sweep: Literal['vmap', 'map'] = 'vmap'
  """How runs share a program: batched, or one after the other."""
  resume: bool = True
  """Go on with what --out holds. --no-resume moves it aside and starts anew."""
  force: bool = False
  """Go on with unfinished runs that other versions, code or data began; what
  changed is kept in config.json."""
  progress: bool = True
  """Show a progress bar for the whole study."""
  data: DataConfig = dataclasses.field(
    default_factory=lambda: DataConfig(
      num_train=4000, num_validation=1000, num_test=2000
    )
  )
  """The digits; of census rows, how many count."""


PRESETS = {
  'quick': Config(),
  'paper': Config(
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
    data=DataConfig(num_train=8000, num_validation=2000, num_test=4000),
  ),
}
# What may change between a run and its continuation in the same folder.
RESUMABLE = ('out', 'preset', 'optimizers', 'methods', 'ratios', 'seeds')
RESUMABLE += ('min_seeds', 'sweep', 'resume', 'progress', 'data.dir')


def check(config: Config) -> None:
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
      text = option.replace('_', '-')
      raise ValueError(f'--{text} is empty: name at least one.')
  _validate.one_of('--dataset', config.dataset, _sources.NAMES)
  _validate.one_of('--sweep', config.sweep, ('vmap', 'map'))
  for name in config.optimizers:
    _validate.one_of('--optimizers', name, (*OPTIMIZERS, *PER_TASK))
  for name in config.methods:
    _validate.one_of('--methods', name, _methods.wrappable_names())
  for name in ('seeds', 'epochs', 'batch_size', 'min_seeds'):
    _validate.in_range(f'--{name.replace("_", "-")}', getattr(config, name), 1)
  for option in ('ratios', 'learning_rates', 'baseline_rates'):
    text = option.replace('_', '-')
    for value in getattr(config, option):
      _validate.in_range(f'--{text}', value, 0, open_low=True)
  for option in ('hidden_sizes', 'head_sizes'):
    for size in getattr(config, option):
      _validate.in_range(f'--{option.replace("_", "-")}', size, 1)
  for option in ('learning_rates', 'baseline_rates'):
    rates = getattr(config, option)
    twice = [rate for rate in rates if rates.count(rate) > 1]
    if twice:
      text = option.replace('_', '-')
      raise ValueError(f'--{text} names {twice[0]} twice: name it once.')
  _digits.check_data(config.data)
  if config.dataset == 'digits':
    sides = [n for n in range(1, _digits.CANVAS) if _digits.CANVAS % n == 0]
    _validate.one_of('--pool', config.pool, sides)


def load(config: Config, say: Callable[[str], None]) -> _sources.Source:
  """The data, with inputs that are ready."""
  sizes = config.data
  if config.dataset == 'digits':
    source = _sources.load_digits(sizes, config.batch_size, say)
    rows = {'train': None, 'validation': None, 'test': None}
    return with_inputs(source, rows, config.pool)
  census = _census.DataConfig(dir=sizes.dir, num_train=sizes.num_train)
  source = _sources.load_census(census, config.batch_size, say)
  rows = {
    'train': sizes.num_train,
    'validation': sizes.num_validation,
    'test': sizes.num_test,
  }
  return with_inputs(source, rows)


def prepare(config: Config, console: rich.console.Console) -> _sources.Source:
  """Everything that can be refused, before anything is written or trained."""
  check(config)
  return load(config, lambda text: console.print(text, markup=False))


def groups(config: Config, tasks: tuple[str, ...]) -> list[Group]:
  """Each task alone, then the pairs of an optimizer and a method."""
  found = [Group('adam', f'{SINGLE}{task}') for task in tasks]
  for optimizer in dict.fromkeys(config.optimizers):
    methods = dict.fromkeys(config.methods) if optimizer in OPTIMIZERS else ['']
    found += [Group(optimizer, method) for method in methods]
  return found


def parts_of(config: Config, group: Group) -> list[Part]:
  """The ratios and seeds of a group."""
  ratios = (1.0,) if group.is_baseline else dict.fromkeys(config.ratios)
  pairs = itertools.product(ratios, range(config.seeds))
  return [Part(group, ratio, seed) for ratio, seed in pairs]


def run(
  config: Config, source: _sources.Source, console: rich.console.Console
) -> None:
  """Runs the study."""
  start = time.perf_counter()
  wanted = groups(config, source.tasks)
  values = dataclasses.asdict(config) | {
    'experiment': _optimizer_report.NAME,
    'tasks': list(source.tasks),
    'score': source.score,
  }
  parts = [x for group in wanted for x in parts_of(config, group)]
  _identity.open_study(
    config,
    values,
    ignore=RESUMABLE,
    data={source.name: _identity.digests(source.loaded.splits)},
    finished=lambda: all(x.read(config.out) is not None for x in parts),
  )
  training = Training(
    source,
    config.hidden_sizes,
    config.head_sizes,
    config.epochs,
    config.batch_size,
    config.sweep,
  )
  steps = training.num_steps
  with _study.GridProgress(
    steps * len(wanted), console, config.progress
  ) as bar:
    for number, group in enumerate(wanted, start=1):
      parts = parts_of(config, group)
      todo = [x for x in parts if x.read(config.out) is None]
      if todo:
        rates = (
          config.baseline_rates if group.is_baseline else config.learning_rates
        )
        bar.start(
          f'[{number}/{len(wanted)}] {group.name}, {len(todo) * len(rates)} '
          'runs'
        )
        run_group(config.out, training, todo, rates, bar.step)
      bar.finish(steps)
  read = _optimizer_runs.read_runs(config.out)
  _study.write_results(config.out, _optimizer_runs.rows(read))
  summary = _optimizer_report.write_report(config.out)
  _optimizer_report.print_tables(summary, console)
  report.print_end(config.out, start, console)


def main() -> None:
  """The command line."""
  _command.run_command(
    lambda: _presets.parse(
      Config, PRESETS, prog='python -m experiments.optimizer_study'
    ),
    prepare,
    run,
  )


if __name__ == '__main__':
  main()

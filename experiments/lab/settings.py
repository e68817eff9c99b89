"""The options of a comparison, and what of them is refused."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from experiments.lab import devices, diagnose, methods, optimizers
from experiments.lab.optimizers import OPTIMIZERS
from experiments.lab.options import (
  DataOptions,
  Options,
  between_runs,
  check_counts,
  flag,
  free,
  override,
)
from experiments.lab.suite import Suite, Widths, check_widths
from mtljax import _validate
from mtljax.training.step import sweep
from mtljax.training.step.train_step import ROUTES

METHODS = (
  'sum_losses',
  'uncertainty',
  'mgda',
  'pcgrad',
  'cagrad',
  'nash_mtl',
  'fairgrad',
  'flat_cagrad',
)


@dataclasses.dataclass(frozen=True)
class ComparisonConfig(
  Options, diagnose.DiagnoseOptions, optimizers.ScheduleOptions
):
  """Compares multi-task methods on a suite."""

  preset: str = free('quick')
  """A protocol of the suite, such as quick or paper. Other options override
  it."""
  tasks: tuple[str, ...] = ()
  """Some of the suite's tasks, separated by spaces; by default those of the
  preset, or all."""
  methods: tuple[str, ...] = free(METHODS)
  """Methods to compare, separated by spaces. flat_X is task-based flat regions
  (F-MTL) around X, sam_X is SAM on the summed loss around X, all is every
  method of the library."""
  weights: tuple[float, ...] = ()
  """Weights of the method fixed, one a task; by default all 1."""
  val_share: float = 0.1
  """The share of the training data that auto_lambda and moml learn their
  weights on, and are not trained on; other methods are trained on all."""
  scores: tuple[float, ...] = ()
  """Training losses that the tasks reach alone, for the method pivrg; by
  default all 0.1."""
  tune: int = 0
  """Trials of each method, and of each task alone, before its runs: its
  defaults and what is drawn at random, of learning rates and its own numbers;
  the best on validation is taken. 0: nothing is tuned."""
  tune_seeds: int = 1
  """Seeds of every trial, whose mean score counts; none of them is compared."""
  tune_by: Literal['random', 'halving'] = 'random'
  """random: every trial is as long as a run; halving: all are short at first,
  and the better half goes on for twice the epochs, again and again."""
  baselines: bool = free(True)
  """Train each task alone too, which delta-m is measured against."""
  epochs: int = 1
  """Passes over the training data."""
  last_epochs: int = 0
  """The result is the mean over the test metrics after each of so many last
  epochs, as some papers have it; 0: that of the state that is best on
  validation."""
  augment: bool = False
  """Change training examples at random, as the suite says."""
  model: str = ''
  """A network of the suite; its first by default."""
  baseline_model: str = ''
  """The network that each task alone is trained with; by default the same."""
  shared: str = ''
  """Which parameters of the network are called shared, a name of one of its
  conventions; its first by default. All Gramians, so most methods, hang on it;
  the command prints how many there are."""
  hidden_sizes: tuple[int, ...] = (128, 64)
  """Units of the shared layers of multi_mlp."""
  head_sizes: tuple[int, ...] = ()
  """Units of the layers of each task's own of multi_mlp and of networks of
  experts, before its outputs."""
  expert_sizes: tuple[int, ...] = ()
  """Units of the layers of each expert of mmoe, cgc, ple and dselect_k; by
  default those of the suite."""
  optimizer: str = 'adam'
  """adam, adamw, sgd or momentum. The method per_task_optimizer has one a task;
  adatask is one Adam a task, whatever this says."""
  learning_rate: float = 1e-3
  """Of the optimizer, at the beginning."""
  batch_size: int = 128
  """Examples a step."""
  rho: float = 0.05
  """Radius of flat_X and sam_X."""
  weight_decay: float = 0.0
  """Times each parameter, added to its gradient; with adamw, to its update."""
  route: str = 'auto'
  """How statistics are taken: auto, losses, jacobian, gramian,
  layerwise or features."""
  mode: str = 'auto'
  """How a step's T backward passes run: unroll, vmap or map. auto takes what is
  fastest for the network."""
  sweep: str = between_runs('auto')
  """How the seeds of a method run: loop trains them after one another; vmap,
  map and unroll together in one program. auto takes loop on CPU and with a
  layout, vmap elsewhere."""
  layout: str = between_runs('none')
  """How a run is spread over all devices: none (one device), data (the batch)
  or fsdp (batch, parameters and optimizer)."""
  distributed: bool = free(False)
  """Be one of several processes, one a host; see docs/scaling.md."""
  log_every: int = 20
  """Steps between lines of metrics."""
  dry_run: bool = free(False)
  """Print the runs and what time and memory they will take, and stop."""
  tensorboard: bool = free(True)
  """Write TensorBoard files too, where tensorboardX is installed."""
  data: DataOptions = dataclasses.field(default_factory=DataOptions)
  """The data set."""


def configs(suite: Suite, **changes: Any) -> dict[str, ComparisonConfig]:
  """The presets of a suite as configurations, some options changed."""
  return {
    name: override(ComparisonConfig(preset=name, **changes), dict(preset))
    for name, preset in suite.presets.items()
  }


def complete(config: ComparisonConfig, suite: Suite) -> ComparisonConfig:
  """The options, with those that depend on the suite."""
  tasks = config.tasks or suite.task_names
  model = config.model or next(iter(suite.networks))
  if not config.shared and model in suite.networks:
    config = dataclasses.replace(config, shared=_conventions(suite, model)[0])
  return dataclasses.replace(
    config,
    tasks=tasks,
    model=model,
    baseline_model=config.baseline_model or model,
    weights=config.weights or (1.0,) * len(tasks),
    scores=config.scores or (0.1,) * len(tasks),
  )


def _conventions(suite: Suite, model: str) -> tuple[str, ...]:
  """Of a network, on what is shared."""
  return tuple(suite.networks[model].make(suite.tasks, Widths()).conventions)


def check(config: ComparisonConfig, suite: Suite) -> None:
  """Raises ValueError for options that no run could be made of."""
  tasks = suite.tasks_of(config.tasks)
  suite.network(config.model)
  suite.network(config.baseline_model, '--baseline-model')
  _validate.one_of('--shared', config.shared, _conventions(suite, config.model))
  suite.check_data(config.data)
  every = methods.expand(config.methods, val_batches=True)
  methods.check_names(every, val_batches=True)
  _validate.in_range(
    '--val-share', config.val_share, 0, 1, open_low=True, open_high=True
  )
  learners = [name for name in every if name in methods.learner_names()]
  if learners and config.layout != 'none':
    raise ValueError(
      f'--methods {learners[0]} and --layout {config.layout}: its step ahead '
      'is not spread over devices; use --layout none.'
    )
  _validate.one_of('--optimizer', config.optimizer, OPTIMIZERS)
  _validate.one_of('--route', config.route, ROUTES)
  _validate.one_of('--mode', config.mode, ('auto', 'unroll', 'vmap', 'map'))
  _validate.one_of('--sweep', config.sweep, sweep.MODES)
  _validate.one_of('--layout', config.layout, devices.LAYOUTS)
  if config.layout != 'none' and config.sweep not in ('auto', 'loop'):
    raise ValueError(
      f'--sweep {config.sweep} and --layout {config.layout}: seeds trained in '
      'one program are not spread over devices; use --sweep loop.'
    )
  if config.diagnose and config.layout != 'none':
    raise ValueError(
      f'--diagnose and --layout {config.layout}: single samples are not spread '
      'over devices; use --layout none.'
    )
  diagnose.check(config, config.batch_size)
  for model in (config.model, config.baseline_model):
    diagnose.check_network(config, model, suite.network(model))
  check_widths(config.hidden_sizes, config.head_sizes, config.expert_sizes)
  check_counts(config, ('seeds', 'epochs', 'batch_size', 'log_every'))
  check_counts(config, ('tune_seeds',))
  _validate.in_range('--last-epochs', config.last_epochs, 0, config.epochs)
  _validate.in_range('--learning-rate', config.learning_rate, 0, open_low=True)
  optimizers.check_schedule(config, config.learning_rate, config.last_epochs)
  _validate.in_range('--rho', config.rho, 0)
  _validate.in_range('--weight-decay', config.weight_decay, 0)
  _validate.in_range('--tune', config.tune, 0)
  for name in ('last_epochs', 'distributed'):
    if config.tune and getattr(config, name):
      raise ValueError(
        f'--tune {config.tune} and {flag(name)}: trials are chosen by their '
        'best state on validation, in one process; leave one of them out.'
      )
  if config.tune and config.tune_by == 'halving':
    for name in ('tune', 'epochs'):
      _validate.in_range(
        f'--tune-by halving: {flag(name)}', getattr(config, name), 2
      )
  for name in ('weights', 'scores'):
    value = getattr(config, name)
    if len(value) != len(tasks):
      raise ValueError(
        f'--{name}={value} must be {len(tasks)} numbers, one a task.'
      )
    for number in value:
      _validate.in_range(f'--{name}', number, 0, open_low=name == 'scores')
  if not (config.methods or config.baselines):
    raise ValueError('--methods is empty and there are no baselines.')

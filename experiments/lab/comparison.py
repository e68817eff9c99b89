"""Compares methods on a suite: each task alone, then every method."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax
import rich.console

from experiments.lab import (
  command,
  devices,
  diagnose,
  floors,
  forecast,
  identity,
  methods,
  optimizers,
  presets,
  study,
)
from experiments.lab.optimizers import OPTIMIZERS, SCHEDULES, make_schedule
from experiments.lab.options import (
  DataOptions,
  Options,
  between_runs,
  flag,
  free,
  override,
)
from experiments.lab.problem import SINGLE, Problem, make_problem, trained_on
from experiments.lab.runs import RunSpec
from experiments.lab.suite import Data, Suite, Widths, check_widths
from experiments.report.console import make_console
from experiments.report.pictures import PREFIX as PICTURES
from mtljax import _validate, models
from mtljax.models import layers
from mtljax.training import Layout, ShardedBatches, make_train_step
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
class ComparisonConfig(Options, diagnose.DiagnoseOptions):
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
  scores: tuple[float, ...] = ()
  """Training losses that the tasks reach alone, for the method pivrg; by
  default all 0.1."""
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
  schedule: str = 'cosine'
  """How the learning rate goes on: cosine (to zero), constant, or step."""
  decay_every: int = 100
  """Epochs after which step multiplies it."""
  decay_factor: float = 0.5
  """What step multiplies it by."""
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
  methods.check_names(methods.expand(config.methods))
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
  for name in ('seeds', 'epochs', 'batch_size', 'log_every', 'decay_every'):
    _validate.in_range(flag(name), getattr(config, name), 1)
  _validate.one_of('--schedule', config.schedule, SCHEDULES)
  _validate.in_range('--decay-factor', config.decay_factor, 0, open_low=True)
  _validate.in_range('--last-epochs', config.last_epochs, 0, config.epochs)
  _validate.in_range('--learning-rate', config.learning_rate, 0, open_low=True)
  _validate.in_range('--rho', config.rho, 0)
  _validate.in_range('--weight-decay', config.weight_decay, 0)
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


def methods_of(
  config: ComparisonConfig, tasks: Sequence[str]
) -> tuple[str, ...]:
  """What is compared: each task alone, if wanted, then the methods."""
  single = [f'{SINGLE}{task}' for task in tasks] if config.baselines else []
  return (*single, *methods.expand(config.methods))


def make_specs(
  config: ComparisonConfig,
  name: str,
  problem: Problem,
  found: Data,
  layout: Layout | None,
  *,
  mode: str,
  probe: diagnose.Probe | None = None,
  pictures: Callable[[Data, Any], Mapping[str, Any]] | None = None,
) -> list[RunSpec]:
  """The runs of one method, all seeds sharing one compiled step.

  Args:
    config: the options.
    name: of the method, or ``single_<task>``.
    problem: loss and measurements.
    found: the data.
    layout: how a run is spread over devices; None: it is not.
    mode: how a step's T backward passes run.
    probe: measured inside training; see `diagnose.make_probes`.
    pictures: of the suite, kept of the first seed.
  """
  labels, num_tasks = problem.labels, len(problem.tasks)
  single = num_tasks == 1
  per_epoch = found.steps_per_epoch(config.batch_size, problem.tasks)
  steps = config.epochs * per_epoch
  examples = found.counted(config.batch_size, problem.tasks)
  schedule = make_schedule(
    config.schedule,
    config.learning_rate,
    steps,
    every=config.decay_every * per_epoch,
    factor=config.decay_factor,
  )
  optimizer = optimizers.with_weight_decay(
    config.optimizer, config.weight_decay
  )
  method = methods.make_method(
    'sum_losses' if single else name,
    num_tasks,
    labels,
    rho=config.rho,
    gramian_labels=problem.sharings.gramian_labels,
    weights=config.weights,
    scores=config.scores,
    optimizer=optimizer,
    learning_rate=schedule,
  )
  step = make_train_step(
    method,
    optax.identity() if method.info.is_optimizer else optimizer(schedule),
    problem.loss,
    has_state=True,
    route='auto' if single else config.route,
    mode=mode,
    layout=layout,
  )

  def make(seed):
    init_fn = lambda: problem.start(step, jax.random.key(seed))
    return init_fn() if layout is None else layout.make(init_fn)

  def batches(seed):
    size, augment = config.batch_size, config.augment
    if layout is None:
      return found.batches(size, seed, tasks=problem.tasks, augment=augment)
    rows = layout.local_rows(size)
    own = found.batches(size, seed, rows, augment=augment)
    return ShardedBatches(own, layout, size)

  def validate(state):
    return problem.evaluate(state, 'validation') | problem.probe(state)

  def draw(state):
    found_pictures = pictures(found, functools.partial(problem.predict, state))
    return {}, {PICTURES + key: x for key, x in found_pictures.items()}

  return [
    RunSpec(
      method=name,
      seed=seed,
      tasks=problem.tasks,
      step=step,
      init_fn=functools.partial(make, seed),
      batches_fn=functools.partial(batches, seed),
      validate_fn=validate,
      test_fn=lambda state: problem.evaluate(state, 'test'),
      measure_fn=draw if pictures is not None and seed == 0 else None,
      probe_fn=probe,
      probe_every=config.diagnose_every,
      last_epochs=config.last_epochs,
      num_steps=steps,
      steps_per_epoch=per_epoch,
      batch_size=examples,
    )
    for seed in range(config.seeds)
  ]


def prepare(
  config: ComparisonConfig,
  suite: Suite,
  name: str,
  console: rich.console.Console,
) -> study.Study:
  """A comparison, all of whose options are checked before anything is written.

  Args:
    config: the options, `complete`.
    suite: what is trained on.
    name: of the experiment.
    console: where slow work is announced.
  """
  check(config, suite)
  suite = suite.with_tasks(config.tasks)
  widths = Widths(
    hidden_sizes=config.hidden_sizes,
    head_sizes=config.head_sizes,
    expert_sizes=config.expert_sizes,
  )
  with devices.first_process_first():
    found = suite.read(
      config.data,
      config.batch_size,
      lambda text: console.print(text, markup=False),
      selects=not config.last_epochs,
    )
  if config.augment and found.augment is None:
    raise ValueError(
      f'--augment: the suite {suite.name} knows no augmentation; leave it out.'
    )
  for option in ('layout', 'diagnose'):
    value = getattr(config, option)
    if not found.spread and value not in ('none', ()):
      raise ValueError(
        f'--{option} {value}: the tasks of the suite {suite.name} are on '
        'batches of their own, some of them absent in a step; leave it out.'
      )
  layout = devices.make_layout(config.layout)
  if layout is not None:
    layout.local_rows(config.batch_size)
  # Of each method its tasks and its network.
  trained = {
    x: (
      trained_on(x, config.tasks),
      config.baseline_model if x.startswith(SINGLE) else config.model,
    )
    for x in methods_of(config, config.tasks)
  }
  problems = {
    (tasks, model): make_problem(
      suite,
      found,
      suite.network(model),
      widths,
      tasks=tasks,
      shared=config.shared if model == config.model else '',
    )
    for tasks, model in dict.fromkeys(trained.values())
  }
  widest = max(problems, key=lambda x: (x[1] == config.model, len(x[0])))
  sharings = problems[widest].sharings
  console.print(_in_words(sharings), markup=False)
  probes = diagnose.make_probes(config, problems)
  by_method = [
    make_specs(
      config,
      method,
      problems[key],
      found,
      layout,
      mode=suite.network(key[1]).mode_of(config.mode, config.route),
      probe=probes.get(key),
      pictures=None if layout is not None else suite.pictures,
    )
    for method, key in trained.items()
  ]
  mode = sweep_mode(config)
  groups = by_method
  if mode == 'loop':
    groups = [[run] for run in itertools.chain.from_iterable(by_method)]
  steps_per_epoch = found.steps_per_epoch(config.batch_size)
  digests = suite.digests(found)
  known = floors.kept(config.out, suite, digests)
  return study.Study(
    name=name,
    tasks=config.tasks,
    groups=tuple(tuple(group) for group in groups),
    facts=suite.facts(found, known)
    | {
      'num_params': sharings.num_params,
      'num_shared': sharings.num_shared,
      'num_gramian': sharings.num_gramian,
    },
    data={suite.name: digests},
    options={
      'num_steps': config.epochs * steps_per_epoch,
      'steps_per_epoch': steps_per_epoch,
      'log_every': config.log_every,
      'batch_size': config.batch_size,
      'select': suite.score_of,
      'tensorboard': config.tensorboard,
    },
    sweep=mode,
    kept=identity.kept(dataclasses.replace(config, sweep=mode)),
  )


def _in_words(found: models.Sharings) -> str:
  text = (
    f'--shared {found.name} ({found.about}): {found.num_shared:,} of '
    f'{found.num_params:,} parameters are shared'
  )
  if found.num_gramian != found.num_shared:
    text += f', Gramians are taken over {found.num_gramian:,}'
  return text


def sweep_mode(config: ComparisonConfig) -> str:
  """How the seeds of a method run: what is asked for, or the fastest."""
  if config.sweep != 'auto':
    return config.sweep
  if config.layout != 'none':
    return 'loop'
  return layers.default_sweep_mode(jax.default_backend())


def start(config: ComparisonConfig) -> rich.console.Console:
  """Joins the other processes, and gives the console of this one."""
  devices.start(config.layout, config.distributed)
  console = make_console()
  console.quiet = not devices.is_first()
  return console


def main(
  suite: Suite,
  name: str,
  *,
  argv: Sequence[str] | None = None,
  typed: str = '',
) -> None:
  """The command line of a comparison on a suite.

  Args:
    suite: what is trained on.
    name: of the experiment, and of its folder.
    argv: its arguments; None: those of this process.
    typed: what stands after ``python -m experiments.``; by default the name.
  """
  defaults = configs(suite, out=pathlib.Path('results') / name)
  command.run_command(
    lambda: complete(
      presets.parse(
        ComparisonConfig,
        defaults,
        prog=f'python -m experiments.{typed or name}',
        description=f'Compares multi-task methods on {suite.title}.',
        argv=argv,
      ),
      suite,
    ),
    lambda config, console: prepare(config, suite, name, console),
    forecast.show_or_run,
    start=start,
  )

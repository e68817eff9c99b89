"""What studies that compare methods have in common: runs, groups, the loop."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
import optax
import rich.console

from experiments import (
  _command,
  _conflict,
  _devices,
  _identity,
  _methods,
  _sources,
  _study,
  report,
)
from experiments._digits import OPTIMIZERS, Problem, tasks_of
from mtljax import _validate, data
from mtljax.models import layers
from mtljax.training import (
  Layout,
  ShardedBatches,
  make_train_step,
  sweep,
)
from mtljax.training.step import ROUTES

# What may change between a run and its continuation in the same folder.
RESUMABLE = ('out', 'methods', 'seeds', 'baselines', 'resume', 'tensorboard')
RESUMABLE += ('progress', 'sweep', 'data.dir', 'layout', 'distributed')


@dataclasses.dataclass(frozen=True)
class Options:
  """The options that the studies share; each has some defaults of its own."""

  out: pathlib.Path = pathlib.Path('results')
  """Folder for everything this run writes."""
  methods: tuple[str, ...] = (
    'sum_losses',
    'uncertainty',
    'mgda',
    'pcgrad',
    'cagrad',
    'nash_mtl',
    'fairgrad',
    'flat_cagrad',
  )
  """Methods to compare, separated by spaces. flat_X is task-based flat regions
  (F-MTL) around X, sam_X is SAM on the summed loss around X, all is every
  method of the library."""
  weights: tuple[float, ...] = ()
  """Weights of the method fixed, one a task."""
  scores: tuple[float, ...] = ()
  """Training losses that the tasks reach alone, for the method pivrg."""
  baselines: bool = True
  """Train each task alone too, which delta-m is measured against."""
  seeds: int = 3
  """Number of seeds: 0, 1, ..."""
  epochs: int = 1
  """Passes over the training data."""
  optimizer: str = 'adam'
  """adam, adamw, sgd or momentum. The method per_task_optimizer has one a task;
  adatask is one Adam a task, whatever this says."""
  learning_rate: float = 1e-3
  """Of the optimizer; it falls to zero along a cosine."""
  batch_size: int = 128
  """Examples a step."""
  rho: float = 0.05
  """Radius of flat_X and sam_X."""
  route: str = 'auto'
  """How statistics are taken: auto, losses, jacobian, gramian,
  layerwise or features."""
  mode: str = 'auto'
  """How a step's T backward passes run: unroll, vmap or map."""
  sweep: str = 'auto'
  """How the seeds of a method run: loop trains them after one another; vmap,
  map and unroll together in one program. auto takes loop on CPU and with a
  layout, vmap elsewhere."""
  layout: str = 'none'
  """How a run is spread over all devices: none (one device), data (the batch)
  or fsdp (batch, parameters and optimizer)."""
  distributed: bool = False
  """Be one of several processes, one a host; see docs/scaling.md."""
  diagnose: tuple[Literal['conflict'], ...] = ()
  """Measured inside training, in runs/<method>/seed_<k>/probe.jsonl. conflict:
  cosine, magnitude similarity, scalar product and share of opposite signs of
  gradients of tasks on a sample and of samples in a task."""
  diagnose_every: int = 5
  """Steps between these measurements."""
  diagnose_samples: int = 8
  """Samples of a batch that are compared."""
  log_every: int = 20
  """Steps between lines of metrics."""
  resume: bool = True
  """Go on with what --out holds. --no-resume moves it aside and starts anew."""
  force: bool = False
  """Go on with unfinished runs that other versions, code or data began; what
  changed is kept in config.json."""
  tensorboard: bool = True
  """Write TensorBoard files too, where tensorboardX is installed."""
  progress: bool = True
  """Show a progress bar."""


def check(config: Options, tasks: Sequence[str]) -> None:
  """Raises ValueError for shared options that no run could be made of."""
  _methods.check_names(_methods.expand(config.methods))
  _validate.one_of('--optimizer', config.optimizer, OPTIMIZERS)
  _validate.one_of('--route', config.route, ROUTES)
  _validate.one_of('--mode', config.mode, ('auto', 'unroll', 'vmap', 'map'))
  _validate.one_of('--sweep', config.sweep, sweep.MODES)
  _validate.one_of('--layout', config.layout, _devices.LAYOUTS)
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
  _conflict.check(config)
  for name in ('seeds', 'epochs', 'batch_size', 'log_every'):
    _validate.in_range(f'--{name.replace("_", "-")}', getattr(config, name), 1)
  _validate.in_range('--learning-rate', config.learning_rate, 0, open_low=True)
  _validate.in_range('--rho', config.rho, 0)
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


def methods_of(config: Options, tasks: Sequence[str]) -> tuple[str, ...]:
  """What is compared: each task alone, if wanted, then the methods."""
  methods = _methods.expand(config.methods)
  single = [f'single_{task}' for task in tasks] if config.baselines else []
  return (*single, *methods)


def make_cells(
  config: Options,
  name: str,
  problem: Problem,
  train: Mapping[str, np.ndarray],
  layout: Layout | None,
  *,
  mode: str,
  probe: _conflict.Probe | None = None,
) -> list[_study.Cell]:
  """The runs of one method, all seeds sharing one compiled step.

  Args:
    config: the options.
    name: of the method, or ``single_<task>``.
    problem: loss and measurements.
    train: the training data.
    layout: how a run is spread over devices; None: it is not.
    mode: how a step's T backward passes run.
    probe: measured inside training; see `_conflict.make_probes`.
  """
  labels, num_tasks = problem.labels, len(problem.tasks)
  single = num_tasks == 1
  steps = config.epochs * _sources.steps_per_epoch(train, config.batch_size)
  schedule = optax.cosine_decay_schedule(config.learning_rate, steps)
  optimizer = OPTIMIZERS[config.optimizer]
  method = _methods.make_method(
    'sum_losses' if single else name,
    num_tasks,
    labels,
    rho=config.rho,
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

  def init(seed):
    init_key, key = jax.random.split(jax.random.key(seed))
    params, model_state = problem.init(init_key)
    return step.init(params, key=key, model_state=model_state)

  def make(seed):
    init_fn = functools.partial(init, seed)
    return init_fn() if layout is None else layout.make(init_fn)

  def batches(seed):
    size = config.batch_size
    found = data.make_train_iterator(
      train,
      batch_size=size,
      seed=seed,
      rows=None if layout is None else layout.local_rows(size),
    )
    return found if layout is None else ShardedBatches(found, layout, size)

  def validate(state):
    return problem.evaluate(state, 'validation') | problem.probe(state)

  return [
    _study.Cell(
      method=name,
      seed=seed,
      tasks=problem.tasks,
      step=step,
      init_fn=functools.partial(make, seed),
      batches_fn=functools.partial(batches, seed),
      validate_fn=validate,
      test_fn=lambda state: problem.evaluate(state, 'test'),
      probe_fn=probe,
      probe_every=config.diagnose_every,
    )
    for seed in range(config.seeds)
  ]


@dataclasses.dataclass(frozen=True)
class Study:
  """A study whose options are known to be good, and whose data is there.

  Attributes:
    name: as in ``python -m experiments.<name>``.
    tasks: its tasks.
    methods: what is compared, in order.
    cells: the runs, those of a method one after another.
    steps_per_epoch: of every run.
    select: the score of a state, from its validation metrics.
    facts: what ``config.json`` says besides.
    data: digests of the splits, by the name of the data set.
  """

  name: str
  tasks: tuple[str, ...]
  methods: tuple[str, ...]
  cells: tuple[_study.Cell, ...]
  steps_per_epoch: int
  select: Callable[[Mapping[str, float]], float]
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  data: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def prepare(
  config: Options,
  console: rich.console.Console,
  *,
  name: str,
  load: Callable[[Callable[[str], None]], _sources.Source],
  make_problem: Callable[[_sources.Source, tuple[str, ...]], Problem],
  mode: str,
  facts: Mapping[str, Any] | None = None,
) -> Study:
  """A study of one data set, all of whose options but its data are checked.

  Args:
    config: the options.
    console: where slow work is announced.
    name: of the experiment.
    load: reads the data set; called with what prints a line.
    make_problem: from the data set and some of its tasks.
    mode: how a step's T backward passes run.
    facts: what ``config.json`` says besides.
  """
  with _devices.first_process_first():
    source = load(lambda text: console.print(text, markup=False))
  methods = methods_of(config, source.tasks)
  layout = _devices.make_layout(config.layout)
  if layout is not None:
    layout.local_rows(config.batch_size)
  names = {x: tasks_of(x, source.tasks) for x in methods}
  problems = {
    tasks: make_problem(source, tasks)
    for tasks in dict.fromkeys(names.values())
  }
  train = source.loaded.splits['train']
  probes = _conflict.make_probes(config, problems)
  cells = [
    cell
    for method, tasks in names.items()
    for cell in make_cells(
      config,
      method,
      problems[tasks],
      train,
      layout,
      mode=mode,
      probe=probes.get(tasks),
    )
  ]
  return Study(
    name=name,
    tasks=source.tasks,
    methods=methods,
    cells=tuple(cells),
    steps_per_epoch=source.steps_per_epoch(config.batch_size),
    select=source.select,
    facts=facts or {},
    data={source.name: _identity.digests(source.loaded.splits)},
  )


def sweep_mode(config: Options) -> str:
  """How the seeds of a method run: what is asked for, or the fastest."""
  if config.sweep != 'auto':
    return config.sweep
  if config.layout != 'none':
    return 'loop'
  return layers.default_sweep_mode(jax.default_backend())


def groups(config: Options, study: Study) -> list[list[_study.Cell]]:
  """The runs that are trained together: the seeds of a method, or one."""
  if sweep_mode(config) == 'loop':
    return [[cell] for cell in study.cells]
  by_method = itertools.groupby(study.cells, key=lambda cell: cell.method)
  return [list(cells) for _, cells in by_method]


def run_group(
  config: Options,
  study: Study,
  group: list[_study.Cell],
  before: int,
  console: rich.console.Console,
) -> list[dict[str, Any]]:
  """The rows of runs that are trained together, of those finished too."""
  found = [_study.finished(config.out, cell) for cell in group]
  todo = [c for c, row in zip(group, found, strict=True) if row is None]
  if not todo:
    return [row for row in found if row is not None]
  for i, cell in enumerate(group):
    if cell in todo:
      place = f'[{before + i + 1}/{len(study.cells)}]'
      console.print(f'{place} {cell.method}, seed {cell.seed}', markup=False)
  options = {
    'num_steps': config.epochs * study.steps_per_epoch,
    'steps_per_epoch': study.steps_per_epoch,
    'log_every': config.log_every,
    'batch_size': config.batch_size,
    'select': study.select,
    'tensorboard': config.tensorboard,
    'progress': config.progress,
    'inside': inside_of(config),
  }
  if len(todo) == 1:
    new = iter([_study.run_cell(config.out, todo[0], **options)])
  else:
    mode = sweep_mode(config)
    new = iter(_study.run_cells(config.out, todo, mode=mode, **options))
  return [next(new) if row is None else row for row in found]


def inside_of(config: Options) -> dict[str, str]:
  """The options that a run keeps, with what ``auto`` is here."""
  resolved = dataclasses.replace(config, sweep=sweep_mode(config))
  return _identity.kept(resolved)


def run(config: Options, study: Study, console: rich.console.Console) -> int:
  """Runs the study; returns how many runs failed.

  Args:
    config: the options.
    study: what to run.
    console: where progress and the table go.
  """
  start = time.perf_counter()
  values = dataclasses.asdict(config)
  values |= {
    'experiment': study.name,
    'tasks': list(study.tasks),
    'methods': study.methods,
    **study.facts,
  }
  with _devices.first_process_first():
    resume = config.resume or not _devices.is_first()
    _identity.open_study(
      config,
      values,
      ignore=RESUMABLE,
      data=study.data,
      inside=inside_of(config),
      runs=lambda: _study.endings(config.out, study.cells),
      resume=resume,
    )
  rows, failed = [], 0
  for group in groups(config, study):
    for row in run_group(config, study, group, len(rows), console):
      rows.append(row)
      if row['status'] != _study.OK:
        failed += 1
        console.print(f'error: {row["status"]}', style='red', markup=False)
    if _devices.is_first():
      _study.write_results(config.out, rows)
  if not _devices.is_first():
    return failed
  summary = report.write_report(config.out)
  report.print_table(summary, console)
  report.print_end(config.out, start, console)
  return failed


def main(
  parse: Callable[[], Options],
  prepare: Callable[[Any, rich.console.Console], Study],
) -> None:
  """The command line of a comparison: `run` after its own ``prepare``."""

  def start(config):
    _devices.start(config.layout, config.distributed)
    console = report.make_console()
    console.quiet = not _devices.is_first()
    return console

  _command.run_command(parse, prepare, run, start=start)

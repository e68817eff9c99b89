"""Compares multi-task methods on two overlapping handwritten digits.

  python -m experiments.multi_digits

Single-task baselines first, then each method, over several seeds; the state
with the best validation accuracy is measured on test. Everything goes to
``--out``: ``config.json``, ``runs/<method>/seed_<k>/`` with metrics and
checkpoints, ``results.csv``, ``summary.json`` and ``report.html``. The same
command again goes on where it was stopped, and skips what is finished.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from typing import Literal

import rich.console
import tyro

from experiments import _comparison, _devices, _digits, report
from experiments._digits import MODELS, TASKS, DataConfig, select, tasks_of
from mtljax import _validate, data
from mtljax.training import exit_on_error


@dataclasses.dataclass(frozen=True)
class Config:
  """Compares multi-task methods on two overlapping handwritten digits."""

  out: pathlib.Path = pathlib.Path('results/multi_digits')
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
  weights: tuple[float, ...] = (1.0, 0.5)
  """Weights of the method fixed, one a task."""
  scores: tuple[float, ...] = (0.1, 0.1)
  """Training losses that the tasks reach alone, for the method pivrg."""
  baselines: bool = True
  """Train each task alone too, which delta-m is measured against."""
  seeds: int = 3
  """Number of seeds: 0, 1, ..."""
  epochs: int = 4
  """Passes over the training pairs."""
  model: str = 'multi_lenet'
  """multi_lenet, multi_mlp, resnet (small) or resnet18."""
  optimizer: str = 'adam'
  """adam, adamw, sgd or momentum. The method per_task_optimizer has one a task;
  adatask is one Adam a task, whatever this says."""
  learning_rate: float = 2e-3
  """Of the optimizer; it falls to zero along a cosine."""
  batch_size: int = 128
  """Examples a step."""
  rho: float = 0.05
  """Radius of flat_X and sam_X."""
  route: str = 'auto'
  """How statistics are taken: auto, losses, jacobian, gramian,
  layerwise or features."""
  mode: str = 'auto'
  """How a step's T backward passes run: unroll, vmap or map. auto takes map
  for multi_lenet, unless the route is gramian, and unroll for the others."""
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
  tensorboard: bool = True
  """Write TensorBoard files too, where tensorboardX is installed."""
  progress: bool = True
  """Show a progress bar."""
  data: DataConfig = dataclasses.field(default_factory=DataConfig)
  """The data set."""


def check(config: Config) -> None:
  """Raises ValueError for options that no run could be made of."""
  _comparison.check(config, TASKS)
  _validate.one_of('--model', config.model, MODELS)
  _validate.one_of('--data.source', config.data.source, data.SOURCES)
  if config.diagnose and config.model.startswith('resnet'):
    raise ValueError(
      f'--diagnose conflict and --model {config.model}: the gradient of one '
      'sample is not defined under batch statistics; use multi_lenet or '
      'multi_mlp.'
    )


def prepare(config: Config, console: rich.console.Console) -> _comparison.Study:
  """Everything that can be refused, before anything is written or trained."""
  check(config)
  methods = _comparison.methods_of(config, TASKS)
  with _devices.first_process_first():
    digits = _digits.load(
      config.data,
      config.batch_size,
      lambda text: console.print(text, markup=False),
    )
  layout = _devices.make_layout(config.layout)
  if layout is not None:
    layout.local_rows(config.batch_size)
  problems = {
    tasks: _digits.make_problem(
      MODELS[config.model](tasks=tasks, num_classes=_digits.NUM_CLASSES), digits
    )
    for tasks in dict.fromkeys(tasks_of(name) for name in methods)
  }
  train = digits.splits['train']
  probes = _comparison.make_probes(config, problems)
  mode = _digits.mode_of(config.mode, config.model, config.route)
  cells = [
    cell
    for name in methods
    for cell in _comparison.make_cells(
      config,
      name,
      problems[tasks_of(name)],
      train,
      layout,
      mode=mode,
      probe=probes.get(tasks_of(name)),
    )
  ]
  return _comparison.Study(
    name='multi_digits',
    tasks=TASKS,
    methods=methods,
    cells=tuple(cells),
    steps_per_epoch=_comparison.steps_per_epoch(config, train),
    select=select,
  )


def main() -> None:
  """The command line."""
  config = tyro.cli(Config, prog='python -m experiments.multi_digits')
  with exit_on_error():
    try:
      _devices.start(config.layout, config.distributed)
      console = report.make_console()
      console.quiet = not _devices.is_first()
      study = prepare(config, console)
    except ValueError as error:
      sys.exit(f'error: {error}')
    failed = _comparison.run(config, study, console)
  if failed:
    sys.exit(f'error: {failed} runs did not finish; their status says why.')


if __name__ == '__main__':
  main()

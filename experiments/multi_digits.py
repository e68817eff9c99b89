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

import rich.console
import tyro

from experiments import _comparison, _devices, _digits, report
from experiments._digits import MODELS, TASKS, DataConfig, select, tasks_of
from mtljax import _validate, data
from mtljax.training import exit_on_error


@dataclasses.dataclass(frozen=True)
class Config(_comparison.Options):
  """Compares multi-task methods on two overlapping handwritten digits."""

  out: pathlib.Path = pathlib.Path('results/multi_digits')
  """Folder for everything this run writes."""
  weights: tuple[float, ...] = (1.0, 0.5)
  """Weights of the method fixed, one a task."""
  scores: tuple[float, ...] = (0.1, 0.1)
  """Training losses that the tasks reach alone, for the method pivrg."""
  epochs: int = 4
  """Passes over the training pairs."""
  model: str = 'multi_lenet'
  """multi_lenet, multi_mlp, resnet (small) or resnet18."""
  learning_rate: float = 2e-3
  """Of the optimizer; it falls to zero along a cosine."""
  mode: str = 'auto'
  """How a step's T backward passes run: unroll, vmap or map. auto takes map
  for multi_lenet, unless the route is gramian, and unroll for the others."""
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

"""Compares multi-task methods on Census-Income (KDD), the data of MMoE and PLE.

  python -m mtljax.data.fetch census  # where UCI is not reached
  python -m experiments.census

Single-task baselines first, then each method, over several seeds; the state
with the best mean AUC on validation is measured on test. Everything goes to
``--out``, as for ``experiments.multi_digits``; the same command again goes on
where it was stopped, and skips what is finished.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys

import rich.console

from experiments import (
  _census,
  _comparison,
  _devices,
  _digits,
  _presets,
  report,
)
from mtljax import _validate, data
from mtljax.training import exit_on_error


@dataclasses.dataclass(frozen=True)
class Config(_comparison.Options):
  """Compares multi-task methods on Census-Income (KDD)."""

  preset: str = 'quick'
  """quick (50,000 rows, 2 epochs) or paper (all rows, 10 epochs)."""
  out: pathlib.Path = pathlib.Path('results/census')
  """Folder for everything this run writes."""
  tasks: tuple[str, ...] = ('income', 'never_married')
  """Some of income, never_married and education. The column of a task is no
  input of any run, single-task ones included."""
  weights: tuple[float, ...] = ()
  """Weights of the method fixed, one a task; by default all 1."""
  scores: tuple[float, ...] = ()
  """Training losses that the tasks reach alone, for the method pivrg; by
  default all 0.1."""
  epochs: int = 2
  """Passes over the training rows."""
  hidden_sizes: tuple[int, ...] = (128, 64)
  """Units of the shared layers."""
  head_sizes: tuple[int, ...] = (16,)
  """Units of the layers of each task's own, before its logit."""
  batch_size: int = 256
  """Rows a step."""
  mode: str = 'auto'
  """How a step's T backward passes run: unroll, vmap or map; auto is unroll."""
  data: _census.DataConfig = dataclasses.field(
    default_factory=lambda: _census.DataConfig(num_train=50_000)
  )
  """The data set."""


PRESETS = {
  'quick': Config(),
  'paper': Config(
    preset='paper', epochs=10, seeds=5, data=_census.DataConfig()
  ),
}


def complete(config: Config) -> Config:
  """The options, with those that depend on the number of tasks."""
  ones = (1.0,) * len(config.tasks)
  return dataclasses.replace(
    config,
    weights=config.weights or ones,
    scores=config.scores or tuple(0.1 * x for x in ones),
  )


def check(config: Config) -> None:
  """Raises ValueError for options that no run could be made of."""
  for task in config.tasks:
    _validate.one_of('--tasks', task, data.CENSUS_TASKS)
  if not config.tasks or len(set(config.tasks)) != len(config.tasks):
    raise ValueError(f'--tasks={config.tasks} must be different tasks.')
  _comparison.check(config, config.tasks)
  if config.data.num_train is not None:
    _validate.in_range('--data.num-train', config.data.num_train, 1)


def prepare(config: Config, console: rich.console.Console) -> _comparison.Study:
  """Everything that can be refused, before anything is written or trained."""
  check(config)
  tasks = config.tasks
  methods = _comparison.methods_of(config, tasks)
  with _devices.first_process_first():
    rows = _census.load(
      config.data,
      tasks,
      config.batch_size,
      lambda text: console.print(text, markup=False),
    )
  layout = _devices.make_layout(config.layout)
  if layout is not None:
    layout.local_rows(config.batch_size)
  names = {name: _digits.tasks_of(name, tasks) for name in methods}
  problems = {
    some: _digits.make_problem(
      _census.make_model(some, config.hidden_sizes, config.head_sizes),
      rows,
      _census.task_loss,
      _census.task_metrics,
    )
    for some in dict.fromkeys(names.values())
  }
  train = rows.splits['train']
  probes = _comparison.make_probes(config, problems)
  mode = 'unroll' if config.mode == 'auto' else config.mode
  cells = [
    cell
    for name, some in names.items()
    for cell in _comparison.make_cells(
      config,
      name,
      problems[some],
      train,
      layout,
      mode=mode,
      probe=probes.get(some),
    )
  ]
  return _comparison.Study(
    name='census',
    tasks=tasks,
    methods=methods,
    cells=tuple(cells),
    steps_per_epoch=_comparison.steps_per_epoch(config, train),
    select=_census.select,
    facts={'delta_m_metrics': [f'auc/{task}' for task in tasks]},
  )


def main() -> None:
  """The command line."""
  with exit_on_error():
    try:
      config = complete(
        _presets.parse(Config, PRESETS, prog='python -m experiments.census')
      )
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

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

import rich.console

from experiments import _census, _comparison, _digits, _presets, _sources
from mtljax import _validate, data


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
  _digits.check_layers(config.hidden_sizes)
  for size in config.head_sizes:
    _validate.in_range('--head-sizes', size, 1)
  if config.data.num_train is not None:
    _validate.in_range('--data.num-train', config.data.num_train, 1)


def prepare(config: Config, console: rich.console.Console) -> _comparison.Study:
  """Everything that can be refused, before anything is written or trained."""
  check(config)
  return _comparison.prepare(
    config,
    console,
    name='census',
    load=lambda say: _sources.load_census(
      config.data, config.batch_size, say, config.tasks
    ),
    make_problem=lambda source, tasks: source.make_problem(
      tasks, hidden_sizes=config.hidden_sizes, head_sizes=config.head_sizes
    ),
    mode='unroll' if config.mode == 'auto' else config.mode,
    facts={'delta_m_metrics': [f'auc/{task}' for task in config.tasks]},
  )


def main() -> None:
  """The command line."""
  _comparison.main(
    lambda: complete(
      _presets.parse(Config, PRESETS, prog='python -m experiments.census')
    ),
    prepare,
  )


if __name__ == '__main__':
  main()

"""Do tasks conflict more than samples of one task do?

  python -m experiments.conflict_study

Networks that share much, and networks with larger heads on the same trunk, are
trained on two overlapping digits and on Census-Income. Every k steps the
gradients of single samples and tasks are compared. To ``--out`` go
``config.json``,
``runs/<data>.<shape>/seed_<k>/`` with the pairs in ``probe.jsonl``,
``results.csv``, ``summary.json`` and ``report.html`` with the verdicts on the
claims E7, E8 and E9. The same command again goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import optax
import rich.console

import mtljax as mtl
from experiments import (
  _census,
  _command,
  _conflict,
  _conflict_report,
  _digits,
  _identity,
  _presets,
  _sources,
  _study,
  report,
)
from experiments._digits import DataConfig
from mtljax import _validate, data
from mtljax.training import make_train_step

#: Head layers of each shape; the trunk is the same.
SHAPES: dict[str, tuple[int, ...]] = {
  'shared_heavy': (),
  'head_heavy': (64, 64),
}


@dataclasses.dataclass(frozen=True)
class Config:
  """Compares conflict between tasks with conflict between samples."""

  preset: str = 'quick'
  """quick (a few minutes on two cores) or long. Other options override it."""
  out: pathlib.Path = pathlib.Path('results/conflict_study')
  """Folder for everything this run writes."""
  datasets: tuple[str, ...] = _sources.NAMES
  """digits, census or both."""
  seeds: int = 3
  """Number of seeds: 0, 1, ..."""
  epochs: int = 4
  """Passes over the training data."""
  hidden_sizes: tuple[int, ...] = (64, 32)
  """Layers of the trunk, the same in both shapes."""
  learning_rate: float = 1e-3
  """Of Adam; constant."""
  batch_size: int = 64
  """Examples a step."""
  diagnose_every: int = 5
  """Steps between comparisons of gradients."""
  diagnose_samples: int = 8
  """Samples of a batch that are compared."""
  min_seeds: int = 3
  """With fewer seeds no claim is decided."""
  log_every: int = 25
  """Steps between lines of metrics."""
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
  """The digits."""
  census: _census.DataConfig = dataclasses.field(
    default_factory=lambda: _census.DataConfig(num_train=4000)
  )
  """Census-Income (KDD)."""


PRESETS = {
  'quick': Config(),
  'long': Config(
    preset='long',
    seeds=5,
    epochs=30,
    data=DataConfig(source='mnist_5k'),
    census=_census.DataConfig(num_train=8000),
  ),
}
# What may change between a run and its continuation in the same folder.
RESUMABLE = ('out', 'preset', 'seeds', 'min_seeds', 'resume', 'progress')
RESUMABLE += ('data.dir', 'census.dir', 'datasets', 'tasks', 'methods')


def check(config: Config) -> None:
  """Raises ValueError for options that no study could be made of."""
  for name in config.datasets:
    _validate.one_of('--datasets', name, _sources.NAMES)
  if not config.datasets or len(set(config.datasets)) != len(config.datasets):
    raise ValueError(
      f'--datasets={config.datasets} must be different ones of '
      f'{", ".join(_sources.NAMES)}.'
    )
  _validate.one_of('--data.source', config.data.source, data.SOURCES)
  if config.census.num_train is not None:
    _validate.in_range('--census.num-train', config.census.num_train, 1)
  for name in ('seeds', 'epochs', 'batch_size', 'log_every', 'min_seeds'):
    _validate.in_range(f'--{name.replace("_", "-")}', getattr(config, name), 1)
  _validate.in_range('--diagnose-every', config.diagnose_every, 1)
  _validate.in_range(
    '--diagnose-samples', config.diagnose_samples, 2, config.batch_size
  )
  _validate.in_range('--learning-rate', config.learning_rate, 0, open_low=True)
  _digits.check_layers(config.hidden_sizes)


@dataclasses.dataclass(frozen=True)
class Setting:
  """A network on a data set."""

  name: str
  source: _sources.Source
  problem: _digits.Problem


def load_sources(
  config: Config, say: Callable[[str], None]
) -> list[_sources.Source]:
  """Reads the data sets, preparing them first if they are not there yet."""

  def census():
    try:
      return _sources.load_census(config.census, config.batch_size, say)
    except FileNotFoundError as error:
      raise FileNotFoundError(
        f'{error}. To do without these data: --datasets digits'
      ) from error

  def digits():
    return _sources.load_digits(config.data, config.batch_size, say)

  load = {'digits': digits, 'census': census}
  return [load[name]() for name in config.datasets]


def make_settings(config: Config, say: Callable[[str], None]) -> list[Setting]:
  """Both shapes on every data set."""
  return [
    Setting(
      f'{source.name}.{shape}',
      source,
      source.make_problem(
        hidden_sizes=config.hidden_sizes, head_sizes=head_sizes
      ),
    )
    for source in load_sources(config, say)
    for shape, head_sizes in SHAPES.items()
  ]


def make_cells(config: Config, setting: Setting) -> list[_study.Cell]:
  """The runs of a setting, all seeds sharing the compiled step."""
  problem, source = setting.problem, setting.source
  step = make_train_step(
    mtl.sum_losses(len(problem.tasks)),
    optax.adam(config.learning_rate),
    problem.loss,
    has_state=True,
  )
  probe = _conflict.make_probe(
    problem.loss, problem.labels, num_samples=config.diagnose_samples
  )
  steps_per_epoch = source.steps_per_epoch(config.batch_size)

  def init(seed):
    init_key, key = jax.random.split(jax.random.key(seed))
    params, model_state = problem.init(init_key)
    return step.init(params, key=key, model_state=model_state)

  return [
    _study.Cell(
      method=setting.name,
      seed=seed,
      tasks=problem.tasks,
      step=step,
      init_fn=functools.partial(init, seed),
      batches_fn=functools.partial(source.batches, config.batch_size, seed),
      validate_fn=lambda state: problem.evaluate(state, 'validation'),
      test_fn=lambda state: problem.evaluate(state, 'test'),
      probe_fn=probe,
      probe_every=config.diagnose_every,
      num_steps=config.epochs * steps_per_epoch,
      steps_per_epoch=steps_per_epoch,
      select=source.select,
    )
    for seed in range(config.seeds)
  ]


@dataclasses.dataclass(frozen=True)
class Study:
  """A study whose options are known to be good, and whose data is there."""

  settings: list[Setting]
  cells: list[_study.Cell]
  data: dict[str, Any]


def prepare(config: Config, console: rich.console.Console) -> Study:
  """Everything that can be refused, before anything is written or trained."""
  check(config)
  settings = make_settings(
    config, lambda text: console.print(text, markup=False)
  )
  cells = [x for setting in settings for x in make_cells(config, setting)]
  sources = {x.source.name: x.source.loaded.splits for x in settings}
  found = {name: _identity.digests(x) for name, x in sources.items()}
  return Study(settings, cells, found)


def run(config: Config, study: Study, console: rich.console.Console) -> int:
  """Runs the study; returns how many runs failed."""
  start = time.perf_counter()
  values = dataclasses.asdict(config) | {
    'experiment': _conflict_report.NAME,
    'tasks': list(
      dict.fromkeys(t for x in study.settings for t in x.source.tasks)
    ),
    'methods': [setting.name for setting in study.settings],
  }
  inside = _identity.kept(config)
  _identity.open_study(
    config,
    values,
    ignore=RESUMABLE,
    data=study.data,
    inside=inside,
    runs=lambda: _study.endings(config.out, study.cells),
  )
  failed = _study.run_grid(
    config.out,
    study.cells,
    console,
    inside=inside,
    progress=config.progress,
    log_every=config.log_every,
    batch_size=config.batch_size,
    tensorboard=False,
  )
  summary = _conflict_report.write_report(config.out)
  _conflict_report.print_tables(summary, console)
  report.print_end(config.out, start, console)
  return failed


def main() -> None:
  """The command line."""
  _command.run_command(
    lambda: _presets.parse(
      Config, PRESETS, prog='python -m experiments.conflict_study'
    ),
    prepare,
    run,
  )


if __name__ == '__main__':
  main()

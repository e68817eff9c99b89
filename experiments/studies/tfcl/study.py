r"""Do groups of tasks and features keep tasks from harming each other?

  python -m experiments.tfcl
  python -m experiments.tfcl --problems carriers --num-train 100 \
    --strongest 100 --ridges 0.01 0.1 1 10

Linear tasks, drawn ones or the delays of the carriers of flights, are fitted
alone, pooled, with penalties on the trace norm and on the norms of features,
and by TFCL with and without its extension; each at the strength that is best on
validation. To ``--out`` go ``config.json``, ``runs/<problem>/seed_<k>.npz``,
``results.csv``, ``summary.json`` and ``report.html`` with the verdicts on T3 to
T6. The same command again goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time

import numpy as np
import rich.console
import tyro

from experiments.lab import command, identity
from experiments.lab.options import (
  ForceOptions,
  between_runs,
  check_counts,
  check_distinct,
  free,
)
from experiments.report import files, write_report
from experiments.report.console import print_end
from experiments.report.seeds import path_of
from experiments.studies.tfcl import fits, problems
from experiments.studies.tfcl.claims import NAME
from experiments.studies.tfcl.report import read_errors
from experiments.suites import DataOptions, flights
from mtljax import _validate
from mtljax.contrib import tfcl


@dataclasses.dataclass(frozen=True)
class Folder:
  """Where the flights are."""

  dir: pathlib.Path | None = between_runs(None)
  """Folder of tfds; its default is ~/tensorflow_datasets."""


@dataclasses.dataclass(frozen=True)
class TFCLConfig(ForceOptions):
  """Linear tasks in groups against other ways to share."""

  out: pathlib.Path = free(pathlib.Path('results/tfcl'))
  """Folder for everything this run writes."""
  problems: tuple[str, ...] = free(problems.DRAWN)
  """groups, one_group, hard and carriers, separated by spaces."""
  num_train: int = 20
  """Examples a task to fit; of carriers the mean, in proportion to flights."""
  num_validation: int = 100
  """Examples a task to choose strengths by; of carriers the most."""
  strongest: float = 3.0
  """The largest of ten strengths, the least of which is 0.001."""
  ridges: tuple[float, ...] = (fits.RIDGE,)
  """Of the ridge beside other penalties, chosen with the strength."""
  seeds: int = free(10)
  """Number of seeds: 0, 1, ..."""
  min_seeds: int = free(3)
  """With fewer seeds no claim is decided."""
  data: Folder = dataclasses.field(default_factory=Folder)
  """Of carriers."""


def check(config: TFCLConfig) -> None:
  """Raises ValueError for options that no study could be made of."""
  names = config.problems
  check_distinct('problems', names)
  for name in names:
    _validate.one_of('--problems', name, problems.PROBLEMS)
  check_counts(config, ('num_train', 'num_validation', 'seeds', 'min_seeds'))
  _validate.in_range('--strongest', config.strongest, fits.WEAKEST)
  check_distinct('ridges', config.ridges)
  for ridge in config.ridges:
    _validate.in_range('--ridges', ridge, 0)


def prepare(
  config: TFCLConfig, console: rich.console.Console
) -> flights.Carriers | None:
  """Everything that can be refused; the flights, where they are asked for."""
  check(config)
  if problems.CARRIERS not in config.problems:
    return None
  return flights.by_carrier(
    DataOptions(dir=config.data.dir),
    lambda text: console.print(text, markup=False),
  )


def run_seed(
  config: TFCLConfig, name: str, seed: int, found: flights.Carriers | None
) -> dict[str, np.ndarray]:
  """Of each method the errors of the tasks, ``(T,)``, strength and ridge."""
  counts = config.num_train, config.num_validation
  if found is not None and name == problems.CARRIERS:
    tasks = problems.carriers(found, seed, *counts)
  else:
    tasks = problems.draw(name, seed, *counts)
  train = tfcl.squared_losses(*tasks.train)
  validation = tfcl.squared_losses(*tasks.validation)
  tried = fits.strengths(config.strongest)
  arrays = {}
  for method in fits.METHODS:
    chosen = fits.best_fit(method, train, validation, tried, config.ridges)
    arrays[method] = problems.errors_of(tasks, chosen.weights)
    arrays[f'{method}.strength'] = np.asarray(chosen.strength)
    arrays[f'{method}.ridge'] = np.asarray(chosen.ridge)
  return arrays


def run(
  config: TFCLConfig,
  found: flights.Carriers | None,
  console: rich.console.Console,
) -> None:
  """Runs the study, on what `prepare` has read."""
  start = time.perf_counter()
  wanted = [(p, s) for s in range(config.seeds) for p in config.problems]
  values = dataclasses.asdict(config) | {
    'experiment': NAME,
    'tasks': [f'task{t}' for t in range(problems.TASKS)],
  }
  data = {}
  if found is not None:
    order = problems.by_size(found.owner, len(found.names))
    values['carriers'] = [found.names[task] for task in order]
    data['flights'] = files.digest_arrays(
      {'owner': found.owner, 'features': found.features, 'delay': found.delay}
    )
  there = lambda problem, seed: path_of(config.out, problem, seed).exists()
  identity.open_study(
    config,
    values,
    growing=('carriers',),
    data=data,
    finished=lambda: all(there(*x) for x in wanted),
  )
  for problem, seed in wanted:
    path = path_of(config.out, problem, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    if problem in read_errors(config.out, [(problem, seed)], [])[0]:
      continue
    arrays = run_seed(config, problem, seed, found)
    files.write_arrays(path, arrays, name=path.stem, compressed=True)
  errors, choices = read_errors(config.out, wanted, [])
  rows = [
    {
      'problem': problem,
      'method': method,
      'seed': seed,
      'error': float(np.mean(runs[seed])),
      **choices[problem, method, seed],
    }
    for problem, methods in errors.items()
    for method, runs in methods.items()
    for seed in sorted(runs)
  ]
  files.write_table(config.out / files.TABLE, rows)
  write_report(config.out, console)
  print_end(config.out, start, console)


def main() -> None:
  """The command line."""
  command.run_command(
    lambda: tyro.cli(TFCLConfig, prog='python -m experiments.tfcl'),
    prepare,
    run,
  )

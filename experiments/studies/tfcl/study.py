r"""Do groups of tasks and features keep tasks from harming each other?

  python -m experiments.tfcl
  python -m experiments.tfcl --problems carriers --num-train 100 \
    --strongest 100 --ridges 0.01 0.1 1 10

Linear tasks, drawn ones, delays by carrier or scores by school, are fitted
alone, pooled, with penalties on the trace norm and on the norms of features,
and by TFCL with and without its extension; each at the strength that is best on
validation. To ``--out`` go ``config.json``, ``runs/<problem>/seed_<k>.npz``,
``results.csv``, ``summary.json`` and ``report.html`` with the verdicts on T3 to
T8. The same command again goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Mapping

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
from experiments.lab.owned import TaskRows, by_size
from experiments.report import files, write_report
from experiments.report.console import print_end
from experiments.report.seeds import path_of
from experiments.studies.tfcl import fits, problems
from experiments.studies.tfcl.claims import NAME
from experiments.studies.tfcl.report import read_errors
from experiments.suites import DataOptions, flights
from mtljax import _validate
from mtljax.contrib import tfcl
from mtljax.data import load_star


@dataclasses.dataclass(frozen=True)
class Folder:
  """Where the flights and the pupils are."""

  dir: pathlib.Path | None = between_runs(None)
  """Folder of tfds; its default is ~/tensorflow_datasets."""


@dataclasses.dataclass(frozen=True)
class TFCLConfig(ForceOptions):
  """Linear tasks in groups against other ways to share."""

  out: pathlib.Path = free(pathlib.Path('results/tfcl'))
  """Folder for everything this run writes."""
  problems: tuple[str, ...] = free(problems.DRAWN)
  """groups, one_group, hard, carriers and schools, separated by spaces."""
  num_train: int = 20
  """Examples a task to fit; the mean where they are real, in proportion."""
  num_validation: int = 100
  """Examples a task to choose strengths by; the most where they are real."""
  strongest: float = 3.0
  """The largest of ten strengths, the least of which is 0.001."""
  ridges: tuple[float, ...] = (fits.RIDGE,)
  """Of the ridge beside other penalties, chosen with the strength."""
  seeds: int = free(10)
  """Number of seeds: 0, 1, ..."""
  min_seeds: int = free(3)
  """With fewer seeds no claim is decided."""
  data: Folder = dataclasses.field(default_factory=Folder)
  """Of carriers and schools."""


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
) -> dict[str, TaskRows]:
  """Everything that can be refused; the rows of the real problems."""
  check(config)
  folder = config.data.dir
  say = lambda text: console.print(text, markup=False)
  readers = {
    problems.CARRIERS: lambda: flights.by_carrier(DataOptions(folder), say),
    problems.SCHOOLS: lambda: problems.schools(load_star(data_dir=folder)),
  }
  return {x: readers[x]() for x in config.problems if x in readers}


def run_seed(
  config: TFCLConfig, name: str, seed: int, rows: Mapping[str, TaskRows]
) -> dict[str, np.ndarray]:
  """Of each method the errors of the tasks, ``(T,)``, strength and ridge."""
  counts = config.num_train, config.num_validation
  if name in rows:
    tasks = problems.divide(rows[name], seed, *counts)
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
  real: Mapping[str, TaskRows],
  console: rich.console.Console,
) -> None:
  """Runs the study, on what `prepare` has read."""
  start = time.perf_counter()
  wanted = [(p, s) for s in range(config.seeds) for p in config.problems]
  values = dataclasses.asdict(config) | {
    'experiment': NAME,
    'tasks': [f'task{t}' for t in range(problems.TASKS)],
  }
  for name, found in real.items():
    order = by_size(found.owner, len(found.names))
    values[name] = [found.names[task] for task in order]
  there = lambda problem, seed: path_of(config.out, problem, seed).exists()
  identity.open_study(
    config,
    values,
    growing=problems.REAL,
    data=identity.digests(
      {
        name: {'x': x.features, 'y': x.labels, 'owner': x.owner}
        for name, x in real.items()
      }
    ),
    finished=lambda: all(there(*x) for x in wanted),
  )
  for problem, seed in wanted:
    path = path_of(config.out, problem, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    if problem in read_errors(config.out, [(problem, seed)], [])[0]:
      continue
    arrays = run_seed(config, problem, seed, real)
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

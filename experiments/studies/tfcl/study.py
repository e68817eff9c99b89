"""Do groups of tasks and features keep tasks from harming each other?

  python -m experiments.tfcl

Drawn linear tasks are fitted alone, pooled, with penalties on the trace norm
and on the norms of features, and by TFCL with and without its extension; each
at the strength that is best on validation. To ``--out`` go ``config.json``,
``runs/<problem>/seed_<k>.npz``, ``results.csv``, ``summary.json`` and
``report.html`` with the verdicts on T3 and T4. The same command again goes on
where it was stopped.
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
from mtljax import _validate
from mtljax.contrib import tfcl


@dataclasses.dataclass(frozen=True)
class TFCLConfig(ForceOptions):
  """Linear tasks in groups against other ways to share."""

  out: pathlib.Path = free(pathlib.Path('results/tfcl'))
  """Folder for everything this run writes."""
  problems: tuple[str, ...] = free(problems.PROBLEMS)
  """groups, one_group and hard, separated by spaces."""
  num_train: int = 20
  """Examples a task to fit."""
  num_validation: int = 100
  """Examples a task to choose strengths by."""
  seeds: int = free(10)
  """Number of seeds: 0, 1, ..."""
  min_seeds: int = free(3)
  """With fewer seeds no claim is decided."""


def check(config: TFCLConfig) -> None:
  """Raises ValueError for options that no study could be made of."""
  names = config.problems
  check_distinct('problems', names)
  for name in names:
    _validate.one_of('--problems', name, problems.PROBLEMS)
  check_counts(config, ('num_train', 'num_validation', 'seeds', 'min_seeds'))


def run_seed(config: TFCLConfig, name: str, seed: int) -> dict[str, np.ndarray]:
  """Of each method the errors of the tasks, ``(T,)``, and its strength."""
  tasks = problems.draw(name, seed, config.num_train, config.num_validation)
  train = tfcl.squared_losses(*tasks.train)
  validation = tfcl.squared_losses(*tasks.validation)
  found = {}
  for method in fits.METHODS:
    weights, strength = fits.best_fit(method, train, validation)
    found[method] = problems.errors(weights, tasks.weights)
    found[f'{method}.strength'] = np.asarray(strength)
  return found


def run(config: TFCLConfig, console: rich.console.Console) -> None:
  """Runs the study."""
  start = time.perf_counter()
  wanted = [(p, s) for s in range(config.seeds) for p in config.problems]
  values = dataclasses.asdict(config) | {
    'experiment': NAME,
    'tasks': [f'task{t}' for t in range(problems.TASKS)],
  }
  there = lambda problem, seed: path_of(config.out, problem, seed).exists()
  identity.open_study(
    config,
    values,
    growing=(),
    finished=lambda: all(there(*x) for x in wanted),
  )
  for problem, seed in wanted:
    path = path_of(config.out, problem, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    if problem in read_errors(config.out, [(problem, seed)], [])[0]:
      continue
    found = run_seed(config, problem, seed)
    files.write_arrays(path, found, name=path.stem, compressed=True)
  errors, strengths = read_errors(config.out, wanted, [])
  rows = [
    {
      'problem': problem,
      'method': method,
      'seed': seed,
      'error': float(np.mean(runs[seed])),
      'strength': strengths[problem, method, seed],
    }
    for problem, found in errors.items()
    for method, runs in found.items()
    for seed in sorted(runs)
  ]
  files.write_table(config.out / files.TABLE, rows)
  write_report(config.out, console)
  print_end(config.out, start, console)


def main() -> None:
  """The command line."""
  command.run_command(
    lambda: tyro.cli(TFCLConfig, prog='python -m experiments.tfcl'),
    lambda config, _: check(config),
    lambda config, _, console: run(config, console),
  )

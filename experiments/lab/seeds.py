"""Runs a study in which all of a seed is one computation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import rich.console

from experiments.lab import identity
from experiments.lab.options import Options
from experiments.lab.progress import GridProgress
from experiments.report import files, write_report
from experiments.report.console import print_end
from experiments.report.seeds import path_of, read_seeds

#: From a part, a seed, and what is called with each step, to arrays.
RunOne = Callable[[str, int, Callable[[int], None]], Mapping[str, Any]]


def run_seeds(
  config: Options,
  values: Mapping[str, Any],
  wanted: Sequence[tuple[str, int]],
  run_one: RunOne,
  rows_of: Callable[
    [str, int, Mapping[str, np.ndarray]], Iterable[dict[str, Any]]
  ],
  console: rich.console.Console,
  *,
  num_steps: int,
  growing: Sequence[str] = (),
  data: Mapping[str, Any] | None = None,
) -> None:
  """Computes what is not there yet, and writes the table and the report.

  Args:
    config: its options.
    values: what ``config.json`` says.
    wanted: the parts and seeds.
    run_one: computes one.
    rows_of: from a part, a seed and its arrays to rows of ``results.csv``.
    console: where progress and the tables go.
    num_steps: that ``run_one`` counts.
    growing: what is no option and may change when the study goes on.
    data: by the name of a data set, digests of its splits.
  """
  start = time.perf_counter()
  there = lambda part, seed: path_of(config.out, part, seed).exists()
  identity.open_study(
    config,
    values,
    growing=growing,
    data=data,
    finished=lambda: all(there(*x) for x in wanted),
  )
  total = len(wanted)
  with GridProgress(total * num_steps, console, config.progress) as bar:
    for i, (part, seed) in enumerate(wanted, start=1):
      if not read_seeds(config.out, [(part, seed)], []):
        bar.start(f'[{i}/{total}] {part}, seed {seed}')
        found = run_one(part, seed, bar.step)
        path = path_of(config.out, part, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_arrays(path, found, name=path.stem, compressed=True)
      bar.finish(num_steps)
  seeds = read_seeds(config.out, wanted, [])
  rows = [
    row
    for part, runs in seeds.items()
    for seed, arrays in sorted(runs.items())
    for row in rows_of(part, seed, arrays)
  ]
  files.write_table(config.out / files.TABLE, rows)
  write_report(config.out, console)
  print_end(config.out, start, console)

"""What a study will take: its grid, and time and memory of a step."""

from __future__ import annotations

import itertools
import pathlib
import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import rich.console

from experiments.lab import runs, study, tuning
from experiments.report.tables import columns_of, render_columns

#: Steps that are timed, after one that is not.
STEPS = 3
TITLES = ('method', 'runs', 'done', 'steps', 'ms/step', 'minutes', 'MB')


class Forecast(NamedTuple):
  """What the runs of a method take.

  Attributes:
    method: its name.
    runs: how many there are.
    done: how many of them the folder holds already.
    steps: of one run.
    seconds: of one step, the median.
    compile_seconds: before the first one.
    bytes: that the compiled step holds at most, its state and batch included.
  """

  method: str
  runs: int
  done: int
  steps: int
  seconds: float
  compile_seconds: float
  bytes: int

  @property
  def left(self) -> float:
    """Seconds of training that are left."""
    if self.runs == self.done:
      return 0.0
    steps = (self.runs - self.done) * self.steps
    return self.compile_seconds + steps * self.seconds


def measure(
  out: pathlib.Path, specs: Sequence[runs.RunSpec], num_steps: int
) -> Forecast:
  """Compiles the step of a method and times a few of them.

  Nothing is written.

  Args:
    out: the folder of the study, whose finished runs are not counted.
    specs: the method's runs, which share their step.
    num_steps: steps of a run that does not say.

  Returns:
    The `Forecast`.
  """
  spec = specs[0]
  state = spec.init_fn()
  batches = iter(spec.batches_fn())
  start = time.perf_counter()
  step = spec.step.step.lower(state, next(batches)).compile()
  compile_seconds = time.perf_counter() - start
  found = step.memory_analysis()
  held = 0
  if found is not None:
    held = found.argument_size_in_bytes + found.output_size_in_bytes
    held += found.temp_size_in_bytes - found.alias_size_in_bytes
  times = []
  for batch in itertools.islice(batches, STEPS + 1):
    start = time.perf_counter()
    state, _ = jax.block_until_ready(step(state, batch))
    times.append(time.perf_counter() - start)
  return Forecast(
    method=spec.method,
    runs=len(specs),
    done=sum(runs.finished(out, run) is not None for run in specs),
    steps=spec.num_steps or num_steps,
    seconds=statistics.median(times[1:]),
    compile_seconds=compile_seconds,
    bytes=held,
  )


def show(
  out: pathlib.Path,
  found: study.Study,
  console: rich.console.Console,
  *,
  trials: int = 0,
  in_runs: float = 0.0,
) -> list[Forecast]:
  """Prints the grid of a study with what it will take.

  Args:
    out: its folder.
    found: the study.
    console: where to.
    trials: of each method before its runs.
    in_runs: what these take, in runs.

  Returns:
    A `Forecast` a method, in order.
  """
  by_method: dict[str, list[runs.RunSpec]] = {}
  for run in found.runs:
    by_method.setdefault(run.method, []).append(run)
  forecasts = [
    measure(out, specs, found.options.get('num_steps', 0))
    for specs in by_method.values()
  ]
  rows = [
    (
      each.method,
      f'{each.runs}',
      f'{each.done}',
      f'{each.steps}',
      f'{1000 * each.seconds:.1f}',
      f'{each.left / 60:.1f}',
      f'{each.bytes / 1e6:.3g}',
    )
    for each in forecasts
  ]
  title = f'{found.name}: what it will take'
  console.print(render_columns(title, columns_of(TITLES, rows)))
  minutes = sum(each.left for each in forecasts) / 60
  todo = sum(each.runs - each.done for each in forecasts)
  console.print(
    f'{todo} runs to train in {out}: about {minutes:.1f} minutes, without '
    f'evaluations; by the median of {STEPS} steps a method, seeds one after '
    'another. MB are of one seed: state, batch and what a step holds. Nothing '
    'was written.',
    markup=False,
    highlight=False,
  )
  if trials:
    one = sum(x.compile_seconds + x.steps * x.seconds for x in forecasts)
    console.print(
      f'Before them come {trials} trials of each method: at most '
      f'{in_runs * one / 60:.1f} minutes more.',
      markup=False,
      highlight=False,
    )
  return forecasts


def show_or_run(
  config: Any, found: study.Study, console: rich.console.Console
) -> int:
  """`show` where the options say ``dry_run``, else `study.run`."""
  if config.dry_run:
    rungs = tuning.make_rungs(config.tune_by, config.tune, config.epochs)
    show(
      config.out,
      found,
      console,
      trials=config.tune,
      in_runs=tuning.in_runs(rungs) * config.tune_seeds,
    )
    return 0
  return study.run(config, found, console)

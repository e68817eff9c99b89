"""Running the cells of a study: a method and a seed each, resumable."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import rich.console
import rich.progress

from experiments import _devices, _files, _identity
from mtljax.training import (
  Checkpointer,
  JsonlWriter,
  MetricWriter,
  MultiWriter,
  NonFiniteLossError,
  Probe,
  TensorBoardWriter,
  TrainState,
  TrainStep,
  _json,
  fit_steps,
  fit_sweep,
  make_sweep,
)
from mtljax.training.lockstep import Steps, drive
from mtljax.training.writers import marks_of

OK = 'ok'

_log = logging.getLogger(__name__)
_said: set[pathlib.Path] = set()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
  """What one run of a study needs.

  Attributes:
    method: its name, as in the folder and the table.
    seed: its seed.
    tasks: the names of its tasks.
    step: the train step.
    init_fn: ``init_fn() -> TrainState``.
    batches_fn: ``batches_fn() -> iterator`` with ``get_state``, ``set_state``.
    validate_fn: from a state to validation metrics.
    test_fn: from a state to test metrics.
    measure_fn: from the state measured to more columns of the row, and arrays
      that are kept in ``artifacts.npz``; None measures no more.
    probe_fn: measured inside training, see `mtljax.training.Probe`; what it
      returns goes to ``probe.jsonl``. None measures nothing.
    probe_every: steps between these measurements.
    num_steps: steps to train; None: as many as the study says.
    steps_per_epoch: steps between evaluations; None likewise.
    select: from validation metrics to the score of a state; None: the study's.
    facts: columns that the row has besides those measured.
  """

  method: str
  seed: int
  tasks: tuple[str, ...]
  step: TrainStep
  init_fn: Callable[[], TrainState]
  batches_fn: Callable[[], Any]
  validate_fn: Callable[[TrainState], Mapping[str, Any]]
  test_fn: Callable[[TrainState], Mapping[str, Any]]
  measure_fn: (
    Callable[[TrainState], tuple[Mapping[str, Any], Mapping[str, Any]]] | None
  ) = None
  probe_fn: Callable[[TrainState, Any], Mapping[str, Any]] | None = None
  probe_every: int = 5
  num_steps: int | None = None
  steps_per_epoch: int | None = None
  select: Callable[[Mapping[str, Any]], float] | None = None
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def folder(self, out: pathlib.Path) -> pathlib.Path:
    """Where this run keeps its files."""
    return out / 'runs' / self.method / f'seed_{self.seed}'


def finished(out: pathlib.Path, cell: Cell) -> dict[str, Any] | None:
  """The row of a run that has ended well, or None.

  The folder's configuration is that of all its runs: `open_run` saw to it. A
  result that is damaged is named, and its run gone on with.
  """
  folder = cell.folder(out)
  try:
    row, files = _files.read_result(folder, cell.method, cell.seed)
    if row.get('status') != OK:
      return None
    damaged = list(_files.changed(folder, files))
    if _files.ARTIFACTS in damaged:
      raise ValueError(f'{_files.ARTIFACTS} is not as it was then')
  except FileNotFoundError:
    return None
  except (OSError, ValueError) as error:
    path = folder / _files.RESULT
    if path not in _said:
      _said.add(path)
      _log.warning(
        '%s is not believed (%s): its end is done again', path, error
      )
    return None
  return row


def endings(
  out: pathlib.Path, cells: Sequence[Cell]
) -> list[tuple[pathlib.Path, bool]]:
  """The folders of runs, and whether each has ended well."""
  return [(cell.folder(out), finished(out, cell) is not None) for cell in cells]


def _writer(folder: pathlib.Path, tensorboard: bool) -> MetricWriter:
  if not _devices.is_first():
    return MultiWriter([])
  jsonl = JsonlWriter(folder / _files.METRICS)
  if tensorboard and importlib.util.find_spec('tensorboardX'):
    return MultiWriter([jsonl, TensorBoardWriter(folder / 'tensorboard')])
  return jsonl


def _probe(folder: pathlib.Path, cell: Cell) -> Probe | None:
  if cell.probe_fn is None:
    return None
  writer: MetricWriter = MultiWriter([])
  if _devices.is_first():
    writer = JsonlWriter(folder / _files.PROBE, arrays=True)
  return Probe(fn=cell.probe_fn, every=cell.probe_every, writer=writer)


def run_cell(out: pathlib.Path, cell: Cell, **options: Any) -> dict[str, Any]:
  """Trains one cell, or goes on with it, and measures the best state on test.

  Args:
    out: the study's folder.
    cell: the run.
    **options: those of `cell_steps`.

  Returns:
    The row of ``results.csv``. A run with a non-finite loss gives a row whose
    status says so.
  """
  return drive(cell.step.step, cell_steps(out, cell, **options))


def run_cells(
  out: pathlib.Path, cells: Sequence[Cell], *, mode: str, **options: Any
) -> list[dict[str, Any]]:
  """Trains cells that share a train step as the members of one sweep.

  What they write is what `run_cell` writes for each of them.

  Args:
    out: the study's folder.
    cells: the runs, which differ in their seeds.
    mode: of `mtljax.training.make_sweep`.
    **options: those of `cell_steps`.

  Returns:
    The rows. The time of a run is its share of that of all.
  """
  step = cells[0].step
  sweep = make_sweep(lambda _: step, num_members=len(cells), mode=mode)
  progress = options.pop('progress')
  runs = [
    cell_steps(
      out, cell, progress=progress and i == 0, beside=len(cells), **options
    )
    for i, cell in enumerate(cells)
  ]
  return fit_sweep(sweep, runs)


def cell_steps(
  out: pathlib.Path,
  cell: Cell,
  *,
  num_steps: int,
  steps_per_epoch: int,
  log_every: int,
  batch_size: int,
  select: Callable[[Mapping[str, Any]], float] | None = None,
  tensorboard: bool,
  progress: bool,
  callback: Callable[[int], None] | None = None,
  beside: int = 1,
  inside: Mapping[str, str] | None = None,
) -> Steps:
  """`run_cell` as a generator, like `mtljax.training.fit_steps`.

  Args:
    out: the study's folder.
    cell: the run.
    num_steps: steps to train.
    steps_per_epoch: steps between evaluations.
    log_every: steps between lines of metrics.
    batch_size: examples a step.
    select: from validation metrics to the score of a state, for cells without
      one of their own.
    tensorboard: whether to write TensorBoard files too, where it is installed.
    progress: whether to show a progress bar of this run.
    callback: called with each step, for a bar of the whole study.
    beside: how many runs are trained in the same program, this one included.
    inside: options that stay as they are from here to the run's end.

  Returns:
    A generator that returns the row of ``results.csv``.
  """
  folder = cell.folder(out)
  folder.mkdir(parents=True, exist_ok=True)
  row: dict[str, Any] = {'method': cell.method, 'seed': cell.seed, **cell.facts}
  num_steps = cell.num_steps or num_steps
  steps_per_epoch = cell.steps_per_epoch or steps_per_epoch
  start = time.perf_counter()
  if _devices.is_first():
    (folder / _files.RESULT).unlink(missing_ok=True)
    _identity.begin(folder, inside or {})
  writer = _writer(folder, tensorboard)
  probe = _probe(folder, cell)
  files: dict[str, str] = {}
  try:
    with Checkpointer(folder / 'checkpoints') as checkpointer:
      result = yield from fit_steps(
        cell.init_fn(),
        cell.batches_fn(),
        num_steps=num_steps,
        task_names=cell.tasks,
        log_every=log_every,
        eval_every=steps_per_epoch,
        eval_fn=cell.validate_fn,
        select=cell.select or select,
        writer=writer,
        checkpointer=checkpointer,
        steps_per_epoch=steps_per_epoch,
        progress=progress and _devices.is_first(),
        callback=None if callback is None else lambda step, *_: callback(step),
        probe=probe,
      )
      state = result.state
      if result.best_step not in (None, num_steps):
        state = checkpointer.restore(cell.init_fn(), step=result.best_step)[0]
    test = {k: float(v) for k, v in cell.test_fn(state).items()}
    writer.write(num_steps, test, kind='eval', split='test')
    writer.flush()
    more: Mapping[str, Any] = {}
    if cell.measure_fn is not None:
      more, arrays = cell.measure_fn(state)
      if _devices.is_first():
        path = folder / _files.ARTIFACTS
        _files.write_arrays(path, arrays, name=f'{cell.method}/{cell.seed}')
        files[path.name] = _json.file_digest(path)
    row |= {
      'best_step': result.best_step,
      'validation/score': result.best_score,
      **{f'test/{name}': value for name, value in test.items()},
      **{name: float(value) for name, value in more.items()},
      'wall_time': None
      if result.resumed_from
      else round((time.perf_counter() - start) / beside, 3),
      'steps_per_second': _steps_per_second(folder, batch_size / beside),
      'resumed_from': result.resumed_from,
      'status': OK,
    }
  except NonFiniteLossError as error:
    row |= {'status': str(error)}
  finally:
    writer.close()
    if probe is not None:
      probe.writer.close()
  if _devices.is_first():
    marks = marks_of(writer, probe.writer if probe else None)
    files |= {name: mark['sha256'] for name, mark in marks.items()}
    _files.write_result(folder, row, files)
  return row


def _steps_per_second(folder: pathlib.Path, batch_size: float) -> float | None:
  """The median over the log's lines: compilation and evaluation are outside."""
  if not _devices.is_first():
    return None
  speeds = []
  for line in (folder / _files.METRICS).read_text().splitlines():
    speed = json.loads(line).get('examples_per_second')
    if speed:
      speeds.append(speed / batch_size)
  return round(statistics.median(speeds), 3) if speeds else None


def write_results(out: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  """``results.csv`` of all rows so far, replaced in one piece."""
  _files.write_table(out / _files.TABLE, rows)


def run_grid(
  out: pathlib.Path,
  cells: Sequence[Cell],
  console: rich.console.Console,
  *,
  progress: bool,
  **options: Any,
) -> int:
  """Runs cells one after the other under one bar, those unfinished.

  Args:
    out: the study's folder; it gets ``results.csv`` after every run.
    cells: the runs, each with its own numbers of steps.
    console: where the bar and errors go.
    progress: whether to show the bar.
    **options: those of `cell_steps` that all runs have.

  Returns:
    How many runs failed.
  """
  rows, failed = [], 0
  total = sum(cell.num_steps or 0 for cell in cells)
  with GridProgress(total, console, progress) as bar:
    for number, cell in enumerate(cells, start=1):
      row = finished(out, cell)
      if row is None:
        bar.start(f'[{number}/{len(cells)}] {cell.method}, seed {cell.seed}')
        row = run_cell(
          out,
          cell,
          num_steps=cell.num_steps,
          steps_per_epoch=cell.steps_per_epoch,
          progress=False,
          callback=bar.step,
          **options,
        )
      bar.finish(cell.num_steps or 0)
      rows.append(row)
      write_results(out, rows)
      if row['status'] != OK:
        failed += 1
        bar.say(f'error: {cell.method}, seed {cell.seed}: {row["status"]}')
  return failed


class GridProgress:
  """One bar for all runs of a study in a terminal, a line a run elsewhere."""

  def __init__(self, total: int, console: rich.console.Console, enabled: bool):
    self._console = console
    self._bar = None
    self._done = 0
    if enabled and console.is_terminal:
      self._bar = rich.progress.Progress(
        rich.progress.TextColumn(
          'step {task.completed:,.0f}/{task.total:,.0f}'
        ),
        rich.progress.BarColumn(),
        rich.progress.TimeRemainingColumn(),
        rich.progress.TextColumn('{task.description}', markup=False),
        console=console,
      )
      self._task = self._bar.add_task('', total=total)

  def __enter__(self) -> GridProgress:
    if self._bar is not None:
      self._bar.start()
    return self

  def __exit__(self, *error: Any) -> None:
    if self._bar is not None:
      self._bar.stop()

  def start(self, text: str) -> None:
    """Shows the run that begins."""
    if self._bar is not None:
      self._bar.update(self._task, description=text)
    else:
      self.say(text)

  def step(self, step: int) -> None:
    """Moves the bar to a step of the run."""
    if self._bar is not None:
      self._bar.update(self._task, completed=self._done + step)

  def finish(self, steps: int) -> None:
    """Counts a run of so many steps as done."""
    self._done += steps
    self.step(0)

  def say(self, text: str) -> None:
    """Prints a line above the bar."""
    self._console.print(text, markup=False, highlight=False)

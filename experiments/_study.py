"""Running the cells of a study: a method and a seed each, resumable."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import json
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from mtljax.training import (
  Checkpointer,
  JsonlWriter,
  MetricWriter,
  MultiWriter,
  NonFiniteLossError,
  TensorBoardWriter,
  TrainState,
  fit,
)

OK = 'ok'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
  """What one run of a study needs.

  Attributes:
    method: its name, as in the folder and the table.
    seed: its seed.
    tasks: the names of its tasks.
    step_fn: the jitted step.
    init_fn: ``init_fn() -> TrainState``.
    batches_fn: ``batches_fn() -> iterator`` with ``get_state``, ``set_state``.
    validate_fn: from a state to validation metrics.
    test_fn: from a state to test metrics.
  """

  method: str
  seed: int
  tasks: tuple[str, ...]
  step_fn: Callable[..., Any]
  init_fn: Callable[[], TrainState]
  batches_fn: Callable[[], Any]
  validate_fn: Callable[[TrainState], Mapping[str, Any]]
  test_fn: Callable[[TrainState], Mapping[str, Any]]

  def folder(self, out: pathlib.Path) -> pathlib.Path:
    """Where this run keeps its files."""
    return out / 'runs' / self.method / f'seed_{self.seed}'


def finished(out: pathlib.Path, cell: Cell) -> dict[str, Any] | None:
  """The row of a run that has ended well, or None.

  The folder's configuration is that of all its runs: `open_run` saw to it.
  """
  try:
    row = json.loads((cell.folder(out) / 'result.json').read_text())
  except (OSError, ValueError):
    return None
  return row if row.get('status') == OK else None


def _write_json(path: pathlib.Path, value: Any) -> None:
  temporary = path.with_suffix('.tmp')
  temporary.write_text(json.dumps(value, indent=2) + '\n')
  os.replace(temporary, path)


def _writer(folder: pathlib.Path, tensorboard: bool) -> MetricWriter:
  jsonl = JsonlWriter(folder / 'metrics.jsonl')
  if tensorboard and importlib.util.find_spec('tensorboardX'):
    return MultiWriter([jsonl, TensorBoardWriter(folder / 'tensorboard')])
  return jsonl


def run_cell(
  out: pathlib.Path,
  cell: Cell,
  *,
  num_steps: int,
  steps_per_epoch: int,
  log_every: int,
  batch_size: int,
  select: Callable[[Mapping[str, Any]], float],
  tensorboard: bool,
  progress: bool,
) -> dict[str, Any]:
  """Trains one cell, or goes on with it, and measures the best state on test.

  Args:
    out: the study's folder.
    cell: the run.
    num_steps: steps to train.
    steps_per_epoch: steps between evaluations.
    log_every: steps between lines of metrics.
    batch_size: examples a step.
    select: from validation metrics to the score of a state.
    tensorboard: whether to write TensorBoard files too, where it is installed.
    progress: whether to show a progress bar.

  Returns:
    The row of ``results.csv``. A run with a non-finite loss gives a row whose
    status says so.
  """
  folder = cell.folder(out)
  folder.mkdir(parents=True, exist_ok=True)
  row: dict[str, Any] = {'method': cell.method, 'seed': cell.seed}
  start = time.perf_counter()
  writer = _writer(folder, tensorboard)
  try:
    with Checkpointer(folder / 'checkpoints') as checkpointer:
      result = fit(
        cell.step_fn,
        cell.init_fn(),
        cell.batches_fn(),
        num_steps=num_steps,
        task_names=cell.tasks,
        log_every=log_every,
        eval_every=steps_per_epoch,
        eval_fn=cell.validate_fn,
        select=select,
        writer=writer,
        checkpointer=checkpointer,
        steps_per_epoch=steps_per_epoch,
        progress=progress,
      )
      state = result.state
      if result.best_step not in (None, num_steps):
        state = checkpointer.restore(cell.init_fn(), step=result.best_step)[0]
    test = {k: float(v) for k, v in cell.test_fn(state).items()}
    writer.write(num_steps, test, kind='eval', split='test')
    writer.flush()
    row |= {
      'best_step': result.best_step,
      'validation/score': result.best_score,
      **{f'test/{name}': value for name, value in test.items()},
      'wall_time': None
      if result.resumed_from
      else round(time.perf_counter() - start, 3),
      'steps_per_second': _steps_per_second(folder, batch_size),
      'resumed_from': result.resumed_from,
      'status': OK,
    }
  except NonFiniteLossError as error:
    row |= {'status': str(error)}
  finally:
    writer.close()
  _write_json(folder / 'result.json', row)
  return row


def _steps_per_second(folder: pathlib.Path, batch_size: int) -> float | None:
  """The median over the log's lines: compilation and evaluation are outside."""
  speeds = []
  for line in (folder / 'metrics.jsonl').read_text().splitlines():
    speed = json.loads(line).get('examples_per_second')
    if speed:
      speeds.append(speed / batch_size)
  return round(statistics.median(speeds), 3) if speeds else None


def write_results(out: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  """``results.csv`` of all rows so far, replaced in one piece."""
  columns = list(dict.fromkeys(name for row in rows for name in row))
  if 'status' in columns:
    columns.remove('status')
    columns.append('status')
  temporary = out / 'results.csv.tmp'
  with temporary.open('w', newline='') as file:
    table = csv.DictWriter(file, columns)
    table.writeheader()
    table.writerows(rows)
  os.replace(temporary, out / 'results.csv')

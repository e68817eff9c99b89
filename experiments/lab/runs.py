"""The runs of a study: a method and a seed each, resumable."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import logging
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import rich.console

from experiments.lab import devices, identity
from experiments.lab.progress import GridProgress
from experiments.report import files as run_files
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
  fit_steps,
  fit_sweep,
  make_sweep,
)
from mtljax.training.disk import _json
from mtljax.training.disk.writers import marks_of
from mtljax.training.loop.lockstep import Steps, drive

OK = 'ok'

_log = logging.getLogger(__name__)
_said: set[pathlib.Path] = set()


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSpec:
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
    adapt_fn: from a state and the score of its validation to the state that
      training goes on with; None: the same.
    probe_fn: measured inside training, see `mtljax.training.Probe`; what it
      returns goes to ``probe.jsonl``. None measures nothing.
    probe_every: steps between these measurements.
    num_steps: steps to train; None: as many as the study says.
    steps_per_epoch: steps between evaluations; None likewise.
    batch_size: examples that `fit` counts in a step; None likewise.
    select: from validation metrics to the score of a state; None: the study's.
    last_epochs: the result is the mean over the test metrics of so many
      evaluations, the last ones, and no state is selected; 0: it is that of the
      selected state.
    facts: columns that the row has besides those measured.
    build: from ``hparams`` to the train step, where the runs of a group differ
      in numbers; None: they all have ``step``.
    hparams: this run's numbers, see `mtljax.training.make_sweep`.
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
  adapt_fn: Callable[[TrainState, float], TrainState] | None = None
  probe_fn: Callable[[TrainState, Any], Mapping[str, Any]] | None = None
  probe_every: int = 5
  num_steps: int | None = None
  steps_per_epoch: int | None = None
  batch_size: int | None = None
  select: Callable[[Mapping[str, Any]], float] | None = None
  last_epochs: int = 0
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  build: Callable[[dict[str, Any]], TrainStep] | None = None
  hparams: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def folder(self, out: pathlib.Path) -> pathlib.Path:
    """Where this run keeps its files."""
    return out / 'runs' / self.method / f'seed_{self.seed}'


def finished(out: pathlib.Path, spec: RunSpec) -> dict[str, Any] | None:
  """The row of a run that has ended well, or None.

  The folder's configuration is that of all its runs: `open_run` saw to it. A
  result that is damaged is named, and its run gone on with.
  """
  folder = spec.folder(out)
  try:
    row, files = run_files.read_result(folder, spec.method, spec.seed)
    if row.get('status') != OK:
      return None
    damaged = list(run_files.changed(folder, files))
    if run_files.ARTIFACTS in damaged:
      raise ValueError(f'{run_files.ARTIFACTS} is not as it was then')
  except FileNotFoundError:
    return None
  except (OSError, ValueError) as error:
    path = folder / run_files.RESULT
    if path not in _said:
      _said.add(path)
      _log.warning(
        '%s is not believed (%s): its end is done again', path, error
      )
    return None
  return row


def endings(
  out: pathlib.Path, specs: Sequence[RunSpec]
) -> list[tuple[pathlib.Path, bool]]:
  """The folders of runs, and whether each has ended well."""
  return [(spec.folder(out), finished(out, spec) is not None) for spec in specs]


def _writer(folder: pathlib.Path, tensorboard: bool) -> MetricWriter:
  if not devices.is_first():
    return MultiWriter([])
  jsonl = JsonlWriter(folder / run_files.METRICS)
  if tensorboard and importlib.util.find_spec('tensorboardX'):
    return MultiWriter([jsonl, TensorBoardWriter(folder / 'tensorboard')])
  return jsonl


def _probe(folder: pathlib.Path, spec: RunSpec) -> Probe | None:
  if spec.probe_fn is None:
    return None
  writer: MetricWriter = MultiWriter([])
  if devices.is_first():
    writer = JsonlWriter(folder / run_files.PROBE, arrays=True)
  return Probe(fn=spec.probe_fn, every=spec.probe_every, writer=writer)


def run_spec(
  out: pathlib.Path, spec: RunSpec, **options: Any
) -> dict[str, Any]:
  """Trains one run, or goes on with it, and measures the best state on test.

  Args:
    out: the study's folder.
    spec: the run.
    **options: those of `spec_steps`.

  Returns:
    The row of ``results.csv``. A run with a non-finite loss gives a row whose
    status says so.
  """
  return drive(spec.step.step, spec_steps(out, spec, **options))


def run_specs(
  out: pathlib.Path, specs: Sequence[RunSpec], *, mode: str, **options: Any
) -> list[dict[str, Any]]:
  """Trains runs that share a train step as the members of one sweep.

  What they write is what `run_spec` writes for each of them.

  Args:
    out: the study's folder.
    specs: the runs, which differ in their seeds, or in numbers too.
    mode: of `mtljax.training.make_sweep`.
    **options: those of `spec_steps`.

  Returns:
    The rows. The time of a run is its share of that of all.

  Raises:
    ValueError: they differ in which numbers they have.
  """
  step = specs[0].step
  named = {x.method: sorted(x.hparams) for x in specs}
  if len({tuple(x) for x in named.values()}) > 1:
    raise ValueError(
      f'specs: their hparams are {named}; runs of one program have the same.'
    )
  sweep = make_sweep(
    specs[0].build or (lambda _: step),
    {name: [x.hparams[name] for x in specs] for name in specs[0].hparams},
    num_members=len(specs),
    mode=mode,
  )
  runs = [spec_steps(out, spec, beside=len(specs), **options) for spec in specs]
  return fit_sweep(sweep, runs)


def spec_steps(
  out: pathlib.Path,
  spec: RunSpec,
  *,
  num_steps: int,
  steps_per_epoch: int,
  log_every: int,
  batch_size: int,
  select: Callable[[Mapping[str, Any]], float] | None = None,
  tensorboard: bool,
  callback: Callable[[int], None] | None = None,
  beside: int = 1,
  inside: Mapping[str, str] | None = None,
) -> Steps:
  """`run_spec` as a generator, like `mtljax.training.fit_steps`.

  Args:
    out: the study's folder.
    spec: the run.
    num_steps: steps to train.
    steps_per_epoch: steps between evaluations.
    log_every: steps between lines of metrics.
    batch_size: examples a step.
    select: from validation metrics to the score of a state, for specs without
      one of their own.
    tensorboard: whether to write TensorBoard files too, where it is installed.
    callback: called with each step, for a bar of the whole study.
    beside: how many runs are trained in the same program, this one included.
    inside: options that stay as they are from here to the run's end.

  Returns:
    A generator that returns the row of ``results.csv``.
  """
  folder = spec.folder(out)
  folder.mkdir(parents=True, exist_ok=True)
  row: dict[str, Any] = {'method': spec.method, 'seed': spec.seed, **spec.facts}
  num_steps = spec.num_steps or num_steps
  steps_per_epoch = spec.steps_per_epoch or steps_per_epoch
  # The first step whose test metrics count.
  from_step = num_steps - (spec.last_epochs - 1) * steps_per_epoch
  batch_size = spec.batch_size or batch_size
  score, adapt = spec.select or select, None
  if spec.adapt_fn is not None:
    if score is None:
      raise ValueError('adapt_fn needs select, whose score it is told')
    adapt = lambda state, found: spec.adapt_fn(state, score(found))
  start = time.perf_counter()
  if devices.is_first():
    (folder / run_files.RESULT).unlink(missing_ok=True)
    identity.begin(folder, inside or {})
  writer = _writer(folder, tensorboard)
  probe = _probe(folder, spec)
  files: dict[str, str] = {}
  try:
    with Checkpointer(folder / 'checkpoints') as checkpointer:
      result = yield from fit_steps(
        spec.init_fn(),
        spec.batches_fn(),
        num_steps=num_steps,
        task_names=spec.tasks,
        log_every=log_every,
        eval_every=steps_per_epoch,
        eval_fn=functools.partial(_evaluate, spec, writer, from_step),
        select=None if spec.last_epochs else score,
        adapt_fn=adapt,
        writer=writer,
        checkpointer=checkpointer,
        steps_per_epoch=steps_per_epoch,
        progress=False,
        callback=None if callback is None else lambda step, *_: callback(step),
        probe=probe,
      )
      state = result.state
      if result.best_step not in (None, num_steps):
        state = checkpointer.restore(spec.init_fn(), step=result.best_step)[0]
    if spec.last_epochs:
      test = _mean_over_tests(folder, from_step)
    else:
      test = {k: float(v) for k, v in spec.test_fn(state).items()}
      writer.write(num_steps, test, kind='eval', split='test')
    writer.flush()
    more: Mapping[str, Any] = {}
    if spec.measure_fn is not None:
      more, arrays = spec.measure_fn(state)
      if devices.is_first():
        path = folder / run_files.ARTIFACTS
        run_files.write_arrays(path, arrays, name=f'{spec.method}/{spec.seed}')
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
  if devices.is_first():
    marks = marks_of(writer, probe.writer if probe else None)
    files |= {name: mark['sha256'] for name, mark in marks.items()}
    run_files.write_result(folder, row, files)
  return row


def _evaluate(
  spec: RunSpec, writer: MetricWriter, from_step: int, state: TrainState
) -> Mapping[str, Any]:
  """Validation metrics; of the last epochs those of test are written too."""
  if spec.last_epochs and int(state.step) >= from_step:
    test = {k: float(v) for k, v in spec.test_fn(state).items()}
    writer.write(int(state.step), test, kind='eval', split='test')
  return spec.validate_fn(state)


def _mean_over_tests(folder: pathlib.Path, from_step: int) -> dict[str, float]:
  """The mean over the lines of test metrics from a step on."""
  if not devices.is_first():
    return {}
  lines = [
    line
    for text in (folder / run_files.METRICS).read_text().splitlines()
    if (line := _json.loads(text)).get('split') == 'test'
    and line['step'] >= from_step
  ]
  return {
    name: statistics.fmean(float(line[name]) for line in lines)
    for name in lines[-1]
    if name not in ('kind', 'split', 'step')
  }


def _steps_per_second(folder: pathlib.Path, batch_size: float) -> float | None:
  """The median over the log's lines: compilation and evaluation are outside."""
  if not devices.is_first():
    return None
  speeds = []
  for line in (folder / run_files.METRICS).read_text().splitlines():
    speed = json.loads(line).get('examples_per_second')
    if speed:
      speeds.append(speed / batch_size)
  return round(statistics.median(speeds), 3) if speeds else None


def run_grid(
  out: pathlib.Path,
  groups: Sequence[Sequence[RunSpec]],
  console: rich.console.Console,
  *,
  mode: str,
  progress: bool,
  num_steps: int | None = None,
  steps_per_epoch: int | None = None,
  **options: Any,
) -> int:
  """Trains what is unfinished, group by group, under one bar.

  Args:
    out: the study's folder; it gets ``results.csv`` after every group.
    groups: the runs; those of a group are trained in one program.
    console: where the bar and errors go.
    mode: how the runs of a group share a program, see
      `mtljax.training.make_sweep`.
    progress: whether to show the bar.
    num_steps: of runs that do not say.
    steps_per_epoch: of runs that do not say.
    **options: those of `spec_steps` that all runs have.

  Returns:
    How many runs failed.
  """
  rows: list[dict[str, Any]] = []
  failed = 0
  total = sum(len(group) for group in groups)
  length = lambda run: run.num_steps or num_steps or 0
  steps = sum(length(run) for group in groups for run in group)
  every_task = {task for group in groups for run in group for task in run.tasks}
  with GridProgress(steps, console, progress) as bar:
    for group in groups:
      found = [finished(out, run) for run in group]
      todo = [r for r, row in zip(group, found, strict=True) if row is None]
      for i, run in enumerate(group):
        if run in todo:
          place = f'[{len(rows) + i + 1}/{total}]'
          bar.start(f'{place} {run.method}, seed {run.seed}')
      new = iter(
        _train(
          out,
          todo,
          mode=mode,
          num_steps=num_steps,
          steps_per_epoch=steps_per_epoch,
          callback=functools.partial(_advance, bar, len(todo)),
          **options,
        )
      )
      for run, row in zip(group, found, strict=True):
        rows.append(next(new) if row is None else row)
        # Scores of fewer tasks are of something else.
        competes = set(run.tasks) == every_task
        bar.finish(length(run), rows[-1] if competes else None)
        if rows[-1]['status'] != OK:
          failed += 1
          bar.say(f'error: {run.method}, seed {run.seed}: {rows[-1]["status"]}')
      if devices.is_first():
        run_files.write_table(out / run_files.TABLE, rows)
  return failed


def _advance(bar: GridProgress, count: int, step: int) -> None:
  bar.step(step * count)


def _train(
  out: pathlib.Path, todo: Sequence[RunSpec], *, mode: str, **options: Any
) -> list[dict[str, Any]]:
  """The rows of runs that are trained together; none for none."""
  if len(todo) > 1:
    return run_specs(out, todo, mode=mode, **options)
  return [run_spec(out, run, **options) for run in todo]

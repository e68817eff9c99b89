"""The loop around a jitted step: data in, metrics and checkpoints out."""

from __future__ import annotations

import dataclasses
import math
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from mtljax.training._preempt import Preempted, Preemption
from mtljax.training.disk.checkpoint import Checkpointer
from mtljax.training.disk.writers import Marks, MetricWriter, marks_of, truncate
from mtljax.training.loop._finite import (
  NonFiniteLossError,
  check_state,
  with_advice,
)
from mtljax.training.loop._progress import Progress
from mtljax.training.loop._window import Window
from mtljax.training.loop.lockstep import Asked, Steps, drive, holding
from mtljax.training.step.state import TrainState

#: Metrics that no two runs share, however equal.
TIMING = ('examples_per_second',)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitResult:
  """What a run ended with.

  Attributes:
    state: the state after the last step.
    best_score: the best value of ``select``, or None.
    best_step: the step of the best value, or None.
    eval_metrics: the last evaluation.
    resumed_from: the step that the run was resumed at, or None.
    skipped: messages on damaged checkpoints that were passed over.
  """

  state: TrainState
  best_score: float | None
  best_step: int | None
  eval_metrics: Mapping[str, Any]
  resumed_from: int | None
  skipped: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
  """A measurement inside training: on the state and batch of a step.

  The first step is measured, then every so many. Values are held on the device
  until the next line of metrics. Resuming drops those of steps that are taken
  again, so none is there twice.

  Attributes:
    fn: ``(state, batch) -> arrays by name``, the state before the step; it must
      not keep or donate it.
    every: steps between measurements.
    writer: where the arrays go, at the number of the step that they precede.
  """

  fn: Callable[[TrainState, Any], Mapping[str, Any]]
  every: int
  writer: MetricWriter

  def __post_init__(self):
    if self.every < 1:
      raise ValueError(f'every={self.every} has to be at least 1')


def fit(
  step_fn: Callable[[TrainState, Any], tuple[TrainState, Mapping[str, Any]]],
  state: TrainState,
  batches: Iterator[Any],
  *,
  num_steps: int,
  task_names: Sequence[str],
  log_every: int = 100,
  eval_every: int | None = None,
  eval_fn: Callable[[TrainState], Mapping[str, Any]] | None = None,
  select: Callable[[Mapping[str, Any]], float] | None = None,
  adapt_fn: Callable[[TrainState, Mapping[str, float]], TrainState]
  | None = None,
  writer: MetricWriter | None = None,
  checkpointer: Checkpointer | None = None,
  steps_per_epoch: int | None = None,
  progress: bool = True,
  callback: Callable[[int, TrainState, Mapping[str, Any]], None] | None = None,
  probe: Probe | None = None,
) -> FitResult:
  """Trains until ``num_steps``, from the newest checkpoint if there is one.

  A line of training metrics (means since the line before) is written every
  ``log_every`` steps and at each evaluation; evaluations, with a checkpoint
  after each, happen every ``eval_every`` steps and at the end. A run that was
  killed and resumed ends in the same bits and writes the same lines as one
  that was not, but for `TIMING`. Between lines the loop does not wait for the
  device.

  With a checkpointer, SIGTERM (a machine about to be taken away) or Ctrl-C ends
  the step under way, saves a checkpoint between evaluations too, and raises
  `Preempted`, which ends the program with status 143 or 130; a second Ctrl-C
  stops at once. Without one they are as fatal as ever.

  Args:
    step_fn: ``(state, batch) -> (state, metrics)``, jitted, adding one to
      ``state.step``; it may donate the state. Metrics are arrays: ``losses``
      (T,), and any other scalars, (T,) or (T, T) arrays (of which the pairs
      above the diagonal are written). With ``present`` (T,), as of steps on a
      `mtljax.MaskedBatch`, means are over the steps that a task, or both of a
      pair, are in, and a task that is in none has no entry in that line.
    state: the initial state (given up to ``step_fn``).
    batches: an iterator; with a checkpointer it needs grain's ``get_state`` and
      ``set_state``. Axis 0 of the first leaf counts the examples.
    num_steps: the step to end at.
    task_names: the T names.
    log_every: steps between lines of training metrics.
    eval_every: steps between evaluations; None means only at the end.
    eval_fn: ``state -> scalars by name``, on the validation data.
    select: from these scalars to the score of the best checkpoint; larger is
      better unless the checkpointer says otherwise.
    adapt_fn: from the state and these scalars to the state that training goes
      on with and that is saved, such as one with a smaller learning rate; of
      the same structure.
    writer: where the metrics go.
    checkpointer: where the states go, and where a run is resumed from.
    steps_per_epoch: if given, lines have ``epoch``, a fraction.
    progress: whether to show progress, on stderr.
    callback: called after every step with the step, the state and its metrics;
      arrays that it reads make it wait, and it must not keep the state.
    probe: what is measured before every so many steps, on their batches.

  Returns:
    The last state, the best score, and how the run was resumed.

  Raises:
    NonFiniteLossError: a loss is not finite; it names task and step. The last
      checkpoint is of an earlier step.
    CheckpointError: a checkpoint cannot be written, or none is whole.
    Preempted: SIGTERM or Ctrl-C came, and the state is saved.
    ValueError: the batches ended early, an argument is out of range, or
      ``adapt_fn`` changed the state's structure.
    TypeError: the iterator cannot be resumed.

  >>> import jax.numpy as jnp, optax
  >>> optimizer = optax.sgd(0.5)
  >>> def task_losses(params, batch):
  ...   return jnp.stack([jnp.mean((params - batch) ** 2), params**2])
  >>> @jax.jit
  ... def step_fn(state, batch):
  ...   total = lambda p: jnp.sum(task_losses(p, batch))
  ...   updates, opt_state = optimizer.update(
  ...     jax.grad(total)(state.params), state.opt_state
  ...   )
  ...   metrics = {'losses': task_losses(state.params, batch)}
  ...   params = optax.apply_updates(state.params, updates)
  ...   state = dataclasses.replace(
  ...     state, step=state.step + 1, params=params, opt_state=opt_state
  ...   )
  ...   return state, metrics
  >>> params = jnp.float32(2.0)
  >>> state = TrainState(
  ...   step=jnp.int32(0),
  ...   params=params,
  ...   model_state={},
  ...   opt_state=optimizer.init(params),
  ...   method_state=(),
  ...   key=jax.random.key(0),
  ... )
  >>> result = fit(
  ...   step_fn,
  ...   state,
  ...   iter([jnp.ones(4)] * 3),
  ...   num_steps=3,
  ...   task_names=['near one', 'near zero'],
  ...   progress=False,
  ... )
  >>> int(result.state.step)
  3
  """
  run = fit_steps(
    state,
    batches,
    num_steps=num_steps,
    task_names=task_names,
    log_every=log_every,
    eval_every=eval_every,
    eval_fn=eval_fn,
    select=select,
    adapt_fn=adapt_fn,
    writer=writer,
    checkpointer=checkpointer,
    steps_per_epoch=steps_per_epoch,
    progress=progress,
    callback=callback,
    probe=probe,
  )
  return drive(step_fn, run)


def fit_steps(
  state: TrainState,
  batches: Iterator[Any],
  *,
  num_steps: int,
  task_names: Sequence[str],
  log_every: int = 100,
  eval_every: int | None = None,
  eval_fn: Callable[[TrainState], Mapping[str, Any]] | None = None,
  select: Callable[[Mapping[str, Any]], float] | None = None,
  adapt_fn: Callable[[TrainState, Mapping[str, float]], TrainState]
  | None = None,
  writer: MetricWriter | None = None,
  checkpointer: Checkpointer | None = None,
  steps_per_epoch: int | None = None,
  progress: bool = True,
  callback: Callable[[int, TrainState, Mapping[str, Any]], None] | None = None,
  probe: Probe | None = None,
) -> Steps:
  """`fit` as a generator, which asks for its steps instead of taking them.

  Several of them share one program in `mtljax.training.fit_sweep`. It yields
  ``(get_state, batch)`` and is sent ``(get_state, metrics)``;
  ``get_state()`` is the state after the step, asked for to evaluate and
  save and not at every step. The arguments are those of `fit`.

  Returns:
    A generator that returns the `FitResult`.

  Raises:
    Exception: as `fit` does.
  """
  _validate(num_steps, log_every, eval_every, task_names)
  seen = _Seen(best={'score': None, 'step': None}, evaluation={})
  if checkpointer is not None:
    writers = (writer, probe.writer if probe else None)
    state, seen = _resume(checkpointer, state, batches, writers, seen)
  start = int(state.step)
  if start > num_steps:
    raise ValueError(
      f'num_steps={num_steps} has passed: the checkpoint is of step {start}; '
      'raise num_steps or choose another directory'
    )

  def write(step: int, scalars: Mapping[str, Any], **tags: str) -> None:
    if writer is not None:
      epoch = {'epoch': step / steps_per_epoch} if steps_per_epoch else {}
      writer.write(step, epoch | dict(scalars), **tags)

  measured: list[tuple[int, Mapping[str, Any]]] = []

  def write_measured() -> None:
    if not measured:
      return  # nothing to wait for
    for step, values in jax.device_get(measured):
      epoch = {'epoch': step / steps_per_epoch} if steps_per_epoch else {}
      probe.writer.write(step, epoch | dict(values), kind='probe')
    measured.clear()

  def evaluate_and_save(step: int) -> None:
    nonlocal state
    check_state(state, step)
    score = None
    if eval_fn is not None:
      scalars = jax.device_get(dict(eval_fn(state)))
      write(step, scalars, kind='eval', split='validation')
      seen.evaluation = {name: float(x) for name, x in scalars.items()}
      if select is not None:
        score = float(select(seen.evaluation))
        if _better(score, seen.best['score'], checkpointer):
          seen.best = {'score': score, 'step': step}
      if adapt_fn is not None:
        state = _alike(state, adapt_fn(state, seen.evaluation))
    if writer is not None:
      writer.flush()
    save(step, score=score)

  def save(step: int, *, score: float | None = None, **more: Any) -> None:
    if checkpointer is not None:
      checkpointer.save(
        step,
        state,
        data_state=batches.get_state(),  # pyrefly: ignore[missing-attribute]
        meta={
          'best': seen.best,
          'evaluation': seen.evaluation,
          **more,
        },
        written=marks_of(writer, probe.writer if probe else None),
        score=score,
      )

  window = Window(task_names, seen.window)
  get_state = holding(state)
  try:
    with (
      Progress(num_steps, start, progress) as bar,
      Preemption(checkpointer is not None) as preemption,
    ):
      for step in range(start + 1, num_steps + 1):
        batch = _next(batches, step, num_steps)
        if probe is not None and (step - 1) % probe.every == 0:
          measured.append((step, probe.fn(get_state(), batch)))
        get_state, metrics = yield Asked(get_state, batch)
        window.add(step, metrics, jax.tree.leaves(batch)[0].shape[0])
        bar.advance(step)
        if callback is not None:
          callback(step, get_state(), metrics)
        evaluate = step == num_steps or step % (eval_every or num_steps) == 0
        if evaluate or step % log_every == 0:
          line = window.means()
          write(step, line, kind='train')
          bar.show(step, line)
          write_measured()
        elif step == start + 1:
          jax.block_until_ready(metrics)
          window.restart_clock()
        if evaluate:
          state = get_state()
          evaluate_and_save(step)
          get_state = holding(state) if adapt_fn is not None else get_state
          window.reset()
        if checkpointer is not None and preemption.noticed():
          if not evaluate:
            state = get_state()
            # With the metrics of the line under way, for the same lines after.
            line = window.get_state()
            check_state(state, step)
            write_measured()
            save(step, window=line)
          checkpointer.wait()
          number = preemption.signal or signal.SIGTERM
          raise Preempted(step, checkpointer.directory, number)
  except NonFiniteLossError as error:
    raise with_advice(error, checkpointer) from None
  if checkpointer is not None:
    checkpointer.wait()
  return FitResult(
    state=get_state(),
    best_score=seen.best['score'],
    best_step=seen.best['step'],
    eval_metrics=seen.evaluation,
    resumed_from=seen.resumed_from,
    skipped=seen.skipped,
  )


@dataclasses.dataclass
class _Seen:
  """What the loop remembers besides the state."""

  best: dict[str, Any]
  evaluation: dict[str, float]
  window: dict[str, Any] | None = None
  written: Marks | None = None
  resumed_from: int | None = None
  skipped: tuple[str, ...] = ()


def _resume(
  checkpointer: Checkpointer,
  state: TrainState,
  batches: Any,
  writers: Sequence[MetricWriter | None],
  seen: _Seen,
) -> tuple[TrainState, _Seen]:
  """State, data and metrics as they were at the newest whole checkpoint."""
  if not hasattr(batches, 'set_state'):
    raise TypeError(
      f'batches={batches!r} has no get_state and set_state, so a resumed run '
      'could not go on at its place in the data: pass a grain iterator, or '
      'checkpointer=None'
    )
  if checkpointer.latest_step() is not None:
    state, data_state, meta = checkpointer.restore(state)
    batches.set_state(data_state)
    seen = _Seen(
      **meta,
      written=checkpointer.written,
      resumed_from=int(state.step),
      skipped=tuple(checkpointer.skipped),
    )
  for writer in writers:
    if writer is not None:
      truncate(writer, int(state.step), seen.written)
  return state, seen


def _validate(
  num_steps: int,
  log_every: int,
  eval_every: int | None,
  task_names: Sequence[str],
) -> None:
  every = 1 if eval_every is None else eval_every
  for name, value in [
    ('num_steps', num_steps),
    ('log_every', log_every),
    ('eval_every', every),
  ]:
    if value < 1:
      raise ValueError(f'{name}={value} has to be at least 1')
  if isinstance(task_names, str) or len(set(task_names)) < len(task_names):
    raise ValueError(f'task_names={task_names!r} has to be distinct names')


def _alike(state: TrainState, adapted: TrainState) -> TrainState:
  if jax.tree.structure(state) != jax.tree.structure(adapted):
    raise ValueError(
      'adapt_fn returned a state of another structure than the one it got: '
      'change its numbers only'
    )
  return adapted


def _next(batches: Iterator[Any], step: int, num_steps: int) -> Any:
  try:
    return next(batches)
  except StopIteration:
    raise ValueError(
      f'batches ended before step {step} of num_steps={num_steps}: repeat the '
      'data, or ask for fewer steps'
    ) from None


def _better(
  score: float, best: float | None, checkpointer: Checkpointer | None
) -> bool:
  if best is None or math.isnan(score):
    return not math.isnan(score)
  higher = checkpointer is None or checkpointer.higher_is_better
  return score > best if higher else score < best

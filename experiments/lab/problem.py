"""Loss and measurements of a network on a suite, compiled once for all runs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

import mtljax as mtl
from experiments.lab.suite import Data, Network, Suite, Widths
from experiments.lab.task import Task
from mtljax import data as readers
from mtljax import models
from mtljax.training import TrainState, TrainStep

EVAL_BATCH = Data.eval_batch


@dataclasses.dataclass(frozen=True)
class Problem:
  """What runs of all methods on the same tasks share.

  Attributes:
    tasks: the names of its tasks.
    model: the network.
    sharings: of its parameters, by a convention of the network.
    loss: of a train step with ``has_state=True``.
    init: from a key to parameters and model state.
    measure: ``measure(params, model_state, batch)``: mergeable metrics of a
      batch with a mask, jitted.
    evaluate: ``evaluate(state, split)``: metrics over a split.
    probe: ``probe(state)``: cosines between task gradients on a fixed batch.
    predict: ``predict(state, batch)``: outputs by task, jitted.
  """

  tasks: tuple[str, ...]
  model: models.MultiTaskModel
  sharings: models.Sharings
  loss: mtl.Staged
  init: Callable[[jax.Array], tuple[Any, Any]]
  measure: Callable[..., dict[str, Any]]
  evaluate: Callable[..., dict[str, jax.Array]]
  probe: Callable[..., dict[str, jax.Array]]
  predict: Callable[..., dict[str, jax.Array]]

  @property
  def labels(self) -> Any:
    """Of its parameters, see `mtljax.label_params`."""
    return self.sharings.labels

  def start(self, step: TrainStep, key: jax.Array) -> TrainState:
    """The state of a run before its first step; the key is used up."""
    init_key, key = jax.random.split(key)
    params, model_state = self.init(init_key)
    return step.init(params, key=key, model_state=model_state)


def make_problem(
  suite: Suite,
  data: Data,
  network: Network,
  widths: Widths | None = None,
  *,
  tasks: Sequence[str] | None = None,
  shared: str = '',
  loss_of: Callable[[Task], Any] | None = None,
) -> Problem:
  """The problem of a network on some tasks of a suite.

  Args:
    suite: the tasks.
    data: its data.
    network: one that fits it.
    widths: of its layers.
    tasks: names of those that are trained; None: all.
    shared: a convention of the network on what is shared; its first by default.
    loss_of: the loss of a task, called with outputs and batch; None: the mean
      over the batch.

  Returns:
    The `Problem`.
  """
  chosen = suite.tasks if tasks is None else suite.tasks_of(tasks)
  model = network.make(chosen, widths or Widths())
  one = {name: x[:1] for name, x in data.splits['train'].items()}
  example = jax.eval_shape(data.inputs, one)
  init = jax.jit(lambda key: model.init(key, example))
  shapes, _ = jax.eval_shape(init, jax.random.key(0))
  sharings = model.sharings(shapes, shared)
  losses = [task.loss if loss_of is None else loss_of(task) for task in chosen]
  loss = models.staged_loss(model, losses, data.inputs)
  measure = _make_measure(model, chosen, data)
  return Problem(
    tasks=model.tasks,
    model=model,
    sharings=sharings,
    loss=loss,
    init=init,
    measure=measure,
    evaluate=_make_evaluate(measure, data),
    probe=_make_probe(loss, sharings, model.tasks, data),
    predict=_make_predict(model, data),
  )


def over_batches(
  on_batch: Callable[[Any], Mapping[str, Any]],
  arrays: Mapping[str, np.ndarray],
  batch_size: int = EVAL_BATCH,
) -> dict[str, Any]:
  """The values of mergeable metrics over all examples, some at a time."""
  totals: dict[str, Any] = {}
  for batch in readers.eval_batches(arrays, batch_size):
    found = on_batch(batch)
    totals = {
      name: totals[name].merge(x) if name in totals else x
      for name, x in found.items()
    }
  return {name: x.compute() for name, x in totals.items()}


def _make_measure(
  model: models.MultiTaskModel, tasks: Sequence[Task], data: Data
):
  @jax.jit
  def measure(params, model_state, batch):
    outputs = model.apply(params, model_state, data.inputs(batch))
    found = {}
    for task, output in zip(tasks, outputs, strict=True):
      found |= task.measure(output, batch)
    return found

  return measure


def _make_predict(model: models.MultiTaskModel, data: Data):
  @jax.jit
  def apply(params, model_state, batch):
    outputs = model.apply(params, model_state, data.inputs(batch))
    return dict(zip(model.tasks, outputs, strict=True))

  return lambda state, batch: apply(state.params, state.model_state, batch)


def _make_evaluate(measure: Callable[..., dict[str, Any]], data: Data):
  def evaluate(state, split):
    return over_batches(
      functools.partial(measure, state.params, state.model_state),
      data.splits[split],
      data.eval_batch,
    )

  return evaluate


def _make_probe(
  loss: mtl.Staged,
  sharings: models.Sharings,
  tasks: tuple[str, ...],
  data: Data,
):
  if len(tasks) < 2:
    return lambda state: {}
  batch = {k: v[: data.probe_rows] for k, v in data.splits['train'].items()}
  gramian_fn = mtl.value_and_gramian(
    loss,
    labels=sharings.labels,
    gramian_labels=sharings.gramian_labels,
    has_aux=True,
  )

  @jax.jit
  def cosines(params, model_state, key):
    return mtl.cosines(gramian_fn(params, batch, model_state, key)[1])

  def probe(state):
    matrix = cosines(state.params, state.model_state, state.key)
    return {
      f'cosine/{a},{b}': matrix[i, j]
      for i, a in enumerate(tasks)
      for j, b in enumerate(tasks)
      if i < j
    }

  return probe


SINGLE = 'single_'


def trained_on(name: str, tasks: tuple[str, ...]) -> tuple[str, ...]:
  """The tasks that a method, or a single-task baseline, is trained on."""
  if name.startswith(SINGLE):
    return (name.removeprefix(SINGLE),)
  return tasks

"""What the study measures of a state besides losses and accuracies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mtljax as mtl
from experiments.lab.problem import EVAL_BATCH, Problem
from experiments.lab.suite import Data, Suite
from mtljax import data, diagnostics

RADII = (0.01, 0.05)
SURFACE_POINTS = 13
SURFACE_REACH = 1.0
TRAIN_ROWS = 1024

Scalars = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Probes:
  """Jitted measurements of the states of one problem.

  Attributes:
    conflict: ``conflict(state, train)``: the fraction of batches in which two
      tasks' loss gradients have a negative product, and their mean lengths.
    measure: ``measure(state, train)``: scalars for the row, and arrays.
    surface: ``surface(state, train)``: losses on a filter-normalised plane.
  """

  conflict: Callable[..., Scalars]
  measure: Callable[..., tuple[Scalars, dict[str, Any]]]
  surface: Callable[..., dict[str, Any]]


def make_probes(
  problem: Problem,
  suite: Suite,
  clean: Data,
  other: Mapping[str, np.ndarray],
  *,
  batch_size: int,
  num_batches: int,
) -> Probes:
  """The measurements; each is compiled once for all methods and variants.

  Args:
    problem: losses and labels.
    suite: its tasks, and perhaps others.
    clean: the clean data, whose test split is measured.
    other: inputs of another kind.
    batch_size: examples of a batch whose gradients are compared.
    num_batches: how many batches, as far as the training data go.

  Returns:
    The `Probes`.
  """
  tasks, loss, labels = problem.tasks, problem.loss, problem.labels
  trained = suite.tasks_of(tasks)
  gramian_fn = mtl.value_and_gramian(loss, labels=labels, has_aux=True)

  def named(name, values):
    return {f'{name}/{t}': x for t, x in zip(tasks, values, strict=True)}

  @jax.jit
  def conflict_on(params, model_state, key, batches):
    def one(batch):
      return gramian_fn(params, batch, model_state, key)[1]

    gramians = jax.lax.map(one, batches)
    rate = diagnostics.ConflictRate.from_gramian(gramians).step_rate()
    lengths = jnp.sqrt(jnp.diagonal(gramians, axis1=1, axis2=2)).mean(0)
    return rate, lengths

  def conflict(state, train):
    count = min(num_batches, len(train[tasks[0]]) // batch_size)
    batches = {
      name: x[: count * batch_size].reshape(count, batch_size, *x.shape[1:])
      for name, x in train.items()
    }
    rate, lengths = conflict_on(
      state.params, state.model_state, state.key, batches
    )
    found = named('grad_norm', lengths)
    if len(tasks) > 1:
      found[f'conflict/{",".join(tasks)}'] = rate
    return found

  @jax.jit
  def flatness(params, model_state, key, batch):
    args = (params, batch, model_state, key)
    options = {'labels': labels, 'has_aux': True}
    rises = diagnostics.task_sharpness(loss, *args, radii=RADII, **options)
    flat = diagnostics.flat_gradient_norm(loss, *args, rho=RADII[-1], **options)
    return rises, flat

  @jax.jit
  def predict(params, model_state, batch):
    found = problem.model.apply(params, model_state, clean.inputs(batch))
    outputs = [
      task.class_logits(x) for task, x in zip(trained, found, strict=True)
    ]
    mask = batch['mask']
    entropy = [
      diagnostics.EntropyHistogram.from_logits(x, mask=mask) for x in outputs
    ]
    calibration = [
      diagnostics.Calibration.from_logits(x, batch[t], mask=mask)
      for t, x in zip(tasks, outputs, strict=True)
    ]
    return entropy, calibration

  def over(state, arrays):
    found = None
    for batch in data.eval_batches(arrays, EVAL_BATCH):
      new = predict(state.params, state.model_state, batch)
      found = new if found is None else _merge(found, new)
    return found

  def measure(state, train):
    entropy, calibration = over(state, clean.splits['test'])
    # Without labels of its own; any will do for the one compiled program.
    count = len(next(iter(other.values())))
    unlabelled = dict.fromkeys(suite.task_names, np.zeros(count, np.int32))
    other_entropy, _ = over(state, {**other, **unlabelled})
    batch = {name: x[:TRAIN_ROWS] for name, x in train.items()}
    rises, flat = flatness(state.params, state.model_state, state.key, batch)
    scalars = {
      **named('test/ece', [x.ece() for x in calibration]),
      **named('test/brier', [x.brier() for x in calibration]),
      **named('test/entropy', [x.mean() for x in entropy]),
      **named('other/entropy', [x.mean() for x in other_entropy]),
      **named('train/flat_grad_norm', flat),
    }
    for radius, row in zip(RADII, rises, strict=True):
      scalars |= named(f'train/sharpness_{radius:g}', row)
    for name, x in conflict(state, train).items():
      scalars[f'train/{name}'] = x
    arrays = {'entropy_edges': entropy[0].edges()}
    for t, task in enumerate(tasks):
      confidence, accuracy, count = calibration[t].reliability()
      arrays |= {
        f'confidence/{task}': confidence,
        f'accuracy/{task}': accuracy,
        f'count/{task}': count,
        f'entropy_test/{task}': entropy[t].count,
        f'entropy_other/{task}': other_entropy[t].count,
      }
    return scalars, arrays

  coordinates = np.linspace(-SURFACE_REACH, SURFACE_REACH, SURFACE_POINTS)

  @jax.jit
  def surface_of(params, model_state, key, batch):
    def losses(params):
      grads = mtl.value_and_task_grads(loss, labels=labels, has_aux=True)
      return jnp.mean(grads(params, batch, model_state, key)[0][0])

    directions = [
      diagnostics.filter_normalized(jax.random.key(i), params, labels=labels)
      for i in range(2)
    ]
    return diagnostics.loss_surface(losses, params, directions, coordinates)

  def surface(state, train):
    batch = {name: x[:TRAIN_ROWS] for name, x in train.items()}
    found = surface_of(state.params, state.model_state, state.key, batch)
    return {'surface': found, 'surface_axis': coordinates}

  return Probes(conflict, measure, surface)


def _merge(first: Any, second: Any) -> Any:
  return tuple(
    [x.merge(y) for x, y in zip(xs, ys, strict=True)]
    for xs, ys in zip(first, second, strict=True)
  )

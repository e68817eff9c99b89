"""What is measured in the joint run: one step on a task, or on a pair."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mtljax as mtl
from experiments.lab.problem import Problem
from experiments.lab.suite import Data, Suite
from experiments.studies.grouping import groupings
from experiments.studies.grouping.claims import COSINE, LOOKAHEAD, PROXIMAL
from mtljax import diagnostics

#: ``(params, batch) -> (T,)``
Losses = Callable[[Any, Any], jax.Array]


def task_losses(
  suite: Suite, data: Data, problem: Problem, model_state: Any
) -> Losses:
  """The losses of a batch."""

  def losses(params, batch):
    outputs = problem.model.apply(params, model_state, data.inputs(batch))
    return jnp.stack(
      [
        task.loss(x, batch)[0]
        for task, x in zip(suite.tasks, outputs, strict=True)
      ]
    )

  return losses


def proximal(
  losses: Losses, params: Any, batch: Any, *, learning_rate: float, labels: Any
) -> jax.Array:
  r"""What a step on a pair adds to a task's own step, heads included.

  .. math::
    P_{st} = \frac{L_t(\theta - \eta g^t) - L_t(\theta - \eta (g^s + g^t))}
      {L_t(\theta)}

  After the proximal affinity of groups of *Selective Task Group Updates*, of
  pairs: both tasks move the shared parameters and what they own. To first order
  in the rate it is the lookahead affinity.

  Returns:
    Row s, column t, ``(T, T)``; 0 on the diagonal.
  """
  before, grads = mtl.value_and_task_grads(losses, labels=labels)(params, batch)
  num_tasks = before.shape[0]
  own = jnp.eye(num_tasks)
  pairs = jnp.maximum(own[:, None], own[None]).reshape(-1, num_tasks)

  def after(mask):
    def moved(label, leaf, grad):
      if label == 'shared':
        step = jnp.tensordot(mask, grad, axes=1)
      else:
        step = mask[label] * grad
      return leaf - learning_rate * step

    return losses(jax.tree.map(moved, labels, params, grads), batch)

  found = jax.lax.map(after, pairs).reshape(num_tasks, num_tasks, num_tasks)
  together = jnp.diagonal(found, axis1=1, axis2=2)  # of pair (s, t), task t
  return (jnp.diagonal(together)[None] - together) / before[None]


def make_measure(
  losses: Losses, labels: Any, learning_rate: float
) -> Callable[[Any, Any], dict[str, jax.Array]]:
  """``measure(params, batch)``: each score, row s, column t; jitted.

  Args:
    losses: of `task_losses`.
    labels: of the parameters.
    learning_rate: of the steps that are tried.
  """

  @jax.jit
  def measure(params, batch):
    _, gramian = mtl.value_and_gramian(losses, labels=labels)(params, batch)
    options = {'learning_rate': learning_rate, 'labels': labels}
    return {
      LOOKAHEAD: diagnostics.task_affinity(losses, params, batch, **options),
      PROXIMAL: proximal(losses, params, batch, **options),
      COSINE: mtl.cosines(gramian),
    }

  return measure


def chosen_grouping(affinity: np.ndarray, most: int) -> tuple[int, ...]:
  """The grouping of most affinity, as numbers of groups."""
  found = diagnostics.best_groups(affinity, most)
  return tuple(groupings.group_of(tasks) for tasks in found)

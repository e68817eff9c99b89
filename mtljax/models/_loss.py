"""The staged loss of a model with a trunk and heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from mtljax.gradients import HeadAux, Staged
from mtljax.models._base import MultiTaskModel

TaskLossFn = Callable[[jax.Array, Any], tuple[jax.Array, dict[str, jax.Array]]]


def staged_loss(
  model: MultiTaskModel,
  loss_fns: Sequence[TaskLossFn],
  inputs: Callable[[Any], Any],
) -> Staged:
  """The training loss of a `MultiTaskModel`, trunk and heads apart.

  For ``mtljax.training.make_train_step(..., has_state=True)``: its functions
  take ``(params, ..., batch, model_state, key)``, pass batch statistics on and
  give dropout its key. Where a head has a ``penalty(features)``, as those of
  `dselect_k`, it is added to the loss of its task.

  Args:
    model: the model.
    loss_fns: for each task ``(output, batch) -> (loss, metrics)``: a scalar and
      a dictionary of scalars, with the same names for every task.
    inputs: from a batch to the trunk's input.

  Returns:
    The `mtljax.Staged` loss.

  Raises:
    ValueError: there is not one loss a task.

  Examples:
    >>> import jax, jax.numpy as jnp, mtljax as mtl
    >>> from mtljax import models
    >>> model = models.multi_lenet(tasks=('left', 'right'))
    >>> mean = lambda logits, batch: (jnp.mean(logits ** 2), {})
    >>> loss = models.staged_loss(model, [mean, mean], lambda batch: batch)
    >>> x = jnp.zeros((4, 36, 36, 1))
    >>> params, model_state = model.init(jax.random.key(0), x)
    >>> grad_fn = mtl.value_and_task_grads(loss, has_aux=True)
    >>> (losses, aux), grads = grad_fn(params, x, model_state, None)
    >>> losses.shape, grads['trunk']['fc']['bias'].shape
    ((2,), (2, 50))
  """
  if len(loss_fns) != model.num_tasks:
    raise ValueError(
      f'loss_fns has {len(loss_fns)} losses for the tasks {model.tasks}; give '
      'one a task.'
    )

  def trunk(params, batch, model_state, key):
    return model.apply_trunk(
      params, model_state, inputs(batch), train=True, key=key
    )

  def make_head(t):
    def head(params, features, batch, model_state, key):
      output, changed = model.apply_head_with_state(
        t, params, model_state, features, train=True, key=key
      )
      loss, metrics = loss_fns[t](output, batch)
      if hasattr(model.heads[t], 'penalty'):
        own = {'params': params[f'heads_{t}']}
        loss += model.heads[t].apply(own, features, method='penalty')
      return loss, HeadAux(metrics, changed) if changed else metrics

    return head

  return Staged(trunk, [make_head(t) for t in range(model.num_tasks)])

"""How steps begin: the number of tasks, the first state, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mtljax import _params, _validate
from mtljax._types import MaskedBatch
from mtljax.gradients import _pullback
from mtljax.gradients._pullback import LossFn
from mtljax.training.step.state import TrainState


def num_tasks_of(loss_fn: LossFn, num_tasks: int | None) -> int:
  """The number of tasks, as given or of the loss, or ValueError."""
  num_tasks = num_tasks or _pullback.loss_num_tasks(loss_fn)
  if num_tasks is None:
    raise ValueError(
      'num_tasks=None: a plain loss function does not tell how many tasks '
      'there are; pass num_tasks.'
    )
  return _validate.num_tasks(num_tasks)


def first_state(
  init_optimizer: Callable[[Any], Any],
  params: Any,
  method_state: Any,
  key: jax.Array,
) -> TrainState:
  """The state before the first step, in buffers of its own.

  Raises:
    TypeError: a parameter has no gradient, or is wider than jax keeps it, or
      the key is none.
  """
  _params.check_params(params)
  _params.check_width(params)
  check_key(key)
  params = jax.tree.map(lambda x: jnp.array(x, copy=True), params)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    model_state={},
    opt_state=init_optimizer(params),
    method_state=method_state,
    key=jax.random.split(key, 1)[0],
  )


def check_key(key: Any) -> None:
  """Raises TypeError for what is no random key."""
  if not hasattr(key, 'dtype'):
    raise TypeError(
      f'key={key!r} must be a random key, such as jax.random.key(0).'
    )


def check_no_model_state(model_state: Any, why: str) -> None:
  """Raises ValueError for a state of a model."""
  if model_state:
    raise ValueError(f'model_state is not empty: {why}.')


def check_state(state: Any) -> None:
  """Raises TypeError for what is no state of a run."""
  if not isinstance(state, TrainState):
    raise TypeError(
      f'state is a {type(state).__name__}, and must be what init(params, '
      'key=key) or the last step returned.'
    )


def check_no_mask(name: str, batch: Any, why: str) -> None:
  """Raises ValueError for a batch that may lack tasks."""
  if isinstance(batch, MaskedBatch):
    raise ValueError(
      f'{name} is a MaskedBatch, and {why}; give it batches in which all are '
      'present.'
    )

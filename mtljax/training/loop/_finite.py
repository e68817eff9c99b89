"""Stopping a run whose numbers have gone."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mtljax.training.disk.checkpoint import Checkpointer
from mtljax.training.step.state import TrainState


class NonFiniteLossError(FloatingPointError):
  """A loss, or the state, is not finite.

  Attributes:
    step: the step at which it was first seen.
    task: the name of the first such task; None if the losses were finite and
      the state is not.
  """

  def __init__(self, message: str, *, step: int, task: str | None):
    super().__init__(message)
    self.step = step
    self.task = task


@jax.jit
def _all_finite(leaves: list[jax.Array]) -> jax.Array:
  return jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves]).all()


def check_state(state: TrainState, step: int) -> None:
  """A finite loss can still have an update that is not: never save it."""
  if int(state.step) != step:
    raise ValueError(
      f'state.step is {int(state.step)} after step {step}: step_fn has to '
      'raise it by one'
    )
  leaves = jax.tree.leaves((state.params, state.model_state))
  leaves = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)]
  if leaves and not _all_finite(leaves):
    raise NonFiniteLossError(
      f'the losses are finite but the parameters are not after step {step}',
      step=step,
      task=None,
    )


def with_advice(
  error: NonFiniteLossError, checkpointer: Checkpointer | None
) -> NonFiniteLossError:
  """The error, with what is kept and what to do."""
  saved = 'no checkpoint was kept'
  if checkpointer is not None and checkpointer.latest_step() is not None:
    saved = (
      f'the last good checkpoint is step {checkpointer.latest_step()} in '
      f'{checkpointer.directory}'
    )
  return NonFiniteLossError(
    f'{error}; the run was stopped and {saved}. Lower the learning rate, clip '
    'the gradients or look at the data of that step',
    step=error.step,
    task=error.task,
  )

"""How a learning rate falls while a run goes on."""

from __future__ import annotations

import dataclasses

import optax

from experiments.lab.options import flag
from mtljax import _validate

SCHEDULES = ('cosine', 'constant', 'step')


@dataclasses.dataclass(frozen=True)
class ScheduleOptions:
  """The options of what is trained with a schedule."""

  schedule: str = 'cosine'
  """How the learning rate falls: cosine (to zero, along a half wave), constant,
  or step (times --decay every --decay-epochs epochs)."""
  decay: float = 0.5
  """What a step of the schedule multiplies the learning rate by."""
  decay_epochs: int = 100
  """Epochs between steps of the schedule."""


def check(config: ScheduleOptions) -> None:
  """Raises ValueError for options that make no schedule."""
  _validate.one_of('--schedule', config.schedule, SCHEDULES)
  _validate.in_range('--decay', config.decay, 0, 1, open_low=True)
  _validate.in_range(flag('decay_epochs'), config.decay_epochs, 1)


def make_schedule(
  config: ScheduleOptions, learning_rate: float, epochs: int, per_epoch: int
) -> optax.Schedule:
  """The learning rate by the step.

  Args:
    config: which schedule.
    learning_rate: that of the first step.
    epochs: of a run.
    per_epoch: steps in an epoch.
  """
  if config.schedule == 'constant':
    return optax.constant_schedule(learning_rate)
  if config.schedule == 'step':
    return optax.exponential_decay(
      learning_rate,
      transition_steps=config.decay_epochs * per_epoch,
      decay_rate=config.decay,
      staircase=True,
    )
  return optax.cosine_decay_schedule(learning_rate, epochs * per_epoch)

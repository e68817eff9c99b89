"""The arms: a method with options, a loss, a route and a learning rate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

import mtljax as mtl
from experiments.suites import Task


@dataclasses.dataclass(frozen=True)
class Arm:
  """What is trained.

  Attributes:
    make: from T and labels to the method.
    log: whether tasks are trained on the logarithm of their losses.
    route: see `mtljax.training.make_train_step`.
    rate: times the study's learning rate.
    min_tasks: where there are fewer it is not trained.
  """

  make: Callable[..., Any]
  log: bool = False
  route: str = 'auto'
  rate: float = 1.0
  min_tasks: int = 2


def _with(name: str, **options: Any) -> Callable[..., Any]:
  factory = mtl.get_method(name)
  return lambda num_tasks, **more: factory(num_tasks, **options, **more)


def _held(steps: int) -> Callable[..., Any]:
  """Nash-MTL with weights that are held for so many steps."""
  return lambda num_tasks, **more: mtl.every_k(
    mtl.nash_mtl(num_tasks, **more), steps
  )


ALPHAS = {'nash': 1.0, 'fair_2': 2.0, 'fair_5': 5.0, 'fair_10': 10.0}
RADII = {'cagrad_0_2': 0.2, 'cagrad_0_5': 0.5}
TEMPERATURES = {
  'bmtl_0_1': 0.1,
  'bmtl_0_3': 0.3,
  'bmtl_1': 1.0,
  'bmtl_50': 50.0,
}
#: Those that FairGrad's second claim trains on logarithms as well; of the sum
#: that is UW-O.
PLAIN = ('sum', 'rlw', 'dwa', 'mgda', 'cagrad_0_5')
LOG = {
  'sum': 'uw_o',
  'rlw': 'log_rlw',
  'dwa': 'log_dwa',
  'mgda': 'log_mgda',
  'cagrad_0_5': 'log_cagrad_0_5',
}

ARMS: dict[str, Arm] = {
  'sum': Arm(_with('sum_losses')),
  'sum_slow': Arm(_with('sum_losses'), rate=0.4),
  'sum_fast': Arm(_with('sum_losses'), rate=2.5),
  'uncertainty': Arm(_with('uncertainty')),
  'rlw': Arm(_with('rlw')),
  'dwa': Arm(_with('dwa')),
  'slaw': Arm(_with('slaw')),
  'emtl': Arm(_with('emtl')),
  'uw_o': Arm(_with('uw_o')),
  'mgda': Arm(_with('mgda')),
  'pcgrad': Arm(_with('pcgrad')),
  'imtl_g': Arm(_with('imtl_g')),
  **{name: Arm(_with('cagrad', c=c)) for name, c in RADII.items()},
  # A third of six tasks; of two there is nothing to leave out.
  'cagrad_fast': Arm(_with('cagrad', c=0.5, subset=2), min_tasks=4),
  'nash': Arm(_with('nash_mtl')),
  'nash_10': Arm(_held(10)),
  'nash_50': Arm(_held(50)),
  'nash_features': Arm(_with('nash_mtl'), route='features'),
  **{
    name: Arm(_with('fairgrad', alpha=alpha))
    for name, alpha in ALPHAS.items()
    if name != 'nash'
  },
  **{
    name: Arm(_with('bmtl', temperature=tau))
    for name, tau in TEMPERATURES.items()
  },
}
ARMS |= {
  LOG[name]: dataclasses.replace(ARMS[name], log=True)
  for name in PLAIN
  if LOG[name] not in ARMS
}
#: On tasks whose labels are noisy or rare.
ROBUST = ('sum', 'uncertainty', 'dwa', 'slaw')
#: Whose relative contributions are measured; their weights are of the losses.
MEASURED = (
  'sum',
  'uncertainty',
  'dwa',
  'slaw',
  'emtl',
  'uw_o',
  'mgda',
  'nash',
  'fair_2',
)


def loss_of(factor: float, log: bool) -> Callable[[Task], Any]:
  """The loss of a task times a factor, or the logarithm of that."""

  def make(task: Task):
    def loss(outputs, batch):
      value, metrics = task.loss(outputs, batch)
      value = factor * value
      return (jnp.log(value + 1e-8) if log else value), metrics

    return loss

  return make

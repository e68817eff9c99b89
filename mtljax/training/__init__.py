"""Training: state, loop, checkpoints, metrics, devices, the folder of a run."""

from mtljax.training import cooperative as cooperative
from mtljax.training import forum as forum
from mtljax.training import task_groups as task_groups
from mtljax.training._preempt import Preempted
from mtljax.training.disk._lock import LockedError
from mtljax.training.disk._rundir import (
  ConfigMismatchError,
  OutputError,
  Run,
  exit_on_error,
  open_run,
)
from mtljax.training.disk._seal import CheckpointError
from mtljax.training.disk.checkpoint import Checkpointer
from mtljax.training.disk.writers import (
  DamagedFileError,
  JsonlWriter,
  MetricWriter,
  MultiWriter,
  TensorBoardWriter,
  WandbWriter,
)
from mtljax.training.loop._finite import NonFiniteLossError
from mtljax.training.loop.fit import TIMING, FitResult, Probe, fit, fit_steps
from mtljax.training.loop.lockstep import fit_sweep
from mtljax.training.step.estimate import (
  Estimate,
  LeafEstimate,
  RouteEstimate,
  estimate,
)
from mtljax.training.step.measure import Measured, RouteTime, measure
from mtljax.training.step.sharding import Layout, ShardedBatches, make_mesh
from mtljax.training.step.state import TrainState
from mtljax.training.step.sweep import Sweep, make_sweep
from mtljax.training.step.train_step import TrainStep, make_train_step

__all__ = [
  'TIMING',
  'CheckpointError',
  'Checkpointer',
  'ConfigMismatchError',
  'DamagedFileError',
  'Estimate',
  'FitResult',
  'JsonlWriter',
  'Layout',
  'LeafEstimate',
  'LockedError',
  'Measured',
  'MetricWriter',
  'MultiWriter',
  'NonFiniteLossError',
  'OutputError',
  'Preempted',
  'Probe',
  'RouteEstimate',
  'RouteTime',
  'Run',
  'ShardedBatches',
  'Sweep',
  'TensorBoardWriter',
  'TrainState',
  'TrainStep',
  'WandbWriter',
  'estimate',
  'exit_on_error',
  'fit',
  'fit_steps',
  'fit_sweep',
  'make_mesh',
  'make_sweep',
  'make_train_step',
  'measure',
  'open_run',
]

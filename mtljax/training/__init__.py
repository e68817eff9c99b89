"""Training: state, loop, checkpoints, metrics, devices, the folder of a run."""

from mtljax.training._finite import NonFiniteLossError
from mtljax.training._lock import LockedError
from mtljax.training._preempt import Preempted
from mtljax.training._rundir import (
  ConfigMismatchError,
  OutputError,
  Run,
  exit_on_error,
  open_run,
)
from mtljax.training._seal import CheckpointError
from mtljax.training.checkpoint import Checkpointer
from mtljax.training.lockstep import fit_sweep
from mtljax.training.loop import TIMING, FitResult, Probe, fit, fit_steps
from mtljax.training.sharding import Layout, ShardedBatches, make_mesh
from mtljax.training.state import TrainState
from mtljax.training.step import TrainStep, make_train_step
from mtljax.training.sweep import Sweep, make_sweep
from mtljax.training.writers import (
  DamagedFileError,
  JsonlWriter,
  MetricWriter,
  MultiWriter,
  TensorBoardWriter,
  WandbWriter,
)

__all__ = [
  'TIMING',
  'CheckpointError',
  'Checkpointer',
  'ConfigMismatchError',
  'DamagedFileError',
  'FitResult',
  'JsonlWriter',
  'Layout',
  'LockedError',
  'MetricWriter',
  'MultiWriter',
  'NonFiniteLossError',
  'OutputError',
  'Preempted',
  'Probe',
  'Run',
  'ShardedBatches',
  'Sweep',
  'TensorBoardWriter',
  'TrainState',
  'TrainStep',
  'WandbWriter',
  'exit_on_error',
  'fit',
  'fit_steps',
  'fit_sweep',
  'make_mesh',
  'make_sweep',
  'make_train_step',
  'open_run',
]

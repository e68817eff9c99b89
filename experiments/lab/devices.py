"""Experiments on many devices, of one process or of several."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from mtljax.training import Layout, make_mesh

LAYOUTS = ('none', 'data', 'fsdp')


def start(layout: str, distributed: bool) -> None:
  """Joins the other processes; before anything else asks jax for devices.

  On TPU pods and under Slurm jax finds them by itself; where
  ``experiments.launch`` started them, by what it left in the environment.

  Raises:
    ValueError: the processes would not work on anything together.
  """
  if not distributed:
    return
  if layout == 'none':
    raise ValueError(
      "--distributed needs --layout data or fsdp: with 'none' every process "
      'would train for itself.'
    )
  here = {}
  if 'JAX_NUM_PROCESSES' in os.environ:
    here['num_processes'] = int(os.environ['JAX_NUM_PROCESSES'])
    here['process_id'] = int(os.environ['JAX_PROCESS_ID'])
  jax.distributed.initialize(**here)


def make_layout(layout: str) -> Layout | None:
  """All devices along the data axis; None: one device."""
  return None if layout == 'none' else Layout(make_mesh(), kind=layout)


def is_first() -> bool:
  """Whether this is the process that writes the results."""
  return jax.process_index() == 0


@contextlib.contextmanager
def first_process_first() -> Iterator[None]:
  """What the first process has made, the others find made."""
  if not is_first():
    _meet()
  yield
  if is_first():
    _meet()


def _meet() -> None:
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices('first process first')

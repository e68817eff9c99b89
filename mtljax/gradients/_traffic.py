"""Counted traffic: what travels between devices for a leaf's inner products.

Over a ring of n devices, each receives ``(n - 1) / n`` of the bytes that are
summed and split (reduce-scatter) or gathered, and twice that to have the sum
everywhere.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from mtljax.gradients import _kernels
from mtljax.gradients._program import Use


class Spread(NamedTuple):
  """How a batch, the tasks and a parameter are spread over devices.

  Attributes:
    data: devices that the batch is split over.
    task: devices that the tasks are split over.
    axes: for each axis of the parameter, the other devices that split it.
    rows_by_data: whether a task's gradient is split over the first.
    rows_by_task: whether it is over the second.
  """

  data: int
  task: int
  axes: tuple[int, ...]
  rows_by_data: bool
  rows_by_task: bool


def of_rows(num_bytes: int, num_tasks: int, spread: Spread) -> float:
  """Bytes a device receives until each task's gradient is where it belongs.

  They are summed over the batch by the devices that pull them back, which then
  exchange tasks for parts, and their sum by weights is a part as well.
  """
  data, task = spread.data, spread.task
  each = num_bytes / math.prod(spread.axes)
  total = _summed(num_tasks * each / task, spread)
  if spread.rows_by_data:
    each /= data
  if not spread.rows_by_task:
    return total + _gathered(num_tasks * each, task)
  return (
    total + _gathered(num_tasks * each / task, task) + _gathered(each, task)
  )


def of_signals(
  use: Use,
  layer: _kernels.Layer,
  num_bytes: int,
  num_tasks: int,
  spread: Spread,
) -> float:
  """Bytes for the products of all pairs of positions, and the weighted sum.

  Every device receives the layer's inputs at all positions and the signals of
  its tasks there, for the products of its own positions with them; then those
  of the other tasks at its positions. The weighted sum of the gradients, which
  rows give for nothing, is summed over the batch.
  """
  data, task = spread.data, spread.task
  positions = layer.num_positions
  width = lambda x: positions * x.aval.dtype.itemsize
  inputs = layer.num_inputs * width(use.op.eqn.invars[1 - use.position])
  signals = num_tasks * layer.num_outputs * width(use.op.eqn.outvars[0])
  if use.origin.keeps_axes:
    signals /= math.prod(spread.axes[i] for i in layer.outer)
  return (
    _gathered(inputs + signals / task, data)
    + _gathered(signals / data, task)
    + _summed(num_bytes / math.prod(spread.axes), spread)
  )


def _gathered(num_bytes: float, devices: int) -> float:
  return num_bytes * (devices - 1) / devices


def _summed(num_bytes: float, spread: Spread) -> float:
  ways = 1 if spread.rows_by_data else 2
  return ways * _gathered(num_bytes, spread.data)

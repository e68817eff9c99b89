"""The methods that are timed, and how long a jitted call takes."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

import mtljax as mtl
from benchmarks import _torchjd

# Beyond those with a counterpart in TorchJD.
ALONE = (
  'imtl',
  'pivrg',
  'moco',
  'db_mtl',
  'go4align',
)


def options(name: str, num_tasks: int) -> dict[str, Any] | None:
  """A method's arguments; None where it is not defined for so few tasks."""
  if name == 'krum':
    return {'num_byzantine': 1} if num_tasks >= 4 else None
  if name == 'trimmed_mean':
    return {'trim': 1} if num_tasks >= 3 else None
  return {
    'cagrad': {'c': 0.5},
    'fairgrad': {'alpha': 1.0},
    'pivrg': {'scores': [1.0] * num_tasks},
  }.get(name, {})


def names() -> list[str]:
  """The methods of this package, those that TorchJD has first."""
  return [n for n in (*_torchjd.NAMES, *ALONE) if hasattr(mtl, n)]


def median_ms(
  calls: dict[str, Callable[[], object]], repeats: int, seconds: float = 1e9
) -> dict[str, float]:
  """Median times in ms.

  The calls take turns of five, so that load hits all alike; the first of a
  turn is not counted, as it finds what another call has left in the caches.
  """
  times: dict[str, list[float]] = {name: [] for name in calls}
  for call in calls.values():
    jax.block_until_ready(call())
  first = time.perf_counter()
  for turn in range(-(-repeats // 5)):
    if turn and time.perf_counter() - first > seconds:
      break
    for name, call in calls.items():
      jax.block_until_ready(call())
      for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times[name].append(1e3 * (time.perf_counter() - start))
  return {name: statistics.median(t) for name, t in times.items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """What both benchmarks are told."""
  parser.add_argument('--tasks', type=int, nargs='*', default=[2, 8, 40])
  parser.add_argument('--methods', nargs='*', help='some of the names only')
  parser.add_argument(
    '--quick', action='store_true', help='8 tasks, less of it'
  )
  parser.add_argument(
    '--torchjd',
    metavar='PYTHON',
    help='the interpreter of an environment with torch and torchjd[full]',
  )


def row(cells: list[str]) -> None:
  """Prints a row of a Markdown table."""
  print('| ' + ' | '.join(cells) + ' |', flush=True)


def head(cells: list[str]) -> None:
  """Prints the first two rows of a Markdown table."""
  row(cells)
  print('|' + '---|' * len(cells))


def ratio(ours: float | None, theirs: float | None) -> str:
  """How many times longer the other takes."""
  if ours is None or theirs is None:
    return ''
  return f'{theirs / ours:.1f}'


def ms(value: float | None) -> str:
  """A time with three digits."""
  return '' if value is None else f'{value:.3g}'

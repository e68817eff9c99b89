"""Programs that take turns, so that load hits all alike."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

Name = TypeVar('Name', bound=Hashable)


def take_turns(
  runs: Mapping[Name, Callable[[int], None]],
  rounds: int,
  steps: Callable[[Name], int],
) -> dict[Name, list[float]]:
  """Milliseconds a step of every program in every round.

  Args:
    runs: by name, ``run(steps)``, which waits for the last step.
    rounds: how often each has its turn; their order changes.
    steps: from a name to the steps of a turn.
  """
  times: dict[Name, list[float]] = {name: [] for name in runs}
  order, shuffle = list(runs), random.Random(0).shuffle
  for _ in range(rounds):
    shuffle(order)
    for name in order:
      count = steps(name)
      start = time.perf_counter()
      runs[name](count)
      times[name].append((time.perf_counter() - start) / count * 1e3)
  return times

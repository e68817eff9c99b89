"""Progress of a study in a terminal, and lines elsewhere."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import rich.console
import rich.progress


class GridProgress:
  """One bar for all runs of a study in a terminal, a line a run elsewhere.

  Both say what is left for the whole study, by the steps made and the time
  taken since it began here; which run is best so far by its validation score,
  of those that compete; and the memory that was needed at most.
  """

  def __init__(
    self,
    total: int,
    console: rich.console.Console,
    enabled: bool,
    clock: Callable[[], float] = time.perf_counter,
  ):
    self._console = console
    self._clock = clock
    self._bar = None
    self._total, self._done, self._at = total, 0, 0
    self._trained, self._since = 0, clock()
    self._best: tuple[float, str] | None = None
    if enabled and console.is_terminal:
      self._bar = rich.progress.Progress(
        rich.progress.TextColumn(
          'step {task.completed:,.0f}/{task.total:,.0f}'
        ),
        rich.progress.BarColumn(),
        rich.progress.TextColumn('{task.description}', markup=False),
        console=console,
      )
      self._task = self._bar.add_task('', total=total)
    self._text = ''

  def __enter__(self) -> GridProgress:
    if self._bar is not None:
      self._bar.start()
    return self

  def __exit__(self, *error: Any) -> None:
    if self._bar is not None:
      self._bar.stop()

  def start(self, text: str) -> None:
    """Shows the run that begins."""
    self._text = text
    if self._bar is None:
      facts = self.facts()
      self.say(f'{text} ({facts})' if facts else text)
    else:
      self._show()

  def step(self, step: int) -> None:
    """Moves the bar to a step of the run."""
    if self._at:  # a run that is gone on with begins anywhere
      self._trained += max(step - self._at, 0)
    self._at = step
    self._show()

  def finish(self, steps: int, row: Mapping[str, Any] | None = None) -> None:
    """Counts a run as done.

    Args:
      steps: how many it had.
      row: of the table; None where it does not compete for the best score.
    """
    self._done += steps
    self._at = max(self._at - steps, 0)
    score = (row or {}).get('validation/score')
    if row and isinstance(score, int | float) and math.isfinite(score):
      if self._best is None or score > self._best[0]:
        self._best = score, f'{row["method"]}, seed {row["seed"]}'
    self._show()

  def say(self, text: str) -> None:
    """Prints a line above the bar."""
    self._console.print(text, markup=False, highlight=False)

  def facts(self) -> str:
    """What is left, how fast, the best so far, memory; '' before a step."""
    seconds = self._clock() - self._since
    if not self._trained or seconds <= 0:
      return ''
    speed = self._trained / seconds
    left = max(self._total - self._done - self._at, 0) / speed
    found = [f'{_duration(left)} left', f'{speed:.3g} steps/s']
    if self._best is not None:
      found.append(f'best {self._best[1]}: {self._best[0]:.4g}')
    return ', '.join([*found, f'{peak_bytes() / 1e6:,.0f} MB'])

  def _show(self) -> None:
    if self._bar is not None:
      self._bar.update(
        self._task,
        completed=self._done + self._at,
        description=' '.join(filter(None, (self._text, self.facts()))),
      )


def peak_bytes() -> int:
  """The most that this process needed: of the accelerator, else of the host."""
  found = jax.local_devices()[0].memory_stats() or {}
  if 'peak_bytes_in_use' in found:
    return found['peak_bytes_in_use']
  unit = 1 if sys.platform == 'darwin' else 1024
  return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _duration(seconds: float) -> str:
  if seconds < 90:
    return f'{seconds:.0f} s'
  if seconds < 90 * 60:
    return f'{seconds / 60:.0f} min'
  return f'{seconds / 3600:.1f} h'

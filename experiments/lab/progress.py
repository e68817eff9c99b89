"""Progress of a study in a terminal, and lines elsewhere."""

from __future__ import annotations

from typing import Any

import rich.console
import rich.progress


class GridProgress:
  """One bar for all runs of a study in a terminal, a line a run elsewhere."""

  def __init__(self, total: int, console: rich.console.Console, enabled: bool):
    self._console = console
    self._bar = None
    self._done = 0
    if enabled and console.is_terminal:
      self._bar = rich.progress.Progress(
        rich.progress.TextColumn(
          'step {task.completed:,.0f}/{task.total:,.0f}'
        ),
        rich.progress.BarColumn(),
        rich.progress.TimeRemainingColumn(),
        rich.progress.TextColumn('{task.description}', markup=False),
        console=console,
      )
      self._task = self._bar.add_task('', total=total)

  def __enter__(self) -> GridProgress:
    if self._bar is not None:
      self._bar.start()
    return self

  def __exit__(self, *error: Any) -> None:
    if self._bar is not None:
      self._bar.stop()

  def start(self, text: str) -> None:
    """Shows the run that begins."""
    if self._bar is not None:
      self._bar.update(self._task, description=text)
    else:
      self.say(text)

  def step(self, step: int) -> None:
    """Moves the bar to a step of the run."""
    if self._bar is not None:
      self._bar.update(self._task, completed=self._done + step)

  def finish(self, steps: int) -> None:
    """Counts a run of so many steps as done."""
    self._done += steps
    self.step(0)

  def say(self, text: str) -> None:
    """Prints a line above the bar."""
    self._console.print(text, markup=False, highlight=False)

"""What a running loop shows."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


class Progress:
  """A bar in a terminal, plain lines elsewhere, nothing if disabled."""

  def __init__(self, total: int, completed: int, enabled: bool):
    self._total = total
    self._plain = enabled
    self._bar: Any = None
    if enabled and sys.stderr.isatty():
      try:
        from rich import console, progress
      except ImportError:
        return
      self._plain = False
      self._bar = progress.Progress(
        progress.TextColumn('step {task.completed:,.0f}/{task.total:,.0f}'),
        progress.BarColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn('{task.fields[text]}'),
        console=console.Console(stderr=True),
      )
      self._task = self._bar.add_task(
        '', total=total, completed=completed, text=''
      )

  def __enter__(self) -> Progress:
    if self._bar is not None:
      self._bar.start()
    return self

  def __exit__(self, *error: Any) -> None:
    if self._bar is not None:
      self._bar.stop()

  def advance(self, step: int) -> None:
    """Moves the bar."""
    if self._bar is not None:
      self._bar.update(self._task, completed=step)

  def show(self, step: int, line: Mapping[str, Any]) -> None:
    """Shows losses and throughput."""
    text = '  '.join(
      f'{name.removeprefix("loss/")} {float(value):.4g}'
      for name, value in line.items()
      if name.startswith('loss/')
    )
    if 'examples_per_second' in line:
      text += f'  {line["examples_per_second"]:,.0f} examples/s'
    if self._bar is not None:
      self._bar.update(self._task, text=text)
    elif self._plain:
      print(f'step {step:,}/{self._total:,}  {text}', file=sys.stderr)

"""The terminal: its width, tables, and how a study ends."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import sys
import time
from collections.abc import Iterator

import rich.console

#: Fits all columns of the table of most comparisons.
WIDE = 124


def make_console() -> rich.console.Console:
  """A console; wide enough for the whole table where nobody is looking."""
  console = rich.console.Console()
  return console if console.is_terminal else rich.console.Console(width=WIDE)


def print_end(
  directory: pathlib.Path, start: float, console: rich.console.Console
) -> None:
  """Says how long a study took since ``start``, and where its report is."""
  console.print(
    f'{time.perf_counter() - start:.0f} s; report: {directory / "report.html"}',
    markup=False,
    soft_wrap=True,
  )


@contextlib.contextmanager
def said(
  stopped: str = (
    'stopped by Ctrl-C; run the same command to go on from what is saved'
  ),
) -> Iterator[None]:
  """Ends with a sentence after Ctrl-C and where the output goes nowhere.

  Args:
    stopped: what is said after Ctrl-C.
  """
  try:
    try:
      yield
    finally:
      sys.stdout.flush()
  except KeyboardInterrupt:
    print(stopped, file=sys.stderr)
    sys.exit(128 + signal.SIGINT)
  except BrokenPipeError:
    _close_output()
    sys.exit(128 + signal.SIGPIPE)
  except OSError as error:
    if error.filename is not None or _can_be_written():
      raise
    _close_output()
    sys.exit(f'error: the output cannot be written to ({error.strerror}).')


def _can_be_written() -> bool:
  try:
    os.write(sys.stdout.fileno(), b'\n')
  except OSError:
    return False
  return True


def _close_output() -> None:
  """Python flushes at its end once more, which would raise again."""
  os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

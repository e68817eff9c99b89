"""The command line of a study: options, what is refused, the run, the end."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

import rich.console

from experiments import report
from mtljax.training import exit_on_error

Config = TypeVar('Config')
Study = TypeVar('Study')


def run_command(
  parse: Callable[[], Config],
  prepare: Callable[[Config, rich.console.Console], Study],
  run: Callable[[Config, Study, rich.console.Console], int | None],
  *,
  start: Callable[[Config], rich.console.Console] | None = None,
) -> None:
  """Runs a study as a program.

  What the user can act on ends it with one sentence and status 1, as does a run
  that failed.

  Args:
    parse: reads the options.
    prepare: everything that can be refused, before anything is written.
    run: the study itself; returns how many runs failed, None for none.
    start: what comes before ``prepare``, and the console; None: a plain one.
  """
  with exit_on_error(), _said():
    try:
      config = parse()
      console = report.make_console() if start is None else start(config)
      study = prepare(config, console)
    except ValueError as error:
      sys.exit(f'error: {error}')
    failed = run(config, study, console)
  if failed:
    sys.exit(f'error: {failed} runs did not finish; their status says why.')


@contextlib.contextmanager
def _said() -> Iterator[None]:
  """Ends with a sentence after Ctrl-C and where nobody reads the output."""
  try:
    yield
    sys.stdout.flush()
  except KeyboardInterrupt:
    print(
      'stopped by Ctrl-C; run the same command to go on from what is saved',
      file=sys.stderr,
    )
    sys.exit(128 + signal.SIGINT)
  except BrokenPipeError:
    # Python flushes at its end once more, which would raise again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)

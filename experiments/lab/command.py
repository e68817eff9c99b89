"""The command line of a study: options, what is refused, the run, the end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import rich.console

from experiments.report.console import make_console, said
from mtljax.training import exit_on_error

#: What the library's sentences speak of, as it is typed here.
WORDS = {
  'directory=': '--out ',
  'another directory': 'another --out',
  'resume=False': '--no-resume',
  'force=True': '--force',
}


def run_command(
  parse: Callable[[], Any],
  prepare: Callable[[Any, rich.console.Console], Any],
  run: Callable[[Any, Any, rich.console.Console], int | None],
  *,
  start: Callable[[Any], rich.console.Console] | None = None,
) -> None:
  """Runs a study as a program.

  What the user can act on ends it with one sentence and status 1, as does a run
  that failed.

  Args:
    parse: reads the options.
    prepare: everything that can be refused, before anything is written.
    run: does what ``prepare`` returned; it returns how many runs failed, None
      for none.
    start: what comes before ``prepare``, and the console; None: a plain one.
  """
  with exit_on_error(WORDS), said():
    try:
      config = parse()
      console = make_console() if start is None else start(config)
      prepared = prepare(config, console)
    except ValueError as error:
      sys.exit(f'error: {error}')
    failed = run(config, prepared, console)
  if failed:
    sys.exit(f'error: {failed} runs did not finish; their status says why.')

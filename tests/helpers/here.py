"""A command in this process, which has its modules and programs already."""

import sys
from typing import NamedTuple

import pytest

from experiments.lab import comparison


class Ended(NamedTuple):
  """What `subprocess.run` gives of a command."""

  returncode: int
  stdout: str
  stderr: str


def run(main, *args):
  """A command's function ``main``, which raises if the command fails."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sys, 'argv', [sys.argv[0], *map(str, args)])
    main()


def call(capsys, main, *args) -> Ended:
  """The same, until it ends, however it ends.

  A sentence about a file needs an output that is one: `capfd`, not `capsys`.
  """
  said = None
  try:
    run(main, *args)
  except SystemExit as error:
    said = error.code
  out, err = capsys.readouterr()
  return Ended(
    int(bool(said)), out, err + (said if isinstance(said, str) else '')
  )


def compare(capsys, suite, name, *args) -> Ended:
  """The command line of a comparison, until it ends."""
  return call(capsys, lambda: comparison.main(suite, name), *args)

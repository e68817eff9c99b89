"""A comparison in this process, which has its modules and programs already."""

from typing import NamedTuple

from experiments.lab import comparison


class Ended(NamedTuple):
  """What `subprocess.run` gives of a command."""

  returncode: int
  stdout: str
  stderr: str


def compare(capsys, suite, name, *args) -> Ended:
  """The command line of a comparison, until it ends."""
  said = None
  try:
    comparison.main(suite, name, argv=list(map(str, args)))
  except SystemExit as error:
    said = error.code
  out, err = capsys.readouterr()
  return Ended(
    int(bool(said)), out, err + (said if isinstance(said, str) else '')
  )

"""Compares multi-task methods on any suite.

  python -m experiments.compare --suite census --methods cagrad nash_mtl

The options are those of ``experiments.multi_digits``, their defaults those of
the suite. ``--suite`` is the name of a file of ``experiments/suites``, or a
module of your own that defines ``SUITE``.
"""

from __future__ import annotations

import sys

from experiments import suites
from experiments.lab import comparison, presets


def main() -> None:
  """The command line."""
  name = presets.peek('--suite', None)
  if name is None:
    listed = ', '.join(suites.available())
    sys.exit(f'error: --suite is missing: name one of {listed}.')
  try:
    suite = suites.find(name)
  except ValueError as error:
    sys.exit(f'error: {error}')
  argv = sys.argv[1:]
  at = next(i for i, x in enumerate(argv) if x.partition('=')[0] == '--suite')
  del argv[at : at + (1 if '=' in argv[at] else 2)]
  comparison.main(
    suite,
    f'compare_{suite.name}',
    argv=argv,
    typed=f'compare --suite {name}',
  )


if __name__ == '__main__':
  main()

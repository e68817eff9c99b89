"""What a network has to beat on a suite: simple predictors, on test.

python -m experiments.floors --suite flights
"""

from __future__ import annotations

import argparse
import pathlib
import sys

from experiments import suites
from experiments.report.console import make_console
from experiments.report.tables import columns_of, render_columns


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog='python -m experiments.floors',
    description='Prints what simple predictors reach on the test rows.',
  )
  parser.add_argument('--suite', required=True, help='name or module')
  parser.add_argument(
    '--data.dir', dest='dir', type=pathlib.Path, help='folder of tfds'
  )
  args = parser.parse_args()
  console = make_console()
  try:
    suite = suites.find(args.suite)
    if suite.floors is None:
      raise ValueError(f'--suite={args.suite!r} has no floors.')
    say = lambda text: console.print(text, markup=False)
    suite = suite.with_tasks(suite.default_tasks)
    data = suite.read(suites.DataOptions(dir=args.dir), 1, say)
    found = suite.floors(data)
  except (OSError, ValueError) as error:
    sys.exit(f'error: {error}')
  metrics = list(next(iter(found.values())))
  rows = [
    [metric.replace('/', ' '), *(f'{x[metric]:.5g}' for x in found.values())]
    for metric in metrics
  ]
  console.print(
    render_columns(
      f'Floors of {suite.title}', columns_of(['test', *found], rows)
    )
  )


if __name__ == '__main__':
  main()

"""Puts two folders of a comparison beside each other, paired by seed.

python -m experiments.compare_runs A B [--all]
"""

from __future__ import annotations

import argparse
import pathlib
import sys

from experiments.report import differences
from experiments.report.console import make_console, said
from experiments.report.results import ReportError, read_results
from experiments.report.tables import fitting, render_columns


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog='python -m experiments.compare_runs',
    description='What changed from one folder to another, seed by seed.',
  )
  for name, which in (('A', 'first'), ('B', 'second')):
    parser.add_argument(
      which, metavar=name, type=pathlib.Path, help='folder of a comparison'
    )
  parser.add_argument(
    '--all', action='store_true', help='losses too, not only scores'
  )
  args = parser.parse_args()
  console = make_console()
  try:
    both = [read_results(folder) for folder in (args.first, args.second)]
    found = differences.compare(*both, losses=args.all)
  except ReportError as error:
    sys.exit(f'error: {error}')
  say = lambda text: console.print(text, markup=False)
  for folder, results in zip('AB', both, strict=True):
    for note in results.notes:
      say(f'{folder}: {note}')
  for changed in differences.changed_options(*both):
    say(f'A and B differ in {changed}')
  title = f'A = {args.first}, B = {args.second}'
  for part in fitting(differences.columns(found), console.width):
    console.print(render_columns(title, part))
  say(differences.reading(found))


if __name__ == '__main__':
  with said('stopped by Ctrl-C'):
    main()

"""Prints what can be run: ``python -m experiments``.

Suites and studies, what each asks, how long it takes and what data it needs, as
in ``experiments/README.md``.
"""

from __future__ import annotations

import argparse
import pathlib
from typing import NamedTuple

import rich.table

from experiments.report.console import make_console, said

_PAGE = pathlib.Path(__file__).with_name('README.md')


class Row(NamedTuple):
  """A command, in words; what is not known is empty.

  Attributes:
    command: what follows ``python -m experiments.``.
    asks: the question that it answers.
    minutes: on two cores.
    data: what has to be there before it runs.
  """

  command: str
  asks: str
  minutes: str
  data: str


def rows() -> list[Row]:
  """All commands, in the order of the page."""
  found = []
  for line in _PAGE.read_text(encoding='utf-8').splitlines():
    cells = [cell.strip() for cell in line.strip('|').split('|')]
    if line.startswith('| `') and len(cells) == len(Row._fields):
      found.append(Row(*(cell.replace('`', '') for cell in cells)))
    elif found:
      break
  return found


def main() -> None:
  """The command line."""
  argparse.ArgumentParser(
    prog='python -m experiments',
    description='Prints what can be run, what it asks, and what it needs.',
  ).parse_args()
  table = rich.table.Table(box=None, pad_edge=False)
  table.add_column('python -m experiments.', no_wrap=True)
  table.add_column('asks')
  table.add_column('minutes', justify='right')
  table.add_column('data')
  for row in rows():
    table.add_row(*row)
  console = make_console()
  console.print(table)
  console.print(
    '\nfetch NAME: python -m mtljax.data.fetch NAME. yours: files that you '
    'bring, see docs/brought_data.md and docs/dense_data.md. Each has --help.',
    markup=False,
  )


if __name__ == '__main__':
  with said():
    main()

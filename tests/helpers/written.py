"""What studies have written."""

import csv


def rows(config):
  """The lines of ``results.csv``, as texts by column."""
  with (config.out / 'results.csv').open() as file:
    return list(csv.DictReader(file))

"""What tuning found, as the report shows it."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.report import files
from experiments.report.tables import Column, columns_of

#: Inside of a study's folder, and the file in it.
FOLDER = 'tuning'
CHOSEN = 'chosen.json'

_TITLES = (
  'method',
  'trial',
  'times the rate',
  'its own numbers',
  'score',
  'of defaults',
  'failed',
  'steps',
  'seconds',
)


def read(directory: pathlib.Path, notes: list[str]) -> dict[str, Any] | None:
  """What was chosen; None where nothing was tuned, or not yet.

  Args:
    directory: of the study.
    notes: gets a sentence where the file is damaged.
  """
  try:
    found = files.read_json(directory / FOLDER / CHOSEN)
    if not isinstance(found['methods'], dict):
      raise ValueError('it holds no methods')
  except FileNotFoundError:
    return None
  except (OSError, ValueError, KeyError, TypeError) as error:
    notes.append(f'{FOLDER}/{CHOSEN} cannot be read ({error}).')
    return None
  return found


def columns(found: dict[str, Any]) -> list[Column]:
  """A row a method."""
  return columns_of(
    _TITLES, [_row(name, x) for name, x in found['methods'].items()]
  )


def _row(name: str, found: dict[str, Any]) -> list[str]:
  own = ', '.join(f'{key} {_text(x)}' for key, x in found['options'].items())
  return [
    name,
    str(found['chosen']),
    _text(found['rate']),
    own or '-',
    _text(found['score']),
    _text(found['default_score']),
    str(found['failed']),
    str(found.get('steps', '-')),
    _text(found['seconds']),
  ]


def _text(value: Any) -> str:
  if value is None:
    return '-'
  if isinstance(value, list):
    return ' '.join(_text(x) for x in value)
  return f'{value:.4g}' if isinstance(value, float) else str(value)


def in_words(config: Mapping[str, Any], found: dict[str, Any] | None) -> str:
  """What a reader has to know of it, in some sentences."""
  if not config.get('tune'):
    return (
      'Nothing was tuned: every method has the learning rate of the command '
      'and the defaults of its paper.'
    )
  if found is None:
    return 'Tuning has not ended.'
  text = (
    f'Every method, and every task alone, had {found["trials"]} trials: its '
    'defaults, and the rest at random, of learning rates within a decade and '
    'of its own numbers. '
  )
  if len(found.get('rungs', ())) > 1:
    text += _of_rungs(found['rungs'])
  else:
    text += 'A trial trains as long as a run that is compared. '
  return text + (
    f'Trials have seeds that no such run has, {found.get("seeds", 1)} each; '
    'the one with the best mean score on validation is compared. Test data '
    'were not looked at.'
  )


def _of_rungs(rungs: Sequence[Mapping[str, Any]]) -> str:
  first, *others = rungs
  then = ', '.join(f'{x["trials"]} for {x["share"]:.3g}' for x in others)
  return (
    f'All had {first["share"]:.3g} of the length of a run that is compared, '
    f'the best of them went on: {then} of it. '
  )

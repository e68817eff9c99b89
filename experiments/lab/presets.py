"""Command lines whose defaults come from a named preset."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import tyro

from mtljax import _validate

T = TypeVar('T')


def peek(option: str, default: T, argv: Sequence[str] | None = None) -> T | str:
  """The value of an option that others hang on, before all are read."""
  first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  first.add_argument(option, default=default, dest='found', nargs='?')
  known = first.parse_known_args(sys.argv[1:] if argv is None else argv)[0]
  return known.found


def parse(
  config_class: type[T],
  presets: Mapping[str, T],
  *,
  prog: str,
  description: str | None = None,
  argv: Sequence[str] | None = None,
) -> T:
  """Reads the command line over the values of the preset that it names.

  Args:
    config_class: a frozen dataclass with a field ``preset``.
    presets: a configuration by name; the first is the default.
    prog: shown in the usage.
    description: shown above the options; None: the class's own.
    argv: the arguments; None: those of this process.

  Returns:
    The preset, with what the command line says otherwise.

  Raises:
    ValueError: there is no such preset.
  """
  argv = list(sys.argv[1:] if argv is None else argv)
  name = peek('--preset', next(iter(presets)), argv)
  _validate.one_of('--preset', name, presets)
  found: Any = tyro.cli(
    config_class,
    prog=prog,
    description=description,
    args=argv,
    default=presets[name],
  )
  return found


def parse_on_suite(
  config_class: type[T],
  presets_of: Callable[[str], Mapping[str, T]],
  *,
  prog: str,
) -> T:
  """`parse` with the presets of the suite that the command line names.

  Args:
    config_class: a frozen dataclass with fields ``preset`` and ``suite``.
    presets_of: from the name of a suite, which may be none, to its presets.
    prog: shown in the usage.

  Returns:
    The preset, with what the command line says otherwise.

  Raises:
    ValueError: there is no such preset.
  """
  default: Any = config_class
  found = presets_of(peek('--suite', default.suite))
  return parse(config_class, found, prog=prog)

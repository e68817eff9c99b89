"""Options of a command line, and which of them may change when it goes on."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from mtljax import _validate

#: Key of a field's metadata, and its values.
CHANGES = 'changes'
ALWAYS = 'always'
BETWEEN_RUNS = 'between runs'


def free(default: Any) -> Any:
  """An option that may be another one when the same command goes on."""
  return dataclasses.field(default=default, metadata={CHANGES: ALWAYS})


def between_runs(default: Any) -> Any:
  """An option that may change between the runs of a study, inside none."""
  return dataclasses.field(default=default, metadata={CHANGES: BETWEEN_RUNS})


def changing(config: Any, *kinds: str) -> tuple[str, ...]:
  """The dotted names of options whose ``metadata`` says that they may change.

  Args:
    config: a dataclass of options, others inside.
    *kinds: `ALWAYS`, `BETWEEN_RUNS`; none: both.
  """
  wanted = kinds or (ALWAYS, BETWEEN_RUNS)
  return tuple(name for name, kind in _kinds(config) if kind in wanted)


def _kinds(config: Any, prefix: str = '') -> Iterator[tuple[str, str | None]]:
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      yield from _kinds(value, f'{prefix}{field.name}.')
    else:
      yield f'{prefix}{field.name}', field.metadata.get(CHANGES)


def flag(name: str) -> str:
  """``'hidden_sizes'`` as it is typed: ``'--hidden-sizes'``."""
  return f'--{name.replace("_", "-")}'


def check_distinct(
  option: str, values: Collection[Any], keys: Collection[Any] | None = None
) -> None:
  """Raises ValueError unless there is a value, and none stands twice.

  Args:
    option: the field's name.
    values: what was typed.
    keys: what has to be distinct; None: the values.
  """
  if not values or len(set(values if keys is None else keys)) != len(values):
    raise ValueError(
      f'{flag(option)}={tuple(values)} must name at least one, and none twice.'
    )


def check_counts(config: Any, names: Iterable[str]) -> None:
  """Raises ValueError unless these options are at least 1."""
  for name in names:
    _validate.in_range(flag(name), getattr(config, name), 1)


def override(config: Any, changes: dict[str, Any]) -> Any:
  """The configuration with options changed; inner ones as in ``data.dir``."""
  for name, value in changes.items():
    outer, _, inner = name.partition('.')
    if inner:
      value = override(getattr(config, outer), {inner: value})
    config = dataclasses.replace(config, **{outer: value})
  return config


@dataclasses.dataclass(frozen=True)
class DataOptions:
  """The data. What a suite has no use for is refused."""

  dir: pathlib.Path | None = between_runs(None)
  """Folder of tfds; its default is ~/tensorflow_datasets."""
  source: str = ''
  """Which of the suite's sources; its first by default. Of the digits:
  mnist_5k (ships with a package), or mnist, fashion_mnist, fashion_and_mnist
  (composed from what tfds has prepared on this machine)."""
  seed: int = 0
  """Seed of what is drawn or split."""
  num_train: int | None = None
  """Examples to train on; by default all there are."""
  num_validation: int | None = None
  """Examples to select on."""
  num_test: int | None = None
  """Examples to test on."""
  pool: int = 1
  """Images are averaged over squares of so many pixels."""


@dataclasses.dataclass(frozen=True)
class RunOptions:
  """The options that everything has that fills a folder."""

  out: pathlib.Path = free(pathlib.Path('results'))
  """Folder for everything this run writes."""
  resume: bool = free(True)
  """Go on with what --out holds. --no-resume moves it aside and starts anew."""


@dataclasses.dataclass(frozen=True)
class ForceOptions(RunOptions):
  """Those of what is not done in one go."""

  force: bool = free(False)
  """Go on with unfinished runs that other versions, code or data began; what
  changed is kept in config.json."""


@dataclasses.dataclass(frozen=True)
class Options(ForceOptions):
  """The options that all studies have which train networks."""

  seeds: int = free(3)
  """Number of seeds: 0, 1, ..."""
  progress: bool = free(True)
  """Show a progress bar for the whole study."""

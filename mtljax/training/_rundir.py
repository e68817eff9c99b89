"""The folder of a run: made, recognised, or refused."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mtljax.training._preempt import Preempted


class ConfigMismatchError(ValueError):
  """The folder holds a run of another configuration."""


class OutputError(OSError):
  """The folder cannot be made or written to."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
  """A folder that is ready for a run.

  Attributes:
    path: the folder.
    resumed: whether it held the same run before.
  """

  path: pathlib.Path
  resumed: bool

  @property
  def checkpoints(self) -> pathlib.Path:
    """Where the checkpoints go."""
    return self.path / 'checkpoints'

  @property
  def metrics(self) -> pathlib.Path:
    """The file of metrics, one JSON object a line."""
    return self.path / 'metrics.jsonl'


def open_run(
  directory: str | os.PathLike[str],
  config: Mapping[str, Any],
  *,
  resume: bool = True,
  ignore: Iterable[str] = (),
) -> Run:
  """Makes the folder of a run, or finds the same run in it.

  The configuration is kept in ``config.json``. A run resumes only where the
  whole configuration is the same, or it would end in numbers that belong to
  none.

  Args:
    directory: the folder, made if it is missing.
    config: the configuration, JSON; other values count as their `str`.
    resume: false starts afresh, and moves an old run to ``<name>.bak-<n>``.
    ignore: keys, dotted where nested, that may change between resumes.

  Returns:
    The folder, and whether it held this run.

  Raises:
    ConfigMismatchError: the folder holds another run; the message has the
      differing keys with both values.
    OutputError: the folder cannot be written to.

  >>> import tempfile
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   first = open_run(folder, {'seed': 1})
  ...   again = open_run(folder, {'seed': 1})
  ...   try:
  ...     open_run(folder, {'seed': 2})
  ...   except ConfigMismatchError as error:
  ...     message = str(error)
  >>> first.resumed, again.resumed
  (False, True)
  >>> message.split(': ')[1]
  'seed (there 1, now 2)'

  | the folder | ``resume=True`` | ``resume=False`` |
  |---|---|---|
  | missing or empty | new run | new run |
  | same configuration | resumes | moved aside, new run |
  | another configuration | `ConfigMismatchError` | moved aside, new run |
  | checkpoints, no configuration | `ConfigMismatchError` | moved aside |
  """
  run = Run(path=pathlib.Path(directory), resumed=False)
  path = run.path / 'config.json'
  text = json.dumps(config, indent=2, sort_keys=True, default=str) + '\n'
  inside = (path, run.checkpoints, run.metrics, run.path / 'runs')
  occupied = [p for p in inside if os.path.lexists(p)]
  try:
    if occupied and not resume:
      os.replace(run.path, _free_name(run.path))
      occupied = []
    run.path.mkdir(parents=True, exist_ok=True)
    if occupied:
      if path not in occupied:
        raise ConfigMismatchError(
          f'--out {directory} holds {occupied[0].name} but no config.json: '
          'choose another --out, or --no-resume to move it aside'
        )
      _check_same(directory, path.read_text(), text, set(ignore))
    temporary = run.path / 'config.json.tmp'
    temporary.write_text(text)
    os.replace(temporary, path)
  except OSError as error:
    raise OutputError(
      f'--out {directory} cannot be written to ({error.strerror}): choose a '
      'folder that you may write to, on a disk with free space'
    ) from error
  return dataclasses.replace(run, resumed=bool(occupied))


@contextlib.contextmanager
def exit_on_error() -> Iterator[None]:
  """Ends a program with one sentence and status 1 where a run has to stop.

  For ``main`` functions. `OSError` (disks, checkpoints), `ConfigMismatchError`
  and `FloatingPointError` (losses) are the user's to act on, and a traceback
  would bury the sentence; anything else is a bug and passes through. After
  `Preempted` the sentence says how to go on, and the status is 143.

  >>> with exit_on_error():
  ...   raise OutputError('--out /proc cannot be written to')
  Traceback (most recent call last):
  SystemExit: error: --out /proc cannot be written to
  """
  try:
    yield
  except Preempted as stopped:
    print(stopped, file=sys.stderr)
    raise
  except (OSError, ConfigMismatchError, FloatingPointError) as error:
    sys.exit(f'error: {error}')


def _check_same(
  directory: Any, before: str, after: str, ignore: set[str]
) -> None:
  try:
    old = dict(_flatten(json.loads(before)))
  except ValueError as error:
    raise ConfigMismatchError(
      f'--out {directory} has a damaged config.json ({error}): choose another '
      '--out, or --no-resume to move it aside'
    ) from error
  new = dict(_flatten(json.loads(after)))
  differing = [
    f'{key} (there {old.get(key, "absent")}, now {new.get(key, "absent")})'
    for key in sorted(old.keys() | new.keys())
    if old.get(key) != new.get(key) and key not in ignore
  ]
  if differing:
    raise ConfigMismatchError(
      f'--out {directory} holds a run of another configuration: '
      + ', '.join(differing)
      + ': use the same flags to resume it, another --out, or --no-resume to '
      'move it aside'
    )


def _flatten(tree: Any, prefix: str = '') -> Iterator[tuple[str, str]]:
  """Dotted keys, and values as JSON so that NaN equals NaN."""
  if isinstance(tree, dict) and tree:
    for key, value in tree.items():
      yield from _flatten(value, f'{prefix}.{key}' if prefix else key)
  else:
    yield prefix, json.dumps(tree)


def _free_name(path: pathlib.Path) -> pathlib.Path:
  path = path.absolute()
  n = 1
  while os.path.lexists(path.with_name(f'{path.name}.bak-{n}')):
    n += 1
  return path.with_name(f'{path.name}.bak-{n}')

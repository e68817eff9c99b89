"""The folder of a run: made, recognised, or refused."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import errno
import json
import logging
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mtljax import _files
from mtljax.training._preempt import Preempted
from mtljax.training.disk import _inside, _json, _lock

#: What `open_run` adds to a configuration.
ADDED = ('identity', 'history', 'digest')
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
# Of a sentence: differing keys, and letters of a value.
_MOST_KEYS, _MOST_LETTERS = 20, 200

_log = logging.getLogger(__name__)


class ConfigMismatchError(ValueError):
  """The folder holds a run of another configuration."""


class OutputError(OSError):
  """The folder cannot be made or written to, or holds a link."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
  """A folder that is ready for a run, and this process's alone until its end.

  Attributes:
    path: the folder.
    resumed: whether it held the same run before.
    lock: what keeps other processes out; None where nothing can.
  """

  path: pathlib.Path
  resumed: bool
  lock: _lock.Lock | None = dataclasses.field(
    default=None, repr=False, compare=False
  )

  @property
  def checkpoints(self) -> pathlib.Path:
    """Where the checkpoints go."""
    return self.path / 'checkpoints'

  @property
  def metrics(self) -> pathlib.Path:
    """The file of metrics, one JSON object a line."""
    return self.path / 'metrics.jsonl'

  def release(self) -> None:
    """Lets another process have the folder, before the end of this one."""
    if self.lock is not None:
      self.lock.release()


def open_run(
  directory: str | os.PathLike[str],
  config: Mapping[str, Any],
  *,
  resume: bool = True,
  ignore: Iterable[str] = (),
  identity: Mapping[str, Any] | None = None,
  force: bool = False,
  finished: bool = False,
  changed: Mapping[str, tuple[str, str]] | None = None,
) -> Run:
  """Makes the folder of a run, or finds the same run in it.

  The configuration is kept in ``config.json``. A run resumes only where the
  whole configuration is the same, or it would end in numbers that belong to
  none. The folder is locked until this process ends, however it ends, or calls
  `Run.release`; under `jax.distributed` by the first process. It may be a link
  itself, but holds none (`wandb` apart): what they point to is no part of it.

  Args:
    directory: the folder, made if it is missing.
    config: the configuration, JSON; other values count as their `str`. The
      keys ``identity``, ``history`` and ``digest`` are taken.
    resume: false starts afresh, and moves an old run to ``<name>.bak-<n>``.
    ignore: keys, dotted where nested, that may change between resumes; a key
      stands for all below it.
    identity: what else the numbers hang on, JSON: versions, digests of code and
      data. Kept in ``config.json`` too, and compared likewise.
    force: go on under another identity, or with a ``config.json`` that was
      changed by hand; the ``history`` there says so.
    finished: whether nothing is left to do; then the identity stays that of
      the numbers that are there.
    changed: by name, what else was and is now, changed on purpose; kept in the
      ``history``.

  Returns:
    The folder, and whether it held this run.

  Raises:
    ConfigMismatchError: the folder holds another run, or one of another
      identity; the message has the differing keys with both values. Or its
      ``config.json`` was changed since a run wrote it.
    LockedError: another process has the folder; the message names it.
    OutputError: the folder cannot be written to, or a link is in it, which the
      message names.

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

  ==============================  =====================  ====================
  the folder                      ``resume=True``        ``resume=False``
  ==============================  =====================  ====================
  missing or empty                new run                new run
  same configuration              resumes                moved aside, new run
  another configuration           `ConfigMismatchError`  moved aside, new run
  another identity                `ConfigMismatchError`  moved aside, new run
  another identity, finished      as it is               moved aside, new run
  no identity (an older version)  resumes, said          moved aside, new run
  checkpoints, no configuration   `ConfigMismatchError`  moved aside
  a configuration edited by hand  `ConfigMismatchError`  moved aside
  a link in it                    `OutputError`          moved aside
  another process has it          `LockedError`          `LockedError`
  ==============================  =====================  ====================
  """
  run = Run(path=pathlib.Path(directory), resumed=False)
  values = json.loads(json.dumps(config, default=str))
  identity = json.loads(json.dumps(identity, default=str))
  ignore = set(ignore)
  with _as_output_error(directory):
    occupied = _occupied(run)
    if not occupied:
      run.path.mkdir(parents=True, exist_ok=True)
    elif resume:
      _check_has_config(directory, occupied)
    _check_no_link(directory, only_lock=bool(occupied) and not resume)
    lock = _lock.acquire(run.path)
    if _occupied(run) and not resume:
      os.replace(run.path, _free_name(run.path))
      if lock is not None:
        lock.release()
      run.path.mkdir(parents=True, exist_ok=True)
      lock = _lock.acquire(run.path)
    occupied = _occupied(run)
    history: list[Any] = []
    if occupied:
      _check_has_config(directory, occupied)
      old, edited = _read_config(directory, run.path / 'config.json')
      if edited and not force:
        raise _edited_error(directory, edited, old, values, identity, ignore)
      _check_same(directory, old, values, ignore)
      history = _history(directory, old, identity, force, finished)
      if edited:
        changed = {'config.json': ('as a run wrote it', edited)} | dict(
          changed or {}
        )
      if finished:
        identity = old.get('identity')
      if changed:
        history = [*history, record(changed)]
    if identity:
      values['identity'] = identity
    if history:
      values['history'] = history
    text = json.dumps(_json.seal(values), indent=2, sort_keys=True) + '\n'
    if _lock.is_first():
      _files.replace_text(run.path / 'config.json', text)
    if lock is not None:
      _inside.remove_leftovers(run.path)
  return dataclasses.replace(run, resumed=bool(occupied), lock=lock)


def lock_run(directory: str | os.PathLike[str]) -> None:
  """Locks the folder of a run before `open_run` does; leaves others alone.

  Raises:
    LockedError: another process has the folder.
    OutputError: the folder cannot be written to, or holds a link.
  """
  path = pathlib.Path(directory)
  with _as_output_error(directory):
    if os.path.lexists(path / 'config.json'):
      _check_no_link(directory)
      _lock.acquire(path)


@contextlib.contextmanager
def _as_output_error(directory: Any) -> Iterator[None]:
  try:
    yield
  except (_lock.LockedError, OutputError):
    raise
  except OSError as error:
    raise OutputError(
      f'directory={directory} cannot be written to ({error.strerror}): choose '
      'a folder that you may write to, on a disk with free space'
    ) from error


@contextlib.contextmanager
def exit_on_error(words: Mapping[str, str] | None = None) -> Iterator[None]:
  """Ends a program with one sentence and status 1 where a run has to stop.

  For ``main`` functions. `OSError` (disks, checkpoints), `ConfigMismatchError`
  and `FloatingPointError` (losses) are the user's to act on, and a traceback
  would bury the sentence; anything else is a bug and passes through. After
  `Preempted` the sentence says how to go on, and the status is 143.

  Args:
    words: what the program calls what a sentence speaks of, such as
      ``{'directory=': '--out ', 'resume=False': '--no-resume'}``.

  >>> with exit_on_error():
  ...   raise OutputError('directory=/proc cannot be written to')
  Traceback (most recent call last):
  SystemExit: error: directory=/proc cannot be written to
  """
  try:
    yield
  except Preempted as stopped:
    print(stopped, file=sys.stderr)
    raise
  except (OSError, ConfigMismatchError, FloatingPointError) as error:
    sentence = _output_sentence(error) or str(error)
    for ours, theirs in (words or {}).items():
      sentence = sentence.replace(ours, theirs)
    sys.exit(f'error: {sentence}')


def _output_sentence(error: Any) -> str | None:
  """Of an error of standard output, which does not know its name."""
  if getattr(error, 'errno', None) not in _FULL or error.filename is not None:
    return None
  place = 'standard output'
  with contextlib.suppress(OSError, ValueError):
    place += f' ({os.readlink(f"/proc/self/fd/{sys.stdout.fileno()}")})'
  return (
    f'{place} cannot be written ({error.strerror}): send it to a terminal, or '
    'to a file on a disk with free space'
  )


def _occupied(run: Run) -> list[pathlib.Path]:
  inside = (run.path / 'config.json', run.checkpoints, run.metrics)
  return [p for p in (*inside, run.path / 'runs') if os.path.lexists(p)]


def _check_has_config(directory: Any, occupied: list[pathlib.Path]) -> None:
  if occupied[0].name != 'config.json':
    raise ConfigMismatchError(
      f'directory={directory} holds {occupied[0].name} but no config.json: '
      'choose another directory, or resume=False to move it aside'
    )


def _check_no_link(directory: Any, *, only_lock: bool = False) -> None:
  path = pathlib.Path(directory)
  link = path / _lock.NAME
  if not link.is_symlink():
    link = None if only_lock else _inside.find_link(path)
  if link is not None:
    raise OutputError(
      f'directory={directory} holds a link, {link.relative_to(path)} -> '
      f'{os.readlink(link)}, and links in it are not followed: put what it '
      'points to in its place or remove it, or choose another directory'
    )


def _read_config(
  directory: Any, path: pathlib.Path
) -> tuple[dict[str, Any], str]:
  """The configuration in a folder, and how it was changed, if it was."""
  try:
    old = _json.read(path)
    if not isinstance(old, dict):
      raise ValueError('it is no object')
  except ValueError as error:
    raise ConfigMismatchError(
      f'directory={directory} has a damaged config.json ({error}): choose '
      'another directory, or resume=False to move it aside'
    ) from error
  if 'digest' not in old:
    sealed = any(key in old for key in ADDED)
    return old, 'its digest is gone' if sealed else ''
  try:
    return _json.unseal(old), ''
  except ValueError as error:
    return old, str(error)


def _edited_error(
  directory: Any,
  edited: str,
  old: dict[str, Any],
  new: dict[str, Any],
  identity: dict[str, Any] | None,
  ignore: Iterable[str],
) -> ConfigMismatchError:
  found = differences(old, new, {*ignore, *ADDED})
  if identity is not None and 'identity' in old:
    found |= differences(old['identity'], identity)
  here = f'; it differs from this run in {in_words(found)}' if found else ''
  return ConfigMismatchError(
    f'directory={directory} has a config.json that was changed since a run '
    f'wrote it ({edited}){here}: put back the one before, pass force=True to '
    'go on with it (config.json will say so), choose another directory, or '
    'resume=False to move it aside'
  )


def _check_same(
  directory: Any, old: dict[str, Any], new: dict[str, Any], ignore: set[str]
) -> None:
  differing = differences(old, new, ignore | set(ADDED))
  if differing:
    raise ConfigMismatchError(
      f'directory={directory} holds a run of another configuration: '
      + in_words(differing)
      + ': use the same options to resume it, another directory, or '
      'resume=False to move it aside'
    )


def _history(
  directory: Any,
  old: dict[str, Any],
  identity: dict[str, Any] | None,
  force: bool,
  finished: bool,
) -> list[Any]:
  """What the run went through, or ConfigMismatchError for what it must not."""
  history = old.get('history', [])
  if not isinstance(history, list):
    history = [history]
  if finished or identity is None:
    return history
  if 'identity' not in old:
    _log.warning(
      'directory=%s does not say what made it (an older version wrote it): it '
      'is taken to be the versions, code and data of now',
      directory,
    )
    return [*history, record({'identity': ('absent', 'noted from here on')})]
  differing = differences(old['identity'], identity)
  if differing and not force:
    raise ConfigMismatchError(
      f'directory={directory} is not finished and was begun with other '
      f'versions, code or data: {in_words(differing)}: go on with those, pass '
      'force=True to go on with these (config.json will say so), or choose '
      'another directory'
    )
  return [*history, record(differing)] if differing else history


def record(differing: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
  """An entry of the history in ``config.json``."""
  now = dt.datetime.now(dt.UTC).isoformat(timespec='seconds')
  return {'at': now, 'changed': {k: list(v) for k, v in differing.items()}}


def differences(
  old: Any, new: Any, ignore: Iterable[str] = ()
) -> dict[str, tuple[str, str]]:
  """Dotted keys whose values differ, and both values as JSON.

  >>> differences({'a': {'b': 1}}, {'a': {'b': 2}, 'c': 3}, ignore=['c'])
  {'a.b': ('1', '2')}
  """
  ignored = set(ignore)
  before, after = dict(flatten(old)), dict(flatten(new))

  def counts(key):
    parts = key.split('.')
    return not any(
      '.'.join(parts[: n + 1]) in ignored for n in range(len(parts))
    )

  return {
    key: (before.get(key, 'absent'), after.get(key, 'absent'))
    for key in sorted(before.keys() | after.keys())
    if before.get(key) != after.get(key) and counts(key)
  }


def in_words(differing: Mapping[str, tuple[str, str]]) -> str:
  """The keys that differ, with both values, as far as one wants to read."""

  def short(text: str) -> str:
    return text if len(text) <= _MOST_LETTERS else text[:_MOST_LETTERS] + ' ...'

  words = [
    f'{short(key)} (there {short(old)}, now {short(new)})'
    for key, (old, new) in differing.items()
  ]
  if len(words) > _MOST_KEYS:
    words[_MOST_KEYS:] = [f'and {len(words) - _MOST_KEYS} more']
  return ', '.join(words)


def flatten(tree: Any, prefix: str = '') -> Iterator[tuple[str, str]]:
  """Dotted keys, and values as JSON so that NaN equals NaN."""
  if isinstance(tree, dict) and tree:
    for key, value in tree.items():
      yield from flatten(value, f'{prefix}.{key}' if prefix else key)
  else:
    yield prefix, json.dumps(tree)


def _free_name(path: pathlib.Path) -> pathlib.Path:
  path = path.absolute()
  n = 1
  while os.path.lexists(path.with_name(f'{path.name}.bak-{n}')):
    n += 1
  return path.with_name(f'{path.name}.bak-{n}')

"""One process a folder: a lock that ends with the process that holds it."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import logging
import os
import pathlib
import socket
import time

import jax

from mtljax.training.disk import _json

try:
  import fcntl
except ImportError:  # Windows
  fcntl = None

NAME = '.lock'
# A report looks at a lock for a moment, by taking a part in it.
_TRIES, _PAUSE = 5, 0.05
_UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)

_log = logging.getLogger(__name__)
_held: dict[tuple[int, int], Lock] = {}
_said: set[str] = set()


class LockedError(OSError):
  """Another process works in the folder."""


class Lock:
  """A lock that this process holds, until `release` or its end.

  A forked child does not hold it, whether or not it outlives this process.
  """

  def __init__(self, file: int, identity: tuple[int, int]):
    self._file = file
    self._identity = identity

  def release(self) -> None:
    """Lets others have the folder; once more does nothing."""
    if _held.pop(self._identity, None) is not None:
      os.close(self._file)


def acquire(folder: pathlib.Path) -> Lock | None:
  """Locks a folder for this process, which may do so more than once.

  Under `jax.distributed` the first process does so for all of them.

  Args:
    folder: it has to be there.

  Returns:
    The lock; None in the other processes of a run, and where the file system
    (or Windows) has none, which is said once a folder.

  Raises:
    LockedError: another process holds it; the message names that process.
    OSError: the file of the lock cannot be made.
  """
  if not is_first():
    return None
  if fcntl is None:
    _say_once(folder, 'this system has no flock')
    return None
  path = folder / NAME
  for trial in range(_TRIES):
    if trial:
      time.sleep(_PAUSE)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    file = os.open(path, flags, 0o666)
    try:
      identity = _identity(os.fstat(file))
      if identity in _held:
        os.close(file)
        return _held[identity]
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      os.close(file)
      if error.errno in _UNSUPPORTED:
        _say_once(folder, f'its file system has no locks ({error.strerror})')
        return None
      if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
        raise
      continue
    if not _same_file(path, identity):  # moved aside by who held it
      os.close(file)
      continue
    _sign(file)
    _held[identity] = Lock(file, identity)
    return _held[identity]
  raise LockedError(
    f'directory={folder} is in use by {_holder(path)}: wait for it, end it, or '
    'choose another directory'
  )


def held_by_other(folder: str | os.PathLike[str]) -> str | None:
  """Who works in a folder, in words; None if no one else does."""
  path = pathlib.Path(folder) / NAME
  if fcntl is None:
    return None
  flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
  try:
    file = os.open(path, flags)
  except OSError:
    return None
  try:
    if _identity(os.fstat(file)) not in _held:
      fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return None
  except OSError as error:
    blocked = error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    return _holder(path) if blocked else None
  finally:
    os.close(file)


def is_first() -> bool:
  """Whether this is the first process of a run, or its only one."""
  # Asked in this order, so as not to start jax before it is distributed.
  return not jax.distributed.is_initialized() or jax.process_index() == 0


def _identity(stat: os.stat_result) -> tuple[int, int]:
  return stat.st_dev, stat.st_ino


def _same_file(path: pathlib.Path, identity: tuple[int, int]) -> bool:
  with contextlib.suppress(OSError):
    return _identity(os.stat(path)) == identity
  return False


def _sign(file: int) -> None:
  now = dt.datetime.now(dt.UTC).isoformat(timespec='seconds')
  signed = {'pid': os.getpid(), 'host': socket.gethostname(), 'since': now}
  with contextlib.suppress(OSError):  # a full disk: locked, but not signed
    os.ftruncate(file, 0)
    os.pwrite(file, _json.dumps(signed).encode(), 0)


def _holder(path: pathlib.Path) -> str:
  try:
    found = _json.read(path)
    pid, host, since = (found[key] for key in ('pid', 'host', 'since'))
    known = type(pid) is int and 0 < pid < 2**31 and host.isprintable()
    if known and len(host) <= 255 and dt.datetime.fromisoformat(since):
      return f'process {pid} on {host} (since {since})'
  except (OSError, ValueError, KeyError, TypeError, AttributeError):
    pass
  return 'another process'


def _forget() -> None:
  """In a forked child, which would keep the lock after its parent's end."""
  while _held:
    os.close(_held.popitem()[1]._file)


if hasattr(os, 'register_at_fork'):
  os.register_at_fork(after_in_child=_forget)


def _say_once(folder: pathlib.Path, why: str) -> None:
  if str(folder) not in _said:
    _said.add(str(folder))
    _log.warning(
      'directory=%s cannot be locked: %s. Let no second process use it '
      'meanwhile',
      folder,
      why,
    )

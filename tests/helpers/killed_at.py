r"""Runs a module as a program, and kills it just before a file operation.

  python killed_at.py MODULE ...

For each line of its input, an object with ``out``, ``number`` and ``log``, it
runs the module in a process of its own (forked, so that the imports are done
once), and answers with a line: how that process ended and what it said.

Operations are counted that Python does in ``out``: opening for writing,
renaming, removing, making folders, forcing to the disk, and each line of
metrics. Before that with the number the process ends by SIGKILL; 0 never kills.
What ended it, or how many operations there were, is the last line of ``log``.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import signal
import sys
import tempfile
import threading
import traceback
from typing import Any

from mtljax.training import JsonlWriter

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
#: By the audit event, where its paths are, and where their folders' numbers.
_EVENTS = {
  'os.rename': ((0, 1), (2, 3)),
  'os.remove': ((0,), (1,)),
  'os.mkdir': ((0,), (2,)),
  'os.rmdir': ((0,), (1,)),
  'os.truncate': ((0,), ()),
}


class Counter:
  """Counts operations in a folder, and kills before one of them."""

  def __init__(self, out: str, number: int, log: str):
    self._out = os.path.realpath(out)
    self._number = number
    self._log = log
    self._count = itertools.count(1)
    self._inside = threading.local()
    self.done = 0

  def audit(self, event: str, args: tuple[Any, ...]) -> None:
    """A hook for `sys.addaudithook`."""
    if getattr(self._inside, 'on', False):
      return
    self._inside.on = True
    try:
      if event == 'open' and _writes(*args[1:]):
        self.see('open', args[0])
      elif event in _EVENTS:
        paths, folders = _EVENTS[event]
        for place, folder in itertools.zip_longest(paths, folders):
          near = -1 if folder is None else args[folder]
          if self.see(event.removeprefix('os.'), args[place], near):
            break
    finally:
      self._inside.on = False

  def see(self, what: str, path: Any, folder: int = -1) -> bool:
    """Counts an operation if its path is in the folder."""
    try:
      if isinstance(path, int):
        path = os.readlink(f'/proc/self/fd/{path}')
      path = os.fsdecode(path)
      if isinstance(folder, int) and folder >= 0:
        path = os.path.join(os.readlink(f'/proc/self/fd/{folder}'), path)
    except (OSError, TypeError):
      return False
    path = os.path.abspath(path)
    if os.path.commonpath([self._out, path]) != self._out:
      return False
    self.done = next(self._count)
    if self.done == self._number:
      self.write(f'{what} {os.path.relpath(path, self._out)}')
      os.kill(os.getpid(), signal.SIGKILL)
    return True

  def write(self, line: str) -> None:
    """Adds a line to the log."""
    with open(self._log, 'a') as file:
      file.write(line + '\n')


def _writes(mode: str | None, flags: int) -> bool:
  if mode is None:
    return bool(flags & _WRITING)
  return any(letter in mode for letter in 'wax+')


def run(out: str, number: int, log: str, module: str, *args: str) -> None:
  """Runs the program here."""
  counter = Counter(out, number, log)
  fsync, write = os.fsync, JsonlWriter.write

  def seen(file):
    counter.see('fsync', file if isinstance(file, int) else file.fileno())
    fsync(file)

  def line(self, *args, **tags):
    counter.see('line', self.path)
    write(self, *args, **tags)

  os.fsync, JsonlWriter.write = seen, line  # pyrefly: ignore
  sys.addaudithook(counter.audit)
  sys.argv = [module, '--out', out, *args]
  try:
    sys.modules[module].main()
  finally:
    counter.write(str(counter.done))


def fork(command: dict[str, Any], *args: str) -> dict[str, Any]:
  """Runs the program in a process of its own."""
  with tempfile.TemporaryFile('w+') as said:
    child = os.fork()
    if not child:
      status = 1
      try:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        run(*command.values(), *args)
        status = 0
      except SystemExit as end:
        if end.code and not isinstance(end.code, int):
          print(end.code, file=sys.stderr)
        status = bool(end.code)
      except BaseException:  # noqa: BLE001
        traceback.print_exc()
      finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    _, status = os.waitpid(child, 0)
    said.seek(0)
    return {'status': os.waitstatus_to_exitcode(status), 'said': said.read()}


def main(module: str, *args: str) -> None:
  """Answers one line after the other."""
  importlib.import_module(module)
  for line in sys.stdin:
    print(json.dumps(fork(json.loads(line), module, *args)), flush=True)


if __name__ == '__main__':
  main(*sys.argv[1:])

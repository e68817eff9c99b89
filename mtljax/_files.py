"""Files that are replaced in one piece."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import secrets
from collections.abc import Callable
from typing import Any

#: The names that `replace` writes to before a file has its own.
TEMPORARY = re.compile(r'\.(?P<name>.+)\.[0-9a-f]{12}\.tmp', re.DOTALL)


def replace(
  path: str | os.PathLike[str], write: Callable[[pathlib.Path], Any]
) -> None:
  """Writes a file so that a kill leaves the old one or the new one, whole.

  What is written goes to a file beside it (its name is a `TEMPORARY` one), is
  forced to the disk, and takes its name. A link of that name is replaced, and
  what it points to is left alone.

  Args:
    path: the file.
    write: writes the content to the path that it is given.

  Raises:
    OSError: it cannot be written; the old file is as it was. ``filename`` is
      the path.
  """
  path = pathlib.Path(path)
  temporary = path.with_name(f'.{path.name}.{secrets.token_hex(6)}.tmp')
  flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, 'O_NOFOLLOW', 0)
  try:
    os.close(os.open(temporary, flags, 0o666))
    write(temporary)
    with open(temporary, 'rb+') as file:
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except BaseException as error:
    with contextlib.suppress(OSError):
      os.unlink(temporary)
    if isinstance(error, OSError):
      error.filename = str(path)
      error.filename2 = None
    raise


def replace_bytes(path: str | os.PathLike[str], content: bytes) -> None:
  """`replace`, with bytes."""
  replace(path, lambda temporary: temporary.write_bytes(content))


def replace_text(path: str | os.PathLike[str], text: str) -> None:
  """`replace`, with text in UTF-8, the ends of its lines as they are."""
  replace_bytes(path, text.encode())

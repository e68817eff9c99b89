"""Files that are replaced in one piece."""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile


def replace_text(path: str | os.PathLike[str], text: str) -> None:
  """Writes a text file so that a kill leaves the old one or the new one.

  The text goes to a file beside it, is forced to the disk, and takes its name.
  A link of that name is replaced, and what it points to is left alone.

  Raises:
    OSError: it cannot be written; the old file is as it was. ``filename`` is
      the path.
  """
  path = pathlib.Path(path)
  temporary = None
  try:
    descriptor, temporary = tempfile.mkstemp(
      dir=path.parent, prefix=f'.{path.name}.', suffix='.tmp'
    )
    with open(descriptor, 'w', encoding='utf-8', newline='') as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(temporary, 0o666 & ~mask)
    os.replace(temporary, path)
  except BaseException as error:
    if temporary is not None:
      with contextlib.suppress(OSError):
        os.unlink(temporary)
    if isinstance(error, OSError):
      error.filename = str(path)
      error.filename2 = None
    raise

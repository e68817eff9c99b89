"""Raw text files, gzipped or not."""

from __future__ import annotations

import gzip
import os
import pathlib
import zlib
from collections.abc import Iterator


def find(folder: str | os.PathLike[str], name: str) -> pathlib.Path | None:
  """A file of a folder, gzipped or not; None: not there."""
  for suffix in ('', '.gz'):
    path = pathlib.Path(folder) / f'{name}{suffix}'
    if path.is_file():
      return path
  return None


def lines(path: str | os.PathLike[str], name: str) -> Iterator[str]:
  """The lines of a file.

  Args:
    path: of the file, gzipped or not.
    name: of its data set, as `mtljax.data.fetch` knows it.

  Raises:
    ValueError: the file is damaged.
    OSError: it cannot be read.
  """
  path = pathlib.Path(path)
  with path.open('rb') as file:
    zipped = file.read(2) == b'\x1f\x8b'
  with (gzip.open if zipped else open)(path, 'rt', encoding='utf-8') as file:
    try:
      yield from file
    except (
      EOFError,
      zlib.error,
      gzip.BadGzipFile,
      UnicodeDecodeError,
    ) as error:
      raise ValueError(
        f'{path} is damaged ({error}): put a whole one there, or fetch it '
        f'again, python -m mtljax.data.fetch {name} --force'
      ) from error

"""JSON from files that anything may have happened to, and their digests."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import stat
from collections.abc import Mapping
from typing import Any

#: Bytes; no file of a run is near it.
MOST = 64 * 2**20
#: Levels; likewise. What walks through a value may recurse so far.
DEEPEST = 64


def loads(text: str | bytes, **kwargs: Any) -> Any:
  """`json.loads`, all of whose complaints are a ValueError."""
  try:
    found = json.loads(text, **kwargs)
  except RecursionError:
    raise ValueError('it is nested too deep') from None
  braces = ('{', '[') if isinstance(text, str) else (b'{', b'[')
  if sum(map(text.count, braces)) > DEEPEST:  # pyrefly: ignore
    _check_depth(found)
  return found


def _check_depth(value: Any) -> None:
  level = [value]
  for _ in range(DEEPEST + 1):
    level = [
      inner
      for outer in level
      for inner in (outer.values() if isinstance(outer, dict) else outer)
      if isinstance(inner, dict | list)
    ]
    if not level:
      return
  raise ValueError('it is nested too deep')


def dumps(value: Any) -> str:
  """One line, the same for the same value."""
  return json.dumps(value, sort_keys=True)


def read(path: str | os.PathLike[str], **kwargs: Any) -> Any:
  """The content of a JSON file.

  Raises:
    ValueError: it is no file, not JSON, or deeper or larger than a file of a
      run.
    OSError: it cannot be read.
  """
  path = pathlib.Path(path)
  status = path.stat()
  if not stat.S_ISREG(status.st_mode):
    raise ValueError('it is no file')
  if status.st_size > MOST:
    raise ValueError(f'it has {status.st_size:,} bytes, more than {MOST:,}')
  return loads(path.read_bytes(), **kwargs)


def digest(value: Any) -> str:
  """SHA-256 of a value as JSON."""
  return hashlib.sha256(dumps(value).encode()).hexdigest()


def file_digest(path: str | os.PathLike[str]) -> str:
  """SHA-256 of a file."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
  """An object with the digest of the rest of it."""
  return {**value, 'digest': digest(value)}


def unseal(value: Any) -> dict[str, Any]:
  """An object without its digest, which has to be right.

  One without a digest is taken as it is: an older version wrote it.

  Raises:
    ValueError: it is no object, or was changed since.
  """
  if not isinstance(value, dict):
    raise ValueError('it is no object')
  rest = dict(value)
  if 'digest' in rest and rest.pop('digest') != digest(rest):
    raise ValueError('its digest differs')
  return rest

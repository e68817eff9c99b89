"""JSON from files that anything may have happened to, and their digests."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

#: Bytes; no file of a run is near it.
MOST = 64 * 2**20


def loads(text: str | bytes, **kwargs: Any) -> Any:
  """`json.loads`, all of whose complaints are a ValueError."""
  try:
    return json.loads(text, **kwargs)
  except RecursionError:
    raise ValueError('it is nested too deep') from None


def dumps(value: Any) -> str:
  """One line, the same for the same value."""
  return json.dumps(value, sort_keys=True)


def read(path: str | os.PathLike[str], **kwargs: Any) -> Any:
  """The content of a JSON file.

  Raises:
    ValueError: it is not JSON, or deeper or larger than a file of a run.
    OSError: it cannot be read.
  """
  path = pathlib.Path(path)
  size = path.stat().st_size
  if size > MOST:
    raise ValueError(f'it has {size:,} bytes, more than {MOST:,}')
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
  try:
    if 'digest' in rest and rest.pop('digest') != digest(rest):
      raise ValueError('its digest differs')
  except RecursionError:
    raise ValueError('it is nested too deep') from None
  return rest


def replace(path: pathlib.Path, write: Callable[[pathlib.Path], Any]) -> None:
  """Writes a file beside it, then puts that in its place."""
  temporary = path.with_name(path.name + '.tmp')
  write(temporary)
  os.replace(temporary, path)

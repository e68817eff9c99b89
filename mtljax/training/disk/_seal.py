"""Seals: what makes a directory of files a whole checkpoint.

A checkpoint is a directory ``<step>/`` and a seal beside it, ``<step>.json``,
which is written last and in one piece and removed first. So a step without a
seal does not exist, whenever the process was killed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
from typing import Any

from mtljax import _files
from mtljax.training.disk import _json

_KEYS = {'step', 'score', 'meta', 'data_state', 'leaves', 'files', 'digest'}
_OURS = re.compile(r'(\d+)(\.json(\.tmp)?|\.orbax-checkpoint-tmp.*)?')
_SEAL = re.compile(r'(\d+)\.json')


class CheckpointError(OSError):
  """A checkpoint could not be written, or none could be read."""


def steps_on_disk(directory: pathlib.Path, *, sealed: bool = False) -> set[int]:
  """Steps with any trace in a directory, or with a seal."""
  names = os.listdir(directory) if directory.is_dir() else []
  if sealed:
    return {int(m[1]) for m in map(_SEAL.fullmatch, names) if m}
  return {step for step in map(_step, names) if step is not None}


def write(directory: pathlib.Path, step: int, seal: dict[str, Any]) -> None:
  """Seals a step with the digests of its files."""
  seal = seal | {'files': _digests(directory / str(step))}
  text = json.dumps(_json.seal(seal))
  _files.replace_text(directory / f'{step}.json', text)


def read(directory: pathlib.Path, step: int) -> dict[str, Any]:
  """The seal of a step, if every file is as it was when sealed.

  Raises:
    CheckpointError: the seal or a file is damaged or missing.
  """
  path = directory / str(step)
  if step not in steps_on_disk(directory, sealed=True):
    raise CheckpointError(f'{path} is incomplete (its save was cut short)')
  try:
    seal = _read(path.with_suffix('.json'))
  except (OSError, ValueError) as error:
    raise CheckpointError(f'{path}.json is damaged ({error})') from error
  if seal['step'] != step:
    raise CheckpointError(f'{path}.json is that of step {seal["step"]}')
  try:
    found = _digests(path)
  except OSError as error:
    raise CheckpointError(f'{path} cannot be read ({error})') from error
  for name, expected in seal['files'].items():
    if name not in found:
      raise CheckpointError(f'{path / name} is missing')
    if found[name] != expected:
      raise CheckpointError(f'{path / name} is damaged (its digest differs)')
  return seal


def scores(directory: pathlib.Path) -> dict[int, float | None]:
  """Sealed steps and their scores, None where there is none to believe."""
  found: dict[int, float | None] = {}
  for step in steps_on_disk(directory, sealed=True):
    found[step] = None
    with contextlib.suppress(OSError, ValueError, TypeError, OverflowError):
      found[step] = float(_read(directory / f'{step}.json')['score'])
  return found


def remove(directory: pathlib.Path, steps: set[int]) -> None:
  """Removes steps, seal first: what is half removed no longer exists."""
  for step in steps:
    (directory / f'{step}.json').unlink(missing_ok=True)
  for name in os.listdir(directory):
    if _step(name) in steps:
      path = directory / name
      whole = path.is_dir() and not path.is_symlink()
      shutil.rmtree(path) if whole else path.unlink()


def pack(data_state: Any) -> dict[str, Any]:
  """JSON or bytes as JSON."""
  if isinstance(data_state, bytes):
    return {'base64': base64.b64encode(data_state).decode()}
  return {'json': data_state}


def unpack(packed: dict[str, Any]) -> Any:
  """The inverse of `pack`."""
  if 'base64' in packed:
    return base64.b64decode(packed['base64'])
  return packed['json']


def _step(name: str) -> int | None:
  """The step that a file or directory is of; None where it is of none."""
  temporary = _files.TEMPORARY.fullmatch(name)
  match = (
    _SEAL.fullmatch(temporary['name']) if temporary else _OURS.fullmatch(name)
  )
  return int(match[1]) if match else None


def _read(path: pathlib.Path) -> dict[str, Any]:
  seal = _json.read(path)
  if not isinstance(seal, dict) or not _KEYS <= seal.keys():
    raise ValueError('it is no seal')
  if not isinstance(seal['files'], dict):
    raise ValueError('its files are no object')
  return _json.unseal(seal)


def _digests(directory: pathlib.Path) -> dict[str, str]:
  """SHA-256 of every file, each forced to the disk first."""
  digests = {}
  for path in sorted(p for p in directory.rglob('*') if p.is_file()):
    with open(path, 'rb') as f:
      os.fsync(f.fileno())
      digest = hashlib.file_digest(f, 'sha256').hexdigest()
    digests[str(path.relative_to(directory))] = digest
  return digests

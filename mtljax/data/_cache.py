"""What tells a whole data set on disk from a damaged one.

A manifest with the size and SHA-256 of every file is written last, so a folder
with one was whole. A folder without, as ``tfds build`` makes it, is read
through once: its records have checksums, their number and their bytes have to
be those of its ``dataset_info.json``, and that has to name the data set.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds
from array_record.python import array_record_module

from mtljax import _files

MANIFEST = 'mtljax_manifest.json'


class DamagedError(ValueError):
  """A file of a data set is not what it was, or what its metadata say."""


def write_manifest(folder: pathlib.Path, identity: str) -> None:
  """Says that the folder's files, as they are now, are this data set."""
  files = _digests(folder)
  text = json.dumps(
    {'data_set': identity, 'files': files, 'digest': _digest(identity, files)},
    indent=2,
  )
  _files.replace_text(folder / MANIFEST, text + '\n')


def has_manifest(folder: pathlib.Path) -> bool:
  return os.path.lexists(folder / MANIFEST)


def check_manifest(folder: pathlib.Path, identity: str) -> str:
  """The digest of all files of a folder, each of which is as it was built.

  Raises:
    DamagedError: a file is missing, cut or changed, or is another data set's.
  """
  path = folder / MANIFEST
  try:
    found = json.loads(path.read_text())
    files, name = dict(found['files']), found['data_set']
    digest = found['digest']
  except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
    raise DamagedError(f'{path} cannot be read ({error})') from error
  if digest != _digest(name, files):
    raise DamagedError(f'{path} is damaged (its digest differs)')
  if name != identity:
    raise DamagedError(f'{path} is of {name}, not of {identity}')
  try:
    now = _digests(folder)
  except OSError as error:
    raise DamagedError(f'{folder} cannot be read ({error})') from error
  for file in sorted(files.keys() | now.keys()):
    if file not in now:
      raise DamagedError(f'{folder / file} is missing')
    if file not in files:
      raise DamagedError(f'{folder / file} is not of this data set')
    if files[file][0] != now[file][0]:
      raise DamagedError(
        f'{folder / file} has {now[file][0]} bytes, not {files[file][0]}'
      )
    if files[file] != now[file]:
      raise DamagedError(f'{folder / file} is damaged (its digest differs)')
  return digest


def check_records(
  info: tfds.core.DatasetInfo,
  splits: Sequence[str],
  *,
  name: str,
  config: str | None = None,
) -> None:
  """Reads every record of some splits, counts them, and adds their bytes.

  Args:
    info: what the metadata of the folder say.
    splits: to read.
    name: of the data set that it has to be.
    config: its configuration; None: it has none, or it does not matter.

  Raises:
    DamagedError: a file is missing or damaged, has other records than the
      metadata say, or the metadata are those of another data set.
  """
  path = pathlib.Path(info.data_dir) / 'dataset_info.json'
  try:
    # What tfds has read is in part what its code says.
    written = json.loads(path.read_text())
    there, wanted = written['name'], name
    if config is not None:
      there, wanted = f'{there}/{written["configName"]}', f'{wanted}/{config}'
  except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
    raise DamagedError(f'{path} cannot be read ({error})') from error
  if there != wanted:
    raise DamagedError(f'{path} is of {there}, not of {wanted}')
  for split in splits:
    if split not in info.splits:
      raise DamagedError(f'{info.data_dir} has no split {split}')
    found = info.splits[split]
    records, on_disk = 0, 0
    for file, expected in zip(
      found.filepaths, found.shard_lengths, strict=True
    ):
      lengths = _record_lengths(file)
      if len(lengths) != expected:
        raise DamagedError(
          f'{file} has {len(lengths)} examples, and dataset_info.json says '
          f'{expected}'
        )
      records += sum(lengths)
      on_disk += os.stat(file).st_size
    # Writers of tfds that sort nothing count the bytes of the files.
    if found.num_bytes not in (0, records, on_disk):
      raise DamagedError(
        f'{found.filepaths[0]} is of another data set: the examples of {split} '
        f'have {records} bytes, and dataset_info.json says {found.num_bytes}'
      )


def _record_lengths(path: os.PathLike[str]) -> list[int]:
  try:
    reader = array_record_module.ArrayRecordReader(os.fspath(path))
    lengths = [len(record) for record in reader.read_all()]
    reader.close()
  # Its errors have no class of their own.
  except Exception as error:
    reason = str(error).splitlines()[0] if str(error) else 'no reason given'
    raise DamagedError(f'{path} cannot be read ({reason})') from error
  return lengths


@contextlib.contextmanager
def locked(path: pathlib.Path, waiting: Callable[[], object]) -> Iterator[None]:
  """Lets one process at a time build a data set; a kill releases the lock.

  A folder that cannot be written to is not locked: nothing is built there.
  """
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o666)
  except OSError:
    yield
    return
  try:
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      waiting()
      fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
  finally:
    os.close(descriptor)


def _digests(folder: pathlib.Path) -> dict[str, list[Any]]:
  digests = {}
  for path in sorted(p for p in folder.rglob('*') if p.is_file()):
    name = str(path.relative_to(folder))
    if name == MANIFEST or path.name.startswith('.'):
      continue
    with open(path, 'rb') as file:
      digest = hashlib.file_digest(file, 'sha256').hexdigest()
      digests[name] = [os.fstat(file.fileno()).st_size, digest]
  return digests


def _digest(identity: str, files: dict[str, Any]) -> str:
  text = json.dumps([identity, files], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()

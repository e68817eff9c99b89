"""Files of a study: replaced in one piece, and known again by their digests."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mtljax import _files
from mtljax.training.disk import _json

RESULT = 'result.json'
METRICS = 'metrics.jsonl'
PROBE = 'probe.jsonl'
ARTIFACTS = 'artifacts.npz'
#: In a run's folder: under what it was begun.
RUN = 'run.json'
TABLE = 'results.csv'
_SEAL = 'seal'


def write_json(path: pathlib.Path, value: Any) -> None:
  """A JSON file with its digest; what is no object goes below ``value``."""
  whole = value if isinstance(value, Mapping) else {'value': value}
  text = json.dumps(_json.seal(whole), indent=2) + '\n'
  _files.replace_text(path, text)


def read_json(path: pathlib.Path) -> Any:
  """What `write_json` wrote, or an older version without a digest.

  Raises:
    ValueError: it is damaged.
    OSError: it cannot be read.
  """
  found = _json.read(path)
  if not isinstance(found, dict):
    return found
  rest = _json.unseal(found)
  return rest['value'] if rest.keys() == {'value'} else rest


def write_arrays(
  path: pathlib.Path,
  arrays: Mapping[str, Any],
  *,
  name: str = '',
  compressed: bool = False,
) -> None:
  """An npz file with the digest of its arrays, and of what they are of.

  Args:
    path: the file.
    arrays: what it holds; not called ``seal``.
    name: what they are of.
    compressed: whether to compress them.
  """
  arrays = {key: np.asarray(x) for key, x in arrays.items()}
  seal = np.array(digest_arrays(arrays, name))
  save = np.savez_compressed if compressed else np.savez

  def write(temporary):
    with temporary.open('wb') as file:
      save(file, **arrays, **{_SEAL: seal})

  _files.replace(path, write)


def read_arrays(path: pathlib.Path, *, name: str = '') -> dict[str, np.ndarray]:
  """What `write_arrays` wrote, or an older version without a digest.

  Raises:
    ValueError: it is damaged, or of something else.
    OSError: it cannot be read.
  """
  try:
    # A damaged archive would leave a file open that numpy opened itself.
    with path.open('rb') as file, np.load(file) as found:
      arrays = dict(found)
  except OSError:
    raise
  except Exception as error:  # noqa: BLE001 - zip, zlib, struct, header
    raise ValueError(str(error) or type(error).__name__) from error
  seal = arrays.pop(_SEAL, None)
  if seal is not None and str(seal) != digest_arrays(arrays, name):
    raise ValueError('its digest differs')
  return arrays


def digest_arrays(arrays: Mapping[str, Any], name: str = '') -> str:
  """SHA-256 of arrays: their names, types, shapes and numbers."""
  digest = hashlib.sha256(name.encode())
  for key in sorted(arrays):
    array = np.ascontiguousarray(arrays[key])
    digest.update(f'{key} {array.dtype.str} {np.shape(arrays[key])}'.encode())
    digest.update(array.reshape(-1).view(np.uint8).data)
  return digest.hexdigest()


def write_table(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  """A CSV file, and beside it ``<name>.sha256``.

  That is replaced first and allows for the table before too, so a kill between
  the two leaves none that is not known.
  """
  columns = list(dict.fromkeys(name for row in rows for name in row))
  if 'status' in columns:
    columns.remove('status')
    columns.append('status')
  text = io.StringIO(newline='')
  table = csv.DictWriter(text, columns)
  table.writeheader()
  table.writerows(rows)
  whole = text.getvalue().encode()
  digests = [hashlib.sha256(whole).hexdigest()]
  if path.is_file():
    digests.append(_json.file_digest(path))
  lines = ''.join(f'{digest}\n' for digest in digests)
  _files.replace_text(_beside(path), lines)
  _files.replace_bytes(path, whole)


def read_table(path: pathlib.Path) -> list[dict[str, Any]]:
  """The rows of a CSV file.

  Raises:
    ValueError: it is not what `write_table` wrote, or no CSV.
    OSError: it cannot be read.
  """
  whole = path.read_bytes()
  if _beside(path).is_file():
    known = _beside(path).read_text(errors='replace').split()
    if hashlib.sha256(whole).hexdigest() not in known:
      raise ValueError('its digest differs')
  text = io.StringIO(whole.decode('utf-8', errors='replace'), newline='')
  try:
    return list(csv.DictReader(text))
  except csv.Error as error:
    raise ValueError(str(error)) from error


def _beside(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(path.name + '.sha256')


def write_result(
  folder: pathlib.Path, row: Mapping[str, Any], files: Mapping[str, str]
) -> None:
  """The row of a run, with the digests of its files; written last."""
  write_json(folder / RESULT, {**row, 'files': dict(files)})


def read_probe(path: pathlib.Path, names: Sequence[str]) -> np.ndarray:
  """What a run measured inside training, ``(steps, len(names), ...)``.

  A resumed run measures some steps again: the last time counts.

  Raises:
    ValueError: a line is not what a run wrote.
    OSError: it cannot be read.
  """
  found: dict[int, list[Any]] = {}
  for number, line in enumerate(path.read_bytes().splitlines(), start=1):
    try:
      record = _json.loads(line)
      found[int(record['step'])] = [
        np.asarray(record[x], np.float64) for x in names
      ]
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(f'line {number} is damaged') from error
  return np.array(list(found.values()), np.float64)


def read_result(
  folder: pathlib.Path, method: str, seed: int | str
) -> tuple[dict[str, Any], dict[str, str]]:
  """The row of a run that has ended, and the digests of its files.

  Raises:
    ValueError: it is damaged, or of another run.
    OSError: it cannot be read; FileNotFoundError: it has not ended.
  """
  found = _json.read(folder / RESULT)
  sealed = isinstance(found, dict) and 'digest' in found
  if not sealed and (folder / RUN).is_file():
    raise ValueError('it has no digest')
  row = _json.unseal(found)
  files = row.pop('files', {})
  if (row.get('method'), str(row.get('seed'))) != (method, str(seed)):
    raise ValueError(f'it is of {row.get("method")}, seed {row.get("seed")}')
  if row.get('status') == 'ok' and 'best_step' not in row:
    raise ValueError('it has no best_step')
  return row, files if isinstance(files, dict) else {}


def changed(folder: pathlib.Path, files: Mapping[str, str]) -> Iterable[str]:
  """Those of the files that are not as their digests say, and how."""
  for name, digest in files.items():
    path = folder / name
    try:
      if _json.file_digest(path) != digest:
        yield name
    except OSError:
      yield name

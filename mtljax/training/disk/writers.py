"""Where metrics go: lines of JSON, TensorBoard, Weights & Biases."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mtljax import _files
from mtljax.training.disk import _json

#: By the name of a file, how many ``lines`` it has, and their ``sha256``.
Marks = dict[str, dict[str, Any]]


class MetricWriter(Protocol):
  """What the training loop asks of a writer."""

  def write(self, step: int, scalars: Mapping[str, Any], **tags: str) -> None:
    """Records scalars of one step; tags say of what (kind, split)."""

  def truncate_after(self, step: int) -> None:
    """Forgets what was recorded after a step, before the run goes on."""

  def flush(self) -> None:
    """Hands everything to the operating system."""

  def close(self) -> None:
    """Flushes and releases the file or connection."""


class DamagedFileError(OSError):
  """A file of a run is not as the run left it."""


class JsonlWriter:
  """One JSON object a line; each is on disk when `write` returns.

  A float32 is printed with the fewest digits that read back as the same
  float32. JSON has no NaN and no infinity: they become the strings ``"NaN"``,
  ``"Infinity"`` and ``"-Infinity"``, which Python's `float` takes.

  Args:
    path: the file; lines are appended.
    arrays: whether values may be arrays, written as nested lists.

  >>> import tempfile
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   path = pathlib.Path(folder) / 'metrics.jsonl'
  ...   writer = JsonlWriter(path)
  ...   writer.write(1, {'loss/digit': np.float32(0.1)}, kind='train')
  ...   writer.write(2, {'loss/digit': math.nan}, kind='train')
  ...   writer.close()
  ...   print(path.read_text())
  {"kind": "train", "step": 1, "loss/digit": 0.1}
  {"kind": "train", "step": 2, "loss/digit": "NaN"}
  """

  def __init__(self, path: str | os.PathLike[str], *, arrays: bool = False):
    self._value = _numbers if arrays else _number
    self.path = pathlib.Path(path)
    self._file = self._open()
    self._count(self.path.read_bytes().splitlines(keepends=True))

  def _open(self):
    try:
      return open(self.path, 'ab', buffering=0)  # noqa: SIM115
    except OSError as error:
      raise self._error(error) from error

  def _count(self, lines: Sequence[bytes]) -> None:
    self._lines = len(lines)
    self._sha256 = hashlib.sha256(b''.join(lines))

  def write(self, step: int, scalars: Mapping[str, Any], **tags: str) -> None:
    """Appends one line.

    Raises:
      OSError: the disk is full; the lines before are intact.
    """
    values = {name: self._value(name, value) for name, value in scalars.items()}
    line = json.dumps({**tags, 'step': int(step), **values}, allow_nan=False)
    whole = rest = line.encode() + b'\n'
    try:
      while rest:
        rest = rest[self._file.write(rest) :]
    except OSError as error:
      raise self._error(error) from error
    self._lines += 1
    self._sha256.update(whole)

  def mark(self) -> Marks:
    """How many lines are on the disk, and their SHA-256, by the file's name."""
    try:
      if not self._file.closed:
        os.fsync(self._file.fileno())
    except OSError as error:
      raise self._error(error) from error
    mark = {'lines': self._lines, 'sha256': self._sha256.hexdigest()}
    return {self.path.name: mark}

  def truncate_after(self, step: int, marks: Marks | None = None) -> None:
    """Drops lines of later steps and a last line that was cut short.

    Args:
      step: the last that is kept.
      marks: what `mark` returned at that step; lines after them are dropped
        too, and those before have to be what they were.

    Raises:
      DamagedFileError: they are not; the file stays as it is.
      OSError: the file cannot be written.
    """
    lines = self.path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if _step(line) <= step]
    mark = (marks or {}).get(self.path.name)
    if mark is not None:
      kept = self._as_marked(lines, mark, step)
    self._file.close()
    try:
      _files.replace_bytes(self.path, b''.join(kept))
    except OSError as error:
      raise self._error(error) from error
    self._file = self._open()
    self._count(kept)

  def _as_marked(
    self, lines: Sequence[bytes], mark: Mapping[str, Any], step: int
  ) -> list[bytes]:
    kept = list(lines[: mark['lines']])
    if len(kept) < mark['lines']:
      what = f'has {len(kept)} of the {mark["lines"]} lines'
    elif hashlib.sha256(b''.join(kept)).hexdigest() != mark['sha256']:
      what = f'has others than the {mark["lines"]} lines'
    else:
      return kept
    raise DamagedFileError(
      f'{self.path} {what} that were there when step {step} was saved: put the '
      f'file back, or remove the folder {self.path.parent} to do this run again'
    )

  def flush(self) -> None:
    """Does nothing: no line is held back."""

  def close(self) -> None:
    """Closes the file."""
    self._file.close()

  def _error(self, error: OSError) -> OSError:
    return OSError(
      error.errno,
      f'the metrics cannot be written ({error.strerror}): free some disk space '
      'or choose another directory; the same command resumes',
      str(self.path),
    )


class TensorBoardWriter:
  """Scalars for TensorBoard, named ``<split or kind>/<metric>``.

  Args:
    directory: where the event files go.

  Raises:
    ImportError: tensorboardX is not installed.
  """

  def __init__(self, directory: str | os.PathLike[str]):
    try:
      import tensorboardX
    except ImportError as error:
      raise ImportError(
        'TensorBoardWriter needs tensorboardX: pip install mtljax[tensorboard]'
      ) from error
    self._directory = str(directory)
    self._make = tensorboardX.SummaryWriter
    self._purge_step: int | None = None
    self._writer: Any = None

  def write(self, step: int, scalars: Mapping[str, Any], **tags: str) -> None:
    """Adds one point to each curve."""
    if self._writer is None:
      # By default, files opened within the same second share a name.
      self._writer = self._make(
        self._directory,
        purge_step=self._purge_step,
        filename_suffix=f'.{time.time_ns()}',
      )
    prefix = tags.get('split') or tags.get('kind') or 'metrics'
    for name, value in scalars.items():
      if value is not None:
        self._writer.add_scalar(f'{prefix}/{name}', float(value), step)

  def truncate_after(self, step: int) -> None:
    """Tells TensorBoard to hide later points of earlier files."""
    self.close()
    self._purge_step = step + 1

  def flush(self) -> None:
    """Writes what is queued."""
    if self._writer is not None:
      self._writer.flush()

  def close(self) -> None:
    """Flushes and closes the event file."""
    if self._writer is not None:
      self._writer.close()
      self._writer = None


class WandbWriter:
  """Scalars for Weights & Biases, named ``<split or kind>/<metric>``.

  Args:
    **kwargs: for `wandb.init`; give ``id`` so that a resumed run goes on.

  Raises:
    ImportError: wandb is not installed.
  """

  def __init__(self, **kwargs: Any):
    try:
      import wandb  # pyrefly: ignore[missing-import]
    except ImportError as error:
      raise ImportError(
        'WandbWriter needs wandb: pip install mtljax[wandb]'
      ) from error
    self._run = wandb.init(**{'resume': 'allow', **kwargs})

  def write(self, step: int, scalars: Mapping[str, Any], **tags: str) -> None:
    """Logs the scalars of one step."""
    prefix = tags.get('split') or tags.get('kind') or 'metrics'
    values = {
      f'{prefix}/{name}': float(value)
      for name, value in scalars.items()
      if value is not None
    }
    self._run.log(values, step=step)

  def truncate_after(self, step: int) -> None:
    """Does nothing: the server itself ignores steps it has already."""

  def flush(self) -> None:
    """Does nothing: wandb sends in the background."""

  def close(self) -> None:
    """Ends the run."""
    self._run.finish()


class MultiWriter:
  """Passes every call on to several writers.

  Args:
    writers: the writers, called in order.
  """

  def __init__(self, writers: Sequence[MetricWriter]):
    self._writers = tuple(writers)

  def write(self, step: int, scalars: Mapping[str, Any], **tags: str) -> None:
    """Writes to each."""
    for writer in self._writers:
      writer.write(step, scalars, **tags)

  def mark(self) -> Marks:
    """The marks of those that have any; of files of one name, none."""
    found = [name for writer in self._writers for name in marks_of(writer)]
    return {
      name: mark
      for writer in self._writers
      for name, mark in marks_of(writer).items()
      if found.count(name) == 1
    }

  def truncate_after(self, step: int, marks: Marks | None = None) -> None:
    """Truncates each."""
    for writer in self._writers:
      truncate(writer, step, marks)

  def flush(self) -> None:
    """Flushes each."""
    for writer in self._writers:
      writer.flush()

  def close(self) -> None:
    """Closes each."""
    for writer in self._writers:
      writer.close()


def marks_of(*writers: MetricWriter | None) -> Marks:
  """The marks of all writers that have any."""
  found: Marks = {}
  for writer in writers:
    if hasattr(writer, 'mark'):
      found |= writer.mark()
  return found


def truncate(
  writer: MetricWriter, step: int, marks: Marks | None = None
) -> None:
  """`truncate_after`, with the marks where the writer has any."""
  if hasattr(writer, 'mark'):
    writer.truncate_after(step, marks)  # pyrefly: ignore
  else:
    writer.truncate_after(step)


def _number(name: str, value: Any) -> Any:
  """A JSON value for a scalar of any kind."""
  if value is None:
    return None
  array = np.asarray(value)
  if array.shape or array.dtype.kind in 'OUSc':
    raise TypeError(
      f'metric {name!r} has to be a real scalar, not {value!r}: reduce it, or '
      'write its entries under names of their own'
    )
  if array.dtype.kind in 'biu':
    return array.item()
  if array.dtype.itemsize <= 4:
    number = float(str(array.astype(np.float32)[()]))
  else:
    number = float(array)
  if math.isnan(number):
    return 'NaN'
  if math.isinf(number):
    return 'Infinity' if number > 0 else '-Infinity'
  return number


def _numbers(name: str, value: Any) -> Any:
  """A JSON value for an array of any shape."""
  if np.ndim(value) == 0:
    return _number(name, value)
  return [_numbers(name, x) for x in np.asarray(value)]


def _step(line: bytes) -> float:
  """The step of a line; infinite where the line is not whole."""
  try:
    step = _json.loads(line)['step'] if line.endswith(b'\n') else math.inf
    return step if isinstance(step, int | float) else math.inf
  except (ValueError, KeyError, TypeError):
    return math.inf

"""Where metrics go: lines of JSON, TensorBoard, Weights & Biases."""

from __future__ import annotations

import json
import math
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np


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

  def _open(self):
    try:
      return open(self.path, 'ab', buffering=0)  # noqa: SIM115
    except OSError as error:
      raise self._error(error) from error

  def write(self, step: int, scalars: Mapping[str, Any], **tags: str) -> None:
    """Appends one line.

    Raises:
      OSError: the disk is full; the lines before are intact.
    """
    values = {name: self._value(name, value) for name, value in scalars.items()}
    line = json.dumps({**tags, 'step': int(step), **values}, allow_nan=False)
    rest = line.encode() + b'\n'
    try:
      while rest:
        rest = rest[self._file.write(rest) :]
    except OSError as error:
      raise self._error(error) from error

  def truncate_after(self, step: int) -> None:
    """Drops lines of later steps and a last line that was cut short."""
    self._file.close()
    lines = self.path.read_bytes().splitlines(keepends=True)
    kept = b''.join(line for line in lines if _step(line) <= step)
    temporary = self.path.with_name(self.path.name + '.tmp')
    try:
      temporary.write_bytes(kept)
      os.replace(temporary, self.path)
    except OSError as error:
      raise self._error(error) from error
    self._file = self._open()

  def flush(self) -> None:
    """Does nothing: no line is held back."""

  def close(self) -> None:
    """Closes the file."""
    self._file.close()

  def _error(self, error: OSError) -> OSError:
    return OSError(
      error.errno,
      f'the metrics cannot be written ({error.strerror}): free some disk space '
      'or choose another --out; the same command resumes',
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

  def truncate_after(self, step: int) -> None:
    """Truncates each."""
    for writer in self._writers:
      writer.truncate_after(step)

  def flush(self) -> None:
    """Flushes each."""
    for writer in self._writers:
      writer.flush()

  def close(self) -> None:
    """Closes each."""
    for writer in self._writers:
      writer.close()


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
    return json.loads(line)['step'] if line.endswith(b'\n') else math.inf
  except (ValueError, KeyError, TypeError):
    return math.inf

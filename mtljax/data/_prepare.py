"""Building a tfds data set once, whole, and without its chatter."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable, Sequence
from typing import TypeVar

import tensorflow_datasets as tfds

Builder = TypeVar('Builder', bound=tfds.core.DatasetBuilder)


def prepare(
  make_builder: Callable[[], Builder],
  splits: Sequence[str],
  progress: Callable[[str], object] | None = None,
) -> Builder:
  """Builds a data set unless it is there already.

  The files are written beside their place and moved there when complete, so a
  killed run leaves nothing that is read later. A directory from which files are
  missing is built again.

  Args:
    make_builder: makes the builder, which looks anew for what is on disk.
    splits: the splits that a complete data set has.
    progress: called with a line of text before anything slow is done.

  Returns:
    The builder of the complete data set.
  """
  builder = make_builder()
  if is_complete(builder, splits):
    return builder
  if builder.data_path.exists():
    shutil.rmtree(builder.data_path)
    builder = make_builder()
  if progress is not None:
    config = builder.builder_config
    name = f'{builder.name}/{config.name}' if config else builder.name
    progress(f'Preparing {name} in {builder.data_path}.')
  output = io.StringIO()
  download = tfds.download.DownloadConfig(
    try_download_gcs=False,
    compute_stats=tfds.download.ComputeStatsMode.SKIP,
  )
  try:
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
      builder.download_and_prepare(download_config=download)
  except OSError:
    # Another process may have moved its own copy into place first.
    builder = make_builder()
    if not is_complete(builder, splits):
      raise
  return builder


def is_complete(
  builder: tfds.core.DatasetBuilder, splits: Sequence[str]
) -> bool:
  """Whether every file of every split is there."""
  found = builder.info.splits
  return all(
    split in found and all(path.exists() for path in found[split].filepaths)
    for split in splits
  )

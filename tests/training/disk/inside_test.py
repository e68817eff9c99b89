"""What lies in a run folder is not followed, not believed, or swept up."""

import os
import pathlib
import subprocess
import sys

import pytest

import mtljax
from mtljax import _files
from mtljax.training import (
  Checkpointer,
  ConfigMismatchError,
  JsonlWriter,
  OutputError,
  exit_on_error,
  open_run,
)
from mtljax.training.disk import _json, _lock, _seal
from mtljax.training.disk._rundir import in_words, lock_run

ROOT = pathlib.Path(mtljax.__file__).parents[1]
CONFIG = {'seed': 1, 'out': 'a'}
IDENTITY = {'versions': {'jax': '1'}}


def begin(out, **kwargs):
  run = open_run(out, CONFIG, identity=IDENTITY, **kwargs)
  run.checkpoints.mkdir(exist_ok=True)
  run.release()
  return run


def content(folder):
  return {
    str(p.relative_to(folder)): p.read_bytes()
    for p in sorted(folder.rglob('*'))
    if p.is_file()
  }


INSIDE = ['config.json', 'metrics.jsonl', '.lock', 'results.csv', 'checkpoints']
INSIDE += ['runs', 'checkpoints/3.json', 'runs/mgda/seed_0/metrics.jsonl']


@pytest.mark.parametrize('opening', [begin, lock_run])
@pytest.mark.parametrize('name', INSIDE)
@pytest.mark.parametrize('there', ['file', 'folder', 'nothing'])
def test_a_link_is_named_and_nothing_is_written_outside(
  tmp_path, name, there, opening
):
  outside = tmp_path / 'outside'
  outside.mkdir()
  target = outside / 'target'
  if there == 'folder':
    target.mkdir()
  if there == 'file':
    target.write_text('theirs')
  begin(tmp_path / 'run')
  link = tmp_path / 'run' / name
  link.parent.mkdir(parents=True, exist_ok=True)
  if link.is_dir():
    link.rmdir()
  link.unlink(missing_ok=True)
  link.symlink_to(target)
  before = content(outside)
  with pytest.raises(OutputError) as caught:
    opening(tmp_path / 'run')
  sentence = str(caught.value)
  assert f'holds a link, {name} -> {target}' in sentence
  assert 'not followed' in sentence and 'another directory' in sentence
  assert content(outside) == before
  assert link.is_symlink()


def test_no_resume_moves_links_aside_but_not_through_the_lock(tmp_path):
  outside = tmp_path / 'outside'
  outside.write_text('theirs')
  run = begin(tmp_path / 'run')
  run.metrics.symlink_to(outside)
  JsonlWriter(begin(tmp_path / 'run', resume=False).metrics).close()
  assert (tmp_path / 'run.bak-1' / 'metrics.jsonl').is_symlink()
  lock = tmp_path / 'run' / '.lock'
  lock.unlink()
  lock.symlink_to(outside)
  with pytest.raises(OutputError, match=r'a link, \.lock -> .*outside'):
    begin(tmp_path / 'run', resume=False)
  with pytest.raises(OSError):
    _lock.acquire(tmp_path / 'run')
  assert outside.read_text() == 'theirs'


def test_the_folder_itself_may_be_a_link_and_wandb_has_its_own(tmp_path):
  (tmp_path / 'disk').mkdir()
  (tmp_path / 'run').symlink_to(tmp_path / 'disk')
  run = begin(tmp_path / 'run')
  (run.path / 'wandb').mkdir()
  (run.path / 'wandb' / 'latest-run').symlink_to('run-1')
  assert begin(tmp_path / 'run').resumed
  assert (tmp_path / 'disk' / 'config.json').is_file()


def test_what_kills_left_is_swept_up_and_nothing_else(tmp_path):
  run = begin(tmp_path / 'run')
  cell = run.path / 'runs' / 'mgda' / 'seed_0'
  cell.mkdir(parents=True)
  left = [
    run.path / '.config.json.0123456789ab.tmp',
    run.checkpoints / '.3.json.0123456789ab.tmp',
    cell / '.result.json.0123456789ab.tmp',
  ]
  kept = [
    run.path / '.report.html.0123456789ab.tmp',  # a report's, at this moment
    cell / 'notes.tmp',
    cell / '.result.json.tmp',
  ]
  for path in left + kept:
    path.touch()
  begin(tmp_path / 'run')
  assert not any(path.exists() for path in left)
  assert all(path.exists() for path in kept)


def test_a_seal_cut_short_is_one_of_its_step(tmp_path):
  with Checkpointer(tmp_path) as checkpointer:
    (tmp_path / '.5.json.0123456789ab.tmp').touch()
    (tmp_path / '.x.json.0123456789ab.tmp').touch()
    assert checkpointer.latest_step() is None
    assert _seal.steps_on_disk(tmp_path) == {5}
    _seal.remove(tmp_path, {5})
  assert [p.name for p in tmp_path.iterdir()] == ['.x.json.0123456789ab.tmp']


def edit(out, change):
  path = out / 'config.json'
  config = _json.read(path)
  change(config)
  path.write_text(_json.dumps(config))


def pretend(config):
  config['identity']['versions']['jax'] = '2'


def strip(config):
  del config['digest']
  config['identity']['versions']['jax'] = '2'


@pytest.mark.parametrize('finished', [False, True])
@pytest.mark.parametrize('change', [pretend, strip])
def test_an_edited_configuration_is_named_and_forced(
  tmp_path, change, finished
):
  begin(tmp_path)
  edit(tmp_path, change)
  before = (tmp_path / 'config.json').read_bytes()
  now = {'versions': {'jax': '3'}}
  with pytest.raises(ConfigMismatchError) as caught:
    open_run(tmp_path, CONFIG, identity=now, finished=finished)
  for part in ('changed since', 'digest', 'force=True', '(there "2", now "3")'):
    assert part in str(caught.value)
  assert (tmp_path / 'config.json').read_bytes() == before
  open_run(tmp_path, CONFIG, identity=now, finished=finished, force=True)
  after = _json.read(tmp_path / 'config.json')
  assert any('config.json' in x['changed'] for x in after['history'])
  assert _json.unseal(after)
  open_run(tmp_path, CONFIG, identity=after['identity'])


def test_force_is_not_for_another_configuration(tmp_path):
  begin(tmp_path)
  edit(tmp_path, lambda config: config.update(seed=2))
  with pytest.raises(ConfigMismatchError, match=r'changed.*seed \(there 2'):
    begin(tmp_path)
  with pytest.raises(ConfigMismatchError, match=r'another.*seed \(there 2'):
    begin(tmp_path, force=True)


def test_a_configuration_of_an_older_version_has_no_digest(tmp_path, caplog):
  (tmp_path / 'config.json').write_text('{"seed": 1, "out": "a"}')
  assert begin(tmp_path).resumed
  assert 'an older version wrote it' in caplog.text


HOSTILE = {
  'deep list': '[' * 100_000 + ']' * 100_000,
  'deep object': '{"a":' * 400 + '1' + '}' * 400,
  'deep below a key': '{"seed":' + '[' * 400 + ']' * 400 + '}',
  'long number': '{"seed": ' + '9' * 5_000 + '}',
  'list': '[]',
  'infinity': 'Infinity',
  'not unicode': b'{"seed": "\xff"}',
  'nothing': '',
}


@pytest.mark.parametrize('kind', HOSTILE)
def test_hostile_files_are_refused_in_a_sentence(tmp_path, kind):
  text = HOSTILE[kind]
  path = tmp_path / 'config.json'
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  with pytest.raises(ConfigMismatchError) as caught:
    begin(tmp_path)
  assert 'config.json' in str(caught.value) and len(str(caught.value)) < 2_000
  checkpoints = tmp_path / 'checkpoints'
  (checkpoints / '5').mkdir(parents=True)
  os.replace(path, checkpoints / '5.json')
  assert _seal.scores(checkpoints) == {5: None}
  with pytest.raises(_seal.CheckpointError, match=r'5\.json is damaged'):
    _seal.read(checkpoints, 5)


def test_a_huge_file_or_none_is_not_read(tmp_path):
  path = tmp_path / 'config.json'
  with path.open('wb') as file:
    file.truncate(2**40)
  with pytest.raises(ConfigMismatchError, match='1,099,511,627,776 bytes'):
    begin(tmp_path)
  path.unlink()
  os.mkfifo(path)
  with pytest.raises(ConfigMismatchError, match='it is no file'):
    begin(tmp_path)


def test_huge_numbers_in_a_seal(tmp_path):
  keys = ('step', 'meta', 'data_state', 'leaves')
  seal = dict.fromkeys(keys) | {'score': 10**400, 'files': {}}
  (tmp_path / '5.json').write_text(_json.dumps(_json.seal(seal)))
  assert _seal.scores(tmp_path) == {5: None}
  seal |= {'step': 5, 'files': [1]}
  (tmp_path / '5.json').write_text(_json.dumps(_json.seal(seal)))
  with pytest.raises(_seal.CheckpointError, match='files are no object'):
    _seal.read(tmp_path, 5)


def test_a_sentence_has_an_end():
  differing = {f'key{n}': ('x' * 10_000, 'y') for n in range(1_000)}
  words = in_words(differing)
  assert len(words) < 10_000 and words.endswith('and 980 more')


def test_nothing_is_written_by_a_fixed_name(tmp_path):
  """Another's file of such a name would be written to, through a link too."""
  outside = tmp_path / 'outside'
  outside.write_text('theirs')
  for name in ('config.json.tmp', 'metrics.jsonl.tmp'):
    pathlib.Path(tmp_path, name).hardlink_to(outside)
  writer = JsonlWriter(begin(tmp_path).metrics)
  writer.write(1, {'a': 1})
  writer.truncate_after(0)
  writer.close()
  assert outside.read_text() == 'theirs'


FULL = """
from mtljax.training import exit_on_error
with exit_on_error():
  print('x' * 100_000, flush=True)
"""


def test_a_full_device_is_named():
  with open('/dev/full', 'w') as full:
    found = subprocess.run(
      [sys.executable, '-c', FULL],
      stdout=full,
      stderr=subprocess.PIPE,
      text=True,
      check=False,
      env=os.environ | {'PYTHONPATH': str(ROOT)},
    )
  sentence = found.stderr.splitlines()[0]
  assert sentence == (
    'error: standard output (/dev/full) cannot be written (No space left on '
    'device): send it to a terminal, or to a file on a disk with free space'
  )
  assert 'Traceback' not in found.stderr
  with pytest.raises(SystemExit, match=r'error: \[Errno 28\].*metrics.jsonl'):
    with exit_on_error():
      raise OSError(28, 'full', 'metrics.jsonl')


def test_a_full_folder_is_named(tmp_path):
  """What is written in one piece is named by its own name."""
  path = tmp_path / 'config.json'

  def full(temporary):
    with open('/dev/full', 'wb', buffering=0) as file:
      file.write(b'x')

  with pytest.raises(OSError) as caught:
    _files.replace(path, full)
  assert caught.value.filename == str(path)
  assert list(tmp_path.iterdir()) == []


def test_only_the_first_process_of_a_run_writes_its_configuration(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(_lock, 'is_first', lambda: False)
  run = begin(tmp_path / 'run')
  assert run.lock is None and not (run.path / 'config.json').exists()

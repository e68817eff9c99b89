"""One process a folder, whatever becomes of it."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

import mtljax
from mtljax.training import open_run
from mtljax.training.disk import _lock

ROOT = pathlib.Path(mtljax.__file__).parents[1]
HOLD = """
import sys
from mtljax.training import open_run
run = open_run(sys.argv[1], {'seed': 1})
print('open', flush=True)
if sys.stdin.readline() == 'release\\n':
  run.release()
  print('released', flush=True)
  sys.stdin.readline()
"""
FORK = """
import os, sys
from mtljax.training import open_run
from mtljax.training.disk import _lock
open_run(sys.argv[1], {'seed': 1})
child = os.fork()
if not child:
  try:
    open_run(sys.argv[1], {'seed': 1})
    print('believed', flush=True)
  except OSError as error:
    print(f'process {os.getppid()} ' in str(error), flush=True)
  sys.stdin.readline()
  os._exit(0)
print(child, flush=True)
os.waitpid(child, 0)
"""


@pytest.fixture
def start():
  running = []

  def run(code, out):
    paths = [str(ROOT), os.environ.get('PYTHONPATH', '')]
    process = subprocess.Popen(
      [sys.executable, '-W', 'ignore', '-c', code, str(out)],
      env=os.environ | {'PYTHONPATH': os.pathsep.join(filter(None, paths))},
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    running.append(process)
    return process

  yield run
  for process in running:
    process.kill()
    process.communicate()


def test_the_second_is_refused_by_the_firsts_pid_until_it_is_killed(
  start, tmp_path
):
  first = start(HOLD, tmp_path)
  assert first.stdout.readline() == 'open\n'
  config = (tmp_path / 'config.json').read_bytes()
  for resume in (True, False):
    with pytest.raises(_lock.LockedError) as caught:
      open_run(tmp_path, {'seed': 2}, resume=resume)
    assert f'process {first.pid} on ' in str(caught.value)
    assert 'directory=' in str(caught.value)
  assert (tmp_path / 'config.json').read_bytes() == config
  assert not list(tmp_path.parent.glob('*.bak-*'))
  assert f'process {first.pid} ' in _lock.held_by_other(tmp_path)
  os.kill(first.pid, signal.SIGKILL)
  first.wait()
  run = open_run(tmp_path, {'seed': 1})
  assert run.resumed
  run.release()


def test_released_before_its_end(start, tmp_path):
  first = start(HOLD, tmp_path)
  assert first.stdout.readline() == 'open\n'
  first.stdin.write('release\n')
  first.stdin.flush()
  assert first.stdout.readline() == 'released\n'
  open_run(tmp_path, {'seed': 1}).release()


def test_a_forked_child_does_not_keep_it(start, tmp_path):
  parent = start(FORK, tmp_path)
  said = {parent.stdout.readline().strip() for _ in range(2)}
  assert 'True' in said  # to the child, its parent has the folder
  (child,) = map(int, said - {'True'})
  assert f'process {parent.pid} ' in _lock.held_by_other(tmp_path)
  os.kill(parent.pid, signal.SIGKILL)
  os.waitid(os.P_PID, parent.pid, os.WEXITED | os.WNOWAIT)
  os.kill(child, 0)  # it is still there
  assert _lock.held_by_other(tmp_path) is None
  open_run(tmp_path, {'seed': 1}).release()


def test_one_process_may_open_a_folder_twice(tmp_path):
  first = open_run(tmp_path, {'seed': 1})
  second = open_run(tmp_path, {'seed': 1})
  assert first.lock is second.lock
  first.release()
  second.release()


@pytest.mark.parametrize(
  'signed',
  [
    '',
    '[]',
    '{"pid": Infinity, "host": "a", "since": "2026-01-01"}',
    '{"pid": 1e400, "host": "a", "since": "2026-01-01"}',
    '{"pid": NaN, "host": "a", "since": "2026-01-01"}',
    '{"pid": true, "host": "a", "since": "2026-01-01"}',
    '{"pid": -1, "host": "a", "since": "2026-01-01"}',
    '{"pid": ' + '9' * 5_000 + ', "host": "a", "since": "2026-01-01"}',
    '{"pid": 7, "host": ["a"], "since": "2026-01-01"}',
    '{"pid": 7, "host": "a\\n\\u001b[2J", "since": "2026-01-01"}',
    json.dumps({'pid': 7, 'host': 'a' * 10_000, 'since': '2026-01-01'}),
    '{"pid": 7, "host": "a", "since": {}}',
    '{"pid": 7, "host": "a", "since": "all is well"}',
    '[' * 100_000,
  ],
)
def test_a_lock_that_anything_was_written_to(tmp_path, signed):
  path = tmp_path / _lock.NAME
  path.write_text(signed)
  assert _lock._holder(path) == 'another process'


def test_what_a_lock_says(tmp_path):
  path = tmp_path / _lock.NAME
  path.write_text('{"pid": 7, "host": "a", "since": "2026-01-01T00:00:00"}')
  assert _lock._holder(path) == 'process 7 on a (since 2026-01-01T00:00:00)'

"""A study ends with a sentence wherever it is interrupted."""

import pathlib
import subprocess
import sys

import pytest

from experiments.lab import command
from mtljax.training import open_run

ENDLESS = """
from experiments.lab import command

def run(config, study, console):
  while True:
    print('line')

command.run_command(lambda: None, lambda *_: None, run)
"""


@pytest.mark.parametrize('stage', ['parse', 'prepare', 'run'])
def test_ctrl_c_ends_with_a_sentence(stage, capsys):
  def interrupted(name):
    def fun(*_):
      if name == stage:
        raise KeyboardInterrupt

    return fun

  with pytest.raises(SystemExit) as ended:
    command.run_command(*map(interrupted, ('parse', 'prepare', 'run')))
  assert ended.value.code == 130
  assert 'run the same command to go on' in capsys.readouterr().err


def test_a_closed_pipe_ends_without_a_traceback():
  process = subprocess.Popen(
    [sys.executable, '-c', ENDLESS],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == 'line\n'
  process.stdout.close()
  said = process.stderr.read()
  process.stderr.close()
  assert process.wait() == 141
  assert 'Traceback' not in said and 'BrokenPipe' not in said


def test_the_library_is_heard_in_the_words_of_the_command_line(tmp_path):
  open_run(tmp_path, {'seed': 1})

  def run(config, prepared, console):
    open_run(tmp_path, {'seed': 2})

  with pytest.raises(SystemExit) as ended:
    command.run_command(lambda: None, lambda *_: None, run)
  said = ended.value.code
  assert said.startswith(f'error: --out {tmp_path} holds a run of another')
  assert 'another --out, or --no-resume to move it aside' in said


@pytest.mark.skipif(
  not pathlib.Path('/dev/full').exists(), reason='there is no /dev/full'
)
@pytest.mark.parametrize(
  'arguments',
  [
    ['-m', 'experiments.report', '--help'],
    ['-c', ENDLESS],
  ],
)
def test_a_full_output_is_one_sentence(arguments):
  with open('/dev/full', 'w') as full:
    done = subprocess.run(
      [sys.executable, *arguments],
      stdout=full,
      stderr=subprocess.PIPE,
      text=True,
      check=False,
    )
  assert done.returncode == 1
  assert done.stderr.startswith('error: the output cannot be written to (')
  assert len(done.stderr.splitlines()) == 1

"""The list of what can be run."""

import pathlib
import re
import subprocess
import sys

import experiments
from experiments import __main__ as listing
from experiments import suites

ROOT = pathlib.Path(experiments.__file__).parent


def test_every_command_and_every_suite_has_a_row():
  commands = [row.command for row in listing.rows()]
  assert len(set(commands)) == len(commands)
  modules = {
    path.stem for path in ROOT.glob('*.py') if not path.stem.startswith('__')
  }
  assert {re.split('[ .]', command)[0] for command in commands} == {
    *modules,
    'report',
  }
  named = {command.split()[-1] for command in commands if '--suite' in command}
  own = {'digits': 'multi_digits', 'census': 'census'}  # their commands
  for name in suites.available():
    assert name in named or own.get(name) in commands, name


def test_minutes_are_numbers_and_data_are_words():
  for row in listing.rows():
    assert row.asks
    assert re.fullmatch(r'\d*', row.minutes)
    assert re.fullmatch(r'|yours|fetch \w+', row.data)


def test_it_is_printed():
  done = subprocess.run(
    [sys.executable, '-m', 'experiments'],
    capture_output=True,
    text=True,
    check=True,
    cwd=ROOT.parent,
    timeout=300,
  )
  assert not done.stderr
  for row in listing.rows():
    assert row.command in done.stdout

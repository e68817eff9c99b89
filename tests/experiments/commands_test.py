"""The command line of every study, as far as it goes without a run."""

import importlib
import pathlib
import sys

import pytest

import experiments
from experiments.lab import command

STUDIES = sorted(
  path.stem
  for path in pathlib.Path(experiments.__file__).parent.glob('*.py')
  if '.studies.' in path.read_text()
)


@pytest.fixture
def parse(monkeypatch):
  """A study's options, read as its command would."""

  def parse_options(name, *argv):
    def keep(parse, prepare, run, **_):
      del prepare, run
      kept.append(parse())

    kept = []
    monkeypatch.setattr(command, 'run_command', keep)
    monkeypatch.setattr(sys, 'argv', [name, *argv])
    importlib.import_module(f'experiments.{name}').main()
    return kept[0]

  return parse_options


@pytest.mark.parametrize('name', STUDIES)
def test_options_are_read_over_the_defaults(parse, name, tmp_path):
  default = parse(name)
  moved = parse(name, '--out', str(tmp_path), '--no-resume')
  assert (moved.out, moved.resume) == (tmp_path, False)
  assert default.resume
  assert default.out != tmp_path


@pytest.mark.parametrize('name', STUDIES)
def test_help_names_the_command_and_a_wrong_preset_the_right_ones(
  parse, name, capsys
):
  with pytest.raises(SystemExit) as end:
    parse(name, '--help')
  assert not end.value.code
  assert f'python -m experiments.{name}' in capsys.readouterr().out
  with pytest.raises((SystemExit, ValueError)) as refused:
    parse(name, '--preset', 'no_such_preset')
  said = str(refused.value) + capsys.readouterr().err
  # Where there are none, the option is not known.
  assert getattr(parse(name), 'preset', '--preset') in said

"""The report as a command: what it says, and what it cannot read or write."""

import json
import pathlib
import subprocess
import sys

import pytest
from made_up import ACCURACY, write

from experiments.report import __main__ as report_command
from experiments.report import comparison

STUDIES = (
  'conflict_study',
  'flat_regions',
  'invariance',
  'optimizer_study',
  'robustness_study',
  'toy',
)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  directory = write(tmp_path_factory.mktemp('fake'), ACCURACY)
  return directory, comparison.write_report(directory)


def _main(directory, capsys):
  with pytest.raises(SystemExit) as ended:
    report_command.main(directory)
  capsys.readouterr()
  return str(ended.value.code)


@pytest.mark.parametrize('experiment', STUDIES)
@pytest.mark.parametrize('rows', [b'method,seed,status\na,0,ok\n', b'\xff\0'])
def test_a_study_that_cannot_be_read_is_one_sentence(
  experiment, rows, tmp_path, capsys
):
  config = {'tasks': ['a'], 'experiment': experiment}
  (tmp_path / 'config.json').write_text(json.dumps(config))
  (tmp_path / 'results.csv').write_bytes(rows)
  said = _main(tmp_path, capsys)
  assert said.startswith('error: ')
  assert str(tmp_path) in said
  assert not (tmp_path / 'report.html').exists()


def test_a_report_that_cannot_be_written_is_one_sentence(tmp_path, capsys):
  write(tmp_path, {'sum_losses': [(0.5, 0.5)]}, steps=50)
  (tmp_path / 'report.html').mkdir()
  said = _main(tmp_path, capsys)
  assert said.startswith(f'error: {tmp_path / "report.html"} cannot be written')


def test_command_line(finished, tmp_path):
  def run(*arguments):
    return subprocess.run(
      [sys.executable, '-m', 'experiments.report', *arguments],
      capture_output=True,
      text=True,
      check=False,
      cwd=pathlib.Path(comparison.__file__).parents[2],
    )

  good = run(str(finished[0]))
  assert good.returncode == 0, good.stderr
  assert 'pcgrad' in good.stdout
  assert 'report.html' in good.stdout
  bad = run(str(tmp_path))
  assert bad.returncode != 0
  assert bad.stderr.startswith('error: ')
  assert 'Traceback' not in bad.stderr
  usage = run('--help')
  assert usage.returncode == 0
  assert 'DIR' in usage.stdout


def test_a_folder_in_use_is_said(finished, monkeypatch, capsys):
  monkeypatch.setattr(report_command, 'held_by_other', lambda _: 'process 7')
  report_command.main(finished[0])
  assert 'In use by process 7' in capsys.readouterr().out
  monkeypatch.undo()
  report_command.main(finished[0])
  assert 'In use by' not in capsys.readouterr().out

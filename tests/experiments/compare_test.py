"""The command that compares methods on any suite."""

import sys

import pytest

from experiments import compare


def test_the_usage_is_the_command_that_was_typed(monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['compare', '--suite', 'census', '--help'])
  with pytest.raises(SystemExit) as ended:
    compare.main()
  assert ended.value.code == 0
  said = ' '.join(capsys.readouterr().out.split())
  assert said.startswith(
    'usage: python -m experiments.compare --suite census [-h]'
  )


def test_a_missing_suite_is_named_with_those_that_are(monkeypatch):
  monkeypatch.setattr(sys, 'argv', ['compare'])
  with pytest.raises(SystemExit, match='--suite is missing.*census.*qm9'):
    compare.main()

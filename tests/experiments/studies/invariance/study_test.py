"""The invariance study: exact oracles, short settings, verdicts, files."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest
import rich.console

from experiments.report import __main__ as report_command
from experiments.report.results import ReportError
from experiments.studies.invariance import oracles, study
from experiments.studies.invariance import report as study_report
from experiments.studies.invariance.report import REFERENCE

CONFIG = study.InvarianceConfig(steps=10, examples=16)
SETTINGS = {s.name: s for s in study.settings()}


@pytest.mark.parametrize('oracle', oracles.oracles()[:5], ids=lambda x: x.name)
def test_what_is_exact_is_so(oracle, x64):
  row = oracles.measure(oracle)
  assert row['holds'], row
  assert row['difference'] <= oracle.bound
  moved = oracle.plain()
  assert moved.dtype == oracle.dtype
  assert np.all(moved != 0)


@pytest.mark.parametrize('oracle', oracles.oracles()[5:], ids=lambda x: x.name)
def test_what_is_not_exact_is_not(oracle, x64):
  row = oracles.measure(oracle)
  assert not row['holds']
  assert row['difference'] > 1e-3


def test_adam_without_epsilon_is_invariant_in_the_heads_alone(x64):
  frozen = study.measure(CONFIG, SETTINGS['frozen, Adam eps=0'])
  assert frozen['heads_10'] < 1e-14
  assert frozen['trunk_100'] == ''
  default = study.measure(CONFIG, SETTINGS['frozen, Adam eps=1e-8'])
  assert default['heads_10'] > 1e-4


def test_adam_without_memory_is_not_invariant_in_the_trunk(x64):
  """Appendix A1.3 (b) says that it is; with a frozen trunk it is."""
  free = study.measure(CONFIG, SETTINGS['free, Adam b1=b2=0'])
  assert free['trunk_100'] > 0.1
  frozen = study.measure(
    CONFIG, SETTINGS['frozen, Adam b1=b2=0, changing factors']
  )
  assert frozen['heads_10'] < 1e-14


def table(**changes):
  rows = {
    name: dict(zip(study_report.COLUMNS, found, strict=True))
    for name, found in REFERENCE.items()
  }
  rows['free, AdaTask eps=0'] = dict.fromkeys(study_report.COLUMNS, 1e-15)
  for place, value in changes.items():
    setting, column = place.split('/')
    rows[setting][column] = value
  return rows


@pytest.mark.parametrize(
  'changes, outcomes',
  [
    ({}, ['holds', 'holds', 'does not hold']),
    (
      {'free, AdaTask eps=0/trunk_100': 0.1},
      ['does not hold', 'holds', 'does not hold'],
    ),
    (
      {'frozen, SGD/heads_100': 1e-16},
      ['does not hold', 'holds', 'does not hold'],
    ),
    (
      {'frozen, Adam b1=b2=0, changing factors/heads_100': 0.1},
      ['holds', 'does not hold', 'does not hold'],
    ),
    (
      {'free, Adam b1=b2=0/trunk_100': 1e-16},
      ['holds', 'holds', 'holds'],
    ),
  ],
)
def test_verdicts_follow_from_the_numbers(changes, outcomes):
  found = study_report.verdicts(table(**changes))
  assert [v.claim for v in found] == ['E5', 'E6', "E6'"]
  assert [v.outcome for v in found] == outcomes


def test_every_setting_with_a_reference_is_there():
  assert set(REFERENCE) == set(SETTINGS) - {'free, AdaTask eps=0'}


def test_files_and_the_report_made_again(tmp_path, monkeypatch):
  names = ('frozen, Adam eps=0',)
  monkeypatch.setattr(
    study, 'settings', lambda: [SETTINGS[name] for name in names]
  )
  monkeypatch.setattr(study, 'CURVES', {'epsilon': study.CURVES['epsilon']})
  config = dataclasses.replace(CONFIG, out=tmp_path / 'out')
  study.run(config, rich.console.Console(quiet=True))
  with (config.out / 'results.csv').open() as file:
    assert [row['setting'] for row in csv.DictReader(file)] == list(names)
  curve = json.loads((config.out / 'curves.json').read_text())['epsilon']
  small = np.argmin(curve['factors'])
  # A larger epsilon is felt more where the losses are scaled down.
  assert np.all(np.diff([row[small] for row in curve['heads']]) > 0)
  summary = json.loads((config.out / 'summary.json').read_text())
  holds = [x['holds'] for x in summary['oracles']]
  assert holds == [True] * 5 + [False] * 2
  page = (config.out / 'report.html').read_bytes()
  report_command.main(config.out)
  assert (config.out / 'report.html').read_bytes() == page
  assert 'E6: undecided' in page.decode()
  assert not re.search(r'https?:|@import|<script ', page.decode())


@pytest.mark.parametrize(
  'options, message',
  [
    ({'steps': 5}, '--steps=5'),
    ({'examples': 1}, '--examples=1'),
    ({'seed': -1}, '--seed=-1'),
  ],
)
def test_bad_options_are_named(options, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    study.check(dataclasses.replace(CONFIG, **options))


def test_a_folder_without_results(tmp_path):
  (tmp_path / 'config.json').write_text('{"tasks": []}')
  with pytest.raises(ReportError, match=r'no readable results\.csv'):
    study_report.write_report(tmp_path)

"""Two folders beside each other."""

import math
import subprocess
import sys

import pytest
import scipy.stats
from made_up import write

from experiments.report import differences
from experiments.report.results import ReportError, read_results

FIRST = {
  'sum_losses': [(0.90, 0.50), (0.91, 0.51), (0.92, 0.49), (0.93, 0.50)],
  'pcgrad': [(0.80, 0.40), (0.80, 0.41), (0.80, 0.42), (0.80, 0.43)],
}
# The left task of `sum_losses` gains about two points, its right is as it was.
SECOND = {
  'sum_losses': [(0.92, 0.52), (0.932, 0.50), (0.938, 0.50), (0.95, 0.49)],
  'mgda': [(0.80, 0.40), (0.80, 0.41), (0.80, 0.42), (0.80, 0.43)],
}


@pytest.fixture(name='folders')
def _folders(tmp_path):
  for name, accuracy in (('a', FIRST), ('b', SECOND)):
    (tmp_path / name).mkdir()
    write(tmp_path / name, accuracy, steps=20)
  return tmp_path / 'a', tmp_path / 'b'


def _compare(folders, **options):
  return differences.compare(*map(read_results, folders), **options)


def test_differences_are_paired_by_seed_and_in_percent_points(folders):
  found = _compare(folders, losses=False)
  assert [(x.method, x.metric) for x in found] == [
    ('sum_losses', 'accuracy/left'),
    ('sum_losses', 'accuracy/right'),
  ]
  left, right = found
  assert left.first == pytest.approx(91.5)
  assert left.second == pytest.approx(93.5)
  assert left.change.mean == pytest.approx(2)
  # Two intervals are told, each of 97.5 %.
  changes = [2.0, 2.2, 1.8, 2.0]
  error = scipy.stats.sem(changes)
  half = scipy.stats.t.ppf(1 - 0.05 / 4, 3) * error
  assert left.change.low == pytest.approx(2 - half)
  assert left.outcome == 'better'
  assert right.outcome == 'undecided'


def test_lower_losses_are_better(folders):
  found = {x.metric: x for x in _compare(folders)}
  assert len(found) == 4
  assert found['loss/left'].change.mean == pytest.approx(-0.02)
  assert found['loss/left'].outcome == 'better'


def test_the_other_way_round_is_worse(folders):
  first, second = folders
  found = {x.metric: x for x in _compare((second, first))}
  assert found['accuracy/left'].outcome == 'worse'


def test_few_seeds_decide_nothing(tmp_path):
  for name, value in (('a', 0.1), ('b', 0.9)):
    (tmp_path / name).mkdir()
    write(tmp_path / name, {'sum_losses': [(value, value)] * 2}, steps=20)
  found = _compare((tmp_path / 'a', tmp_path / 'b'))
  assert {x.outcome for x in found} == {'undecided'}


def test_options_that_differ_are_said(folders):
  results = [read_results(folder) for folder in folders]
  results[1].config['data'] = 'three digits'
  said = differences.changed_options(*results)
  assert said == ['data: two digits and three digits']


def test_nothing_in_common_is_said(tmp_path):
  for name in ('a', 'b'):
    (tmp_path / name).mkdir()
    write(tmp_path / name, {f'method_{name}': [(0.5, 0.5)]}, steps=20)
  with pytest.raises(ReportError, match='nothing to compare'):
    _compare((tmp_path / 'a', tmp_path / 'b'))


def test_command_line(folders, tmp_path):
  def run(*arguments):
    return subprocess.run(
      [sys.executable, '-m', 'experiments.compare_runs', *arguments],
      capture_output=True,
      text=True,
      check=False,
      timeout=300,
    )

  done = run(*map(str, folders))
  assert done.returncode == 0
  assert not done.stderr
  assert 'sum_losses accuracy left %' in done.stdout
  assert 'better' in done.stdout
  assert 'loss left' not in done.stdout
  missing = run(str(folders[0]), str(tmp_path / 'c'))
  assert missing.returncode == 1
  assert missing.stderr == f'error: {tmp_path / "c"} is not a folder.\n'


def test_numbers_that_are_not_there_are_left_out(folders):
  results = [read_results(folder) for folder in folders]
  results[0].runs[0].values['test/accuracy/left'] = math.nan
  found = differences.compare(*results, losses=False)
  assert [x.change.n for x in found] == [3, 4]

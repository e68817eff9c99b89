"""The toy study: what is not chaotic in it, its files, and its misuse."""

import csv
import dataclasses
import json
import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import rich.console

from experiments.report import __main__ as report_command
from experiments.report.results import ReportError
from experiments.studies.toy import cells, figures, problem, study
from experiments.studies.toy import report as study_report
from experiments.studies.toy.cells import RATES, ReadCells, ToyCell
from experiments.studies.toy.report import PAPER

QUIET = rich.console.Console(quiet=True, width=124)


@pytest.fixture(scope='module')
def adam(tmp_path_factory):
  """A short study of Adam, and its folder."""
  out = tmp_path_factory.mktemp('toy') / 'out'
  config = study.ToyConfig(
    out=out,
    optimizers=('adam',),
    learning_rates=RATES[:5],
    iterations=1000,
  )
  study.run(config, QUIET)
  return config


def rows(out):
  with (out / 'results.csv').open() as file:
    return list(csv.DictReader(file))


@pytest.mark.parametrize('method', ['mean', 'cagrad'])
def test_adam_agrees_with_the_paper_at_high_rates(adam, method):
  found = [
    int(row['iterations']) for row in rows(adam.out) if row['method'] == method
  ]
  np.testing.assert_allclose(found, PAPER['adam', method][:5], rtol=0.05)


def test_csv_has_a_row_a_rate_and_nothing_where_not_reached(adam):
  found = rows(adam.out)
  assert list(found[0]) == [
    'optimizer',
    'method',
    'learning_rate',
    'iterations',
  ]
  assert len(found) == 3 * 5
  pcgrad = {
    float(row['learning_rate']): row['iterations']
    for row in found
    if row['method'] == 'pcgrad'
  }
  assert pcgrad[0.5] == pcgrad[0.1] == ''  # in the paper 15,741 and 34,175
  assert pcgrad[10.0] == '25'


def test_page_and_summary_are_made_again_to_the_byte(adam):
  page = (adam.out / 'report.html').read_bytes()
  summary = (adam.out / 'summary.json').read_bytes()
  report_command.main(adam.out)
  assert (adam.out / 'report.html').read_bytes() == page
  assert (adam.out / 'summary.json').read_bytes() == summary
  text = page.decode()
  assert not re.search(r'https?:|@import|<script ', text)
  assert text.count('aria-label="adam') == 3
  # 1,000 iterations are no Table A3.
  assert 'E1: undecided' in text


def test_more_cells_leave_the_finished_ones_alone(adam):
  path = cells.path_of(adam.out, ToyCell('adam', 'mean'))
  before = path.stat().st_mtime_ns
  more = dataclasses.replace(adam, optimizers=('adam', 'mtl_io'))
  study.run(more, QUIET)
  assert path.stat().st_mtime_ns == before
  assert [r['optimizer'] for r in rows(adam.out)] == ['adam'] * 15 + [
    'mtl_io'
  ] * 5
  study.run(adam, QUIET)


def test_trajectories_begin_at_the_starts(adam):
  read = cells.read_cells(adam.out)
  points = read.points[ToyCell('adam', 'cagrad')][4]
  np.testing.assert_allclose(points[:, 0, 1:], problem.STARTS)
  last = np.nanmax(points[:, :, 0], axis=1)
  assert last.max() == read.numbers[ToyCell('adam', 'cagrad')][0.1]


def test_rings_run_along_the_trajectories(adam):
  read = cells.read_cells(adam.out)
  section = figures.trajectories(read.config, read.points)
  for panel in section.panels:
    root = ET.fromstring(panel)
    circles = root.findall('circle')
    assert len(circles) == len(problem.STARTS)
    for circle in circles:
      assert [x.get('attributeName') for x in circle] == ['cx', 'cy']
      for moves in circle:
        assert len(moves.get('values').split(';')) == figures.FRAMES


def test_a_ring_is_where_its_run_is():
  run = np.array([[0, -8, 7], [9, 1, 2], [99, 50, 4]], np.float32)

  def frames(longest):
    element = figures.mover(run, longest, '#000', lambda x: 10 * x)
    cx, cy = (
      np.array(x.get('values').split(';'), float)
      for x in ET.fromstring(element)
    )
    return np.stack([cx, cy], 1)

  found = frames(99)
  np.testing.assert_allclose(found[0], (-80, 70))
  np.testing.assert_allclose(found[-1], (110, 40))  # at the edge
  # By the logarithm: iteration 9 is half of the way to 99.
  half = figures.FRAMES // 2
  np.testing.assert_allclose(found[half - 1], (-80, 70))
  np.testing.assert_allclose(found[half], (10, 20))
  # One that has arrived waits for the others.
  assert np.all(frames(9999)[half:] == (110, 40))


def full(change):
  """Table A3 as published, but for some cells."""
  numbers = {
    ToyCell(*cell): dict(zip(RATES, found, strict=True))
    for cell, found in PAPER.items()
  }
  for cell, rate, number in change:
    numbers[ToyCell(*cell)][rate] = number
  return ReadCells({'iterations': 100_000}, numbers, {}, [])


@pytest.mark.parametrize(
  'change, outcome',
  [
    ([], 'holds'),
    ([(('gd', 'mean'), 1.0, 5)], 'holds'),  # chaotic, not judged
    ([(('gd', 'pcgrad'), 1.0, 5)], 'does not hold'),
    ([(('adam', 'mean'), 0.1, 760)], 'does not hold'),
    ([(('adam', 'cagrad'), 10.0, None)], 'does not hold'),
    ([(('adam', 'mean'), 0.001, 90_000)], 'does not hold'),
    ([(('adam', 'cagrad'), 0.001, None)], 'does not hold'),
  ],
)
def test_verdict_follows_from_the_numbers(change, outcome):
  assert study_report.verdict(full(change)).outcome == outcome


def test_front_is_not_dominated():
  front = problem.pareto_front()
  middle = front[len(front) // 2]
  np.testing.assert_allclose(middle, problem.MEAN_OPTIMUM, atol=1e-3)
  np.testing.assert_allclose(front[0], (-7, -8.4345), atol=1e-3)


@pytest.mark.parametrize(
  'options, message',
  [
    ({'optimizers': ('adm',)}, "Did you mean 'adam'?"),
    ({'optimizers': ()}, '--optimizers is empty'),
    ({'methods': ('mgda',)}, "--methods='mgda'"),
    ({'learning_rates': (0.0,)}, '--learning-rates=0'),
    ({'iterations': 0}, '--iterations=0'),
    ({'dtype': 'bfloat16'}, "--dtype='bfloat16'"),
    ({'picture_rate': 0.3}, '--picture-rate=0.3 is not one of'),
  ],
)
def test_bad_options_are_named(options, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    study.check(dataclasses.replace(study.ToyConfig(), **options))


def test_results_are_missing_or_partial(tmp_path):
  (tmp_path / 'config.json').write_text(
    json.dumps({'tasks': [], 'experiment': 'toy', 'cells': ['adam.mean']})
  )
  with pytest.raises(ReportError, match='no results of the toy study'):
    study_report.write_report(tmp_path)

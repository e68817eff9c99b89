"""Floors and published rows beside the methods of a made-up experiment."""

import json

import pytest
import rich.console
from made_up import ACCURACY, write

from experiments.report import beside, comparison

FLOORS = {'guess': {'accuracy/left': 0.1, 'accuracy/right': 0.2}}
PUBLISHED = {
  'source': 'A paper, 2000',
  'differs': 'It trains longer.',
  'baseline': 'STL',
  'rows': {
    'STL': {'accuracy/left': 0.8, 'accuracy/right': 0.5},
    'LS': {'accuracy/left': 0.6, 'accuracy/right': 0.55},
    'half': {'accuracy/left': 0.6},
  },
}


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  directory = write(
    tmp_path_factory.mktemp('beside'),
    ACCURACY,
    floors=FLOORS,
    published=PUBLISHED,
    units={'accuracy/left': 'mm'},
    delta_m_metrics=['accuracy/left', 'accuracy/right'],
  )
  return directory, comparison.write_report(directory)


def test_delta_m_is_against_the_published_row(made):
  rows = {(r['kind'], r['name']): r for r in made[1]['beside']['rows']}
  assert rows['published', 'STL']['delta_m'] == 0
  # (-(-0.25) - 0.1) / 2, in percent.
  assert rows['published', 'LS']['delta_m'] == pytest.approx(7.5)
  assert rows['published', 'half']['delta_m'] is None
  # Means over seeds: 0.91 and 0.78.
  expected = -100 * (0.11 / 0.8 + 0.28 / 0.5) / 2
  assert rows['method', 'sum_losses']['delta_m'] == pytest.approx(expected)
  expected = 100 * (0.7 / 0.8 + 0.3 / 0.5) / 2
  assert rows['floor', 'guess']['delta_m'] == pytest.approx(expected)
  assert ('method', 'single_left') not in rows
  stored = json.loads((made[0] / 'summary.json').read_text())
  assert stored['beside'] == made[1]['beside']


def test_the_page_and_the_terminal_show_them(made):
  page = (made[0] / 'report.html').read_text()
  for text in (
    'LS (published)',
    'guess (floor)',
    'A paper, 2000. It trains longer.',
    'accuracy left mm',
  ):
    assert text in page
  console = rich.console.Console(width=120, record=True, quiet=False)
  with console.capture() as capture:
    comparison.print_tables(made[1], console)
  assert 'guess (floor)' in capture.get() and '7.5' in capture.get()


def test_without_them_there_is_no_such_table(tmp_path):
  summary = comparison.write_report(write(tmp_path, ACCURACY))
  assert summary['beside'] is None
  assert 'Beside floors' not in (tmp_path / 'report.html').read_text()


def test_floors_alone_have_no_delta_m(tmp_path):
  summary = comparison.write_report(write(tmp_path, ACCURACY, floors=FLOORS))
  assert {row['delta_m'] for row in summary['beside']['rows']} == {None}
  titles = [column.title for column in beside.columns(summary)]
  assert titles == ['', 'accuracy left %', 'accuracy right %']
  assert 'Δm published' not in (tmp_path / 'report.html').read_text()


def test_with_published_rows_delta_m_has_a_column(made):
  titles = [column.title for column in beside.columns(made[1])]
  assert titles == [
    '',
    'Δm published %',
    'accuracy left mm',
    'accuracy right %',
  ]


def test_shares_are_in_percent_beside_floors_and_in_the_table(tmp_path):
  summary = comparison.write_report(
    write(
      tmp_path,
      ACCURACY,
      floors={'guess': {'loss/left': 0.5, 'accuracy/right': 0.25}},
      units={'loss/left': '%', 'accuracy/left': 'mm'},
      delta_m_metrics=['loss/left', 'accuracy/left', 'accuracy/right'],
    )
  )
  shown = {c.title: c.cells[0].text for c in beside.columns(summary)}
  assert shown['loss left %'] == '50'
  assert shown['accuracy right %'] == '25'
  names = list(summary['methods'])
  main = {
    c.title: c.cells[names.index('pcgrad')].text
    for c in comparison.main_columns(summary)
  }
  assert main['loss left %'] == '6.00 ± 1.00'
  assert main['accuracy right %'] == '72.00 ± 0.00'
  assert main['accuracy left mm'].startswith('0.94')


def test_kinds_whose_units_differ_are_not_averaged(tmp_path):
  names = [f'{k}/{t}' for t in ('left', 'right') for k in ('accuracy', 'loss')]
  table = {}
  for units in ({}, {'accuracy/left': 'mm', 'accuracy/right': 'm'}):
    folder = tmp_path / str(len(units))
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr('experiments.report.tables.MAX_METRICS', 1)
      summary = comparison.write_report(
        write(folder, ACCURACY, units=units, delta_m_metrics=names)
      )
      titles = [c.title for c in comparison.main_columns(summary)]
    table[len(units)] = [t for t in titles if 'mean of' in t]
  assert table == {
    0: ['accuracy, mean of 2 %', 'loss, mean of 2'],
    2: ['loss, mean of 2'],
  }


def shown(summary):
  """The cells of the table of floors and papers, by row and title."""
  columns = beside.columns(summary)
  names = [cell.text for cell in columns[0].cells]
  return {
    name: {c.title: c.cells[i].text for c in columns[1:]}
    for i, name in enumerate(names)
  }


def test_means_that_are_published_stand_for_values_that_are_not(tmp_path):
  means = {
    'STL': {'accuracy': 0.65},
    'MGDA': {'accuracy': 0.7, 'delta_m': -1.5},
  }
  published = PUBLISHED | {'rows': {}, 'means': means}
  summary = comparison.write_report(
    write(tmp_path, ACCURACY, published=published)
  )
  rows = {(r['kind'], r['name']): r for r in summary['beside']['rows']}
  assert rows['published', 'MGDA']['delta_m'] == -1.5
  assert rows['published', 'STL']['delta_m'] is None
  assert rows['method', 'sum_losses']['delta_m'] is None
  assert 'they are as printed' in ' '.join(summary['beside']['notes'])
  table = shown(summary)
  assert table['MGDA (published)']['accuracy, mean %'] == '70'
  # Means over seeds: 0.91 and 0.78.
  assert table['sum_losses']['accuracy, mean %'] == '84.5'


def test_of_many_metrics_the_means_are_shown(made, monkeypatch):
  monkeypatch.setattr(beside, '_MANY', 1)
  table = shown(made[1])
  assert table['LS (published)'] == {
    'accuracy, mean': '0.575',
    'Δm published %': '7.5',
  }

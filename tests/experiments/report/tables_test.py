"""Tables of a terminal: none is broken by its width."""

import pytest
import rich.console
from made_up import ACCURACY, write

from experiments.report import comparison
from experiments.report.tables import Cell, Column, fitting, render_columns

COLUMNS = [
  Column('method', [Cell('sum_losses'), Cell('cagrad')]),
  *(
    Column(f'error of task_{i} min', [Cell(f'{i}.25 ± 0.01'), Cell('-')])
    for i in range(17)
  ),
]


def lines_of(columns, width):
  console = rich.console.Console(width=width)
  with console.capture() as capture:
    console.print(render_columns('', columns, width=width))
  return [line for line in capture.get().splitlines() if line.strip()]


@pytest.mark.parametrize('width', [40, 60, 80, 124, 400])
def test_every_row_is_one_line_whatever_the_width(width):
  tables = fitting(COLUMNS, width)
  for table in tables:
    assert table[0] is COLUMNS[0]
    lines = lines_of(table, width)
    (row,) = [line for line in lines if 'sum_losses' in line]
    assert all(column.cells[0].text in row for column in table)
    (row,) = [line for line in lines if 'cagrad' in line]
  shown = [column for table in tables for column in table[1:]]
  assert shown == COLUMNS[1:]
  assert len(tables) == {40: 9, 60: 6, 80: 4, 124: 3, 400: 1}[width]


def test_a_column_that_fits_nowhere_has_a_table_of_its_own():
  assert [len(table) for table in fitting(COLUMNS[:4], 5)] == [2, 2, 2]


def test_a_narrow_terminal_has_all_numbers_unbroken(tmp_path):
  names = [f'{k}/{t}' for t in ('left', 'right') for k in ('accuracy', 'loss')]
  summary = comparison.write_report(
    write(tmp_path, ACCURACY, delta_m_metrics=names)
  )
  console = rich.console.Console(width=60)
  with console.capture() as capture:
    comparison.print_tables(summary, console)
  text = capture.get()
  assert max(map(len, text.splitlines())) <= 60
  for column in comparison.main_columns(summary):
    if column.title not in comparison.LESS_TELLING:
      assert all(cell.text in text for cell in column.cells)
  assert 'further columns' in text

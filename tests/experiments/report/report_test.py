"""The report of a made-up experiment, against numbers worked out by hand."""

import html.parser
import json
import math
import re

import pytest
import rich.console
from made_up import ACCURACY, write

from experiments.report import comparison
from experiments.report.results import ReportError


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  directory = write(tmp_path_factory.mktemp('fake'), ACCURACY)
  return directory, comparison.write_report(directory)


class _Page(html.parser.HTMLParser):
  """Gathers tags, ids, links and text; checks that tags close in order."""

  def __init__(self, text):
    super().__init__()
    self.open, self.tags, self.ids, self.urls = [], [], [], []
    self.text = ''
    self.feed(text)
    self.close()
    assert not self.open

  def handle_startendtag(self, tag, attrs):
    self.tags.append(tag)
    for name, value in attrs:
      if name == 'id':
        self.ids.append(value)
      if name in ('href', 'src'):
        self.urls.append(value)

  def handle_starttag(self, tag, attrs):
    self.handle_startendtag(tag, attrs)
    if tag not in ('meta', 'link', 'br'):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text += data


def _page(directory):
  return _Page((directory / 'report.html').read_text())


def _cells(summary):
  """The terminal table as text, by method and column."""
  table = comparison.render_table(summary)
  titles = [str(column.header) for column in table.columns]
  rows = zip(
    *([str(cell) for cell in column.cells] for column in table.columns),
    strict=True,
  )
  return {row[0]: dict(zip(titles, row, strict=True)) for row in rows}


def test_means_and_standard_errors(finished):
  methods = finished[1]['methods']
  found = methods['pcgrad']['metrics']['accuracy/left']
  assert found['mean'] == pytest.approx(0.94)
  # deviations of 0.01: sd 0.01 * sqrt 2, over sqrt 2
  assert found['standard_error'] == pytest.approx(0.01)
  assert found['n'] == 2
  assert methods['pcgrad']['metrics']['loss/right']['mean'] == pytest.approx(
    0.28
  )
  assert 'accuracy/right' not in methods['single_left']['metrics']


def test_delta_m_against_single_task_means(finished):
  _, summary = finished
  # Baselines 0.91 and 0.80. sum_losses: 0 and +5 %, 0 and 0.
  found = summary['methods']['sum_losses']['delta_m_metrics']
  assert found['mean'] == pytest.approx(1.25)
  assert found['standard_error'] == pytest.approx(1.25)
  # pcgrad: -100 * 0.03 / 0.91 on left on average, +10 % on right.
  found = summary['methods']['pcgrad']['delta_m_metrics']
  assert found['mean'] == pytest.approx((-3 / 0.91 + 10) / 2)
  assert summary['methods']['pcgrad']['delta_m_tasks'] == pytest.approx(found)
  assert summary['methods']['single_left']['delta_m_metrics'] is None
  assert summary['baseline']['accuracy/left']['mean'] == pytest.approx(0.91)


def test_metric_list_directions_and_rank(finished):
  _, summary = finished
  assert [
    (m['name'], m['higher_is_better'], m['in_delta_m'])
    for m in summary['metrics']
  ] == [
    ('accuracy/left', True, True),
    ('accuracy/right', True, True),
    ('loss/left', False, False),
    ('loss/right', False, False),
  ]
  ranks = {name: m['mean_rank'] for name, m in summary['methods'].items()}
  assert ranks == {
    'single_left': None,
    'single_right': None,
    'sum_losses': 1.5,
    'pcgrad': 1.5,
  }


def test_cost_relative_to_sum_losses(finished):
  pcgrad = finished[1]['methods']['pcgrad']
  assert pcgrad['time_ratio'] == 2
  assert pcgrad['wall_time']['mean'] == 10.5


def test_summary_file_is_the_summary(finished):
  directory, summary = finished
  assert json.loads((directory / 'summary.json').read_text()) == summary


def test_terminal_table(finished):
  cells = _cells(finished[1])
  assert list(cells) == list(ACCURACY)
  assert cells['pcgrad'] == {
    'method': 'pcgrad',
    'runs': '2',
    'accuracy left %': '94.00 ± 1.00',
    'accuracy right %': '72.00 ± 0.00',
    'Δm metrics %': '+3.35 ± 0.55',
    'Δm tasks %': '+3.35 ± 0.55',
    'mean rank': '1.50',
    's/run': '10.5',
    'steps/s': '20.0',
    'time ÷ sum_losses': '2.00x',
  }
  assert cells['single_left']['accuracy right %'] == '-'
  console = rich.console.Console(width=60, record=True, quiet=True)
  console.print(comparison.render_table(finished[1]))


def test_page_stands_alone(finished):
  directory, _ = finished
  text = (directory / 'report.html').read_text()
  page = _page(directory)
  assert not re.search(r'https?:|//[a-z]|@import|<script [^>]', text)
  assert all(url.startswith('#') for url in page.urls)
  assert {url[1:] for url in page.urls} <= set(page.ids)
  assert len(page.ids) == len(set(page.ids))
  assert len(text) < 400_000


def test_page_content(finished):
  page = _page(finished[0])
  text = ' '.join(page.text.split())
  for part in (
    'fake on two digits',
    '8 of 8 runs finished',
    '94.00 ± 1.00',
    'two standard errors are noise',
    'accuracy/left (higher is better)',
    'lower is better',
  ):
    assert part in text
  # A picture for loss (2), accuracy (2), cosine (1), weights of 2 methods.
  source = (finished[0] / 'report.html').read_text()
  labels = re.findall(r'<svg role="img" aria-label="([^"]*)"', source)
  assert labels == [
    'loss left',
    'loss right',
    'accuracy left',
    'accuracy right',
    'left, right',
    'sum_losses',
    'pcgrad',
  ]


def test_best_multi_task_mean_is_marked(finished):
  # single_right has 80 % on the right, but the stars are for the others.
  source = (finished[0] / 'report.html').read_text()
  main = source[: source.index('Every test metric')]
  assert re.findall(r'<strong>([^<]*)', main) == [
    '78.00 ± 2.00',
    '+1.25 ± 1.25',
    '+1.25 ± 1.25',
    '1.50',
    '94.00 ± 1.00',
    '1.50',
  ]


def test_same_files_same_bytes(finished):
  directory, _ = finished
  names = ('report.html', 'summary.json')
  first = [(directory / name).read_bytes() for name in names]
  comparison.write_report(directory)
  assert [(directory / name).read_bytes() for name in names] == first


def test_one_seed_has_no_standard_error(tmp_path):
  one = {method: seeds[:1] for method, seeds in ACCURACY.items()}
  summary = comparison.write_report(write(tmp_path, one, steps=50))
  cells = _cells(summary)
  assert cells['pcgrad']['accuracy left %'] == '93.00 ± -'
  assert cells['pcgrad']['Δm metrics %'].endswith('± -')
  found = summary['methods']['pcgrad']['metrics']['accuracy/left']
  assert found['standard_error'] is None
  assert 'no standard error' in _page(tmp_path).text


def test_missing_baseline_is_said(tmp_path):
  rest = {k: v for k, v in ACCURACY.items() if k != 'single_right'}
  summary = comparison.write_report(write(tmp_path, rest, steps=50))
  assert _cells(summary)['pcgrad']['Δm tasks %'] == '-'
  assert summary['baseline'] is None
  assert any('no finished run of single_right' in n for n in summary['notes'])
  assert summary['methods']['pcgrad']['mean_rank'] == 1.5
  assert 'single_right' in _page(tmp_path).text


def test_zero_baseline_is_said(tmp_path):
  zero = ACCURACY | {'single_right': [(None, 0.0), (None, 0.0)]}
  summary = comparison.write_report(write(tmp_path, zero, steps=50))
  assert summary['methods']['pcgrad']['delta_m_metrics'] is None
  assert any('is not shown: baseline[1] is 0' in n for n in summary['notes'])


def test_killed_run(tmp_path):
  directory = write(tmp_path, ACCURACY, steps=50)
  log = directory / 'runs/pcgrad/seed_1/metrics.jsonl'
  log.write_text(log.read_text()[:-25])
  table = directory / 'results.csv'
  lines = table.read_text().splitlines()
  table.write_text('\n'.join(lines[:-1]) + '\n')
  summary = comparison.write_report(directory)
  assert summary['failures'] == [
    {
      'method': 'pcgrad',
      'seed': '1',
      'reason': 'not finished: no row in results.csv',
    }
  ]
  assert any(
    'runs/pcgrad/seed_1/metrics.jsonl: line 6 is cut short' in note
    for note in summary['notes']
  )
  assert summary['methods']['pcgrad']['seeds'] == ['0']


def test_row_cut_short_is_no_result(tmp_path):
  directory = write(tmp_path, ACCURACY, steps=50)
  table = directory / 'results.csv'
  table.write_text(table.read_text()[:-12])
  summary = comparison.write_report(directory)
  assert [f['reason'] for f in summary['failures']] == ['its row is cut short']


def test_failed_and_diverged_runs_are_listed_and_left_out(tmp_path):
  bad = ACCURACY | {'pcgrad': [(0.93, 0.72), (math.nan, 0.72)]}
  directory = write(tmp_path, bad, steps=50)
  table = directory / 'results.csv'
  text = table.read_text()
  row = next(x for x in text.splitlines() if x.startswith('sum_losses,0'))
  table.write_text(text.replace(row, row[:-2] + 'loss <is> not finite'))
  summary = comparison.write_report(directory)
  assert [
    (f['method'], f['seed'], f['reason']) for f in summary['failures']
  ] == [
    ('sum_losses', '0', 'loss <is> not finite'),
    ('pcgrad', '1', 'not a finite number: accuracy/left, loss/left'),
  ]
  assert summary['methods']['sum_losses']['metrics']['accuracy/left']['n'] == 1
  assert 'sum_losses, seed 0: loss <is> not finite' in _page(directory).text
  assert 'loss &lt;is&gt;' in (directory / 'report.html').read_text()


def test_missing_log_only_costs_the_curves(tmp_path):
  directory = write(tmp_path, ACCURACY, steps=50)
  for path in directory.glob('runs/*/*/metrics.jsonl'):
    path.unlink()
  summary = comparison.write_report(directory)
  assert summary['methods']['pcgrad']['mean_rank'] == 1.5
  assert len([n for n in summary['notes'] if 'has no curves' in n]) == 8
  assert 'role="img"' not in (directory / 'report.html').read_text()


def test_running_experiment_without_results(tmp_path):
  directory = write(tmp_path, ACCURACY, steps=50)
  (directory / 'results.csv').unlink()
  summary = comparison.write_report(directory)
  assert 'No run has finished: there is no table.' in summary['notes']
  assert '0 of 8 runs finished' in _page(directory).text
  comparison.render_table(summary)


def test_repeated_row_and_steps_count_once(tmp_path):
  directory = write(tmp_path, {'sum_losses': [(0.5, 0.5)]}, steps=50)
  table = directory / 'results.csv'
  last = table.read_text().splitlines()[-1]
  with table.open('a') as file:
    file.write(last.replace('0.5,0.5,0.5,0.5', '0.75,0.25,0.5,0.5') + '\n')
  found = comparison.write_report(directory)['methods']['sum_losses']
  assert found['metrics']['accuracy/left'] == {
    'mean': 0.75,
    'standard_error': None,
    'n': 1,
  }


def test_unknown_metric_is_left_out_and_can_be_declared(tmp_path):
  directory = write(tmp_path, ACCURACY, steps=50)
  table = directory / 'results.csv'
  table.write_text(table.read_text().replace('accuracy', 'margin'))
  summary = comparison.write_report(directory)
  assert any(n.startswith('margin/left is left out') for n in summary['notes'])
  used = [m['name'] for m in summary['metrics'] if m['in_delta_m']]
  assert used == ['loss/left', 'loss/right']
  config = json.loads((directory / 'config.json').read_text())
  config |= {
    'higher_is_better': {'margin': True},
    'delta_m_metrics': ['margin/left', 'margin/right', 'loss/right'],
  }
  (directory / 'config.json').write_text(json.dumps(config))
  summary = comparison.write_report(directory)
  found = summary['methods']['sum_losses']
  # margin: 0 and 2.5 %; loss on the right: 0.2 becomes 0.22, +10 %.
  assert found['delta_m_metrics']['mean'] == pytest.approx(12.5 / 3)
  assert found['delta_m_tasks']['mean'] == pytest.approx(6.25 / 2)


def test_many_tasks_are_averaged_in_the_table(tmp_path):
  names = [f't{i}' for i in range(8)]
  columns = [f'test/accuracy/{name}' for name in names]
  values = [0.1 * i for i in range(8)]
  pairs = {f'cosine/t0,{name}': 0.5 for name in names[1:]}
  (tmp_path / 'config.json').write_text(json.dumps({'tasks': names}))
  (tmp_path / 'results.csv').write_text(
    ','.join(['method', 'seed', *columns, 'status'])
    + '\n'
    + ','.join(['a', '0', *map(str, values), 'ok'])
  )
  (tmp_path / 'runs/a/seed_0').mkdir(parents=True)
  (tmp_path / 'runs/a/seed_0/metrics.jsonl').write_text(
    json.dumps({'kind': 'train', 'step': 0, **pairs})
  )
  cells = _cells(comparison.write_report(tmp_path))
  assert cells['a']['accuracy, mean of 8 %'] == '35.00'
  source = (tmp_path / 'report.html').read_text()
  assert re.findall(r'role="img" aria-label="([^"]*)', source) == [
    'mean over all pairs'
  ]


def test_names_cannot_inject_markup(tmp_path):
  name = '<b>&"$x_1$[red]'
  accuracy = {'sum_losses': [(0.5, 0.5)], name: [(0.5, 0.5)]}
  summary = comparison.write_report(
    write(tmp_path, accuracy, steps=50, experiment='</title><i>')
  )
  page = _page(tmp_path)
  assert 'b' not in page.tags
  assert 'i' not in page.tags
  assert name in page.text
  assert name in _cells(summary)


@pytest.mark.parametrize(
  ('files', 'match'),
  [
    ({}, 'config.json does not exist'),
    ({'config.json': '{'}, 'not valid JSON'),
    ({'config.json': '{}'}, 'a list "tasks"'),
    ({'config.json': '{"tasks": ["a"]}'}, 'holds no results'),
    (
      {'config.json': '{"tasks": ["a"]}', 'results.csv': 'method,seed\n'},
      'holds no results',
    ),
    (
      {'config.json': '{"tasks": ["a"], "methods": null}'},
      '"methods" must be a list',
    ),
    (
      {'config.json': '{"tasks": ["a"], "experiment": []}'},
      '"experiment" must be a text',
    ),
  ],
)
def test_a_folder_without_results_is_one_clear_error(tmp_path, files, match):
  for name, text in files.items():
    (tmp_path / name).write_text(text)
  with pytest.raises(ReportError, match=match):
    comparison.write_report(tmp_path)
  assert not (tmp_path / 'report.html').exists()


def test_not_a_folder(tmp_path):
  with pytest.raises(ReportError, match='is not a folder'):
    comparison.write_report(tmp_path / 'absent')


def test_damaged_results_are_left_out(tmp_path):
  accuracy = {'sum_losses': [(0.5, 0.5)]}
  write(tmp_path, accuracy, steps=50)
  with (tmp_path / 'results.csv').open('ab') as file:
    file.write(b'\xff\xfe\x00,,\n')
  summary = comparison.write_report(tmp_path)
  assert summary['methods']['sum_losses']['seeds'] == ['0']
  assert any('results.csv' in note for note in summary['notes'])

"""The page of a report as a tool, in a headless Chromium, from a file."""

import html
import json
import re

import browser
import numpy as np
import pytest
from made_up import ACCURACY, write

from experiments.report import comparison

pytestmark = browser.needed

# So many that lines are labelled at their ends too.
MORE = {
  name: [(0.8 + i / 100, 0.7), (0.8 + i / 100, 0.7)]
  for i, name in enumerate(('cagrad', 'mgda', 'nash_mtl'))
}
SHOWN = ACCURACY | MORE

ACTIONS = """
const found = {}, saved = [], urls = new Map();
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = selector => document.querySelector(selector);
const names = () => all('.scroll tbody tr:not([hidden]) th')
  .filter(th => th.closest('[aria-label="Test results"]'))
  .map(th => th.textContent);
const named = (label, root) => all('button, input', root).find(
  each => each.getAttribute('aria-label') === label);
URL.createObjectURL = blob => {
  urls.set('blob:' + urls.size, blob);
  return 'blob:' + (urls.size - 1);
};
HTMLAnchorElement.prototype.click = function () {
  saved.push([this.download, urls.get(this.getAttribute('href'))]);
};
const change = (node, value, event) => {
  node.value = value;
  node.dispatchEvent(new Event(event, { bubbles: true }));
};
const lines = label => all(`[data-label="${label}"]`).map(
  each => getComputedStyle(each).display);

found.first = names();
const heads = all('.scroll')[0].querySelectorAll('th button');
const left = [...heads].find(each => each.textContent === 'accuracy left %');
left.click();
found.ascending = [names(), left.parentNode.ariaSort];
left.click();
found.descending = [names(), left.parentNode.ariaSort];
named('Download Test results as CSV').click();
left.click();
found.again = [names(), left.parentNode.ariaSort];
heads[0].click();
found.by_name = names();

const filter = named('Filter the rows of Test results');
change(filter, 'SUM, pcg', 'input');
found.filtered = [names(), filter.parentNode.textContent.includes('2 of 7')];
change(filter, '', 'input');

const svg = one('svg[aria-label="loss left"]');
const legend = all('.legend button').find(
  each => each.textContent === 'pcgrad');
found.shown = [legend.ariaPressed, lines('pcgrad')];
legend.click();
found.ends = all('[data-part="label"]', svg).filter(
  each => getComputedStyle(each).display !== 'none'
).map(each => each.textContent.trim());
found.hidden = [legend.ariaPressed, lines('pcgrad'), names(),
  one('svg[aria-label="pcgrad"]').closest('figure').hidden];
found.boxes = all('.names label').map(
  each => [each.textContent.trim(), each.querySelector('input').checked]);

named('Download loss left as SVG').click();
named('Download loss left as CSV').click();
const range = named('Values of loss left');
range.focus();
change(range, '1', 'input');
found.values = range.getAttribute('aria-valuetext');
found.box = svg.parentNode.querySelector('.values').innerText;
range.dispatchEvent(new KeyboardEvent(
  'keydown', { key: 'Escape', bubbles: true }));
found.closed = svg.parentNode.querySelector('.values').hidden;

const { x, y, width, height } = svg.getBoundingClientRect();
svg.dispatchEvent(new PointerEvent('pointermove', {
  clientX: x + 0.99 * width, clientY: y + height / 2 }));
found.hovered = svg.parentNode.querySelector('.values').innerText;
svg.dispatchEvent(new PointerEvent('pointerleave'));

const path = svg.querySelector('[data-label="sum_losses"] path');
found.path = path.getAttribute('d');
change(one('.bar select'), '5', 'change');
found.smooth = path.getAttribute('d');
change(one('.bar select'), '1', 'change');
found.rough = path.getAttribute('d');

found.unnamed = all('button, input, select').filter(each => !(
  each.ariaLabel || each.textContent.trim() || each.closest('label'))).length;
found.out_of_reach = all('button, input, select, summary').filter(
  each => each.tabIndex < 0).length;
found.wide = document.documentElement.scrollWidth - innerWidth;
Promise.all(saved.map(async ([name, blob]) =>
  [name, blob.type, await blob.text()])).then(texts => {
  found.saved = texts;
  const kept = document.createElement('pre');
  kept.id = 'found';
  kept.textContent = JSON.stringify(found);
  document.body.append(kept);
});
"""


def act(directory, script, **options):
  """What a script finds in the report, and what the console is told."""
  page = (directory / 'report.html').read_text()
  test = directory / 'acted.html'
  test.write_text(page.replace('</body>', f'<script>{script}</script></body>'))
  said, tree = browser.visit(test.as_uri(), directory / 'profile', **options)
  kept = re.search(r'(?s)<pre id="found">(.*?)</pre>', tree)
  assert kept, said
  return json.loads(html.unescape(kept[1])), said


@pytest.fixture(scope='module')
def acted(tmp_path_factory):
  directory = write(tmp_path_factory.mktemp('fake'), SHOWN)
  comparison.write_report(directory)
  return act(directory, ACTIONS)


def test_nothing_is_said_and_nothing_hangs_over(acted):
  found, said = acted
  assert said == []
  assert found['wide'] <= 0


def test_rows_are_sorted_and_filtered(acted):
  found, _ = acted
  first = list(SHOWN)
  # 0.91 and 0.91 keep their order; what is missing is last both times.
  assert found['first'] == first
  up = [*MORE, 'single_left', 'sum_losses', 'pcgrad', 'single_right']
  assert found['ascending'] == [up, 'ascending']
  down = ['pcgrad', 'single_left', 'sum_losses', *reversed(MORE)]
  down += ['single_right']
  assert found['descending'] == [down, 'descending']
  assert found['again'] == [first, None]
  assert found['by_name'] == sorted(first)
  assert found['filtered'] == [['pcgrad', 'sum_losses'], True]


def test_a_method_is_hidden_everywhere(acted):
  found, _ = acted
  pressed, lines = found['shown']
  assert pressed == 'true'
  assert len(lines) == 5  # 2 losses, 2 accuracies, a cosine
  assert 'none' not in lines
  pressed, lines, rows, own_picture = found['hidden']
  assert pressed == 'false'
  assert set(lines) == {'none'}
  assert 'pcgrad' not in rows
  assert own_picture
  assert 'sum_losses' in found['ends']
  assert 'pcgrad' not in found['ends']
  assert found['boxes'] == [[name, name != 'pcgrad'] for name in SHOWN]


def test_values_are_told_by_keyboard_and_pointer(acted):
  found, _ = acted
  # Of the files: seeds 0 and 1 of sum_losses at step 10.
  at_10 = [
    2 * np.exp(-10 / 500) + 0.1 * np.random.default_rng(seed).random(4)[3]
    for seed in range(2)
  ]
  assert found['values'].startswith('step 10: ')
  assert f'sum_losses {np.mean(at_10):.4g} ± ' in found['values']
  assert 'pcgrad' not in found['values']
  assert found['box'].startswith('step 10')
  assert all(name in found['box'] for name in ('single_left', *MORE))
  assert found['closed']
  assert found['hovered'].startswith('step 990')


def test_lines_are_smoothed_and_come_back(acted):
  found, _ = acted

  def heights(path):
    return np.array(re.findall(r'[ML] \S+ (\S+)', path), float)

  path, smooth, rough = (found[k] for k in ('path', 'smooth', 'rough'))
  np.testing.assert_allclose(heights(rough), heights(path), atol=0.11)
  second = lambda path: np.abs(np.diff(heights(path), 2)).mean()
  assert second(smooth) < second(path) / 2


def test_what_is_shown_is_saved(acted):
  found, _ = acted
  saved = {name: (kind, text) for name, kind, text in found['saved']}
  kind, text = saved['Test_results.csv']
  assert kind == 'text/csv'
  lines = text.splitlines()
  assert lines[0].startswith(
    'method,runs,accuracy left %,accuracy left % standard error'
  )
  assert lines[1].startswith('pcgrad,2,94.00,1.00,72.00,0.00')
  kind, text = saved['loss_left.csv']
  names = {line.split(',')[0] for line in text.splitlines()[1:]}
  assert names == {'single_left', 'sum_losses', *MORE}
  kind, text = saved['loss_left.svg']
  assert kind == 'image/svg+xml'
  assert 'xmlns="http' in text
  assert 'data-label="sum_losses"' in text
  assert 'data-label="pcgrad"' not in text
  assert not re.search(r'var\(|currentColor', text)


def test_controls_have_names_and_are_reached_by_keyboard(acted):
  found, _ = acted
  assert found['unnamed'] == found['out_of_reach'] == 0


TIMES = """
addEventListener('load', () => setTimeout(() => {
  const [entry] = performance.getEntriesByType('navigation');
  const kept = document.createElement('pre');
  kept.id = 'found';
  kept.textContent = JSON.stringify(entry.loadEventEnd);
  document.body.append(kept);
}));
"""


@pytest.mark.slow
def test_a_thousand_runs_open_at_once(tmp_path):
  rng = np.random.default_rng(0)
  accuracy = {
    name: [tuple(rng.random(2)) for _ in range(20)]
    for name in ['sum_losses', 'pcgrad', *(f'method_{i}' for i in range(48))]
  }
  write(tmp_path, accuracy, steps=3000)
  comparison.write_report(tmp_path)
  assert (tmp_path / 'report.html').stat().st_size < 3_000_000
  milliseconds, said = act(tmp_path, TIMES)
  assert said == []
  assert milliseconds < 2000

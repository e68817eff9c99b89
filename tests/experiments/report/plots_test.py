"""Curves of the report."""

import math
import re

import numpy as np

from experiments.report import plots
from mtljax import metrics


def test_average_over_seeds_of_different_length():
  first = np.arange(4.0), np.array([1.0, 2.0, 3.0, 4.0])
  second = np.arange(2.0), np.array([3.0, math.nan])
  steps, mean, error = plots.average([first, second])
  np.testing.assert_array_equal(steps, [0, 1, 2, 3])
  np.testing.assert_allclose(mean, [2, 2, 3, 4])
  expected = metrics.summarize([1.0, 3.0]).standard_error
  np.testing.assert_allclose(error, [expected, np.nan, np.nan, np.nan])


def test_average_keeps_to_its_windows():
  steps = np.arange(1000.0)
  got_steps, mean, _ = plots.average([(steps, steps * 2)], points=10)
  np.testing.assert_allclose(got_steps, np.arange(10) * 100 + 49.5)
  np.testing.assert_allclose(mean, got_steps * 2)


def test_small_losses_keep_their_axis_labels():
  steps = np.arange(20.0)
  curve = plots.Curve(
    plots.style_of(0), steps, 0.1 * 0.7**steps, np.full(20, np.nan)
  )
  labels = re.findall(
    r'<text[^>]*>([^<]*)', plots.draw('loss', [curve], ident='a', log=True)
  )
  assert {'0.1', '0.001'} <= set(labels)


def test_lines_are_told_apart_and_seen_on_both_backgrounds():
  def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    parts = [
      p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
    ]
    return np.dot(parts, [0.2126, 0.7152, 0.0722])

  styles = [plots.style_of(i) for i in range(32)]
  assert len(set(styles)) == 32
  for color in plots.COLORS:
    on_white = 1.05 / (luminance(color) + 0.05)
    on_dark = (luminance(color) + 0.05) / (luminance('#14171b') + 0.05)
    assert min(on_white, on_dark) >= 3, (color, on_white, on_dark)


def _texts(picture):
  return re.findall(r'<text[^>]*>([^<]*)', picture)


def test_a_long_title_is_broken_where_it_would_be_cut_off():
  curve = plots.Curve(
    plots.style_of(0), np.arange(3.0), np.arange(3.0), np.full(3, np.nan)
  )
  title = 'Share of coordinates of opposite sign, tasks on a sample'
  picture = plots.draw(title, [curve], ident='a')
  assert f'aria-label="{title}"' in picture
  lines = [text for text in _texts(picture) if len(text) > 3 and text in title]
  assert len(lines) == 2
  assert ' '.join(lines) == title
  assert 'loss left' in _texts(plots.draw('loss left', [curve], ident='b'))


def test_a_curve_of_one_point_is_seen():
  def picture(steps):
    style = plots.style_of(0)
    curve = plots.Curve(style, steps, steps, np.full(len(steps), np.nan))
    dots = rf'<use[^>]*{style.color}'
    text = plots.draw('loss', [curve], ident='a')
    return len(re.findall(dots, text)), _texts(text.split('aytick_1')[0])

  assert picture(np.array([7.0])) == (1, ['7', 'step'])  # no fractions
  dots, ticks = picture(np.arange(9.0))
  assert dots == 0
  assert len(ticks) > 2


def test_many_lines_are_labelled_at_their_ends():
  steps = np.arange(5.0)

  def panel(count):
    curves = [
      plots.Curve(
        plots.style_of(i), steps, steps * 0 + 0.01 * i, steps * np.nan, f'm{i}'
      )
      for i in range(count)
    ]
    return plots.draw('accuracy', curves, ident='x-')

  texts = re.findall(r'<text[^>]*>(m\d)', panel(8))
  assert sorted(texts) == [f'm{i}' for i in range(8)]
  # Few lines are told apart by the legend.
  assert not re.findall(r'<text[^>]*>(m\d)', panel(plots.MANY))


def test_labels_are_apart_and_in_order():
  found = np.array(plots.spread([0.5, 0.5, 0.51, 0.9, 0.99, 1.0], 0.1))
  assert np.all(np.diff(found) > 0.1 - 1e-3)
  assert 0 <= found[0] and found[-1] <= 1 + 1e-9
  assert plots.spread([0.2, 0.8], 0.1) == [0.2, 0.8]
  assert plots.spread([], 0.1) == []

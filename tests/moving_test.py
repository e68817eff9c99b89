"""The picture of methods in motion."""

import base64
import importlib
import pathlib
import re

import browser
import numpy as np
import pytest

DOCS = pathlib.Path(__file__).parents[1] / 'docs'
SIDE = 11.0  # of the panels


@pytest.fixture(scope='module')
def drawn():
  """The module in docs/, which is no package."""
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(DOCS))
    yield importlib.import_module('draw_moving')


@pytest.fixture(scope='module')
def runs():
  """From corner to corner, along two sides at unlike speeds, and no way."""
  share = np.linspace(0, 1, 301)[:, None]
  corner, end = np.full(2, -SIDE), np.full(2, SIDE)
  straight = corner + share * (end - corner)
  bent = np.where(
    share < 0.25,
    corner + 4 * share * (2 * SIDE, 0),
    corner + (2 * SIDE, 0) + (share - 0.25) / 0.75 * (0, 2 * SIDE),
  )
  return np.stack([straight, bent, np.zeros_like(straight)])


@pytest.fixture(scope='module')
def svg(drawn, runs):
  return drawn.render({'first': runs, 'second': runs[::-1]})


def width_of(svg):
  return float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1])


def frames(svg, name):
  """Seconds' shares, and what of the way is left."""
  (body,) = re.findall(rf'@keyframes {name}\{{(.*)\}}$', svg, re.M)
  found = re.findall(r'([\d.]+)%\{stroke-dashoffset:([-\d.]+)\}', body)
  return np.array(found, float).T


def paths(svg):
  """The places of every trail, ``(runs, FRAMES, 2)``."""
  found = re.findall(r'<path id="toy-[^>]* d="M([^"]*)"', svg)
  return np.array([[p.split() for p in d.split('L')] for d in found], float)


def test_a_run_is_where_the_steps_were_at_that_time(drawn, svg, runs):
  places = paths(svg)
  assert places.shape == (6, drawn.FRAMES, 2)
  # From the corners of the first panel: where a point of the plane is.
  low, high = places[0, 0], places[0, -1]
  assert high[0] > low[0] and high[1] < low[1]  # pictures count downwards
  at = np.linspace(0, runs.shape[1] - 1, drawn.FRAMES).round().astype(int)
  expected = low + (runs[1, at] + SIDE) / (2 * SIDE) * (high - low)
  np.testing.assert_allclose(places[1], expected, atol=0.11)
  clock, left = frames(svg, 'toy-first-1')
  moving = clock[:-1]
  np.testing.assert_allclose(
    moving, np.linspace(0, 100 * (1 - drawn.REST), drawn.FRAMES), atol=0.01
  )
  # Half of the way is gone after a quarter of the steps.
  quarter = np.searchsorted(moving, 25 * (1 - drawn.REST))
  assert left[quarter] == pytest.approx(0.5, abs=0.01)
  assert left[0] == 1 and left[-2] == left[-1] == drawn.END > 0


def test_who_leaves_the_panel_waits_at_its_edge(drawn, svg, runs):
  away = drawn.render({'only': runs * 3})
  inside = drawn.render({'only': runs})
  np.testing.assert_array_equal(paths(away)[0, -1], paths(inside)[0, -1])
  assert np.ptp(paths(away)[0], axis=0) == pytest.approx(
    np.ptp(paths(inside)[0], axis=0)
  )


def test_a_run_without_a_way_is_a_number(svg):
  assert np.isfinite(frames(svg, 'toy-first-2')).all()


def test_the_same_numbers_are_the_same_bytes(drawn, svg, runs):
  assert drawn.render({'first': runs, 'second': runs[::-1]}) == svg
  assert svg.startswith('<svg class="toy-moving" role="img" aria-label="')
  assert '<dc:date>' not in svg
  styles = ''.join(re.findall(r'<style.*?>(.*?)</style>', svg, re.S))
  found = re.findall(r'^ *([^@{} \d][^{}]*?) *\{', styles, re.M)
  assert found and all(x.startswith('.toy-') for x in found), found


def test_the_command_draws_what_is_trained(drawn, tmp_path, monkeypatch):
  monkeypatch.setattr(drawn.draw_toy, 'STEPS', 20)
  drawn.main([str(tmp_path / 'moving.svg'), 'mean'])
  found = (tmp_path / 'moving.svg').read_text()
  points = drawn.draw_toy.run('mean').points
  assert found == drawn.render({'mean': points})
  assert len(paths(found)) == len(points) == 3


@browser.needed
@pytest.mark.parametrize('flag', ['', '--force-prefers-reduced-motion'])
def test_moves_unless_less_motion_is_wanted(svg, tmp_path, flag):
  script = """
  document.getAnimations().forEach(x => x.pause());
  const run = document.querySelectorAll('.toy-run')[1];
  const moves = run.getAnimations();
  moves.forEach(x => { x.currentTime = 10000 * 0.225; });
  const dot = run.querySelector('.toy-dot');
  document.title = [moves.length,
    parseFloat(getComputedStyle(dot).strokeDashoffset).toFixed(2)].join(' ');
  """
  page = tmp_path / 'page.html'
  page.write_text(
    f'<link rel="icon" href="data:,">{svg}<script>{script}</script>'
  )
  said, tree = browser.visit(
    page.as_uri(), tmp_path / 'profile', 800, *filter(None, [flag])
  )
  assert said == []
  expected = '0 0.00' if flag else '1 0.50'  # all of it, or half
  assert f'<title>{expected}</title>' in tree


@browser.needed
def test_a_dot_is_at_the_end_of_its_trail(svg, tmp_path):
  """Counted in pixels of its colour, where nothing moves."""
  start, end = paths(svg)[1][[0, -1]]  # orange, and above the first
  still = svg.replace('animation-name:', 'no-name:')
  address = base64.b64encode(still.encode()).decode()
  script = f"""
  const image = new Image();
  image.onload = () => {{
    const canvas = new OffscreenCanvas(300, 300).getContext(
      '2d', {{willReadFrequently: true}});
    canvas.drawImage(image, 0, 0);
    const near = (x, y) => {{
      const ratio = image.width / {width_of(svg)};
      const side = Math.round(8 * ratio);
      const found = canvas.getImageData(
        ratio * x - side / 2, ratio * y - side / 2, side, side).data;
      let count = 0;
      for (let i = 0; i < found.length; i += 4)
        count += found[i] > 180 && found[i + 2] < 80 && found[i + 3] > 200;
      return count / ratio ** 2;
    }};
    document.title = ['seen', near({start[0]}, {start[1]}),
      near({end[0]}, {end[1]})].join(' ');
  }};
  image.src = 'data:image/svg+xml;base64,{address}';
  """
  page = tmp_path / 'page.html'
  page.write_text(f'<link rel="icon" href="data:,"><script>{script}</script>')
  said, tree = browser.visit(page.as_uri(), tmp_path / 'profile')
  assert said == []
  (found,) = re.findall('<title>seen (.*)</title>', tree)
  at_start, at_end = map(float, found.split())
  assert at_end > 20  # of 28 square points
  assert at_start < 10  # a trail alone

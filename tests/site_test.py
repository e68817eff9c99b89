"""The site that was built, in a headless Chromium: no word in the console."""

import functools
import http.server
import pathlib
import re
import shutil
import threading
from typing import ClassVar

import browser
import pytest

SITE = pathlib.Path(__file__).parents[1] / 'site'
PAGES = ('index.html', 'generated/methods/cagrad.html', 'gallery.html')

pytestmark = browser.needed
built = pytest.mark.skipif(
  not (SITE / 'index.html').exists(),
  reason='not built: sphinx-build -W -b html docs site',
)


class Handler(http.server.SimpleHTTPRequestHandler):
  """Serves files, and keeps what was asked for and is not there."""

  missing: ClassVar[list[str]] = []

  def log_message(self, *args):
    del args

  def send_error(self, code, *args, **kwargs):
    if not self.path.endswith('favicon.ico'):  # asked for by itself
      self.missing.append(f'{code}: {self.path}')
    super().send_error(code, *args, **kwargs)


@pytest.fixture
def serve():
  """Serves a folder, and gives its address."""
  servers = []
  Handler.missing.clear()

  def start(folder):
    handler = functools.partial(Handler, directory=folder)
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    servers.append(server)
    return f'http://127.0.0.1:{server.server_port}'

  yield start
  for server in servers:
    server.shutdown()
    server.server_close()


def visit(address, profile, width=390):
  """What a page says to the console and lacks, and its tree when loaded."""
  said, tree = browser.visit(address, profile, width)
  return said + Handler.missing, tree


@pytest.mark.parametrize(
  'body, word',
  [
    ('<script>console.error("heard")</script>', 'heard'),
    ('<script>nothing.at.all</script>', 'nothing is not defined'),
    ('<img src="missing.svg">', '404'),
  ],
)
def test_what_a_page_says_is_heard(serve, tmp_path, body, word):
  page = f'<link rel="icon" href="data:,">{body}'
  (tmp_path / 'index.html').write_text(page)
  said, _ = visit(serve(tmp_path), tmp_path / 'profile')
  assert any(word in line for line in said), said


@built
@pytest.mark.parametrize('page', PAGES)
def test_page_says_nothing(serve, tmp_path, page):
  said, tree = visit(f'{serve(SITE)}/{page}', tmp_path / 'profile')
  assert said == []
  assert '<article' in tree
  assert tree.count('<input class="sidebar-search"') == 1


@built
def test_search_finds_a_method(serve, tmp_path):
  address = f'{serve(SITE)}/search.html?q=cagrad'
  said, tree = visit(address, tmp_path / 'profile')
  assert said == []
  assert 'generated/methods/cagrad.html' in tree


@built
@pytest.mark.parametrize('page', PAGES)
def test_page_fits_a_phone(serve, tmp_path, page):
  """In a frame of 390 pixels: no scrolling sideways, every picture seen."""
  frame = tmp_path / 'frame'
  shutil.copytree(SITE, frame, ignore=shutil.ignore_patterns('.doctrees'))
  (frame / 'frame.html').write_text(
    '<link rel="icon" href="data:,">'
    f'<iframe src="{page}" width="390" height="800" onload="'
    "document.title = 'wide ' + [this.contentDocument.documentElement"
    '.scrollWidth, ...Array.from(this.contentDocument.images,'
    " image => image.offsetWidth)].join(' ')\"></iframe>"
  )
  _, tree = visit(f'{serve(frame)}/frame.html', tmp_path / 'profile', 800)
  (widths,) = re.findall(r'<title>wide ([\d ]+)</title>', tree)
  width, *pictures = map(int, widths.split())
  assert width <= 390
  assert all(80 <= picture <= 390 for picture in pictures)


@built
def test_methods_in_motion_can_be_stilled(serve, tmp_path):
  """By a checkbox, which the keyboard reaches, and begin again after it."""
  frame = tmp_path / 'frame'
  shutil.copytree(SITE, frame, ignore=shutil.ignore_patterns('.doctrees'))
  (frame / 'frame.html').write_text(
    '<link rel="icon" href="data:,">'
    '<iframe src="gallery.html" onload="'
    'const inside = this.contentDocument;'
    "const runs = Array.from(inside.querySelectorAll('.toy-run'));"
    'const moving = () => runs.filter('
    "run => getComputedStyle(run).animationName !== 'none').length;"
    "const box = inside.querySelector('figure.moving input');"
    'const found = [moving()];'
    'for (const _ of [0, 1]) { box.click(); found.push(moving()); }'
    "document.title = ['moving', ...found].join(' ')"
    '"></iframe>'
  )
  _, tree = visit(f'{serve(frame)}/frame.html', tmp_path / 'profile', 800)
  assert '<title>moving 24 0 24</title>' in tree

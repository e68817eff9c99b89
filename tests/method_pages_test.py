"""The pages and pictures that the site makes for each method."""

import importlib
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl

DOCS = pathlib.Path(__file__).parents[1] / 'docs'
NAMES = [method.name for method in mtl.methods()]


@pytest.fixture(scope='module')
def made():
  """The modules in docs/, which are no package."""
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(DOCS))
    yield importlib.import_module('method_pages')


@pytest.mark.parametrize('method', mtl.methods(), ids=NAMES)
def test_page_says_what_the_library_knows(made, method):
  page = made.render(method)
  facts = dict(re.findall(r'^\| \*\*(.+?)\*\* \| (.+) \|$', page, re.M))
  assert f'route `{method.routes[0]}`' in facts['costs']
  assert facts['invariance'].startswith(f'{method.invariance}: ')
  assert ('negative' in facts['weights']) and (
    facts['weights'].startswith('may') == method.signed
  )
  assert (facts['randomness'] == 'none') != method.random
  assert method.paper.rpartition(', ')[2] in page
  place = 'mtljax.contrib' if method.contrib else 'mtljax'
  assert f'.. autofunction:: {place}.{method.name}(' in page
  home = mtl.contrib.weightings if method.contrib else mtl.weightings
  has_rule = hasattr(home, method.name)
  assert (f'{place}.weightings.{method.name}(' in page) == has_rule
  assert ('>>> ' in page) == has_rule


def test_table_leads_to_every_page(made):
  table = made.linked((DOCS / 'methods.md').read_text())
  links = re.findall(
    r'^\| \[`(?:contrib\.)?(\w+)`\]\(generated/methods/(\w+)\.md\)',
    table,
    re.M,
  )
  assert links == [(name, name) for name in NAMES]


def test_trajectory_is_that_of_a_plain_loop(made):
  draw = made.draw_toy
  found = draw.run('cagrad')
  tx = optax.chain(mtl.cagrad(2), optax.adam(draw.RATE))

  @jax.jit
  def step(point, state):
    grads = jax.jacrev(draw.toy.losses)(point)
    updates, state = tx.update(grads, state, point)
    return optax.apply_updates(point, updates), state

  point = jnp.array(draw.toy.STARTS[1])
  state = tx.init(point)
  for _ in range(20):
    point, state = step(point, state)
  np.testing.assert_allclose(found.points[1, 20], point, atol=1e-4)
  np.testing.assert_allclose(found.points[1, -1], [0, -8.36], atol=0.05)
  np.testing.assert_allclose(
    found.weights[1, 19], mtl.get_weights(state), rtol=1e-3
  )


@pytest.mark.parametrize('name', ['graddrop', 'adatask', 'modo'])
def test_pictures_are_drawn(made, name, tmp_path, monkeypatch):
  monkeypatch.setattr(made.draw_toy, 'STEPS', 20)
  made.draw_toy.draw(tmp_path, [name])
  assert f'{name}_small.svg' in made.gallery([name])
  for picture in (name, f'{name}_small'):
    svg = (tmp_path / f'{picture}.svg').read_text()
    assert svg.count('<path') > 20
    assert '<dc:date>' not in svg


def test_figure_is_taken_out_of_a_report(made):
  take = importlib.import_module('take_figures').take
  page = (
    '<svg viewBox="0 0 1 1" aria-hidden="true"></svg><p>between</p>\n'
    '<svg role="img" aria-label="a &lt; b" viewBox="0 0 1 1">\n'
    '  <path style="stroke: currentColor"/>'
    '<circle class="mover"><animate/></circle></svg>\n'
    '<svg role="img" aria-label="other" viewBox="0 0 1 1"></svg>'
  )
  assert take(page, 'a < b') == (
    '<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="a &lt; b" '
    'viewBox="0 0 1 1" width="1pt" height="1pt">'
    '<path style="stroke: #222222"/></svg>\n'
  )
  with pytest.raises(ValueError, match="title='c' is none of .* a < b, other"):
    take(page, 'c')

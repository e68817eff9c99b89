import itertools
import math
import sys

import numpy as np
import pytest

from mtljax.diagnostics import hypervolume, non_dominated, r2


def _points(seed, n=40, m=2):
  """On a coarse grid, so that there are ties."""
  return np.random.default_rng(seed).integers(0, 12, (n, m)).astype(float)


def _dominates(q, p):
  return all(a <= b for a, b in zip(q, p, strict=True)) and any(
    a < b for a, b in zip(q, p, strict=True)
  )


@pytest.mark.parametrize('m', [1, 2, 3])
def test_non_dominated_by_its_definition(m):
  points, others = _points(m, m=m), _points(9 + m, n=5, m=m)
  for rivals, got in (
    (points, non_dominated(points)),
    (others, non_dominated(points, others)),
  ):
    expected = [not any(_dominates(q, p) for q in rivals) for p in points]
    np.testing.assert_array_equal(got, expected)


def test_nan_is_neither_kept_nor_dominates():
  points = [[math.nan, 0.0], [1.0, 1.0], [1.0, 1.0], [math.inf, 0.5]]
  np.testing.assert_array_equal(
    non_dominated(points), [False, True, True, True]
  )
  assert non_dominated(np.zeros((0, 2))).shape == (0,)


def _volume(points, reference):
  """Cells of the grid that some point dominates."""
  cells = itertools.product(*(range(int(r)) for r in reference))
  return sum(any(np.all(p <= np.array(cell)) for p in points) for cell in cells)


@pytest.mark.parametrize('m', [1, 2])
def test_hypervolume_counts_the_cells_of_a_grid(m):
  for seed in range(5):
    points = _points(seed, n=8, m=m)
    assert hypervolume(points, [10.0] * m) == _volume(points, [10] * m)


def test_hypervolume_of_three_objectives():
  pytest.importorskip('moocore')
  points = _points(0, n=8, m=3)
  assert hypervolume(points, [10.0] * 3) == _volume(points, [10] * 3)


def test_three_objectives_ask_for_the_package(monkeypatch):
  monkeypatch.setitem(sys.modules, 'moocore', None)
  with pytest.raises(ImportError, match=r"pip install 'mtljax\[experiments\]'"):
    hypervolume(np.ones((2, 3)), [2.0, 2.0, 2.0])


def test_edges_of_the_hypervolume():
  assert hypervolume(np.zeros((0, 2)), [1.0, 1.0]) == 0
  assert hypervolume([[1.0, 0.0], [5.0, -5.0]], [1.0, 1.0]) == 0
  assert hypervolume([[-math.inf, 0.0]], [1.0, 1.0]) == math.inf
  with pytest.raises(ValueError, match='points must not be NaN'):
    hypervolume([[math.nan, 0.0]], [1.0, 1.0])
  with pytest.raises(ValueError, match='must be finite'):
    hypervolume([[0.0, 0.0]], [1.0, math.inf])
  with pytest.raises(ValueError, match='reference must have the 2'):
    hypervolume([[0.0, 0.0]], [1.0])
  with pytest.raises(ValueError, match='points must have a row'):
    non_dominated([1.0, 2.0])
  with pytest.raises(ValueError, match='others must have the 2'):
    non_dominated([[1.0, 2.0]], [[1.0]])


def test_r2_is_the_mean_over_all_weights():
  """The integral, by moocore, is the limit of means over fine grids."""
  pytest.importorskip('moocore')
  points = _points(1, n=8, m=2)
  exact = r2(points, [-1.0, -2.0])
  np.testing.assert_allclose(
    r2(points, [-1.0, -2.0], parts=2000), exact, rtol=1e-3
  )
  better = np.concatenate([points, points.min(0, keepdims=True) - 0.5])
  assert r2(better, [-1.0, -2.0]) < exact


def test_r2_by_its_definition_in_three_dimensions():
  points = _points(0, n=5, m=3)
  weights = [
    (a / 3, b / 3, (3 - a - b) / 3) for a in range(4) for b in range(4 - a)
  ]
  expected = np.mean(
    [min(max(np.multiply(w, p)) for p in points) for w in weights]
  )
  assert math.isclose(r2(points, [0.0] * 3, parts=3), expected)


def test_edges_of_r2(monkeypatch):
  assert r2(np.zeros((0, 2)), [0.0, 0.0]) == math.inf
  assert r2([[1.0, 1.0]], [1.0, 1.0], parts=3) == 0
  with pytest.raises(ValueError, match='lower ideal'):
    r2([[1.0, 1.0]], [2.0, 0.0])
  with pytest.raises(ValueError, match='parts=None is for two'):
    r2(np.ones((2, 3)), np.zeros(3))
  with pytest.raises(ValueError, match='ideal='):
    r2(np.ones((2, 2)), [0.0])
  monkeypatch.setitem(sys.modules, 'moocore', None)
  with pytest.raises(ImportError, match='moocore'):
    r2([[1.0, 1.0]], [0.0, 0.0])

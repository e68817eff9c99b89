import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from mtljax.diagnostics import plots

AXIS = np.linspace(-1, 1, 7)
BOWL = AXIS[:, None] ** 2 + AXIS[None] ** 2
RELIABILITY = (
  np.array([0.25, np.nan, 0.7, 0.95]),
  np.array([0.2, np.nan, 0.5, 1.0]),
  np.array([2.0, 0.0, 4.0, 10.0]),
)
FRONTS = {'$a$': [[1.0, 2.0], [3.0, 3.0]], 'b': [[2.0, 1.0]]}
DRAW = {
  'reliability': lambda **k: plots.reliability_diagram(RELIABILITY, **k),
  'entropy': lambda **k: plots.entropy_histogram(
    {'in': ([0, 1, 2], [0.6, 0.4]), 'out': ([0, 1, 2], [0.1, 0.9])}, **k
  ),
  'curve': lambda **k: plots.loss_curve(
    AXIS, np.stack([AXIS**2, AXIS], axis=1), ['left', 'right'], **k
  ),
  'contour': lambda **k: plots.loss_contour(AXIS, AXIS[1:], BOWL[:, 1:], **k),
  'conflicts': lambda **k: plots.conflict_curves(
    [1, 2], {'mgda': [0.5, 0.25]}, **k
  ),
  'front': lambda **k: plots.pareto_front(FRONTS, **k),
}


@pytest.mark.parametrize('name', DRAW)
def test_pictures_draw_and_take_axes(name):
  axes = DRAW[name](title='cost in $')
  assert isinstance(axes.figure, Figure)
  assert axes.get_xlabel()
  assert axes.get_ylabel()
  axes.figure.savefig(io.BytesIO(), format='svg')
  left, right = Figure().subplots(1, 2)
  assert DRAW[name](axes=right) is right
  assert not left.has_data()
  assert right.has_data()


def test_empty_bins_have_no_bar():
  bars = DRAW['reliability']().patches
  np.testing.assert_allclose([b.get_height() for b in bars], [0.2, 0.5, 1.0])
  np.testing.assert_allclose([b.get_x() for b in bars], [0.0, 0.5, 0.75])


def test_only_the_front_is_filled():
  axes = DRAW['front']()
  faces = [c.get_facecolors()[:, 3] for c in axes.collections]
  np.testing.assert_array_equal(faces[0], [1, 0])
  np.testing.assert_array_equal(faces[1], [1])
  np.testing.assert_array_equal(axes.lines[0].get_xdata(), [1, 2])


def test_three_objectives_in_space():
  points = {'$a$': [[1.0, 2.0, 3.0], [3.0, 3.0, 3.0]], 'b': [[2.0, 1.0, 0.0]]}
  axes = Figure().add_subplot(projection='3d')
  assert plots.pareto_front_3d(points, axes=axes, title='in $') is axes
  filled, hollow = axes.collections[:2]
  np.testing.assert_array_equal(filled._offsets3d[0], [1.0])
  np.testing.assert_array_equal(hollow._offsets3d[0], [3.0])
  axes.figure.savefig(io.BytesIO(), format='svg')
  with pytest.raises(ValueError, match="projection='3d'"):
    plots.pareto_front_3d(points, axes=Figure().subplots())
  with pytest.raises(ValueError, match=r"points\['a'\].*\(N, 3\)"):
    plots.pareto_front_3d({'a': [[1.0, 2.0]]})


def test_surfaces_with_holes_and_flat_ones_draw():
  holed = BOWL.copy()
  holed[0, 0], holed[1, 1] = np.nan, np.inf
  for losses in (holed, BOWL - 1, np.ones_like(BOWL)):
    axes = plots.loss_contour(AXIS, AXIS, losses)
    axes.figure.savefig(io.BytesIO(), format='svg')


def test_wrong_points_are_named():
  with pytest.raises(ValueError, match=r"points\['a'\] must have shape"):
    plots.pareto_front({'a': [1.0, 2.0]})


def test_diagnostics_load_without_matplotlib():
  code = """
import sys
sys.modules['matplotlib'] = None
import mtljax.diagnostics
try:
  import mtljax.diagnostics.plots
except ImportError as error:
  assert "pip install 'mtljax[experiments]'" in str(error), error
else:
  raise AssertionError('no error')
"""
  subprocess.run([sys.executable, '-c', code], check=True)

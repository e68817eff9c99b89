"""Pictures of the diagnostics: arrays in, matplotlib axes out.

Every function draws on the axes that it is given, or on those of a new figure
of its own, which ``axes.figure.savefig`` writes; pyplot is not used, and no
window opens. Needs matplotlib, which the extra ``experiments`` brings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

try:
  import matplotlib as mpl
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure
except ImportError as error:
  raise ImportError(
    'mtljax.diagnostics.plots needs matplotlib: pip install '
    "'mtljax[experiments]'"
  ) from error

from mtljax.diagnostics._pareto import non_dominated

__all__ = [
  'COLORS',
  'conflict_curves',
  'entropy_histogram',
  'loss_contour',
  'loss_curve',
  'pareto_front',
  'pareto_front_3d',
  'reliability_diagram',
]

# At least 3:1 against white and against a dark page.
COLORS = (
  '#0072b2',
  '#d55e00',
  '#009068',
  '#b8578e',
  '#a87000',
  '#7b62d9',
  '#5f9a1a',
  '#7a7f87',
)
_GRAY = COLORS[-1]
_STYLE = {
  'axes.prop_cycle': mpl.cycler(color=COLORS),
  'axes.spines.right': False,
  'axes.spines.top': False,
  'axes.titlesize': 10,
  'font.family': 'DejaVu Sans',
  'font.size': 9,
  'grid.linewidth': 0.6,
  'legend.frameon': False,
  'lines.linewidth': 1.4,
}


def reliability_diagram(
  reliability: Any, *, axes: Axes | None = None, title: str = ''
) -> Axes:
  """Accuracy against confidence, bin by bin; the diagonal is calibrated.

  A bar below the diagonal is overconfident. Its shade is the bin's share of
  the examples; empty bins have no bar.

  Args:
    reliability: ``(confidence, accuracy, count)`` of equal bins, as
      `mtljax.diagnostics.Calibration.reliability` returns.
    axes: where to draw; None: a new figure.
    title: shown above.

  Returns:
    The axes.

  Example:
    >>> import jax.numpy as jnp
    >>> from mtljax.diagnostics import Calibration, plots
    >>> logits, labels = jnp.array([[2.0, 0.0]]), jnp.array([0])
    >>> got = Calibration.from_logits(logits, labels)
    >>> plots.reliability_diagram(got.reliability()).get_xlabel()
    'confidence'
  """
  confidence, accuracy, count = (np.asarray(x) for x in reliability)
  with mpl.rc_context(_STYLE):
    axes = _axes(axes, title, 'confidence', 'accuracy')
    width = 1 / count.size
    some = np.flatnonzero(count > 0)
    share = count / max(count.sum(), 1)
    for b in some:
      axes.bar(
        (b + 0.5) * width,
        accuracy[b],
        width,
        color=COLORS[0],
        alpha=0.25 + 0.75 * share[b],
        edgecolor=COLORS[0],
      )
    axes.plot([0, 1], [0, 1], color=_GRAY, linewidth=0.8)
    axes.plot(
      confidence[some], accuracy[some], 'o', color=COLORS[1], markersize=3
    )
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect='equal')
  return axes


def entropy_histogram(
  histograms: Mapping[str, tuple[ArrayLike, ArrayLike]],
  *,
  axes: Axes | None = None,
  title: str = '',
) -> Axes:
  """Densities of the predictive entropy, one outline a data set.

  Args:
    histograms: for each label ``(edges, density)``, as
      `mtljax.diagnostics.EntropyHistogram` gives.
    axes: where to draw; None: a new figure.
    title: shown above.

  Returns:
    The axes.

  Example:
    >>> from mtljax.diagnostics import plots
    >>> axes = plots.entropy_histogram({'seen': ([0.0, 1.0], [1.0])})
    >>> axes.get_xlabel()
    'predictive entropy (nats)'
  """
  with mpl.rc_context(_STYLE):
    axes = _axes(axes, title, 'predictive entropy (nats)', 'density')
    for i, (label, (edges, density)) in enumerate(histograms.items()):
      axes.stairs(
        np.asarray(density),
        np.asarray(edges),
        label=_plain(label),
        color=_color(i),
        linewidth=1.4,
      )
    axes.legend()
  return axes


def loss_curve(
  coordinates: ArrayLike,
  losses: ArrayLike,
  labels: Sequence[str] | None = None,
  *,
  axes: Axes | None = None,
  title: str = '',
) -> Axes:
  """Losses along one direction, as `mtljax.diagnostics.loss_surface` gives.

  Args:
    coordinates: shape ``(A,)``.
    losses: shape ``(A,)`` or ``(A, T)``.
    labels: names of the T curves.
    axes: where to draw; None: a new figure.
    title: shown above.

  Returns:
    The axes.

  Example:
    >>> from mtljax.diagnostics import plots
    >>> axes = plots.loss_curve([-1.0, 0.0, 1.0], [1.0, 0.0, 1.0])
    >>> len(axes.lines)
    1
  """
  losses = np.asarray(losses)
  losses = losses[:, None] if losses.ndim == 1 else losses
  with mpl.rc_context(_STYLE):
    axes = _axes(axes, title, 'distance along the direction', 'loss')
    for t in range(losses.shape[1]):
      axes.plot(
        np.asarray(coordinates),
        losses[:, t],
        color=_color(t),
        label=_plain(labels[t]) if labels else None,
      )
    if labels:
      axes.legend()
  return axes


def loss_contour(
  first: ArrayLike,
  second: ArrayLike,
  losses: ArrayLike,
  *,
  num_levels: int = 12,
  axes: Axes | None = None,
  title: str = '',
) -> Axes:
  """Contours of one loss on a plane through the parameters.

  Levels are spaced by the logarithm where all losses are positive, so that the
  valley shows beside the walls. Losses that are not finite are left blank.

  Args:
    first: coordinates along the first direction, shape ``(A,)``.
    second: along the second, shape ``(B,)``.
    losses: shape ``(A, B)``: one task's, or the mean.
    num_levels: how many contours.
    axes: where to draw; None: a new figure.
    title: shown above.

  Returns:
    The axes.

  Example:
    >>> import numpy as np
    >>> from mtljax.diagnostics import plots
    >>> a = np.linspace(-1, 1, 5)
    >>> axes = plots.loss_contour(a, a, 1 + a[:, None] ** 2 + a ** 2)
    >>> axes.get_xlabel()
    'first direction'
  """
  losses = np.ma.masked_invalid(np.asarray(losses, np.float64))
  low, high = float(losses.min()), float(losses.max())
  spaced = np.geomspace if low > 0 else np.linspace
  levels = spaced(low, high, num_levels) if high > low else [low]
  with mpl.rc_context(_STYLE):
    axes = _axes(axes, title, 'first direction', 'second direction')
    lines = axes.contour(
      np.asarray(first),
      np.asarray(second),
      losses.T,
      levels=levels,
      cmap='viridis',
    )
    axes.clabel(lines, fontsize=7, fmt='%.3g')
    axes.plot(0, 0, '+', color=COLORS[1])
    axes.set_aspect('equal')
  return axes


def conflict_curves(
  steps: ArrayLike,
  rates: Mapping[str, ArrayLike],
  *,
  axes: Axes | None = None,
  title: str = '',
) -> Axes:
  """Conflict rates over training, one line a method or pair of tasks.

  Args:
    steps: steps or epochs, shape ``(S,)``.
    rates: for each label the rates, shape ``(S,)``, in [0, 1].
    axes: where to draw; None: a new figure.
    title: shown above.

  Returns:
    The axes.

  Example:
    >>> from mtljax.diagnostics import plots
    >>> axes = plots.conflict_curves([0, 1], {'cagrad': [0.4, 0.5]})
    >>> len(axes.lines)
    1
  """
  with mpl.rc_context(_STYLE):
    axes = _axes(axes, title, 'epoch', 'conflict rate')
    for i, (label, rate) in enumerate(rates.items()):
      axes.plot(
        np.asarray(steps),
        np.asarray(rate),
        color=_color(i),
        label=_plain(label),
      )
    axes.set_ylim(0, 1)
    axes.legend()
  return axes


def pareto_front(
  points: Mapping[str, ArrayLike],
  names: Sequence[str] = ('loss of task 0', 'loss of task 1'),
  *,
  axes: Axes | None = None,
  title: str = '',
) -> Axes:
  """Solutions by two objectives, both minimised, and the front of all.

  Points on the front of all methods together are filled, the others are not;
  the step line bounds what the front dominates.

  Args:
    points: for each method its solutions, shape ``(N, 2)``.
    names: the names of the objectives.
    axes: where to draw; None: a new figure.
    title: shown above.

  Returns:
    The axes.

  Raises:
    ValueError: there are not two objectives.

  Example:
    >>> from mtljax.diagnostics import plots
    >>> axes = plots.pareto_front({'mgda': [[1.0, 2.0]], 'mean': [[2.0, 1.0]]})
    >>> len(axes.get_legend().get_texts())
    2
  """
  arrays = {k: np.asarray(v, np.float64) for k, v in points.items()}
  for label, array in arrays.items():
    if array.ndim != 2 or array.shape[1] != 2:
      raise ValueError(
        f'points[{label!r}] must have shape (N, 2), got {array.shape}.'
      )
  everyone = np.concatenate(list(arrays.values()))
  front = everyone[non_dominated(everyone)]
  front = front[np.lexsort((front[:, 1], front[:, 0]))]
  with mpl.rc_context(_STYLE):
    axes = _axes(axes, title, _plain(names[0]), _plain(names[1]))
    axes.step(
      front[:, 0], front[:, 1], where='post', color=_GRAY, linewidth=0.8
    )
    for i, (label, array) in enumerate(arrays.items()):
      kept = non_dominated(array, everyone)
      axes.scatter(
        array[:, 0],
        array[:, 1],
        s=18,
        facecolors=[_color(i) if k else 'none' for k in kept],
        edgecolors=_color(i),
        label=_plain(label),
      )
    legend = axes.legend()
    for i, handle in enumerate(legend.legend_handles):
      handle.set_facecolor(_color(i))
  return axes


def pareto_front_3d(
  points: Mapping[str, ArrayLike],
  names: Sequence[str] = tuple(f'loss of task {t}' for t in range(3)),
  *,
  axes: Any = None,
  title: str = '',
) -> Any:
  """Solutions by three objectives, all minimised, and the front of all.

  Points on the front of all methods together are filled, the others are not.

  Args:
    points: for each method its solutions, shape ``(N, 3)``.
    names: the names of the objectives.
    axes: where to draw, with ``projection='3d'``; None: a new figure.
    title: shown above.

  Returns:
    The axes.

  Raises:
    ValueError: there are not three objectives, or the axes are flat.

  Example:
    >>> from mtljax.diagnostics import plots
    >>> axes = plots.pareto_front_3d({'mgda': [[1.0, 2.0, 0.5]]})
    >>> axes.get_zlabel()
    'loss of task 2'
  """
  arrays = {k: np.asarray(v, np.float64) for k, v in points.items()}
  for label, array in arrays.items():
    if array.ndim != 2 or array.shape[1] != 3:
      raise ValueError(
        f'points[{label!r}] must have shape (N, 3), got {array.shape}.'
      )
  if axes is not None and not hasattr(axes, 'get_zlim'):
    raise ValueError("axes are flat: make them with projection='3d'.")
  everyone = np.concatenate(list(arrays.values()))
  with mpl.rc_context(_STYLE):
    if axes is None:
      figure = Figure(figsize=(4.6, 3.8), layout='constrained')
      axes = figure.add_subplot(projection='3d')
    axes.set(
      title=_plain(title),
      xlabel=_plain(names[0]),
      ylabel=_plain(names[1]),
      zlabel=_plain(names[2]),
    )
    for i, (label, array) in enumerate(arrays.items()):
      kept = non_dominated(array, everyone)
      for filled in (True, False):
        chosen = array[kept == filled]
        axes.scatter(
          *chosen.T,
          s=18,
          facecolors=_color(i) if filled else 'none',
          edgecolors=_color(i),
          label=_plain(label) if filled == kept.any() else None,
        )
    axes.legend()
  return axes


def _axes(axes: Axes | None, title: str, x: str, y: str) -> Axes:
  if axes is None:
    axes = Figure(figsize=(4.2, 3.2), layout='constrained').subplots()
    axes.grid(visible=True, alpha=0.4)
    axes.set_axisbelow(True)
  axes.set(title=_plain(title), xlabel=x, ylabel=y)
  return axes


def _color(index: int) -> str:
  return COLORS[index % len(COLORS)]


def _plain(text: str) -> str:
  """The text without mathematics."""
  return text.replace('$', r'\$')

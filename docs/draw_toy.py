"""Where each method goes on the two-task toy problem, drawn as SVG."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import optax
from matplotlib import figure
from matplotlib.axes import Axes

import mtljax as mtl
from experiments.studies.toy import problem as toy
from mtljax import _catalog
from mtljax.diagnostics.plots import COLORS

RATE = 0.05
STEPS = 1000
# Losses are then at least about 1, as those that take logarithms need.
SHIFT = 21.0
EDGE = 11.0
STYLE = {
  'axes.spines.right': False,
  'axes.spines.top': False,
  'font.family': 'DejaVu Sans',
  'font.size': 9,
  'legend.frameon': False,
  'svg.hashsalt': 'mtljax',  # the same bytes from the same numbers
}


#: Methods whose update is no weighted sum of the gradients.
WITHOUT_WEIGHTS = ('graddrop', 'meta_balance', 'trimmed_mean')


class Trajectory(NamedTuple):
  """Three runs: points ``(3, STEPS + 1, 2)``, weights ``(3, STEPS, 2)``."""

  points: np.ndarray
  weights: np.ndarray | None


def build(name: str) -> tuple[mtl.Aggregator, optax.GradientTransformation]:
  """The method for two tasks, and the steps that it is drawn with."""
  if name == 'adatask':
    method = mtl.adatask(2, RATE)
  elif name == 'per_task_optimizer':
    method = mtl.per_task_optimizer(optax.adam(RATE), 2)
  else:
    method = _catalog.example_method(name)
  if method.info.is_optimizer:
    return method, method
  return method, optax.chain(method, optax.adam(RATE))


def hypergradient(
  method: mtl.Aggregator, point: jax.Array, state: Any
) -> jax.Array:
  """On the same losses, with the rule's weights in the step ahead."""
  asked = method.weighting.lookahead
  fn = mtl.hypergradient(
    lambda point: toy.losses(point) + SHIFT,
    inner_learning_rate=asked.inner_learning_rate,
    separate=asked.separate,
  )
  return fn(point, asked.weights(state[0].weighting_state), (), ())


def run(name: str) -> Trajectory:
  """Trains from the three starts of the papers, in one program."""
  method, tx = build(name)
  grad_fn = mtl.value_and_task_grads(lambda point: toy.losses(point) + SHIFT)
  has_weights = not method.info.is_optimizer and name not in WITHOUT_WEIGHTS

  def step(carry, _):
    point, state = carry
    losses, grads = grad_fn(point)
    extra = {}
    if 'cross_gramian' in method.needs:
      extra['cross_gramian'] = mtl.cross_gramian(grads, grads)
    if 'hypergradient' in method.needs:
      extra['hypergradient'] = hypergradient(method, point, state)
    if 'feature_norms' in method.needs:  # the point as a batch of equal parts
      chunks = method.weighting.chunks
      squares = jnp.sum(grads**2, axis=1, keepdims=True)
      extra['feature_norms'] = jnp.tile(squares / chunks, (1, chunks))
    if 'alignment' in method.needs:  # there are no heads
      extra['alignment_fn'] = jnp.zeros_like
    updates, state = tx.update(grads, state, point, losses=losses, **extra)
    point = optax.apply_updates(point, updates)
    weights = mtl.get_weights(state) if has_weights else jnp.zeros(2)
    return (point, state), (point, weights)

  @jax.jit
  def go(starts):
    state = tx.init(starts[0])

    def one(start):
      carry = start, state
      _, (points, weights) = jax.lax.scan(step, carry, length=STEPS)
      return jnp.concatenate([start[None], points]), weights

    return jax.vmap(one)(starts)

  points, weights = jax.device_get(go(jnp.asarray(toy.STARTS, jnp.float32)))
  return Trajectory(points, weights if has_weights else None)


def landscape() -> tuple[np.ndarray, np.ndarray]:
  """A side of the square, and the mean loss over it."""
  side = np.linspace(-EDGE, EDGE, 45, dtype=np.float32)
  grid = np.stack(np.meshgrid(side, side), axis=-1)
  heights = jax.jit(jax.vmap(jax.vmap(toy.losses)))(grid)
  return side, np.asarray(heights).mean(-1)


def draw_ground(
  axes: Axes, ground: tuple[np.ndarray, np.ndarray], *, size: float = 1.0
) -> None:
  """Lines of equal mean loss, and the Pareto front."""
  side, heights = ground
  axes.contour(
    side, side, heights, levels=8, colors=COLORS[-1], linewidths=0.4 * size
  )
  front = toy.pareto_front()
  axes.plot(
    *front.T, color=COLORS[3], linewidth=3 * size, solid_capstyle='round'
  )
  axes.plot(*toy.MEAN_OPTIMUM, '*', color=COLORS[4], markersize=10 * size)
  axes.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), aspect='equal')


def draw_paths(
  axes: Axes,
  trajectory: Trajectory,
  ground: tuple[np.ndarray, np.ndarray],
  *,
  size: float = 1.0,
) -> None:
  """The three runs, and the ground under them."""
  draw_ground(axes, ground, size=size)
  for points, color in zip(trajectory.points, COLORS, strict=False):
    axes.plot(*points.T, color=color, linewidth=1.3 * size)
    axes.plot(*points[0], 's', color=color, markersize=5 * size)
    axes.plot(*points[-1], 'o', color=color, markersize=5 * size)


def draw_method(
  path: pathlib.Path,
  trajectory: Trajectory,
  ground: tuple[np.ndarray, np.ndarray],
) -> None:
  """One method: where it went, and the first task's share of the weights."""
  panels = 1 if trajectory.weights is None else 2
  with mpl.rc_context(STYLE):
    fig = figure.Figure(figsize=(3.6 * panels, 3.4), layout='constrained')
    axes = fig.subplots(1, panels, squeeze=False)[0]
    draw_paths(axes[0], trajectory, ground)
    axes[0].set(xlabel='x1', ylabel='x2', title='parameters')
    if trajectory.weights is not None:
      total = np.abs(trajectory.weights).sum(-1)
      share = trajectory.weights[..., 0] / np.where(total > 0, total, np.nan)
      every = slice(None, None, 4)
      for row, color in zip(share, COLORS, strict=False):
        axes[1].plot(
          np.arange(STEPS)[every], row[every], color=color, linewidth=1
        )
      axes[1].set(
        xlabel='step',
        ylabel='w1 / (|w1| + |w2|)',
        title="first task's share of the weights",
        ylim=(min(-0.03, np.nanmin(share) - 0.03), 1.03),
      )
    save(fig, path)


def draw_small(
  path: pathlib.Path,
  trajectory: Trajectory,
  ground: tuple[np.ndarray, np.ndarray],
) -> None:
  """Where one method went, for a page of many."""
  with mpl.rc_context(STYLE):
    fig = figure.Figure(figsize=(1.6, 1.6), layout='constrained')
    axes = fig.subplots()
    draw_paths(axes, trajectory, ground, size=0.7)
    axes.set(xticks=[], yticks=[])
    save(fig, path)


def draw(folder: pathlib.Path, names: Sequence[str]) -> dict[str, Trajectory]:
  """Two pictures a method: ``<name>.svg``, and a small one.

  Args:
    folder: where they go.
    names: of the methods.

  Returns:
    What was drawn, by method.
  """
  ground, found = landscape(), {}
  for name in names:
    found[name] = run(name)
    draw_method(folder / f'{name}.svg', found[name], ground)
    draw_small(folder / f'{name}_small.svg', found[name], ground)
  return found


def save(fig: figure.Figure, path: pathlib.Path) -> None:
  """As an SVG without the date."""
  path.parent.mkdir(parents=True, exist_ok=True)
  fig.savefig(path, format='svg', metadata={'Date': None})

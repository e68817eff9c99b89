"""Writes docs/methods.md from the library: python docs/make_methods.py."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import jax.numpy as jnp
import optax

import mtljax as mtl
from mtljax.training import make_train_step

PAGE = pathlib.Path(__file__).with_name('methods.md')
ARGUMENTS = {
  'fixed': {'weights': (1.0, 1.0)},
  'krum': {'num_byzantine': 0},
  'pivrg': {'scores': (1.0, 1.0)},
}
# Around a rule, not a rule by itself.
WRAPPERS = ('cr_mogm', 'every_k', 'freeze_after')
ROUTES = ('losses', 'jacobian', 'gramian', 'features')
HEADER = (
  'method',
  'reads',
  'route by default',
  'other routes',
  'invariance',
  'heads weighted',
  'may be negative',
  'random',
  'paper',
)
TOP = """\
# Methods

Made by `python docs/make_methods.py` from the library; do not edit it.

Each row is `mtl.<method>(num_tasks, ...)`, an optax transformation, and
`mtl.weightings.<method>(...)`, the rule inside it. Formulas, options and edge
cases are in their docstrings: `help(mtl.weightings.cagrad)`.

"""
BOTTOM = """
- **reads**: what the weights are computed from: the losses, the Gramian of
  the tasks' gradients on the shared parameters, or the cross-Gramian of their
  gradients on two independent batches (`mtl.cross_gramian`).
- **route**: how `mtljax.training.make_train_step` gets it; see
  [routes](routes.md). `features` is an approximation for methods that read the
  Gramian, and needs a `mtl.Staged` loss.
- **invariance**: what a change of one loss's scale does to the update of the
  shared parameters: *full*, nothing; *direction*, only its length may change;
  *none*, more.
- **heads weighted**: whether task-specific parameters are weighted too, as the
  paper does; `weight_heads=` decides otherwise.
- **may be negative**: a task's weight can be below 0; its head is then never
  weighted.

The facts are those of the default arguments. `fairgrad(alpha=1.0)` has full
invariance, and `mgda(normalize='loss')` and `'loss+'` read the losses too.

Around any of them: `mtl.cr_mogm` averages the weights over steps (Zhou et al.,
2022, <https://openreview.net/forum?id=ScwfQ7hdwyP>), `mtl.every_k` computes
them at every k-th step only, and `mtl.freeze_after` keeps them constant after
some steps.

Around any but `modo` and `sdmgrad`: `mtl.sam` takes all gradients at one point
that is worst for the summed loss (Foret et al., 2021,
<https://arxiv.org/abs/2010.01412>), by any route of the method inside;
`mtl.flat_regions` perturbs each task by itself and aggregates losses and
flatness apart (F-MTL; Phan et al., 2022, <https://arxiv.org/abs/2211.13723>),
by the jacobian route.
"""


def routes(method: mtl.Aggregator) -> tuple[str, list[str]]:
  """The route taken by default, and the others that the method can take."""
  loss = mtl.Staged(lambda w: w, [lambda w, z: jnp.sum(z)] * 2)

  def taken(route):
    step = make_train_step(method, optax.identity(), loss, route=route)
    return step.route

  default, others = taken('auto'), []
  for route in ROUTES:
    try:
      taken(route)
    except ValueError:
      continue
    if route != default:
      others.append(route)
  return default, others


def row(name: str) -> list[str]:
  """The cells of one method."""
  arguments = ARGUMENTS.get(name, {})
  weighting = getattr(mtl.weightings, name)(**arguments)
  info = weighting.info
  reads = [need.replace('_', '-') for need in sorted(weighting.needs)]
  needs_gradients = weighting.needs & {'gramian', 'cross_gramian'}
  # A method that reads no gradients gains nothing by the costlier routes.
  default, others = routes(getattr(mtl, name)(2, **arguments))
  authors, _, link = info.paper.rpartition(', ')
  return [
    f'`{name}`',
    ', '.join(reads) or 'nothing',
    default,
    ', '.join(others) if needs_gradients else '',
    info.invariance,
    'yes' if info.weight_heads else 'no',
    'yes' if info.signed else 'no',
    'yes' if info.random else 'no',
    f'[{authors}]({link})' if info.paper else '',
  ]


def table(rows: Sequence[Sequence[str]]) -> str:
  """A Markdown table, the first row its header."""
  lines = ['| ' + ' | '.join(cells) + ' |' for cells in rows]
  lines.insert(1, '|' + ' --- |' * len(rows[0]))
  return '\n'.join(lines) + '\n'


def render() -> str:
  """The page."""
  names = [name for name in mtl.weightings.__all__ if name not in WRAPPERS]
  rows = [HEADER, *map(row, names)]
  return TOP + table(rows) + BOTTOM


if __name__ == '__main__':
  PAGE.write_text(render())

"""Writes docs/methods.md from the library: python docs/make_methods.py."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import mtljax as mtl

PAGE = pathlib.Path(__file__).with_name('methods.md')
HEADER = (
  'method',
  'reads',
  'routes',
  'invariance',
  'heads weighted',
  'may be negative',
  'stateful',
  'random',
  'paper',
)
TOP = """\
# Methods

Made by `python docs/make_methods.py` from `mtl.methods()`; do not edit it. What
to take when is on [another page](which_method.md).

Each row is `mtl.<method>(num_tasks, ...)`, an optax transformation. Where it
reads losses or a Gramian, `mtl.weightings.<method>(...)` is the rule inside it.
Formulas, options and edge cases are in the docstrings, `help(mtl.cagrad)`, and
on a page for each method. What is in `mtl.contrib` is a reconstruction.

"""
BOTTOM = """
- **reads**: what the weights are computed from: the losses, the Gramian of
  the tasks' gradients on the shared parameters, or the cross-Gramian of their
  gradients on two independent batches (`mtl.cross_gramian`). *hypergradient*:
  the derivatives of validation losses after a step by the weights in it
  (`mtl.hypergradient`). *feature-norms*: how long the tasks' gradients at the
  features are (`mtl.value_and_feature_norms`). *alignment*: how the agreement
  of these gradients answers to each head (`mtl.alignment_fn`). *gradients*: the
  update is made of the gradients themselves.
- **routes**: how `mtljax.training.make_train_step` can get it, its default
  first; see [routes](routes.md). `features` is an approximation for methods
  that read the Gramian, and needs a `mtl.Staged` loss.
- **invariance**: what a change of one loss's scale does to the update of the
  shared parameters: *full*, nothing; *direction*, only its length may change;
  *none*, more.
- **heads weighted**: whether task-specific parameters are weighted too, as the
  paper does; `weight_heads=` decides otherwise.
- **may be negative**: a task's weight can be below 0; its head is then never
  weighted.

- **stateful**: a step depends on the steps before it.
- **random**: it draws numbers, with a key in its state.

`adatask` and `per_task_optimizer` are optimizers as well as methods: they
return the step itself, and nothing comes after them. `signsgd` is a plain
optimizer, to the right of a method.

Methods of other papers that are ones of these: NTKMTL (of one sample) and
DiBS-MTL (of one step) have the direction of `slw`; PSMGD is `every_k` around
`mgda`, up to a short average (`cr_mogm`).

The facts are those of the default arguments. `fairgrad(alpha=1.0)` has full
invariance, and `mgda(normalize='loss')` and `'loss+'` read the losses too.

Around any that does not read *gradients*: `mtl.cr_mogm` averages the weights
over steps (Zhou et al., 2022, <https://openreview.net/forum?id=ScwfQ7hdwyP>),
`mtl.every_k` computes them at every k-th step only, and `mtl.freeze_after`
keeps them constant after some steps. `mtl.select` takes one of several methods
by a number, for [sweeps](sweeps.md) over methods.

Around any but `auto_lambda`, `moml`, `modo`, `sdmgrad`, `ntkmtl_sr`, `cons_mtl`
and the optimizers: `mtl.sam` takes all gradients at one point that is worst for
the summed loss (Foret et al., 2021, <https://arxiv.org/abs/2010.01412>), by any
route of the method inside;
`mtl.flat_regions` perturbs each task by itself and aggregates losses and
flatness apart (F-MTL; Phan et al., 2022, <https://arxiv.org/abs/2211.13723>),
by the jacobian route; `mtl.samo` perturbs each task between the mean's
direction and a zeroth-order estimate of its own (Ban et al., 2025,
<https://arxiv.org/abs/2507.07883>); `mtl.gradient_norm_penalty` mixes the
gradients here and there (Zhao et al., 2022,
<https://arxiv.org/abs/2202.03599>). See [sharpness](sharpness.md).

```{toctree}
:hidden:
:glob:

generated/methods/*
```
"""


def row(method: mtl.MethodSummary) -> list[str]:
  """The cells of one method."""
  authors, _, link = method.paper.rpartition(', ')
  flags = (
    method.weight_heads,
    method.signed,
    method.stateful,
    method.random,
  )
  return [
    f'`contrib.{method.name}`' if method.contrib else f'`{method.name}`',
    ', '.join(method.needs).replace('_', '-') or 'nothing',
    ', '.join(method.routes),
    method.invariance,
    *('yes' if flag else 'no' for flag in flags),
    f'[{authors}]({link})' if method.paper else '',
  ]


def table(rows: Sequence[Sequence[str]]) -> str:
  """A Markdown table, the first row its header."""
  lines = ['| ' + ' | '.join(cells) + ' |' for cells in rows]
  lines.insert(1, '|' + ' --- |' * len(rows[0]))
  return '\n'.join(lines) + '\n'


def render() -> str:
  """The page."""
  rows = [HEADER, *map(row, mtl.methods())]
  return TOP + table(rows) + BOTTOM


if __name__ == '__main__':
  PAGE.write_text(render())

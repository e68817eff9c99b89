"""Writes a page a method, generated/methods/<name>.md, for the site."""

from __future__ import annotations

import inspect
import pathlib
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import draw_moving
import draw_toy

import mtljax as mtl
from mtljax import _catalog

HERE = pathlib.Path(__file__).parent
GENERATED = HERE / 'generated'
PAGES = GENERATED / 'methods'
IMAGES = GENERATED / 'images'
DONE = IMAGES / 'done'  # written last: all pictures are as old or younger
READS = {
  'losses': 'the losses',
  'gramian': 'the Gramian of the gradients',
  'cross_gramian': 'the Gramian of the gradients of two batches',
  'hypergradient': 'how validation losses answer to the weights of a step',
  'feature_norms': 'the norms of the gradients at the features',
  'alignment': "how gradients at the features answer to the tasks' heads",
  'gradients': 'the gradients themselves',
}
PASSES = {
  'losses': 'one backward pass of the weighted loss',
  'jacobian': 'T backward passes, with the T gradients kept',
  'gramian': 'T + 1 backward passes, with no Jacobian kept',
  'layerwise': (
    "T passes of the layers' signals and one of the weighted loss, with no "
    'Jacobian kept'
  ),
}
INVARIANCE = {
  'full': 'the scale of a loss changes nothing',
  'direction': "the scale of a loss changes the update's length only",
  'none': "the scale of a loss changes the update's direction",
}


def summary(name: str) -> str:
  """The first sentence of a method's docstring."""
  return (inspect.getdoc(mtl.get_method(name)) or '').split('\n\n')[0]


def facts(method: mtl.MethodSummary) -> list[tuple[str, str]]:
  """What `mtljax.methods` knows, in words."""
  reads = ' and '.join(READS[need] for need in method.needs) or 'nothing'
  cost = PASSES[method.routes[0]]
  if 'hypergradient' in method.needs:
    cost += ', beside those of a step ahead and of a validation batch'
  if 'alignment' in method.needs:
    cost += (
      ', beside a forward pass of the trunk and two back through each head'
    )
  others = ', '.join(f'`{route}`' for route in method.routes[1:])
  found = [
    ('reads', reads),
    ('costs', f'{cost} (route `{method.routes[0]}`)'),
    ('other routes', others),
    ('invariance', f'{method.invariance}: {INVARIANCE[method.invariance]}'),
    ('heads', 'weighted' if method.weight_heads else 'not weighted'),
    ('weights', 'may be negative' if method.signed else 'never negative'),
    (
      'memory',
      'steps depend on those before' if method.stateful else 'none',
    ),
    ('randomness', 'a key in the state' if method.random else 'none'),
  ]
  if method.paper:
    authors, _, link = method.paper.rpartition(', ')
    found.append(('paper', f'[{authors}]({link})'))
  return [(key, text) for key, text in found if text]


def signature(fun: Callable[..., Any]) -> str:
  """Names and defaults; the types are told with the arguments."""
  found = inspect.signature(fun)
  bare = [
    p.replace(annotation=inspect.Parameter.empty)
    for p in found.parameters.values()
  ]
  return str(inspect.Signature(bare))


def rule(name: str) -> str:
  """How the weighting inside is called, with its example."""
  home, place = mtl.weightings, 'mtljax.weightings'
  if hasattr(mtl.contrib.weightings, name):
    home, place = mtl.contrib.weightings, 'mtljax.contrib.weightings'
  if not hasattr(home, name):
    return ''
  factory = getattr(home, name)
  doc = inspect.getdoc(factory) or ''
  example = re.search(r'^Examples?:\n((?:  .*\n|\n)+)', doc, re.M)
  assert example is not None, f'{name} has no example'
  return RULE.format(
    name=f'{place}.{name}',
    signature=signature(factory),
    example=textwrap.dedent(example[1]).strip(),
  )


RULE = """
## The rule inside

```{{eval-rst}}
.. py:function:: {name}{signature}

   The weighting: from task statistics to weights, see `mtljax.Weighting`.
```

```python
{example}
```
"""
PAGE = """\
# {name}

{summary}

| | |
|---|---|
{facts}

![Where {name} goes from three starts](../images/{name}.svg)

On the two-task [toy problem](../../toy.md) {how}, {steps:,} steps at {rate:g}:
squares are starts, dots ends. Lines of equal mean loss; the thick line is the
Pareto front, the star the minimum of the mean.

```{{eval-rst}}
.. autofunction:: {place}.{name}{signature}
```
{rule}"""


def how(method: mtl.MethodSummary) -> str:
  """The arguments that a method is drawn with."""
  arguments = _catalog.EXAMPLE_ARGUMENTS.get(method.name, {})
  if method.is_optimizer:
    return 'by itself'
  if not arguments:
    return 'with its defaults and Adam'
  said = ', '.join(f'{key}={value}' for key, value in arguments.items())
  return f'with `{said}` and Adam'


def render(method: mtl.MethodSummary) -> str:
  """The page of a method."""
  rows = '\n'.join(f'| **{key}** | {text} |' for key, text in facts(method))
  return PAGE.format(
    name=method.name,
    summary=summary(method.name),
    facts=rows,
    how=how(method),
    steps=draw_toy.STEPS,
    rate=draw_toy.RATE,
    signature=signature(mtl.get_method(method.name)),
    place='mtljax.contrib' if method.contrib else 'mtljax',
    rule=rule(method.name),
  )


def write(path: pathlib.Path, text: str) -> None:
  """Writes what has changed, so that a second build is short."""
  path.parent.mkdir(parents=True, exist_ok=True)
  if not path.exists() or path.read_text() != text:
    path.write_text(text)


def gallery(names: Sequence[str]) -> str:
  """A small picture a method, each a link to its page."""
  return '\n'.join(
    f'- [![{name}](generated/images/{name}_small.svg) {name}]'
    f'(generated/methods/{name}.md)'
    for name in names
  )


def make() -> None:
  """All pages, and their pictures where the library is younger than they."""
  names = [method.name for method in mtl.methods()]
  for method in mtl.methods():
    write(PAGES / f'{method.name}.md', render(method))
  write(GENERATED / 'gallery.txt', gallery(names))
  sources = [*pathlib.Path(mtl.__file__).parent.rglob('*.py')]
  drawn_by = (draw_moving, draw_toy, draw_toy.toy)
  sources += [pathlib.Path(str(module.__file__)) for module in drawn_by]
  newest = max(path.stat().st_mtime for path in sources)
  if not DONE.exists() or DONE.stat().st_mtime < newest:
    found = draw_toy.draw(IMAGES, names)
    runs = {name: found[name].points for name in draw_moving.METHODS}
    write(IMAGES / 'moving.svg', draw_moving.render(runs))
    DONE.touch()


def linked(text: str) -> str:
  """The table of methods.md, each name a link to its page."""
  return re.sub(
    r'^\| `((?:contrib\.)?(\w+))` \|',
    r'| [`\1`](generated/methods/\2.md) |',
    text,
    flags=re.M,
  )

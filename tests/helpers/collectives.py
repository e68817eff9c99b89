"""What a compiled program moves between devices."""

import math
import re

import jax

_OPERATION = re.compile(
  r'= (\(.*?\)|\S+) (all-reduce|all-gather|all-to-all|reduce-scatter|'
  r'collective-permute)\((.*)'
)
_GROUP = re.compile(r'replica_groups=(?:\{\{([\d,]*)\}|\[\d+,(\d+)\])')


def collectives(compiled):
  """``(kind, [shape, ...])`` of each, in the text of the compiled program."""
  return [
    (kind, _shapes(types, r'\w+'))
    for types, kind, _ in _OPERATION.findall(compiled.as_text())
  ]


def received(compiled):
  """Bytes of float64 that a device receives; of a sum, to have a part of it.

  XLA for CPU sums everywhere and cuts, where others sum and split. What only
  changes places is left out.
  """
  total = 0
  for types, kind, rest in _OPERATION.findall(compiled.as_text()):
    if kind.startswith('all-'):
      devices = _group_size(rest)
      size = sum(map(math.prod, _shapes(types, 'f64')))
      total += 8 * size * (devices - 1) / devices
  return total


def _shapes(types, dtype):
  return [
    [int(n) for n in shape.split(',') if n]
    for shape in re.findall(dtype + r'\[([\d,]*)\]', types)
  ]


def _group_size(rest):
  """How many devices take part, of what stands after the operation's name."""
  found = _GROUP.search(rest)
  if found and found[1]:
    return len(found[1].split(','))
  return int(found[2]) if found and found[2] else jax.device_count()

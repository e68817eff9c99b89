"""Weights of a network that computes in bfloat16, beside those in float64.

python -m benchmarks.bf16 [--full]

The encoder of `benchmarks._encoders` with parameters in float32 that its trunk
casts to bfloat16, heads and losses in float32: Gramians layer by layer and from
gradients, and the weights that methods make of them. Errors are relative to the
largest entry of what float64 gives throughout; ``float32`` is the same network
without the cast. Small, unless --full.
"""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mtljax as mtl
from benchmarks import _encoders, _methods

METHODS = ('mgda', 'upgrad', 'cagrad', 'nash_mtl')


def cast(tree: Any, dtype: Any) -> Any:
  """The tree with its floating arrays in another dtype."""
  return jax.tree.map(
    lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x,
    tree,
  )


def in_dtype(loss: mtl.Staged, dtype: Any) -> mtl.Staged:
  """The loss whose trunk computes in a dtype, its heads in the parameters'."""

  def make_head(head):
    def wide_head(params, z, batch, *rest):
      widest = jax.tree.leaves(params)[0].dtype
      return head(params, cast(z, widest), batch, *rest)

    return wide_head

  return mtl.Staged(
    lambda p, b, *rest: loss.trunk(cast(p, dtype), cast(b, dtype), *rest),
    [make_head(head) for head in loss.heads],
  )


def gramian_of(case: Any, dtype: Any, wide: Any, layerwise: bool) -> np.ndarray:
  """The Gramian ``(T, T)``, parameters in ``wide`` and trunk in ``dtype``."""
  params, model_state, labels = case.init()
  fun = mtl.value_and_gramian(
    in_dtype(case.loss, dtype),
    labels=labels,
    has_aux=True,
    layerwise=layerwise,
  )
  given = cast((params, case.batch, model_state), wide)
  return np.asarray(jax.jit(fun)(*given, jax.random.key(0))[1])


def weights_of(name: str, gramian: np.ndarray) -> np.ndarray:
  """A method's weights."""
  rule = getattr(mtl.weightings, name)()
  stats = mtl.TaskStats(
    losses=jnp.ones(len(gramian), gramian.dtype), gramian=jnp.asarray(gramian)
  )
  return np.asarray(rule.update(stats, rule.init(len(gramian)))[0])


def error(got: np.ndarray, want: np.ndarray) -> float:
  """The largest, relative to the largest entry."""
  return float(np.max(np.abs(got - want)) / np.max(np.abs(want)))


def errors(quick: bool) -> dict[tuple[str, str], float]:
  """By the arithmetic and what: the error."""
  case = _encoders.make_case('encoder', quick)
  with jax.enable_x64(True):
    want = gramian_of(case, jnp.float64, jnp.float64, False)
    wanted = {name: weights_of(name, want) for name in METHODS}
  ways = {
    'float32': (jnp.float32, True),
    'bfloat16, rows': (jnp.bfloat16, False),
    'bfloat16, layerwise': (jnp.bfloat16, True),
  }
  found = {}
  for way, (dtype, layerwise) in ways.items():
    got = gramian_of(case, dtype, jnp.float32, layerwise)
    assert got.dtype == np.float32
    found[way, 'Gramian'] = error(got, want)
    for name in METHODS:
      found[way, name] = error(weights_of(name, got), wanted[name])
  return found


def main() -> None:
  """Prints the table."""
  if set(sys.argv[1:]) - {'--full'}:
    raise SystemExit(__doc__)
  found = errors('--full' not in sys.argv)
  columns = ('Gramian', *METHODS)
  _methods.head(['trunk', *columns])
  for way in dict.fromkeys(way for way, _ in found):
    _methods.row([way, *(f'{found[way, x]:.1e}' for x in columns)])


if __name__ == '__main__':
  main()
